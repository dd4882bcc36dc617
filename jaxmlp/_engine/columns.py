"""The numbers of all members, as columns (members, ...): from dicts, lists of dicts and arrays of any library."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arrays, _check
from jaxmlp._engine.inputs import Each, Shared
from jaxmlp._kinds import check_kind
from jaxmlp._trees import entered, is_tree
from jaxmlp.types import Hyperparams, Number, PyTree


def columns_of(hyperparams: Hyperparams, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the hyperparams with a leading axis (members,), and those that all members share without a copy each.

    Raises:
      ValueError: for entries that are neither numbers nor said to be shared or each member's own.
    """
    if isinstance(hyperparams, list | tuple):
        hyperparams = stacked(hyperparams)
    hyperparams = {} if hyperparams is None else hyperparams
    if not isinstance(hyperparams, Mapping):
        raise ValueError(f"hyperparams must be a dict of (members,) numbers; got {_check.describe(hyperparams)}")
    if not all(isinstance(name, str) for name in hyperparams):
        raise ValueError(f"hyperparams must name their numbers by texts; got {_check.shown(list(hyperparams))}")
    numbers, shared = {}, {}
    for name, value in hyperparams.items():
        what = f"hyperparams[{name!r}]"
        if isinstance(value, Shared):
            shared[name] = _entered(what, value)
            continue
        if isinstance(value, Each) or is_tree(value):
            numbers[name] = _of_each(what, value, count)
            continue
        check_kind(name, value)
        value = as_number(what, value)
        if value.ndim and len(value) != count:
            raise ValueError(
                f"{what} must have one entry for each of {count} keys, or be one number for all; got "
                f"{_check.describe(value)}; population.shared(array) gives all of them this one"
            )
        numbers[name] = value if value.ndim else jnp.full((count,), value)
    return numbers, shared


def _entered(what: str, value: Each | Shared) -> PyTree:
    """Return the arrays under a word, one of them or a tree."""
    return entered(what, value.data) if is_tree(value.data) else as_number(what, value.data)


def _of_each(what: str, value: Any, count: int) -> PyTree:
    """Return a tree of which each member has its own: all leaves (members, ...)."""
    if not isinstance(value, Each):
        raise ValueError(
            f"{what} must say whose it is where it is a tree of arrays: population.shared(tree) gives all members this "
            f"one, population.each(tree) each its own, leaves ({count}, ...); got {_check.describe(value)}"
        )
    tree = _entered(what, value)
    for leaf in jax.tree.leaves(tree):
        if jnp.shape(leaf)[:1] != (count,):
            raise ValueError(
                f"{what} of each member must have leaves ({count}, ...), one entry for each of {count} keys; got "
                f"{_check.describe(leaf)}"
            )
    return tree


def ends(columns: Mapping[str, np.ndarray]) -> list[int]:
    """Return the members with the least, the largest or a NaN value of each number: within its range, all others are.

    >>> ends({"delta": np.array([1.0, 0.5, -2.0, 0.7])})
    [0, 2]
    """
    ends: set[int] = set()
    for column in columns.values():
        flat = column.reshape(len(column), -1)  # NumPy takes a NaN for both the least and the largest
        ends |= {int(flat.argmin()) // flat.shape[1], int(flat.argmax()) // flat.shape[1]}
    return sorted(ends)


def stacked(rows: Iterable[Mapping[str, Number]]) -> dict[str, Array]:
    """Return dicts of the same names, one a member, as one dict of stacked numbers.

    Raises:
      ValueError: for no rows, or rows that do not name the same numbers.
    """
    if isinstance(rows, Mapping | str) or not isinstance(rows, Iterable) or (_check.is_array(rows) and rows.ndim == 0):
        raise ValueError(f"settings must be a list of dicts of numbers; got {_check.describe(rows)}")
    rows = list(rows)
    if not rows:
        raise ValueError("settings must hold at least one dict of numbers; got none")
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or set(row) != set(rows[0]):
            raise ValueError(
                f"settings must be dicts of the same names; got {_check.shown(rows[0])} and, at {i}, "
                f"{_check.shown(row)}"
            )
        if not all(isinstance(name, str) for name in row):
            raise ValueError(f"settings must name their numbers by texts; got {_check.shown(row)}")
    # Stacked by NumPy: on the device each count and shape would be a program of its own.
    columns = {}
    for name in rows[0]:
        given = [row[name] for row in rows]
        if all(type(value) in (int, float) for value in given):  # most often, and without a look at each
            columns[name] = as_number(f"{name!r} of settings", np.asarray(given))
            continue
        cells = [np.asarray(_listed(f"{name!r} of settings", value, "must be a number")) for value in given]
        if len(shapes := {cell.shape for cell in cells}) > 1:
            raise ValueError(f"{name!r} of settings must have one shape in each of them; got {sorted(shapes)}")
        columns[name] = as_number(f"{name!r} of settings", np.stack(cells))
    return columns


def _listed(what: str, value: Any, must: str) -> Any:
    """Return a number, or several of an array or a list."""
    if isinstance(value, list | tuple):
        value = _arrays.listed(what, [_arrays.number(what, item, must) for item in value])
    return _arrays.number(what, value, must)


def as_number(what: str, value: Any) -> Array:
    """Return a number or an array of them, in lists too, as an array: Python floats in JAX's default float.

    Raises:
      ValueError: for what is no number.
    """
    value = _listed(what, value, "must hold numbers")
    if isinstance(value, jax.Array):
        return value
    value = np.asarray(value)
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(value.dtype))
