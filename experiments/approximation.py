"""How well does a perceptron approximate, against its width and depth?

    python -m experiments approximation

The notes: a neural network is a function approximator (Cybenko 1989, doi 10.1007/BF02551274). On a curve with a
kink and a rising frequency, the error of one hidden layer must fall at least tenfold from width 2 to 128, and
three hidden layers must do ten times better than one with as many parameters. On a photograph (scikit-learn's
flower, 107 x 160) as a function from coordinates to colours, the signal-to-noise ratio must rise with every
width and pass 25 dB.
"""

import jax
import numpy as np
import optax
from sklearn.datasets import load_sample_image

import jaxmlp
from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses
from jaxmlp.training import CosineAdamW

WIDTHS = (2, 8, 32, 64, 128)
SEEDS = 6


def run(report: Report) -> None:
    """Approximate a curve and an image with nets of many sizes, and draw what they reach."""
    x = np.linspace(-1, 1, 512, dtype="f")[:, None]
    y = np.sin(16 * x**2) + np.abs(x)
    shallow, deep, curves = {}, {}, {}
    for width in WIDTHS:
        report.stage(f"one hidden layer of {width}")
        shallow[width], curves[width] = approximate(MLP((1, width, 1), "tanh"), x, y)
    for width in (4, 8):
        report.stage(f"three hidden layers of {width}")
        mlp = MLP((1, width, width, width, 1), "tanh")
        deep[mlp.parameter_count], _ = approximate(mlp, x, y)
    fall = shallow[2] / shallow[128]
    report.claim("error falls with width", expected="> 10 times", measured=f"{fall:,.0f} times", holds=fall > 10)
    parameters = {MLP((1, width, 1)).parameter_count: error for width, error in shallow.items()}
    gain = parameters[193] / deep[MLP((1, 8, 8, 8, 1)).parameter_count]
    report.claim(
        "depth gains at like parameters (169, 193)",
        expected="> 10 times",
        measured=f"{gain:,.0f} times",
        holds=gain > 10,
    )

    photo = load_sample_image("flower.jpg")[::4, ::4][:107, :160].astype("f") / 255
    pictures, decibels = {}, []
    for width in (16, 64, 256):
        report.stage(f"a photograph, width {width}")
        pictures[width] = paint(photo, width)
        decibels.append(float(-10 * np.log10(np.mean((pictures[width] - photo) ** 2))))
    report.claim(
        "a photograph from its coordinates",
        expected="rising, > 25 dB",
        measured=" < ".join(f"{d:.1f}" for d in decibels) + " dB",
        holds=decibels == sorted(decibels) and decibels[-1] > 25,
    )
    draw(report, x, y, parameters, deep, curves, pictures, decibels, photo)


def approximate(mlp: MLP, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the best mean squared error of some seeds, trained together, and that net's curve."""
    recipe = Recipe(mlp, losses.squared_error, optax.lbfgs, epochs=600)  # all at once: no noise to average out
    keys = jax.random.split(jax.random.key(0), SEEDS)
    states, history = jax.vmap(jaxmlp.fit, (0, None, None, None))(keys, (x, y), recipe, {"init_scale": 2.0})
    best = int(np.argmin(history["loss"][:, -1]))
    params = jax.tree.map(lambda p: p[best], states.params)
    return float(history["loss"][best, -1]), np.asarray(mlp.apply(params, x))


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
    report: Report,
    x: np.ndarray,
    y: np.ndarray,
    shallow: dict,
    deep: dict,
    curves: dict,
    pictures: dict,
    decibels: list[float],
    photo: np.ndarray,
) -> None:
    """Draw error against parameters, the curves, and the photograph by width."""
    figure, axes = canvas(3, 2, width=4.2, height=3.1)
    axes[0].plot(x, y, color=GREY, linewidth=5, alpha=0.5, label="target")
    for width, colour in ((8, ORANGE), (32, GREEN), (128, BLUE)):
        axes[0].plot(x, curves[width], color=colour, linewidth=1.2, label=f"width {width}")
    axes[0].set(title="One hidden layer", xlabel="x", ylabel="y")
    axes[0].legend(fontsize="small")
    axes[1].loglog(list(shallow), list(shallow.values()), "o-", color=BLUE, label="one hidden layer")
    axes[1].loglog(list(deep), list(deep.values()), "s-", color=ORANGE, label="three hidden layers")
    axes[1].set(title="Width and depth", xlabel="parameters", ylabel="mean squared error")
    axes[1].legend(fontsize="small")
    titles = [f"width {width}: {d:.1f} dB" for width, d in zip(pictures, decibels, strict=True)]
    images = [*zip(titles, pictures.values(), strict=True), ("the photograph", photo)]
    for ax, (title, image) in zip(axes[2:], images, strict=True):
        ax.imshow(image)
        ax.set(title=title)
        ax.axis("off")
    report.figure(figure)
