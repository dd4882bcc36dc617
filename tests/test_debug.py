"""JAX's own options for finding errors find none in ours: `jax_debug_nans` and `jax_debug_key_reuse`."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, data, loop, losses, metrics, population, serving

X = np.random.default_rng(0).normal(size=(20, 3)).astype("f")
Y = X[:, :1]
RATE = {"learning_rate": 0.1}
PLAIN = Recipe(
    MLP((3, 4, 1)), losses.squared_error, optax.adam, epochs=3, batch_size=8, metrics=(metrics.rmse, metrics.r2)
)
DROPOUT = dataclasses.replace(PLAIN, model=MLP((3, 4, 4, 1), dropout=True, norm="layer"))
STACKED = dataclasses.replace(PLAIN, model=MLP((3, 4, 4, 4, 1), scan=True), batch_size=None)


@pytest.fixture(autouse=True)
def options():
    for name in ("jax_debug_nans", "jax_debug_key_reuse"):
        jax.config.update(name, True)
    yield
    for name in ("jax_debug_nans", "jax_debug_key_reuse"):
        jax.config.update(name, False)


def key(seed=0):
    return jax.random.key(seed)


LONG = [pytest.param(recipe, {}, marks=pytest.mark.long) for recipe in (PLAIN, STACKED)]


@pytest.mark.parametrize("recipe, numbers", [(DROPOUT, {"dropout_rate": 0.1}), *LONG])
def test_the_verbs_of_one_network(recipe, numbers):
    numbers = RATE | numbers
    jaxmlp.fit(key(), (X, Y), recipe, numbers, validation=(X, Y))
    jax.vmap(jaxmlp.fit, (0, None, None, None))(jax.random.split(key(), 2), (X, Y), recipe, numbers)
    state = jaxmlp.start(key(), recipe, numbers)
    for _ in range(2):
        state, _ = jaxmlp.step(state, (X, Y), recipe, numbers)
        state, _ = jaxmlp.epoch(state, (X, Y), recipe, numbers)
    jaxmlp.evaluate(state.params, (X, Y), recipe, numbers)
    serving.predict(recipe.model, state.params, X)


def test_the_verbs_of_a_population():
    """Members that stop early, padding and rungs leave no NaN on a device; none here becomes NaN."""
    keys, numbers = jax.random.split(key(), 3), RATE | {"dropout_rate": 0.1}
    states, history = population.fit(keys, (X, Y), DROPOUT, numbers, validation=(X, Y), patience=1)
    population.best(states, history)


@pytest.mark.long
def test_the_other_verbs_of_a_population():
    rows = np.stack([np.arange(10), np.r_[np.arange(9), -1]])
    population.fit(jax.random.split(key(1), 2), (X, Y), PLAIN, RATE, rows=rows)
    population.halving(jax.random.split(key(2), 3), (X, Y), PLAIN, RATE, validation=(X, Y))
    population.cross_validate(key(3), (X, Y), PLAIN, RATE, folds=3)


def test_the_loop(tmp_path):
    def train(name, seed, epochs):
        return loop.train(
            *(key(seed), (X, Y), dataclasses.replace(PLAIN, epochs=epochs), RATE),
            **dict(validation=(X, Y), directory=tmp_path / name, progress=False, stop=loop.Patience(1)),
        )

    train("one", 0, 3)
    loop.resume(tmp_path / "one", (X, Y), validation=(X, Y), epochs=5, progress=False)
    keys = jax.random.split(key(), 2)
    loop.train(keys, (X, Y), PLAIN, RATE, directory=tmp_path / "two", progress=False)
    loop.resume(tmp_path / "two", (X, Y), epochs=5, progress=False)
    batches = [(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:], Y[16:])]
    loop.train(key(), batches, Recipe(PLAIN.model, losses.squared_error, optax.sgd, epochs=2), RATE, progress=False)


def test_the_rest_that_takes_a_key():
    data.split(key(), 10)
    data.k_folds(key(1), 10, 3)
    data.epoch_order(key(2), 0, 10, 4)
    population.grid(seeds=2, learning_rate=[0.1, 0.2])
