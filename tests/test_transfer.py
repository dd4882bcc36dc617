"""Layers of one net begin another: which are taken over, which are drawn, and what does not fit is named."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, losses

KEY, OTHER = jax.random.split(jax.random.key(0))
SOURCE = MLP((3, 4, 4, 4, 2), "tanh", norm="layer")
PARAMS = SOURCE.init(KEY)
X = np.random.default_rng(0).normal(size=(12, 3)).astype("f")


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_all_but_the_last_layer_is_taken_over(scan, stacked):
    source, target = SOURCE.replace(scan=stacked), SOURCE.replace(sizes=(3, 4, 4, 4, 5), scan=scan)
    params = source.init(KEY)
    found = jaxmlp.transfer(OTHER, params, source, target)
    assert jax.tree.structure(found) == jax.tree.structure(target.init(OTHER))
    layers = target.layers(found)
    same(layers[:-1], source.layers(params)[:-1])
    same(layers[-1], target.layers(target.init(OTHER))[-1])
    hidden, identity = partial(dict, activation="tanh", norm="layer"), jnp.eye(4)
    one, other = ((*of[:-1], of[-1]._replace(w=identity, b=jnp.zeros(4))) for of in (layers, source.layers(params)))
    same(*(MLP((3, 4, 4, 4, 4), **hidden()).apply(of, X) for of in (one, other)))


def test_layers_are_named_and_a_net_may_grow():
    target = SOURCE.replace(sizes=(3, 4, 4, 4, 4, 2))
    found = jaxmlp.transfer(OTHER, PARAMS, SOURCE, target, anew=(3, -1))
    same(found[:3], PARAMS[:3])
    same(found[3:], target.init(OTHER)[3:])
    same(jaxmlp.transfer(OTHER, PARAMS, SOURCE, SOURCE, anew=()), PARAMS)
    same(jaxmlp.transfer(OTHER, PARAMS, SOURCE, SOURCE, anew=0)[1:], PARAMS[1:])
    of_numpy = jax.tree.map(lambda leaf: np.asarray(leaf).astype(">f4"), PARAMS)
    same(jaxmlp.transfer(OTHER, of_numpy, SOURCE, SOURCE)[:-1], PARAMS[:-1])
    keys = jax.random.split(KEY)
    each = jax.vmap(lambda key, params: jaxmlp.transfer(key, params, SOURCE, SOURCE))(keys, jax.vmap(SOURCE.init)(keys))
    assert each[0].w.shape == (2, 3, 4)


def test_a_new_head_on_a_trunk_that_stays():
    """As a library of features is used (Yosinski 2014, arXiv 1411.1792)."""
    target = SOURCE.replace(sizes=(3, 4, 4, 4, 1))
    recipe = Recipe(target, losses.squared_error, optax.adamw, epochs=20, frozen=lambda path: path[0] < 3)
    given = jaxmlp.transfer(OTHER, PARAMS, SOURCE, target)
    y = SOURCE.apply(PARAMS, X)[:, :1] + 1.0  # which the trunk's features give
    state, history = jaxmlp.fit(KEY, (X, y), recipe, {"learning_rate": 0.1, "weight_decay": 0.0}, params=given)
    same(state.params[:3], PARAMS[:3])
    assert history["loss"][-1] < 0.1 * history["loss"][0]


@pytest.mark.parametrize(
    ("source", "target", "options", "told"),
    [
        (SOURCE, SOURCE.replace(sizes=(3, 5, 4, 4, 2)), {}, r"layer 0 of source must .* w float32 of shape \(3, 5\)"),
        (SOURCE, SOURCE.replace(sizes=(3, 5, 4, 4, 2)), {}, r"pass anew=\(0, 1, 3\)"),
        (SOURCE, SOURCE.replace(sizes=(3, 4, 4, 4, 4, 4, 2)), {}, r"layer 3 .* pass anew=\(3, 4, 5\)"),
        (SOURCE, SOURCE.replace(bias=False), {}, r"got w float32 of shape \(3, 4\), b float32 of shape \(4,\)"),
        (SOURCE, SOURCE.replace(param_dtype="float16"), {}, "layer 0 of source must be as that of target, w float16"),
        (
            SOURCE,
            SOURCE.replace(activation="relu"),
            {},
            "target must have the activation of source, 'tanh'.*got 'relu'",
        ),
        (SOURCE, SOURCE, {"anew": 4}, "anew must name layers, -4 to 3; got 4"),
        (SOURCE, SOURCE, {"anew": "last"}, "anew must name layers, -4 to 3; got 'last'"),
        (SOURCE.replace(sizes=(3, 4, 2)), SOURCE, {}, "params must have 2 layers"),
        (SOURCE, "mlp", {}, "target must be an MLP; got str"),
    ],
)
def test_what_does_not_fit_is_named(source, target, options, told):
    with pytest.raises(ValueError, match=told):
        jaxmlp.transfer(KEY, PARAMS, source, target, **options)
