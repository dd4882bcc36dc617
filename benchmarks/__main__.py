"""`python -m benchmarks [NAME ...] [--json FILE] [--quick]`: time jaxmlp and what one would use instead."""

import importlib
import json
import sys
from pathlib import Path

NAMES = ("small", "population", "loop")


def main(argv: list[str] | None = None) -> int:
    """Run the named benchmarks and print their rows."""
    try:
        import tyro
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        print(f"{error}; the benchmarks need: pip install 'jaxmlp[benchmarks]'", file=sys.stderr)
        return 2

    from benchmarks.timing import header
    from jaxmlp import _door

    def options(
        names: tyro.conf.Positional[tuple[str, ...]] = (), json: Path | None = None, quick: bool = False
    ) -> tuple[tuple[str, ...], Path | None, bool]:
        """Time jaxmlp beside its peers, in turn in one run.

        Args:
            names: which benchmarks; all where none is named.
            json: file for the rows.
            quick: a few steps only, to see that it runs.
        """
        return names, json, quick

    names, file, quick = tyro.cli(options, args=argv, prog="python -m benchmarks")
    rows = []
    console = Console()
    for name in names:
        try:
            _door.one_of("a benchmark", name, NAMES)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
    for name in names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        console.print(header(f"python -m benchmarks {name}"), highlight=False)
        rows += module.run(quick=quick)
    table = Table(box=None, pad_edge=False)
    for column in ("benchmark", "contender"):
        table.add_column(column)
    for column in ("ratio", "median", "spread", "unit"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        spread = f"{row.low:,.1f} - {row.high:,.1f}"
        table.add_row(row.benchmark, row.contender, f"{row.ratio:.2f}", f"{row.value:,.1f}", spread, row.unit)
    console.print(table)
    if file is not None:
        file.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    import jaxmlp

    jaxmlp.use_all_cores()  # before JAX starts
    sys.exit(main())
