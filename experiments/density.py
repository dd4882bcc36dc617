"""Does a mixture density network learn what has several answers?

    python -m experiments density

Bishop's inverse problem (Bishop 1994, NCRG/94/004): x = t + 0.3 sin(2 pi t) + noise, uniform in -0.1 ... 0.1, and t is
to be told from x. In the middle there are three answers, and squared error learns their mean, where none is. A network
whose outputs are a mixture of five Gaussians must come near the likelihood of the truth, which is known here, and its
draws must be answers. The network sees x and t scaled, and its likelihood is that of t, since a density knows the slope
of the scaling. Seeds are a population, and each claim is one of the worst of them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses, population
from jaxmlp.data import statistics
from jaxmlp.training import CosineAdamW
from jaxmlp.transforms import Scaled, Standard
from jaxmlp.types import Numeric

SEEDS, EPOCHS, COMPONENTS, ROWS, NOISE, CUT = 5, 60, 5, 4000, 0.1, 0.4


def curve(t: np.ndarray) -> np.ndarray:
    """Return the middle of x at t."""
    return t + 0.3 * np.sin(2 * np.pi * t)


def sample(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and t, (count, 1) each."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 1, (count, 1))
    return (curve(t) + rng.uniform(-NOISE, NOISE, t.shape)).astype("f"), t.astype("f")


def draws(outputs: Array, key: Array) -> Array:
    """Return one scaled t of each mixture, (batch, 1): a component by its share, and a draw of that."""
    one, other = jax.random.split(key)
    which = jax.random.categorical(one, outputs[:, :COMPONENTS])
    mean, variance = losses.gaussian(outputs[:, COMPONENTS:].reshape(len(outputs), COMPONENTS, 2))
    mean, variance = (jnp.take_along_axis(part[..., 0], which[:, None], axis=1) for part in (mean, variance))
    return mean + jnp.sqrt(variance) * jax.random.normal(other, mean.shape)


def trained(report: Report, loss: Callable, width: int) -> tuple[Callable[[Numeric], Array], np.ndarray]:
    """Return what seeds of a network say about x, (seeds, batch, width), a mixture of scaled t, and their losses."""
    model = Scaled(MLP((1, 32, 32, width), "tanh"), x=Standard(), y=Standard())
    recipe = Recipe(model, loss, CosineAdamW(), epochs=EPOCHS, batch_size=100)
    keys, numbers = population.grid(SEEDS, learning_rate=[1e-2])
    numbers = {**numbers, "scaling": population.shared(model.fitted(*sample(0, ROWS)))}
    report.stage(f"{SEEDS} networks, {loss.__name__}")
    states, history = population.fit(
        keys, sample(0, ROWS), recipe, numbers, validation=sample(1, ROWS), callback=report.progress(EPOCHS)
    )
    said = partial(population.predict, model) if width == 1 else jax.jit(jax.vmap(model.apply, (0, None)))
    return partial(said, states.params), np.asarray(history["validation_loss"][:, -1])


def run(report: Report) -> None:
    """Train both, compare their likelihoods with the truth's, and see whether what they say are answers."""
    x, _ = sample(1, ROWS)
    middle, spread = (float(value[0]) for value in statistics(sample(0, ROWS)[1]))
    mean, squares = trained(report, losses.squared_error, 1)
    mixture, nlls = trained(report, losses.mixture_nll, 3 * COMPONENTS)
    grid = np.linspace(0, 1, 2001)
    known = float(np.log((np.abs(x - curve(grid)) < NOISE).mean(1)).mean())  # of an even density, -log of its height
    alone = float(0.5 * np.log(2 * np.pi * np.e * squares.min() * spread**2))  # one Gaussian about the mean
    nll = float(nlls.max())
    for claim, least, expected in (
        ("the mixture is likelier than one Gaussian", alone - 0.7, f"0.7 nats below {alone:.2f}"),
        ("and nearly as likely as the truth", known + 0.4, f"{known:.2f} to 0.4"),
    ):
        report.claim(claim, expected=expected, measured=f"{nll:.2f}", holds=nll < least)
    drawn = jax.jit(jax.vmap(draws))(mixture(x), jax.random.split(jax.random.key(1), SEEDS))
    drawn = np.asarray(drawn) * spread + middle
    beside = (0.1 < abs(x[:, 0] - 0.5)) & (abs(x[:, 0] - 0.5) < 0.25)  # beside the middle one of three answers
    true = [(np.abs(x - curve(t)) < 1.2 * NOISE)[:, beside].mean((1, 2)) for t in (np.asarray(mean(x)), drawn)]
    false, right = float(true[0].max()), float(true[1].min())
    report.claim("a mean of answers is none", expected="< 25 % are", measured=f"{false:.0%}", holds=false < 0.25)
    report.claim("a draw of the mixture is one", expected="> 60 % are", measured=f"{right:.0%}", holds=right > 0.6)

    def density(x: Numeric, t: Numeric) -> Array:
        outputs, scaled = mixture(x)[0], (t - middle) / spread
        of = jax.vmap(lambda t: jnp.exp(-losses.mixture_nll(outputs, jnp.full((len(x), 1), t))), out_axes=1)
        return of(scaled) / spread

    draw(report, lambda x: mean(x)[0], density)


def draw(report: Report, mean: Callable[[Numeric], Array], density: Callable[[Numeric, Numeric], Array]) -> None:
    """Draw the learnt density of t at each x with the mean on it, the true one, and a cut through both."""
    figure, (left, middle, cut) = canvas(3, width=4.2)
    x, t = np.linspace(0, 1, 251, dtype="f"), np.linspace(-0.1, 1.1, 241, dtype="f")
    learnt = np.asarray(jax.jit(density)(x[:, None], t))  # (x, t)
    true = (np.abs(x[:, None] - curve(t)) < NOISE) & (t >= 0) & (t <= 1)
    true = true / (true.sum(1, keepdims=True) * (t[1] - t[0]))
    for axes, values, title in ((left, learnt, "Learnt: p(t | x)"), (middle, true, "The truth")):
        image = axes.pcolormesh(x, t, values.T, cmap="Blues", vmin=0, vmax=6, shading="nearest", rasterized=True)
        axes.set(xlabel="x", title=title)
        axes.grid(False)
    left.plot(x, mean(x[:, None]), color=ORANGE, label="squared error")
    left.axvline(CUT, color=GREY, linestyle=":")
    left.set(ylabel="t")
    left.legend(loc="upper left", fontsize="small")
    figure.colorbar(image, ax=middle)
    i = int(abs(x - CUT).argmin())
    cut.fill_between(t, true[i], color=GREY, alpha=0.4, linewidth=0, label="the truth")
    cut.plot(t, learnt[i], color=BLUE, label="mixture")
    cut.axvline(float(mean(x[i : i + 1, None])[0, 0]), color=ORANGE, label="squared error")
    cut.set(xlabel="t", ylabel="density", title=f"At x = {CUT}", ylim=(0, 1.45 * learnt[i].max()))
    cut.legend(fontsize="small")
    report.figure(figure)
