"""Losses of what is near and of what comes first: triplets of embeddings, and pairs of scores."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arrays, _check
from jaxmlp._arrays import taking
from jaxmlp._pairs import counts_of
from jaxmlp._targets import number, wide
from jaxmlp.types import Number, Numeric, PyTree


def triplet(outputs: PyTree, targets: Any = None, *, margin: Number = 1.0) -> Array:
    """Return max(0, |a - p|^2 - |a - n|^2 + margin) of an anchor a, a positive p and a negative n.

    Schroff 2015, arXiv 1503.03832. The model gives the three embeddings, as a Siamese net does that applies one net to
    the three parts of x; there are no targets.

    Args:
      outputs: (anchor, positive, negative), (batch, d) each.
      targets: not looked at; None or left out in the data.
      margin: by how much the squared distances shall differ, at least 0.

    Raises:
      ValueError: for outputs that are not three embeddings of one shape, or a negative margin.

    >>> triplet((jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.zeros((1, 2))))
    Array([3.], dtype=float32)
    """
    number("margin", margin, 0, np.inf)
    parts = [_arrays.array("outputs", part) for part in outputs] if isinstance(outputs, tuple | list) else []
    if len(parts) != 3 or parts[0].ndim != 2 or any(part.shape != parts[0].shape for part in parts):
        got = ", ".join(map(_check.describe, parts)) or _check.describe(outputs)
        raise ValueError(f"outputs must be (anchor, positive, negative), embeddings (batch, d) each; got {got}")
    for part in parts:
        _check.floating("outputs", part)
    anchor, positive, negative = map(wide, parts)
    near, far = (jnp.sum(jnp.square(anchor - other), axis=-1) for other in (positive, negative))
    gap = near - far + jnp.broadcast_to(jnp.asarray(margin, near.dtype), near.shape)
    return jnp.maximum(gap, jnp.zeros_like(gap))


@taking("outputs", "targets", "weight")
def pairwise_ranking(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return mean_j of [y_i > y_j] log(1 + exp(s_j - s_i)): scores s in the order of the relevances y.

    RankNet (Burges 2005, doi 10.1145/1102351.1102363). The mean over the batch is that over all its ordered pairs, so
    it does not grow with the batch; what fills up a short batch has weight zero and is in no pair.

    Args:
      outputs: scores (batch,) or (batch, 1).
      targets: relevances (batch,) or (batch, 1), or (batch, 2) with the number of the query that each belongs to:
        then only examples of one query are compared.
      weight: (batch,), what each example counts among the others.

    Raises:
      ValueError: for other shapes.

    >>> pairwise_ranking(jnp.array([0.0, 0.0]), jnp.array([1.0, 2.0])).round(4)
    Array([0.    , 0.3466], dtype=float32)
    """
    for name, value in (("outputs", outputs), ("targets", targets)):
        _check.floating(name, value)
    n = len(outputs) if outputs.ndim else 0
    if outputs.shape not in ((n,), (n, 1)) or targets.shape not in ((n,), (n, 1), (n, 2)):
        raise ValueError(
            f"outputs and targets must be scores (batch, 1), and relevances (batch, 1) or (batch, 2) with the query; "
            f"got {_check.describe(outputs)} and {_check.describe(targets)}"
        )
    score = wide(outputs).reshape(n)
    relevance, *query = jnp.asarray(targets, score.dtype).reshape(n, -1).T
    counts = counts_of(weight, n)
    share = counts.astype(score.dtype) if weight is None else jnp.asarray(weight, score.dtype)
    before = (relevance[:, None] > relevance[None, :]) & counts[:, None] & counts[None, :]
    for q in query:
        before &= q[:, None] == q[None, :]
    gap = score[None, :] - score[:, None]
    # Of pairs that do not count the gap is none, so that an infinite score of a row of padding spoils no gradient.
    each = jnp.where(before, jax.nn.softplus(jnp.where(before, gap, jnp.zeros_like(gap))), jnp.zeros_like(gap))
    total = jnp.sum(share)
    return each @ share / jnp.where(total > 0, total, jnp.ones_like(total))
