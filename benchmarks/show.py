"""What a benchmark shows: a table with the ratios first, and a figure of them."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.timing import Row
from experiments.report import BLUE, GREY, ORANGE, canvas

FOLDER = Path("figures")


def show(name: str, rows: list[Row]) -> None:
    """Print the rows as a table and save their figure."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("contender", overflow="fold")
    for column in ("ratio", "median", "spread", "unit"):
        table.add_column(column, justify="right", no_wrap=True)
    title = None
    for row in rows:
        if row.benchmark != title:
            title = row.benchmark
            table.add_row(f"[bold]{title}[/]")
        spread = f"{number(row.low)} - {number(row.high)}" if row.low != row.high else ""
        table.add_row(f"  {row.contender}", f"{row.ratio:.2f}", number(row.value), spread, row.unit)
    console.print(table)
    if rows:
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"benchmark_{name}.png"
        bars(rows, path)
        console.print(f"figure {path}", highlight=False, soft_wrap=True)


def number(value: float) -> str:
    """Return three digits or more, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def bars(rows: list[Row], path: Path, columns: int = 3) -> None:
    """Draw each benchmark's ratios as bars: how many times as long as the first contender's work takes."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row.benchmark}, {row.unit}", []).append(row)
    longest, columns = max(map(len, groups.values())), min(columns, len(groups))
    figure, axes = canvas(columns, -(-len(groups) // columns), width=4.6, height=1.2 + 0.28 * longest)
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    for axis, (title, mine) in zip(axes, groups.items(), strict=False):
        names, ratios = [row.contender for row in mine], [row.ratio for row in mine]
        ours = [BLUE if name.startswith(("jaxmlp", "population")) else GREY for name in names]
        drawn = axis.barh(names, ratios, color=ours)
        axis.bar_label(drawn, [f" {ratio:.3g}" for ratio in ratios])
        axis.axvline(1, color=ORANGE, linewidth=1, zorder=0)
        axis.invert_yaxis()
        axis.set(title=title, xlabel="times as long as the first", xlim=(0, 1.2 * max(ratios)))
        if max(ratios) > 20 * min(ratios) > 0:
            axis.set(xscale="log", xlim=(min(ratios) / 2, 3 * max(ratios)))
        axis.grid(visible=False, axis="y")
    figure.savefig(path)
