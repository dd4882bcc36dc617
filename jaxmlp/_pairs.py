"""Losses of an example among the others of its batch: contrast and order of survival. They ask for the weight.

What fills up a short batch has weight zero, and takes no part in the sums over the others.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _check
from jaxmlp._arrays import taking
from jaxmlp._targets import number, wide
from jaxmlp.types import Number, Numeric


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
    counts = counts_of(weight, len(a))
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
    counts = counts_of(weight, n)
    at_risk = (time[None, :] >= time[:, None]) & counts[None, :]
    share: Any = jnp.zeros_like(hazard)
    if weight is not None:
        share = jnp.log(jnp.where(counts, jnp.asarray(weight, hazard.dtype), jnp.ones_like(hazard)))
    terms = jnp.broadcast_to((hazard + share)[None, :], at_risk.shape)
    terms = jnp.where(at_risk, terms, jnp.full_like(terms, -jnp.inf))
    counted = counts & (event > 0)
    total = jax.nn.logsumexp(jnp.where(counted[:, None], terms, jnp.zeros_like(terms)), axis=1)
    return jnp.where(counted, total - hazard, jnp.zeros_like(hazard))


def counts_of(weight: Numeric | None, n: int) -> Array:
    """Tell which of n examples count at all, (n,)."""
    if weight is None:
        return jnp.ones(n, bool)
    if weight.shape != (n,):
        raise ValueError(f"weight must have shape ({n},), one an example; got {_check.describe(weight)}")
    return jnp.asarray(weight) > 0


def _of_length_one(rows: Array) -> Array:
    squared = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    return rows * jnp.broadcast_to(jax.lax.rsqrt(squared + jnp.finfo(rows.dtype).tiny), rows.shape)
