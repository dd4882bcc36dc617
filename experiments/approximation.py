"""How well does a perceptron approximate, against its width and depth?

    python -m experiments approximation

The notes: a neural network is a function approximator (Cybenko 1989, doi 10.1007/BF02551274). On a curve with a
kink and a rising frequency, the error of one hidden layer under L-BFGS must fall at least fiftyfold from width 2
to 64. Under Adam, three hidden layers must come ten times closer than one with as many parameters, each at its
best of four initial scales, medians of six seeds. On a photograph (scikit-learn's flower, 107 x 160) as a function
from coordinates to colours, the signal-to-noise ratio must rise with every width and pass 25 dB.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_sample_image

import jaxmlp
from experiments.report import BLUE, GREEN, GREY, ORANGE, RED, Report, canvas
from jaxmlp import MLP, Recipe, losses
from jaxmlp.training import CosineAdamW

SEEDS = 6
SCALES = (1.0, 2.0, 4.0, 8.0)  # of the initial weights, for Adam; L-BFGS does not mind


def run(report: Report) -> None:
    """Approximate a curve and an image with nets of many sizes, and draw what they reach."""
    x = np.linspace(-1, 1, 256, dtype="f")[:, None]
    y = (np.sin(8 * x**2) + np.abs(x)).astype("f")
    width, adam, curves = {}, {}, {}
    for hidden in ((2,), (8,), (32,), (64,)):
        report.stage(f"one hidden layer of {hidden[0]}, L-BFGS")
        width[hidden], curves[hidden] = approximate(hidden, optax.lbfgs, 400, {}, (x, y), (1.0,))
    for hidden in ((8,), (32,), (64,), (4, 4, 4), (8, 8, 8), (13, 13, 13)):
        report.stage(f"hidden layers {hidden}, Adam")
        adam[hidden], _ = approximate(hidden, CosineAdamW(2000), 2000, {"learning_rate": 1e-2}, (x, y), SCALES)
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


def approximate(
    hidden: tuple[int, ...], optimizer: Callable, epochs: int, numbers: dict, data: tuple, scales: tuple[float, ...]
) -> tuple[float, np.ndarray]:
    """Train all initial scales and seeds in one program.

    Returns:
      The median error over the seeds at the best scale, and the curve of the best net of all.
    """
    mlp = MLP((1, *hidden, 1), "tanh")
    recipe = Recipe(mlp, losses.squared_error, optimizer, epochs=epochs)  # all at once: no noise to average out
    keys = jax.random.split(jax.random.key(0), SEEDS)

    @jax.vmap  # over scales
    def train(scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        hyperparams = numbers | {"init_scale": scale}
        states, history = jax.vmap(jaxmlp.fit, (0, None, None, None))(keys, data, recipe, hyperparams)
        return history["loss"][:, -1], jax.vmap(mlp.apply, (0, None))(states.params, data[0])

    errors, curves = jax.tree.map(np.asarray, train(jnp.array(scales)))
    return float(np.median(errors, 1).min()), curves.reshape(-1, len(data[0]))[np.nanargmin(errors)]


def paint(photo: np.ndarray, width: int) -> np.ndarray:
    """Train coordinates -> colours, seen through fixed sine waves (Tancik 2020, arXiv 2006.10739)."""
    rows, columns, _ = photo.shape
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"), -1)
    waves = np.pi * grid.reshape(-1, 2) @ np.random.default_rng(0).normal(0, 3, (2, 32))
    x = np.concatenate([np.sin(waves), np.cos(waves)], -1).astype("f")
    y = photo.reshape(-1, 3)
    mlp = MLP((64, width, width, 3))
    recipe = Recipe(mlp, losses.squared_error, CosineAdamW(steps=60 * 34), epochs=60, batch_size=512)
    state, _ = jaxmlp.fit(jax.random.key(0), (x, y), recipe, {"learning_rate": 5e-3})
    return np.clip(mlp.apply(state.params, x), 0, 1).reshape(photo.shape)


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
