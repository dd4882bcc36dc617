"""Does a network solve Burgers' equation by being told nothing but the equation?

    python -m experiments pinn

u_t + u u_x = nu u_xx for x in -1 ... 1 and t in 0 ... 1, from u = -sin(pi x), with u = 0 at both ends (Raissi 2019, doi
10.1016/j.jcp.2018.10.045; here nu = 0.05). The loss takes second derivatives through `apply`, at points that it draws
anew at each step with `key`: no value of the solution in between is shown to the network. Against the exact solution
(Cole 1951, doi 10.1090/qam/42889) it must be right to 2 %. How much start and ends count is a number, so a population:
with too little the network solves another problem, with too much none.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, population
from jaxmlp.training import CosineAdamW
from jaxmlp.types import Number, Params

NU, WEIGHTS, EPOCHS, BATCH, STEPS = 0.05, (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), 40, 128, 50
MODEL = MLP((2, 20, 20, 20, 1), "tanh")


def residual(
    outputs: Array, targets: None, *, params: Params, x: Array, apply: Callable, key: Array, known: Number
) -> tuple[Array, dict[str, Array]]:
    """Return (u_t + u u_x - nu u_xx)^2 and `known` times the squared error at start and ends, at points of each."""

    def u(point: Array) -> Array:
        return apply(params, point[None])[0, 0]

    def equation(point: Array) -> Array:
        (u_x, u_t), (u_xx, _) = jax.jvp(jax.grad(u), (point,), (jnp.array([1.0, 0.0]),))
        return jnp.square(u_t + u(point) * u_x - NU * u_xx)

    inside, edge = jax.random.uniform(key, (2, len(x), 2), minval=jnp.array([-1.0, 0.0]))
    start = jnp.stack([edge[:, 0], jnp.zeros(len(x))], axis=1)
    ends = jnp.stack([jnp.sign(edge[:, 0]), edge[:, 1]], axis=1)
    misfit = jnp.square(apply(params, start)[:, 0] + jnp.sin(jnp.pi * start[:, 0])) + jnp.square(
        apply(params, ends)[:, 0]
    )
    residuals = jax.vmap(equation)(inside)
    return residuals + known * misfit, {"equation": residuals, "misfit": misfit}


def error(outputs: Array, targets: Array, *, weight: Array | None = None) -> Array:
    """Return |u - exact| / |exact| over all points."""
    return jnp.linalg.norm(outputs - targets) / jnp.linalg.norm(targets)


def exact(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the solution of Cole and Hopf, an average over a Gaussian by quadrature: for t > 0."""
    nodes, shares = np.polynomial.hermite.hermgauss(64)
    back = x[..., None] - np.sqrt(4 * NU * t[..., None]) * nodes
    f = shares * np.exp(-np.cos(np.pi * back) / (2 * np.pi * NU))
    return -(f * np.sin(np.pi * back)).sum(-1) / f.sum(-1)


def run(report: Report) -> None:
    """Train a population over the weight of what is known, and compare the best with the exact solution."""
    x, t = np.meshgrid(np.linspace(-1, 1, 101), np.linspace(0, 1, 61))
    points = np.stack([x.ravel(), t.ravel()], axis=1).astype("f")
    truth = exact(x, t)
    recipe = Recipe(MODEL, residual, CosineAdamW(), epochs=EPOCHS, batch_size=BATCH, metrics=(error,))
    keys, numbers = population.grid(learning_rate=[5e-3], known=WEIGHTS)
    report.stage(f"{len(WEIGHTS)} weights of start and ends, {EPOCHS * STEPS:,} steps each")
    states, history = population.fit(
        keys,
        (np.zeros((STEPS * BATCH, 2), "f"),),  # how many points an epoch has: where they are, the loss draws
        recipe,
        numbers,
        validation=(points, truth.reshape(-1, 1).astype("f")),
        callback=report.progress(EPOCHS),
    )
    state, which = population.best(states, history, by="validation_error", largest=False)
    curves = np.asarray(history["validation_error"])
    errors = curves[:, -1]
    best = errors[which]
    report.claim("it solves the equation", expected="error < 2 %", measured=f"{best:.2%}", holds=best < 0.02)
    said, inside = f"{WEIGHTS[which]:g}", 0 < which < len(WEIGHTS) - 1
    report.claim("the best weight is inside the sweep", expected="not at an edge", measured=said, holds=inside)
    ends = errors[[0, -1]] / best
    said, fail = f"{ends[0]:.0f} and {ends[1]:.0f} times", ends.min() > 3
    report.claim("too little and too much both fail", expected="error > 3 times", measured=said, holds=fail)
    u = np.asarray(jax.jit(MODEL.apply)(state.params, points)).reshape(x.shape)
    draw(report, x, t, u, truth, errors)


def draw(report: Report, x: np.ndarray, t: np.ndarray, u: np.ndarray, truth: np.ndarray, errors: np.ndarray) -> None:
    """Draw the solution over x and t, its cuts beside the exact ones, where it is wrong, and the error by weight."""
    figure, (left, cuts, wrong, right) = canvas(4, width=3.6)
    image = left.pcolormesh(t.T, x.T, u.T, cmap="RdBu_r", vmin=-1, vmax=1, shading="gouraud")
    figure.colorbar(image, ax=left)
    left.set(xlabel="t", ylabel="x", title="The network's u(x, t)")
    for place, colour in zip((0, 15, 30, 60), (GREY, GREEN, BLUE, ORANGE), strict=True):
        cuts.plot(x[0], u[place], color=colour, label=f"t = {t[place, 0]:.2g}")
        cuts.plot(x[0], truth[place], "--", color="black", linewidth=0.8)
    cuts.set(xlabel="x", ylabel="u", title="Cuts, and the exact ones (dashed)")
    cuts.legend(fontsize="small")
    image = wrong.pcolormesh(t.T, x.T, 100 * np.abs(u - truth).T, cmap="magma_r", shading="gouraud", vmin=0)
    figure.colorbar(image, ax=wrong)
    wrong.set(xlabel="t", ylabel="x", title="|u - exact|, %")
    right.plot(WEIGHTS, 100 * errors, "o-", color=ORANGE)
    right.set(xscale="log", yscale="log", xlabel="weight of start and ends", ylabel="error, %")
    right.set(yticks=[1, 2, 5, 10, 20], yticklabels=["1", "2", "5", "10", "20"], title="Too little, too much")
    right.minorticks_off()
    for axes in (left, wrong):
        axes.grid(False)
    report.figure(figure)
