"""The host's side of a population: the door, waves that fit in memory, rounds between which members stop."""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp._engine.executor import Cohort, without_keys
from jaxmlp._engine.plan import Plan, plan
from jaxmlp._engine.program import RUNNING, Member, Run, put
from jaxmlp._engine.stops import Halving, Rules
from jaxmlp.data import Rows
from jaxmlp.recipe import Recipe
from jaxmlp.training import State, check_data


def train(
    keys: Any,
    data: Any,
    recipe: Recipe,
    hyperparams: Any,
    options: dict[str, Any],
    chosen: Plan | None,
    ends: list[int],
    rules: Rules = Rules(),  # noqa: B008  (a constant)
    halving: Halving | None = None,
    callback: Callable[[int, np.ndarray], None] | None = None,
) -> tuple[State, dict[str, Array]]:
    """Run the members in rounds that end after so many epochs; see `population.fit`."""
    members, shared = enter(keys, data, recipe, hyperparams, **options)
    count = len(members.key)
    chosen = plan_for(members, data, recipe, rules, chosen)
    if halving is not None and chosen.wave < count:
        raise ValueError(f"halving must hold all {count} members at once; the plan's memory holds {chosen.wave}")
    shared = put(chosen.layout, shared, shared=True)
    whole: list[Any] = []
    structure: Any = None
    for first in range(0, count, chosen.wave):
        wave = slice(first, min(first + chosen.wave, count))
        mine = jax.tree.map(lambda a, wave=wave: a[wave], members)
        cohort = Cohort(mine, shared, recipe, rules, chosen.layout, chosen.slots)
        for done, end in pairwise([0, *ends]):
            cohort.advance(done, end)
            if end == ends[-1]:
                break
            status = cohort.look()
            if halving is not None:
                cohort.stop(losers(halving, cohort.history(), status, end))
                status = cohort.look()
            if callback is not None:
                callback(end, status)
            if not cohort.goes_on:
                break
        leaves, structure = jax.tree.flatten(without_keys(cohort.runs))
        whole = whole or [None] * len(leaves)
        del cohort.runs
        for i, leaf in enumerate(leaves):
            values = np.empty((count, *leaf.shape[1:]), leaf.dtype) if whole[i] is None else whole[i]
            cohort.bring_home(leaf, values, first)
            # Members that did not fit on the devices at once wait on the host.
            whole[i] = jnp.asarray(values) if chosen.wave >= count else values
    run = jax.tree.unflatten(structure, whole)
    key = jax.random.wrap_key_data(jnp.asarray(run.state.key), impl=jax.random.key_impl(keys))
    return result(run._replace(state=run.state._replace(key=key)))


def plan_for(members: Member, data: Any, recipe: Recipe, rules: Rules, chosen: Plan | None) -> Plan:
    """Return the chosen plan, or choose one."""
    count = len(members.key)
    if chosen is None:
        first = {name: value[0] for name, value in members.hyperparams.items()}
        chosen = plan(count, data, recipe, first, keep_best=rules.patience is not None)
    if chosen.members != count:
        raise ValueError(f"plan must be made for as many members as there are keys, {count}; got {chosen.members}")
    return chosen


def losers(halving: Halving, history: dict[str, np.ndarray], status: np.ndarray, done: int) -> np.ndarray:
    """Return who is left out at a rung: of those who run, all but the best 1 / factor."""
    _check.one_of("by", halving.by, history)
    alive = np.flatnonzero(status == RUNNING)
    order = alive[np.argsort(history[halving.by][alive, done - 1], kind="stable")]
    return order[math.ceil(len(alive) / halving.factor) :]


def result(run: Run) -> tuple[State, dict[str, Any]]:
    """Return what `population.fit` gives back for the runs of all members."""
    history = {**run.history, "status": run.status, "epochs": run.epochs}
    if run.best is None:
        return run.state, history
    return run.state._replace(params=run.best.params), {**history, "best_epoch": run.best.epoch}


def enter(
    keys: Any,
    data: Any,
    recipe: Recipe,
    hyperparams: Any,
    *,
    validation: Any = None,
    weights: Any = None,
    rows: Any = None,
    validation_rows: Any = None,
    tables: bool = True,
) -> tuple[Member, tuple[Any, Any]]:
    """Check all that the host can, and sort it: what each member has of its own, and what all share.

    With `tables`, the data may have a leading axis of members.
    """
    if not _check.is_array(keys) or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.ndim != 1:
        raise ValueError(
            f"keys must be typed keys of shape (members,); got {_check.describe(keys)}; "
            f"make them with jax.random.split(jax.random.key(0), members)"
        )
    count = len(keys)
    if count == 0:
        raise ValueError("keys must name at least one member; got none")
    numbers = _numbers(hyperparams, count)
    first = {name: value[0] for name, value in numbers.items()}
    if "dropout_rate" in numbers:
        _check.within("dropout_rate", numbers["dropout_rate"], 0, 1, open_high=True)
    if validation is None and validation_rows is not None:
        validation = data
    own: list[Any] = []
    common: list[Any] = []
    for what, table in (("data", data), ("validation", validation)):
        mine = tables and table is not None and for_each(table, count)
        if table is not None:
            flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), table) if mine else table
            check_data(what, keys[0], flat, recipe, first)
        own.append(table if mine else None)
        common.append(None if mine else table)
    n = len(jax.tree.leaves(data)[0]) if own[0] is None else jax.tree.leaves(data)[0].shape[1]
    if weights is not None:
        weights = _weights(weights, count, n)
    used = n if rows is None else np.shape(rows)[-1]
    rows = _rows("rows", rows, count, n)
    if validation_rows is not None:
        leaf = jax.tree.leaves(validation)[0]
        validation_rows = _rows("validation_rows", validation_rows, count, leaf.shape[own[1] is not None])
    if recipe.batch_size is not None and recipe.batch_size > used:
        raise ValueError(f"batch_size must be at most the {used} examples of a member; got {recipe.batch_size}")
    return Member(keys, numbers, own[0], own[1], weights, rows, validation_rows), (common[0], common[1])


def _numbers(hyperparams: Any, count: int) -> dict[str, Any]:
    if isinstance(hyperparams, list | tuple):
        hyperparams = stacked(hyperparams)
    hyperparams = {} if hyperparams is None else hyperparams
    if not isinstance(hyperparams, Mapping):
        raise ValueError(f"hyperparams must be a dict of (members,) numbers; got {_check.describe(hyperparams)}")
    numbers = {}
    for name, value in hyperparams.items():
        try:
            if not isinstance(value, jax.Array):
                value = np.asarray(value)
                value = jnp.asarray(value, jnp.result_type(float) if value.dtype == np.float64 else value.dtype)
        except TypeError:
            raise ValueError(f"hyperparams[{name!r}] must hold numbers; got {_check.describe(value)}") from None
        if value.ndim and len(value) != count:
            raise ValueError(
                f"hyperparams[{name!r}] must have one entry for each of {count} keys, or be one number for all; got "
                f"{_check.describe(value)}"
            )
        numbers[name] = value if value.ndim else jnp.full((count,), value)
    return numbers


def stacked(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return dicts of the same names, one a member, as one dict of stacked numbers.

    Raises:
      ValueError: for no rows, or rows that do not name the same numbers.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("settings must hold at least one dict of numbers; got none")
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or set(row) != set(rows[0]):
            raise ValueError(f"settings must be dicts of the same names; got {dict(rows[0])} and, at {i}, {row!r}")
    return {name: jnp.stack([_array(row[name]) for row in rows]) for name in rows[0]}


def _array(value: Any) -> Array:
    value = np.asarray(value)
    return jnp.asarray(value, jnp.result_type(float) if value.dtype == np.float64 else value.dtype)


def for_each(table: Any, count: int) -> bool:
    """Tell whether a table is one for each member: x (members, N, ..., d) and y (members, N, ...)."""
    if not isinstance(table, tuple | list) or len(table) < 2:
        return False
    x, rest = jax.tree.leaves(table[0]), jax.tree.leaves(tuple(table[1:]))
    if not all(hasattr(a, "shape") for a in x + rest):
        return False
    sizes = {a.shape[:2] for a in x + rest}
    return (
        all(a.ndim >= 3 for a in x) and all(a.ndim >= 2 for a in rest) and len(sizes) == 1 and (sizes.pop()[0] == count)
    )


def _weights(weights: Any, count: int, n: int) -> Any:
    _check.floating("weights", weights)
    if weights.shape != (count, n):
        raise ValueError(
            f"weights must have shape ({count}, {n}), a member and an example; got {_check.describe(weights)}"
        )
    _check.finite("weights", weights)
    _check.within("weights", weights, 0, math.inf)
    empty = np.flatnonzero(~np.asarray(weights).any(1))
    if len(empty):
        raise ValueError(f"weights must not be zero for every example; they are for member {empty[0]}")
    return weights


def _rows(what: str, rows: Any, count: int, n: int) -> Rows | None:
    if rows is None:
        return None
    rows = np.asarray(rows)
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
