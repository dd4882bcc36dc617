"""Metrics of classification beyond accuracy: scikit-learn's numbers, weighted, of fixed shapes for `jit` and `vmap`.

What the targets are is read from their shape:

- one logit an example, outputs (batch,) or (batch, 1), targets 0 or 1 of either shape;
- classes: logits (batch, classes) and integer labels (batch,);
- many labels an example: logits (batch, labels) and targets (batch, labels) of 0 and 1.

An example of weight zero is left out, as if it were not there. A metric is NaN where outputs are NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _check, _weights
from jaxmlp._arrays import taking
from jaxmlp._labels import Answers, Labels, answers_of, honest, read
from jaxmlp._targets import number, spread
from jaxmlp.types import Number, Numeric

AVERAGES = ("binary", "macro", "micro", "weighted")


@taking("outputs", "targets", "weight")
def binary_accuracy(
    outputs: Numeric, targets: Numeric, *, threshold: Number = 0.5, weight: Numeric | None = None
) -> Array:
    """Return the share of examples whose one label is predicted: yes where sigmoid(output) > threshold.

    Shapes: logits (batch,) or (batch, 1), targets 0 or 1 of either shape.

    Raises:
      ValueError: for other shapes, targets that are neither 0 nor 1, or a threshold outside [0, 1].

    >>> binary_accuracy(jnp.array([[-5.0], [-5.0], [5.0]]), jnp.array([[1], [0], [1]])).round(3)
    Array(0.667, dtype=float32)
    """
    answers = answers_of("binary_accuracy", outputs, targets, weight, one=True)
    return _share_of(_yes(answers, threshold) == answers.truth, answers, weight)


@taking("outputs", "targets", "weight")
def multilabel_accuracy(
    outputs: Numeric, targets: Numeric, *, threshold: Number = 0.5, weight: Numeric | None = None
) -> Array:
    """Return the share of all labels of all examples that are predicted: one minus the Hamming loss.

    Shapes: logits (batch, labels), targets (batch, labels) of 0 and 1. A label is predicted as yes where
    sigmoid(output) > threshold.

    Raises:
      ValueError: for other shapes, targets that are neither 0 nor 1, or a threshold outside [0, 1].

    >>> multilabel_accuracy(jnp.array([[5.0, -5.0], [5.0, 5.0]]), jnp.array([[1, 0], [1, 0]]))
    Array(0.75, dtype=float32)
    """
    answers = answers_of("multilabel_accuracy", outputs, targets, weight, one=False)
    return _share_of(_yes(answers, threshold) == answers.truth, answers, weight)


@taking("outputs", "targets", "weight")
def exact_match(outputs: Numeric, targets: Numeric, *, threshold: Number = 0.5, weight: Numeric | None = None) -> Array:
    """Return the share of examples all of whose labels are predicted, the subset accuracy.

    Shapes: logits (batch, labels), targets (batch, labels) of 0 and 1. A label is predicted as yes where
    sigmoid(output) > threshold.

    Raises:
      ValueError: for other shapes, targets that are neither 0 nor 1, or a threshold outside [0, 1].

    >>> exact_match(jnp.array([[5.0, -5.0], [5.0, 5.0]]), jnp.array([[1, 0], [1, 0]]))
    Array(0.5, dtype=float32)
    """
    answers = answers_of("exact_match", outputs, targets, weight, one=False)
    return _share_of(jnp.all(_yes(answers, threshold) == answers.truth, axis=-1), answers, weight)


@taking("outputs", "targets", "weight")
def precision(
    outputs: Numeric,
    targets: Numeric,
    *,
    average: str | None = None,
    threshold: Number = 0.5,
    multilabel: bool | None = None,
    weight: Numeric | None = None,
) -> Array:
    """Return true positives / predicted positives; 0 where nothing is predicted.

    Args:
      outputs: logits: (batch,) or (batch, 1) for one label, (batch, classes) or (batch, labels) for several.
      targets: 0 or 1 for one label, integers (batch,) for classes, (batch, labels) of 0 and 1 for many labels.
      average: over the classes or labels: "macro", their mean, of classes only those that occur or are predicted
        among the examples that count (scikit-learn takes in those of weight zero too);
        "micro", of the sums of all; "weighted", by how often each occurs; "binary", that of label 1 of one logit.
        None is "binary" for one logit, else "macro".
      threshold: yes is where sigmoid(output) is above it; classes have none.
      multilabel: says what one-hot rows of targets are: many labels (True) or classes (False).
      weight: (batch,), what each example counts.

    Raises:
      ValueError: for targets that do not fit, one-hot rows that could be either, and unknown averages.

    >>> precision(jnp.array([5.0, 5.0, -5.0]), jnp.array([1, 0, 1]))
    Array(0.5, dtype=float32)
    """
    found = _found("precision", outputs, targets, weight, (average, threshold, multilabel))
    return found.score(found.hits, found.predicted)


@taking("outputs", "targets", "weight")
def recall(
    outputs: Numeric,
    targets: Numeric,
    *,
    average: str | None = None,
    threshold: Number = 0.5,
    multilabel: bool | None = None,
    weight: Numeric | None = None,
) -> Array:
    """Return true positives / positives; 0 where there are none.

    Shapes: logits (batch,), (batch, 1), (batch, classes) or (batch, labels), targets 0 or 1, integers (batch,) or
    (batch, labels) of 0 and 1. `average`, `threshold`, `multilabel`, `weight`, ValueErrors: as in `precision`.

    >>> recall(jnp.array([5.0, -5.0, -5.0]), jnp.array([1, 1, 0]))
    Array(0.5, dtype=float32)
    """
    found = _found("recall", outputs, targets, weight, (average, threshold, multilabel))
    return found.score(found.hits, found.present)


@taking("outputs", "targets", "weight")
def f1(
    outputs: Numeric,
    targets: Numeric,
    *,
    average: str | None = None,
    threshold: Number = 0.5,
    multilabel: bool | None = None,
    weight: Numeric | None = None,
) -> Array:
    """Return 2 true positives / (predicted positives + positives), the harmonic mean of precision and recall.

    It is 0 where there are neither. Shapes: logits (batch,), (batch, 1), (batch, classes) or (batch, labels), targets 0
    or 1, integers (batch,) or (batch, labels) of 0 and 1; the options and the ValueErrors are as in `precision`.

    >>> f1(jnp.array([5.0, -5.0, -5.0]), jnp.array([1, 1, 0])).round(3)
    Array(0.667, dtype=float32)
    """
    found = _found("f1", outputs, targets, weight, (average, threshold, multilabel))
    return found.score(2 * found.hits, found.predicted + found.present)


@taking("outputs", "targets", "weight")
def confusion_matrix(
    outputs: Numeric,
    targets: Numeric,
    *,
    threshold: Number = 0.5,
    multilabel: bool | None = None,
    weight: Numeric | None = None,
) -> Array:
    """Return how many examples, or what weight of them, of each class (rows) are predicted as each (columns).

    Shapes: one logit -> (2, 2); classes -> (classes, classes); many labels -> (labels, 2, 2). The options and
    the ValueErrors are as in `precision`.

    >>> confusion_matrix(jnp.array([5.0, -5.0, -5.0]), jnp.array([1, 1, 0]))
    Array([[1., 0.],
           [1., 1.]], dtype=float32)
    """
    read_ = read("confusion_matrix", outputs, targets, weight, multilabel)
    if isinstance(read_, Labels):
        pairs, classes = (read_.label, read_.guess), outputs.shape[1]
        return honest(_table(*pairs, weight, classes), read_.sound, weight)
    truth, yes = (a.T.astype(jnp.int32) for a in (read_.truth, _yes(read_, threshold)))  # (labels, batch)
    tables = jax.vmap(lambda t, y: _table(t, y, weight, 2))(truth, yes)
    return honest(tables if outputs.shape[1:] not in ((), (1,)) else tables[0], read_.sound, weight)


def _table(label: Array, guess: Array, weight: Numeric | None, classes: int) -> Array:
    cell = label * classes + guess
    if weight is None:  # whole numbers are counted as such
        counts = jax.ops.segment_sum(jnp.ones_like(cell), cell, classes * classes).astype(jnp.float32)
    else:
        counts = jax.ops.segment_sum(_weights.raw(weight, len(cell), jnp.float32), cell, classes * classes)
    return counts.reshape(classes, classes)


class _Found(NamedTuple):
    """What was found of each class or label, (labels,)."""

    hits: Array
    predicted: Array
    present: Array
    average: str
    classes: bool
    sound: Array
    weight: Numeric | None

    def score(self, part: Array, whole: Array) -> Array:
        """Return part / whole, averaged."""
        if self.average == "micro":
            value = _ratio(part.sum(), whole.sum())
        elif self.average == "weighted":
            value = _ratio(jnp.sum(_ratio(part, whole) * self.present), self.present.sum())
        else:
            counts = (self.predicted + self.present > 0) | (not self.classes)
            value = _ratio(jnp.sum(_ratio(part, whole)), counts.sum().astype(part.dtype))
        return honest(value, self.sound, self.weight)


def _found(
    metric: str,
    outputs: Numeric,
    targets: Numeric,
    weight: Numeric | None,
    options: tuple[str | None, Number, bool | None],
) -> _Found:
    average, threshold, multilabel = options
    read_ = read(metric, outputs, targets, weight, multilabel)
    single = outputs.shape[1:] in ((), (1,))
    _check.one_of("average", "macro" if average is None else average, AVERAGES)
    if average == "binary" and not single:
        raise ValueError(f"average must be macro, micro or weighted for several classes or labels; got {average!r}")
    average = average or ("binary" if single else "macro")
    if isinstance(read_, Labels):
        guess, truth = (jax.nn.one_hot(a, outputs.shape[1], dtype=bool) for a in (read_.guess, read_.label))
    else:
        guess, truth = _yes(read_, threshold), read_.truth
        if single and average != "binary":  # both answers are classes then, as scikit-learn has it
            guess, truth = (jnp.concatenate([~a, a], axis=1) for a in (guess, truth))
    dtype = read_.score.dtype if isinstance(read_, Answers) else jnp.float32
    both, guessed, true = (_weights.sums(a, weight, dtype) for a in (guess & truth, guess, truth))
    return _Found(
        both, guessed, true, average, isinstance(read_, Labels) or average != "binary" and single, read_.sound, weight
    )


def _yes(answers: Answers, threshold: Number) -> Array:
    """Compare logits, since the sigmoid of a large one is 1."""
    number("threshold", threshold, 0, 1)
    t = spread("threshold", threshold, answers.score)
    return answers.score > jnp.broadcast_to(jnp.log(t) - jnp.log1p(-t), answers.score.shape)


def _share_of(hit: Array, answers: Answers, weight: Numeric | None) -> Array:
    hits, misses = (_weights.sums(a, weight, jnp.float32).sum() for a in (hit, ~hit))
    return honest(_ratio(hits, hits + misses), answers.sound, weight)


def _ratio(part: Array, whole: Array) -> Array:
    return part / jnp.where(whole > 0, whole, jnp.ones_like(whole))
