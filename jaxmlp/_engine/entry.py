"""The door of the engine: a request is checked, and sorted into what is each member's own and what all share."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arrays, _check, _trees
from jaxmlp._dry_run import check_optimizer, run_steps
from jaxmlp._engine.columns import columns_of, ends
from jaxmlp._engine.inputs import Each, Member, Request, Shared, Tables, plain
from jaxmlp._factories import RunLength, takes_run_steps
from jaxmlp._preflight import check_data
from jaxmlp._state import form_of_start
from jaxmlp._structure import check_like
from jaxmlp._trees import on_host
from jaxmlp.data import Rows
from jaxmlp.recipe import Bound, Numbers, Recipe
from jaxmlp.types import Data, Numeric, PyTree


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
    all_: dict[str, Any] = {}
    if single:
        columns = jax.tree.map(lambda a: jnp.asarray(a)[None], recipe.bind(hyperparams).numbers.by_name)
    else:
        columns, all_ = columns_of(hyperparams, count)
    known: dict[str, Any] = {} if single else on_host(columns)
    first = recipe.bind(hyperparams if single else _trees.first(known) | all_)
    numbers = Numbers(*({name: columns[name] for name in part if name in columns} for part in first.numbers))
    judged = {name: known[name] for name in {**numbers.loss, **numbers.metrics} if name in known}
    edges = ends({name: column for name, column in judged.items() if not _trees.is_tree(column)})
    others = [recipe.bind(_trees.first(known, i) | all_) for i in edges if i]
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
    begun = (
        None if inputs.params is None else started(inputs.params, first._replace(steps=longest), like_key(keys), count)
    )
    member = Member(keys, numbers, own["data"], own["validation"], weights, rows, held_out, length, begun)
    return member, Tables(**tables, numbers=first.numbers.only(all_))


def started(given: Any, bound: Bound, key: Any, count: int) -> PyTree:
    """Return parameters, or states, of all members, whether one is given for all or one for each.

    Raises:
      ValueError: for those of another form than the model's.
    """
    tree = _arrays.leaves_of_numpy("params", plain(given))
    like = form_of_start(bound, key, tree)
    leaves, wanted = jax.tree.leaves(tree), jax.tree.leaves(like)
    own = len(leaves) == len(wanted) and all(
        jnp.shape(leaf) == (count, *form.shape) for leaf, form in zip(leaves, wanted, strict=True)
    )
    if isinstance(given, Each) or own and not isinstance(given, Shared):
        check_like("params of each member", tree, jax.tree.map(lambda a: _with_axis(a, count), like))
        return tree
    check_like("params", tree, like)
    return jax.tree.map(lambda a: (np if isinstance(a, np.ndarray) else jnp).broadcast_to(a, (count, *a.shape)), tree)


def _with_axis(form: Any, count: int) -> Any:
    return jax.ShapeDtypeStruct((count, *form.shape), form.dtype)


def _run_length(recipe: Recipe, examples: int, rows: Rows | None, steps: int | None) -> RunLength | np.ndarray | None:
    """Return the steps of the run, where the optimizer asks for them: an array where members have their own."""
    if not takes_run_steps(recipe.optimizer):
        return None
    if rows is not None and rows.count is not None and recipe.batch_size is not None:  # else a step an epoch, for all
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
        told = _check.vanished(weights[empty[0]])
        raise ValueError(f"weights must not be zero for every example; they are for member {empty[0]}{told}")
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
