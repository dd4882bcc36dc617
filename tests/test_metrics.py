"""The metrics are scikit-learn's where it has them, with weights and without, alone and under `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sk

from jaxmlp import losses, metrics

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(60, 5)).astype("f")
LABELS = RNG.integers(0, 5, 60)
OUTPUTS, TARGETS = RNG.normal(size=(2, 60, 3)).astype("f")
WEIGHTS = [None, RNG.uniform(0, 2, 60).astype("f"), (np.arange(60) < 40).astype("f")]
PROBABILITIES = np.asarray(jax.nn.softmax(LOGITS))


@pytest.mark.parametrize("weight", WEIGHTS, ids=["plain", "weighted", "masked"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda w: metrics.accuracy(LOGITS, LABELS, weight=w),
            lambda w: sk.accuracy_score(LABELS, LOGITS.argmax(-1), sample_weight=w),
        ),
        (
            lambda w: metrics.top_k_accuracy(LOGITS, LABELS, k=2, weight=w),
            lambda w: sk.top_k_accuracy_score(LABELS, LOGITS, k=2, sample_weight=w),
        ),
        (
            lambda w: metrics.rmse(OUTPUTS, TARGETS, weight=w),
            lambda w: sk.root_mean_squared_error(TARGETS, OUTPUTS, sample_weight=w),
        ),
        (
            lambda w: metrics.mae(OUTPUTS, TARGETS, weight=w),
            lambda w: sk.mean_absolute_error(TARGETS, OUTPUTS, sample_weight=w),
        ),
        (
            lambda w: metrics.r2(OUTPUTS, TARGETS, weight=w),
            lambda w: sk.r2_score(TARGETS, OUTPUTS, sample_weight=w),
        ),
        (
            lambda w: metrics.nll(LOGITS, LABELS, weight=w),
            lambda w: sk.log_loss(LABELS, PROBABILITIES, sample_weight=w),
        ),
    ],
    ids=["accuracy", "top_k_accuracy", "rmse", "mae", "r2", "nll"],
)
def test_equal_to_scikit_learn(ours, theirs, weight):
    np.testing.assert_allclose(ours(None if weight is None else jnp.asarray(weight)), theirs(weight), rtol=2e-5)


@pytest.mark.parametrize("count", [10, 41, 1000])
def test_a_share_is_exact(count):
    """All is one, and not 1.0000001: alone, in a program, in one for many members, and weighted."""
    labels = jnp.asarray(RNG.integers(0, 3, count))
    right, weight = jax.nn.one_hot(labels, 3), jnp.asarray(RNG.uniform(0.1, 2, count).astype("f"))
    assert metrics.accuracy(right, labels) == jax.jit(metrics.accuracy)(right, labels) == 1
    assert metrics.accuracy(right, labels, weight=weight) == metrics.top_k_accuracy(right, labels, k=1) == 1
    assert (jax.jit(jax.vmap(metrics.accuracy, (0, None)))(jnp.stack([right, right]), labels) == 1).all()
    gaussian = jnp.zeros((count, 6))
    assert metrics.interval_coverage(gaussian, jnp.zeros((count, 3)), weight=weight) == 1
    few = jnp.arange(count) < 7
    wrong = jnp.where(few[:, None], right, jnp.roll(right, 1, axis=-1))
    assert float(jax.jit(metrics.accuracy)(wrong, labels)) == np.float32(7) / np.float32(count)
    assert metrics.accuracy(wrong, labels, weight=jnp.zeros(count)) == 0


def test_calibration_error_is_the_sum_over_bins():
    confidence, right = PROBABILITIES.max(-1), LOGITS.argmax(-1) == LABELS
    edges = np.linspace(0, 1, 11)
    expected = 0.0
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    np.testing.assert_allclose(metrics.expected_calibration_error(LOGITS, LABELS, bins=10), expected, rtol=1e-4)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_coverage_of_a_true_gaussian_is_its_level(level):
    y = scipy.stats.norm(2, 3).ppf((np.arange(2000) + 0.5) / 2000).astype("f")[:, None]
    raw = np.log(np.expm1(3.0))  # softplus(raw) = 3
    outputs = np.tile(np.array([[2.0, raw]], "f"), (2000, 1))
    np.testing.assert_allclose(metrics.interval_coverage(outputs, y, level=level), level, atol=1e-3)


def test_r2_of_a_constant_target():
    constant = jnp.ones((4, 1))
    assert float(metrics.r2(constant, constant)) == 1.0 == sk.r2_score(constant, constant)
    assert float(metrics.r2(constant + 1, constant)) == 0.0 == sk.r2_score(constant, constant + 1)


def test_gaussian_nll_as_a_metric():
    outputs = np.random.default_rng(1).normal(size=(60, 6)).astype("f")
    value = metrics.nll(outputs, TARGETS, likelihood=losses.gaussian_nll)
    np.testing.assert_allclose(value, losses.gaussian_nll(outputs, TARGETS).mean(), rtol=1e-6)


def test_one_hot_labels_are_labels():
    assert metrics.accuracy(LOGITS, np.eye(5, dtype="f")[LABELS]) == metrics.accuracy(LOGITS, LABELS)


@pytest.mark.parametrize("name", ["accuracy", "expected_calibration_error", "nll"])
def test_members_under_vmap_equal_those_alone(name):
    members = jnp.stack([LOGITS, 2 * LOGITS, -LOGITS])
    metric = getattr(metrics, name)
    together = jax.jit(jax.vmap(metric, (0, None)))(members, jnp.asarray(LABELS))
    np.testing.assert_allclose(together, [metric(m, LABELS) for m in members], rtol=1e-5)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i4", "i8", "u8"])
def test_labels_of_every_integer_type(dtype, wide):
    """Image files hold bytes, NumPy makes int64: strict JAX must take both."""
    with jax.enable_x64(wide):
        labels = LABELS.astype(dtype)
        assert float(metrics.accuracy(LOGITS, labels)) == float(metrics.accuracy(LOGITS, LABELS))
        assert float(metrics.top_k_accuracy(LOGITS, labels, k=2)) == float(metrics.top_k_accuracy(LOGITS, LABELS, k=2))
        np.testing.assert_array_equal(metrics.nll(LOGITS, labels), metrics.nll(LOGITS, LABELS))
        metrics.expected_calibration_error(LOGITS, labels)
