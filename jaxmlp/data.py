"""From a table to batches: standardise, split, fold, and the order of an epoch as a pure function of a key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import DTypeLike

from jaxmlp import _arguments, _arrays, _check, _weights
from jaxmlp._arrays import taking
from jaxmlp._idx import read_idx as read_idx
from jaxmlp._mesh import on_automatic_axes
from jaxmlp._order import Order as Order
from jaxmlp._order import Rows as Rows
from jaxmlp._order import epoch_order as epoch_order
from jaxmlp._order import pick as pick
from jaxmlp._order import shuffle as shuffle
from jaxmlp._order import steps_per_epoch as steps_per_epoch
from jaxmlp._order import take as take
from jaxmlp._targets import wide, widest
from jaxmlp.types import Numeric


class Statistics(NamedTuple):
    """Mean and standard deviation of each column: NumPy's float64 where the table is and JAX has 32 bits."""

    mean: Numeric  # (d,)
    std: Numeric  # (d,)


@taking("x", "weight", narrowed=False)
def statistics(x: Numeric, weight: Numeric | None = None) -> Statistics:
    """Return mean and standard deviation of the columns of x (N, d), weighted by `weight` (N,) where given.

    They are computed in float64 on the host where x is known, and otherwise so that squares neither overflow nor
    vanish. A constant column gets a deviation of 1, so that it survives as zeros.

    A float64 table of NumPy keeps float64 statistics, also where JAX has 32 bits: seconds since 1970, say, lose minutes
    there, and `standardise` centres them before it narrows them.

    Raises:
      ValueError: for x that is not a finite float table (N, d) with N >= 1, and for weights of another shape, negative,
        not finite or all zero.

    >>> statistics(jnp.array([[1.0, 7.0], [3.0, 7.0]]))
    Statistics(mean=Array([2., 7.], dtype=float32), std=Array([1., 1.], dtype=float32))
    """
    _check.floating("x", x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x must be a table (N, d) with at least one row; got {_check.describe(x)}")
    _check.finite("x", x)
    if weight is not None and (not _check.is_array(weight) or weight.shape != x.shape[:1]):
        raise ValueError(f"weight must have shape {x.shape[:1]}, one a row; got {_check.describe(weight)}")
    rows = None if weight is None else _weights.known(weight, len(x))
    if rows is not None and not rows.any():
        raise ValueError("weight must not be zero for every row")
    known = _check.on_host(x)
    if known is None or (weight is not None and rows is None):
        return _traced_statistics(jnp.asarray(x), weight)
    mean, std = _known_statistics(known, rows)
    if _keeps_float64(x):
        return Statistics(mean, std)
    dtype = _narrow(x.dtype)
    narrow = std.astype(dtype)
    lost = narrow.astype(np.float64) < np.finfo(np.float32 if dtype != np.float64 else np.float64).tiny
    return Statistics(jnp.asarray(mean.astype(dtype)), jnp.asarray(np.where(lost, np.ones_like(narrow), narrow)))


@taking("x", narrowed=False)
def standardise(x: Numeric, by: Statistics) -> Array:
    """Return (x - mean) / std, columns of x (..., d) by the statistics of the training rows.

    A float64 table of NumPy, and any by float64 statistics, is centred in float64 and then narrowed.

    Raises:
      ValueError: for columns that are not those of the statistics, for what is no array, and for numbers so far from
        the mean that the narrow result, made on the host, would be infinite.

    >>> standardise(jnp.array([[5.0]]), Statistics(jnp.array([1.0]), jnp.array([2.0])))
    Array([[2.]], dtype=float32)
    """
    _width("x", x, by)
    if (_keeps_float64(x) or _keeps_float64(by.mean)) and not _traced(x, by):
        mean, std = (np.asarray(a, np.float64) for a in by)
        centred = (np.asarray(x, np.float64) - mean) / std
        with np.errstate(over="ignore"):
            narrowed = centred.astype(_narrow(x.dtype))
        if (far := np.isfinite(centred) & ~np.isfinite(narrowed)).any():
            raise ValueError(
                f"x must be as near to the mean as {narrowed.dtype} can tell; got {centred[far].flat[0]:.3g} standard "
                f"deviations; by is of other columns, or x of another unit"
            )
        return jnp.asarray(narrowed)
    x, mean, std, dtype = _wide(x, by)
    scale = _weights.unit(std[None], 0)[0]  # a difference of the largest numbers overflows
    x, mean, std = (a / jnp.broadcast_to(scale, a.shape) for a in (x, mean, std))
    return ((x - jnp.broadcast_to(mean, x.shape)) / jnp.broadcast_to(std, x.shape)).astype(dtype)


@taking("z", narrowed=False)
def unstandardise(z: Numeric, by: Statistics) -> Numeric:
    """Return z std + mean, the inverse of `standardise`; NumPy's float64 for float64 statistics, which need it.

    Raises:
      ValueError: for columns that are not those of the statistics, and for what is no array.

    >>> unstandardise(jnp.array([[2.0]]), Statistics(jnp.array([1.0]), jnp.array([2.0])))
    Array([[5.]], dtype=float32)
    """
    _width("z", z, by)
    if _keeps_float64(by.mean) and not _traced(z, by):
        mean, std = (np.asarray(a, np.float64) for a in by)
        return np.asarray(z, np.float64) * std + mean
    z, mean, std, dtype = _wide(z, by)
    return (z * jnp.broadcast_to(std, z.shape) + jnp.broadcast_to(mean, z.shape)).astype(dtype)


class Split(NamedTuple):
    """Rows to train on and rows to test on, as index arrays."""

    train: Array
    test: Array


def split(key: Array, n: int, test: float = 0.2) -> Split:
    """Return a random split of n rows, round(test n) of them for the test, at least one on either side.

    Raises:
      ValueError: for n below 2 or a share outside (0, 1).

    >>> train, test = split(jax.random.key(0), 10, test=0.3)
    >>> train.shape, test.shape
    ((7,), (3,))
    """
    _check.typed_key(key)
    if _check.positive_int("n", n) < 2 or not 0 < _arguments.scalar("test", test) < 1:
        raise ValueError(f"split needs n >= 2 rows and a test share in (0, 1); got n={n}, test={test}")
    order = jax.random.permutation(key, n)
    cut = min(max(round(test * n), 1), n - 1)
    return Split(order[cut:], order[:cut])


@on_automatic_axes
def k_folds(key: Array, n: int, k: int = 5, *, stratify: Numeric | None = None) -> list[Split]:
    """Return k splits of n rows; the test rows of all folds together are each row once.

    The folds' sizes differ by at most one row, and with `stratify`, labels (n,), so does each label's share.

    Raises:
      ValueError: for k below 2 or above n.

    >>> [fold.test.size for fold in k_folds(jax.random.key(0), 10, 3)]
    [4, 3, 3]
    """
    _check.typed_key(key)
    if not 2 <= _check.positive_int("k", k) <= _check.positive_int("n", n):
        raise ValueError(f"k must be at least 2 and at most the {n} rows; got {k}")
    order = jax.random.permutation(key, n)
    if stratify is not None:
        stratify = _arrays.array("stratify", stratify)
        if stratify.shape != (n,):
            raise ValueError(f"stratify must hold a label for each of {n} rows; got {_check.describe(stratify)}")
        order = order[jnp.argsort(jnp.asarray(stratify)[order], stable=True)]
    # Dealt out like cards, so that equal labels, which stand together, spread evenly.
    hands = [order[i::k] for i in range(k)]
    return [Split(jnp.concatenate(hands[:i] + hands[i + 1 :]), hands[i]) for i in range(k)]


def _width(what: str, x: Numeric, by: Statistics) -> None:
    _check.floating(what, x)
    if not isinstance(by, tuple) or len(by) != 2 or not all(map(_check.is_array, by)):
        raise ValueError(f"by must be Statistics, as data.statistics makes them; got {_check.describe(by)}")
    for name, values in zip(Statistics._fields, by, strict=True):
        _check.floating(f"{name} of the statistics", _arrays.array(f"{name} of the statistics", values, narrowed=False))
        if values.ndim != 1 or values.shape != by[0].shape:
            raise ValueError(f"{name} of the statistics must have shape (d,); got {_check.describe(values)}")
        known = None if isinstance(values, Tracer) else np.asarray(values, np.float64)
        if known is not None and not (np.isfinite(known) & ((known > 0) | (name == "mean"))).all():
            raise ValueError(
                f"{name} of the statistics must be finite{', and above zero' * (name == 'std')}; got {known}; "
                f"data.statistics gives a constant column a deviation of 1"
            )
    if x.ndim < 1 or x.shape[-1:] != by[0].shape:
        raise ValueError(f"{what} must have {by.mean.size} columns, as the statistics do; got {_check.describe(x)}")


def _keeps_float64(x: Numeric) -> bool:
    """Tell whether x is a table of NumPy that JAX would narrow."""
    return isinstance(x, np.ndarray) and x.dtype.itemsize > jax.dtypes.canonicalize_dtype(np.float64).itemsize


def _narrow(dtype: DTypeLike) -> np.dtype:
    """Return the dtype that JAX gives to a float dtype of NumPy, of any byte order or width."""
    dtype = np.dtype(dtype)
    return dtype.newbyteorder("=") if dtype.itemsize < 8 else jax.dtypes.canonicalize_dtype(np.float64)


def _traced(x: Numeric, by: Statistics) -> bool:
    return any(isinstance(a, Tracer) for a in (x, *by))


def _wide(x: Numeric, by: Statistics) -> tuple[Array, Array, Array, np.dtype]:
    """Return x, mean and std in one dtype of at least 32 bits, and that of the result."""
    x, mean, std = (jnp.asarray(a) for a in (x, *by))
    to = widest(x, mean, std)
    return x.astype(to), mean.astype(to), std.astype(to), x.dtype if x.dtype == mean.dtype else to


def _known_statistics(x: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of the columns in float64, a few columns at a time."""
    share = None if weight is None else weight / weight.sum()
    if share is not None:
        x, share = x[share > 0], share[share > 0]
    width = max(1, 2**22 // len(x))
    parts = [_of_columns(x[:, i : i + width].astype(np.float64), share) for i in range(0, x.shape[1], width)]
    mean, std = (np.concatenate(part) for part in zip(*parts, strict=True))
    return mean, std


def _of_columns(x: np.ndarray, share: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    power = np.frexp(np.abs(x).max(0))[1]
    near = np.ldexp(x, -power)
    low = near.min(0)
    # Of whole numbers, such as nanoseconds since 1970, no difference is rounded.
    whole = (np.floor(x) == x).all(0) & (power < 64)
    near -= low  # exact where the column is far from zero
    mean = near.mean(0) if share is None else share @ near
    near -= mean
    std = np.sqrt(np.square(near).mean(0) if share is None else share @ np.square(near))
    # Rounding is no deviation: the mean of 0.1 + 0.2 and 0.3 is neither.
    varies = (std > 10 * np.finfo(np.float64).eps * np.abs(low + mean)) | whole & (std > 0)
    return np.ldexp(low + mean, power), np.where(varies, np.ldexp(std, power), 1.0)


def _traced_statistics(x: Array, weight: Numeric | None) -> Statistics:
    dtype, x = x.dtype, wide(x)
    counts = jnp.broadcast_to(_weights.counts(weight, len(x))[:, None], x.shape)
    share = _weights.shares(weight, len(x), x.dtype)
    scale = _weights.unit(jnp.where(counts, x, jnp.zeros_like(x)), 0)
    near = x / jnp.broadcast_to(scale, x.shape)
    low = jnp.min(jnp.where(counts, near, jnp.full_like(near, jnp.inf)), axis=0)
    moved = jnp.where(counts, near - jnp.broadcast_to(low, x.shape), jnp.zeros_like(x))
    mean = _weights.columns(moved, share)
    std = jnp.sqrt(_weights.columns(jnp.square(moved - jnp.broadcast_to(mean, x.shape)), share))
    varies = jnp.max(moved, axis=0) > 0
    mean, std = (low + mean) * scale[0], jnp.where(varies, std * scale[0], jnp.ones_like(std))
    return Statistics(mean.astype(dtype), std.astype(dtype))
