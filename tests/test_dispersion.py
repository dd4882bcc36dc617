"""Counts, evidence, samples, triplets and ranks, each beside its oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import nbinom, t

import jaxmlp
from jaxmlp import MLP, Recipe, losses

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(6, 4)).astype("f")


def test_the_negative_binomial_is_that_of_scipy():
    counts = RNG.poisson(3, (6, 2)).astype("f")
    mean, dispersion = np.exp(np.split(OUTPUTS.astype(float), 2, axis=1))
    wanted = -nbinom.logpmf(counts, 1 / dispersion, 1 / (1 + dispersion * mean)).sum(1)
    np.testing.assert_allclose(losses.negative_binomial(OUTPUTS, counts), wanted, rtol=1e-5)
    nearly = np.concatenate([OUTPUTS[:, :2], np.full((6, 2), -30.0, "f")], 1)  # hardly dispersed
    np.testing.assert_allclose(
        losses.negative_binomial(nearly, counts), losses.poisson(OUTPUTS[:, :2], counts), rtol=1e-4, atol=1e-4
    )
    far = np.array([[80.0, -80.0, 80.0, 80.0]], "f")
    for given in (far, -far):
        slope = jax.grad(lambda o: losses.negative_binomial(o, np.array([[0.0, 3.0]], "f")).sum())(given)
        assert np.isfinite(slope).all()


def test_evidence_is_a_students_t_and_a_price():
    targets = RNG.normal(size=(6, 1)).astype("f")
    mean, v, a, b = np.split(OUTPUTS.astype(float), 4, axis=1)
    v, a, b = (np.logaddexp(raw, 0) for raw in (v, a, b))
    a = a + 1
    plain = -t.logpdf(targets, 2 * a, mean, np.sqrt(b * (1 + v) / (v * a))).sum(1)
    np.testing.assert_allclose(losses.evidential_nll(OUTPUTS, targets, evidence=0.0), plain, rtol=1e-4)
    price = (np.abs(targets - mean) * (2 * v + a)).sum(1)
    np.testing.assert_allclose(losses.evidential_nll(OUTPUTS, targets, evidence=0.3), plain + 0.3 * price, rtol=1e-4)
    found = losses.evidential(OUTPUTS)
    np.testing.assert_allclose(found.noise, b / (a - 1), rtol=1e-4)
    np.testing.assert_allclose(found.doubt, b / (v * (a - 1)), rtol=1e-4)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 2)])
def test_the_score_of_samples_is_the_sum_over_their_pairs(shape):
    samples = RNG.normal(size=shape).astype("f")
    targets = RNG.normal(size=shape[:1] + shape[2:]).astype("f")
    near = np.abs(samples - targets[:, None]).mean(1)
    apart = np.abs(samples[:, :, None] - samples[:, None]).sum((1, 2)) / (2 * 7 * 6)
    np.testing.assert_allclose(
        losses.crps(samples, targets), (near - apart).reshape(5, -1).sum(1), rtol=1e-5, atol=1e-6
    )


def test_the_score_of_samples_is_that_of_the_gaussian_they_come_from():
    samples = RNG.normal(1.0, 2.0, size=(4, 4000)).astype("f")
    targets = np.array([-2.0, 0.0, 1.0, 5.0], "f")
    raw = 8 * (2**0.5 - 2**-0.5)  # of a standard deviation of 2
    exact = losses.gaussian_crps(np.broadcast_to(np.array([1.0, raw], "f"), (4, 2)), targets[:, None])
    np.testing.assert_allclose(losses.crps(samples, targets), exact, atol=0.06)


def test_a_triplet_is_a_hinge_on_squared_distances():
    a, p, n = RNG.normal(size=(3, 8, 2)).astype("f")
    wanted = np.maximum(((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1) + 0.5, 0)
    np.testing.assert_allclose(losses.triplet((a, p, n), margin=0.5), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("queries", [None, np.array([0, 0, 0, 1, 1, 1, 1], "f")])
@pytest.mark.parametrize("weighted", [False, True])
def test_ranking_is_the_mean_over_ordered_pairs(queries, weighted):
    score, relevance = RNG.normal(size=7).astype("f"), np.array([0, 1, 2, 0, 0, 3, 1], "f")
    weight = np.array([1, 2, 0, 1, 3, 1, 0], "f") if weighted else np.ones(7, "f")
    wanted = np.zeros(7)
    for i in range(7):
        for j in range(7):
            one = queries is None or queries[i] == queries[j]
            if relevance[i] > relevance[j] and one and weight[i] > 0:
                wanted[i] += weight[j] * np.log1p(np.exp(score[j] - score[i])) / weight.sum()
    targets = relevance if queries is None else np.stack([relevance, queries], 1)
    found = losses.pairwise_ranking(score[:, None], targets, weight=weight if weighted else None)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_ranking_learns_an_order_and_leaves_padding_out():
    x = np.linspace(-1, 1, 25, dtype="f")[:, None]
    recipe = Recipe(MLP((1, 8, 1)), losses.pairwise_ranking, optax.adam, epochs=60, batch_size=10)
    state, history = jaxmlp.fit(jax.random.key(0), (x, x**3), recipe, {"learning_rate": 0.02})
    scores = np.asarray(MLP((1, 8, 1)).apply(state.params, x))[:, 0]
    assert (np.argsort(scores) == np.arange(25)).mean() > 0.8
    alone = losses.pairwise_ranking(jnp.zeros((3, 1)), jnp.arange(3.0))
    padded = losses.pairwise_ranking(
        jnp.array([[0.0], [0.0], [0.0], [jnp.inf]]), jnp.arange(4.0), weight=jnp.array([1.0, 1.0, 1.0, 0.0])
    )
    np.testing.assert_allclose(padded[:3], alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: losses.negative_binomial(OUTPUTS, OUTPUTS), r"outputs must have shape \(batch, 2 d\), log means"),
        (lambda: losses.negative_binomial(OUTPUTS, -np.ones((6, 2), "f")), "targets, counts,"),
        (lambda: losses.evidential_nll(OUTPUTS, OUTPUTS), r"outputs must have shape \(batch, 4 d\), means, raw v"),
        (lambda: losses.evidential_nll(OUTPUTS, OUTPUTS[:, :1], evidence=-1.0), "evidence must not be negative"),
        (lambda: losses.evidential(OUTPUTS[:, :3]), "outputs must be a multiple of four wide"),
        (lambda: losses.crps(OUTPUTS[:, :1], OUTPUTS[:, 0]), "outputs must be at least two samples of each target"),
        (lambda: losses.triplet(OUTPUTS), r"outputs must be \(anchor, positive, negative\)"),
        (lambda: losses.triplet((OUTPUTS,) * 3, margin=-1.0), "margin must not be negative"),
        (lambda: losses.pairwise_ranking(OUTPUTS, OUTPUTS), r"outputs and targets must be scores \(batch, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
