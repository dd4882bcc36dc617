"""Intervals hold what they promise: their coverage is that of the exact distribution, and their radius NumPy's."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxmlp import conformal, population

RNG = np.random.default_rng(0)
MEAN, Y = RNG.normal(size=(2, 40, 3)).astype("f")
SPREAD = np.exp(RNG.normal(size=(40, 3))).astype("f")


def test_scores_and_intervals_are_by_hand():
    low, high = MEAN - SPREAD, MEAN + 2 * SPREAD
    np.testing.assert_array_equal(conformal.scores(MEAN, MEAN, Y), np.abs(Y - MEAN))
    np.testing.assert_allclose(conformal.scores(MEAN, MEAN, Y, scale=SPREAD), np.abs(Y - MEAN) / SPREAD, rtol=1e-6)
    np.testing.assert_array_equal(conformal.scores(low, high, Y), np.maximum(low - Y, Y - high))
    found = conformal.interval(low, high, np.array([1.0, 0.0, -0.5], "f"), scale=SPREAD)
    np.testing.assert_allclose(found[0], low - np.array([1, 0, -0.5]) * SPREAD, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], high + np.array([1, 0, -0.5]) * SPREAD, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 60), hundredths=st.integers(1, 99), ties=st.booleans())
def test_the_radius_is_numpys_quantile_or_there_are_too_few_rows(n, hundredths, ties):
    scores = np.random.default_rng(n).normal(size=64).astype("f")[:n]
    scores, c = np.round(scores) if ties else scores, hundredths / 100
    k = -(-(n + 1) * hundredths // 100)
    if k > n:
        with pytest.raises(ValueError, match=f"at least {math.ceil(Fraction(hundredths, 100 - hundredths))} rows"):
            conformal.radius(scores, c)
        return
    # Not method="higher", which at k / n gives the score above.
    assert (
        conformal.radius(scores, c)
        == np.quantile(scores, k / n - 1e-9, method="inverted_cdf")
        == np.sort(scores)[k - 1]
    )


def test_each_member_and_each_output_has_the_radius_that_it_has_alone():
    scores = RNG.normal(size=(4, 30, 2)).astype("f")
    found = jax.jit(jax.vmap(lambda s: conformal.radius(s, 0.8)))(scores)
    np.testing.assert_array_equal(found, np.sort(scores, axis=1)[:, 24])
    for i in range(4):
        np.testing.assert_array_equal(conformal.radius(scores[i], np.float32(0.8)), found[i])
    assert jnp.isnan(jax.jit(lambda s: conformal.radius(s, 0.8))(jnp.array([1.0, jnp.nan, 2.0, 3.0, 0.0])))


def normalised(rng, shape):
    x = rng.uniform(0.1, 3, shape)
    return x, x, rng.normal(x, x**2), x  # a spread that is wrong


def quantiles(rng, shape):
    x = rng.uniform(0, 3, shape)
    return x - 1, x + 5, x + rng.standard_t(3, shape), 1.0


@pytest.mark.parametrize(("made", "coverage"), [(normalised, 0.9), (quantiles, 0.5)])
def test_coverage_has_the_beta_binomial_distribution(made, coverage):
    """Of 39 rows the k-th score leaves the next one inside with a probability that is Beta(k, n + 1 - k)."""
    n, new, times = 39, 20, 4000
    *ends, y, scale = made(np.random.default_rng(1), (times, n + new))
    scale = np.broadcast_to(scale, y.shape)
    (low, high), y, scale = (a.astype("f") for a in ends), y.astype("f"), scale.astype("f")

    @jax.jit
    @jax.vmap
    def covered(low, high, y, scale):
        rows = conformal.scores(low[:n], high[:n], y[:n], scale=scale[:n])
        bottom, top = conformal.interval(low[n:], high[n:], conformal.radius(rows, coverage), scale=scale[n:])
        return ((bottom <= y[n:]) & (y[n:] <= top)).sum()

    counts = np.bincount(covered(low, high, y, scale), minlength=new + 1)
    k = math.ceil((n + 1) * coverage)
    law = stats.betabinom(new, k, n + 1 - k)
    assert law.mean() / new == k / (n + 1) == coverage
    expected = times * law.pmf(np.arange(new + 1))
    common = expected > 5
    seen, expected = (np.append(a[common], a[~common].sum()) for a in (counts, expected))
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_a_mixtures_quantiles_are_made_to_hold():
    rng = np.random.default_rng(2)
    outputs = rng.normal(size=(3, 800, 2)).astype("f")
    y = (outputs[:, :, :1].mean(0) + 4 * rng.normal(size=(800, 1))).astype("f")  # all members are too sure
    rows, new = (population.mixture(outputs[:, part]) for part in (slice(400), slice(400, None)))
    ends = [(m.quantile(0.05), m.quantile(0.95)) for m in (rows, new)]
    assert ((ends[1][0] <= y[400:]) & (y[400:] <= ends[1][1])).mean() < 0.6
    low, high = conformal.interval(*ends[1], conformal.radius(conformal.scores(*ends[0], y[:400]), 0.9))
    assert abs(((low <= y[400:]) & (y[400:] <= high)).mean() - 0.9) < 0.05


BAD = {
    "shapes": (
        lambda: conformal.scores(MEAN, MEAN, Y[:, 0]),
        "low, high, y must have one shape, (batch, d) or",
    ),
    "integers": (lambda: conformal.scores(MEAN, MEAN, np.ones((40, 3), int)), "y must hold floats"),
    "a scale": (lambda: conformal.scores(MEAN, MEAN, Y, scale=0.0), "scale must be finite and above 0; got 0.0"),
    "scales": (lambda: conformal.scores(MEAN, MEAN, Y, scale=np.ones(2, "f")), "scale must be one number, or one for"),
    "coverage": (lambda: conformal.radius(Y, 1.0), "coverage must lie in (0, 1); got 1.0"),
    "a traced coverage": (lambda: jax.jit(lambda c: conformal.radius(Y, c))(0.9), "coverage must be a number"),
    "rows": (
        lambda: conformal.radius(Y[:18], 0.95),
        "scores must be of at least 19 rows, c / (1 - c), for a coverage of 0.95; got 18; take more rows, or a "
        "coverage of at most 18 / 19",
    ),
    "rows of members": (lambda: jax.vmap(lambda s: conformal.radius(s, 0.95))(Y[None, :18]), "at least 19 rows"),
    "one score": (lambda: conformal.radius(np.float32(1.0), 0.5), "scores must have one for each row, (n, ...)"),
    "not finite": (lambda: conformal.radius(np.array([1.0, np.nan], "f"), 0.5), "scores must be finite; got 1 bad"),
    "a radius": (lambda: conformal.interval(MEAN, MEAN, np.inf), "radius must be finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
