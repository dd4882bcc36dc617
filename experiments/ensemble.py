"""What does one more network buy?

    python -m experiments ensemble

On scikit-learn's digits, 600 to learn from, a tenth of them with a random label: 32 networks that differ in their
seed alone. Their averaged probabilities
are more accurate and better in likelihood the more there are; a temperature mends the confidence of a single one,
averaging does more; and they disagree about what is no digit. On a curve, 16 networks with a mean and a spread
agree where there is data and not where there is none.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from sklearn.datasets import load_digits

from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses, metrics, population
from jaxmlp.training import CosineAdamW

MEMBERS, LEARN, CHOOSE, WRONG = 32, 600, 300, 0.1
SIZES = (1, 2, 4, 8, 16, 32)


class Seen(NamedTuple):
    """What networks say about rows."""

    logits: np.ndarray  # (members, rows, classes)
    votes: np.ndarray  # their probabilities
    doubt: np.ndarray  # (rows,), what the members disagree about


class Moments(NamedTuple):
    """Mean and variances of a mixture at the points of a grid, (points,) each."""

    mean: np.ndarray
    epistemic: np.ndarray
    aleatoric: np.ndarray


@partial(jax.jit, static_argnums=2)
def look(params: Any, x: np.ndarray, model: MLP) -> tuple[Array, Array, Array]:
    """Return what is seen, in the order of `Seen`."""
    logits = population.predict(model, params, x)
    votes = population.categorical(logits)
    return logits, votes.probabilities, votes.mutual_information


@jax.jit
def quality(votes: np.ndarray, y: np.ndarray) -> tuple[Array, Array, Array]:
    """Return NLL, accuracy and calibration error of each of several averaged votes (groups, rows, classes)."""

    def of_one(votes: Array) -> tuple[Array, Array, Array]:
        nll = -population.Categorical(votes[None]).log_prob(y).mean()
        logits = jnp.log(votes + 1e-12)
        return nll, metrics.accuracy(logits, y), metrics.expected_calibration_error(logits, y)

    return jax.vmap(of_one)(jax.device_put(votes))


nll_of = jax.jit(metrics.nll)


def run(report: Report) -> None:
    """Average the votes of more and more networks, choose among them, and look where they disagree."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16 - 0.5).astype("f"), y[order].astype("i4")
    choose, test = slice(LEARN, LEARN + CHOOSE), slice(LEARN + CHOOSE, None)
    recipe = Recipe(MLP((64, 64, 10)), losses.cross_entropy, optax.adam, epochs=60, batch_size=50)
    keys, hyperparams = population.grid(seeds=MEMBERS, learning_rate=[1e-2])
    rng = np.random.default_rng(1)
    learnt = np.where(rng.random(LEARN) < WRONG, rng.integers(0, 10, LEARN), y[:LEARN]).astype("i4")
    report.stage(f"{MEMBERS} networks that differ in their seed")
    states, _ = population.fit(keys, (x[:LEARN], learnt), recipe, hyperparams, callback=report.progress(60))
    noise = np.random.default_rng(1).permuted(x[test], axis=1)  # the same ink, no digit
    # One program for all that is looked at, since each shape compiles anew.
    seen = Seen(*map(np.asarray, look(states.params, np.concatenate([x[LEARN:], noise]), recipe.model)))
    parts = [CHOOSE, len(x) - LEARN]
    aside, logits, _ = np.split(seen.logits, parts, axis=1)
    votes_aside, votes, _ = np.split(seen.votes, parts, axis=1)
    _, known, strange = (float(part.mean()) for part in np.split(seen.doubt, parts))

    # All disjoint groups of each size, so that small ensembles are no luck of the draw.
    groups = [votes.reshape(-1, size, *votes.shape[1:]).mean(1) for size in SIZES]
    ends = np.cumsum([len(group) for group in groups])[:-1]
    nll, accuracy, error = (
        np.array([group.mean() for group in np.split(values, ends)])
        for values in map(np.asarray, quality(np.concatenate(groups), y[test]))
    )
    report.claim(
        "likelihood gains with every doubling",
        expected="NLL falls 5 times",
        measured=f"{nll[0]:.3f} to {nll[-1]:.3f}",
        holds=np.all(np.diff(nll) < 0),
    )
    report.claim(
        "32 networks err less than one",
        expected="errors / 1.15",
        measured=f"{1 - accuracy[0]:.1%} to {1 - accuracy[-1]:.1%}",
        holds=(1 - accuracy[0]) / (1 - accuracy[-1]) > 1.15,
    )

    report.stage("temperature and greedy choice, on digits set aside")
    heat = float(population.temperature(aside[0], y[choose]))
    single, cooled = (float(nll_of(outputs, y[test])) for outputs in (logits[0], logits[0] / heat))
    report.claim(
        "a temperature helps a network, averaging more",
        expected="falls, falls",
        measured=f"{single:.3f}, {cooled:.3f}, {nll[-1]:.3f}",
        holds=nll[-1] < cooled < single,
    )

    def score(p: Array) -> Array:
        return -jnp.mean(jnp.log(p[jnp.arange(CHOOSE), y[choose]] + 1e-12))

    chosen = population.greedy(votes_aside, score, rounds=MEMBERS)
    scored = jax.jit(score)
    picked, all_ = float(scored(votes_aside[chosen].mean(0))), float(scored(votes_aside.mean(0)))
    report.claim(
        "a greedy choice beats taking all, where it chose",
        expected=f"below {all_:.3f}",
        measured=f"{picked:.3f}, {len(set(chosen.tolist()))} networks",
        holds=picked < all_,
    )
    report.claim(
        "they disagree about what is no digit",
        expected="> 3 times",
        measured=f"{known:.3f} to {strange:.3f} nats",
        holds=strange > 3 * known,
    )
    report.stage("mean and spread of a curve, with a gap in its data")
    curve = gap(report)
    draw(report, np.array(nll), np.array(accuracy), np.array(error), *curve)


def gap(report: Report) -> tuple[np.ndarray, np.ndarray, Moments]:
    """Train 16 Gaussian networks on a sine without its middle, and compare their doubts in and out of the data."""
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.uniform(-3, -1, 200), rng.uniform(1, 3, 200)]).astype("f")[:, None]
    y = np.sin(2 * x) + 0.15 * rng.normal(size=x.shape).astype("f")
    recipe = Recipe(
        MLP((1, 50, 50, 2), "tanh"), losses.beta_gaussian_nll, CosineAdamW(200 * 8), epochs=200, batch_size=50
    )
    keys, hyperparams = population.grid(seeds=16, learning_rate=[1e-2])
    states, history = population.fit(keys, (x, y), recipe, hyperparams, callback=report.progress(200))
    grid = np.linspace(-4, 4, 161, dtype="f")[:, None]
    outputs = population.predict(recipe.model, states.params, grid)

    @jax.jit
    def moments(outputs: Array) -> tuple[Array, Array, Array]:
        found = population.mixture(outputs, status=history["status"])
        return found.mean, found.epistemic, found.aleatoric

    found = Moments(*(np.asarray(a).ravel() for a in moments(outputs)))
    inside = ((abs(grid) > 1.2) & (abs(grid) < 2.8)).ravel()
    within, without = (float(np.sqrt(found.epistemic)[rows].mean()) for rows in (inside, ~inside))
    report.claim(
        "doubt is where the data is not",
        expected="> 3 times",
        measured=f"{within:.3f} to {without:.3f}",
        holds=without > 3 * within,
    )
    noise = float(np.sqrt(found.aleatoric)[inside].mean())
    report.claim("and noise is noise", expected="0.15 to 0.03", measured=f"{noise:.3f}", holds=abs(noise - 0.15) < 0.03)
    return x, y, found


def draw(
    report: Report,
    nll: np.ndarray,
    accuracy: np.ndarray,
    error: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    found: Moments,
) -> None:
    """Draw likelihood, error and calibration against the number of members, and the curve with its bands."""
    figure, (plane, middle, right) = canvas(3, width=4.2)
    plane.plot(SIZES, nll, "o-", color=BLUE)
    plane.set(xscale="log", xticks=SIZES, xticklabels=SIZES, xlabel="members", ylabel="test NLL, nats")
    plane.set_title("Every network helps")
    middle.plot(SIZES, 100 * (1 - accuracy), "o-", color=ORANGE, label="error")
    middle.plot(SIZES, 100 * error, "s--", color=GREEN, label="expected calibration error")
    middle.set(
        xscale="log", xticks=SIZES, xticklabels=SIZES, xlabel="members", ylabel="%", title="Errors and calibration"
    )
    middle.set_ylim(0)
    middle.legend(fontsize="small")
    grid = np.linspace(-4, 4, 161)
    mean, all_, seen = found.mean, found.epistemic + found.aleatoric, found.aleatoric
    right.fill_between(grid, mean - 2 * all_**0.5, mean + 2 * all_**0.5, color=BLUE, alpha=0.18, linewidth=0)
    right.fill_between(grid, mean - 2 * seen**0.5, mean + 2 * seen**0.5, color=BLUE, alpha=0.3, linewidth=0)
    right.plot(grid, mean, color=BLUE)
    right.plot(x, y, ".", color=GREY, markersize=2.5)
    right.set(xlabel="x", ylim=(-3, 3), title="Noise (dark) and doubt (light), 16 networks")
    report.figure(figure)
