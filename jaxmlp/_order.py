"""The order of an epoch, as a pure function of a key: which rows a run owns, and in which batch each of them is.

Nothing is stored and nothing sorted, so a run that is stopped and resumed sees the same batches, and thousands of
runs on one table need no shuffled copy of it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxmlp import _arrays, _check
from jaxmlp._eager import compile_once
from jaxmlp._varying import vary_as, whole
from jaxmlp.types import Data, Number, Numeric, PyTree

MOST_ROWS = 2**31  # that the order has numbers for, in int32
ROUNDS = 24  # of swap-or-not; the tests of uniformity in tests/test_data.py hold it


class Rows(NamedTuple):
    """The rows of a table that one run owns: of a fold, of a bootstrap, of one of several tables in one."""

    index: Any  # (n,) integers, or None for all rows
    count: Any = None  # () int32: only so many of them count, the others are padding; None where all do


def pick(a: Numeric, rows: Numeric) -> Array:
    """Return a[rows] for rows that are known to exist."""
    return jnp.asarray(a).at[rows].get(mode="promise_in_bounds")


def take(data: Data, rows: Rows) -> tuple[PyTree, PyTree, Numeric | None]:
    """Return those rows of data (x, y) or (x, y, weight), padding at weight zero.

    >>> x, y, weight = take((jnp.arange(3.0), jnp.arange(3)), Rows(jnp.array([2, 0]), count=jnp.array(1)))
    >>> x, weight
    (Array([2., 0.], dtype=float32), Array([1., 0.], dtype=float32))
    """
    data = _entered(data)
    check_rows(rows, data)
    if rows.index is None and rows.count is None:
        return data
    index = _arrays.array("rows.index", rows.index)
    x, y, weight = jax.tree.map(lambda a: pick(a, index), data)
    if rows.count is not None:
        present = jnp.arange(len(index)) < rows.count
        weight = present.astype(jnp.float32) if weight is None else jnp.where(present, weight, jnp.zeros_like(weight))
    return x, y, weight


def check_rows(rows: Any, data: Data) -> None:
    """Raise unless `rows` are rows of the data, whose arrays must be of one length.

    JAX clamps or drops an index that is out of range without a word.
    """
    lengths = {a.shape[0] for a in jax.tree.leaves(data) if _check.is_array(a) and a.shape}
    if len(lengths) != 1:
        raise ValueError(f"x, y and weight of data must have as many examples; got {sorted(lengths)}")
    if not isinstance(rows, Rows):
        raise ValueError(f"rows must be Rows(index) or Rows(index, count); got {_check.describe(rows)}")
    if rows.count is not None and not _is_whole(rows.count):
        raise ValueError(f"rows.count must be a whole number; got {_check.describe(rows.count)}")
    if rows.index is None:
        return
    index = _arrays.array("rows.index", rows.index)
    if index.ndim != 1 or not jnp.issubdtype(index.dtype, jnp.integer):
        raise ValueError(f"rows.index must be integers (n,); got {_check.describe(index)}")
    known, n = _check.on_host(index), lengths.pop()
    if known is not None and known.size and (known.min() < 0 or known.max() >= n):
        raise ValueError(f"rows.index must be in 0 ... {n - 1}; got {known.min()} ... {known.max()}")


def _entered(data: Data) -> tuple[PyTree, PyTree, Numeric | None]:
    if not isinstance(data, tuple | list) or len(data) not in (1, 2, 3):
        raise ValueError(f"data must be (x, y) or (x, y, weight); got {_check.describe(data)}")
    x, y, weight = (_arrays.tree("data", part) for part in (*data, None, None)[:3])
    for leaf in jax.tree.leaves((x, y, weight)):
        if not isinstance(leaf, np.ndarray | jax.Array) or not leaf.shape:
            raise ValueError(f"data must hold arrays, the examples on their first axis; got {_check.describe(leaf)}")
    return whole((x, y, weight))


def steps_per_epoch(n: Any, batch_size: int | None) -> Any:
    """Return ceil(n / batch_size), or 1 where all examples are one batch.

    >>> steps_per_epoch(100, 32), steps_per_epoch(100, None)
    (4, 1)
    """
    for name, value in (("n", n), ("batch_size", batch_size)):
        if not _is_whole(value) and not (name == "batch_size" and value is None):
            raise ValueError(f"{name} must be a whole number; got {_check.describe(value)}")
    return 1 if batch_size is None else -(-n // batch_size)


class Order(NamedTuple):
    """Which rows each step of an epoch sees."""

    rows: Array  # (steps, batch_size) int32
    weight: Array  # (steps, batch_size): 1 for an example, 0 where the last batch is padded


def epoch_order(key: Array, epoch: Any, n: int, batch_size: int, *, count: Number | None = None) -> Order:
    """Return the order of one epoch: every row once, shuffled, in batches of equal size.

    A pure function of key and epoch, so a run that is stopped and resumed sees the same batches. The last batch
    is filled up with row 0 at weight zero: it is neither dropped nor a second shape to compile. With `count`, a
    number that may be traced, only the first so many of n rows are there, in the order of a table of that length.

    Raises:
      ValueError: for a batch larger than the data, and for more than 2^31 rows.

    >>> order = epoch_order(jax.random.key(0), 0, n=5, batch_size=3)
    >>> order.weight
    Array([[1., 1., 1.],
           [1., 1., 0.]], dtype=float32)
    >>> sorted(order.rows.ravel()[:5].tolist())
    [0, 1, 2, 3, 4]
    """
    _check.typed_key(key)
    batch_size, n = _check.positive_int("batch_size", batch_size), _check.positive_int("n", n, most=2**63 - 1)
    if n > MOST_ROWS:
        raise ValueError(f"n must be at most 2^31; got {n}; rows are numbered in int32: train on a part of them")
    if batch_size > n:
        raise ValueError(
            f"batch_size must be at most the {n} rows; got {batch_size}; batch_size=None takes all at once"
        )
    for name, value, least in (("epoch", epoch, 0), ("count", count, 1)):
        if not _is_whole(value, least) and not (name == "count" and value is None):
            raise ValueError(f"{name} must be a whole number of at least {least}; got {_check.describe(value)}")
    return _batches(jax.random.fold_in(key, epoch), count, n=n, batch_size=batch_size)


@compile_once("n", "batch_size")
def _batches(key: Array, count: Number | None, *, n: int, batch_size: int) -> Order:
    steps = steps_per_epoch(n, batch_size)
    place = jnp.arange(steps * batch_size, dtype=jnp.uint32)
    there = n if count is None else jnp.asarray(count).astype(jnp.uint32)
    row = shuffle(key, place, there)
    present = place < (np.uint32(n) if count is None else there)
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
    _check.typed_key(key)
    if isinstance(n, int | np.integer) and n > 2**31:
        raise ValueError(f"n must be at most 2^31; got {n}")
    if not _is_whole(n):
        raise ValueError(f"n must be a whole number of at least 1; got {_check.describe(n)}")
    n = int(n) if isinstance(n, np.integer) else n
    place = jnp.asarray(_arrays.array("place", place))
    if not jnp.issubdtype(place.dtype, jnp.integer):
        raise ValueError(f"place must hold integers, uint32; got {_check.describe(place)}")
    place = place if place.dtype == jnp.uint32 else jnp.asarray(place, jnp.uint32)
    if isinstance(n, int):  # a constant, by which the compiler divides faster
        return _swap_or_not(key, place, None, known=n)
    return _swap_or_not(key, place, n, known=None)


def _is_whole(value: Any, least: int = 1) -> bool:
    """Tell whether it is one integer of at least so much, as far as that is known."""
    if isinstance(value, Tracer):
        return value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer)
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    whole |= isinstance(value, jax.Array | np.ndarray) and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer)
    return whole and least <= int(value) < 2**32


@compile_once("known")
def _swap_or_not(key: Array, place: Array, n: Any, *, known: int | None) -> Array:
    n = n if known is None else np.uint32(known)
    words = jax.random.bits(key, (ROUNDS, 2), jnp.uint32)

    def swap(r: Array, i: Array) -> Array:
        turn, salt = words[r, 0] % n, words[r, 1]
        partner = jnp.where(i <= turn, turn - i, turn + (n - i))
        return jnp.where(_mix(jnp.maximum(i, partner) ^ salt) >> 31 == 1, partner, i)

    return jax.lax.fori_loop(0, ROUNDS, swap, vary_as(place, words, n))


def _mix(h: Array) -> Array:
    """Spread every bit of h over the word (the finaliser of MurmurHash3, Appleby 2011)."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
