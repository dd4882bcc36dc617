"""Does a variational autoencoder learn what digits look like?

    python -m experiments vae

Kingma and Welling 2014 (arXiv 1312.6114) on scikit-learn's digits: encoder, decoder and the noise of pixels in one
model, whose loss asks for the `key` it draws with. Its bound on the likelihood of new digits must beat the exact
likelihood of probabilistic PCA, the linear model with a code of as many numbers and the same noise (Tipping and Bishop
1999, doi 10.1111/1467-9868.00196), and what is drawn must lie as near to the data as new digits do. Weights of the
divergence are a population: the more it counts, the less a code says.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses, population
from jaxmlp.types import Params

BETAS, EPOCHS, CODE, LEARN = (0.25, 0.5, 1.0, 2.0, 4.0), 80, 8, 1500  # rows to learn from; 297 are left


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """Two networks: x to mean and log variance of a code, and a code to the means of pixels."""

    encoder: MLP = MLP((64, 128, 2 * CODE))
    decoder: MLP = MLP((CODE, 128, 64))

    def init(self, key: Array) -> Params:
        """Return the parameters of both, and the log of the pixels' noise."""
        one, other = jax.random.split(key)
        return {"encoder": self.encoder.init(one), "decoder": self.decoder.init(other), "noise": jnp.zeros(())}

    def apply(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Return mean and log variance of the code, (batch, CODE) each."""
        mean, log_variance = jnp.split(self.encoder.apply(params["encoder"], x), 2, axis=-1)
        return mean, log_variance

    def decode(self, params: Params, z: Array) -> Array:
        """Return the means of the pixels, (batch, 64), in 0 ... 1."""
        return jax.nn.sigmoid(self.decoder.apply(params["decoder"], z))


MODEL = Autoencoder()


def bound(
    outputs: tuple[Array, Array], targets: None, *, params: Params, x: Array, key: Array, beta: float = 1.0
) -> tuple[Array, dict[str, Array]]:
    """Return -E log p(x | z) + beta KL(q(z | x), p(z)) of each image, in nats, for one z drawn of q; and both terms."""
    mean, log_variance = outputs
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    pixels, scale = MODEL.decode(params, z), jnp.exp(params["noise"])
    reconstruction = losses.unit_gaussian_nll(pixels / scale, x / scale) + x.shape[1] * params["noise"]
    kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance, axis=-1)
    return reconstruction + beta * kl, {"kl": kl, "reconstruction": reconstruction}


def run(report: Report) -> None:
    """Train a population over the weight of the divergence, and draw from the member whose weight is one."""
    x, labels = load_digits(return_X_y=True)
    train, test = np.split((x / 16).astype("f"), [LEARN])
    recipe = Recipe(MODEL, bound, optax.adam, epochs=EPOCHS, batch_size=100)
    keys, numbers = population.grid(learning_rate=[3e-3], beta=BETAS)
    report.stage(f"{len(BETAS)} autoencoders")
    states, history = population.fit(
        keys, (train,), recipe, numbers, validation=(test,), callback=report.progress(EPOCHS)
    )
    kl, misfit = (np.asarray(history["validation_" + name]) for name in ("kl", "reconstruction"))
    plain = BETAS.index(1.0)
    nats, linear = (kl + misfit)[plain], -float(PCA(CODE).fit(train).score(test))
    report.claim(
        "the bound beats probabilistic PCA, on new digits",
        expected=f"5 nats below {linear:.1f}",
        measured=f"{nats[-1]:.1f} nats",
        holds=nats[-1] < linear - 5,
    )
    said, falls = " ".join(f"{value:.1f}" for value in kl[:, -1]), np.all(np.diff(kl[:, -1]) < 0)
    report.claim("the more KL counts, the less a code says", expected="KL falls", measured=said, holds=falls)
    params, z = population.member(states, plain).params, jax.random.normal(jax.random.key(1), (1000, CODE))
    drawn, near = np.asarray(jax.jit(MODEL.decode)(params, z)), NearestNeighbors(n_neighbors=1).fit(train)
    shuffled = np.random.default_rng(1).permuted(test, axis=0)  # each pixel from another digit
    far = [float(np.median(near.kneighbors(images)[0])) for images in (test, drawn, shuffled)]
    told = f"new {far[0]:.2f}, drawn {far[1]:.2f}, shuffled {far[2]:.2f}"
    near_data = far[1] < 0.75 * far[2]
    report.claim("what is drawn lies near the data", expected="3/4 of shuffled", measured=told, holds=near_data)
    rarest = np.bincount(labels[near.kneighbors(drawn)[1][:, 0]], minlength=10).min() / len(drawn)
    report.claim("all ten digits are drawn", expected="each > 2 %", measured=f"{rarest:.1%}", holds=rarest > 0.02)
    draw(report, (test, drawn), nats, linear, np.stack([kl, misfit])[:, :, -1])


def draw(report: Report, sheets: tuple[np.ndarray, ...], nats: np.ndarray, linear: float, terms: np.ndarray) -> None:
    """Draw digits, samples, the bound by epoch, and what a code costs against what it leaves unsaid."""
    figure, (left, middle, curve, trade) = canvas(4, width=3.3)
    for axes, images, title in zip((left, middle), sheets, ("New digits", "Drawn from the model"), strict=True):
        tiles = np.pad(images[:64].reshape(8, 8, 8, 8), ((0, 0), (0, 0), (0, 1), (0, 1)))  # (row, column, y, x)
        axes.imshow(tiles.swapaxes(1, 2).reshape(72, 72), cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(title)
        axes.set_axis_off()
    curve.axhline(linear, color=GREY, linestyle="--", label="probabilistic PCA, exact")
    curve.plot(np.arange(1, len(nats) + 1), nats, color=BLUE, label="autoencoder, bound")
    curve.set(xlabel="epoch", ylabel="-log p of new digits, nats", title="The bound", ylim=(None, 30))
    curve.legend(fontsize="small")
    trade.plot(*terms, "o-", color=ORANGE)
    for beta, *place in zip(BETAS, *terms, strict=True):
        trade.annotate(f"{beta:g}", place, xytext=(5, 5), textcoords="offset points", fontsize="small")
    trade.set(xlabel="KL, nats that a code says", ylabel="reconstruction, nats", title="By weight of the divergence")
    trade.margins(x=0.15, y=0.1)
    report.figure(figure)
