"""The Gaussian head is safe at any rate of Adam's, and what was trained before it reads as it was written."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from sklearn.datasets import load_diabetes

from jaxmlp import MLP, Recipe, _gaussian, losses, population
from jaxmlp.loop import train

RAW = np.array([-1e9, -1e4, -200.0, -40.0, -8.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 8.0, 40.0, 200.0, 1e4, 1e9])


def before(outputs, *, min_variance=1e-6):
    """What `losses.gaussian` was before jaxmlp 0.2."""
    mean, raw = jnp.split(outputs, 2, axis=-1)
    return mean, jnp.square(jax.nn.softplus(raw)) + min_variance


def before_nll(outputs, targets, *, min_variance=1e-6):
    mean, variance = before(outputs, min_variance=min_variance)
    return (0.5 * (jnp.log(2 * np.pi * variance) + jnp.square(targets - mean) / variance)).sum(-1)


def test_the_standard_deviation_is_one_at_zero_and_the_same_above_and_below(x64):
    outputs = np.stack([np.ones_like(RAW), RAW], axis=1)
    mean, variance = losses.gaussian(outputs, min_variance=0.0)
    h = np.abs(RAW) / 16
    spread = (h + np.sqrt(h**2 + 1)) ** np.sign(RAW)
    np.testing.assert_allclose(np.sqrt(variance[:, 0]), spread**2, rtol=1e-12)
    np.testing.assert_array_equal(mean[:, 0], 1.0)
    np.testing.assert_allclose(variance * variance[::-1], 1.0, rtol=1e-12)


LOSSES = [losses.gaussian_nll, losses.beta_gaussian_nll, losses.student_t_nll, losses.gaussian_crps]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_values_and_derivatives_are_finite_at_extreme_outputs(loss):
    means, raw = (a.ravel()[:, None] for a in np.meshgrid([-1e3, 0.0, 1e3], RAW))
    outputs, y = jnp.asarray(np.concatenate([means, raw], axis=1), jnp.float32), jnp.ones((len(raw), 1))
    values, slopes = jax.vmap(jax.value_and_grad(lambda o, t: loss(o[None], t[None])[0]))(outputs, y)
    assert jnp.isfinite(values).all() and jnp.isfinite(slopes).all()


def test_the_likelihood_of_a_head_of_before_is_scipys_of_its_own_variance():
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(scale=5, size=(40, 4)).astype("f"), rng.normal(size=(40, 2)).astype("f")
    spread = np.sqrt(np.logaddexp(0, outputs[:, 2:].astype(float)) ** 2 + 1e-6)
    by_scipy = -scipy.stats.norm.logpdf(y, outputs[:, :2], spread).sum(-1)
    np.testing.assert_allclose(losses.gaussian_nll(losses.from_softplus(outputs), y), by_scipy, rtol=1e-3)


def test_a_head_of_before_is_read_and_trained_on_as_it_was(x64):
    outputs = jnp.stack([jnp.zeros(61), jnp.linspace(-300, 300, 61)], axis=1)
    y = jnp.ones((61, 1))
    now = losses.gaussian(losses.from_softplus(outputs))
    np.testing.assert_allclose(now[1], before(outputs)[1], rtol=1e-9)
    slopes = [
        jax.grad(lambda o, f=f: f(o, y).sum())(outputs)
        for f in (lambda o, t: losses.gaussian_nll(losses.from_softplus(o), t), before_nll)
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-6, atol=1e-9)
    assert np.isfinite(slopes[0]).all()


def test_outputs_that_are_no_pairs_are_named():
    with pytest.raises(ValueError, match="outputs must hold a mean and a raw scale for each target, .* two outputs a"):
        losses.from_softplus(np.ones((2, 3), "f"))


def rmse_of_rates(loss, rates, seeds=3):
    """Return the error on a quarter of the diabetes data, in standard deviations, (rates, seeds)."""
    x, y = load_diabetes(return_X_y=True)
    x, y = ((a - a.mean(0)) / a.std(0) for a in (x, y[:, None]))
    x, y = x.astype("f"), y.astype("f")
    recipe = Recipe(MLP((10, 50, 2)), loss, optax.adam, epochs=60, batch_size=32)
    keys, numbers = population.grid(seeds=seeds, learning_rate=list(rates))
    states, _ = population.fit(keys, (x[:330], y[:330]), recipe, numbers)
    means = population.predict(recipe.model, states.params, x[330:])[..., :1]
    error = np.sqrt(np.square(np.asarray(means) - y[330:]).mean((1, 2)))
    rate = np.asarray(numbers["learning_rate"])
    return np.stack([error[rate == np.float32(r)] for r in rates])


def test_no_rate_of_adam_loses_the_mean():
    """Without clipping: what fell as softplus(raw)^2 was off by many standard deviations at rate 0.1."""
    found = rmse_of_rates(losses.gaussian_nll, (1e-3, 3e-3, 1e-2, 3e-2, 1e-1))
    assert found.max() < 1.5 * found.min() < 1.5
    assert rmse_of_rates(before_nll, (1e-1,)).max() > 3


def test_a_run_with_the_head_of_before_is_not_gone_on_with_unseen(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(12, 3)).astype("f")
    recipe = Recipe(MLP((3, 2)), losses.gaussian_nll, optax.adam, epochs=2, batch_size=4)
    run = functools.partial(
        train, jax.random.key(0), (x, x[:, :1]), hyperparams={"learning_rate": 0.01}, progress=False
    )
    with monkeypatch.context() as patch:
        patch.setattr(_gaussian, "gaussian", before)
        run(recipe=recipe, directory=tmp_path)
    with pytest.raises(ValueError, match="to go on with what is given now, pass accept=.*'loss'"):
        run(recipe=dataclasses.replace(recipe, epochs=4), directory=tmp_path, accept="epochs")
