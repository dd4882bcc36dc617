"""Do time and memory grow as theory says, and no faster?

    python -m benchmarks scaling

`jaxmlp.fit` of d-w-w-1 nets by Adam (`population.fit` for members), one size at a time doubled while the others stand.
The exponent is the slope of log time against log size over the upper half of the sizes, beside the theory's: a step's
products grow with the square of the width and in proportion to depth, batch, members and rows. Below, where the machine
is not yet full, time grows more slowly, never faster. Memory is what XLA's own plan of the compiled run asks for,
beside the count of parameters, optimizer's state, data, the epoch's order and activations: no room for gradients.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmlp
from benchmarks.timing import Row, in_turn, measured
from jaxmlp import MLP, Recipe, losses, population, training

RATE = {"learning_rate": 1e-3}
THEORY = {"width": 2.0, "depth": 1.0, "batch": 1.0, "members": 1.0, "rows": 1.0}
SIZES = {
    "width": (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "depth": (2, 4, 8, 16, 32, 64),
    "batch": (16, 64, 256, 1024, 4096, 16384),
    "members": (2, 8, 32, 128, 512, 2048),
    "rows": (1024, 4096, 16384, 65536, 262144),
}
PLANS = ((64, 2, 64, 4096), (512, 4, 128, 8192), (1024, 2, 256, 16384))
BASE = {"width": 64, "depth": 2, "batch": 64, "members": 1, "rows": 1024}


def run(*, quick: bool = False) -> list[Row]:
    """Time a run at every size, fit the exponents, and compare memory with its count."""
    rows, slopes, found = [], [], {}
    for axis, sizes in SIZES.items():
        if quick:
            sizes = sizes[:3]
        runs, steps = {}, {}
        for size in sizes:
            options = BASE | {axis: size}
            if axis == "depth":
                options["width"] = 128  # the larger sizes then lie in one level of the cache: leaving it is no exponent
            if axis == "batch":
                options["rows"] = 4 * max(sizes)  # as many examples at every size: time is then a step's, per example
            runs[f"{size:,}"], steps[f"{size:,}"] = contender(**options)
        times = in_turn(f"scaling {axis}", runs, steps, unit="us", repeats=2 if quick else 3 if axis == "width" else 7)
        found[axis] = list(zip(sizes, times, strict=True))
        rows += times
        slope = exponent(list(sizes), [row.ratio for row in times])
        if axis in ("members", "rows"):
            slope += 1  # the times above are a step's of one network
        slopes.append(
            measured("scaling exponents", f"{axis}, theory {THEORY[axis]:g}", slope, "", slope / THEORY[axis])
        )
    rows += slopes + memory(quick)
    if not quick:
        draw(found, Path("figures/scaling.png"))
    return rows


def problem(width: int, depth: int, batch: int, rows: int) -> tuple[Recipe, Any]:
    """Return the recipe, and data of so many rows."""
    sizes = (width,) * (depth + 1) + (1,)
    recipe = Recipe(MLP(sizes), losses.squared_error, optax.adam, epochs=1, batch_size=batch)
    x = jax.random.normal(jax.random.key(1), (rows, width))
    return recipe, (x, jnp.sin(x[:, :1]))


def contender(*, width: int, depth: int, batch: int, members: int, rows: int) -> tuple[Any, int]:
    """Return a run and its number of steps, a network's each."""
    recipe, data = problem(width, depth, batch, rows)
    steps = members * (rows // batch)
    if members == 1:
        bound = recipe.bind(RATE)
        return lambda: training._run(training._start(jax.random.key(0), bound), data, bound, None), steps
    return partial(population.fit, jax.random.split(jax.random.key(0), members), data, recipe, RATE), steps


def exponent(sizes: list[int], times: list[float]) -> float:
    """Return the slope of log time against log size over the upper half."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(times[half:]), 1)[0])


def memory(quick: bool = False) -> list[Row]:
    """Return what XLA plans for a run, in MiB; the ratio is to what is counted."""
    rows = []
    for width, depth, batch, count in PLANS[:1] if quick else PLANS:
        planned, counted = memory_of(*problem(width, depth, batch, count))
        name = f"{width} x {depth}, batch {batch}, {count:,} rows"
        rows.append(measured("scaling memory", name, planned / 2**20, "MiB", planned / counted))
    return rows


def memory_of(recipe: Recipe, data: Any) -> tuple[int, int]:
    """Return the bytes that a compiled run plans for, and those that are counted."""
    key = jax.random.key(0)
    bound = recipe.bind({"learning_rate": jnp.float32(1e-3)})
    lowered = training._run.lower(jax.eval_shape(training._start, key, bound), data, bound, None)
    plan: Any = lowered.compile().memory_analysis()
    planned = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    planned -= plan.alias_size_in_bytes  # the start's state becomes the end's, in its place
    layers: Any = recipe.model
    state = jax.eval_shape(lambda key: jaxmlp.start(key, recipe, RATE), key)
    numbers = sum(math.prod(a.shape) for a in jax.tree.leaves(state._replace(key=None)))
    batch = recipe.batch_size or len(data[0])
    order = 2 * (len(data[0]) // batch + 1) * batch
    # A unit's value before its activation and after it, and its derivative; the batch's own rows.
    activations = batch * (3 * sum(layers.sizes[1:]) + sum(a.shape[-1] for a in data))
    table = sum(a.size for a in data)
    return planned, 4 * (numbers + order + activations + table)


def draw(found: dict[str, list[tuple[int, Row]]], path: Path) -> None:
    """Draw time a step against each size, beside the theory's slope through the largest."""
    from experiments.report import BLUE, GREY, canvas

    figure, axes = canvas(len(found), width=3.0)
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        sizes, times = [size for size, _ in points], [row.value for _, row in points]
        slope = 0 if name in ("members", "rows") else THEORY[name]
        axis.plot(sizes, [times[-1] * (size / sizes[-1]) ** slope for size in sizes], "--", color=GREY, label="theory")
        axis.plot(sizes, times, "o-", color=BLUE, label="measured")
        axis.set(xscale="log", yscale="log", xlabel=name, title=name)
        axis.set_ylim(min(axis.get_ylim()[0], times[-1] / 10), max(axis.get_ylim()[1], times[-1] * 10))
        axis.xaxis.set_minor_formatter("")
        axis.yaxis.set_minor_formatter("")
    axes[0].set(ylabel="microseconds a step")
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"figure {path}")
