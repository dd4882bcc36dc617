"""Outputs and targets on their way into a loss: one shape, one dtype, wide enough to be summed; and its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxmlp import _check
from jaxmlp.types import Number, Numeric


def alike(outputs: Numeric, targets: Numeric) -> tuple[Array, Array]:
    """Check equal shapes and float dtypes; return both in one dtype of at least 32 bits."""
    _check.floating("outputs", outputs)
    _check.floating("targets", targets)
    check_same_shape(outputs, targets)
    outputs = wide(outputs)
    return outputs, jnp.asarray(targets, outputs.dtype)


def check_same_shape(outputs: Numeric, targets: Numeric) -> None:
    """Raise unless outputs and targets have one shape: (N,) against (N, 1) would broadcast to (N, N)."""
    if not _check.is_array(targets) or outputs.shape != targets.shape or outputs.ndim < 1:
        hint = ""
        if _check.is_array(targets) and (targets.ndim, outputs.ndim) in ((1, 2), (2, 1)):
            hint = "; a column is targets[:, None]" if targets.ndim == 1 else "; a column of outputs is outputs[:, 0]"
        raise ValueError(
            f"outputs and targets must have one shape (batch, d); got {_check.describe(outputs)} and "
            f"{_check.describe(targets)}{hint}"
        )


def check_probabilities(targets: Numeric) -> None:
    """Raise where targets (batch, classes) are known and are no distributions over the classes."""
    _check.within("targets of shape (batch, classes)", targets, 0, 1)
    known = _check.on_host(targets)
    if known is not None and known.size and not np.allclose(known.astype(np.float32).sum(-1), 1, atol=1e-3):
        raise ValueError(
            "targets of shape (batch, classes) must sum to one over the classes; for many labels an example "
            "use binary_cross_entropy"
        )


def number(
    what: str, value: object, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Raise unless `value`, a number or an array of them, is finite and lies in [low, high], where it is known.

    Seen as the program gets it: a positive number that 32 bits take for zero is zero.
    """
    several = isinstance(value, list | tuple) and len(value) > 0 and all(map(_check.is_number, value))
    if not several and not _check.is_number(value):
        raise ValueError(f"{what} must be a number; got {_check.describe(value)}")
    if isinstance(value, Tracer):
        return
    known = np.asarray(value)
    if not (jnp.issubdtype(known.dtype, jnp.floating) or jnp.issubdtype(known.dtype, jnp.integer)):
        raise ValueError(f"{what} must be a number; got {_check.describe(value)}")
    with np.errstate(over="ignore"):
        seen = known.astype(jax.dtypes.canonicalize_dtype(np.float64))
    seen = np.where(np.abs(seen) < np.finfo(seen.dtype).tiny, 0, seen)  # as the processors do
    inside = np.isfinite(seen) & ((seen > low) if open_low else (seen >= low))
    inside &= (seen < high) if open_high else (seen <= high)
    if inside.all():
        return
    got = known[~inside].flat[0]
    if high < np.inf:
        raise ValueError(
            f"{what} must lie in {'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}; got {got}"
        )
    if got < low and not open_low:
        raise ValueError(f"{what} must not be negative; got {got}")
    raise ValueError(f"{what} must be finite and {'above' if open_low else 'at least'} {low}; got {got}")


def spread(what: str, value: Number, like: Array) -> Array:
    """Return a number, or one for each of the d outputs of `like` (..., d), as an array that goes with it."""
    each = jnp.asarray(value, like.dtype)
    if each.ndim == 0:
        return each
    ends = zip(each.shape[::-1], like.shape[::-1], strict=False)
    if each.ndim > like.ndim or not all(n in (1, m) for n, m in ends):
        raise ValueError(f"{what} must be one number, or one for each output; got {_check.describe(value)}")
    return jnp.broadcast_to(each, like.shape)


def times(factor: Array, values: Array) -> Array:
    """Return factor * values where the factor is not zero, else zero, also where the values are infinite."""
    counts = factor != 0
    return factor * jnp.where(counts, values, jnp.zeros_like(values))


@jax.custom_jvp
def yes_or_no(logits: Array, targets: Array) -> Array:
    """Return the binary cross entropy of each logit, also of an infinite one: 0 where it is right, else infinite.

    The derivative is Optax's: a choice within it would be fused with it and round otherwise.
    """
    return _at_the_ends(logits, targets, optax.sigmoid_binary_cross_entropy(logits, targets))


@yes_or_no.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    values, slope = jax.jvp(optax.sigmoid_binary_cross_entropy, primals, tangents)
    return _at_the_ends(*primals, values), slope


def _at_the_ends(logits: Array, targets: Array, values: Array) -> Array:
    """Zero times the log of zero is zero."""
    right = jnp.where(logits > 0, targets == 1, targets == 0)
    ends = jnp.where(right, jnp.zeros_like(values), jnp.full_like(values, jnp.inf))
    return jnp.where(jnp.isinf(logits), ends, values)


def wide(values: ArrayLike) -> Array:
    """Bring integers and half precision to float32: a sum of squares overflows or vanishes in 16 bits.

    >>> wide(jnp.ones(1, jnp.bfloat16)).dtype, wide(jnp.ones(1, jnp.float32)).dtype
    (dtype('float32'), dtype('float32'))
    """
    values = jnp.asarray(values)
    keep = jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize >= 4
    return values if keep else values.astype(jnp.float32)


def widest(*values: ArrayLike) -> np.dtype:
    """Return the one dtype, of at least 32 bits, that holds floats of all of these."""
    return max((wide(a).dtype for a in values), key=lambda dtype: dtype.itemsize)


def sum_outputs(values: Array) -> Array:
    """Return the sum over all axes but the first, that of the examples."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
