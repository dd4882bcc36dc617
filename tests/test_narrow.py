"""Products of narrow operands with wide sums, `MLP(dtype=)`, differentiated forward, backward and both in turn."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxmlp import MLP
from jaxmlp._matmul import matmul

KEY = jax.random.key(0)
DTYPES = ["bfloat16", "float16"]
X, W, DX, DW, DDX, DDW = (
    jax.random.normal(key, shape) for key, shape in zip(jax.random.split(KEY, 6), [(7, 5), (5, 3)] * 3, strict=True)
)


def by_hand(dtype):
    """The product of rounded operands whose sum is not."""

    def product(x, w):
        dims = (((1,), (0,)), ((), ()))
        return lax.dot_general(x.astype(dtype), w.astype(dtype), dims, preferred_element_type=jnp.float32)

    return product


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_derivative_is_made_of_such_products(dtype):
    dot, dy = by_hand(dtype), jnp.cos(jnp.arange(21.0)).reshape(7, 3)

    def product(x, w):
        return matmul(x, w, dtype)

    def forward(x, w):
        return jax.jvp(product, (x, w), (DX, DW))[1]

    equal = np.testing.assert_array_equal
    y, slope = jax.jvp(product, (X, W), (DX, DW))
    equal(y, dot(X, W))
    equal(slope, dot(DX, W) + dot(X, DW))
    equal(jax.jvp(forward, (X, W), (DDX, DDW))[1], dot(DX, DDW) + dot(DDX, DW))
    _, linear = jax.linearize(product, X, W)
    equal(linear(DX, DW), slope)
    for dx, dw in (jax.vjp(product, X, W)[1](dy), jax.linear_transpose(linear, X, W)(dy)):
        equal(dx, dot(dy, W.T))
        equal(dw, dot(X.T, dy))


def test_of_each_operand_alone_and_in_its_own_dtype():
    half = X.astype(jnp.float16)
    np.testing.assert_array_equal(
        jax.jvp(lambda x: matmul(x, W, "bfloat16"), (X,), (DX,))[1], by_hand("bfloat16")(DX, W)
    )
    assert jax.jvp(lambda x: matmul(x, W, "bfloat16"), (half,), (half,))[1].dtype == jnp.float32
    assert jax.grad(lambda x: matmul(x, W, "bfloat16").sum())(half).dtype == jnp.float16
    whole = jnp.arange(35).reshape(7, 5)
    assert jax.jvp(lambda w: matmul(whole, w, "bfloat16"), (W,), (DW,))[1].shape == (7, 3)
    constant, none = jax.jvp(lambda t: matmul(X, W, "bfloat16") + 0 * t, (1.0,), (1.0,))
    np.testing.assert_array_equal(none, jnp.zeros_like(constant))


def near(found, expected, tolerance):
    found, expected = ravel_pytree(found)[0], ravel_pytree(expected)[0]
    assert jnp.linalg.norm(found - expected) <= tolerance * jnp.linalg.norm(expected)


@pytest.mark.parametrize("scan", [False, True])
def test_forward_and_backward_and_both_in_turn_are_those_of_a_wide_net(scan):
    """In float16: not every processor multiplies stacks of bfloat16."""
    wide = MLP((5, 8, 8, 8, 3), "tanh", norm="layer", scan=scan)
    narrow, params = wide.replace(dtype="float16"), wide.init(KEY)
    along = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)
    rounding = 8 * float(jnp.finfo(jnp.float16).eps)

    def dot(a, b):
        return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    def all_of(net):
        def energy(params):
            return jnp.sin(net.apply(params, X)).sum()

        def slope(params):
            return jax.jvp(energy, (params,), (along,))[1]

        return (
            jax.jvp(jax.grad(energy), (params,), (along,))[1],
            jax.grad(slope)(params),
            jax.grad(lambda p: dot(jax.grad(energy)(p), along))(params),
            jax.hessian(lambda x: jnp.sin(net.apply(params, x)).sum())(X[0]),
            jax.jacfwd(net.apply, argnums=1)(params, X[0]),
            jax.jacrev(net.apply, argnums=1)(params, X[0]),
        )

    found, expected = jax.jit(all_of, static_argnums=0)(narrow), jax.jit(all_of, static_argnums=0)(wide)
    for one, other in zip(found, expected, strict=True):
        near(one, other, rounding)
    near(found[0], found[1], rounding)
    near(found[4], found[5], rounding)


def test_members_and_the_values_of_each():
    """A matrix for each of ten points for each of three members, and a gradient through the points' sum of squares."""
    net = MLP((5, 4, 2), "tanh", dtype="float16")
    params = jax.vmap(net.init)(jax.random.split(KEY, 3))

    def slopes(params):
        return jax.vmap(jax.jacfwd(net.apply, argnums=1), (None, 0))(params, X)

    def energy(params):
        return jnp.square(slopes(params)).sum()

    together, grads = jax.jit(jax.vmap(lambda p: (slopes(p), jax.grad(energy)(p))))(params)
    for i in range(3):
        alone = jax.tree.map(lambda p, i=i: p[i], params)
        near(jax.tree.map(lambda g, i=i: g[i], grads), jax.grad(energy)(alone), 4e-3)
        for j, x in enumerate(X):
            near(together[i, j], jax.jacrev(net.apply, argnums=1)(alone, x), 4e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_operand_is_wide_in_any_order(dtype):
    net = MLP((5, 8, 3), "tanh", dtype=dtype)
    params, short = net.init(KEY), {"bfloat16": "bf16", "float16": "f16"}[dtype]

    def products(function):
        text = jax.jit(function).lower(params).as_text()
        return re.findall(r"dot_general.*?: \((tensor<\S+>), (tensor<\S+>)\) -> (tensor<\S+>)", text)

    def energy(params):
        return jnp.sin(net.apply(params, X)).sum()

    backward = products(jax.grad(energy))
    forward = products(lambda p: jax.jvp(energy, (p,), (p,)))
    twice = products(lambda p: jax.jvp(jax.grad(energy), (p,), (p,)))
    assert (len(backward), len(forward), len(twice)) == (5, 5, 13)
    for one, two, out in backward + forward + twice:
        assert short in one and short in two and "xf32" in out
