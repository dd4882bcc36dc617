"""What targets of classification mean, checked and not guessed: a label of several classes, yes or no, or many labels.

Values are checked where they are known on the host. While JAX traces they are not, and a metric of what does not fit is
NaN: never a number to believe.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check, _weights
from jaxmlp._targets import wide
from jaxmlp.types import Numeric

_BINARY = "for one logit an example use metrics.binary_accuracy, precision, recall, f1 or roc_auc"
_MANY = "for many labels an example use metrics.multilabel_accuracy or exact_match, for numbers rmse, mae or r2"


class Labels(NamedTuple):
    """One label of several classes an example."""

    label: Array  # (batch,) int32
    guess: Array  # (batch,) int32, the class of the largest output
    sound: Array  # (batch,), whether outputs and targets are what a label can be read from


class Answers(NamedTuple):
    """Yes or no, to each of the questions of an example."""

    truth: Array  # (batch, labels) bool
    score: Array  # (batch, labels), logits
    sound: Array  # (batch,)


def labels_of(metric: str, outputs: Numeric, targets: Numeric, weight: Numeric | None) -> Labels:
    """Read labels from outputs (batch, classes) and targets (batch,) of integers or (batch, classes) of probabilities.

    Raises:
      ValueError: naming the right metric for one logit, for many labels and for numbers.
    """
    _check.floating("outputs", outputs)
    if outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1):
        raise ValueError(
            f"outputs of metrics.{metric} must have shape (batch, classes), two classes or more; got "
            f"{_check.describe(outputs)}; {_BINARY}, for numbers rmse, mae or r2"
        )
    if outputs.ndim != 2 or not _check.is_array(targets) or targets.shape not in (outputs.shape, outputs.shape[:1]):
        column = _check.is_array(targets) and targets.shape == (*outputs.shape[:1], 1)
        raise ValueError(
            f"outputs must have shape (batch, classes) and targets (batch,) or (batch, classes); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
            f"{'; a column of labels is targets[:, 0]' if column else ''}"
        )
    return one_of(metric, outputs, targets, weight)


def one_of(metric: str, outputs: Numeric, targets: Numeric, weight: Numeric | None) -> Labels:
    """Read labels where the shapes fit."""
    classes = outputs.shape[1]
    if targets.ndim == 1:
        if jnp.issubdtype(targets.dtype, jnp.floating):
            raise ValueError(
                f"labels must be integers; got {_check.describe(targets)}; pass targets.astype('int32'); {_MANY}"
            )
        _check.labels("labels", targets, classes)
        targets = jnp.asarray(targets)
        label = targets.astype(jnp.int32)
        sound = (label >= 0) & (label < classes)
    else:
        _check_rows(metric, targets, weight)
        rows = wide(targets)
        label = jnp.argmax(rows, axis=-1).astype(jnp.int32)
        sound = jnp.all((rows >= 0) & (rows <= 1), axis=-1) & (jnp.abs(jnp.sum(rows, axis=-1) - 1) <= 1e-3)
    guess = jnp.argmax(outputs, axis=-1).astype(jnp.int32)
    return Labels(label, guess, sound & ~jnp.any(jnp.isnan(outputs), axis=-1))


def answers_of(metric: str, outputs: Numeric, targets: Numeric, weight: Numeric | None, *, one: bool) -> Answers:
    """Read yes or no from logits and targets of 0 and 1, (batch, labels) each; with `one`, a single label an example.

    Raises:
      ValueError: for other shapes, and for targets that are neither 0 nor 1, where they are known.
    """
    _check.floating("outputs", outputs)
    shapes = [a.shape[:1] if a.shape[1:] == (1,) else a.shape for a in (outputs, targets) if _check.is_array(a)]
    if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) not in ((1,) if one else (1, 2)):
        wanted = "(batch,) or (batch, 1), one logit an example" if one else "one shape (batch, labels)"
        other = "metrics.accuracy, for many labels metrics.multilabel_accuracy or exact_match"
        raise ValueError(
            f"outputs and targets of metrics.{metric} must have {wanted}; got {_check.describe(outputs)} and "
            f"{_check.describe(targets)}{f'; for several classes use {other}' if one else ''}"
        )
    known, counted = _check.on_host(targets), _weights.known_counts(weight, len(outputs))
    if known is not None and counted is not None:
        bad = known[counted][~np.isin(known[counted].astype(np.float64), (0, 1))]
        if bad.size:
            raise ValueError(f"targets of metrics.{metric} must be 0 or 1; got {bad[0]}; round what is softer")
    truth = wide(targets).reshape(len(targets), -1)
    score = wide(outputs).reshape(len(outputs), -1)
    sound = jnp.all(((truth == 0) | (truth == 1)) & ~jnp.isnan(score), axis=-1)
    return Answers(truth == 1, score, sound)


def read(
    metric: str, outputs: Numeric, targets: Numeric, weight: Numeric | None, multilabel: bool | None
) -> Labels | Answers:
    """Read what the targets are: (batch,) labels of the classes; (batch, labels) of 0 and 1; for one logit, yes or no.

    One-hot rows could be either. They are refused, where they are known, until `multilabel` says which.
    """
    _check.floating("outputs", outputs)
    single = outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)
    if multilabel not in (None, True, False):
        raise ValueError(f"multilabel must be True, False or None; got {multilabel!r}")
    if single:
        return answers_of(metric, outputs, targets, weight, one=True)
    square = outputs.ndim == 2 and _check.is_array(targets) and targets.shape == outputs.shape
    if not square or multilabel is False:
        return labels_of(metric, outputs, targets, weight)
    known, counted = _check.on_host(targets), _weights.known_counts(weight, len(outputs))
    if multilabel is None and known is not None and counted is not None:
        rows = known[counted].astype(np.float64)
        if len(rows) and (np.isin(rows, (0, 1)).all(-1) & (rows.sum(-1) == 1)).all():
            raise ValueError(
                f"targets of metrics.{metric} must say whether they are classes or many labels an example: every row "
                f"is one-hot; pass targets.argmax(-1) for classes, or multilabel=True for labels"
            )
    return answers_of(metric, outputs, targets, weight, one=False)


def honest(value: Array, sound: Array, weight: Numeric | None) -> Array:
    """Return the value, or NaN where an example that counts has outputs of NaN or targets that mean nothing."""
    good = jnp.all(sound | ~_weights.counts(weight, len(sound)))
    return jnp.where(good, value, jnp.full_like(value, jnp.nan))


def _check_rows(metric: str, targets: Numeric, weight: Numeric | None) -> None:
    known, counted = _check.on_host(targets), _weights.known_counts(weight, len(targets))
    if known is None or counted is None:
        return
    rows = known[counted].astype(np.float64)
    bad = ~(np.all((rows >= 0) & (rows <= 1), axis=-1) & (np.abs(rows.sum(-1) - 1) <= 1e-3))
    if bad.any():
        raise ValueError(
            f"targets (batch, classes) of metrics.{metric} must be one-hot, or probabilities that sum to one over the "
            f"classes; got a row of sum {rows[bad][0].sum():g}; {_MANY}"
        )
