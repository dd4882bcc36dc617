"""Optimizers: roles by name, stacks layer by layer, schedules that know the run, and every optimizer of Optax."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxmlp
from jaxmlp import MLP, Layer, Recipe, losses, loop, population
from jaxmlp._coupling import couples
from jaxmlp._per_layer import adapted
from jaxmlp.optimizers import ClippedCosineAdamW, CosineAdamW, PerLayer, decays, finished, schedule_length

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
X = np.random.default_rng(0).normal(size=(20, 3)).astype("f")
Y = X[:, :1]
RATE = {"learning_rate": 0.1}
RECIPE = Recipe(MLP((3, 4, 1)), losses.squared_error, CosineAdamW(), epochs=3, batch_size=5)
DEEP = MLP((4, 6, 6, 6, 1), norm="layer")
STACKED = DEEP.replace(scan=True)


def with_optimizer(optimizer, **changes):
    return dataclasses.replace(RECIPE, optimizer=optimizer, **changes)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other, rtol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), one, other)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (Layer(1.0, 1.0, 1.0, 1.0), [True, False, False, False]),
        ({"fc1_weight": 1.0, "fc1_bias": np.ones((4, 2))}, [False, True]),  # JAX sorts the keys of a dict
        (
            {"W1": 1.0, "b1": np.ones((4, 2)), "LayerNorm_0": {"scale": np.ones((4, 2))}},
            [False, True, True][::-1] and None,
        ),
        ({"layers.0.weight": np.ones(3), "layers.0.bias": np.ones((3, 1))}, [False, True]),
        ({"w": [np.ones(2), np.ones(2)], "b": (np.ones((2, 2)),)}, [False, True, True]),
        ([(np.ones((2, 2)), np.ones(2))], [True, False]),  # no names: a leaf of two axes is a matrix
        ({"slope": np.ones((2, 2)), "alpha": np.ones(2)}, [False, True]),
    ],
    ids=str,
)
def test_what_decays_is_known_by_its_name(params, expected):
    found = decays(params)
    if expected is None:
        expected = [False, True, False]
        found = {"b1": found["b1"], "c": found["W1"], "d": found["LayerNorm_0"]}
    assert jax.tree.leaves(found) == expected


@pytest.mark.parametrize("factory", [CosineAdamW(9, 0.0), ClippedCosineAdamW(9, 0.0)])
def test_a_stack_decays_as_its_layers_do(loose, factory):
    """With gradients of zero only the decay moves a parameter: biases, scales and shifts stay."""
    moved = []
    for model in (DEEP, STACKED):
        params = model.init(KEY)
        zero, optimizer = jax.tree.map(jnp.zeros_like, params), factory(0.5, 0.2)
        moved.append(model.layers(optimizer.update(zero, optimizer.init(params), params)[0]))
    close(*moved)
    for layer, update in zip(DEEP.init(KEY), moved[1], strict=True):
        np.testing.assert_allclose(update.w, -0.1 * layer.w, rtol=1e-6)
        assert not any(np.any(leaf) for leaf in update[1:] if leaf is not None)


def chained(learning_rate):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adaptive_grad_clip(0.1), optax.lamb(learning_rate))


ELEMENTWISE = {
    *(optax.adam, optax.adamw, optax.sgd, optax.lion, optax.adabelief, optax.rmsprop, optax.rprop, optax.yogi),
    *(optax.adadelta, optax.nadamw, optax.polyak_sgd, optax.lbfgs, optax.contrib.prodigy, optax.contrib.momo),
    *(optax.contrib.adopt, optax.contrib.sophia, optax.contrib.schedule_free_adamw, optax.contrib.cocob),
}
BY_LAYER = [
    *(optax.lamb, optax.lars, optax.fromage, optax.novograd, optax.sm3, chained, optax.contrib.muon),
    functools.partial(optax.adafactor, min_dim_size_to_factor=4),
    functools.partial(optax.contrib.galore, rank=2),
]


def test_which_optimizers_see_a_leaf_as_one_layer_is_read_from_their_programs(loose):
    params = STACKED.init(KEY)
    taken = {f: couples(finished(f(learning_rate=0.1)), params) for f in ELEMENTWISE - {optax.polyak_sgd, optax.lbfgs}}
    assert not any(taken.values()), taken
    assert not couples(finished(optax.lbfgs()), params) and not couples(finished(optax.polyak_sgd()), params)
    for factory in BY_LAYER[:-1]:
        assert couples(finished(factory(learning_rate=0.1)), params), factory
    assert not couples(finished(ClippedCosineAdamW(9)(0.1)), params)
    assert couples(finished(optax.apply_if_finite(optax.lamb(0.1), 3)), params)
    assert couples(finished(optax.MultiSteps(optax.lars(0.1), 2)), params)


def test_a_stack_takes_the_steps_that_its_layers_take(loose):
    """Each by itself, by the wrapper, and by the recipe's own choice, two steps on gradients of every size."""
    params = DEEP.init(KEY)
    grads = [jax.tree.map(lambda p, s=s: jnp.cos(s + 9 * p) * s, params) for s in (1.0, 0.3)]

    def two_steps(optimizer, model):
        def form(layers):
            return model.structure.parts and (layers if model is DEEP else stacked(layers))

        params_, state = form(params), None
        state = optimizer.init(params_)
        for grad in map(form, grads):
            updates, state = optimizer.update(grad, state, params_)
            params_ = optax.apply_updates(params_, updates)
        return model.layers(params_)

    def everything():
        found = {}
        for i, factory in enumerate([*BY_LAYER, optax.adamw]):
            apart = adapted(finished(factory(learning_rate=0.1)))
            wrapped = finished(PerLayer(factory)(learning_rate=0.1)) if i < len(BY_LAYER) - 1 else apart
            found[i] = [two_steps(apart, DEEP), two_steps(apart, STACKED), two_steps(wrapped, STACKED)]
        return found

    for expected, *others in jax.jit(everything)().values():
        for found in others:
            close(found, expected)


def stacked(layers):
    from jaxmlp._stacking import stack

    return stack(layers, STACKED.structure.parts)


def test_the_state_of_an_optimizer_that_works_by_element_keeps_its_form():
    """Checkpoints of stacked nets go on loading."""
    bound = with_optimizer(ClippedCosineAdamW(12), model=MLP((3, 4, 4, 4, 1), scan=True)).bind(RATE)
    shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(lambda: jaxmlp.start(KEY, bound)).opt_state)]
    assert shapes.count((2, 4, 4)) == 2 and (4, 4) not in shapes


def test_fit_of_a_stacked_net_is_that_of_its_layers():
    recipe = with_optimizer(optax.lamb, model=MLP((3, 4, 4, 4, 1), "tanh"))
    by_itself = dataclasses.replace(recipe, model=recipe.model.replace(scan=True))
    wrapped = dataclasses.replace(by_itself, optimizer=PerLayer(optax.lamb))
    expected, _ = jaxmlp.fit(KEY, (X, Y), recipe, RATE)
    for one in (by_itself, wrapped):
        close(one.model.layers(jaxmlp.fit(KEY, (X, Y), one, RATE)[0].params), expected.params, rtol=1e-5)
    assert wrapped == dataclasses.replace(by_itself, optimizer=PerLayer(optax.lamb)) and hash(wrapped)
