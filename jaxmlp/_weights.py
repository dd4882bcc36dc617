"""What examples count: weights of any scale and dtype, as shares that sum to one.

A weight says how much an example counts beside the others, so all weights times one number mean the same. Sums of them
must neither overflow nor vanish nor round in half precision: they are brought near one first, by a power of two, which
changes no bit of the result; weights of ordinary size stay as they are.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxmlp import _check
from jaxmlp._targets import times
from jaxmlp.types import Numeric

_ORDINARY = 40  # powers of two about 1: squares of such numbers, and sums of a billion of them, are far from the ends


def unit(values: Array, axis: int | None = None) -> Array:
    """Return the power of two at the largest magnitude along `axis`, which stays with length 1.

    It is 1 where the magnitudes are ordinary, so that a division by it changes nothing, and no derivative sees it.
    """
    return _power(_exponent(_bits(values) & jnp.iinfo(_kind(values)).max, values.dtype, axis), values.dtype)


def scaled(weight: Array) -> tuple[Array, Array]:
    """Return weights (N,) near one, and the power of two () that they were divided by."""
    if not jnp.issubdtype(weight.dtype, jnp.floating):
        return weight, jnp.ones((), jnp.int32)
    dtype = weight.dtype if weight.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
    weight = weight.astype(dtype)
    # Numbers that are not negative are ordered as their bits are; a comparison of floats takes subnormals for zeros.
    bits = _bits(weight)
    exponent = _exponent(bits, dtype, None)
    power = _power(exponent, dtype)
    smallest = jnp.asarray(jnp.finfo(dtype).smallest_subnormal, dtype)
    subnormal = jnp.broadcast_to(exponent == 0, weight.shape)
    near = jnp.where(subnormal, bits.astype(dtype), weight / jnp.broadcast_to(power, weight.shape))
    return near, jnp.where(exponent == 0, smallest, power).reshape(())


def near(weight: Numeric, n: int) -> tuple[Array, Array]:
    """Return weights (n,) near one, and the power of two () that they were divided by.

    Raises:
      ValueError: for another shape, and, where they are known, for negative weights, NaN and infinity.
    """
    return scaled(_near(weight, n))


def checked(weight: Numeric, n: int, dtype: DTypeLike) -> Array:
    """Return weights (n,) near one, in a dtype of at least 32 bits.

    Raises:
      ValueError: for another shape, and, where they are known, for negative weights, NaN and infinity.
    """
    return scaled(_near(weight, n))[0].astype(dtype)


def raw(weight: Numeric, n: int, dtype: DTypeLike) -> Array:
    """Return weights (n,) as they are, checked."""
    known(weight, n)
    return jnp.asarray(weight).astype(dtype)


def shares(weight: Numeric | None, n: int, dtype: DTypeLike) -> Array:
    """Return each example's share of the whole, (n,), summing to one; all zero where all weights are."""
    if weight is None:
        return jnp.full((n,), 1 / max(n, 1), dtype)
    return parts(checked(weight, n, dtype))


def parts(near: Array) -> Array:
    """Return weights near one as shares of their sum; all zero where all weights are."""
    total = jnp.sum(near)
    return near / jnp.where(total > 0, total, jnp.ones_like(total))


def sums(hit: Array, weight: Numeric | None, dtype: DTypeLike) -> Array:
    """Return the sum over the examples of truth values (batch, ...) -> (...), exact where no weights are given."""
    if weight is None:
        return jnp.sum(hit, axis=0, dtype=jnp.int32).astype(dtype)
    each = checked(weight, len(hit), dtype)
    each = jnp.broadcast_to(each.reshape(-1, *[1] * (hit.ndim - 1)), hit.shape)
    return jnp.sum(jnp.where(hit, each, jnp.zeros_like(each)), axis=0)


def portion(hit: Array, weight: Numeric | None, dtype: DTypeLike = jnp.float32) -> Array:
    """Return hits / (hits + misses) of truth values (batch,) or (batch, d), weighted; zero where all weights are.

    Exactly one where all are hits. The sum of n times 1/n that `average` makes may be 1.0000001, and so may a quotient
    by a number that XLA knows, since it multiplies by the reciprocal; `average` stays as it is, because its rounding is
    in the losses of every run.
    """
    hits, misses = (sums(which, weight, dtype).sum() for which in (hit, ~hit))
    total = hits + misses
    return hits / jnp.where(total > 0, total, jnp.ones_like(total))


def mean(values: Array, share: Array) -> Array:
    """Return sum_i share_i value_i of values (batch,); what has no share counts nothing, also where it is infinite."""
    return jnp.sum(times(share, values))


def columns(values: Array, share: Array) -> Array:
    """Return the mean of each column of values (batch, d)."""
    return jax.vmap(mean, (1, None))(values, share)


def counts(weight: Numeric | None, n: int) -> Array:
    """Tell which of n examples count at all, (n,)."""
    return jnp.ones(n, bool) if weight is None else checked(weight, n, jnp.float32) > 0


def known(weight: Numeric, n: int) -> np.ndarray | None:
    """Return weights (n,) near one in float64, where they are known on the host; None while JAX traces them.

    Raises:
      ValueError: for another shape, and for negative weights, NaN and infinity.
    """
    if not _check.is_array(weight) or weight.shape != (n,):
        raise ValueError(f"weight must have shape ({n},), one an example; got {_check.describe(weight)}")
    values = _check.on_host(weight)
    if values is None:
        return None
    values = values.astype(np.float64)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise ValueError(f"weight must not be negative, NaN or infinite; got {values[bad][0]}")
    power = np.frexp(values.max(initial=0))[1]
    return values if abs(power) <= _ORDINARY else np.ldexp(values, -power)


def check_of_stream(weight: Numeric | None) -> None:
    """Raise unless a batch's weights add up with those of batches that nobody has seen yet.

    Weights in memory are all brought near one by one power of two; a stream would have to be read twice for it.
    """
    largest = 0.0 if weight is None else float(np.max(np.asarray(weight, np.float64), initial=0))
    if largest and not 1e-30 <= largest <= 1e30:
        raise ValueError(
            f"weights of a stream must be zero or near one, the largest of a batch in [1e-30, 1e30]: their sum over an "
            f"epoch is a float32; got {largest:g}; divide them all by one number: only their ratios count"
        )


def known_counts(weight: Numeric | None, n: int) -> np.ndarray | None:
    """Tell on the host which of n examples count at all, where the weights are known."""
    if weight is None:
        return np.ones(n, bool)
    values = known(weight, n)
    return None if values is None else values > 0


def _near(weight: Numeric, n: int) -> Array:
    """Return weights near one, before they are narrowed where they are known: float64 holds what float32 cannot."""
    values = known(weight, n)
    return (
        jnp.asarray(weight) if values is None else jnp.asarray(values.astype(jax.dtypes.canonicalize_dtype(np.float64)))
    )


def _kind(values: Array) -> DTypeLike:
    return jnp.int64 if values.dtype.itemsize == 8 else jnp.int32


def _bits(values: Array) -> Array:
    return jax.lax.bitcast_convert_type(jax.lax.stop_gradient(values), _kind(values))


def _exponent(bits: Array, dtype: DTypeLike, axis: int | None) -> Array:
    """Return the biased exponent of the largest of non-negative numbers; 0 says zero or subnormal."""
    lowest = jnp.zeros((), bits.dtype)
    return jnp.max(bits, axis=axis, keepdims=True, initial=lowest) >> jnp.finfo(dtype).nmant


def _power(exponent: Array, dtype: DTypeLike) -> Array:
    info = jnp.finfo(dtype)
    extreme = (jnp.abs(exponent - (info.maxexp - 1)) > _ORDINARY) & (exponent > 0)
    # Compilers divide by the reciprocal, and that of the largest powers would be subnormal.
    power = jax.lax.bitcast_convert_type(jnp.minimum(exponent, 2 * info.maxexp - 4) << info.nmant, dtype)
    return jnp.where(extreme, power, jnp.ones_like(power))
