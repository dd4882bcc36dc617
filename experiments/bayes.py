"""Do sampling, an ensemble and Laplace's approximation doubt the same?

    python -m experiments bayes

One network and one loss, the negative log posterior of a sine with noise and a gap in its data: sampled by BlackJAX's
NUTS (Hoffman and Gelman 2014, arXiv 1111.4246), minimised from sixteen starts (a deep ensemble, Lakshminarayanan 2017,
arXiv 1612.01474), and approximated about the best of them by a Gaussian (Laplace, with the generalised Gauss-Newton
matrix; Immer 2021, arXiv 2008.08400). All must agree where there is data and doubt more where there is none; Laplace's
doubt must be that of the samples to a factor of three, and the ensemble's, which is known to be too sure, less.
"""

from functools import partial
from typing import Any

import blackjax  # type: ignore[import-not-found]
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses, population
from jaxmlp.types import Numeric, Params

MEMBERS, EPOCHS, WARMUP, DRAWS, CHAINS, DEPTH = 16, 1500, 300, 300, 2, 8  # NUTS doubles its paths up to 2^8 moves
ROWS, NOISE = 60, 0.1
MODEL = MLP((1, 12, 1), "tanh")
Band = tuple[np.ndarray, np.ndarray]  # mean and standard deviation at the points of a grid


def posterior(outputs: Array, targets: Numeric, *, params: Params) -> Array:
    """Return -log N(y; f(x), NOISE^2) and each example's share of -log N(params; 0, 1), up to constants."""
    prior = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params)) / 2
    return losses.unit_gaussian_nll(outputs / NOISE, targets / NOISE) + prior / ROWS


def sampled(key: Array, params: Params, x: np.ndarray, y: np.ndarray) -> Params:
    """Return a chain of draws from the posterior, (DRAWS, ...), by NUTS that tunes itself first."""

    def density(params: Params) -> Array:
        return -jnp.sum(posterior(MODEL.apply(params, x), y, params=params))

    def move(state: Any, key: Array) -> tuple[Any, Params]:
        state, _ = kernel.step(key, state)
        return state, state.position

    one, other = jax.random.split(key)
    warmup: Any = blackjax.window_adaptation(blackjax.nuts, density, max_num_doublings=DEPTH)
    (state, tuned), _ = warmup.run(one, params, WARMUP)
    kernel: Any = blackjax.nuts(density, **tuned)
    return jax.lax.scan(move, state, jax.random.split(other, DRAWS))[1]


def laplace(params: Params, x: np.ndarray, grid: np.ndarray) -> Array:
    """Return the standard deviation on the grid of N(params, H^-1), H = J^T J / NOISE^2 + 1, of the linearised net."""
    flat, whole = ravel_pytree(params)
    slopes, ahead = (jax.jacobian(lambda flat, x=x: MODEL.apply(whole(flat), x)[:, 0])(flat) for x in (x, grid))
    curvature = slopes.T @ slopes / NOISE**2 + jnp.eye(len(flat))
    return jnp.sqrt(jnp.sum(ahead * jnp.linalg.solve(curvature, ahead.T).T, axis=1))


def run(report: Report) -> None:
    """Find mean and doubt on a grid in the three ways, compare them, and draw them."""
    rng = np.random.default_rng(0)
    x = (rng.uniform(0.6, 2, (ROWS, 1)) * np.where(np.arange(ROWS) % 2, 1, -1)[:, None]).astype("f")
    y = (np.sin(2 * x) + NOISE * rng.normal(size=x.shape)).astype("f")
    grid = np.linspace(-2.5, 2.5, 201, dtype="f")[:, None]
    recipe = Recipe(MODEL, posterior, optax.adam, epochs=EPOCHS)
    keys, numbers = population.grid(MEMBERS, learning_rate=[2e-2])
    report.stage(f"an ensemble of {MEMBERS}")
    states, history = population.fit(keys, (x, y), recipe, numbers, callback=report.progress(EPOCHS))
    report.stage(f"NUTS, {CHAINS} chains")
    chains = jax.jit(jax.vmap(partial(sampled, x=x, y=y)))(keys[:CHAINS], population.take(states.params, range(CHAINS)))
    draws = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), chains)
    bands: dict[str, Band] = {}
    for name, params in (("NUTS", draws), ("ensemble", states.params)):
        paths = np.asarray(population.predict(MODEL, params, grid))[..., 0]
        bands[name] = paths.mean(0), paths.std(0)
    best, _ = population.best(states, history)
    bands["Laplace"] = (
        np.asarray(MODEL.apply(best.params, grid))[:, 0],
        np.asarray(jax.jit(laplace)(best.params, x, grid)),
    )

    known, gap = (abs(abs(grid[:, 0]) - 1.3) < 0.5), abs(grid[:, 0]) < 0.4
    apart = max(float(abs(mean - bands["NUTS"][0])[known].mean()) for mean, _ in bands.values())
    report.claim("their means agree on the data", expected="to 0.05", measured=f"{apart:.3f}", holds=apart < 0.05)
    growth = [float(spread[gap].mean() / spread[known].mean()) for _, spread in bands.values()]
    said = " ".join(f"{times:.1f}" for times in growth)
    report.claim("each doubts more in the gap", expected="> 1.5 times", measured=said, holds=min(growth) > 1.5)
    sampled_, ensemble, gaussian = ([float(spread[w].mean()) for w in (known, gap)] for _, spread in bands.values())
    ratio = [one / other for one, other in zip(gaussian, sampled_, strict=True)]
    said, alike = f"{ratio[0]:.2f}, gap {ratio[1]:.2f}", 1 / 3 < min(ratio) and max(ratio) < 3
    report.claim("Laplace doubts as the samples do", expected="1/3 to 3 times", measured=said, holds=alike)
    less = ensemble[1] / sampled_[1]
    report.claim(
        "the ensemble is too sure in the gap", expected="< 0.8 times", measured=f"{less:.2f}", holds=less < 0.8
    )
    draw(report, x, y, grid[:, 0], bands)


def draw(report: Report, x: np.ndarray, y: np.ndarray, grid: np.ndarray, bands: dict[str, Band]) -> None:
    """Draw each way's mean with two standard deviations, and the three doubts along x."""
    figure, (*planes, right) = canvas(4, width=3.5)
    for axes, (name, (mean, spread)), colour in zip(planes, bands.items(), (BLUE, ORANGE, GREEN), strict=True):
        axes.fill_between(grid, mean - 2 * spread, mean + 2 * spread, color=colour, alpha=0.25, linewidth=0)
        axes.plot(grid, np.sin(2 * grid), "--", color=GREY, linewidth=1)
        axes.plot(grid, mean, color=colour)
        axes.plot(x, y, ".", color="black", markersize=2.5)
        axes.set(xlabel="x", title=name, ylim=(-2.2, 2.2))
        right.plot(grid, spread, color=colour, label=name)
    right.plot(x, np.zeros_like(x), "|", color="black", alpha=0.5)
    right.set(xlabel="x", title="Doubt: standard deviation", ylim=(-0.01, 0.55))
    right.legend(loc="upper center", fontsize="small")
    report.figure(figure)
