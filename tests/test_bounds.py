"""Bounds of a variance are trained, shared by all inputs, and drawn together, as by hand and in every way to train."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 2)).astype("f")
Y = (X[:, :1] + 0.1 * RNG.normal(size=(24, 1))).astype("f")
NET = MLP((2, 6, 2), "tanh", dropout=True)
MODEL = losses.BoundedScales(NET, 1)
LOSS = losses.bounded(losses.gaussian_nll)
RECIPE = Recipe(MODEL, LOSS, optax.adam, epochs=4, batch_size=10)
NUMBERS = {"learning_rate": 0.05, "dropout_rate": 0.1, "bound_weight": 0.5, "min_variance": 1e-4, "init_scale": 0.5}


def close(one, other, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), one, other)


LOW, HIGH = np.asarray(MODEL.init(KEY)["low"]), np.asarray(MODEL.init(KEY)["high"])


def test_raw_scales_lie_between_their_bounds_as_by_hand():
    params = MODEL.init(KEY)
    scaled = {**params, "model": (*params["model"][:-1], _wider(params["model"][-1]))}
    plain = np.asarray(NET.apply(scaled["model"], 30 * X), "f8")
    found = np.asarray(MODEL.apply(scaled, 30 * X))
    raw = HIGH - np.logaddexp(0, HIGH - plain[:, 1])
    np.testing.assert_allclose(found[:, 1], LOW + np.logaddexp(0, raw - LOW), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[:, 0], plain[:, 0], rtol=1e-5, atol=1e-6)
    assert found[:, 1].min() > LOW - 0.01 and found[:, 1].max() < HIGH + 0.01 and np.ptp(found[:, 1]) > 3


@pytest.mark.parametrize("log_variance", [-12.0, -3.0, 0.0, 4.0])
def test_bounds_start_where_the_variance_is_as_said(log_variance):
    raw = losses.BoundedScales(NET, 1, low=log_variance, high=5.0).init(KEY)["low"]
    _, variance = losses.gaussian(np.stack([0 * raw, raw], axis=1), min_variance=0.0)
    np.testing.assert_allclose(np.log(variance), log_variance, atol=0.01)


def _wider(layer):
    return layer._replace(w=layer.w * jnp.array([[1.0, 20.0]] * 6), b=layer.b * jnp.array([1.0, 20.0]))


class ByHand:
    """The same without the library's: a model and a loss of one's own."""

    def init(self, key, *, init_scale):
        return {"model": NET.init(key, init_scale=init_scale), "low": jnp.asarray(LOW), "high": jnp.asarray(HIGH)}

    def apply(self, params, x, *, key=None, dropout_rate=None):
        mean, raw = jnp.split(NET.apply(params["model"], x, key=key, dropout_rate=dropout_rate), 2, axis=-1)
        low, high = params["low"][None], params["high"][None]
        raw = high - jax.nn.softplus(high - raw)
        return jnp.concatenate([mean, low + jax.nn.softplus(raw - low)], axis=-1)


def by_hand(outputs, targets, *, params, bound_weight, min_variance):
    low, high = (jnp.log(losses.gaussian(jnp.stack([0 * r, r], axis=1))[1]) for r in (params["low"], params["high"]))
    apart = jnp.sum(high - low)
    return losses.gaussian_nll(outputs, targets, min_variance=min_variance) + bound_weight * apart


def test_it_trains_as_by_hand_with_the_numbers_of_the_model_inside():
    state, history = jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS, validation=(X, Y))
    recipe = Recipe(ByHand(), by_hand, optax.adam, epochs=4, batch_size=10)
    other, expected = jaxmlp.fit(KEY, (X, Y), recipe, NUMBERS, validation=(X, Y))
    close(state.params, other.params)
    close(history["validation_loss"], expected["validation_loss"])
    low, high = (losses.gaussian(np.stack([0 * r, r], axis=1))[1] for r in (state.params["low"], state.params["high"]))
    np.testing.assert_allclose(history["validation_bounds"][-1], np.log(high / low).item(), rtol=1e-5)
    assert history["bounds"][-1] < history["bounds"][0] < 10.5


def test_members_and_runs_that_are_resumed_are_the_straight_run(tmp_path):
    keys = jnp.stack([KEY, KEY])
    states, history = population.fit(keys, (X, Y), RECIPE, {**NUMBERS, "bound_weight": np.array([0.0, 0.5], "f")})
    state, alone = jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS)
    close(population.member(states, 1).params, state.params)
    assert history["bounds"][0, -1] > history["bounds"][1, -1]
    outputs = population.predict(MODEL, states.params, X)
    assert population.mixture(outputs, min_variance=1e-4).log_prob(Y).shape == (24,)
    straight = loop.train(KEY, (X, Y), RECIPE, NUMBERS, progress=False)
    with pytest.raises(Stop):
        loop.train(KEY, (X, Y), RECIPE, NUMBERS, progress=False, directory=tmp_path, every=2, callbacks=[stopping])
    resumed = loop.resume(tmp_path, (X, Y), progress=False)  # the recipe is found by its words
    jax.tree.map(np.testing.assert_array_equal, resumed[0].params, straight[0].params)


class Stop(Exception):
    pass


def stopping(state, history):
    raise Stop


def test_equal_ones_are_equal():
    assert losses.BoundedScales(MLP((2, 2)), 1) == losses.BoundedScales(MLP((2, 2)), 1, -10, 0.5)
    assert losses.bounded(losses.gaussian_nll) == LOSS != losses.bounded(losses.gaussian_crps)
    before = jaxmlp.training.trace_count()
    jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, model=losses.BoundedScales(NET, 1)), NUMBERS)
    first = jaxmlp.training.trace_count()
    jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS)
    assert jaxmlp.training.trace_count() == first >= before


def naming(outputs, targets, *, bound_weight):
    return outputs[:, 0] * bound_weight


OUT, PARAMS = np.ones((3, 2), "f"), MODEL.init(KEY)
BAD = {
    "no model": (lambda: losses.BoundedScales(MLP, 1), "model must have init(key) and apply(params, x); got <class"),
    "no targets": (lambda: losses.BoundedScales(NET, 0), "d must be a positive int; got 0"),
    "the order": (lambda: losses.BoundedScales(NET, 1, low=2.0), "low must be below high; got 2.0 and 0.5"),
    "infinite": (lambda: losses.BoundedScales(NET, 1, high=np.inf), "high must lie in [-80, 80]; got inf"),
    "another width": (
        lambda: losses.BoundedScales(MLP((2, 3)), 1).apply({**PARAMS, "model": MLP((2, 3)).init(KEY)}, X),
        "model must have 2 outputs, 1 means and as many raw scales; got float32 of shape (24, 3)",
    ),
    "no bounds": (
        lambda: LOSS(OUT, OUT[:, :1], params=NET.init(KEY)),
        "params must be those of a BoundedScales, with low and high",
    ),
    "other bounds": (
        lambda: MODEL.apply({**PARAMS, "high": np.ones(2, "f")}, X),
        "high of params must have shape (1,); got float32 of shape (2,)",
    ),
    "a weight": (lambda: LOSS(OUT, OUT[:, :1], params=PARAMS, bound_weight=-1.0), "bound_weight must not be negative"),
    "weights": (lambda: LOSS(OUT, OUT[:, :1], params=PARAMS, bound_weight=np.ones(2)), "bound_weight must be one"),
    "twice": (lambda: losses.bounded(naming), "the loss of bounded names it too"),
    "no loss": (lambda: losses.bounded(3), "the loss of bounded must be callable"),
    "a number": (lambda: LOSS(OUT, OUT[:, :1], params=PARAMS, beta=1.0), "a number of Bounded must be one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
