"""Options of a run, refused by their kind before anything is trained."""

from collections.abc import Iterable
from typing import Any

from jaxmlp import _arguments, _check
from jaxmlp._engine.plan import Plan
from jaxmlp.recipe import Recipe
from jaxmlp.types import Callback


def checked_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple.

    Raises:
      ValueError: for what is no collection of functions of (state, history).
    """
    if callable(callbacks) or not isinstance(callbacks, Iterable) or getattr(callbacks, "ndim", 1) != 1:
        raise ValueError(f"callbacks must be a list of functions (state, history); got {_check.describe(callbacks)}")
    found = tuple(callbacks)
    for callback in found:
        _arguments.takes("each of callbacks", callback, 2, "(state, history)")
    return found


def checked_progress(progress: Any) -> bool | None:
    """Return whether progress is shown, None where the terminal decides."""
    if not isinstance(progress, bool | None):
        raise ValueError(f"progress must be None, True or False; got {_check.describe(progress)}")
    return progress


def checked_plan(plan: Any) -> Plan | None:
    """Return the plan, if it is one."""
    if plan is not None and not isinstance(plan, Plan):
        raise ValueError(f"plan must be one that population.plan made; got {_check.describe(plan)}")
    return plan


def listed_recipes(recipes: Any) -> list[Recipe]:
    """Return several recipes as a list.

    Raises:
      ValueError: for what is neither a recipe nor a list of them.
    """
    if isinstance(recipes, list | tuple) and recipes and all(isinstance(recipe, Recipe) for recipe in recipes):
        return list(recipes)
    given = f"{len(recipes)}, among them what is none" if isinstance(recipes, list) else _check.describe(recipes)
    raise ValueError(f"recipe must be a Recipe or a list of one for each member; got {given}")
