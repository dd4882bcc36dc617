"""The door of the engine: a request is checked, and sorted into what is each member's own and what all share."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arrays, _check
from jaxmlp._dry_run import check_optimizer, run_steps
from jaxmlp._engine.inputs import Each, Member, Request, Shared, Tables
from jaxmlp._factories import RunLength, takes_run_steps
from jaxmlp._kinds import check_kind
from jaxmlp._preflight import check_data
from jaxmlp.data import Rows
from jaxmlp.recipe import Numbers, Recipe
from jaxmlp.types import Data, Hyperparams, Number, Numeric


def enter(request: Request, steps: int | None = None) -> tuple[Member, Tables]:
    """Check all that the host can before a run, and sort it; one network is a population of one.

    Args:
      request: what is to be trained.
      steps: of the whole run, where the data do not tell: of a stream.

    Raises:
      ValueError: for keys, tables, numbers, weights and rows that do not fit each other.
    """
    key, inputs, recipe, hyperparams = request
    single = request.single
    if single:
        _check.typed_key(key)
    keys = key[None] if single else key
    count = check_keys(keys)
    if single:
        columns = {name: jnp.asarray(value)[None] for name, value in recipe.bind(hyperparams).numbers.by_name.items()}
    else:
        columns = _numbers(hyperparams, count)
    # Of the first member, on the host: slices on the device would each be a small program to compile.
    first = recipe.bind(hyperparams if single else {name: np.asarray(value)[0] for name, value in columns.items()})
    numbers = Numbers(*({name: columns[name] for name in part} for part in first.numbers))
    ends = [] if single else _ends({**numbers.loss, **numbers.metrics})
    others = [recipe.bind({name: np.asarray(value)[i] for name, value in columns.items()}) for i in ends]
    if "dropout_rate" in columns:
        _check.within("dropout_rate", columns["dropout_rate"], 0, 1, open_high=True)
    validation = inputs.validation
    if validation is None and inputs.validation_rows is not None:
        validation = inputs.data
    tables: dict[str, Data] = {}
    own: dict[str, Data] = {}
    for what, given in (("data", inputs.data), ("validation", validation)):
        mine, table = whose(what, given, count, single)
        if table is not None:
            flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), table) if mine else table
            measured = what == "validation" or validation is None
            check_data(what, like_key(keys), flat, first, others, measured=measured)
        own[what], tables[what] = (table, None) if mine else (None, table)

    def examples(what: str) -> int:
        mine = own[what] is not None
        return jax.tree.leaves(own[what] if mine else tables[what])[0].shape[1 if mine else 0]

    n = examples("data")
    weights = None if inputs.weights is None else _weights(inputs.weights, count, n)
    rows = _rows("rows", inputs.rows, count, n)
    used = n if rows is None else rows.index.shape[1]
    held_out = None
    if inputs.validation_rows is not None:
        held_out = _rows("validation_rows", inputs.validation_rows, count, examples("validation"))
    if recipe.batch_size is not None and recipe.batch_size > used:
        raise ValueError(f"batch_size must be at most the {used} examples of a member; got {recipe.batch_size}")
    length = _run_length(recipe, used, rows, steps)
    longest = length if isinstance(length, RunLength) or length is None else RunLength(int(length.max()))
    check_optimizer(like_key(keys), first._replace(steps=longest), columns)
    if longest is not length:
        check_optimizer(like_key(keys), first._replace(steps=np.int32(0)), columns)  # as the program has it: traced
    return Member(keys, numbers, own["data"], own["validation"], weights, rows, held_out, length), Tables(**tables)


def _run_length(recipe: Recipe, examples: int, rows: Rows | None, steps: int | None) -> RunLength | np.ndarray | None:
    """Return the steps of the run, where the optimizer asks for them: an array where members have their own."""
    if not takes_run_steps(recipe.optimizer):
        return None
    if rows is not None and rows.count is not None:
        return np.asarray(run_steps(recipe, rows.count), np.int32)
    return RunLength(run_steps(recipe, examples) if steps is None else steps)


def check_keys(keys: Array) -> int:
    """Return how many members the keys name.

    Raises:
      ValueError: for anything but typed keys (members,), at least one.
    """
    if (
        not isinstance(keys, np.ndarray | jax.Array)
        or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
        or keys.ndim != 1
    ):
        raise ValueError(
            f"keys must be typed keys of shape (members,); got {_check.describe(keys)}; "
            f"make them with jax.random.split(jax.random.key(0), members)"
        )
    if len(keys) == 0:
        raise ValueError("keys must name at least one member; got none")
    return len(keys)


def whose(what: str, given: Data, count: int, single: bool = False) -> tuple[bool, Data]:
    """Return whether a table is each member's own, as the caller says, and the table itself.

    Raises:
      ValueError: for a table that could be either where the caller does not say.
    """
    if isinstance(given, Shared):
        return False, given.data
    if single:
        return False, given
    if isinstance(given, Each):
        _check_each(what, given.data, count)
        return True, given.data
    if _could_be_each(given, count):
        x, *_ = jax.tree.leaves(given)
        raise ValueError(
            f"{what} must say what its first axis is, {count} members or {count} examples; got x of shape "
            f"{tuple(x.shape)} for {count} keys; population.each(x, y) gives each member a table of its own, "
            f"population.shared(x, y) gives all of them this one"
        )
    return False, given


def _check_each(what: str, table: Data, count: int) -> None:
    leaves = jax.tree.leaves(table)
    if not isinstance(table, tuple | list) or not leaves or not all(_check.is_array(a) for a in leaves):
        raise ValueError(f"{what} of each member must be arrays, each(x, y) or each(x, y, weight); got {table!r:.200}")
    if any(a.ndim < 2 or a.shape[:2] != (count, leaves[0].shape[1]) for a in leaves):
        raise ValueError(
            f"{what} of each member must have shapes ({count}, N, ...), members and examples; got "
            f"{', '.join(_check.describe(a) for a in leaves)}"
        )


def _could_be_each(table: Data, count: int) -> bool:
    """Tell whether a table could be one for each member: x (members, N, ..., d) and y (members, N, ...)."""
    if not isinstance(table, tuple | list) or len(table) < 2:
        return False
    x, rest = jax.tree.leaves(table[0]), jax.tree.leaves(tuple(table[1:]))
    if not all(_check.is_array(a) for a in x + rest) or any(a.ndim < 3 for a in x) or any(a.ndim < 2 for a in rest):
        return False
    return len({a.shape[:2] for a in x + rest}) == 1 and len(x[0]) == count


def _numbers(hyperparams: Hyperparams, count: int) -> dict[str, Array]:
    """Return the hyperparams with a leading axis (members,)."""
    if isinstance(hyperparams, list | tuple):
        hyperparams = stacked(hyperparams)
    hyperparams = {} if hyperparams is None else hyperparams
    if not isinstance(hyperparams, Mapping):
        raise ValueError(f"hyperparams must be a dict of (members,) numbers; got {_check.describe(hyperparams)}")
    numbers = {}
    for name, value in hyperparams.items():
        check_kind(name, value)
        value = as_number(f"hyperparams[{name!r}]", value)
        if value.ndim and len(value) != count:
            raise ValueError(
                f"hyperparams[{name!r}] must have one entry for each of {count} keys, or be one number for all; got "
                f"{_check.describe(value)}"
            )
        numbers[name] = value if value.ndim else jnp.full((count,), value)
    return numbers


def _ends(columns: Mapping[str, Any]) -> list[int]:
    """Return the members with the least, the largest or a NaN value of each number: within its range, all others are.

    >>> _ends({"delta": np.array([1.0, 0.5, -2.0, 0.7])})
    [0, 2]
    """
    ends: set[int] = set()
    for column in map(np.asarray, columns.values()):
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
        cells = [np.asarray(_listed(f"{name!r} of settings", row[name], "must be a number")) for row in rows]
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


def _weights(weights: Numeric, count: int, n: int) -> Numeric:
    _check.floating("weights", weights)
    if weights.shape != (count, n):
        raise ValueError(
            f"weights must have shape ({count}, {n}), a member and an example; got {_check.describe(weights)}"
        )
    _check.finite("weights", weights)
    _check.within("weights", weights, 0, math.inf)
    empty = np.flatnonzero(~_check.counts(weights).any(1))
    if len(empty):
        raise ValueError(f"weights must not be zero for every example; they are for member {empty[0]}")
    return weights


def _rows(what: str, rows: Numeric | None, count: int, n: int) -> Rows | None:
    if rows is None:
        return None
    rows = np.asarray(_arrays.listed(what, rows))
    if rows.ndim != 2 or len(rows) != count or rows.shape[1] == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"{what} must be integers of shape ({count}, n), a member's rows each; got {_check.describe(rows)}"
        )
    there = rows >= 0
    counts = there.sum(1)
    if rows.max() >= n or rows.min() < -1 or not (there == (np.arange(rows.shape[1]) < counts[:, None])).all():
        raise ValueError(
            f"{what} must be in 0 ... {n - 1}, with -1 only at the end for none; got {rows.min()} ... {rows.max()}"
        )
    if counts.min() == 0:
        raise ValueError(f"{what} must hold a row for every member; got none for member {counts.argmin()}")
    index = np.where(there, rows, 0).astype(np.int32)
    return Rows(index, None if there.all() else counts.astype(np.int32))


def like_key(keys: Array) -> Any:
    """Return the form of one key, for where it is only traced: a slice would be a program to compile."""
    return jax.ShapeDtypeStruct((), keys.dtype)
