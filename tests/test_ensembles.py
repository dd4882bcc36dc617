"""Ensembles against SciPy, by enumeration, and by their own definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from jaxmlp import MLP, data, losses, population

OUTPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 4)).astype("f"))  # (members, batch, 2 d)
Y = np.random.default_rng(1).normal(size=(5, 2)).astype("f")


def parts():
    mean, raw = np.split(np.asarray(OUTPUTS, float), 2, axis=-1)
    return mean, np.sqrt(np.exp(4 * np.arcsinh(raw / 16)) + 1e-6)


def test_the_mixture_is_scipys():
    mean, std = parts()
    m = population.mixture(OUTPUTS)
    np.testing.assert_allclose(m.mean, mean.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(m.aleatoric, (std**2).mean(0), rtol=1e-5)
    np.testing.assert_allclose(m.epistemic, mean.var(0), rtol=1e-4)
    np.testing.assert_allclose(m.variance, (std**2 + mean**2).mean(0) - mean.mean(0) ** 2, rtol=1e-4)
    density = stats.norm.pdf(Y, mean, std).prod(-1).mean(0)
    np.testing.assert_allclose(m.log_prob(Y), np.log(density), rtol=1e-4)
    one = stats.norm.logpdf(Y, mean.mean(0), np.sqrt((std**2).mean(0) + mean.var(0))).sum(-1)
    np.testing.assert_allclose(m.gaussian_log_prob(Y), one, rtol=1e-4)
    np.testing.assert_allclose(m.cdf(Y), stats.norm.cdf(Y, mean, std).mean(0), atol=1e-6)


@pytest.mark.parametrize("level", [0.01, 0.5, 0.9])
def test_a_quantile_is_where_the_distribution_function_reaches_it(level):
    m = population.mixture(OUTPUTS)
    np.testing.assert_allclose(m.cdf(m.quantile(level)), level, atol=1e-5)


def test_samples_have_the_mixtures_moments(key):
    m = population.mixture(OUTPUTS)
    draws = m.sample(key, 20_000)
    assert draws.shape == (20_000, 5, 2)
    np.testing.assert_allclose(draws.mean(0), m.mean, atol=0.05)
    np.testing.assert_allclose(draws.var(0), m.variance, rtol=0.1)


def test_own_units_move_every_number_alike():
    by = data.Statistics(jnp.array([3.0, -1.0]), jnp.array([2.0, 0.5]))
    m = population.mixture(OUTPUTS)
    own = m.unstandardise(by)
    there = data.unstandardise(jnp.asarray(Y), by)
    np.testing.assert_allclose(own.log_prob(there), m.log_prob(Y) - np.log(2.0 * 0.5), rtol=1e-4)
    np.testing.assert_allclose(own.quantile(0.9), data.unstandardise(m.quantile(0.9), by), rtol=1e-4)


def test_the_scale_is_scipys_minimum_and_calibrates():
    own = population.mixture(OUTPUTS)
    scale = own.scale(3 * Y)
    nll = lambda s: -float(own.scaled(np.float32(s)).gaussian_log_prob(3 * Y).mean())  # noqa: E731
    best = optimize.minimize_scalar(nll, bounds=(0.05, 20), method="bounded").x
    np.testing.assert_allclose(scale, best, rtol=1e-3)
    np.testing.assert_allclose(own.scaled(scale).scale(3 * Y), 1, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda m, y: m.scale(y))(own, 3 * Y), scale, rtol=1e-6)


@pytest.mark.parametrize("by", [0.5, np.array([3.0, 0.25], "f")])
def test_a_scaled_mixture_is_the_one_of_scaled_deviations(by):
    own = population.mixture(OUTPUTS)
    wide = own.scaled(by)
    center = np.asarray(own.mean)
    there = center + by * (Y - center)
    np.testing.assert_allclose(wide.mean, own.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wide.variance, by**2 * np.asarray(own.variance), rtol=1e-4)
    np.testing.assert_allclose(wide.cdf(there), own.cdf(Y), atol=1e-5)
    np.testing.assert_allclose(wide.log_prob(there), own.log_prob(Y) - np.log(np.broadcast_to(by, 2)).sum(), rtol=1e-4)
    further = center + by * (np.asarray(own.quantile(0.9)) - center)
    np.testing.assert_allclose(wide.quantile(0.9), further, rtol=1e-4, atol=1e-5)


def test_a_scale_that_is_none_is_named():
    own = population.mixture(OUTPUTS)
    with pytest.raises(ValueError, match=r"y must have shape \(5, 2\); got float32 of shape \(5,\)"):
        own.scale(Y[:, 0])
    with pytest.raises(ValueError, match="y must be finite; got 1 bad of 10 values"):
        own.scale(np.where(np.arange(10).reshape(5, 2) == 3, np.float32(np.nan), Y))
    with pytest.raises(ValueError, match="by must be finite and above 0; got 0.0"):
        own.scaled(0.0)
    with pytest.raises(ValueError, match="by must be one number, or one for each output; got float32 of shape"):
        own.scaled(np.ones(3, "f"))


def test_votes_and_what_they_disagree_about():
    logits = OUTPUTS
    c = population.categorical(logits)
    p = np.exp(np.asarray(logits, float))
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(c.mean, p.mean(0), rtol=1e-5)
    information = stats.entropy(p.mean(0), axis=-1) - stats.entropy(p, axis=-1).mean(0)
    np.testing.assert_allclose(c.mutual_information, information, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(c.entropy, stats.entropy(p.mean(0), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(
        c.log_prob(np.arange(5) % 4), np.log(p.mean(0)[np.arange(5), np.arange(5) % 4]), rtol=1e-5
    )
    same = population.categorical(jnp.stack([logits[0]] * 3))
    np.testing.assert_allclose(same.mutual_information, 0, atol=1e-6)


def test_diverged_members_are_left_out_and_counted():
    with pytest.warns(UserWarning, match="2 of 4 members diverged and are left out"):
        m = population.mixture(OUTPUTS, status=np.array([0, 2, 1, 2]))
    np.testing.assert_array_equal(m.means, population.mixture(OUTPUTS[np.array([0, 2])]).means)


def test_predict_is_apply_for_each_member():
    mlp = MLP((3, 4, 2))
    params = jax.vmap(mlp.init)(jax.random.split(jax.random.key(0), 3))
    x = np.ones((5, 3), "f")
    out = population.predict(mlp, params, x)
    for i in range(3):
        np.testing.assert_allclose(out[i], mlp.apply(population.member(params, i), x), rtol=1e-5)


def test_the_greedy_choice_is_the_best_step_each_time():
    rng = np.random.default_rng(3)
    predictions, y = rng.normal(size=(6, 20)).astype("f"), rng.normal(size=20).astype("f")
    chosen = population.greedy(predictions, lambda p: jnp.mean(jnp.square(p - y)), rounds=8)
    so_far: list[int] = []
    by_hand = []
    for _ in range(8):
        scores = [np.mean((predictions[[*so_far, i]].mean(0) - y) ** 2) for i in range(6)]
        so_far.append(int(np.argmin(scores)))
        by_hand.append(min(scores))
    assert chosen.tolist() == so_far[: int(np.argmin(by_hand)) + 1]
    with pytest.raises(ValueError, match="score must be finite for some member"):
        population.greedy(predictions, lambda p: jnp.nan * p.sum(), rounds=1)


def test_the_temperature_is_scipys_minimum():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(200, 4)).astype("f") * 4
    y = np.where(rng.random(200) < 0.6, logits.argmax(-1), rng.integers(0, 4, 200)).astype("i4")
    loss = lambda t: float(losses.cross_entropy(jnp.asarray(logits / np.float32(t)), y).mean())  # noqa: E731
    best = optimize.minimize_scalar(loss, bounds=(0.1, 20), method="bounded").x
    np.testing.assert_allclose(population.temperature(logits, y), best, rtol=1e-2)


def test_a_class_that_cannot_be_does_not_change_the_temperature():
    logits = jnp.array([[2.0, 0.0]] * 4)
    more = jnp.concatenate([logits, jnp.full((4, 1), -jnp.inf)], axis=1)
    y = jnp.array([0, 0, 0, 1])
    np.testing.assert_allclose(population.temperature(more, y), population.temperature(logits, y), rtol=1e-6)
    with pytest.raises(ValueError, match="logits must be finite, or -inf for classes that are not"):
        population.temperature(more, jnp.array([0, 0, 0, 2]))


def test_own_units_that_32_bits_cannot_hold_are_refused():
    m = population.mixture(OUTPUTS)
    far = data.statistics(1.7e9 + 300 * np.arange(10.0)[:, None] * np.ones(2))
    with pytest.raises(ValueError, match="float32 holds the variances, and means to a hundredth"):
        m.unstandardise(far)
    for scale in (1e25, 1e-25):
        with pytest.raises(ValueError, match="units must be such that float32 holds"):
            m.unstandardise(data.statistics(scale * np.arange(10.0)[:, None] * np.ones(2)))
    near = data.statistics(1e4 + 300 * np.arange(10.0)[:, None] * np.ones(2))  # in float64
    assert m.unstandardise(near).log_prob(Y).dtype == jnp.float32
