"""The product x w of a layer, in two forms that have derivatives of their own because JAX's would be slower."""

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from jaxmlp._eager import compile_once

SHORT = 2**16  # numbers of a batch that stay in the cache while they are transposed


def matmul(x: Array, w: Array, dtype: DTypeLike | None = None) -> Array:
    """Return x @ w in the dtype of w, its operands rounded to `dtype` first where one is given.

    Shapes: x (..., in), w (in, out) -> (..., out).
    """
    if dtype is not None and dtype != w.dtype:
        y: Any = _mixed(x.reshape(-1, x.shape[-1]), w, dtype)
        return y.reshape(*x.shape[:-1], -1)
    x = x.astype(w.dtype)
    known = isinstance(x.size, int)  # the size of an exported batch is a symbol, which cannot be compared
    return _short(x, w) if x.ndim == 2 and known and x.size <= SHORT else x @ w


@jax.custom_jvp
def _short(x: Array, w: Array) -> Array:
    """Return x @ w, whose derivative in w is, on a CPU, a product with x' as it lies in memory.

    The same numbers as JAX's own derivative, which reads x by columns: that costs small nets a tenth of their step, and
    populations of them a fifth.
    """
    return x @ w


def _short_jvp(primals: Any, tangents: Any) -> tuple[Array, Any]:
    (x, w), (dx, dw) = primals, tangents
    y = x @ w
    # Products with a tangent that is zero for certain are left out: of x in a gradient in w, and the other way round.
    parts = [] if isinstance(dx, SymbolicZero) else [dx @ w]
    if not isinstance(dw, SymbolicZero):
        # Reverse mode transposes this product into dL/dw = x' dL/dy, where x' is then read by rows.
        parts.append(jax.lax.dot_general(_columns(x), dw, (((0,), (0,)), ((), ()))))
    return y, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(y)


_short.defjvp(_short_jvp, symbolic_zeros=True)


@compile_once()
def _columns(x: Array) -> Array:
    """Return x' (in, batch); on a CPU behind a barrier, without which XLA would read x by columns after all."""
    return jax.lax.platform_dependent(x.T, cpu=jax.lax.optimization_barrier, default=lambda a: a)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed(x: Array, w: Array, dtype: DTypeLike | None) -> Array:
    """Return x @ w with operands in `dtype` and the sum in that of w, and so its derivatives.

    JAX alone would multiply the wide gradient of y by narrow operands, which no hardware does: it widens them all.
    The price is forward mode: `jax.jvp` and `jax.jacfwd` raise through a net with a `dtype` of its own.
    """
    return jnp.matmul(x.astype(dtype), w.astype(dtype), preferred_element_type=w.dtype)


def _mixed_forward(x: Array, w: Array, dtype: DTypeLike | None) -> tuple[Array, Any]:
    narrow = x.astype(dtype), w.astype(dtype)
    # The operands are kept narrow, which halves what the backward pass holds; the zero remembers the dtype of x.
    return jnp.matmul(*narrow, preferred_element_type=w.dtype), (*narrow, jnp.zeros((), x.dtype))


def _mixed_backward(dtype: DTypeLike | None, kept: Any, dy: Array) -> tuple[Array, Array]:
    x, w, like = kept
    narrow = dy.astype(dtype)
    dx = jnp.matmul(narrow, w.T, preferred_element_type=dy.dtype).astype(like.dtype)
    return dx, jnp.matmul(x.T, narrow, preferred_element_type=dy.dtype)


_mixed.defvjp(_mixed_forward, _mixed_backward)
