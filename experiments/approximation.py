"""How well does a perceptron approximate, against its width and depth?

    python -m experiments approximation

The notes: a neural network is a function approximator (Cybenko 1989, doi 10.1007/BF02551274). On a curve with a
kink and a rising frequency, the error of one hidden layer under L-BFGS must fall at least fiftyfold from width 2
to 64. Under Adam, three hidden layers must come ten times closer than one with as many parameters, each at its
best of four initial scales, medians of six seeds. On a photograph (scikit-learn's flower, 107 x 160) as a function
from coordinates to colours, the signal-to-noise ratio must rise with every width and pass 25 dB.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_sample_image

import jaxmlp
from experiments.report import BLUE, GREEN, GREY, ORANGE, RED, Report, canvas
from jaxmlp import MLP, Layer, Recipe, losses
from jaxmlp.training import CosineAdamW

SEEDS = 6
SCALES = (1.0, 2.0, 4.0, 8.0)  # of the initial weights, for Adam; L-BFGS does not mind


def run(report: Report) -> None:
    """Approximate a curve and an image with nets of many sizes, and draw what they reach."""
    x = np.linspace(-1, 1, 256, dtype="f")[:, None]
    y = (np.sin(8 * x**2) + np.abs(x)).astype("f")
    report.stage("one hidden layer of 2 to 64, L-BFGS")
    width, curves = approximate(((2,), (8,), (32,), (64,)), optax.lbfgs, 400, {}, (x, y), (1.0,))
    adam: dict = {}
    for nets in (((8,), (32,), (64,)), ((4, 4, 4), (8, 8, 8), (13, 13, 13))):
        report.stage(f"hidden layers {', '.join('-'.join(map(str, hidden)) for hidden in nets)}, Adam")
        adam |= approximate(nets, CosineAdamW(2000), 2000, {"learning_rate": 1e-2}, (x, y), SCALES)[0]
    fall = width[2,] / width[64,]
    report.claim("error falls with width", expected="> 50 times", measured=f"{fall:,.0f} times", holds=fall > 50)
    gain = adam[64,] / adam[8, 8, 8]
    report.claim(
        "three layers beat one (169, 193 parameters)",
        expected="> 10 times",
        measured=f"{gain:,.0f} times",
        holds=gain > 10,
    )

    photo = load_sample_image("flower.jpg")[::4, ::4][:107, :160].astype("f") / 255
    pictures, decibels = {}, []
    for units in (16, 64, 256):
        report.stage(f"a photograph, width {units}")
        pictures[units] = paint(photo, units)
        decibels.append(float(-10 * np.log10(np.mean((pictures[units] - photo) ** 2))))
    report.claim(
        "a photograph from its coordinates",
        expected="rising, > 25 dB",
        measured=" < ".join(f"{d:.1f}" for d in decibels) + " dB",
        holds=decibels == sorted(decibels) and decibels[-1] > 25,
    )
    titles = [f"width {units}: {d:.1f} dB" for units, d in zip(pictures, decibels, strict=True)]
    draw(report, x, y, width, adam, curves, {**pictures, 0: photo}, [*titles, "the photograph"])


@jax.tree_util.register_static
@dataclass(frozen=True)
class Narrower:
    """Nets of equal depth as one of the widest's shape: hidden units that the `which`-th does not have are zeros.

    Under tanh such a unit puts out zero, and its weights get no gradient, so the net is and stays the narrower one.
    """

    nets: tuple[tuple[int, ...], ...]  # hidden widths

    @property
    def widest(self) -> MLP:
        """The net whose shape all have."""
        return MLP((1, *max(self.nets), 1), "tanh")

    def init(self, key: jax.Array, *, which: Any, init_scale: Any) -> tuple[Layer, ...]:
        """Draw the narrower net's parameters, and put zeros around them."""
        shapes = jax.eval_shape(self.widest.init, key)

        def widen(a: jax.Array, to: jax.ShapeDtypeStruct) -> jax.Array:
            return jnp.pad(a, [(0, m - n) for n, m in zip(a.shape, to.shape, strict=True)])

        def draw(hidden: tuple[int, ...]) -> tuple[Layer, ...]:
            params = MLP((1, *hidden, 1), "tanh").init(key, init_scale=init_scale)
            return jax.tree.map(widen, params, shapes)

        return jax.tree.map(lambda *each: jnp.stack(each)[which], *map(draw, self.nets))

    def apply(self, params: tuple[Layer, ...], x: Any) -> jax.Array:
        """Return the outputs."""
        return self.widest.apply(params, x)


def approximate(
    nets: tuple[tuple[int, ...], ...],
    optimizer: Callable,
    epochs: int,
    numbers: dict,
    data: tuple,
    scales: tuple[float, ...],
) -> tuple[dict, dict]:
    """Train all nets of one depth, initial scales and seeds in one program.

    Returns:
      For each net the median error over the seeds at its best scale, and the curve of its best seed of all.
    """
    model = Narrower(nets)
    recipe = Recipe(model, losses.squared_error, optimizer, epochs=epochs)  # all at once: no noise to average out
    grid = np.meshgrid(np.arange(len(nets)), np.array(scales, "f"), np.arange(SEEDS), indexing="ij")

    @jax.jit
    @jax.vmap
    def train(which: jax.Array, scale: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        key = jax.random.split(jax.random.key(0), SEEDS)[seed]
        state, history = jaxmlp.fit(key, data, recipe, numbers | {"which": which, "init_scale": scale})
        return history["loss"][-1], model.apply(state.params, data[0])

    errors, curves = (np.asarray(a) for a in train(*map(np.ravel, grid)))
    errors, curves = errors.reshape(grid[0].shape), curves.reshape(len(nets), -1, len(data[0]))
    best = {hidden: float(np.median(error, 1).min()) for hidden, error in zip(nets, errors, strict=True)}
    return best, {hidden: c[np.nanargmin(error)] for hidden, c, error in zip(nets, curves, errors, strict=True)}


def paint(photo: np.ndarray, width: int) -> np.ndarray:
    """Train coordinates -> colours, seen through fixed sine waves (Tancik 2020, arXiv 2006.10739)."""
    rows, columns, _ = photo.shape
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"), -1)
    waves = np.pi * grid.reshape(-1, 2) @ np.random.default_rng(0).normal(0, 3, (2, 32))
    x = np.concatenate([np.sin(waves), np.cos(waves)], -1).astype("f")
    y = photo.reshape(-1, 3)
    mlp = MLP((64, width, width, 3))
    recipe = Recipe(mlp, losses.squared_error, CosineAdamW(steps=60 * 34), epochs=60, batch_size=512)

    @jax.jit
    def colours(key: jax.Array, x: np.ndarray, y: np.ndarray) -> jax.Array:
        state, _ = jaxmlp.fit(key, (x, y), recipe, {"learning_rate": 5e-3})
        return mlp.apply(state.params, x)

    return np.clip(colours(jax.random.key(0), x, y), 0, 1).reshape(photo.shape)


def draw(
    report: Report, x: np.ndarray, y: np.ndarray, width: dict, adam: dict, curves: dict, pictures: dict, titles: list
) -> None:
    """Draw error against parameters, the curves, and the photograph by width."""
    figure, axes = canvas(3, 2, width=4.2, height=3.1)
    axes[0].plot(x, y, color=GREY, linewidth=5, alpha=0.5, label="target")
    for hidden, colour in zip(curves, (RED, ORANGE, GREEN, BLUE), strict=True):
        axes[0].plot(x, curves[hidden], color=colour, linewidth=1.2, label=f"width {hidden[0]}")
    axes[0].set(title="One hidden layer", xlabel="x", ylabel="y")
    axes[0].legend(fontsize="small", loc="upper center")
    for errors, depth, label, style in (
        (width, 1, "one hidden layer, L-BFGS", "o-"),
        (adam, 1, "one hidden layer, Adam", "o--"),
        (adam, 3, "three hidden layers, Adam", "s-"),
    ):
        kept = {MLP((1, *hidden, 1)).parameter_count: e for hidden, e in errors.items() if len(hidden) == depth}
        axes[1].loglog(list(kept), list(kept.values()), style, color=BLUE if depth == 1 else ORANGE, label=label)
    axes[1].set(title="Width and depth, median of six seeds", xlabel="parameters", ylabel="mean squared error")
    axes[1].legend(fontsize="small", loc="center left")
    for ax, title, image in zip(axes[2:], titles, pictures.values(), strict=True):
        ax.imshow(image)
        ax.set(title=title)
        ax.axis("off")
    report.figure(figure)
