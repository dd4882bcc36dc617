"""Time contenders in turn: warm up, then A B C A B C ..., and compare medians, since machines are noisy."""

import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import jax


class Row(NamedTuple):
    """One contender's figure: the median over repeats, its spread, and the ratio to the first contender."""

    benchmark: str
    contender: str
    value: float
    unit: str
    ratio: float
    low: float
    high: float


def in_turn(
    benchmark: str, contenders: dict[str, Callable[[], Any]], steps: int | dict[str, int], *, repeats: int
) -> list[Row]:
    """Return microseconds a step of each contender, which runs `steps` of them a call; the first one is the measure."""
    for run in contenders.values():
        jax.block_until_ready(run())  # compiles
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append((time.perf_counter() - start) / (steps if isinstance(steps, int) else steps[name]) * 1e6)
    medians = {name: statistics.median(values) for name, values in times.items()}
    measure = next(iter(medians.values()))
    return [
        Row(benchmark, name, medians[name], "us/step", medians[name] / measure, min(values), max(values))
        for name, values in times.items()
    ]


def header(command: str) -> str:
    """Return machine, versions and command in one line."""
    device = jax.devices()[0]
    return (
        f"{command}: {device.device_kind} x {jax.device_count()}, Python {platform.python_version()}, "
        f"jax {version('jax')}, optax {version('optax')}"
    )
