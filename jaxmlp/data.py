"""From a table to batches: standardise, split, fold, and the order of an epoch as a pure function of a key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _arguments, _arrays, _check
from jaxmlp._idx import read_idx as read_idx
from jaxmlp._order import Order as Order
from jaxmlp._order import Rows as Rows
from jaxmlp._order import epoch_order as epoch_order
from jaxmlp._order import pick as pick
from jaxmlp._order import shuffle as shuffle
from jaxmlp._order import steps_per_epoch as steps_per_epoch
from jaxmlp._order import take as take
from jaxmlp.types import Numeric


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
    if _check.positive_int("n", n) < 2 or not 0 < _arguments.scalar("test", test) < 1:
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
        stratify = _arrays.array("stratify", stratify)
        if stratify.shape != (n,):
            raise ValueError(f"stratify must hold a label for each of {n} rows; got {_check.describe(stratify)}")
        order = order[jnp.argsort(jnp.asarray(stratify)[order], stable=True)]
    # Dealt out like cards, so that equal labels, which stand together, spread evenly.
    hands = [order[i::k] for i in range(k)]
    return [Split(jnp.concatenate(hands[:i] + hands[i + 1 :]), hands[i]) for i in range(k)]


def _width(what: str, x: Numeric, by: Statistics) -> None:
    _check.floating(what, x)
    if x.ndim < 1 or x.shape[-1:] != by.mean.shape:
        raise ValueError(f"{what} must have {by.mean.size} columns, as the statistics do; got {_check.describe(x)}")
