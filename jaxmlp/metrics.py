"""What a person reads: (outputs, targets, *, weight=None) -> one number.

Pure functions of arrays, so `jit` and `vmap` work on them; `weight` (batch,) counts an example more or less, and
zero leaves it out. Where scikit-learn has the metric, the number is scikit-learn's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import DTypeLike

from jaxmlp import _check, losses
from jaxmlp.types import Number, Numeric


def accuracy(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return the share of examples whose largest output is their label.

    Shapes: outputs (batch, classes), targets integer labels (batch,) or one-hot (batch, classes).

    Raises:
      ValueError: for labels that are not integers, outside the classes or of another length.

    >>> accuracy(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0]))
    Array(0.5, dtype=float32)
    """
    labels = _labels(outputs, targets)
    return _portion(_guess(outputs) == labels, weight)


def top_k_accuracy(outputs: Numeric, targets: Numeric, *, k: int = 5, weight: Numeric | None = None) -> Array:
    """Return the share of examples whose label is among their `k` largest outputs.

    Shapes: outputs (batch, classes), targets integer labels (batch,) or one-hot (batch, classes).

    Raises:
      ValueError: for k above the number of classes, and for labels that are not integers, outside the classes or of
        another length.

    >>> top_k_accuracy(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([1]), k=2)
    Array(1., dtype=float32)
    """
    labels = _labels(outputs, targets)
    if not 1 <= _check.positive_int("k", k) <= outputs.shape[-1]:
        raise ValueError(f"k must be at most the {outputs.shape[-1]} classes; got {k}")
    _, best = jax.lax.top_k(outputs, k)  # (batch, k)
    return _portion(jnp.any(best == labels[:, None], axis=-1), weight)


def rmse(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return the root of the mean squared error, one root an output and their mean, in the units of the targets.

    Shapes: (batch, d), (batch, d).

    >>> rmse(jnp.array([[0.0], [0.0]]), jnp.array([[3.0], [4.0]])).round(3)
    Array(3.536, dtype=float32)
    """
    return jnp.mean(jnp.sqrt(_columns(jnp.square(_residual(outputs, targets)), weight)))


def mae(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return the mean absolute error, in the units of the targets. Shapes: (batch, d), (batch, d).

    >>> mae(jnp.array([[0.0], [0.0]]), jnp.array([[3.0], [4.0]]))
    Array(3.5, dtype=float32)
    """
    return jnp.mean(_columns(jnp.abs(_residual(outputs, targets)), weight))


def r2(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return 1 - sum (y - yhat)^2 / sum (y - mean y)^2, an output at a time, and their mean.

    A constant output counts 1 where it is met exactly and 0 where not. Shapes: (batch, d), (batch, d).

    >>> r2(jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [3.0]]))
    Array(0.5, dtype=float32)
    """
    residual = _columns(jnp.square(_residual(outputs, targets)), weight)
    targets = jnp.asarray(targets, outputs.dtype)
    centred = targets - jnp.broadcast_to(_columns(targets, weight), targets.shape)
    total = _columns(jnp.square(centred), weight)
    varies = total > 0
    met = jnp.where(residual == 0, jnp.ones_like(total), jnp.zeros_like(total))
    return jnp.mean(jnp.where(varies, 1 - residual / jnp.where(varies, total, jnp.ones_like(total)), met))


def nll(
    outputs: Numeric,
    targets: Numeric,
    *,
    likelihood: Callable[[Numeric, Numeric], Array] = losses.cross_entropy,
    weight: Numeric | None = None,
    **numbers: Number,
) -> Array:
    """Return the mean negative log likelihood an example, in nats.

    `likelihood` is the loss whose likelihood it is: `losses.cross_entropy`, `binary_cross_entropy`, `gaussian_nll` or
    `unit_gaussian_nll`.

    >>> nll(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(3)
    Array(0.693, dtype=float32)
    """
    return average(likelihood(outputs, targets, **numbers), weight)


def expected_calibration_error(
    outputs: Numeric, targets: Numeric, *, bins: int = 15, weight: Numeric | None = None
) -> Array:
    """Return sum_b share_b |accuracy_b - confidence_b| over equal bins of the largest probability.

    Guo 2017, arXiv 1706.04599. Shapes: logits (batch, classes), integer labels (batch,) or one-hot
    (batch, classes).

    >>> expected_calibration_error(jnp.array([[0.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1])).round(3)
    Array(0., dtype=float32)
    """
    labels = _labels(outputs, targets)
    _check.positive_int("bins", bins)
    confidence = jnp.max(jax.nn.softmax(outputs), axis=-1)
    gap = (_guess(outputs) == labels).astype(confidence.dtype) - confidence
    share = _share(weight, confidence)
    bin_of = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    return jnp.sum(jnp.abs(jax.ops.segment_sum(share * gap, bin_of, bins)))


def interval_coverage(
    outputs: Numeric,
    targets: Numeric,
    *,
    level: Number = 0.9,
    min_variance: Number = 1e-6,
    weight: Numeric | None = None,
) -> Array:
    """Return the share of targets within the central interval of probability `level` of their Gaussian.

    Calibrated is: the share is the level. Shapes: outputs (batch, 2 d), d means and then d raw scales
    (see `losses.gaussian`), targets (batch, d).

    >>> interval_coverage(jnp.array([[0.0, 0.5413]]), jnp.array([[1.5]]), level=0.9)
    Array(1., dtype=float32)
    """
    _check.within("level", level, 0, 1)
    mean, variance = losses.gaussian(outputs, min_variance=min_variance)
    half_width = ndtri(0.5 + 0.5 * jnp.asarray(level, mean.dtype)) * jnp.sqrt(variance)
    inside = jnp.abs(_residual(mean, targets)) <= half_width
    return _portion(inside, weight, mean.dtype)


def average(values: Array, weight: Numeric | None = None) -> Array:
    """Return the mean of values (batch,), weighted where `weight` (batch,) is given; zero where all weights are.

    >>> average(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0]))
    Array(3., dtype=float32)
    """
    values = losses.wide(values)
    return jnp.sum(_share(weight, values) * values)


class Mean(NamedTuple):
    """The mean of the losses so far, step by step: m <- m + (loss - m) weight / (sum of the weights)."""

    loss: Array  # ()
    weight: Array  # ()

    def add(self, metrics: dict[str, Array]) -> "Mean":
        """Return the mean with one step more."""
        total = self.weight + metrics["weight"]
        share = metrics["weight"] / jnp.where(total > 0, total, jnp.ones_like(total))
        return Mean(self.loss + (metrics["loss"] - self.loss) * share, total)


def _share(weight: Numeric | None, like: Array) -> Array:
    """Return each example's share of the whole, summing to one."""
    if weight is None:
        return jnp.full_like(like, 1 / max(like.size, 1))
    weight = _weight(weight, like.shape, like.dtype)
    total = jnp.sum(weight)
    return weight / jnp.where(total > 0, total, jnp.ones_like(total))


def _portion(hit: Array, weight: Numeric | None, dtype: DTypeLike | None = jnp.float32) -> Array:
    """Return hits / (hits + misses) of truth values (batch,) or (batch, d), weighted; zero where all weights are.

    Exactly one where all are hits. The sum of n times 1/n that `average` makes may be 1.0000001, and so may a quotient
    by a number that XLA knows, since it multiplies by the reciprocal; `average` stays as it is, because its rounding is
    in the losses of every run.
    """
    if weight is None:
        hits, misses = jnp.sum(hit, dtype=jnp.int32), jnp.sum(~hit, dtype=jnp.int32)
    else:
        each = _weight(weight, hit.shape[:1], dtype)
        each = jnp.broadcast_to(each.reshape(-1, *[1] * (hit.ndim - 1)), hit.shape)
        hits, misses = (jnp.sum(jnp.where(which, each, jnp.zeros_like(each))) for which in (hit, ~hit))
    total = hits + misses
    return hits.astype(dtype) / jnp.where(total > 0, total, jnp.ones_like(total)).astype(dtype)


def _weight(weight: Numeric, shape: tuple[int, ...], dtype: DTypeLike | None) -> Array:
    if weight.shape != shape:
        raise ValueError(f"weight must have shape {shape}, one an example; got {_check.describe(weight)}")
    return jnp.asarray(weight, dtype)


def _columns(values: Array, weight: Numeric | None) -> Array:
    """Average (batch, d) over the batch."""
    return jax.vmap(average, (1, None))(values, weight)


def _residual(outputs: Numeric, targets: Numeric) -> Array:
    for name, value in (("outputs", outputs), ("targets", targets)):
        _check.floating(name, value)
    if outputs.shape != targets.shape or outputs.ndim != 2:
        raise ValueError(
            f"outputs and targets must have one shape (batch, d); got {_check.describe(outputs)} and "
            f"{_check.describe(targets)}; a column is targets[:, None]"
        )
    return jnp.asarray(targets, outputs.dtype) - outputs


def _labels(outputs: Numeric, targets: Numeric) -> Array:
    _check.floating("outputs", outputs)
    if outputs.ndim != 2 or not _check.is_array(targets) or targets.shape not in (outputs.shape, outputs.shape[:1]):
        raise ValueError(
            f"outputs must have shape (batch, classes) and targets (batch,) or (batch, classes); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    targets = jnp.asarray(targets)
    if targets.ndim == 2:
        return _guess(targets)
    _check.labels("labels", targets, outputs.shape[-1])
    return targets.astype(jnp.int32)


def _guess(outputs: Numeric) -> Array:
    return jnp.argmax(outputs, axis=-1).astype(jnp.int32)
