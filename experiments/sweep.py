"""Does a thousand networks train like one?

    python -m experiments sweep

1,080 networks 64-32-10 on scikit-learn's digits: twelve learning rates x ten weight decays x nine seeds, in one
compiled program. Each is the network that `fit` makes of it alone; rates that are too large break down, and say so,
without harm to their neighbours; the best setting lies inside the grid, not at its edge. The time against training
them one by one is printed: it is no claim, since it is the machine's.
"""

import time

import jax
import numpy as np
from sklearn.datasets import load_digits

import jaxmlp
from experiments.report import Report, canvas
from jaxmlp import MLP, losses, metrics, population, training
from jaxmlp.data import split
from jaxmlp.recipe import Recipe

RATES, DECAYS, SEEDS, EPOCHS, BATCH = np.logspace(-4, 1, 12), np.logspace(-4, 1, 10), 9, 10, 64
ALONE = 12  # networks trained one by one, for the time


def run(report: Report) -> None:
    """Train the grid at once, some of it one by one, and draw the accuracy of each setting."""
    import optax

    x, y = load_digits(return_X_y=True)
    x, y = (x / 16 - 0.5).astype("f"), y.astype("i4")
    train, test = map(np.asarray, split(jax.random.key(0), len(x), 0.3))
    data, validation = (x[train], y[train]), (x[test], y[test])
    recipe = Recipe(
        MLP((64, 32, 10)),
        losses.cross_entropy,
        optax.adamw,
        epochs=EPOCHS,
        batch_size=BATCH,
        metrics=(metrics.accuracy,),
    )
    keys, hyperparams = population.grid(seeds=SEEDS, learning_rate=RATES, weight_decay=DECAYS)
    report.say(str(population.plan(keys, data, recipe, hyperparams)))

    report.stage(f"{len(keys):,} networks at once")
    show, ends = report.progress(EPOCHS), []

    def look(done: int, status: np.ndarray) -> None:
        ends.append(time.perf_counter())
        if show is not None:
            show(done, status)

    traces = training.trace_count()
    states, history = population.fit(keys, data, recipe, hyperparams, validation=validation, callback=look)
    seconds = EPOCHS * (ends[-1] - ends[0]) / (len(ends) - 1)  # at the pace after the first epoch, which compiles
    report.claim(
        f"{len(keys):,} networks compile once",
        expected="1 trace",
        measured=f"{training.trace_count() - traces}",
        holds=training.trace_count() - traces == 1,
    )

    report.stage(f"{ALONE} of them one by one")
    some = np.linspace(0, len(keys) // 2, ALONE).astype(int)  # of the smaller rates: chaos is no comparison
    gaps, times = [], []
    for i in [some[0], *some]:
        numbers = {name: values[i] for name, values in hyperparams.items()}
        start = time.perf_counter()
        state, _ = jax.block_until_ready(jaxmlp.fit(keys[i], data, recipe, numbers, validation=validation))
        times.append(time.perf_counter() - start)
        mine = population.member(states, int(i)).params
        pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(mine), strict=True)
        gaps.append(max(float(abs(a - b).max() / abs(a).max()) for a, b in (map(np.asarray, pair) for pair in pairs)))
    one_by_one = float(np.median(times[1:])) * len(keys)
    report.claim(
        "a member is the network trained alone", expected="to 1e-3", measured=f"{max(gaps):.1e}", holds=max(gaps) < 1e-3
    )
    report.say(
        f"{len(keys):,} networks: {seconds:.1f} s at once, {one_by_one:.1f} s one by one (from {ALONE}): "
        f"{one_by_one / seconds:.1f} times"
    )

    accuracy = np.asarray(history["validation_accuracy"][:, -1])
    broken = np.asarray(history["status"]) == 2
    accuracy = np.where(broken, 0.1, np.nan_to_num(accuracy, nan=0.1)).reshape(len(RATES), len(DECAYS), SEEDS).mean(-1)
    i, j = np.unravel_index(accuracy.argmax(), accuracy.shape)
    report.claim(
        "the best rate lies inside the grid",
        expected="not at an edge",
        measured=f"{RATES[i]:.2g}",
        holds=0 < i < len(RATES) - 1,
    )
    best = accuracy.max()
    report.claim(
        "the best setting reads the digits", expected="> 96 %", measured=f"{best:.1%}, {SEEDS} seeds", holds=best > 0.96
    )
    worst = accuracy[-1].max()
    report.claim("the largest rate does not", expected="< 90 %", measured=f"{worst:.1%}", holds=worst < 0.9)
    draw(report, accuracy, int(i), int(j))


def draw(report: Report, accuracy: np.ndarray, i: int, j: int) -> None:
    """Draw the heat map of settings and the curves of four decays."""
    figure, (plane, right) = canvas(2, width=4.6)
    low = np.quantile(accuracy, 0.3)
    image = plane.pcolormesh(DECAYS, RATES, accuracy, vmin=low, cmap="viridis", shading="nearest")
    plane.plot(DECAYS[j], RATES[i], "o", color="white", markersize=9, markerfacecolor="none", markeredgewidth=2)
    plane.set(xscale="log", yscale="log", xlabel="weight decay", ylabel="learning rate")
    plane.set_title(f"Accuracy of {len(RATES) * len(DECAYS) * SEEDS:,} networks, mean of {SEEDS} seeds")
    plane.set(xlim=(DECAYS[0], DECAYS[-1]), ylim=(RATES[0], RATES[-1]))
    plane.grid(False)
    figure.colorbar(image, ax=plane, label="test accuracy")
    for k in np.linspace(0, len(DECAYS) - 1, 4).astype(int):
        right.plot(RATES, accuracy[:, k], "o-", markersize=3, label=f"weight decay {DECAYS[k]:.1g}")
    right.set(xscale="log", xlabel="learning rate", ylabel="test accuracy", title="Where training breaks down")
    right.legend(loc="lower left", fontsize="small")
    report.figure(figure)
