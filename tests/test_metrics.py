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
    raw = 16 * np.sinh(0.5 * np.log(3.0))  # a standard deviation of 3
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


ODD_WEIGHTS = {
    "huge": np.full(60, 1e38, "f"),
    "subnormal": np.full(60, 1e-40, "f"),
    "small": np.full(60, 1e-30, "f"),
    "beyond float32": np.full(60, 1e300),
    "half": np.full(60, 6e4, np.float16),
    "truth values": np.ones(60, bool),
}
REGRESSION = (metrics.rmse, metrics.mae, metrics.r2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_has_no_weight_counts_nothing_also_in_the_first_row(bad, dtype):
    outputs, targets = np.array([[0.0], [1], [2], [4]], dtype), np.array([[bad], [1], [2], [3]], dtype)
    weight = np.array([0.0, 1, 1, 1], "f")
    for metric in (metrics.r2, metrics.rmse, metrics.mae):
        np.testing.assert_allclose(metric(outputs, targets, weight=weight), metric(outputs[1:], targets[1:]), rtol=1e-6)


@pytest.mark.parametrize("name", ODD_WEIGHTS)
def test_weights_of_any_scale_and_dtype_are_shares(name):
    weight = ODD_WEIGHTS[name].copy()
    weight[40:] = 0
    for metric, outputs, targets in (
        *[(f, OUTPUTS, TARGETS) for f in REGRESSION],
        (metrics.accuracy, LOGITS, LABELS),
        (metrics.nll, LOGITS, LABELS),
        (metrics.expected_calibration_error, LOGITS, LABELS),
    ):
        expected = metric(outputs[:40], targets[:40])
        np.testing.assert_allclose(metric(outputs, targets, weight=weight), expected, rtol=1e-5)
        if weight.dtype.itemsize <= 4:  # a trace has no float64
            np.testing.assert_allclose(jax.jit(metric)(outputs, targets, weight=weight), expected, rtol=1e-5)


def test_ordinary_weights_are_not_touched():
    """To the bit: the shares are the quotients by the sum."""
    for weight in WEIGHTS[1:]:
        by_hand = jax.jit(lambda v, w: jnp.sum(w / jnp.sum(w) * v))(OUTPUTS[:, 0], weight)
        assert jax.jit(metrics.average)(OUTPUTS[:, 0], weight) == by_hand
        shifted = jax.jit(metrics.average)(OUTPUTS[:, 0], weight * np.float32(2.0**100))
        assert shifted == by_hand


def test_what_is_left_out_may_be_anything():
    weight = (np.arange(60) < 40).astype("f")
    for bad in (np.nan, np.inf, 1e38):
        outputs, targets = OUTPUTS.copy(), TARGETS.copy()
        outputs[40:], targets[45:] = bad, bad
        for metric in REGRESSION:
            np.testing.assert_allclose(
                metric(outputs, targets, weight=weight), metric(OUTPUTS[:40], TARGETS[:40]), rtol=1e-5
            )
    assert metrics.average(jnp.array([1.0, jnp.inf]), jnp.array([2.0, 0.0])) == 1


@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e37])
def test_regression_at_any_scale(scale):
    outputs, targets = np.float32(scale) * OUTPUTS, np.float32(scale) * TARGETS
    for metric, by in zip(REGRESSION, (scale, scale, 1), strict=True):
        np.testing.assert_allclose(np.float64(metric(outputs, targets)) / by, metric(OUTPUTS, TARGETS), rtol=1e-5)


def test_targets_are_not_cast_to_the_outputs_dtype():
    outputs, targets = np.zeros((2, 1)), np.array([[300.5], [301.5]], "f")
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        narrow = jnp.asarray(outputs, dtype)
        assert metrics.mae(narrow, targets) == 301 and metrics.mae(targets, narrow) == 301
        np.testing.assert_allclose(metrics.rmse(narrow, targets), np.sqrt((300.5**2 + 301.5**2) / 2), rtol=1e-6)
        np.testing.assert_allclose(metrics.r2(narrow, targets), sk.r2_score(targets, outputs), rtol=1e-5)
    with jax.enable_x64(True):
        value = metrics.rmse(jnp.zeros((2, 1), jnp.float32), jnp.array([[1.0], [1.0 + 1e-9]]))
        assert value.dtype == jnp.float64 and value > 1


@pytest.mark.parametrize("value", [0.1, 1e4 + 0.1, 1e8, -1.7e9, 1e30, 1e-30])
def test_r2_of_a_constant_target_is_one_or_zero(value):
    constant = np.full((1000, 1), value, "f")
    for r2 in (metrics.r2, jax.jit(metrics.r2)):
        assert r2(constant, constant) == 1 and r2(constant + np.abs(constant), constant) == 0
        assert r2(constant, constant, weight=np.full(1000, 0.1, "f")) == 1


def test_r2_far_from_zero():
    seconds = 1.7e9 + 300 * np.arange(50.0)[:, None]
    guess = seconds + 40 * np.sin(seconds)
    np.testing.assert_allclose(metrics.r2(guess, seconds), sk.r2_score(seconds, guess), rtol=1e-6)  # known in float64
    np.testing.assert_allclose(metrics.rmse(guess, seconds), sk.root_mean_squared_error(seconds, guess), rtol=1e-6)
    narrow, near = np.float32(1e8 + 8 * np.arange(50.0)[:, None]), np.float32(1e8 + 8 * np.arange(50.0)[::-1, None])
    expected = sk.r2_score(np.float64(narrow), np.float64(near))
    np.testing.assert_allclose(jax.jit(metrics.r2)(near, narrow), expected, rtol=1e-5)


def test_the_floor_of_the_variance_reaches_what_reads_it():
    """The coverage of a Gaussian whose variance is all floor is its level."""
    y = scipy.stats.norm(0, 0.5).ppf((np.arange(2000) + 0.5) / 2000).astype("f")[:, None]
    outputs = np.tile(np.array([[0.0, -1e9]], "f"), (2000, 1))
    np.testing.assert_allclose(metrics.interval_coverage(outputs, y, min_variance=0.25), 0.9, atol=1e-3)
    value = metrics.nll(outputs, y, likelihood=losses.gaussian_nll, min_variance=0.25)
    np.testing.assert_allclose(value, losses.gaussian_nll(outputs, y, min_variance=0.25).mean(), rtol=1e-6)
    assert value < 1 < metrics.nll(outputs, y, likelihood=losses.gaussian_nll)


def test_infinite_logits_have_a_calibration():
    logits = jnp.array([[0.0, -jnp.inf], [1.0, -jnp.inf]], jnp.bfloat16)
    assert metrics.expected_calibration_error(logits, np.array([0, 0])) == 0
    assert metrics.expected_calibration_error(logits, np.array([1, 1])) == 1
