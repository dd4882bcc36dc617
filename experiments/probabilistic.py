"""Does maximum likelihood recover the mean and the spread?

    python -m experiments probabilistic

Noise that grows with x: y = sin(2x) + (0.1 + 0.2 x) noise. A network with two outputs, trained on the Gaussian
likelihood, must find mean and spread to 0.05 on average, and its intervals of 50, 90 and 95 % must hold that
share of new points to 0.02. With unit variance the likelihood is half the squared error plus a constant: the
same gradients, so the same network, to rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxmlp
from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses, metrics
from jaxmlp.training import CosineAdamW
from jaxmlp.types import Params

LEVELS = (0.5, 0.9, 0.95)


def mean_of(x: np.ndarray) -> np.ndarray:
    """Return the true mean."""
    return np.sin(2 * x)


def spread_of(x: np.ndarray) -> np.ndarray:
    """Return the true standard deviation."""
    return 0.1 + 0.2 * x


def sample(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n points of the curve with its noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 3, (n, 1))
    y = mean_of(x) + spread_of(x) * rng.normal(size=x.shape)
    return x.astype("f"), y.astype("f")


def run(report: Report) -> None:
    """Train on the likelihood, compare mean, spread and coverage with the truth, and draw the bands."""
    x, y = sample(0, 10_000)
    steps = 40 * 100
    recipe = Recipe(MLP((1, 32, 32, 2), "tanh"), losses.gaussian_nll, CosineAdamW(steps), epochs=40, batch_size=100)
    report.stage("mean and spread by maximum likelihood")
    state, history = jaxmlp.fit(jax.random.key(0), (x, y), recipe, {"learning_rate": 3e-3, "weight_decay": 0.01})

    grid = np.linspace(0, 3, 301, dtype="f")[:, None]
    new_x, new_y = sample(1, 20_000)

    @jax.jit  # one program for all that is asked of the network
    def judged(params: Params) -> tuple[tuple[jax.Array, jax.Array], list[jax.Array]]:
        outputs = recipe.model.apply(params, new_x)
        shares = [metrics.interval_coverage(outputs, new_y, level=level) for level in LEVELS]
        return losses.gaussian(recipe.model.apply(params, grid)), shares

    (mean, variance), shares = jax.tree.map(np.asarray, judged(state.params))
    off_mean = float(np.abs(mean - mean_of(grid)).mean())
    off_spread = float(np.abs(np.sqrt(variance) - spread_of(grid)).mean())
    report.claim("the mean is recovered", expected="to 0.05", measured=f"{off_mean:.3f}", holds=off_mean < 0.05)
    report.claim("the spread is recovered", expected="to 0.05", measured=f"{off_spread:.3f}", holds=off_spread < 0.05)
    for level, share in zip(LEVELS, shares, strict=True):
        report.claim(
            f"the {level:.0%} interval is calibrated",
            expected=f"{level:.0%} to 2 %",
            measured=f"{share:.1%}",
            holds=abs(share - level) < 0.02,
        )
    report.stage("unit variance against squared error")
    gap, offset = unit_variance(x, y)
    report.claim(
        "unit variance is squared error / 2",
        expected="+ 0.91894",
        measured=f"+ {offset:.5f}",
        holds=abs(offset - 0.5 * np.log(2 * np.pi)) < 1e-5,
    )
    report.claim("their networks are one, to rounding", expected="gap < 1e-4", measured=f"{gap:.1e}", holds=gap < 1e-4)
    draw(report, x, y, grid, mean, np.sqrt(variance), np.asarray(history["loss"]))


def unit_variance(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Train with log N(y; yhat, 1) and with half the squared error; return the gaps of outputs and of losses."""

    def half_squared_error(outputs: jax.Array, targets: jax.Array | np.ndarray) -> jax.Array:
        return 0.5 * losses.squared_error(outputs, targets)

    def either(outputs: jax.Array, targets: jax.Array | np.ndarray, *, which: jax.Array) -> jax.Array:
        return jnp.where(which == 0, losses.unit_gaussian_nll(outputs, targets), half_squared_error(outputs, targets))

    recipe = Recipe(MLP((1, 16, 1), "tanh"), either, CosineAdamW(1000), epochs=10, batch_size=100)

    @jax.jit  # which loss it is is a number here, so that one program has both
    def gaps(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        def outputs(which: jax.Array) -> jax.Array:
            state, _ = jaxmlp.fit(jax.random.key(2), (x, y), recipe, {"learning_rate": 1e-2, "which": which})
            return recipe.model.apply(state.params, x)

        one, other = jax.vmap(outputs)(jnp.arange(2))
        offset = jnp.mean(losses.unit_gaussian_nll(one, y) - half_squared_error(one, y))
        return abs(one - other).max(), offset

    gap, offset = gaps(x, y)
    return float(gap), float(offset)


def draw(
    report: Report,
    x: np.ndarray,
    y: np.ndarray,
    grid: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    loss: np.ndarray,
) -> None:
    """Draw the points under the learnt mean and its bands, and the spread beside the truth."""
    figure, (plane, right) = canvas(2, width=4.6)
    plane.plot(x[::15], y[::15], ".", color=GREY, markersize=2.5, alpha=0.7)
    for z, alpha in ((1.96, 0.15), (1.645, 0.2), (0.674, 0.35)):
        band = (mean - z * spread).ravel(), (mean + z * spread).ravel()
        plane.fill_between(grid.ravel(), *band, color=BLUE, alpha=alpha, linewidth=0)
    plane.plot(grid, mean, color=BLUE, label="mean, with 50, 90 and 95 % bands")
    plane.plot(grid, mean_of(grid), "--", color=ORANGE, label="the true mean")
    plane.set(xlabel="x", ylabel="y", title="Maximum likelihood learns mean and spread", ylim=(-2.6, 2.2))
    plane.legend(loc="lower left", fontsize="small")
    right.plot(grid, spread, color=BLUE, label="learnt")
    right.plot(grid, spread_of(grid), "--", color=ORANGE, label="true")
    right.set(xlabel="x", ylabel="standard deviation", title="The spread", ylim=(0, 0.8))
    right.legend(loc="upper left", fontsize="small")
    inset = right.inset_axes((0.62, 0.12, 0.36, 0.34))
    inset.plot(loss, color=BLUE)
    inset.set_title("NLL by epoch", fontsize="small")
    report.figure(figure)
