"""Does gradient descent on a line arrive where the closed form says?

    python -m experiments line

The notes begin with y = wx + b, its mean squared error, the partial derivatives in w and b, and the update
w <- w - rate dMSE/dw. On 60 noisy points of a line, 400 such updates must end at the least-squares line to
1e-4, and the derivatives by hand, by `jax.grad` and by finite differences must agree to 1e-8 in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmlp
from experiments.report import BLUE, ORANGE, RED, Report, canvas
from jaxmlp import MLP, Layer, Recipe, linear, losses

LINE = MLP((1, 1))


def run(report: Report) -> None:
    """Train the line, compare it with the closed form, and draw the path over the loss surface."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 2, (60, 1)).astype("f")
    y = (1.5 * x - 0.5 + rng.normal(0, 0.3, x.shape)).astype("f")

    recipe = Recipe(LINE, losses.squared_error, optax.sgd, epochs=400)
    rate = {"learning_rate": 0.15}
    report.stage("400 steps of gradient descent")
    begin = Layer(jnp.array([[-1.2]]), jnp.array([2.0]))

    def walk(state: jaxmlp.State, _: None) -> tuple[jaxmlp.State, Layer]:
        return jaxmlp.step(state, (x, y), recipe, rate)[0], state.params[0]

    @jax.jit
    def descend(key: jax.Array, layer: Layer) -> tuple[jaxmlp.State, Layer]:
        state = jaxmlp.start(key, recipe, rate)._replace(params=(layer,))
        return jax.lax.scan(walk, state, length=recipe.epochs)

    state, path = descend(jax.random.key(0), begin)
    (found,), best = state.params, linear.least_squares(x, y)
    gap = max(float(abs(found.w - best.w).max()), float(abs(found.b - best.b).max()))
    report.claim(
        "the iterates arrive at the closed form", expected="gap < 1e-4", measured=f"{gap:.1e}", holds=gap < 1e-4
    )
    gradient = max(float(abs(g).max()) for g in linear.gradients(best, x, y) if g is not None)
    report.claim(
        "the gradient vanishes there", expected="|g| < 1e-5", measured=f"{gradient:.1e}", holds=gradient < 1e-5
    )

    by_jax, by_difference = derivatives(x.astype("d"), y.astype("d"))
    report.claim(
        "derivatives by hand = jax.grad", expected="gap < 1e-12", measured=f"{by_jax:.1e}", holds=by_jax < 1e-12
    )
    report.claim(
        "derivatives by hand = finite differences",
        expected="gap < 1e-8",
        measured=f"{by_difference:.1e}",
        holds=by_difference < 1e-8,
    )
    draw(report, x, y, path, best)


def derivatives(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the largest gaps between the derivatives by hand and those of JAX and of central differences."""

    def mse(layer: Layer, x: jax.Array, y: jax.Array) -> jax.Array:
        return losses.squared_error(LINE.apply((layer,), x), y).mean()

    @jax.jit  # one program: each operation by itself would be compiled by itself
    def gaps(layer: Layer, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        by_hand = linear.gradients(layer, x, y)
        gap = jax.tree.map(lambda a, b: abs(a - b).max(), by_hand, jax.grad(mse)(layer, x, y))
        h = 1e-5
        up, down = (layer._replace(w=layer.w + d) for d in (h, -h)), (layer._replace(b=layer.b + d) for d in (h, -h))
        by_difference = [(mse(next(pair), x, y) - mse(next(pair), x, y)) / (2 * h) for pair in (up, down)]
        off = jnp.maximum(abs(by_difference[0] - by_hand.w[0, 0]), abs(by_difference[1] - by_hand.b[0]))
        return jnp.maximum(gap.w, gap.b), off

    with jax.enable_x64(True):
        by_jax, by_difference = gaps(Layer(jnp.array([[0.3]]), jnp.array([-0.7])), x, y)
        return float(by_jax), float(by_difference)


def draw(report: Report, x: np.ndarray, y: np.ndarray, path: Layer, best: Layer) -> None:
    """Draw the path over the loss surface, and lines on their way to the fit."""
    figure, (surface, plane) = canvas(2)
    w, b = np.meshgrid(np.linspace(-1.6, 3.4, 120), np.linspace(-2.5, 2.6, 120))
    mse = np.mean((w[..., None] * x[:, 0] + b[..., None] - y[:, 0]) ** 2, -1)
    surface.contourf(w, b, np.log10(mse), 24, cmap="Blues_r")
    ws, bs = np.asarray(path.w).ravel(), np.asarray(path.b).ravel()
    surface.plot(ws, bs, ".-", color=ORANGE, markersize=4, linewidth=1, label="iterates")
    surface.plot(best.w.item(), best.b.item(), "*", color=RED, markersize=13, label="closed form")
    surface.set(xlabel="w", ylabel="b", title="The path over log MSE(w, b)")
    surface.legend(loc="upper right")
    ends = np.array([0.0, 2.0])
    plane.plot(x, y, ".", color=BLUE)
    for step, alpha in ((0, 0.25), (2, 0.4), (6, 0.5), (20, 0.7), (399, 1.0)):
        plane.plot(ends, ws[step] * ends + bs[step], color=ORANGE, alpha=alpha, label=f"step {step}")
    plane.set(xlabel="x", ylabel="y", title="The line, on its way")
    plane.legend()
    report.figure(figure)
