"""The description and the equation: shapes, values, printing, JSON, and what each option does."""

import copy
import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp import MLP, Layer
from jaxmlp.layer import ACTIVATIONS, INITIALIZERS, NORMS


def test_the_parameters_are_a_tuple_of_layers(key):
    params = MLP((4, 8, 3)).init(key)
    assert isinstance(params, tuple) and all(isinstance(layer, Layer) for layer in params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(params)]
    assert names == ["0/w", "0/b", "1/w", "1/b"]
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(4, 8), (8,), (8, 3), (3,)]


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6), rank=st.integers(0, 3))
def test_outputs_keep_the_leading_axes(sizes, rank):
    mlp = MLP(sizes)
    params = jax.eval_shape(mlp.init, jax.random.key(0))
    leading = (2, 3, 4)[:rank]
    outputs = jax.eval_shape(mlp.apply, params, jax.ShapeDtypeStruct((*leading, sizes[0]), jnp.float32))
    assert outputs.shape == (*leading, sizes[-1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_forward_pass_is_the_equation(x64, activation, key):
    mlp = MLP((3, 5, 5, 2), activation)
    params = mlp.init(key)
    x = np.random.default_rng(0).normal(size=(7, 3))
    _, sums = oracle.forward([(np.asarray(p.w), np.asarray(p.b)) for p in params], x, activation)
    np.testing.assert_allclose(mlp.apply(params, jnp.asarray(x)), sums[-1], rtol=1e-12, atol=1e-12)


def test_one_example_and_a_batch_agree(key):
    mlp = MLP((3, 5, 2))
    params = mlp.init(key)
    x = jax.random.normal(key, (4, 6, 3))
    outputs = mlp.apply(params, x)
    np.testing.assert_allclose(outputs[2, 1], mlp.apply(params, x[2, 1]), rtol=1e-6, atol=1e-6)


def test_a_callable_activation_serves(key):
    mlp = MLP((3, 5, 2), jnp.sin)
    params = mlp.init(key)
    x = jax.random.normal(key, (4, 3))
    by_hand = jnp.sin(x @ params[0].w) @ params[1].w  # the biases start at zero
    np.testing.assert_allclose(mlp.apply(params, x), by_hand, rtol=1e-6, atol=1e-6)


def test_without_bias_the_origin_stays(key):
    mlp = MLP((3, 5, 2), bias=False)
    params = mlp.init(key)
    assert len(jax.tree.leaves(params)) == 2
    np.testing.assert_array_equal(mlp.apply(params, jnp.zeros(3)), jnp.zeros(2))


def test_norms_are_their_equations(key):
    x = 3 + 2 * jax.random.normal(key, (6, 4))
    for norm, names in (("layer", 2), ("rms", 1)):
        mlp = MLP((4, 8, 2), "identity", norm=norm)
        params = mlp.init(key)
        assert len(jax.tree.leaves(params)) == 4 + names == len(jax.tree.leaves(params[0])) + 2
        a = np.asarray(x @ params[0].w)
        if norm == "layer":
            h = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
        else:
            h = a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(mlp.apply(params, x), h @ params[1].w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_norms_square_and_subtract_wide(norm, dtype, key):
    """The square of 300 is infinite in float16; 100 squared less nearly the same is nothing in bfloat16.

    So is the difference of the squares of 3000 in float32.
    """
    normalise = NORMS[norm]
    layer = Layer(jnp.zeros((1, 64), dtype), None, jnp.ones(64, dtype), jnp.zeros(64, dtype))
    for scale, offset in ((1, 0), (300, 0), (1, 100), (1, 3000), (1e-4, 0)):
        h = (scale * jax.random.normal(key, (5, 64)) + offset).astype(dtype)
        wide = np.asarray(h, np.float64)
        centred = wide - wide.mean(-1, keepdims=True) if norm == "layer" else wide
        wanted = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
        found = normalise(layer, h)
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=1e-2, atol=1e-3)


def test_residual_adds_the_input_of_equal_layers(key):
    mlp = MLP((3, 5, 5, 2), "tanh", residual=True)
    params = mlp.init(key)
    x = jax.random.normal(key, (4, 3))
    h = jnp.tanh(x @ params[0].w)
    h = h + jnp.tanh(h @ params[1].w)
    np.testing.assert_allclose(mlp.apply(params, x), h @ params[2].w, rtol=1e-5, atol=1e-5)


def test_dropout_drops_its_share_and_keeps_the_mean(key):
    mlp = MLP((1, 20_000, 1), "identity", dropout=True, initializer="ones")
    params = mlp.init(key)
    x = jnp.ones(1)
    still = mlp.apply(params, x)
    np.testing.assert_allclose(still, [20_000.0])
    dropped = mlp.apply(params, x, key=key, dropout_rate=0.25)
    # 20,000 units of 1/0.75 kept with probability 0.75: the deviation is 20,000^0.5 (1/3)^0.5 = 82.
    assert abs(float(dropped[0]) - 20_000) < 5 * 82 and float(dropped[0]) != 20_000
    np.testing.assert_array_equal(mlp.apply(params, x, key=key, dropout_rate=0.0), still)
    other = mlp.apply(params, x, key=jax.random.key(1), dropout_rate=0.25)
    assert float(other[0]) != float(dropped[0])


def test_bfloat16_products_over_float32_parameters(key):
    mlp = MLP((16, 32, 4), dtype=jnp.bfloat16)
    params = mlp.init(key)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    x = jax.random.normal(key, (8, 16))
    outputs, exact = mlp.apply(params, x), mlp.replace(dtype=None).apply(params, x)
    assert outputs.dtype == jnp.float32
    error = float(jnp.abs(outputs - exact).max())
    assert 0 < error < 0.05
    assert MLP((2, 2), param_dtype="bfloat16").init(key)[0].w.dtype == jnp.bfloat16


def test_float64_where_jax_has_it(x64, key):
    assert MLP((2, 3, 1)).init(key)[0].w.dtype == jnp.float64
    assert MLP((2, 3, 1), param_dtype="float32").init(key)[0].w.dtype == jnp.float32


@pytest.mark.parametrize(
    ("activation", "variance"),
    [("relu", 2 / 400), ("tanh", 2 / (400 + 300)), ("identity", 1 / 400), ("selu", 1 / 400), (jnp.sin, 1 / 400)],
)
def test_the_initializer_suits_the_activation(key, activation, variance):
    w = MLP((400, 300), activation).init(key)[0].w
    assert abs(float(w.var()) / variance - 1) < 0.02
    assert not MLP((400, 300), activation).init(key)[0].b.any()


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_initializer_by_name(key, name):
    w = MLP((6, 4), initializer=name).init(key)[0].w
    assert w.shape == (6, 4)
    halved = MLP((6, 4), initializer=name).init(key, init_scale=0.5)[0].w
    np.testing.assert_array_equal(halved, 0.5 * w)


def test_equal_descriptions_are_one_static_value():
    one, two = MLP([np.int64(2), 3]), MLP(size for size in (2, 3))
    assert one == two and hash(one) == hash(two) and one != MLP((2, 4))
    assert MLP((2, 3), jax.nn.tanh) == MLP((2, 3), "tanh") != MLP((2, 3), jnp.sin)
    assert jax.tree.leaves(one) == []
    with pytest.raises(AttributeError):
        one.bias = False


def test_the_json_round_trip():
    mlp = MLP((4, 8, 8, 2), "tanh", False, "orthogonal", True, "layer", True, jnp.bfloat16, "float32")
    assert mlp.to_dict()["initializer"] == "orthogonal"
    assert MLP.from_dict(json.loads(json.dumps(mlp.to_dict()))) == mlp
    assert mlp.replace(activation="relu").initializer == "orthogonal"
    assert mlp.replace(sizes=(1, 1)).to_dict() == {**mlp.to_dict(), "sizes": [1, 1]}


def test_it_is_a_plain_dataclass():
    mlp = MLP((4, 8, 2), "tanh", norm="rms")
    assert dataclasses.replace(mlp, bias=False) == MLP((4, 8, 2), "tanh", bias=False, norm="rms")
    assert dataclasses.replace(mlp, initializer=None) == mlp
    assert [field.name for field in dataclasses.fields(mlp)][:5] == "sizes activation bias initializer dropout".split()
    assert pickle.loads(pickle.dumps(mlp)) == copy.deepcopy(mlp) == mlp
    with pytest.raises(ValueError, match="bias must be True or False; got 1"):
        dataclasses.replace(mlp, bias=1)


def test_the_initializers_first_name_still_serves():
    mlp = MLP((4, 8, 2), initializer="orthogonal")
    assert MLP((4, 8, 2), init="orthogonal") == MLP((4, 8, 2)).replace(init="orthogonal") == mlp
    older = {("init" if name == "initializer" else name): value for name, value in mlp.to_dict().items()}
    assert MLP.from_dict(older) == mlp


@pytest.mark.parametrize("norm", [None, "layer", "rms"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_counts_are_those_of_the_arrays(key, norm, bias):
    mlp = MLP((4, 8, 8, 2), norm=norm, bias=bias, param_dtype="bfloat16")
    leaves = jax.tree.leaves(mlp.init(key))
    assert mlp.parameter_count == sum(leaf.size for leaf in leaves)
    assert mlp.parameter_bytes == sum(leaf.nbytes for leaf in leaves)


def test_the_flops_are_those_that_xla_counts(key):
    mlp = MLP((64, 128, 10), "identity")
    compiled = jax.jit(mlp.apply).lower(mlp.init(key), jnp.ones(64)).compile()
    cost = compiled.cost_analysis()
    assert abs(cost["flops"] / mlp.forward_flops - 1) < 0.02


def test_printing():
    mlp = MLP((784, 256, 10), norm="rms")
    assert repr(mlp) == "MLP(sizes=(784, 256, 10), norm='rms')"
    assert str(mlp).splitlines() == [
        "MLP(sizes=(784, 256, 10), norm='rms')",
        "203,786 parameters, 815,144 bytes, 406,794 FLOPs an example",
        "layer  shapes",
        "0      w (784, 256)  b (256,)  scale (256,)",
        "1      w (256, 10)  b (10,)",
    ]
    assert repr(MLP((1, 1), jnp.sin)) == "MLP(sizes=(1, 1), activation=sin)"
