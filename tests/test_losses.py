"""The losses against NumPy by hand, SciPy and PyTorch's formulas; their numbers; their meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mean_pinball_loss
from test_gradients import CASES, problem

from jaxmlp import losses


@pytest.mark.parametrize(("name", "numbers"), CASES, ids=lambda case: str(case))
def test_values_and_shapes(name, numbers):
    sizes, _, y = problem(name, numbers, 0)
    outputs = np.random.default_rng(1).normal(size=(len(y), sizes[-1])).astype(np.float32)
    loss = name.split()[-1]
    value = getattr(losses, loss)(jnp.asarray(outputs), jnp.asarray(y), **numbers)
    assert value.shape == (len(y),) and value.dtype == jnp.float32
    np.testing.assert_allclose(value, oracle.LOSSES[loss](outputs, y, **numbers)[0], rtol=1e-5, atol=1e-5)


def test_gaussian_nll_is_scipys_log_density(x64):
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(size=(9, 6)), rng.normal(size=(9, 3))
    mean, variance = losses.gaussian(outputs, min_variance=0.01)
    by_scipy = -scipy.stats.norm.logpdf(y, mean, np.sqrt(variance)).sum(-1)
    np.testing.assert_allclose(losses.gaussian_nll(outputs, y, min_variance=0.01), by_scipy, rtol=1e-12)
    by_scipy = -scipy.stats.norm.logpdf(y, outputs[:, :3], 1).sum(-1)
    np.testing.assert_allclose(losses.unit_gaussian_nll(outputs[:, :3], y), by_scipy, rtol=1e-12)


def test_the_variance_is_floored():
    far_below = jnp.array([[0.0, -1e9]])
    assert losses.gaussian(far_below, min_variance=0.25)[1].item() == 0.25
    assert jnp.isfinite(losses.gaussian_nll(far_below, jnp.ones((1, 1)))).all()
    grads = jax.grad(lambda o: losses.gaussian_nll(o, jnp.ones((1, 1))).sum())(far_below)
    assert jnp.isfinite(grads).all()


def test_unit_variance_likelihood_is_squared_error_up_to_a_constant(x64):
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    constant = 3 * np.log(2 * np.pi) / 2
    half = losses.squared_error(outputs, y) / 2
    np.testing.assert_allclose(losses.unit_gaussian_nll(outputs, y) - half, np.full(9, constant), rtol=1e-12)


def test_integer_one_hot_and_smoothed_labels_agree():
    logits = jax.random.normal(jax.random.key(0), (6, 4))
    labels = jnp.array([0, 1, 2, 3, 1, 2])
    one_hot = jax.nn.one_hot(labels, 4)
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), losses.cross_entropy(logits, one_hot), rtol=1e-6)
    smoothed = losses.cross_entropy(logits, labels, label_smoothing=0.3)
    np.testing.assert_allclose(smoothed, losses.cross_entropy(logits, one_hot, label_smoothing=0.3), rtol=1e-5)
    np.testing.assert_allclose(smoothed, losses.cross_entropy(logits, 0.7 * one_hot + 0.3 / 4), rtol=1e-5)
    traced = jax.jit(lambda a: losses.cross_entropy(logits, labels, label_smoothing=a))(0.3)
    np.testing.assert_allclose(smoothed, traced, rtol=1e-6)


def test_means_are_scikit_learns():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 4)).astype("f"), rng.integers(0, 4, 20)
    mean = losses.cross_entropy(logits, labels).mean()
    np.testing.assert_allclose(mean, log_loss(labels, jax.nn.softmax(logits), labels=range(4)), rtol=1e-5)
    outputs, y = rng.normal(size=(20, 1)).astype("f"), rng.normal(size=(20, 1)).astype("f")
    mean = losses.quantile(outputs, y, level=0.3).mean()
    np.testing.assert_allclose(mean, mean_pinball_loss(y, outputs, alpha=0.3), rtol=1e-5)


@given(level=st.floats(0.05, 0.95))
def test_the_pinball_loss_is_least_at_the_quantile(level):
    y = jnp.linspace(0, 1, 401)[:, None]
    guesses = jnp.linspace(0, 1, 101)
    risk = jax.vmap(lambda g: losses.quantile(jnp.full_like(y, g), y, level=level).mean())(guesses)
    assert abs(float(guesses[jnp.argmin(risk)]) - level) <= 0.011


@pytest.mark.parametrize("name", ["squared_error", "unit_gaussian_nll", "binary_cross_entropy"])
def test_half_precision_is_summed_in_float32(name):
    outputs = jnp.full((1, 3000), 1.0, jnp.bfloat16)
    value = getattr(losses, name)(outputs, jnp.zeros((1, 3000)))
    exact = oracle.LOSSES[name](np.ones((1, 3000)), np.zeros((1, 3000)))[0]
    np.testing.assert_allclose(value, exact, rtol=1e-4)


def test_extreme_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    np.testing.assert_allclose(losses.cross_entropy(logits, jnp.array([0, 0])), [0.0, 2e4])
    np.testing.assert_allclose(losses.binary_cross_entropy(logits, jnp.array([[1, 0], [1, 0]])), [0.0, 2e4])


def test_losses_under_vmap_equal_those_alone(key):
    outputs, y = jax.random.normal(key, (3, 5, 4)), jnp.arange(5) % 4
    together = jax.vmap(losses.cross_entropy, (0, None))(outputs, y)
    np.testing.assert_allclose(together[1], losses.cross_entropy(outputs[1], y), rtol=1e-6)


def test_beta_weights_the_likelihood_by_a_variance_without_a_derivative(x64):
    rng = np.random.default_rng(5)
    outputs, y = jnp.asarray(rng.normal(size=(6, 4))), jnp.asarray(rng.normal(size=(6, 2)))
    numbers = {"min_variance": 0.01}
    plain = losses.gaussian_nll(outputs, y, **numbers)
    np.testing.assert_allclose(losses.beta_gaussian_nll(outputs, y, beta=0.0, **numbers), plain, rtol=1e-12)
    # At beta 1 the mean learns as by half the squared error, whatever the variance.
    slope = jax.grad(lambda o: losses.beta_gaussian_nll(o, y, beta=1.0, **numbers).sum())(outputs)
    np.testing.assert_allclose(slope[:, :2], outputs[:, :2] - y, rtol=1e-10)
    plain_slope = jax.grad(lambda o: losses.gaussian_nll(o, y, **numbers).sum())(outputs)
    _, variance = losses.gaussian(outputs, **numbers)
    half = jax.grad(lambda o: losses.beta_gaussian_nll(o, y, **numbers).sum())(outputs)
    np.testing.assert_allclose(half, plain_slope * jnp.tile(jnp.sqrt(variance), 2), rtol=1e-10)


def test_an_infinite_logit_counts_nothing_where_its_target_is_zero():
    """Zero times the log of zero is zero, by every path to a smoothing of none; derivatives are finite."""
    logits, labels = jnp.array([[0.0, 1.0, -jnp.inf], [2.0, -jnp.inf, 1.0]]), jnp.array([0, 2])
    right, slope = np.full(2, np.log1p(np.e)), np.array([[-1, 1, 0], [1, 0, -1]]) / (1 + np.exp(-1))
    for targets in (labels, jax.nn.one_hot(labels, 3)):

        def both(smoothing, targets=targets):
            loss = lambda o: losses.cross_entropy(o, targets, label_smoothing=smoothing)  # noqa: E731
            return loss(logits), jax.grad(lambda o: loss(o).sum())(logits)

        for value, grads in [
            *map(both, (0, 0.0, np.float32(0), np.zeros((), "i4"), jnp.zeros(()))),
            jax.jit(both)(0.0),
        ]:
            np.testing.assert_allclose(value, right, rtol=1e-6)
            np.testing.assert_allclose(grads, slope, rtol=1e-5)
        assert np.isinf(both(0.1)[0]).all()  # a share of a class that cannot be
    assert losses.cross_entropy(logits[:, :2], jnp.array([0, 0]), label_smoothing=1.0)[1] == jnp.inf
    outputs, targets = jnp.array([[-jnp.inf, jnp.inf, 3.0]]), jnp.array([[0.0, 1.0, 1.0]])
    np.testing.assert_allclose(losses.binary_cross_entropy(outputs, targets), [np.log1p(np.exp(-3.0))], rtol=1e-5)
    assert jnp.isfinite(jax.grad(lambda o: losses.binary_cross_entropy(o, targets).sum())(outputs)).all()


def test_a_level_is_not_rounded_to_the_dtype_of_the_outputs():
    outputs, y = jnp.zeros((2, 1), jnp.bfloat16), jnp.array([[1.0], [-1.0]])
    np.testing.assert_allclose(losses.quantile(outputs, y, level=0.9), [0.9, 0.1], rtol=1e-6)


NEVER = [np.nan, np.inf, -np.inf, 1e39, -1e-3, True, "1"]
RANGES = {
    "delta": (losses.huber, [*NEVER, 0, -1, 1e-50], [1e-3, np.float64(2), np.ones((1, 3), "f")]),
    "level": (losses.quantile, [*NEVER, 0, 1, 1 - 1e-12, 2, np.array([0.5, 1.5])], [0.1, np.float32(0.9)]),
    "min_variance": (losses.gaussian_nll, [*NEVER, -1], [0.1, 1, np.array([[0.1, 0.2, 0.3]])]),
    "beta": (losses.beta_gaussian_nll, [*NEVER, 1.5, -1], [0, 0.5, 1.0]),
    "label_smoothing": (losses.cross_entropy, [*NEVER, 5, -1, 1.01], [0, 0.1, 1]),
}


@pytest.mark.parametrize("name", RANGES)
def test_numbers_out_of_their_range_are_refused_where_they_are_known(name):
    loss, bad, good = RANGES[name]
    outputs, y = jnp.ones((2, 6 if "gaussian" in loss.__name__ else 3)), jnp.ones((2, 3)) / 3
    for value in bad:
        with pytest.raises(ValueError, match=f"{name} must"):
            loss(outputs, y, **{name: value})
        if not isinstance(value, str):
            with pytest.raises(ValueError, match=f"{name} must"):  # known in the closure of a trace too
                jax.eval_shape(lambda o, value=value: loss(o, y, **{name: value}), outputs)
    for value in good:
        assert jnp.isfinite(loss(outputs, y, **{name: value})).all()
