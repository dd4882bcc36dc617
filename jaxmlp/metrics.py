"""What a person reads: (outputs, targets, *, weight=None) -> one number.

Pure functions of arrays, so `jit` and `vmap` work on them; `weight` (batch,) counts an example more or less, and
zero leaves it out. Where scikit-learn has the metric, the number is scikit-learn's.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri

from jaxmlp import _arguments, _check, _weights, losses
from jaxmlp._arrays import taking
from jaxmlp._classification import binary_accuracy as binary_accuracy
from jaxmlp._classification import confusion_matrix as confusion_matrix
from jaxmlp._classification import exact_match as exact_match
from jaxmlp._classification import f1 as f1
from jaxmlp._classification import multilabel_accuracy as multilabel_accuracy
from jaxmlp._classification import precision as precision
from jaxmlp._classification import recall as recall
from jaxmlp._labels import honest, labels_of
from jaxmlp._ranking import average_precision as average_precision
from jaxmlp._ranking import roc_auc as roc_auc
from jaxmlp._regression import errors
from jaxmlp._regression import mae as mae
from jaxmlp._regression import r2 as r2
from jaxmlp._regression import rmse as rmse
from jaxmlp._targets import number
from jaxmlp.types import Number, Numeric

for _metric in (average_precision, binary_accuracy, confusion_matrix, exact_match, f1, mae, multilabel_accuracy):
    _metric.__module__ = __name__  # they are found here by name, also by a run that is resumed
for _metric in (precision, r2, recall, rmse, roc_auc):
    _metric.__module__ = __name__


@taking("outputs", "targets", "weight")
def accuracy(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return the share of examples whose largest output is their label; NaN where outputs are.

    Shapes: outputs (batch, classes), targets integer labels (batch,) or one-hot or soft (batch, classes).

    Raises:
      ValueError: for one logit an example, many labels or numbers, naming their metric; for labels that are not
        integers, outside the classes or of another length.

    >>> accuracy(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0]))
    Array(0.5, dtype=float32)
    """
    labels, guess, sound = labels_of("accuracy", outputs, targets, weight)
    return honest(_weights.portion(guess == labels, weight), sound, weight)


@taking("outputs", "targets", "weight")
def top_k_accuracy(outputs: Numeric, targets: Numeric, *, k: int = 5, weight: Numeric | None = None) -> Array:
    """Return the share of examples whose label is among their `k` largest outputs; NaN where outputs are.

    Shapes: outputs (batch, classes), targets integer labels (batch,) or one-hot or soft (batch, classes).

    Raises:
      ValueError: for k above the number of classes, and for targets that `accuracy` refuses.

    >>> top_k_accuracy(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([1]), k=2)
    Array(1., dtype=float32)
    """
    labels, _, sound = labels_of("top_k_accuracy", outputs, targets, weight)
    if not 1 <= _check.positive_int("k", k) <= outputs.shape[-1]:
        raise ValueError(f"k must be at most the {outputs.shape[-1]} classes; got {k}")
    _, best = jax.lax.top_k(outputs, k)  # (batch, k)
    return honest(_weights.portion(jnp.any(best == labels[:, None], axis=-1), weight), sound, weight)


@taking("outputs", "targets", "weight")
def nll(
    outputs: Numeric,
    targets: Numeric,
    *,
    likelihood: Callable[..., Array] = losses.cross_entropy,
    weight: Numeric | None = None,
    **numbers: Number,
) -> Array:
    """Return the mean negative log likelihood an example, in nats.

    `likelihood` is the loss whose likelihood it is: `losses.cross_entropy`, `binary_cross_entropy`, `gaussian_nll` or
    `unit_gaussian_nll`, or one of your own; `numbers` are its own, as min_variance.

    Raises:
      ValueError: for numbers that the likelihood does not name, and for what it refuses itself.

    >>> nll(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(3)
    Array(0.693, dtype=float32)
    """
    _arguments.takes("likelihood", likelihood, 2, "(outputs, targets)", numbers=True)
    if numbers:
        try:
            inspect.signature(likelihood).bind(outputs, targets, **numbers)
        except TypeError as error:
            raise ValueError(f"numbers of nll must be those of {_check.name_of(likelihood)}; {error}") from None
    values: Any = likelihood(outputs, targets, **numbers)
    if not _check.is_array(values) or values.shape != outputs.shape[:1]:
        raise ValueError(f"likelihood must return one value an example; got {_check.describe(values)}")
    return average(jnp.asarray(values), weight)


@taking("outputs", "targets", "weight")
def expected_calibration_error(
    outputs: Numeric, targets: Numeric, *, bins: int = 15, weight: Numeric | None = None
) -> Array:
    """Return sum_b share_b |accuracy_b - confidence_b| over equal bins of the largest probability.

    Guo 2017, arXiv 1706.04599. Shapes: logits (batch, classes), integer labels (batch,), one-hot or
    soft (batch, classes).

    Raises:
      ValueError: for bins that are not a positive int, and for targets that `accuracy` refuses.

    >>> expected_calibration_error(jnp.array([[0.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1])).round(3)
    Array(0., dtype=float32)
    """
    labels, guess, sound = labels_of("expected_calibration_error", outputs, targets, weight)
    _check.positive_int("bins", bins, most=2**20)
    confidence = jnp.max(jax.nn.softmax(losses.wide(outputs)), axis=-1)
    gap = (guess == labels).astype(confidence.dtype) - confidence
    gap = jnp.where(_weights.counts(weight, len(gap)), gap, jnp.zeros_like(gap))
    share = _weights.shares(weight, len(gap), gap.dtype)
    bin_of = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    return honest(jnp.sum(jnp.abs(jax.ops.segment_sum(share * gap, bin_of, bins))), sound, weight)


@taking("outputs", "targets", "weight")
def interval_coverage(
    outputs: Numeric,
    targets: Numeric,
    *,
    level: Number = 0.9,
    min_variance: Number = losses.FLOOR,
    weight: Numeric | None = None,
) -> Array:
    """Return the share of targets within the central interval of probability `level` of their Gaussian.

    Calibrated is: the share is the level. Shapes: outputs (batch, 2 d), d means and then d raw scales
    (see `losses.gaussian`), targets (batch, d). `min_variance` is the floor that they were trained with.

    Raises:
      ValueError: for shapes that do not fit, a level outside [0, 1], or a negative floor.

    >>> interval_coverage(jnp.array([[0.0, 0.0]]), jnp.array([[1.5]]), level=0.9)
    Array(1., dtype=float32)
    """
    number("level", level, 0, 1)
    if jnp.ndim(level):
        raise ValueError(f"level must be one number; got {_check.describe(level)}")
    mean, variance = losses.gaussian(outputs, min_variance=min_variance)
    half_width = ndtri(0.5 + 0.5 * jnp.asarray(level, mean.dtype)) * jnp.sqrt(variance)
    residual, _, _ = errors(mean, targets, weight)
    sound = ~jnp.any(jnp.isnan(residual) | jnp.isnan(variance), axis=-1)
    inside = jnp.abs(residual) <= half_width.astype(residual.dtype)
    return honest(_weights.portion(inside, weight, mean.dtype), sound, weight)


def average(values: Array, weight: Numeric | None = None) -> Array:
    """Return the mean of values (batch,), weighted where `weight` (batch,) is given; zero where all weights are.

    >>> average(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0]))
    Array(3., dtype=float32)
    """
    near = None if weight is None else _weights.checked(weight, len(values), losses.wide(values).dtype)
    return average_near(values, near)


def average_near(values: Any, near: Array | None) -> Array:
    """Return the mean of values (batch,) by weights that are near one, which a loop brings there once for all steps."""
    values = losses.wide(values)
    if near is None:
        return jnp.sum(jnp.full_like(values, 1 / max(values.size, 1)) * values)
    return _weights.mean(values, _weights.parts(near.astype(values.dtype)))


class Mean(NamedTuple):
    """The means of the losses so far, step by step: m <- m + (loss - m) weight / (sum of the weights)."""

    loss: Array  # ()
    weight: Array  # ()
    extras: dict[str, Array] = {}  # of what a loss names beside its values, () each

    def add(self, metrics: dict[str, Array]) -> "Mean":
        """Return the means with one step more."""
        total = self.weight + metrics["weight"]
        share = metrics["weight"] / jnp.where(total > 0, total, jnp.ones_like(total))
        extras = {name: m + (metrics[name] - m) * share.astype(m.dtype) for name, m in self.extras.items()}
        return Mean(self.loss + (metrics["loss"] - self.loss) * share, total, extras)

    @property
    def values(self) -> dict[str, Array]:
        """The means by name."""
        return {"loss": self.loss, **self.extras}
