"""A run begins with parameters that are given, or goes on from a state: as it would from those that were drawn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population

KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), 3)
X = np.linspace(-1, 1, 24, dtype="f")[:, None]
Y = np.sin(3 * X)
RECIPE = Recipe(MLP((1, 4, 1), "tanh"), losses.squared_error, optax.adam, epochs=3, batch_size=10)
RATE = {"learning_rate": 0.05}
GIVEN = RECIPE.model.init(jax.random.key(7))


def same(one, other):
    def equal(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

    jax.tree.map(equal, one, other)


def test_parameters_that_the_model_would_draw_make_the_same_run():
    drawn = jaxmlp.start(KEY, RECIPE, RATE)
    given = jaxmlp.start(KEY, RECIPE, RATE, params=drawn.params)
    same(given, drawn)
    plain = jaxmlp.fit(KEY, (X, Y), RECIPE, RATE)
    same(jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, params=drawn.params), plain)
    same(loop.train(KEY, (X, Y), RECIPE, RATE, params=drawn.params, progress=False), plain)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(drawn.params))  # they are still the caller's


def test_a_run_begins_where_it_is_told():
    state = jaxmlp.start(KEY, RECIPE, RATE, params=GIVEN)
    same(state.params, GIVEN)
    for _ in range(3):
        state, _ = jaxmlp.epoch(state, (X, Y), RECIPE, RATE)
    found, _ = jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, params=GIVEN)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found.params, state.params)
    of_numpy = jax.tree.map(lambda leaf: np.asarray(leaf).astype(">f4"), GIVEN)
    same(jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, params=of_numpy)[0], found)


def test_a_state_goes_on_as_the_longer_run_would():
    longer = jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, epochs=6), RATE)
    half, first = jaxmlp.fit(KEY, (X, Y), RECIPE, RATE)
    for verb in (jaxmlp.fit, lambda *args, **options: loop.train(*args, **options, progress=False)):
        state, second = verb(jax.random.key(5), (X, Y), RECIPE, RATE, params=half)
        same(state, longer[0])
        same(np.concatenate([first["loss"], second["loss"]]), longer[1]["loss"])


@pytest.mark.parametrize("word", [lambda tree: tree, population.each])
def test_each_member_begins_with_its_own(word):
    own = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(RECIPE.model.init(key) for key in KEYS))
    plan = population.plan(KEYS, (X, Y), RECIPE, RATE, width=1)
    states, history = population.fit(KEYS, (X, Y), RECIPE, RATE, params=word(own), plan=plan)
    for i in range(3):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], own)
        alone = jaxmlp.fit(KEYS[i], (X, Y), RECIPE, RATE, params=mine)
        same([leaf[i] for leaf in jax.tree.leaves(states.params)], jax.tree.leaves(alone[0].params))
        same(history["loss"][i], alone[1]["loss"])


@pytest.mark.parametrize("word", [lambda tree: tree, population.shared])
def test_all_members_begin_with_one(word):
    plan = population.plan(KEYS, (X, Y), RECIPE, RATE, width=1)
    states, _ = population.fit(KEYS, (X, Y), RECIPE, RATE, params=word(GIVEN), plan=plan)
    alone, _ = jaxmlp.fit(KEYS[1], (X, Y), RECIPE, RATE, params=GIVEN)
    same([leaf[1] for leaf in jax.tree.leaves(states.params)], jax.tree.leaves(alone.params))


def test_a_population_goes_on_from_its_states():
    half, _ = population.fit(KEYS, (X, Y), RECIPE, RATE)
    longer, _ = population.fit(KEYS, (X, Y), dataclasses.replace(RECIPE, epochs=6), RATE)
    found, _ = population.fit(KEYS, (X, Y), RECIPE, RATE, params=half)
    same(found, longer)


class Stop(Exception):
    pass


def stop(state, history):
    if state.step >= 6:
        raise Stop


def test_a_start_is_a_part_of_what_a_run_is(tmp_path):
    options = {"progress": False, "every": 1}
    straight = loop.train(KEY, (X, Y), RECIPE, RATE, params=GIVEN, **options)
    options["directory"] = tmp_path
    with pytest.raises(Stop):
        loop.train(KEY, (X, Y), RECIPE, RATE, params=GIVEN, callbacks=[stop], **options)
    with pytest.raises(ValueError, match=r"params.0.w.sha256: saved .*, given"):
        loop.train(KEY, (X, Y), RECIPE, RATE, params=RECIPE.model.init(KEY), **options)
    same(loop.resume(tmp_path, (X, Y), progress=False), straight)
    same(loop.train(KEY, (X, Y), RECIPE, RATE, params=GIVEN, **options), straight)


def test_through_fit_flow_derivatives_of_the_start():
    """As meta-learning takes them (Finn 2017, arXiv 1703.03400): of what a few steps make of the parameters."""
    recipe = Recipe(RECIPE.model, losses.squared_error, optax.sgd, epochs=2)

    def after(params):
        state, _ = jaxmlp.fit(KEY, (X, Y), recipe, RATE, params=params)
        return jnp.mean(losses.squared_error(recipe.model.apply(state.params, X), Y))

    grads = jax.grad(after)(GIVEN)
    step = 1e-2
    moved = GIVEN[0]._replace(w=GIVEN[0].w.at[0, 1].add(step)), GIVEN[1]
    back = GIVEN[0]._replace(w=GIVEN[0].w.at[0, 1].add(-step)), GIVEN[1]
    np.testing.assert_allclose(grads[0].w[0, 1], (after(moved) - after(back)) / (2 * step), rtol=0.02)


OTHER = MLP((1, 5, 1)).init(KEY)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (OTHER, r"params must have float32 of shape \(1, 4\) at \[0\]\.w; got float32 of shape \(1, 5\)"),
        (GIVEN[:1], "params must have the leaves"),
        (jax.tree.map(lambda a: a.astype("f2"), GIVEN), "got float16 of shape"),
        (jax.tree.map(lambda a: np.full(a.shape, 1e39), GIVEN), "must fit float32"),
        (3, "params must have the leaves"),
    ],
)
def test_a_start_of_another_form_is_named(given, words):
    for call in (jaxmlp.start, lambda *args, **options: jaxmlp.fit(args[0], (X, Y), *args[1:], **options)):
        with pytest.raises(ValueError, match=words):
            call(KEY, RECIPE, RATE, params=given)
    with pytest.raises(ValueError, match=words):
        population.fit(KEYS, (X, Y), RECIPE, RATE, params=given)
    with pytest.raises(ValueError, match=words):
        loop.train(KEY, (X, Y), RECIPE, RATE, params=given, progress=False)


def test_a_list_of_recipes_draws_its_own():
    with pytest.raises(ValueError, match="params must be None for a list of recipes, whose parameters differ"):
        population.fit(KEYS, (X, Y), [RECIPE] * 3, RATE, params=GIVEN)
