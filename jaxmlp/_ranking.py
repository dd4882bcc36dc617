"""Metrics of an order, how far positives stand above negatives: with ties and weights scikit-learn's numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _check, _weights
from jaxmlp._arrays import taking
from jaxmlp._eager import compile_once
from jaxmlp._labels import Labels, honest, read
from jaxmlp._targets import wide
from jaxmlp.types import Numeric

AVERAGES = ("macro", "micro", "weighted")


@taking("outputs", "targets", "weight")
def roc_auc(
    outputs: Numeric,
    targets: Numeric,
    *,
    average: str = "macro",
    multilabel: bool | None = None,
    weight: Numeric | None = None,
) -> Array:
    """Return the area under the ROC curve: the chance that a positive has a larger output than a negative.

    Equal outputs count one half. NaN where a label has no positives or no negatives, also as a part of an average.
    Classes are taken one against the rest, by their softmax.

    Args:
      outputs: logits: (batch,) or (batch, 1) for one label, (batch, classes) or (batch, labels) for several.
      targets: 0 or 1 for one label, integers (batch,) for classes, (batch, labels) of 0 and 1 for many labels.
      average: over the classes or labels: "macro", their mean; "micro", of all together; "weighted", by how often each
        occurs. One logit has none.
      multilabel: says what one-hot rows of targets are: many labels (True) or classes (False).
      weight: (batch,), what each example counts.

    Raises:
      ValueError: for targets that do not fit, one-hot rows that could be either, and unknown averages.

    >>> roc_auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]))
    Array(0.75, dtype=float32)
    """
    return _ranked("roc_auc", _area, outputs, targets, average, (multilabel, weight))


@taking("outputs", "targets", "weight")
def average_precision(
    outputs: Numeric,
    targets: Numeric,
    *,
    average: str = "macro",
    multilabel: bool | None = None,
    weight: Numeric | None = None,
) -> Array:
    """Return sum_n (recall_n - recall_{n-1}) precision_n over the thresholds, from the highest output down.

    0 where a label has no positives. Shapes: logits (batch,), (batch, 1), (batch, classes) or (batch, labels), targets
    0 or 1, integers (batch,) or (batch, labels) of 0 and 1; the options and the ValueErrors are as in `roc_auc`.

    >>> average_precision(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])).round(3)
    Array(0.833, dtype=float32)
    """
    return _ranked("average_precision", _mean_precision, outputs, targets, average, (multilabel, weight))


def _ranked(
    metric: str,
    of: Callable[[Array, Array, Array], Array],
    outputs: Numeric,
    targets: Numeric,
    average: str,
    options: tuple[bool | None, Numeric | None],
) -> Array:
    multilabel, weight = options
    _check.one_of("average", average, AVERAGES)
    found = read(metric, outputs, targets, weight, multilabel)
    if isinstance(found, Labels):
        score = jax.nn.log_softmax(wide(outputs))
        truth = jax.nn.one_hot(found.label, outputs.shape[1], dtype=bool)
    else:
        score, truth = found.score, found.truth
    n, labels = score.shape
    each = jnp.ones(n, score.dtype) if weight is None else _weights.checked(weight, n, score.dtype)
    each = jnp.broadcast_to(each[:, None], score.shape)
    if average == "micro":
        score, truth, each = (a.reshape(-1, 1) for a in (score, truth, each))
    score = jnp.where(each > 0, score, jnp.zeros_like(score))  # what is left out has no place in the order
    values = of(score, truth, each)
    if average == "weighted" and labels > 1:
        present = jnp.sum(jnp.where(truth, each, jnp.zeros_like(each)), axis=0)
        total = present.sum()
        value = jnp.sum(values * present) / jnp.where(total > 0, total, jnp.ones_like(total))
    else:
        value = values.mean()
    return honest(value, found.sound, weight)


@compile_once()
def _area(score: Array, truth: Array, weight: Array) -> Array:
    def one(score: Array, truth: Array, weight: Array) -> Array:
        order = jnp.argsort(score)
        positive, negative = _apart(truth, weight)
        below = jnp.concatenate([jnp.zeros(1, score.dtype), jnp.cumsum(negative[order])])
        first, last = (jnp.searchsorted(score[order], score, side=side) for side in ("left", "right"))
        return jnp.sum(positive / positive.sum() * (below[first] + below[last]) / 2) / negative.sum()

    return jax.vmap(one, 1)(score, truth, weight)


@compile_once()
def _mean_precision(score: Array, truth: Array, weight: Array) -> Array:
    def one(score: Array, truth: Array, weight: Array) -> Array:
        # Summed from the highest down: what stands there is few, and a difference of large sums would lose it.
        order = jnp.argsort(-score)
        positive, _ = _apart(truth, weight)
        last = jnp.searchsorted(-score[order], -score, side="right")
        hits, all_ = (jnp.cumsum(a[order])[last - 1] for a in (positive, weight))
        total = positive.sum()
        share = positive / jnp.where(total > 0, total, jnp.ones_like(total))
        return jnp.sum(share * hits / jnp.where(all_ > 0, all_, jnp.ones_like(all_)))

    return jax.vmap(one, 1)(score, truth, weight)


def _apart(truth: Array, weight: Array) -> tuple[Array, Array]:
    nothing = jnp.zeros_like(weight)
    return jnp.where(truth, weight, nothing), jnp.where(truth, nothing, weight)
