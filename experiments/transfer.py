"""What does a network that knows a family of signals spare one that learns another of them?

    python -m experiments transfer

Signals of three frequencies, of random strengths and phases. One network learns 48 of them at once, an output each.
Others learn a new signal each from a few noisy points: they begin with all layers of the first but the head, by
`transfer`, and train the head alone, `frozen` keeping the trunk to the bit, or all layers; or they begin from nothing
(Yosinski 2014, arXiv 1411.1792). New signals, and how many points there are, are one population. The trunk must come
back as it went in, and with few points most signals must be learnt better on it than from nothing.
"""

import jax
import numpy as np

import jaxmlp
from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses, population
from jaxmlp.training import CosineAdamW

COUNTS, FEW, SIGNALS, EPOCHS, NOISE, FAMILY = (
    (6, 8, 10, 14, 28),
    slice(1, 4),
    24,
    1500,
    0.05,
    48,
)  # points of a new signal
SOURCE, TARGET = MLP((1, 64, 64, 16, FAMILY), "tanh"), MLP((1, 64, 64, 16, 1), "tanh")
LAST = len(TARGET.sizes) - 2  # the head's place


def trunk(path: tuple) -> bool:
    """Return whether the parameter at a path is of a layer before the head."""
    return path[0] < LAST


def signals(rng: np.random.Generator, x: np.ndarray, count: int) -> np.ndarray:
    """Return random signals sum_k (a_k sin(2 k x) + b_k cos(2 k x)), k = 1, 2, 3, at x (..., 1): (..., count)."""
    waves = np.concatenate([f(2 * k * x) for k in (1, 2, 3) for f in (np.sin, np.cos)], axis=-1)
    return (waves @ rng.normal(size=(6, count)) / np.sqrt(3)).astype("f")


def run(report: Report) -> None:
    """Train on the family, then on new signals in three ways, and compare their errors."""
    rng, grid = np.random.default_rng(0), np.linspace(-1.5, 1.5, 301, dtype="f")[:, None]
    report.stage(f"{FAMILY} signals at once")
    known = Recipe(SOURCE, losses.squared_error, CosineAdamW(), epochs=1500, batch_size=50)
    source, _ = jaxmlp.fit(jax.random.key(0), (grid, signals(rng, grid, FAMILY)), known, {"learning_rate": 5e-3})
    members, most = len(COUNTS) * SIGNALS, max(COUNTS)
    truth = np.tile(signals(rng, grid, SIGNALS).T, (len(COUNTS), 1))[..., None]  # (members, 301, 1)
    at = np.zeros((members, most), int)  # places on the grid: one in each of as many parts of it as there are points
    for row, count in zip(at, np.repeat(COUNTS, SIGNALS), strict=True):
        row[:count] = (np.arange(count) + rng.random(count)) / count * len(grid)
    x, y = grid[at], np.take_along_axis(truth, at[..., None], 1)
    y = (y + NOISE * rng.normal(size=y.shape)).astype("f")
    rows = np.where(np.arange(most) < np.repeat(COUNTS, SIGNALS)[:, None], np.arange(most), -1)  # -1 is no row
    keys, numbers = population.grid(members, learning_rate=[2e-2], weight_decay=[0.1])
    begun = jax.jit(jax.vmap(lambda key: jaxmlp.transfer(key, source.params, SOURCE, TARGET)))(keys)
    ways = {"from nothing": (None, None), "all layers": (begun, None), "the head alone": (begun, trunk)}
    found, errors, params = {}, {}, source.params
    for name, (start, frozen) in ways.items():
        report.stage(f"{members} new signals, {name}")
        recipe = Recipe(TARGET, losses.squared_error, CosineAdamW(), epochs=EPOCHS, frozen=frozen)
        begin = None if start is None else population.each(start)
        states, _ = population.fit(keys, population.each(x, y), recipe, numbers, rows=rows, params=begin)
        params = states.params
        found[name] = np.asarray(population.predict(TARGET, params, grid))
        errors[name] = np.sqrt(((found[name] - truth) ** 2).mean((1, 2))).reshape(len(COUNTS), SIGNALS)
    pairs = zip(jax.tree.leaves(params[:LAST]), jax.tree.leaves(source.params[:LAST]), strict=True)
    kept = all(bool((np.asarray(one) == np.asarray(other)).all()) for one, other in pairs)
    report.claim("the trunk stays as it was", expected="bit for bit", measured="yes" if kept else "no", holds=kept)
    few = {name: error[FEW] for name, error in errors.items()}  # with 8 to 14 points
    ahead = float((few["the head alone"] < few["from nothing"]).mean())
    report.claim("few points: a known trunk is better", expected="> 55 %", measured=f"{ahead:.0%}", holds=ahead > 0.55)
    one, other = (float(np.median(few[name])) for name in ("the head alone", "from nothing"))
    said, less = f"{one:.2f}, not {other:.2f}", one < 0.9 * other
    report.claim("and errs less", expected="error / 1.1", measured=said, holds=less)
    draw(report, grid[:, 0], truth, x, y, found, errors)


def draw(
    report: Report,
    grid: np.ndarray,
    truth: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    found: dict[str, np.ndarray],
    errors: dict[str, np.ndarray],
) -> None:
    """Draw two new signals as they were learnt from nothing and on the trunk, and the errors by number of points."""
    figure, (*planes, right) = canvas(3, width=4.2)
    colours = dict(zip(found, (ORANGE, GREEN, BLUE), strict=True))
    for axes, signal in zip(planes, (0, 1), strict=True):
        i, count = SIGNALS + signal, COUNTS[1]
        axes.plot(grid, truth[i], "--", color=GREY, label="truth")
        for name in ("from nothing", "the head alone"):
            axes.plot(grid, found[name][i], color=colours[name], label=name)
        axes.plot(x[i, :count], y[i, :count], "o", color="black", markersize=4)
        axes.set(xlabel="x", title=f"A new signal, {count} points")
    planes[0].margins(y=0.3)
    planes[0].legend(fontsize="small")
    for name, error in errors.items():
        right.plot(COUNTS, np.median(error, axis=1), "o-", color=colours[name], label=name)
    right.set(
        xscale="log", yscale="log", xlabel="points", ylabel="error, median of signals", title="What is known helps"
    )
    right.set(
        xticks=COUNTS, xticklabels=COUNTS, yticks=[0.05, 0.1, 0.2, 0.4], yticklabels=["0.05", "0.1", "0.2", "0.4"]
    )
    right.minorticks_off()
    right.legend(fontsize="small")
    report.figure(figure)
