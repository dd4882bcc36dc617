"""What an experiment says and shows: claims, progress, figures, and the table at the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jax
import matplotlib
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.table import Table

matplotlib.rcParams |= {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.dpi": 130,
    "figure.constrained_layout.use": True,
}
LARGE = 0.03  # seconds of translation from which on a program's compilation is worth a word
BLUE, ORANGE, GREEN, RED, GREY = "#2864b4", "#e07b1a", "#2e8b57", "#c0392b", "#8a8f98"


@dataclass(frozen=True)
class Claim:
    """One sentence of the notes, what it predicts, and what came out."""

    claim: str
    expected: str
    measured: str
    holds: bool


@dataclass
class Report:
    """Collects claims and figures; tells a terminal what goes on now, and a pipe what is done."""

    folder: Path
    console: Console = field(default_factory=Console)
    claims: dict[str, list[Claim]] = field(default_factory=dict)
    _name: str = ""
    _status: Status | None = None
    _stage: str = ""
    _compiling: float = 0.0  # seconds, in the experiment at hand
    _told: bool = False  # whether this stage has said that it compiles

    def _watch(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        """Say when a program of some size has been translated and XLA is about to compile it."""
        if event.endswith("backend_compile_duration"):
            self._compiling += duration_secs
        elif event.endswith("jaxpr_to_mlir_module_duration") and duration_secs > LARGE and not self._told:
            self._told = True
            if self._status is not None:
                self._status.update(f"[bold]{self._name}[/]  {self._stage}: compiling ...")
            elif not self.console.is_terminal:
                self.console.print("   compiling ...", highlight=False)

    @contextmanager
    def experiment(self, name: str, question: str) -> Iterator[None]:
        """Announce an experiment, and its time and claims when it is done."""
        self._name, self.claims[name], self._stage = name, [], question
        self._compiling, self._told = 0.0, False
        start = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._watch)
        try:
            if self.console.is_terminal:
                with self.console.status(f"[bold]{name}[/]  {question}") as self._status:
                    yield
            else:
                self.console.print(f"{name}: {question}", highlight=False, soft_wrap=True)
                yield
        finally:
            jax.monitoring.unregister_event_duration_listener(self._watch)
        seconds = time.perf_counter() - start
        held = sum(claim.holds for claim in self.claims[name])
        mark = "[green]ok[/]" if held == len(self.claims[name]) else "[red]no[/]"
        self.console.print(
            f"{mark} [bold]{name:<14}[/] {held} of {len(self.claims[name])} claims hold, {seconds:.1f} s, "
            f"{self._compiling:.1f} of them compiling",
            highlight=False,
        )

    def skip(self, name: str, reason: str) -> None:
        """Say that an experiment is left out, and why."""
        self.console.print(f"-- {name:<14} left out, it {reason}", highlight=False, markup=False, soft_wrap=True)

    def stage(self, text: str) -> None:
        """Say what is being computed now."""
        self._stage, self._told = text, False
        if self._status is not None:
            self._status.update(f"[bold]{self._name}[/]  {text}")
        elif not self.console.is_terminal:
            self.console.print(f"   {text}", highlight=False, soft_wrap=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal's last line to someone else."""
        if self._status is not None:
            self._status.stop()
        yield
        if self._status is not None:
            self._status.start()

    def progress(self, epochs: int) -> Callable[[int, object], None] | None:
        """Return a callback that shows how far a population is; None, which costs nothing, in a pipe."""
        if self._status is None:
            return None
        status, text = self._status, self._stage

        def show(done: int, going: object) -> None:
            bar = "━" * round(20 * done / epochs)
            status.update(f"[bold]{self._name}[/]  {text} [green]{bar:<20}[/] epoch {done} of {epochs}")

        return show

    def say(self, text: str) -> None:
        """Print a finding that is no claim, such as a time, which is the machine's."""
        for line in text.splitlines():
            self.console.print(f"   {line}", highlight=False)

    def claim(self, claim: str, *, expected: str, measured: str, holds: object) -> None:
        """Record what was claimed and what came out."""
        self.claims[self._name].append(Claim(claim, expected, measured, bool(holds)))

    def figure(self, figure: Figure) -> None:
        """Save a figure under the experiment's name and say where."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._name}.png"
        figure.savefig(path)
        self.console.print(f"   figure {path}", highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """Return the table claim / expected / measured / holds."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("claim", ratio=5)
        table.add_column("expected", ratio=3)
        table.add_column("measured", ratio=3)
        table.add_column("holds", no_wrap=True)
        for name, claims in self.claims.items():
            table.add_row(f"[bold]{name}[/]")
            for claim in claims:
                mark = "[green]yes[/]" if claim.holds else "[red bold]NO[/]"
                table.add_row(Padding(claim.claim, (0, 0, 0, 2)), claim.expected, claim.measured, mark)
        return table

    @property
    def holds(self) -> bool:
        """Whether every claim of every experiment holds."""
        return all(claim.holds for claims in self.claims.values() for claim in claims)


def canvas(columns: int = 1, rows: int = 1, width: float = 4.0, height: float = 3.4) -> tuple[Figure, list]:
    """Return a figure of the house's style, and its axes in reading order."""
    figure = Figure(figsize=(width * columns, height * rows))
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())
