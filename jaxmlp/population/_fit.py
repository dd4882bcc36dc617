"""The verbs of training over a leading axis of members: a thousand networks read, and run, like one.

Seeds, hyperparameters, folds and bootstraps are one idea here. A member is what `fit` would make of it alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp._engine.inputs import for_each, train
from jaxmlp._engine.plan import Plan
from jaxmlp._engine.stops import Halving, Patience, Rules, check_halving, check_patience
from jaxmlp.population._selection import member
from jaxmlp.population._sweeps import grid  # noqa: F401  (for the example)
from jaxmlp.recipe import Recipe
from jaxmlp.training import State

ROUNDS = 32  # how often a run with early stopping looks for members to leave out


def fit(
    keys: Array,
    data: Any,
    recipe: Recipe | Sequence[Recipe],
    hyperparams: Any = None,
    *,
    validation: Any = None,
    weights: Any = None,
    rows: Any = None,
    validation_rows: Any = None,
    patience: int | None = None,
    min_improvement: float = 0.0,
    plan: Plan | None = None,
    callback: Callable[[int, np.ndarray], None] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train every member from start to end, as `jaxmlp.fit` trains one.

    The host runs it, so it is not for `jit` itself: `jax.vmap(jaxmlp.fit)` is. A member's bits depend on the plan's
    width and number of devices, and on neither the number of members, nor their order, nor what becomes of the others.

    Args:
      keys: (members,) typed keys.
      data: (x, y) or (x, y, weight) that all members share, never copied a member; or a table for each, x (members,
        N, ...) and y (members, N, ...).
      recipe: one for all, or a list of one a member: equal ones are trained together, so widths, depths and
        activations may differ at one compilation each.
      hyperparams: {name: (members,)}, a number that all share, or a list of dicts, one a member.
      validation: data of the same form.
      weights: (members, N), what each example counts for each member: folds, bootstraps.
      rows: (members, n) integers, which rows of the data each member owns; -1 at a row's end is padding. The member is
        that of `fit` on data[rows].
      validation_rows: likewise, of the validation data, or of the data where there is none.
      patience: stop a member when its validation loss did not fall for so many epochs, and give back its best weights.
      min_improvement: by how much the loss must fall to count.
      plan: how to run, from `population.plan`.
      callback: a plain function of (epochs done, status (members,)), called now and then.

    Returns:
      States with a leading axis (members,), and the history: what `fit` records, (members, epochs), NaN after a
      member's end; "status" (members,), 0 finished, 1 stopped early, 2 diverged; "epochs" (members,), how many a
      member was trained for; with patience "best_epoch". A member whose loss or parameters leave the finite keeps its
      state before that epoch. For a list of recipes the states are a list, in its order, and shorter histories end in
      NaN.

    Raises:
      ValueError: as `fit`, and for leading axes that differ.

    >>> from jaxmlp import MLP, losses
    >>> import optax
    >>> x = jnp.linspace(-1, 1, 32)[:, None]
    >>> recipe = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=50, batch_size=8)
    >>> keys, hyperparams = grid(seeds=2, learning_rate=[0.1, 0.2])
    >>> states, history = fit(keys, (x, 2 * x + 1), recipe, hyperparams)
    >>> history["loss"].shape, history["status"].tolist(), states.params[0].w.shape
    ((4, 50), [0, 0, 0, 0], (4, 1, 1))
    """
    options = {"validation": validation, "weights": weights, "rows": rows, "validation_rows": validation_rows}
    if not isinstance(recipe, Recipe):
        stop = {"patience": patience, "min_improvement": min_improvement, "plan": plan, "callback": callback}
        return _each_recipe(keys, data, list(recipe), hyperparams, options, stop)
    rules = Rules()
    if patience is not None:
        watched = validation is not None or validation_rows is not None
        rules = Rules(check_patience(Patience(patience, min_improvement), watched))
    elif min_improvement:
        raise ValueError(f"min_improvement={min_improvement} needs patience, the epochs to wait for it")
    chunk = recipe.epochs if patience is None and callback is None else math.ceil(recipe.epochs / ROUNDS)
    ends = [*range(chunk, recipe.epochs, chunk), recipe.epochs]
    return train(keys, data, recipe, hyperparams, options, plan, ends, rules, None, callback)


def halving(
    keys: Array,
    data: Any,
    recipe: Recipe,
    hyperparams: Any = None,
    *,
    factor: float = 3,
    first: int = 1,
    by: str = "validation_loss",
    plan: Plan | None = None,
    callback: Callable[[int, np.ndarray], None] | None = None,
    **options: Any,
) -> tuple[State, dict[str, Array]]:
    """Train by successive halving: after `first`, factor first, factor^2 first ... epochs the best 1 / factor go on.

    Jamieson and Talwalkar 2016 (arXiv 1502.07943). The same machine as `fit`, with another rule of who stops: a stopped
    member keeps the state that it stopped with, and the survivors are what `fit` makes of them.

    Args:
      keys: as `fit`, and so the other arguments that it shares.
      data: as `fit`.
      recipe: one for all.
      hyperparams: as `fit`.
      factor: above 1; of n members ceil(n / factor) go on.
      first: epochs before the first cut.
      by: the entry of the history to rank by, lower is better.
      plan: as `fit`.
      callback: as `fit`.
      **options: validation, weights, rows and validation_rows, as `fit`.

    Returns:
      As `fit`; the members that were left out have status 1.

    Raises:
      ValueError: as `fit`, and where there is nothing to rank by.
    """
    rule = Halving(factor, first, by)
    check_halving(rule)
    known = ("validation", "weights", "rows", "validation_rows")
    for name in options:
        _check.one_of("an option of halving", name, known)
    options = {name: options.get(name) for name in known}
    ends = [*rule.rungs(recipe.epochs), recipe.epochs]
    return train(keys, data, recipe, hyperparams, options, plan, ends, Rules(), rule, callback)


def _each_recipe(
    keys: Any, data: Any, recipes: list[Recipe], hyperparams: Any, options: dict[str, Any], stop: dict[str, Any]
) -> tuple[list[State], dict[str, Array]]:
    """Train the members of equal recipes together and return all in the caller's order."""
    count = len(keys)
    if len(recipes) != count or not all(isinstance(recipe, Recipe) for recipe in recipes):
        raise ValueError(
            f"recipe must be a Recipe or a list of one for each of {count} members; got {len(recipes)}; for every "
            f"recipe with every key: [r for r in recipes for _ in keys] and jnp.tile(keys, len(recipes))"
        )
    if stop["plan"] is not None:
        raise ValueError("plan must be None for a list of recipes: each shape gets its own")

    def part(name: str, value: Any, who: np.ndarray) -> Any:
        """Return the share of the members `who` in something that is each member's own, or all of what is shared."""
        if name in ("data", "validation"):
            own = value is not None and for_each(value, count)
            return jax.tree.map(lambda a: a[who], value) if own else value
        if isinstance(value, dict):
            return {n: a[who] if np.ndim(a) and len(a) == count else a for n, a in value.items()}
        return value if value is None else [value[i] for i in who] if isinstance(value, list) else value[who]

    states: list[Any] = [None] * count
    longest = max(recipe.epochs for recipe in recipes)
    history: dict[str, np.ndarray] = {}
    for recipe in dict.fromkeys(recipes):
        who = np.array([i for i, other in enumerate(recipes) if other == recipe])
        mine = {name: part(name, value, who) for name, value in options.items()}
        numbers = part("hyperparams", hyperparams, who)
        found, record = fit(keys[who], part("data", data, who), recipe, numbers, **mine, **stop)
        for place, i in enumerate(who):
            states[i] = member(found, place)
        for name, values in record.items():
            values = np.asarray(values)
            shape = (count,) if values.ndim == 1 else (count, longest)
            whole = history.setdefault(
                name, np.zeros(shape, values.dtype) if values.ndim == 1 else np.full(shape, np.nan)
            )
            whole[(who, slice(values.shape[1])) if values.ndim == 2 else who] = values
    return states, {name: jnp.asarray(values) for name, values in history.items()}
