"""After training: chunks give what all rows at once give, and NumPy alone gives what JAX gives."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlp import MLP, serving
from jaxmlp.layer import ACTIVATIONS

X = 3 * np.random.default_rng(0).normal(size=(11, 5)).astype("f")


@pytest.mark.parametrize("norm", [None, "layer", "rms"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_numpy_alone_gives_the_same_outputs(activation, norm, key):
    mlp = MLP((5, 7, 7, 3), activation, norm=norm, residual=True)
    params = jax.tree.map(lambda a: a + 0.1, mlp.init(key))  # so that biases and shifts count
    forward = pickle.loads(pickle.dumps(serving.in_numpy(mlp, params)))
    outputs = forward(X)
    assert isinstance(outputs, np.ndarray) and outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, mlp.apply(params, X), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(forward(X[0]), outputs[0], rtol=2e-5, atol=2e-5)


def test_numpy_alone_answers_in_the_parameters_dtype(key):
    mlp = MLP((5, 7, 3), "tanh")
    forward = serving.in_numpy(mlp, mlp.init(key))
    for x in (X.astype("f8"), X.astype("i4").tolist()):
        assert forward(x).dtype == np.float32
    np.testing.assert_array_equal(forward(X.astype("f8")), forward(X))


def test_numpy_alone_without_biases(key):
    mlp = MLP((5, 7, 3), bias=False)
    params = mlp.init(key)
    np.testing.assert_allclose(serving.in_numpy(mlp, params)(X), mlp.apply(params, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 4, 11, 1000])
def test_chunks_give_what_all_rows_give(chunk, key):
    mlp = MLP((5, 7, 3), dropout=True)
    params = mlp.init(key)
    np.testing.assert_allclose(serving.predict(mlp, params, X, chunk=chunk), mlp.apply(params, X), rtol=1e-5, atol=1e-6)


class Noisy:
    """A model of a user's own, which draws one noise for every row and one for each, and returns two outputs."""

    def init(self, key):
        return jnp.ones(5)

    def apply(self, params, x, *, rng=None):
        if rng is None:
            return {"sum": x.sum(-1), "x": (x,)}
        one, each = jax.random.split(rng)
        shared = params + jax.random.normal(one, params.shape)
        return {"sum": (x * shared[None]).sum(-1), "x": (x + jax.random.normal(each, x.shape),)}


def test_what_is_drawn_does_not_depend_on_the_chunk(key):
    """Equal rows have masks of their own, and all outputs are those of `apply` on all rows, to the bit."""
    mlp = MLP((5, 30, 30, 3), "tanh", dropout=True, scan=True)
    params = mlp.init(key)
    rows = jnp.tile(X[:1], (11, 1))
    numbers = {"key": jax.random.key(1), "dropout_rate": 0.2}
    wanted = jax.jit(mlp.apply)(params, rows, **numbers)
    assert len(np.unique(np.asarray(wanted), axis=0)) == 11
    for chunk in (1, 2, 7, 11, 1000, None):
        np.testing.assert_array_equal(serving.predict(mlp, params, rows, chunk=chunk, **numbers), wanted)


@pytest.mark.parametrize("numbers", [{}, {"rng": jax.random.key(2)}])
def test_chunks_of_a_users_own_model_give_what_all_rows_give(numbers):
    wanted = jax.jit(Noisy().apply)(jnp.ones(5), X, **numbers)
    for chunk in (1, 4, None):
        outputs = serving.predict(Noisy(), jnp.ones(5), X, chunk=chunk, **numbers)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), outputs, wanted)


def test_outputs_without_rows_are_named():
    class Mean(Noisy):
        def apply(self, params, x):
            return x.mean(0)

    for chunk in (4, None):
        with pytest.raises(ValueError, match="with the rows of x on their first axis"):
            serving.predict(Mean(), jnp.ones(5), X, chunk=chunk)


def test_no_rows_have_no_outputs(key):
    mlp = MLP((5, 3))
    assert serving.predict(mlp, mlp.init(key), X[:0]).shape == (0, 3)


def test_chunks_are_one_loop(key):
    """Sixty chunks compile as one: a second network's program is no longer for more rows."""
    mlp = MLP((5, 7, 3))
    program = jax.make_jaxpr(lambda p, x: serving.predict(mlp, p, x, chunk=2))
    assert str(program(mlp.init(key), X[:4])).count("dot_general") == 2
    assert str(program(mlp.init(key), jnp.tile(X[:10], (12, 1)))).count("dot_general") == 2


def test_narrow_products_sum_wide_forward_and_backward(key):
    """By hand: the operands of all three products are rounded to bfloat16, their sums are not."""
    mlp = MLP((5, 3), dtype="bfloat16")
    params = mlp.init(key)
    dy = np.random.default_rng(1).normal(size=(11, 3)).astype("f")

    def narrow(a):
        return np.asarray(jnp.asarray(a).astype(jnp.bfloat16).astype(jnp.float32))

    def objective(params, x):
        return jnp.sum(mlp.apply(params, x) * dy)

    (grads,), dx = jax.grad(objective, argnums=(0, 1))(params, X)
    np.testing.assert_allclose(mlp.apply(params, X), narrow(X) @ narrow(params[0].w), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads.w, narrow(X).T @ narrow(dy), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads.b, dy.sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, narrow(dy) @ narrow(params[0].w).T, rtol=1e-5, atol=1e-5)


def test_parameters_of_numpy_are_taken_as_the_numbers_that_they_are():
    """`jit` reads the bytes of another byte order as if they were its own."""
    mlp, x = MLP((3, 1)), np.ones((2, 3), "f")
    (layer,) = mlp.init(jax.random.key(0))
    swapped = (layer._replace(w=np.asarray(layer.w, ">f4")),)
    np.testing.assert_array_equal(serving.predict(mlp, swapped, x), serving.predict(mlp, (layer,), x))
    with pytest.raises(ValueError, match="params.* must not be masked"):
        serving.predict(mlp, (layer._replace(w=np.ma.masked_array(layer.w)),), x)
    with pytest.raises(ValueError, match="params.* must fit float32"):
        serving.predict(mlp, (layer._replace(w=np.full((3, 1), 1e39)),), x)
    with pytest.raises(ValueError, match="params.0.w must not be masked"):
        mlp.apply((layer._replace(w=np.ma.masked_array(layer.w)),), x)
    np.testing.assert_array_equal(mlp.apply(swapped, x), mlp.apply((layer,), x))
