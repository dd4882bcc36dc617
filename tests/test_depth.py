"""A net whose equal layers lie in a stack is the net whose layers lie apart, and compiles as fast at any depth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, interop, losses, population, serving

STACKED = MLP((5, 7, 7, 7, 7, 3), "tanh", norm="layer", residual=True, dropout=True, scan=True)
X = np.random.default_rng(0).normal(size=(11, 5)).astype("f")


@pytest.fixture
def both(key):
    """The same net twice, with its parameters."""
    apart = STACKED.replace(scan=False)
    return (STACKED, STACKED.init(key)), (apart, apart.init(key))


def test_a_stack_holds_the_same_layers(both):
    (stacked, params), (apart, layers) = both
    assert [part.w.shape for part in params] == [(5, 7), (3, 7, 7), (7, 3)]
    assert apart.layers(layers) == layers and stacked.parameter_count == sum(a.size for a in jax.tree.leaves(params))
    for one, other in zip(jax.tree.leaves(stacked.layers(params)), jax.tree.leaves(layers), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("drop", [False, True])
def test_outputs_and_gradients_are_the_same(both, drop):
    (stacked, params), (apart, layers) = both
    options = {"key": jax.random.key(1), "dropout_rate": 0.3} if drop else {}

    def energy(params, model):
        return jnp.square(model.apply(params, X, **options)).mean()

    np.testing.assert_allclose(stacked.apply(params, X), apart.apply(layers, X), rtol=1e-5, atol=1e-6)
    grads, expected = jax.grad(energy)(params, stacked), jax.grad(energy)(layers, apart)
    for one, other in zip(jax.tree.leaves(stacked.layers(grads)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_run_is_the_same_run(key):
    recipe = Recipe(MLP((5, 7, 7, 7, 1)), losses.squared_error, optax.adam, epochs=4, batch_size=4)
    stacked = Recipe(recipe.model.replace(scan=True), losses.squared_error, optax.adam, epochs=4, batch_size=4)
    data, rate = (X, X[:, :1]), {"learning_rate": 1e-2}
    state, history = jaxmlp.fit(key, data, stacked, rate)
    expected, record = jaxmlp.fit(key, data, recipe, rate)
    np.testing.assert_allclose(history["loss"], record["loss"], rtol=1e-4)
    layers = stacked.model.layers(state.params)
    for one, other in zip(jax.tree.leaves(layers), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_program_of_a_step_does_not_grow_with_depth(key):
    def size(depth):
        recipe = Recipe(MLP((8,) * (depth + 1) + (1,), scan=True), losses.squared_error, optax.adam, epochs=1)
        rate = {"learning_rate": 1e-2}
        state = jax.eval_shape(lambda: jaxmlp.start(key, recipe, rate))
        program = jax.jit(jaxmlp.step).lower(state, (jnp.ones((4, 8)), jnp.ones((4, 1))), recipe, rate)
        start = jax.jit(jaxmlp.start).lower(key, recipe, rate)
        return [p.as_text().count("\n") for p in (program, start)]

    assert size(3) == size(200)


def test_a_stack_travels_as_layers(both, tmp_path):
    """Files, scikit-learn and NumPy know layers alone; members' axes stand before the stack's."""
    (stacked, params), (apart, layers) = both
    members = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    for given in (params, members):
        jaxmlp.save(tmp_path / "m.safetensors", stacked, given)
        model, found = jaxmlp.load(tmp_path / "m.safetensors")
        assert model == stacked
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(given), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(serving.in_numpy(stacked, params)(X), apart.apply(layers, X), rtol=1e-4, atol=1e-5)
    program = jax.export.deserialize(bytearray(jaxmlp.export(stacked, members)))
    np.testing.assert_allclose(program.call(X)[0], apart.apply(layers, X), rtol=1e-4, atol=1e-5)
    plain = MLP((5, 7, 7, 3), scan=True)
    weights = plain.init(jax.random.key(2))
    estimator = interop.to_sklearn(plain, weights)
    np.testing.assert_allclose(estimator.predict(X), plain.apply(weights, X), rtol=1e-4, atol=1e-5)


def test_members_are_stacks_of_stacks(key):
    recipe = Recipe(MLP((5, 7, 7, 1), scan=True), losses.squared_error, optax.adam, epochs=2, batch_size=4)
    keys = jax.random.split(key, 3)
    states, _ = population.fit(keys, (X, X[:, :1]), recipe, {"learning_rate": 1e-2})
    assert [part.w.shape for part in states.params] == [(3, 5, 7), (3, 7, 7), (3, 7, 1)]
    alone, _ = jaxmlp.fit(keys[1], (X, X[:, :1]), recipe, {"learning_rate": 1e-2})
    for one, other in zip(
        jax.tree.leaves(population.member(states.params, 1)), jax.tree.leaves(alone.params), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_parts_that_do_not_fit_are_named(both):
    (stacked, params), (apart, layers) = both
    with pytest.raises(ValueError, match="params must have 3 parts, a run of equal hidden layers each, for MLP.*got 5"):
        stacked.apply(layers, X)
    with pytest.raises(ValueError, match="params must have 5 layers for MLP.*got 3"):
        apart.apply(params, X)
    with pytest.raises(ValueError, match=r"layer 1 of .* must have w of shape \(3, 7, 7\); got \(2, 7, 7\)"):
        stacked.apply(jax.tree.map(lambda a: a[:2] if a.ndim == 3 else a, params), X)
    with pytest.raises(ValueError, match="scan must be True or False; got 1"):
        MLP((2, 2), scan=1)
