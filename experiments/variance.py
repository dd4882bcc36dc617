"""Does the mean keep up with the variance, and do intervals hold what they promise?

    python -m experiments variance

On scikit-learn's diabetes data, networks with a mean and a raw scale, trained by Adam without clipping at rates from
0.001 to 0.1. Where the standard deviation is softplus(raw), it vanishes faster than the mean can follow, and the error
explodes; where its logarithm is 2 asinh(raw / 16), no rate does worse than the squared error alone. Eight networks
together are still too sure of new rows: one scale mends most of that, and split conformal intervals hold their level
exactly, on average over the ways to divide the rows. Errors are in standard deviations of the target.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.scipy.special import ndtri

from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from experiments.tables import diabetes
from jaxmlp import MLP, Recipe, conformal, losses, population
from jaxmlp.types import Loss

RATES, SEEDS, LEARNT = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), 8, 342
LEVELS, DIVISIONS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), 2000


def softplus_nll(outputs: Array, targets: Array) -> Array:
    """Return the negative log likelihood where the standard deviation is softplus(raw)."""
    return losses.gaussian_nll(losses.from_softplus(outputs), targets)


def mean_alone(outputs: Array, targets: Array) -> Array:
    """Return the squared error of the mean."""
    return losses.squared_error(outputs[:, :1], targets)


HEADS: dict[str, tuple[Loss, str]] = {
    "softplus(raw)": (softplus_nll, ORANGE),
    "exp(2 asinh(raw / 16))": (losses.gaussian_nll, BLUE),
    "squared error": (mean_alone, GREY),
}


def run(report: Report) -> None:
    """Train each head at each rate, compare the errors, and calibrate an ensemble of one rate."""
    table = diabetes()
    order = np.random.default_rng(0).permutation(len(table.x))
    rows, new = order[:LEARNT], order[LEARNT:]
    x, y = ((a - a[rows].mean(0)) / a[rows].std(0) for a in (table.x, table.y))
    x, y = x.astype("f"), y.astype("f")
    keys, numbers = population.grid(seeds=SEEDS, learning_rate=list(RATES))
    error, outputs = {}, {}
    for head, (loss, _) in HEADS.items():
        report.stage(f"{len(keys)} networks, {head}")
        recipe = Recipe(MLP((x.shape[1], 50, 2)), loss, optax.adam, epochs=60, batch_size=32)
        states, _ = population.fit(keys, (x[rows], y[rows]), recipe, numbers, callback=report.progress(60))
        outputs[head] = np.asarray(population.predict(recipe.model, states.params, x[new]))
        each = np.sqrt(np.square(outputs[head][..., :1] - y[new]).mean((1, 2)))
        error[head] = np.array([each[np.asarray(numbers["learning_rate"]) == np.float32(rate)] for rate in RATES])
    before, now, alone = (error[head].mean(1) for head in HEADS)
    told = f"{now.min():.2f} to {now.max():.2f}"
    for claim, expected, measured, holds in (
        ("softplus(raw) loses the mean at rate 0.1", "RMSE > 3", f"{before[-1]:.1f}", before[-1] > 3),
        ("exp(2 asinh(raw / 16)) keeps it at every rate", "worst / best < 1.4", told, now.max() < 1.4 * now.min()),
        ("as the squared error does", f"< {1.1 * alone.max():.2f}", f"{now.max():.2f}", now.max() < 1.1 * alone.max()),
    ):
        report.claim(claim, expected=expected, measured=measured, holds=holds)
    report.stage("intervals of eight networks")
    mine = np.asarray(numbers["learning_rate"]) == np.float32(RATES[1])
    ensemble = population.mixture(outputs["exp(2 asinh(raw / 16))"][mine])
    shares = np.asarray(coverage(ensemble, y[new], jax.random.key(0))).mean(0)
    own, scaled, held = shares[:, LEVELS.index(0.9)]
    exact = np.ceil(0.9 * (len(new) // 2 + 1)) / (len(new) // 2 + 1)
    wanted, kept = f"{exact:.1%} to 0.5 %", abs(held - exact) < 0.005
    report.claim("a conformal interval of 90 % holds", expected=wanted, measured=f"{held:.1%}", holds=kept)
    report.say(f"a Gaussian's interval of 90 % holds {own:.1%}, scaled {scaled:.1%}")
    draw(report, error, shares)


@jax.jit
def coverage(ensemble: population.Mixture, y: Array, key: Array) -> Array:
    """Return the share of one half's rows in intervals made on the other, (divisions, 3 kinds, levels)."""
    scores = conformal.scores(ensemble.mean, ensemble.mean, y, scale=jnp.sqrt(ensemble.variance))[:, 0]

    def divided(key: Array) -> Array:
        known, new = jnp.split(jax.random.permutation(key, len(y)), 2)
        part = population.Mixture(ensemble.means[:, known], ensemble.variances[:, known])
        own = ndtri(0.5 + 0.5 * jnp.array(LEVELS))
        held = jnp.stack([conformal.radius(scores[known], level) for level in LEVELS])
        radii = jnp.stack([own, part.scale(y[known]) * own, held])
        return jnp.mean(scores[new] <= radii[..., None], axis=-1)

    return jax.lax.map(divided, jax.random.split(key, DIVISIONS), batch_size=100)


def draw(report: Report, error: dict[str, np.ndarray], shares: np.ndarray) -> None:
    """Draw the errors against the rate, the deviations against the raw scale, and what intervals hold."""
    figure, (left, middle, right) = canvas(3, width=4.2)
    raw = np.linspace(-40, 40, 400)
    spreads = {"softplus(raw)": np.logaddexp(0, raw), "exp(2 asinh(raw / 16))": np.exp(2 * np.arcsinh(raw / 16))}
    for head, (_, colour) in HEADS.items():
        left.plot(RATES, error[head], ".", color=colour, markersize=3, alpha=0.5)
        left.plot(RATES, np.median(error[head], axis=1), color=colour, label=head)
        if head in spreads:
            middle.plot(raw, spreads[head], color=colour, label=head)
    left.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="RMSE", title="Does the mean keep up?")
    middle.set(yscale="log", ylim=(1e-4, 100), xlabel="raw scale", ylabel="standard deviation", title="Heads")
    kinds = (("Gaussian", ORANGE), ("Gaussian, scaled", BLUE), ("conformal", GREEN))
    for (kind, colour), share in zip(kinds, shares, strict=True):
        right.plot(LEVELS, share, "o-", color=colour, markersize=4, label=kind)
    right.plot(LEVELS, LEVELS, "--", color=GREY, label="as promised")
    right.set(xlabel="level", ylabel="share of new rows inside", title="What intervals hold")
    for axes in (left, middle, right):
        axes.legend(fontsize="small")
    report.figure(figure)
