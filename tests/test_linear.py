"""One affine layer: the closed form, the partial derivatives, the fold; held to scikit-learn, SciPy and `jax.grad`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge

from jaxmlp import MLP, Layer, linear, losses


def table(n, inputs, outputs, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, inputs)) + 3
    return x, x @ rng.normal(size=(inputs, outputs)) + rng.normal(size=(n, outputs)) - 2


@pytest.mark.parametrize("l2", [0.0, 0.1, 10.0])
def test_least_squares_is_scikit_learns(x64, l2):
    x, y = table(50, 4, 3)
    layer = linear.least_squares(x, y, l2)
    model = (Ridge(l2, solver="svd") if l2 else LinearRegression()).fit(x, y)
    np.testing.assert_allclose(layer.w, model.coef_.T, rtol=1e-10)
    np.testing.assert_allclose(layer.b, model.intercept_, rtol=1e-10)


@pytest.mark.parametrize("shape", [(5, 9), (40, 6)])
def test_rank_deficient_input_gives_the_minimum_norm(x64, shape):
    x, y = table(*shape, 2)
    x[:, -1] = x[:, 0]  # two equal columns
    layer = linear.least_squares(x, y)
    w = scipy.linalg.lstsq(x - x.mean(0), y - y.mean(0), cond=1e-10)[0]
    np.testing.assert_allclose(layer.w, w, rtol=1e-8, atol=1e-10)
    constant = linear.least_squares(np.ones((4, 2)), np.arange(4.0)[:, None])
    np.testing.assert_allclose(constant.w, np.zeros((2, 1)))
    np.testing.assert_allclose(constant.b, [1.5])


@settings(max_examples=6)  # each shape compiles anew
@given(n=st.integers(1, 6), inputs=st.integers(1, 4), outputs=st.integers(1, 4), bias=st.booleans())
def test_gradients_are_those_of_the_mean_squared_error(n, inputs, outputs, bias):
    with jax.enable_x64(True):
        x, y = table(n, inputs, outputs)
        mlp = MLP((inputs, outputs), bias=bias)
        params = mlp.init(jax.random.key(0))
        by_jax = jax.grad(lambda p: losses.squared_error(mlp.apply(p, x), y).mean())(params)
        by_hand = linear.gradients(params, x, y)
        assert jax.tree.structure(by_hand) == jax.tree.structure(params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), by_hand, by_jax)
        assert isinstance(linear.gradients(params[0], x, y), Layer)


def test_the_gradient_vanishes_at_the_closed_form(x64):
    x, y = table(30, 3, 2)
    for leaf in jax.tree.leaves(linear.gradients(linear.least_squares(x, y), x, y)):
        np.testing.assert_allclose(leaf, np.zeros_like(leaf), atol=1e-10)


@settings(max_examples=6)
@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=6), bias=st.booleans())
def test_a_stack_folds_into_one_layer(sizes, bias):
    with jax.enable_x64(True):
        mlp = MLP(sizes, "identity", bias=bias)
        params = jax.tree.map(lambda p: p + 0.3, mlp.init(jax.random.key(1)))
        x = jax.random.normal(jax.random.key(2), (5, sizes[0]))
        folded = linear.compose(params)
        assert folded.w.shape == (sizes[0], sizes[-1])
        outputs = MLP((sizes[0], sizes[-1]), bias=bias).apply((folded,), x)
        np.testing.assert_allclose(outputs, mlp.apply(params, x), rtol=1e-10, atol=1e-10)


def test_a_fold_of_layers_with_and_without_bias():
    stack = (Layer(jnp.eye(2), jnp.ones(2)), Layer(2 * jnp.eye(2)))
    np.testing.assert_array_equal(linear.compose(stack).b, [2.0, 2.0])
    np.testing.assert_array_equal(linear.compose(stack[::-1]).b, [1.0, 1.0])


def test_a_fold_of_layers_of_two_dtypes_is_of_the_wider():
    stack = (Layer(2 * jnp.eye(2, dtype="bfloat16"), jnp.ones(2, "bfloat16")), Layer(jnp.eye(2), jnp.ones(2)))
    with jax.numpy_dtype_promotion("strict"):
        folded = linear.compose(stack)
    np.testing.assert_array_equal(folded.b, jnp.array([2.0, 2.0], "float32"), strict=True)


@pytest.mark.parametrize("scale", [1e30, 1e-25, 1e15])
def test_least_squares_at_any_scale(scale):
    x, y = table(50, 4, 3)
    right = LinearRegression().fit(x, y)
    narrow, wide = (x * scale).astype("f"), (y * scale).astype("f")
    for layer in (linear.least_squares(narrow, wide), jax.jit(linear.least_squares)(narrow, wide)):
        np.testing.assert_allclose(layer.w, right.coef_.T, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(np.float64(layer.b) / scale, right.intercept_, rtol=1e-3)
    ridge = linear.least_squares(narrow, y.astype("f"), np.float32(scale) ** 2 if scale == 1e15 else 0.0)
    right = Ridge(1.0 if scale == 1e15 else 0.0, solver="svd").fit(x, y)
    np.testing.assert_allclose(np.float64(ridge.w) * scale, right.coef_.T, rtol=1e-4, atol=1e-4)


def test_a_float64_table_is_centred_before_it_is_narrowed():
    seconds = 1.7e9 + 300 * np.arange(50.0)[:, None]
    layer = linear.least_squares(seconds, 2 * (seconds - 1.7e9))
    np.testing.assert_allclose(layer.w, [[2.0]], rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    x, y = jnp.full((3000, 1), 8, dtype), jnp.full((3000, 1), 16, dtype)
    layer = linear.gradients(Layer(jnp.full((1, 1), 4, dtype), jnp.zeros(1, dtype)), x, y)
    assert layer.w.dtype == dtype and layer.w[0, 0] == 256 and layer.b[0] == 32
    assert linear.least_squares(x, y.astype(jnp.float32)).b[0] == 16


def test_an_affine_map_takes_arrays_of_its_width():
    layer = linear.Layer(jnp.eye(2), jnp.ones(2))
    for x in ([3, 4], np.array([3, 4], ">i4"), np.array([3.0, 4.0], np.longdouble)):
        np.testing.assert_array_equal(linear.affine(layer, x), [4, 5])
    for x, words in (
        (np.array([1j, 1]), "x must hold numbers; got complex numbers"),
        (np.ma.masked_array([1.0, 2.0]), "x must not be masked"),
        (np.array([2**62, 0]), "x must fit int32"),
        (np.array([1e39, 0]), "x must fit float32"),
        (np.ones(3, "f"), r"x must have shape \(..., 2\) for this layer; got float32 of shape \(3,\)"),
        (np.float32(1), r"x must have shape \(..., 2\) for this layer; got float32 of shape \(\)"),
    ):
        with pytest.raises(ValueError, match=words):
            linear.affine(layer, x)
    with pytest.raises(ValueError, match="layer must be a Layer; got tuple"):
        linear.affine((layer,), np.ones(2, "f"))
