"""Losses of an example among others: contrast, order and survival. Those within a batch ask for the weight.

What fills up a short batch has weight zero, and takes no part in the sums over the others.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxmlp import _check
from jaxmlp._arrays import array, taking
from jaxmlp._targets import number, wide, widest
from jaxmlp.types import Number, Numeric, PyTree


@taking("outputs", "targets", "weight")
def info_nce(outputs: Numeric, targets: Numeric, *, temperature: Number = 0.1, weight: Numeric | None = None) -> Array:
    """Return -log of the share of the right pair: exp(a_i b_i / t) / sum_j exp(a_i b_j / t), rows of length 1.

    Van den Oord 2018 (arXiv 1807.03748). Shapes: embeddings (batch, d) of one view and of the other -> (batch,). A
    model of both returns a pair, and a function hands it on: lambda o, y, *, weight: info_nce(*o, weight=weight).

    Args:
      outputs: (batch, d).
      targets: (batch, d); row i belongs to row i.
      temperature: above 0.
      weight: (batch,); an example of weight zero is no other's negative.

    Raises:
      ValueError: for shapes that differ, and for a temperature that is not above 0.

    >>> info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0).round(4)
    Array([0.3133, 0.3133], dtype=float32)
    """
    for name, value in (("outputs", outputs), ("targets", targets)):
        _check.floating(name, value)
    if outputs.ndim != 2 or outputs.shape != targets.shape:
        raise ValueError(
            f"outputs and targets must be embeddings of one shape (batch, d); got {_check.describe(outputs)} and "
            f"{_check.describe(targets)}"
        )
    number("temperature", temperature, 0, float("inf"), open_low=True)
    a, b = (_of_length_one(wide(value)) for value in (outputs, targets))
    alike = a @ b.T.astype(a.dtype) / jnp.asarray(temperature, a.dtype)
    counts = _counts(weight, len(a))
    others = jnp.where(jnp.broadcast_to(counts[None, :], alike.shape), alike, jnp.full_like(alike, -jnp.inf))
    right = jnp.diagonal(alike)
    total = jax.nn.logsumexp(others, axis=1)
    return jnp.where(counts, total - right, jnp.zeros_like(right))


@taking("outputs", "targets", "weight")
def cox(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return event_i (log sum_{j: t_j >= t_i} w_j exp(o_j) - o_i), the negative log partial likelihood (Cox 1972).

    Cox 1972, doi 10.1111/j.2517-6161.1972.tb00899.x, ties as Breslow has them; as a network Katzman 2018 (arXiv
    1606.00931). Those at risk are the others of the batch: take batch_size=None for the likelihood of all.

    Args:
      outputs: (batch,) or (batch, 1), log hazards.
      targets: (batch, 2): the time, and 1 where the event was seen, 0 where observation ended before it.
      weight: (batch,), what each example counts among those at risk.

    Raises:
      ValueError: for other shapes, and for events that are neither 0 nor 1 where they are known.

    >>> cox(jnp.zeros((2, 1)), jnp.array([[1.0, 1.0], [2.0, 0.0]])).round(4)
    Array([0.6931, 0.    ], dtype=float32)
    """
    _check.floating("outputs", outputs)
    _check.floating("targets", targets)
    n = len(targets)
    if outputs.shape not in ((n,), (n, 1)) or targets.shape != (n, 2):
        raise ValueError(
            f"outputs and targets must be log hazards (batch, 1) and (batch, 2), time and event; got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    known = _check.on_host(targets)
    if known is not None and not ((known[:, 1] == 0) | (known[:, 1] == 1)).all():
        raise ValueError("targets[:, 1] must be 1 for an event and 0 where there was none; got other numbers")
    hazard = wide(outputs).reshape(n)
    time, event = jnp.asarray(targets, hazard.dtype).T
    counts = _counts(weight, n)
    at_risk = (time[None, :] >= time[:, None]) & counts[None, :]
    share: Any = jnp.zeros_like(hazard)
    if weight is not None:
        share = jnp.log(jnp.where(counts, jnp.asarray(weight, hazard.dtype), jnp.ones_like(hazard)))
    terms = jnp.broadcast_to((hazard + share)[None, :], at_risk.shape)
    terms = jnp.where(at_risk, terms, jnp.full_like(terms, -jnp.inf))
    counted = counts & (event > 0)
    total = jax.nn.logsumexp(jnp.where(counted[:, None], terms, jnp.zeros_like(terms)), axis=1)
    return jnp.where(counted, total - hazard, jnp.zeros_like(hazard))


def triplet(outputs: PyTree, targets: Any = None, *, margin: Number = 1.0) -> Array:
    """Return max(|a - p| - |a - n| + margin, 0): an anchor lies nearer to its like than to another, by a margin.

    Of embeddings (batch, d) a, p and n -> (batch,), by `optax.losses.triplet_margin_loss`: of distances as Balntas 2016
    (doi 10.5244/C.30.119) has it, each sqrt(sum of squares + 1e-6), where Schroff 2015 (arXiv 1503.03832) squares them.
    A Siamese net applies one model to the three, x = (anchor, positive, negative), with data=(x,).

    Args:
      outputs: (anchor, positive, negative), or a dict of these three names.
      targets: none; what is given is not looked at.
      margin: not negative.

    Raises:
      ValueError: for outputs that are no such three of one shape, and for a negative margin.

    >>> triplet((jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([[0.5, 0.0]]))).round(3)
    Array([0.501], dtype=float32)
    """
    names = ("anchor", "positive", "negative")
    if isinstance(outputs, Mapping) and set(outputs) == set(names):
        outputs = [outputs[name] for name in names]
    if not isinstance(outputs, tuple | list) or len(outputs) != 3:
        raise ValueError(
            f"outputs must be embeddings (anchor, positive, negative), or a dict of these names; got "
            f"{list(outputs) if isinstance(outputs, Mapping) else _check.describe(outputs)}"
        )
    three: list[Any] = [array(name, value) for name, value in zip(names, outputs, strict=True)]
    for name, value in zip(names, three, strict=True):
        _check.floating(name, value)
        if value.ndim != 2 or value.shape != three[0].shape:
            raise ValueError(f"anchor, positive and negative must have one shape (batch, d); got {_shapes(three)}")
    number("margin", margin, 0, float("inf"))
    if jnp.ndim(margin):
        raise ValueError(f"margin must be one number; got {_check.describe(margin)}")
    dtype = widest(*three)
    a, p, n = (jnp.asarray(value, dtype) for value in three)
    return optax.losses.triplet_margin_loss(a, p, n, margin=jnp.asarray(margin, dtype))


@taking("outputs", "targets", "weight")
def pairwise_ranking(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return sum_{j: y_j < y_i} w_j log(1 + exp(o_j - o_i)) / sum_j w_j: what is more relevant has the higher score.

    RankNet (Burges 2005, doi 10.1145/1102351.1102363): each pair of the batch whose relevances differ is a logistic
    regression of which comes first; ties say nothing. Of all pairs at once with batch_size=None.

    Args:
      outputs: (batch,) or (batch, 1), scores.
      targets: (batch,) or (batch, 1), relevances, floats or integers.
      weight: (batch,), what each example counts among those below another.

    Raises:
      ValueError: for other shapes.

    >>> pairwise_ranking(jnp.array([0.0, 0.0]), jnp.array([1, 0])).round(4)
    Array([0.3466, 0.    ], dtype=float32)
    """
    _check.floating("outputs", outputs)
    n = len(outputs) if outputs.ndim else 0
    if not all(a.shape in ((n,), (n, 1)) and n for a in (outputs, targets)):
        raise ValueError(
            f"outputs and targets must be scores and relevances, (batch,) or (batch, 1); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    score, relevance = wide(outputs).reshape(n), jnp.asarray(targets).reshape(n)
    counts = _counts(weight, n)
    each = counts.astype(score.dtype) if weight is None else jnp.asarray(weight, score.dtype)
    below = (relevance[None, :] < relevance[:, None]) & counts[None, :] & counts[:, None]
    terms = jax.nn.softplus(score[None, :] - score[:, None]) * jnp.broadcast_to(each[None, :], (n, n))
    total = jnp.sum(each)
    found = jnp.sum(jnp.where(below, terms, jnp.zeros_like(terms)), axis=1)
    return found / jnp.where(total > 0, total, jnp.ones_like(total))


def _shapes(values: list[Any]) -> str:
    return ", ".join(map(_check.describe, values))


def _counts(weight: Numeric | None, n: int) -> Array:
    if weight is None:
        return jnp.ones(n, bool)
    if weight.shape != (n,):
        raise ValueError(f"weight must have shape ({n},), one an example; got {_check.describe(weight)}")
    return jnp.asarray(weight) > 0


def _of_length_one(rows: Array) -> Array:
    squared = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    return rows * jnp.broadcast_to(jax.lax.rsqrt(squared + jnp.finfo(rows.dtype).tiny), rows.shape)
