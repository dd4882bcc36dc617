"""Picking members out of a trained population: one, the best, or those whose average is."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp._eager import compile_once
from jaxmlp._engine.parts import at
from jaxmlp._naming import largest_is_best
from jaxmlp.training import State
from jaxmlp.types import Numeric, PyTree, States, Status


def member(states: States, i: int) -> State:
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
        return at(states, i % count)
    return jax.tree.map(lambda a: a[i], states)


def take(states: PyTree, members: Sequence[int] | Numeric) -> PyTree:
    """Return the population of those members, in that order; of states, params or anything with a leading axis."""
    members = np.asarray(members)
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

    >>> history = {"validation_accuracy": np.array([[0.2], [0.8]]), "status": np.zeros(2), "epochs": np.ones(2, int)}
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
    i = int(_ranked(history, by, largest)[0])
    return member(states, i), i


def greedy(predictions: Numeric, score: Callable[[Array], Array], *, rounds: int) -> np.ndarray:
    """Choose members with repetition, each time the one whose addition gives the average the lowest score.

    Caruana 2004 (doi 10.1145/1015330.1015432). The ensemble is the average over the
    chosen members, `predictions[chosen].mean(0)`; the best of all its prefixes is given back.

    Args:
      predictions: (members, batch, ...) of what the ensemble averages: probabilities, means, densities; on validation
        data.
      score: average (batch, ...) -> number, lower is better, as lambda p: -jnp.log(p[rows, labels]).mean(). It is
        compiled at each call of `greedy`; a `jax.tree_util.Partial(function, *arrays)`, which calls
        function(*arrays, average), only at the first.
      rounds: the most members to choose.

    Returns:
      The members chosen, a number as often as it was chosen.

    Raises:
      ValueError: for scores that are not finite for any member.

    >>> greedy(jnp.array([[0.0], [4.0], [9.0]]), lambda p: jnp.abs(p - 2.0).sum(), rounds=4).tolist()
    [0, 1]
    """
    predictions = jnp.asarray(predictions)
    if isinstance(score, jax.tree_util.Partial):
        scores = partial(_compiled_score_with_each, score)
    else:  # a function may read arrays that have changed since the last call, so what it was then is not kept
        scores = jax.jit(lambda *args: _score_with_each(score, *args))
    total, chosen, best = jnp.zeros_like(predictions[0]), [], []
    for i in range(_check.positive_int("rounds", rounds)):
        size = jnp.asarray(i + 1, predictions.dtype)
        found = np.asarray(scores(predictions, total, size))
        if not np.isfinite(found).any():
            raise ValueError("score must be finite for some member; it is for none")
        chosen.append(int(np.nanargmin(found)))
        best.append(float(np.nanmin(found)))
        total = total + predictions[chosen[-1]]
    return np.array(chosen[: int(np.argmin(best)) + 1])


def _ranked(history: Mapping[str, Numeric], by: str | None, largest: bool | None) -> np.ndarray:
    """Return the healthy members from best to worst."""
    by = by or ("validation_loss" if "validation_loss" in history else "loss")
    _check.one_of("by", by, [name for name, value in history.items() if np.ndim(value) == 2])
    status = np.asarray(history["status"])
    last = np.asarray(history["best_epoch"] if "best_epoch" in history else np.maximum(history["epochs"] - 1, 0))
    score = np.asarray(history[by])[np.arange(len(status)), last]
    if largest_is_best(by, largest):
        score = -score
    healthy = np.flatnonzero((status != Status.DIVERGED) & np.isfinite(score))
    if len(healthy) == 0:
        raise ValueError(f"all {len(status)} members diverged; try smaller learning rates")
    if len(healthy) < len(status):
        left_out = f"{len(status) - len(healthy)} of {len(status)} members diverged and are left out"
        warnings.warn(left_out, stacklevel=3)  # at the line that called `best` or `ranking`
    return healthy[np.argsort(score[healthy], kind="stable")]


def _score_with_each(score: Callable[[Array], Array], predictions: Array, total: Array, size: Array) -> Array:
    """Return the score of the average with each member added to `total`, (members,)."""
    return jax.lax.map(lambda p: score((total + p) / size), predictions)


_compiled_score_with_each = compile_once()(_score_with_each)
