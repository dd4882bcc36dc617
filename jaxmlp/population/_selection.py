"""Picking members out of a trained population."""

import warnings
from typing import Any

import jax
import numpy as np

from jaxmlp import _check
from jaxmlp.training import State
from jaxmlp.types import Status


def member(states: Any, i: int) -> State:
    """Return the state of member i, as `fit` would give it.

    Raises:
      ValueError: for a number outside the population.
    """
    count = len(states) if isinstance(states, list) else len(jax.tree.leaves(states)[0])
    if not -count <= i < count:
        raise ValueError(f"i must be a member, 0 ... {count - 1}; got {i}")
    if isinstance(states, list):
        return states[i]
    if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(states)):
        return _at(states, i % count)
    return jax.tree.map(lambda a: a[i], states)


@jax.jit  # one program for all leaves: eagerly each shape would be two
def _at(states: Any, i: Any) -> Any:
    return jax.tree.map(lambda a: a[i], states)


def take(states: Any, members: Any) -> Any:
    """Return the population of those members, in that order; of states, params or anything with a leading axis."""
    members = np.asarray(members)
    if isinstance(states, list):
        return [states[i] for i in members]
    return jax.tree.map(lambda a: a[members], states)


def ranking(history: dict[str, Any], *, by: str | None = None) -> np.ndarray:
    """Return the members from best to worst, without those that diverged, which a warning counts.

    Args:
      history: as `fit` returns it.
      by: its entry to rank by, lower is better: unless given, "validation_loss" where it is there, else "loss". A
        member counts at its best epoch where best weights were kept, else at its last.

    Raises:
      ValueError: for an entry that is not there, or where every member diverged.
    """
    return _ranked(history, by)


def best(states: Any, history: dict[str, Any], *, by: str | None = None) -> tuple[State, int]:
    """Return the state and the number of the best member; a warning counts those that diverged.

    Args:
      states: of all members, as `fit` returns them.
      history: as `fit` returns it.
      by: the entry of `history` to rank by, lower is better: unless given, "validation_loss" where it is there, else
        "loss". A member counts at its best epoch where best weights were kept, else at its last.

    Raises:
      ValueError: for an entry that is not there, or where every member diverged.
    """
    i = int(_ranked(history, by)[0])
    return member(states, i), i


def _ranked(history: dict[str, Any], by: str | None) -> np.ndarray:
    """Return the healthy members from best to worst."""
    by = by or ("validation_loss" if "validation_loss" in history else "loss")
    _check.one_of("by", by, [name for name, value in history.items() if np.ndim(value) == 2])
    status = np.asarray(history["status"])
    last = np.asarray(history["best_epoch"] if "best_epoch" in history else np.maximum(history["epochs"] - 1, 0))
    score = np.asarray(history[by])[np.arange(len(status)), last]
    healthy = np.flatnonzero((status != Status.DIVERGED) & np.isfinite(score))
    if len(healthy) == 0:
        raise ValueError(f"all {len(status)} members diverged; try smaller learning rates")
    if len(healthy) < len(status):
        left_out = f"{len(status) - len(healthy)} of {len(status)} members diverged and are left out"
        warnings.warn(left_out, stacklevel=3)  # at the line that called `best` or `ranking`
    return healthy[np.argsort(score[healthy], kind="stable")]
