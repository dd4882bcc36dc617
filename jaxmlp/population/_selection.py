"""Picking members out of a trained population: one, some, the best."""

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmlp import _arrays, _check
from jaxmlp._choice import Figure
from jaxmlp._engine.parts import at
from jaxmlp._mesh import here, on_automatic_axes
from jaxmlp._verbs import members as members_of
from jaxmlp.training import State
from jaxmlp.types import Numeric, PyTree, States, Status


@on_automatic_axes
def member(states: States, i: int) -> State:
    """Return the state of member i, as `fit` would give it.

    Raises:
      ValueError: for a number outside the population.
    """
    count = _count(states)
    if isinstance(i, bool | np.bool_) or not hasattr(i, "__index__") or np.ndim(i):
        raise ValueError(f"i must be a member's number, an int; got {_check.describe(i)}")
    try:
        i = operator.index(i)
    except TypeError:  # an array of floats
        raise ValueError(f"i must be a member's number, an int; got {_check.describe(i)}") from None
    if not -count <= i < count:
        raise ValueError(f"i must be a member, 0 ... {count - 1}; got {i}")
    if isinstance(states, list):
        return states[i]
    if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(states)):
        return at(states, i % count)
    return jax.tree.map(lambda a: a[i], states)


@on_automatic_axes
def take(states: PyTree, members: Sequence[int] | Numeric) -> PyTree:
    """Return the population of those members, in that order; of states, params or anything with a leading axis.

    Raises:
      ValueError: for members that are not there, and for what has no axis of members.

    >>> take({"w": np.arange(3)}, [2, 0])["w"].tolist()
    [2, 0]
    """
    count, members = _count(states), np.asarray(_arrays.listed("members", members))
    if members.ndim != 1 or members.dtype.kind not in "iub" or (members.dtype == bool and len(members) != count):
        fix = "; member(states, i) is one of them, best(states, history) the best" if members.ndim == 0 else ""
        raise ValueError(f"members must list members' numbers, ints; got {_check.describe(members)}{fix}")
    if members.dtype == bool:
        members = np.flatnonzero(members)
    outside = members[(members < -count) | (members >= count)]
    if len(outside):
        raise ValueError(f"members must be in 0 ... {count - 1}; got {outside[0]}")
    if isinstance(states, list):
        return [states[i] for i in members]
    return jax.tree.map(lambda a: a[members], states)


def ranking(history: Mapping[str, Numeric], *, by: str | None = None, largest: bool | None = None) -> np.ndarray:
    """Return the members from best to worst, without those that diverged, which a warning counts.

    Args:
      history: of `population.fit` or `loop.train`.
      by: its entry to rank by: unless given, "validation_loss" where it is there, else "loss". A member counts at its
        best epoch where best weights were kept, else at its last. The losses of members that differ in a number of
        the loss itself are different quantities: rank those by a metric.
      largest: whether the largest value is the best. It is known of losses and of this library's metrics.

    Raises:
      ValueError: for an entry that is not there, one of which it is not known which way is better, or where every
        member diverged.

    >>> rates = [[0.2, 0.3], [0.7, 0.8]]  # of two members in two epochs
    >>> history = {"loss": np.ones((2, 2)), "validation_accuracy": np.array(rates)}
    >>> history |= {"status": np.zeros(2, int), "epochs": np.full(2, 2)}
    >>> ranking(history, by="validation_accuracy").tolist()
    [1, 0]
    """
    return _ranked(history, by, largest)


def best(
    states: States, history: Mapping[str, Numeric], *, by: str | None = None, largest: bool | None = None
) -> tuple[State, int]:
    """Return the state and the number of the best member; a warning counts those that diverged.

    Args:
      states: of all members, of `population.fit` or `loop.train`.
      history: of `population.fit` or `loop.train`.
      by: the entry of `history` to rank by: unless given, "validation_loss" where it is there, else "loss". A member
        counts at its best epoch where best weights were kept, else at its last. The losses of members that differ in a
        number of the loss itself are different quantities: rank those by a metric.
      largest: whether the largest value is the best. It is known of losses and of this library's metrics.

    Raises:
      ValueError: for an entry that is not there, one of which it is not known which way is better, or where every
        member diverged.
    """
    if _count(states) != len(members_history(history)["status"]):
        raise ValueError(
            f"states and history must be of one population; got {_count(states)} states and a history of "
            f"{len(history['status'])} members"
        )
    i = int(_ranked(history, by, largest)[0])
    return member(states, i), i


def _ranked(history: Mapping[str, Numeric], by: str | None, largest: bool | None) -> np.ndarray:
    """Return the healthy members from best to worst."""
    history = members_history(history)
    by = ("validation_loss" if "validation_loss" in history else "loss") if by is None else by
    figure = Figure(by, largest)
    figure.check(history)
    status = np.asarray(history["status"])
    last = np.asarray(history["best_epoch"] if "best_epoch" in history else np.maximum(history["epochs"] - 1, 0))
    score = figure.less(np.asarray(history[by]))[np.arange(len(status)), last]
    return ranked(score, status != Status.DIVERGED, by)


def ranked(score: np.ndarray, fit: np.ndarray, by: str, what: str = "members") -> np.ndarray:
    """Return who has the least score first; a warning counts those who are not fit, or whose score is not finite.

    Raises:
      ValueError: where nobody is left.
    """
    healthy = np.flatnonzero(fit & np.isfinite(score))
    if len(healthy) == len(fit):
        return healthy[np.argsort(score[healthy], kind="stable")]
    told = f"{np.sum(~fit)} of {len(fit)} {what} diverged" if not fit.all() else ""
    if lacking := np.sum(fit & ~np.isfinite(score)):
        told += f"{' and ' if told else ''}{lacking} of {len(fit)} {what} have a {by} that is not finite"
    if len(healthy) == 0:
        if not fit.any():
            raise ValueError(f"all {len(fit)} {what} diverged; try smaller learning rates")
        raise ValueError(f"by must name a figure that is finite for some {what[:-1]}; {told}; rank by another")
    warnings.warn(f"{told} and are left out", stacklevel=_check.level_of_caller())
    return healthy[np.argsort(score[healthy], kind="stable")]


def members_history(history: Any) -> Mapping[str, Numeric]:
    """Return the history of a population.

    Raises:
      ValueError: for what is no mapping, and for the history of one network.
    """
    if not isinstance(history, Mapping):
        raise ValueError(f"history must be that of population.fit or loop.train; got {_check.describe(history)}")
    missing = [name for name in ("loss", "status", "epochs") if name not in history]
    if missing:
        raise ValueError(
            f"history must be that of a population, with {', '.join(missing)} of its members; got "
            f"{', '.join(map(str, history)) or 'an empty one'}; of one network there is nothing to choose"
        )
    history = here("history", dict(history))
    found = {name: np.asarray(_arrays.listed(f"history[{name!r}]", values)) for name, values in history.items()}
    members, epochs = found["loss"].shape if found["loss"].ndim == 2 else (0, 0)
    for name in ("status", "epochs", *(["best_epoch"] if "best_epoch" in found else [])):
        values = found[name]
        if values.shape != (members,) or members == 0 or values.dtype.kind not in "iu":
            raise ValueError(
                f"history[{name!r}] must be integers (members,), for a loss (members, epochs); got "
                f"{_check.describe(values)} and {_check.describe(found['loss'])}"
            )
        if name != "status" and (values.min() < 0 or values.max() > epochs):
            raise ValueError(f"history[{name!r}] must be in 0 ... {epochs}, the epochs of the run; got {values}")
    return found


def _count(states: Any) -> int:
    """Return how many members there are: of recipes of several shapes the states are a list."""
    if isinstance(states, list):
        if not all(hasattr(state, "params") for state in states):
            raise ValueError(f"states must be the members' states, as population.fit gives; got {_check.shown(states)}")
        return len(states)
    return members_of("states", states)
