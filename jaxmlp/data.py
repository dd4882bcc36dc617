"""From a table to batches: standardise, split, fold, and the order of an epoch as a pure function of a key."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _check
from jaxmlp._check import Numeric
from jaxmlp._idx import read_idx as read_idx

ROUNDS = 24  # of swap-or-not; the tests of uniformity in tests/test_data.py hold it


class Statistics(NamedTuple):
    """Mean and standard deviation of each column."""

    mean: Array  # (d,)
    std: Array  # (d,)


def statistics(x: Numeric, weight: Numeric | None = None) -> Statistics:
    """Return mean and standard deviation of the columns of x (N, d), weighted by `weight` (N,) where given.

    A constant column gets a deviation of 1, so that it survives as zeros.

    Raises:
      ValueError: for x that is not a finite float table (N, d) with N >= 1.

    >>> statistics(jnp.array([[1.0, 7.0], [3.0, 7.0]]))
    Statistics(mean=Array([2., 7.], dtype=float32), std=Array([1., 1.], dtype=float32))
    """
    _check.floating("x", x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x must be a table (N, d) with at least one row; got {_check.describe(x)}")
    _check.finite("x", x)
    x = jnp.asarray(x)
    if weight is not None and weight.shape != x.shape[:1]:
        raise ValueError(f"weight must have shape {x.shape[:1]}, one a row; got {_check.describe(weight)}")
    mean = jnp.average(x, axis=0, weights=weight)
    centred = x - jnp.broadcast_to(mean, x.shape)
    std = jnp.sqrt(jnp.average(jnp.square(centred), axis=0, weights=weight))
    # A constant column's deviation is rounding error, not zero: the mean of 0.1, 0.1, 0.1 is not 0.1.
    rounding = 10 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
    return Statistics(mean, jnp.where(std > rounding, std, jnp.ones_like(std)))


def standardise(x: Numeric, by: Statistics) -> Array:
    """Return (x - mean) / std, columns of x (..., d) by the statistics of the training rows.

    >>> standardise(jnp.array([[5.0]]), Statistics(jnp.array([1.0]), jnp.array([2.0])))
    Array([[2.]], dtype=float32)
    """
    _width("x", x, by)
    x = jnp.asarray(x)
    return (x - jnp.broadcast_to(by.mean, x.shape)) / jnp.broadcast_to(by.std, x.shape)


def unstandardise(z: Numeric, by: Statistics) -> Array:
    """Return z std + mean, the inverse of `standardise`.

    >>> unstandardise(jnp.array([[2.0]]), Statistics(jnp.array([1.0]), jnp.array([2.0])))
    Array([[5.]], dtype=float32)
    """
    _width("z", z, by)
    z = jnp.asarray(z)
    return z * jnp.broadcast_to(by.std, z.shape) + jnp.broadcast_to(by.mean, z.shape)


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
    if _check.positive_int("n", n) < 2 or not 0 < test < 1:
        raise ValueError(f"split needs n >= 2 rows and a test share in (0, 1); got n={n}, test={test}")
    order = jax.random.permutation(key, n)
    cut = min(max(round(test * n), 1), n - 1)
    return Split(order[cut:], order[:cut])


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
        if stratify.shape != (n,):
            raise ValueError(f"stratify must hold a label for each of {n} rows; got {_check.describe(stratify)}")
        order = order[jnp.argsort(jnp.asarray(stratify)[order], stable=True)]
    # Dealt out like cards, so that equal labels, which stand together, spread evenly.
    hands = [order[i::k] for i in range(k)]
    return [Split(jnp.concatenate(hands[:i] + hands[i + 1 :]), hands[i]) for i in range(k)]


class Rows(NamedTuple):
    """The rows of a table that one run owns: of a fold, of a bootstrap, of one of several tables in one."""

    index: Any  # (n,) integers, or None for all rows
    count: Any = None  # () int32: only so many of them count, the others are padding; None where all do


def pick(a: Numeric, rows: Any) -> Array:
    """Return a[rows] for rows that are known to exist."""
    return jnp.asarray(a).at[rows].get(mode="promise_in_bounds")


def take(data: Any, rows: Rows) -> tuple[Any, Any, Any]:
    """Return those rows of data (x, y) or (x, y, weight), padding at weight zero.

    >>> x, y, weight = take((jnp.arange(3.0), jnp.arange(3)), Rows(jnp.array([2, 0]), count=jnp.array(1)))
    >>> x, weight
    (Array([2., 0.], dtype=float32), Array([1., 0.], dtype=float32))
    """
    x, y, weight = jax.tree.map(lambda a: pick(a, rows.index), (*data, None)[:3])
    if rows.count is not None:
        present = jnp.arange(len(rows.index)) < rows.count
        weight = present.astype(jnp.float32) if weight is None else present.astype(weight.dtype) * weight
    return x, y, weight


def steps_per_epoch(n: Any, batch_size: int | None) -> Any:
    """Return ceil(n / batch_size), or 1 where all examples are one batch.

    >>> steps_per_epoch(100, 32), steps_per_epoch(100, None)
    (4, 1)
    """
    return 1 if batch_size is None else -(-n // batch_size)


class Order(NamedTuple):
    """Which rows each step of an epoch sees."""

    rows: Array  # (steps, batch_size) int32
    weight: Array  # (steps, batch_size): 1 for an example, 0 where the last batch is padded


def epoch_order(key: Array, epoch: Any, n: int, batch_size: int, *, count: Any = None) -> Order:
    """Return the order of one epoch: every row once, shuffled, in batches of equal size.

    A pure function of key and epoch, so a run that is stopped and resumed sees the same batches. The last batch
    is filled up with row 0 at weight zero: it is neither dropped nor a second shape to compile. With `count`, a
    number that may be traced, only the first so many of n rows are there, in the order of a table of that length.

    Raises:
      ValueError: for a batch larger than the data.

    >>> order = epoch_order(jax.random.key(0), 0, n=5, batch_size=3)
    >>> order.weight
    Array([[1., 1., 1.],
           [1., 1., 0.]], dtype=float32)
    >>> sorted(order.rows.ravel()[:5].tolist())
    [0, 1, 2, 3, 4]
    """
    _check.typed_key(key)
    if _check.positive_int("batch_size", batch_size) > _check.positive_int("n", n):
        raise ValueError(
            f"batch_size must be at most the {n} rows; got {batch_size}; batch_size=None takes all at once"
        )
    steps = steps_per_epoch(n, batch_size)
    place = jnp.arange(steps * batch_size, dtype=jnp.uint32)
    there = n if count is None else jnp.asarray(count).astype(jnp.uint32)
    row = shuffle(jax.random.fold_in(key, epoch), place, there)
    present = place < there
    rows = jnp.where(present, row, jnp.zeros_like(row)).astype(jnp.int32)
    return Order(rows.reshape(steps, batch_size), present.astype(jnp.float32).reshape(steps, batch_size))


def shuffle(key: Array, place: Array, n: Any) -> Array:
    """Return the row at each `place` of a keyed permutation of range(n), without sorting or storing it.

    Swap-or-not (Hoang, Morris and Rogaway 2012, doi 10.1007/978-3-642-32009-5_1): in each round the partner of i
    is k - i mod n, and a keyed bit of the larger of the two says whether they change places. Integer arithmetic
    alone, so it vectorises over places and over keys; n at most 2^31.

    >>> sorted(shuffle(jax.random.key(0), jnp.arange(6, dtype=jnp.uint32), 6).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    if isinstance(n, int) and n > 2**31:
        raise ValueError(f"n must be at most 2^31; got {n}")
    words = jax.random.bits(key, (ROUNDS, 2), jnp.uint32)

    def swap(r: Array, i: Array) -> Array:
        turn, salt = words[r, 0] % n, words[r, 1]
        partner = jnp.where(i <= turn, turn - i, turn + (n - i))
        return jnp.where(_mix(jnp.maximum(i, partner) ^ salt) >> 31 == 1, partner, i)

    return jax.lax.fori_loop(0, ROUNDS, swap, place)


def _mix(h: Array) -> Array:
    """Spread every bit of h over the word (the finaliser of MurmurHash3, Appleby 2011)."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def _width(what: str, x: Numeric, by: Statistics) -> None:
    _check.floating(what, x)
    if x.ndim < 1 or x.shape[-1:] != by.mean.shape:
        raise ValueError(f"{what} must have {by.mean.size} columns, as the statistics do; got {_check.describe(x)}")
