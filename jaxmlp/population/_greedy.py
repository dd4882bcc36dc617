"""Choosing the members of an ensemble by the score of their average."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arguments, _arrays, _check, metrics
from jaxmlp._choice import HIGHER, Figure, largest_is_best
from jaxmlp._eager import compile_once
from jaxmlp._mesh import on_automatic_axes
from jaxmlp.types import Numeric


@on_automatic_axes
def greedy(
    predictions: Numeric, score: Callable[[Array], Array], *, rounds: int, largest: bool | None = None
) -> np.ndarray:
    """Choose members with repetition, each time the one whose addition gives the average the best score.

    Caruana 2004 (doi 10.1145/1015330.1015432). The ensemble is the average over the
    chosen members, `predictions[chosen].mean(0)`; the best of all its prefixes is given back.

    Args:
      predictions: (members, batch, ...) of what the ensemble averages: probabilities, means, densities; on validation
        data.
      score: average (batch, ...) -> number. Of a function of your own, as lambda p: -jnp.log(p[rows, labels]).mean(),
        lower is better; a metric of this library, as partial(metrics.accuracy, targets=y), has its own direction. It
        is compiled at each call of `greedy`; a `jax.tree_util.Partial(function, *arrays)`, which calls
        function(*arrays, average), only at the first.
      rounds: the most members to choose.
      largest: whether the largest score is the best, where that is not as `score` says.

    Returns:
      The members chosen, a number as often as it was chosen.

    Raises:
      ValueError: for scores that are not finite for any member, for a metric of this library that has no better and
        worse, and for a function of your own that is called as one whose largest value is the best, without `largest`.

    >>> greedy(jnp.array([[0.0], [4.0], [9.0]]), lambda p: jnp.abs(p - 2.0).sum(), rounds=4).tolist()
    [0, 1]
    >>> votes, y = jnp.array([[[0.9, 0.1]] * 2, [[0.4, 0.6]] * 2]), jnp.array([1, 1])
    >>> greedy(votes, partial(metrics.accuracy, targets=y), rounds=1).tolist()
    [1]
    """
    predictions = jnp.asarray(_arrays.array("predictions", predictions))
    if predictions.ndim < 2 or 0 in predictions.shape:
        raise ValueError(f"predictions must have shape (members, batch, ...); got {_check.describe(predictions)}")
    if not jnp.issubdtype(predictions.dtype, jnp.floating):
        raise ValueError(f"predictions must hold floats; got {_check.describe(predictions)}")
    _arguments.takes("score", score, 1, "the average of members, (batch, ...) -> a number")
    figure = _figure(score, largest)
    if isinstance(score, jax.tree_util.Partial):
        scores = partial(_compiled_score_with_each, score)
    else:  # a function may read arrays that have changed since the last call, so what it was then is not kept
        scores = jax.jit(lambda *args: _score_with_each(score, *args))
    total, chosen, best = jnp.zeros_like(predictions[0]), [], []
    for i in range(_check.positive_int("rounds", rounds, most=10**6)):
        size = jnp.asarray(i + 1, predictions.dtype)
        found = np.asarray(_scored(scores, predictions, total, size))
        if found.shape != predictions.shape[:1]:
            raise ValueError(f"score must return one number; got an array of shape {found.shape[1:]}")
        if not np.isfinite(found).any():
            raise ValueError("score must be finite for some member; it is for none")
        found = np.where(np.isfinite(found), figure.less(found), np.nan)  # an infinity is no better a score
        chosen.append(int(np.nanargmin(found)))
        best.append(float(np.nanmin(found)))
        total = total + predictions[chosen[-1]]
    return np.array(chosen[: int(np.argmin(best)) + 1])


def _figure(score: Any, largest: bool | None) -> Figure:
    """Return the score as a figure: a metric of ours has its own direction, of any other function lower is better.

    Ours is known by what it is and not by its name, within partials and `jax.jit`.
    """
    while isinstance(score, partial | jax.stages.Wrapped):
        score = score.func if isinstance(score, partial) else getattr(score, "__wrapped__", None)
    name = _check.name_of(score)
    if largest is None and getattr(metrics, name, None) is not score:
        if name in HIGHER:
            raise ValueError(
                f"score must say which way is better; got a function called {name!r} that is not this library's, whose "
                f"largest value is the best; pass largest=True where that is so of yours, else largest=False"
            )
        largest = False
    return Figure(name, largest_is_best(name, largest, "score"))


def _scored(scores: Callable[..., Array], *args: Array) -> Array:
    try:
        return scores(*args)
    except TypeError as error:
        if "traced for scan returned a value" in str(error):
            raise ValueError("score must return one number, an array () of JAX; it returned something else") from error
        raise


def _score_with_each(score: Callable[[Array], Array], predictions: Array, total: Array, size: Array) -> Array:
    """Return the score of the average with each member added to `total`, (members,)."""
    return jax.lax.map(lambda p: score((total + p) / size), predictions)


_compiled_score_with_each = compile_once()(_score_with_each)
