"""Evidence against SciPy's Student, samples against all their pairs by hand and against the Gaussian's own score."""

import jax
import numpy as np
import optax
import pytest
import scipy.stats

import jaxmlp
from jaxmlp import MLP, Recipe, losses, population

RNG = np.random.default_rng(0)
N, D = 12, 3
OUT = RNG.normal(size=(N, 4 * D)).astype("f")
Y = RNG.normal(size=(N, D)).astype("f")
KEY = jax.random.key(0)


def close(found, expected, rtol=2e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=2e-5)


@pytest.mark.parametrize("shift", [-8.0, 0.0, 28.0, 31.0, 1e4])
def test_evidence_is_that_of_student_and_its_penalty(shift):
    outputs = OUT + np.repeat([0, 0, shift, 0], D).astype("f")
    mean, v, above, b = np.split(outputs.astype("f8"), 4, axis=1)
    v, above, b = (np.logaddexp(0, part) + 1e-6 for part in (v, above, b))
    a = 1 + above
    expected = -scipy.stats.t.logpdf(Y, 2 * a, mean, np.sqrt(b * (1 + v) / (v * a)))
    close(losses.evidential_nll(outputs, Y, evidence=0.0), expected.sum(1), rtol=1e-4)
    each = np.array([0.1, 0.2, 0.0])
    expected = (expected + each * np.abs(Y - mean) * (2 * v + a)).sum(1)
    close(losses.evidential_nll(outputs, Y, evidence=each), expected, rtol=1e-4)


def test_evidence_tells_noise_from_what_is_not_known():
    v, a, b = 2.0, 3.0, 4.0
    raw = [np.log(np.expm1(value)) for value in (v, a - 1, b)]
    found = losses.evidential(np.array([[1.5, *raw]], "f"))
    rng = np.random.default_rng(1)
    variance = b / rng.gamma(a, size=200_000)  # s^2 is inverse-gamma, m normal of variance s^2 / v
    means = 1.5 + np.sqrt(variance / v) * rng.normal(size=variance.shape)
    np.testing.assert_allclose(np.ravel(found), [means.mean(), variance.mean(), means.var()], rtol=0.05)
    close(np.ravel(found), [1.5, b / (a - 1), b / (v * (a - 1))], rtol=1e-4)


def test_samples_are_scored_by_all_their_pairs():
    samples = RNG.normal(size=(N, 7, D)).astype("f")
    off = np.abs(samples - Y[:, None]).mean(1)
    pairs = np.abs(samples[:, :, None] - samples[:, None]).sum((1, 2)) / (2 * 7 * 6)
    close(losses.crps(samples, Y), (off - pairs).sum(1))
    close(losses.crps(samples[:, :, 0], Y[:, 0]), (off - pairs)[:, 0])
    slopes = jax.grad(lambda s: losses.crps(s, Y).sum())(samples)
    signs = np.sign(samples[:, :, None] - samples[:, None]).sum(2)
    close(slopes, np.sign(samples - Y[:, None]) / 7 - signs / (7 * 6))


def test_the_score_of_many_samples_is_that_of_their_law():
    samples = 2 + 3 * RNG.normal(size=(40, 2000)).astype("f")
    gaussian = np.array([[2.0, np.log(np.expm1(3.0))]], "f")
    mean, variance = losses.gaussian(gaussian, min_variance=0.0)
    z = (1.5 - mean) / np.sqrt(variance)
    by_hand = np.sqrt(variance) * (
        z * (2 * scipy.stats.norm.cdf(z) - 1) + 2 * scipy.stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    )
    samples = np.asarray(mean) + np.sqrt(np.asarray(variance)) * (samples - 2) / 3
    found = losses.crps(samples.astype("f"), np.full(40, 1.5, "f"))
    np.testing.assert_allclose(found.mean(), by_hand.item(), rtol=0.02)


@pytest.mark.parametrize("name", ["evidential_nll", "crps"])
def test_each_trains_and_is_swept(name):
    x = RNG.normal(size=(25, 2)).astype("f")
    width, y, more = (4, x[:, :1], {"evidence": [0.0, 0.1]}) if name == "evidential_nll" else (8, x[:, 0], {})
    recipe = Recipe(MLP((2, 6, width), "tanh"), getattr(losses, name), optax.adam, epochs=20, batch_size=10)
    with jax.debug_nans(True):
        _, history = jaxmlp.fit(KEY, (x, y), recipe, {"learning_rate": 0.02} | {n: v[1] for n, v in more.items()})
    assert history["loss"][-1] < history["loss"][0]
    keys, numbers = population.grid(learning_rate=[0.02], **more, key=KEY)
    _, swept = population.fit(keys, (x, y), recipe, numbers)
    assert np.isfinite(np.asarray(swept["loss"])).all()


BAD = {
    "fours": (lambda: losses.evidential(Y), "outputs must hold four numbers for each target"),
    "width of evidence": (lambda: losses.evidential_nll(OUT, Y[:, :2]), "outputs must have shape (batch, 4 d)"),
    "evidence": (lambda: losses.evidential_nll(OUT, Y, evidence=-1.0), "evidence must not be negative; got -1.0"),
    "many evidences": (
        lambda: losses.evidential_nll(OUT, Y, evidence=np.ones(2)),
        "one number, or one for each output",
    ),
    "one sample": (lambda: losses.crps(Y[:, None], Y), "outputs must be at least two samples"),
    "samples": (lambda: losses.crps(OUT, Y), "outputs must be at least two samples, (batch, samples, d)"),
    "whole numbers": (lambda: losses.crps(OUT, np.ones(N, int)), "targets must hold floats"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_in_64_bits_outputs_may_be_of_32(x64):
    assert losses.evidential_nll(OUT, Y).dtype == losses.crps(OUT, Y[:, 0]).dtype == np.float32
