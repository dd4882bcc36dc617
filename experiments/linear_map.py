"""Does training recover a linear map between two vector spaces?

    python -m experiments linear_map

y = W'x + b maps one vector space into another. From examples alone, gradient descent must find the W and b that
made them: in the plane, where the image of the unit circle is an ellipse to look at, to 1e-3, and from R^5 to
R^3, where the closed form is the judge, to 1e-3.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmlp
from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Layer, Recipe, linear, losses

W, B = np.array([[1.6, 0.5], [-0.7, 0.9]], "f"), np.array([0.4, -0.3], "f")


def run(report: Report) -> None:
    """Recover two maps from examples and draw the unit circle under the one that is being learnt."""
    report.stage("R^2 to R^2")
    x, *examples = map(np.asarray, drawn())
    recipe = Recipe(MLP((2, 2)), losses.squared_error, optax.sgd, epochs=25, batch_size=50)
    rate = {"learning_rate": 0.05}

    @jax.jit
    def descend(key: jax.Array, data: tuple[np.ndarray, np.ndarray]) -> tuple[Layer, Layer]:
        def one_epoch(state: jaxmlp.State, _: None) -> tuple[jaxmlp.State, Layer]:
            state = jaxmlp.epoch(state, data, recipe, rate)[0]
            return state, state.params[0]

        state = jaxmlp.start(key, recipe, rate)
        return state.params[0], jax.lax.scan(one_epoch, state, length=recipe.epochs)[1]

    begin, path = jax.tree.map(np.asarray, descend(jax.random.key(1), (x, x @ W + B)))
    layers = [begin, *(jax.tree.map(lambda a, i=i: a[i], path) for i in range(recipe.epochs))]
    gap = distance(layers[-1], Layer(jnp.asarray(W), jnp.asarray(B)))
    report.claim("W and b of a map of the plane", expected="gap < 1e-3", measured=f"{gap:.1e}", holds=gap < 1e-3)

    report.stage("R^5 to R^3, with noise")
    x, w, noise = examples
    y = x @ w + np.float32(0.1) * noise
    wide = Recipe(MLP((5, 3)), losses.squared_error, optax.sgd, epochs=300)
    state, _ = jaxmlp.fit(jax.random.key(5), (x, y), wide, {"learning_rate": 0.2})
    found = jax.tree.map(np.asarray, state.params[0])
    gap = distance(found, jax.jit(linear.least_squares)(x, y))
    report.claim("from R^5 to R^3: the closed form", expected="gap < 1e-3", measured=f"{gap:.1e}", holds=gap < 1e-3)
    error = float(abs(found.w - w).max())
    report.claim("the noise-free W behind it", expected="gap < 0.03", measured=f"{error:.3f}", holds=error < 0.03)
    draw(report, layers)


@jax.jit
def drawn() -> list[jax.Array]:
    """Return the plane's inputs, then inputs, weights and noise of the other map."""
    shapes = {0: (200, 2), 2: (500, 5), 3: (5, 3), 4: (500, 3)}
    return [jax.random.normal(jax.random.key(seed), shape) for seed, shape in shapes.items()]


def distance(found: Layer, true: Layer) -> float:
    """Return the largest difference between two layers' numbers."""
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - np.asarray(b)).max()), found, true)))


def draw(report: Report, layers: list[Layer]) -> None:
    """Draw the unit circle and its image before, during and after training."""
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    marks = circle[::25]
    figure, axes = canvas(4, width=3.2, height=3.3)
    for ax, epoch in zip(axes, (0, 2, 6, len(layers) - 1), strict=True):
        layer = layers[epoch]
        goal = circle @ W + B
        ax.plot(*circle.T, color=GREY, linewidth=1, label="unit circle")
        ax.plot(*goal.T, color=BLUE, linestyle="--", label="the true image")
        ax.plot(*(circle @ layer.w + layer.b).T, color=ORANGE, label="the learnt image")
        ax.scatter(*(marks @ layer.w + layer.b).T, c=np.arange(len(marks)), cmap="hsv", s=18, zorder=3)
        ax.set(title=f"epoch {epoch}", aspect="equal", xlim=(-2, 2.7), ylim=(-2, 2))
    axes[0].legend(fontsize="small", loc="lower right")
    report.figure(figure)
