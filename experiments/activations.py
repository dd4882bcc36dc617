"""What does the choice of the activation change?

    python -m experiments activations

The notes name ReLU, sigmoid and tanh. Every activation learns the same curve from eight seeds, all of them in one
compiled program: which activation a network has is a number here. All but the identity must go five times below the
straight line's floor, and at depth 20 the gradient of the first layer must all but vanish under sigmoid, by at least
a million times against ReLU.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps

import jaxmlp
from experiments.report import GREY, Report, canvas
from jaxmlp import MLP, Layer, Recipe, linear, losses, training
from jaxmlp.layer import ACTIVATIONS, default_init
from jaxmlp.training import CosineAdamW

DEPTHS = (1, 4, 10, 20)
SEEDS = 8
NUMBERED = np.arange(len(ACTIVATIONS))


@jax.tree_util.register_static
@dataclass(frozen=True)
class Chosen:
    """A perceptron with the `which`-th of `ACTIVATIONS`, a traced number, so that one program has them all."""

    sizes: tuple[int, ...]

    def init(self, key: jax.Array, *, which: Any) -> tuple[Layer, ...]:
        """Draw the parameters with the initializer that the activation has by default."""
        inits = sorted({default_init(name) for name in ACTIVATIONS})
        of_each = np.array([inits.index(default_init(name)) for name in ACTIVATIONS])
        drawers = [MLP(self.sizes, initializer=init, scan=True).init for init in inits]
        return jax.lax.switch(jnp.asarray(of_each)[which], drawers, key)

    def apply(self, params: tuple[Layer, ...], x: Any, *, which: Any) -> jax.Array:
        """Return the outputs."""

        def phi(a: jax.Array) -> jax.Array:
            return jax.lax.switch(which, list(ACTIVATIONS.values()), a)

        return MLP(self.sizes, phi, scan=True).apply(params, x)


def run(report: Report) -> None:
    """Train every activation, measure the gradient against depth, and draw both."""
    x = np.linspace(-4, 4, 256, dtype="f")[:, None]
    y = np.sin(1.5 * x) * np.exp(-(x**2) / 8) + 0.15 * np.abs(x)
    floor = float(losses.squared_error(MLP((1, 1)).apply((linear.least_squares(x, y),), x), y).mean())

    before = training.trace_count()
    report.stage(f"{len(ACTIVATIONS)} activations, {SEEDS} seeds each, in one program")
    recipe = Recipe(Chosen((1, 32, 32, 1)), losses.squared_error, CosineAdamW(steps=1000), epochs=1000)
    keys = jax.random.split(jax.random.key(0), SEEDS)

    def learn(which: jax.Array) -> tuple[jax.Array, jax.Array]:
        numbers = {"learning_rate": 1e-2, "which": which}
        states, history = jax.vmap(jaxmlp.fit, (0, None, None, None))(keys, (x, y), recipe, numbers)
        outputs = jax.vmap(lambda params: recipe.model.apply(params, x, which=which))(states.params)
        return history["loss"], outputs.mean(0)

    # A loop over the activations, since `vmap` over `which` would compute all twelve for each network.
    found = jax.tree.map(np.asarray, jax.jit(partial(jax.lax.map, learn))(NUMBERED))
    errors, curves = (dict(zip(ACTIVATIONS, values, strict=True)) for values in found)
    traces = training.trace_count() - before
    report.claim(
        f"{len(ACTIVATIONS)} activations, {SEEDS} seeds each: one trace",
        expected="1",
        measured=f"{traces}",
        holds=traces == 1,
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
    slopes = dict(zip(ACTIVATIONS, np.asarray(first_gradients(x, y)), strict=True))
    ratio = slopes["relu"][-1] / slopes["sigmoid"][-1]
    report.claim(
        "gradients vanish under sigmoid at depth 20",
        expected="> 1e6 below ReLU's",
        measured=f"{ratio:.0e}",
        holds=ratio > 1e6,
    )
    draw(report, x, y, errors, curves, slopes)


@jax.jit
def first_gradients(x: np.ndarray, y: np.ndarray) -> jax.Array:
    """Return the median norm, over 16 seeds, of dL/dW of the first layer before training, (activations, depths)."""
    keys = jax.random.split(jax.random.key(1), 16)

    def medians(which: jax.Array) -> jax.Array:
        def norm(mlp: Chosen, key: jax.Array) -> jax.Array:
            def loss(params: tuple[Layer, ...]) -> jax.Array:
                return losses.squared_error(mlp.apply(params, x, which=which), y).mean()

            return jnp.linalg.norm(jax.grad(loss)(mlp.init(key, which=which))[0].w)

        nets = [Chosen((1, *[32] * depth, 1)) for depth in DEPTHS]
        return jnp.stack([jnp.median(jax.vmap(partial(norm, mlp))(keys)) for mlp in nets])

    return jax.lax.map(medians, NUMBERED)


def draw(report: Report, x: np.ndarray, y: np.ndarray, errors: dict, curves: dict, slopes: dict) -> None:
    """Draw each activation with its derivative, the curves learnt, the losses, and gradient against depth."""
    figure, axes = canvas(4, width=3.9, height=3.8)
    colours = dict(zip(ACTIVATIONS, colormaps["tab20"].colors, strict=False))  # type: ignore[attr-defined]
    a = np.linspace(-3, 3, 200, dtype="f")
    shapes = jax.jit(lambda a: {name: phi(a) for name, phi in ACTIVATIONS.items()})(a)
    axes[2].plot(x, y, color=GREY, linewidth=6, alpha=0.4)
    for name in ACTIVATIONS:
        axes[0].plot(a, shapes[name], color=colours[name], label=name)
        axes[1].semilogy(np.median(errors[name], 0), color=colours[name])
        axes[2].plot(x, curves[name], color=colours[name], linewidth=1)
        axes[3].semilogy(DEPTHS, slopes[name], ".-", color=colours[name])
    axes[0].set(title="The activations", xlabel="a", ylabel="phi(a)", ylim=(-2, 3))
    axes[0].legend(fontsize="x-small", ncols=2)
    axes[1].set(title=f"Loss, median of {SEEDS} seeds", xlabel="epoch", ylabel="mean squared error")
    axes[2].set(title="The curves they learn", xlabel="x", ylabel="y")
    axes[3].set(title="First layer's gradient, untrained", xlabel="hidden layers", ylabel="|dL/dW|")
    report.figure(figure)
