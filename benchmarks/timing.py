"""Time contenders in turn: warm up, then A B C A B C ..., and compare in pairs, since machines are noisy."""

import importlib.util
import platform
import statistics
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmlp._engine.devices import cores

TIMES = {"us": 1e6, "ms": 1e3, "s": 1.0}


class Row(NamedTuple):
    """One contender's figure: the median over repeats, its spread, and how many times the first contender is ahead."""

    benchmark: str
    contender: str
    value: float
    unit: str
    ratio: float
    low: float
    high: float


class Peer(NamedTuple):
    """A contender that may not be there: its name, the module it needs, and what makes its run of a task."""

    name: str
    module: str
    make: Callable[..., Any]


def in_turn(
    benchmark: str,
    contenders: Mapping[str, Callable[[], Any]],
    work: Any,
    *,
    unit: str,
    repeats: int,
    settle: bool = False,
) -> list[Row]:
    """Return a row a contender: its work a second, or for a unit of time what a piece of it takes.

    Args:
      benchmark: name for the rows.
      contenders: what each runs; the first is the one that the ratios measure, and each is called once to warm up.
      work: pieces of work that a call does, one number for all or one each.
      unit: "us", "ms" or "s" a piece, or what there is so much of in a second, "steps/s".
      repeats: rounds; the ratio is the median of the rounds' own ratios, which a slow minute of the machine hits alike.
      settle: call each once more, unwatched, before each of its turns: threads of the one before may still be spinning,
        which counts where a turn is short.
    """
    amounts = dict.fromkeys(contenders, work) if isinstance(work, int | float) else work
    for run in contenders.values():
        jax.block_until_ready(run())  # compiles
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            if settle:
                jax.block_until_ready(run())
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append((time.perf_counter() - start) / amounts[name])
    first = next(iter(times.values()))
    rows = []
    for name, mine in times.items():
        values = sorted(TIMES[unit] * t if unit in TIMES else 1 / t for t in mine)
        ratio = statistics.median(t / f for t, f in zip(mine, first, strict=True))
        rows.append(Row(benchmark, name, statistics.median(values), unit, ratio, values[0], values[-1]))
    return rows


def measured(benchmark: str, contender: str, value: float, unit: str, ratio: float = 1.0) -> Row:
    """Return the row of a figure that is counted or measured once."""
    return Row(benchmark, contender, value, unit, ratio, value, value)


_named: set[str] = set()


def installed(peers: Iterable[Peer]) -> list[Peer]:
    """Return the peers that are here, and name the others, once."""
    peers = list(peers)
    absent = [peer for peer in peers if importlib.util.find_spec(peer.module) is None]
    names = [name for name in dict.fromkeys(f"{peer.name} ({peer.module})" for peer in absent) if name not in _named]
    if names:
        print(textwrap.fill(f"left out, not installed: {', '.join(names)}", 80))
    _named.update(names)
    return [peer for peer in peers if peer not in absent]


PACKAGES = ("jax", "optax", "numpy", "torch", "scikit-learn", "keras", "flax", "equinox", "dm-haiku", "onnxruntime")


def header(command: str) -> str:
    """Return command, machine and versions, in lines of at most 80 characters."""
    devices = f"{jax.devices()[0].device_kind} x {jax.device_count()}"
    return "\n".join([command, *textwrap.wrap(f"{devices}, {machine()}", 80)])


def machine() -> str:
    """Return the processor, its cores, and the versions of what is compared."""
    found = [f"{name} {version(name)}" for name in PACKAGES if _has(name)]
    return ", ".join([f"{_processor()}, {cores()} cores", f"Python {platform.python_version()}", *found])


def _has(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except ModuleNotFoundError:
        return False


def _processor() -> str:
    """Return the processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())
