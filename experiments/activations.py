"""What does the choice of the activation change?

    python -m experiments activations

The notes name ReLU, sigmoid and tanh. Every activation learns the same curve from eight seeds, trained together
by `vmap` in one compiled program an activation. All but the identity must go five times below the straight
line's floor, and at depth 20 the gradient of the first layer must all but vanish under sigmoid, by at least a
million times against ReLU.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps

import jaxmlp
from experiments.report import GREY, Report, canvas
from jaxmlp import MLP, Recipe, linear, losses, training
from jaxmlp.layer import ACTIVATIONS
from jaxmlp.training import CosineAdamW

DEPTHS = (1, 4, 10, 20)
SEEDS = 8


def run(report: Report) -> None:
    """Train every activation, measure the gradient against depth, and draw both."""
    x = np.linspace(-4, 4, 256, dtype="f")[:, None]
    y = np.sin(1.5 * x) * np.exp(-(x**2) / 8) + 0.15 * np.abs(x)
    floor = float(losses.squared_error(MLP((1, 1)).apply((linear.least_squares(x, y),), x), y).mean())

    before, errors, curves = training.trace_count(), {}, {}
    for name in ACTIVATIONS:
        report.stage(f"{name}: {SEEDS} seeds in one program")
        recipe = Recipe(MLP((1, 32, 32, 1), name), losses.squared_error, CosineAdamW(steps=1000), epochs=1000)
        keys = jax.random.split(jax.random.key(0), SEEDS)
        states, history = jax.vmap(jaxmlp.fit, (0, None, None, None))(keys, (x, y), recipe, {"learning_rate": 1e-2})
        errors[name] = history["loss"]
        curves[name] = jax.vmap(recipe.model.apply, (0, None))(states.params, x).mean(0)
    traces = training.trace_count() - before
    report.claim(
        f"{SEEDS} seeds an activation, one trace each",
        expected=f"{len(ACTIVATIONS)}",
        measured=f"{traces}",
        holds=traces == len(ACTIVATIONS),
    )
    final = {name: float(np.median(error[:, -1])) for name, error in errors.items()}
    straight = final.pop("identity")
    report.claim(
        "the identity stays at the line's floor",
        expected=f"{floor:.4f}",
        measured=f"{straight:.4f}",
        holds=abs(straight / floor - 1) < 0.01,
    )
    worst = max(final, key=lambda name: final[name])
    report.claim(
        "each nonlinear one goes far below it",
        expected="5 times",
        measured=f"{floor / final[worst]:,.0f} times ({worst})",
        holds=final[worst] < floor / 5,
    )

    report.stage("the first layer's gradient against depth")
    slopes = {name: [first_gradient(name, depth, x, y) for depth in DEPTHS] for name in ACTIVATIONS}
    ratio = slopes["relu"][-1] / slopes["sigmoid"][-1]
    report.claim(
        "gradients vanish under sigmoid at depth 20",
        expected="> 1e6 below ReLU's",
        measured=f"{ratio:.0e}",
        holds=ratio > 1e6,
    )
    draw(report, x, y, errors, curves, slopes)


def first_gradient(activation: str, depth: int, x: np.ndarray, y: np.ndarray) -> float:
    """Return the median norm, over 16 seeds, of dL/dW of the first layer before training."""
    mlp = MLP((1, *[32] * depth, 1), activation)

    @jax.vmap
    def norm(key: jax.Array) -> jax.Array:
        grads = jax.grad(lambda p: losses.squared_error(mlp.apply(p, x), y).mean())(mlp.init(key))
        return jnp.linalg.norm(grads[0].w)

    return float(jnp.median(norm(jax.random.split(jax.random.key(1), 16))))


def draw(report: Report, x: np.ndarray, y: np.ndarray, errors: dict, curves: dict, slopes: dict) -> None:
    """Draw each activation with its derivative, the curves learnt, the losses, and gradient against depth."""
    figure, axes = canvas(4, width=3.9, height=3.8)
    colours = dict(zip(ACTIVATIONS, colormaps["tab20"].colors, strict=False))  # type: ignore[attr-defined]
    a = jnp.linspace(-3, 3, 200)
    axes[2].plot(x, y, color=GREY, linewidth=6, alpha=0.4)
    for name, phi in ACTIVATIONS.items():
        axes[0].plot(a, phi(a), color=colours[name], label=name)
        axes[1].semilogy(np.median(errors[name], 0), color=colours[name])
        axes[2].plot(x, curves[name], color=colours[name], linewidth=1)
        axes[3].semilogy(DEPTHS, slopes[name], ".-", color=colours[name])
    axes[0].set(title="The activations", xlabel="a", ylabel="phi(a)", ylim=(-2, 3))
    axes[0].legend(fontsize="x-small", ncols=2)
    axes[1].set(title=f"Loss, median of {SEEDS} seeds", xlabel="epoch", ylabel="mean squared error")
    axes[2].set(title="The curves they learn", xlabel="x", ylabel="y")
    axes[3].set(title="First layer's gradient, untrained", xlabel="hidden layers", ylabel="|dL/dW|")
    report.figure(figure)
