"""The product x w of a layer, in two forms that have derivatives of their own because JAX's would be slower."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import DTypeLike

from jaxmlp._eager import compile_once
from jaxmlp._varying import vary_as

SHORT = 2**16  # numbers of a batch that stay in the cache while they are transposed
Turned = tuple[bool, bool]
Mapped = tuple[tuple[int | None, int | None, int | None], ...]


def matmul(x: Array, w: Array, dtype: DTypeLike | None = None) -> Array:
    """Return x @ w in the dtype of w, its operands rounded to `dtype` first where one is given.

    Shapes: x (..., in), w (in, out) -> (..., out).
    """
    if dtype is not None and dtype != w.dtype:
        product = _plain if _in_jet(x, w) else _mixed
        y: Any = product(x.reshape(-1, x.shape[-1]), w, dtype)
        return y.reshape(*x.shape[:-1], -1)
    x = x.astype(w.dtype)
    known = isinstance(x.size, int)  # the size of an exported batch is a symbol, which cannot be compared
    return _short(x, w) if x.ndim == 2 and known and x.size <= SHORT and not _in_jet(x, w) else x @ w


def _in_jet(*operands: Array) -> bool:
    """Tell whether `jax.experimental.jet` is at work, which fails in every function with derivatives of its own."""
    return any(type(operand).__name__ == "JetTracer" for operand in operands)


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


def _plain(x: Array, w: Array, dtype: DTypeLike) -> Array:
    """Return x @ w with operands in `dtype` and the sum in that of w."""
    return jnp.matmul(x.astype(dtype), w.astype(dtype), preferred_element_type=w.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _mixed(x: Array, w: Array, dtype: DTypeLike) -> Array:
    """Return x @ w with operands in `dtype` and the sum in that of w, and so in derivatives of any order.

    JAX alone would multiply the wide gradient of y by narrow operands, which no hardware does: it widens them all.
    """
    return _plain(x, w, dtype)


def _mixed_jvp(dtype: DTypeLike, primals: Any, tangents: Any) -> tuple[Array, Any]:
    (x, w), (dx, dw) = primals, tangents
    kept, wide = (x.astype(dtype), w.astype(dtype)), w.dtype  # narrow, which halves what the backward pass holds
    y = jnp.matmul(*kept, preferred_element_type=wide)
    how = {"turned": (False, False), "mapped": (), "dtype": jnp.dtype(dtype), "wide": wide}
    parts = [] if isinstance(dx, SymbolicZero) else [_narrow(dx.astype(wide), kept[1], **how)]
    if not isinstance(dw, SymbolicZero):
        parts.append(_narrow(kept[0], dw, **how))
    return y, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(y)


_mixed.defjvp(_mixed_jvp, symbolic_zeros=True)

# The product of two matrices rounded to `dtype`, its sum in `wide`, each matrix `turned` first or not. Its transposes
# are such products too, which is why it is a primitive: JAX's transpose of a rounding rounds the sum, not the operand.
# `mapped` has the axes of each `vmap` around it, in a, in b and in y, the inner first; what y has not is summed over.
_product = Primitive("narrow_product")


def _narrow(a: Array, b: Array, **how: Any) -> Array:
    return _product.bind(*vary_as((a, b)), **how)


@_product.def_impl
def _rounded(a: Array, b: Array, *, turned: Turned, mapped: Mapped, dtype: Any, wide: Any) -> Array:
    def product(a: Array, b: Array) -> Array:
        a, b = (m.astype(dtype) for m in (a, b))
        return jnp.matmul(a.T if turned[0] else a, b.T if turned[1] else b, preferred_element_type=wide)

    for in_a, in_b, in_y in mapped:
        inner = jax.vmap(product, (in_a, in_b), in_y or 0)
        product = inner if in_y is not None else lambda a, b, inner=inner: inner(a, b).sum(0)
    return product(a, b)


def _for_a(dy: Array, a: Any, b: Array, *, turned: Turned, mapped: Mapped, **dtypes: Any) -> Array:
    """Return dL/da: of y = a b it is dy b', of y = a' b it is b dy'."""
    if turned[0]:
        operands, turned = (b, dy), (turned[1], True)
        mapped = tuple((in_b, in_y, in_a) for in_a, in_b, in_y in mapped)
    else:
        operands, turned = (dy, b), (False, not turned[1])
        mapped = tuple((in_y, in_b, in_a) for in_a, in_b, in_y in mapped)
    return _narrow(*operands, turned=turned, mapped=mapped, **dtypes).astype(a.aval.dtype)


def _for_b(dy: Array, a: Array, b: Any, *, turned: Turned, mapped: Mapped, **dtypes: Any) -> Array:
    """Return dL/db: of y = a b it is a' dy, of y = a b' it is dy' a."""
    if turned[1]:
        operands, turned = (dy, a), (True, turned[0])
        mapped = tuple((in_y, in_a, in_b) for in_a, in_b, in_y in mapped)
    else:
        operands, turned = (a, dy), (not turned[0], False)
        mapped = tuple((in_a, in_y, in_b) for in_a, in_b, in_y in mapped)
    return _narrow(*operands, turned=turned, mapped=mapped, **dtypes).astype(b.aval.dtype)


def _batched(operands: Any, axes: Any, *, mapped: Mapped, **how: Any) -> tuple[Array, int]:
    return _product.bind(*operands, mapped=(*mapped, (*axes, 0)), **how), 0


def _shape(a: Any, b: Any, **how: Any) -> Any:
    return jax.make_jaxpr(functools.partial(_rounded, **how))(a, b).out_avals[0]


_product.def_abstract_eval(_shape)
ad.defbilinear(_product, _for_a, _for_b)
batching.primitive_batchers[_product] = _batched
mlir.register_lowering(_product, mlir.lower_fun(_rounded, multiple_results=False))
