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
from jaxmlp import MLP, Recipe, linear, losses
from jaxmlp.training import CosineAdamW

SIZES = (1, 16, 16, 16, 16, 1)


def run(report: Report) -> None:
    """Train the stack with and without an activation, fold the one without, and draw both."""
    x = np.linspace(-1, 1, 200, dtype="f")[:, None]
    y = (np.sin(3 * x) + x**2).astype("f")
    floor = float(losses.squared_error(MLP((1, 1)).apply((linear.least_squares(x, y),), x), y).mean())

    def train(activation: str) -> tuple[tuple, dict, jax.Array]:
        report.stage(f"five layers, {activation}")
        recipe = Recipe(MLP(SIZES, activation), losses.squared_error, CosineAdamW(steps=1500), epochs=1500)
        state, history = jaxmlp.fit(jax.random.key(0), (x, y), recipe, {"learning_rate": 5e-3})
        return state.params, history, recipe.model.apply(state.params, x)

    params, linear_history, straight = train("identity")
    _, history, curve = train("tanh")
    folded = linear.compose(params)
    gap = float(abs(MLP((1, 1)).apply((folded,), x) - straight).max())
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
    plane.plot(x, folded.w.item() * x + folded.b.item(), ":", color=ORANGE, linewidth=3, label="their fold, one layer")
    plane.plot(x, curve, color=GREEN, label="five layers, tanh")
    plane.set(xlabel="x", ylabel="y", title="A stack of linear maps is a linear map")
    plane.legend(fontsize="small")
    loss.semilogy(linear_history["loss"], color=BLUE, label="linear")
    loss.semilogy(history["loss"], color=GREEN, label="tanh")
    loss.axhline(floor, color=ORANGE, linestyle=":", label="least-squares floor")
    loss.set(xlabel="epoch", ylabel="mean squared error", title="Depth without an activation buys nothing")
    loss.legend(fontsize="small")
    report.figure(figure)
