"""Why does a stack of linear maps need an activation?

    python -m experiments collapse

A composition of affine maps is affine. Five linear layers, trained on a curve, must equal the one layer that
they fold to, to rounding, and stop at the floor of least squares; the same stack with tanh must go at least a
hundred times below that floor.
"""

import jax
import numpy as np

import jaxmlp
from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Layer, Recipe, linear, losses
from jaxmlp.training import CosineAdamW
from jaxmlp.types import History

SIZES = (1, 16, 16, 16, 16, 1)


def run(report: Report) -> None:
    """Train the stack with and without an activation, fold the one without, and draw both."""
    x = np.linspace(-1, 1, 200, dtype="f")[:, None]
    y = (np.sin(3 * x) + x**2).astype("f")

    def train(activation: str) -> tuple[tuple[Layer, ...], History]:
        report.stage(f"five layers, {activation}")
        recipe = Recipe(MLP(SIZES, activation), losses.squared_error, CosineAdamW(steps=1500), epochs=1500)
        state, history = jaxmlp.fit(jax.random.key(0), (x, y), recipe, {"learning_rate": 5e-3})
        return state.params, history

    params, linear_history = train("identity")
    bent, history = train("tanh")
    floor, of_fold, straight, curve = map(np.asarray, looked_at(params, bent, x, y))
    floor = float(floor)
    gap = float(abs(of_fold - straight).max())
    report.claim("five linear layers are one", expected="gap < 1e-5", measured=f"{gap:.1e}", holds=gap < 1e-5)
    reached = float(linear_history["loss"][-1])
    report.claim(
        "they stop at the least-squares floor",
        expected=f"{floor:.4f} to 1 %",
        measured=f"{reached:.4f}",
        holds=abs(reached / floor - 1) < 0.01,
    )
    below = floor / float(history["loss"][-1])
    report.claim("with tanh: far below it", expected="100 times", measured=f"{below:,.0f} times", holds=below > 100)

    figure, (plane, loss) = canvas(2)
    plane.plot(x, y, color=GREY, linewidth=5, alpha=0.5, label="target")
    plane.plot(x, straight, color=BLUE, label="five linear layers")
    plane.plot(x, of_fold, ":", color=ORANGE, linewidth=3, label="their fold, one layer")
    plane.plot(x, curve, color=GREEN, label="five layers, tanh")
    plane.set(xlabel="x", ylabel="y", title="A stack of linear maps is a linear map")
    plane.legend(fontsize="small")
    loss.semilogy(linear_history["loss"], color=BLUE, label="linear")
    loss.semilogy(history["loss"], color=GREEN, label="tanh")
    loss.axhline(floor, color=ORANGE, linestyle=":", label="least-squares floor")
    loss.set(xlabel="epoch", ylabel="mean squared error", title="Depth without an activation buys nothing")
    loss.legend(fontsize="small")
    report.figure(figure)


@jax.jit
def looked_at(
    params: tuple[Layer, ...], bent: tuple[Layer, ...], x: np.ndarray, y: np.ndarray
) -> tuple[jax.Array, ...]:
    """Return the least squares' floor, and what the fold, the linear layers and those with tanh say about x."""
    line = MLP((1, 1))
    floor = losses.squared_error(line.apply((linear.least_squares(x, y),), x), y).mean()
    of_fold = line.apply((linear.compose(params),), x)
    return floor, of_fold, MLP(SIZES, "identity").apply(params, x), MLP(SIZES, "tanh").apply(bent, x)
