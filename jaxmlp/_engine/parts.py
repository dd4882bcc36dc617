"""Members that cannot train at once: of recipes that differ, or more than the memory holds."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp._engine.entry import check_keys, whose
from jaxmlp._engine.executor import Executor, Job, outcome
from jaxmlp._engine.inputs import Each, Inputs, Request, Shared, first_numbers
from jaxmlp._engine.plan import Plan, plan
from jaxmlp._engine.stops import Stops
from jaxmlp._trees import is_tree
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import Data, History, Hyperparams


class Group(NamedTuple):
    """The members of one recipe among those of several."""

    who: np.ndarray  # their numbers
    request: Request


def check_lists(plan: Plan | None, stops: Stops) -> None:
    """Raise unless plan and rules are such as members of several recipes can have."""
    if plan is not None:
        raise ValueError("plan must be None for a list of recipes: each recipe gets one of its own")
    if stops.halving is not None:
        raise ValueError("Halving must compare members of one recipe; train each recipe's members in a call of its own")


def groups(
    keys: Array, inputs: Inputs, recipes: Sequence[Recipe], hyperparams: Hyperparams, streamed: bool = False
) -> list[Group]:
    """Return the members of equal recipes together.

    Raises:
      ValueError: unless there is a recipe for each member.
    """
    count = check_keys(keys)
    if len(recipes) != count or not all(isinstance(recipe, Recipe) for recipe in recipes):
        raise ValueError(
            f"recipe must be a Recipe or a list of one for each of {count} members; got {len(recipes)}; for every "
            f"recipe with every key: [r for r in recipes for _ in keys] and jnp.tile(keys, len(recipes))"
        )
    if inputs.params is not None:
        raise ValueError(
            "params must be None for a list of recipes, whose parameters differ; train each in a call of its own"
        )
    inputs = inputs.entered(streamed=streamed)
    # Whose a table is, is asked of all members: of a group, another count could mean another thing.
    tables = {"data": inputs.data, "validation": inputs.validation}
    for what, given in tables.items():
        if given is not None and not (streamed and what == "data"):
            mine, table = whose(what, given, count)
            tables[what] = Each(table) if mine else Shared(table)
    inputs = inputs._replace(**tables)
    found = []
    for recipe in dict.fromkeys(recipes):
        who = np.array([i for i, other in enumerate(recipes) if other == recipe])
        found.append(Group(who, Request(keys[who], inputs.of(who), recipe, numbers_of(hyperparams, who, count))))
    return found


def numbers_of(hyperparams: Hyperparams, who: np.ndarray, count: int) -> Hyperparams:
    """Return the numbers of some members; of a list of dicts those of other groups may have other names."""
    if isinstance(hyperparams, list | tuple):
        if len(hyperparams) != count:
            raise ValueError(f"hyperparams must be one dict for each of {count} keys; got {len(hyperparams)} of them")
        return [hyperparams[i] for i in who]
    if not isinstance(hyperparams, Mapping):
        return hyperparams  # an error, which the door names
    return {name: _of_some(value, who, count) for name, value in hyperparams.items()}


def _of_some(value: Any, who: np.ndarray, count: int) -> Any:
    """Return what is the members' own of an entry; what is no column of all members stays, and the door names it."""
    if isinstance(value, Each):
        return Each(jax.tree.map(lambda a: a[who], value.data))
    if isinstance(value, Shared) or is_tree(value):
        return value
    column = np.asarray(value) if isinstance(value, list | tuple) else value
    return column[who] if np.ndim(column) and len(column) == count else column


def join_groups(found: Sequence[Group], results: Sequence[tuple[State, History]]) -> tuple[list[State], History]:
    """Return states and history of all members in the caller's order; shorter histories end in NaN."""
    count = sum(len(group.who) for group in found)
    longest = max(group.request.recipe.epochs for group in found)
    states: list[Any] = [None] * count
    history: dict[str, np.ndarray] = {}
    for group, (state, record) in zip(found, results, strict=True):
        for place, i in enumerate(group.who):
            states[i] = at(state, place)
        for name, values in record.items():
            values = np.asarray(values)
            if values.ndim == 1:
                history.setdefault(name, np.zeros(count, values.dtype))[group.who] = values
            else:
                dtype = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else float  # it ends in NaN
                whole = history.setdefault(name, np.full((count, longest, *values.shape[2:]), np.nan, dtype))
                whole[group.who, : values.shape[1]] = values
    return states, History({name: jnp.asarray(values) for name, values in history.items()})


@jax.jit  # one program for all leaves: eagerly each shape would be two
def at(states: Any, i: Any) -> Any:
    """Return entry i of every leaf."""
    return jax.tree.map(lambda a: a[i], states)


def plan_for(job: Job, data: Data, chosen: Plan | None) -> Plan:
    """Return the chosen plan, or choose one for a job on such data.

    Raises:
      ValueError: for a plan of another number of members.
    """
    count = len(job.members.key)
    if chosen is None:
        numbers = first_numbers(job.members, job.tables)
        chosen = plan(count, data, job.recipe, numbers, keep_best=job.stops.patience is not None)
    if chosen.members != count:
        raise ValueError(f"plan must be made for as many members as there are keys, {count}; got {chosen.members}")
    return chosen


def in_waves(job: Job, chosen: Plan, train: Callable[[Job, Plan, int], Executor]) -> tuple[State, History]:
    """Train the members in waves that fit in the plan's memory, and return the results of all.

    Args:
      job: all members.
      chosen: the plan.
      train: (job of a wave, its plan, its number) -> the executor when the wave is done.

    Raises:
      ValueError: for halving, which must compare all members at once.
    """
    count = len(job.members.key)
    waves = math.ceil(count / chosen.wave)
    if job.stops.halving is not None and waves > 1:
        raise ValueError(f"halving must hold all {count} members at once; the plan's memory holds {chosen.wave}")
    found: list[list[Any]] = []
    structure: Any = None
    for number in range(waves):
        wave = slice(number * chosen.wave, min((number + 1) * chosen.wave, count))
        mine = job if waves == 1 else job._replace(members=jax.tree.map(lambda a, wave=wave: a[wave], job.members))
        of_wave = dataclasses.replace(chosen, members=len(mine.members.key)) if waves > 1 else chosen
        # The results of waves wait on the host, in NumPy arrays; those of one wave come back as JAX arrays.
        leaves, structure = jax.tree.flatten(
            train(mine, of_wave, number).results(jax.device_put if waves == 1 else _same, chosen.results)
        )
        found.append(leaves)
    run = jax.tree.unflatten(structure, [_join(found, i) for i in range(len(found[0]))])
    key = jax.random.wrap_key_data(jnp.asarray(run.state.key), impl=jax.random.key_impl(job.members.key))
    return outcome(run._replace(state=run.state._replace(key=key)))


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _join(found: list[list[Any]], i: int) -> Any:
    """Join leaf i of all waves, and let go of the parts: two copies of everything might not fit."""
    if len(found) == 1:
        return found[0][i]
    joined = np.concatenate([leaves[i] for leaves in found])
    for leaves in found:
        leaves[i] = None
    return joined
