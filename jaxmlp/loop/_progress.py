"""How far a run is: a live line on a terminal, a plain line now and then in a pipe or a file.

What cannot be shown, on a full disk, a closed pipe or a terminal that is gone, is not: a run never ends by it.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmlp._choice import Figure
from jaxmlp.types import Status

EVERY = 10.0  # seconds between two plain lines
WIDTH = 80


class Progress:
    """Says where a run stands, on standard error; `show` None says it, False keeps silent."""

    def __init__(
        self,
        show: bool | None,
        unit: str,
        total: int | None,
        done: int,
        examples: int | None,
        watched: Figure | None = None,
    ):
        """Begin at `done` of `total` units (epochs or steps) of so many examples each; a rule may watch a figure."""
        self._unit, self._total, self._first, self._examples = unit, total, done, examples
        self._watched = watched
        self._started = self._timed = self._said = time.monotonic()
        self._timed_at = done
        self._live: Any = None
        self._line = ""
        self._show = show is not False and sys.stderr is not None  # as where a process begins with it closed
        self._try(self._begin_live)

    def _begin_live(self) -> None:
        if getattr(sys.stderr, "isatty", bool)():
            try:
                from rich.console import Console
                from rich.live import Live
            except ImportError:  # plain lines will do
                return

            class OwnConsole(Console):
                def on_broken_pipe(self) -> None:
                    raise BrokenPipeError  # and not end the process, as Rich does

            self._live = Live(console=OwnConsole(stderr=True), transient=False, auto_refresh=False)
            self._live.start()

    def _try(self, show: Callable[..., object], *what: Any, **how: Any) -> None:
        """Show something, and nothing more once that has failed: what is trained matters more than being seen."""
        if not self._show:
            return
        try:
            show(*what, **how)
        except Exception:  # any stream and any terminal may stand there, and raise what they like
            live, self._live, self._show = self._live, None, False
            if live is not None:
                with contextlib.suppress(Exception):
                    live.stop()  # gives the streams back that it has taken

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._try(self._live.stop)
        elif self._line:
            self._try(_print, self._line)
        self._live, self._show = None, False

    @property
    def due(self) -> bool:
        """Whether `update` has anything to do."""
        return self._show

    def update(self, done: int, epochs: int, history: dict[str, np.ndarray], status: np.ndarray) -> None:
        """Show the end of a chunk; history (members, epochs), of which `epochs` are done."""
        self._try(self._update, done, epochs, history, status)

    def _update(self, done: int, epochs: int, history: dict[str, np.ndarray], status: np.ndarray) -> None:
        now = time.monotonic()
        if self._timed_at == self._first:  # the first chunk compiles: count from its end
            self._timed, self._timed_at = now, done
        self._line = self._words(done, epochs, history, status, now)
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(self._line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif now - self._said >= EVERY:
            _print(self._line)
            self._said, self._line = now, ""

    def _words(self, done: int, epochs: int, history: dict[str, np.ndarray], status: np.ndarray, now: float) -> str:
        total = "" if self._total is None else f"/{self._total}"
        place = f"{self._unit} {done:>{max(0, len(total) - 1)}}{total}"
        values = one(history, epochs, self._watched) if epochs and len(status) == 1 else []
        if epochs and len(status) > 1:
            values = members(history, status, epochs, self._watched)
        ahead = []
        done_since, seconds = done - self._timed_at, now - self._timed
        if status.size == 1 and status[0] == Status.STOPPED:
            ahead = ["stopped early"]
        elif done_since > 0 and seconds > 0:
            speed = done_since / seconds
            ahead = [f"{short(speed * self._examples)} ex/s"] if self._examples else []
            ahead += [f"{clock((self._total - done) / speed)} left"] if self._total else []
        while len("  ".join([place, *values, *ahead])) > WIDTH and ahead:
            ahead.pop(0)
        return "  ".join([place, *values, *ahead])

    def say(self, text: str) -> None:
        """Print a line of its own, above the live one."""
        if self._live is not None:
            self._try(self._live.console.print, text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._try(_print, text)


def _print(text: str) -> None:
    if sys.stderr is None:  # for which `print` would take standard output
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "backslashreplace").decode(), file=sys.stderr, flush=True)


def one(history: dict[str, np.ndarray], epochs: int, watched: Figure | None = None) -> list[str]:
    """Return the last line of a network's history as words: the losses, what is watched, and what there is room for.

    >>> one({"loss": np.array([[0.5, 0.25, np.nan]]), "validation_accuracy": np.array([[0.9, 0.912, np.nan]])}, 3)
    ['loss 0.25', 'val accuracy 0.912']
    """
    last = max(int(np.sum(~np.isnan(history["loss"][0, :epochs]))) - 1, 0)  # a run that stopped has no more
    first = ["loss", "validation_loss", *([watched.name] if watched else [])]
    names = sorted(history, key=lambda name: first.index(name) if name in first else len(first))
    plain = [name for name in names if history[name].ndim == 2][:3]
    return [f"{_label(name)} {history[name][0, last]:.3g}" for name in plain]


def members(
    history: dict[str, np.ndarray], status: np.ndarray, epochs: int, watched: Figure | None = None
) -> list[str]:
    """Return best and median of what is watched, else of the (validation) loss, and the members' fates as words.

    >>> history = {"loss": np.array([[0.1], [0.2], [np.nan]]), "accuracy": np.array([[0.5], [0.75], [np.nan]])}
    >>> members(history, np.array([0, 0, 2]), 1)
    ['loss best 0.1', 'median 0.15', '2 alive', '1 diverged']
    >>> members(history, np.array([0, 0, 2]), 1, Figure("accuracy"))[0]
    'accuracy best 0.75'
    """
    figure = watched or Figure("validation_loss" if "validation_loss" in history else "loss")
    values = history[figure.name][:, :epochs]
    known = ~np.isnan(values)
    last = values[np.arange(len(values)), epochs - 1 - known[:, ::-1].argmax(1)][known.any(1)]
    told = []
    if len(last):
        told = [f"{_label(figure.name)} best {last[figure.less(last).argmin()]:.3g}", f"median {np.median(last):.3g}"]
    return [*told, f"{np.sum(status == Status.RUNNING)} alive", f"{np.sum(status == Status.DIVERGED)} diverged"]


def _label(name: str) -> str:
    return name.replace("validation_", "val ").replace("_", " ")


def short(number: float) -> str:
    """Return three digits of a number and its thousands or millions.

    >>> short(950), short(63700), short(1.59e6)
    ('950', '63.7k', '1.59M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def clock(seconds: float) -> str:
    """Return a duration as people write it.

    >>> clock(75), clock(7260)
    ('1:15', '2:01:00')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
