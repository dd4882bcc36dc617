"""Losses of labels: cross entropies of classes and of yes or no, what each class counts, and the focal loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxmlp import _check
from jaxmlp._arrays import taking
from jaxmlp._targets import check_probabilities, check_same_shape, number, spread, sum_outputs, times, wide, yes_or_no
from jaxmlp.types import Number, Numeric


@taking("outputs", "targets")
def cross_entropy(
    outputs: Numeric, targets: Numeric, *, label_smoothing: Number = 0.0, class_weight: Number | None = None
) -> Array:
    """Return -sum_d c_d y_d log yhat_d with yhat = softmax(outputs), the notes' CE before the mean over examples.

    Args:
      outputs: logits, (batch, classes).
      targets: integer labels (batch,), or probabilities (batch, classes), one-hot or soft.
      label_smoothing: a in [0, 1]: y becomes (1 - a) y + a / classes (Szegedy 2016, arXiv 1512.00567).
      class_weight: c, one number a class, (classes,), 1 where it is None: the loss of an example is multiplied by the
        weight of its class. The mean over examples stays with the step, as in scikit-learn, where PyTorch divides by
        the sum of the weights. scikit-learn's "balanced" is N / (classes count_c).

    Raises:
      ValueError: for labels outside 0 ... classes - 1 (where they are known on the host), float labels of shape
        (batch,), probabilities that are negative or do not sum to one, smoothing outside [0, 1], weights of
        classes that are negative or not one a class, or other shapes.

    >>> cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(4)
    Array([0.6931], dtype=float32)
    """
    _check.floating("outputs", outputs)
    if outputs.ndim != 2:
        raise ValueError(f"outputs must be logits of shape (batch, classes); got {_check.describe(outputs)}")
    classes = outputs.shape[-1]
    if not _check.is_array(targets) or targets.shape not in (outputs.shape[:1], outputs.shape):
        raise ValueError(
            f"targets must be integer labels of shape {outputs.shape[:1]} or probabilities of shape {outputs.shape}; "
            f"got {_check.describe(targets)}; a column of labels is targets[:, 0]"
        )
    number("label_smoothing", label_smoothing, 0, 1)
    logits = wide(outputs)
    smoothing = jnp.asarray(label_smoothing, logits.dtype)
    if smoothing.ndim:
        raise ValueError(f"label_smoothing must be one number; got {_check.describe(smoothing)}")
    if targets.ndim == 1:
        _check.labels("labels", targets, classes)
        # The gather costs less than a product with one-hot rows; smoothing adds the mean over all classes.
        hard = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(targets))
        if class_weight is not None:
            hard = times(_weights_of(class_weight, logits)[jnp.asarray(targets)], hard)
        if (known := _check.on_host(label_smoothing)) is not None and not known.any():
            return hard
        each = jax.nn.logsumexp(logits, axis=-1, keepdims=True) - logits
        if class_weight is not None:
            each = times(jnp.broadcast_to(_weights_of(class_weight, logits), each.shape), each)
        even = jnp.mean(each, axis=-1)
        return times(1 - smoothing, hard) + times(smoothing, even)  # a logit of -inf makes `even` infinite
    check_probabilities(targets)
    soft = optax.smooth_labels(jnp.asarray(targets, logits.dtype), smoothing)  # type: ignore[arg-type]
    if class_weight is not None:
        soft = soft * jnp.broadcast_to(_weights_of(class_weight, logits), soft.shape)
    return -jnp.sum(times(soft, jax.nn.log_softmax(logits)), axis=-1)


@taking("outputs", "targets")
def binary_cross_entropy(outputs: Numeric, targets: Numeric, *, pos_weight: Number | None = None) -> Array:
    """Return -sum_d [c_d y_d log p_d + (1 - y_d) log(1 - p_d)], p = sigmoid(outputs): d independent yes-or-no labels.

    Shapes: logits (batch, d), targets (batch, d) of 0 and 1, or probabilities, -> (batch,); also (batch,), (batch,).
    The number `pos_weight` is c, what a yes counts beside a no, one for all or one for each output: PyTorch's.

    Raises:
      ValueError: for shapes that differ, targets outside [0, 1] (where they are known on the host), or a pos_weight
        that is negative or not one for each output.

    >>> binary_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([[0, 1]])).round(4)
    Array([1.3863], dtype=float32)
    """
    _check.floating("outputs", outputs)
    check_same_shape(outputs, targets)
    _check.within("targets", targets, 0, 1)
    outputs = wide(outputs)
    targets = jnp.asarray(targets, outputs.dtype)
    if pos_weight is None:
        return sum_outputs(yes_or_no(outputs, targets))
    number("pos_weight", pos_weight, 0, np.inf)
    yes, no = (yes_or_no(outputs, jnp.full_like(outputs, label)) for label in (1, 0))
    return sum_outputs(times(spread("pos_weight", pos_weight, outputs) * targets, yes) + times(1 - targets, no))


@taking("outputs", "targets")
def focal(outputs: Numeric, targets: Numeric, *, gamma: Number = 2.0, alpha: Number | None = None) -> Array:
    """Return -sum_d a_d (1 - p_d)^gamma log p_d, p_d the share of what is right: what is easy counts little.

    Lin 2017 (arXiv 1708.02002), by `optax.sigmoid_focal_loss` where labels are yes or no. To train on: it is no
    likelihood, and its shares are not calibrated.

    Args:
      outputs: logits, (batch, d) of yes-or-no labels; (batch, classes) where the targets are labels of classes.
      targets: (batch, d) of 0 and 1; or integer labels (batch,), for which p is that of softmax, and there is no sum.
      gamma: at least 0, where it is the cross entropy.
      alpha: the weight of a yes, that of a no being 1 - alpha, in [0, 1]; of classes one weight each, (classes,), not
        negative. None weighs nothing.

    Raises:
      ValueError: for shapes that fit neither, labels that are none, a negative gamma, or an alpha as said.

    >>> focal(jnp.array([[0.0, 0.0]]), jnp.array([[0, 1]])).round(4), focal(jnp.zeros((1, 2)), jnp.array([1])).round(4)
    (Array([0.3466], dtype=float32), Array([0.1733], dtype=float32))
    """
    _check.floating("outputs", outputs)
    number("gamma", gamma, 0, np.inf)
    logits = wide(outputs)
    power = jnp.asarray(gamma, logits.dtype)
    if power.ndim:
        raise ValueError(f"gamma must be one number; got {_check.describe(power)}")
    if logits.ndim == 2 and _check.is_array(targets) and targets.shape == logits.shape[:1]:
        _check.labels("labels", targets, logits.shape[-1])
        labels = jnp.asarray(targets).astype(jnp.int32)
        right = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None, :] == labels[:, None]
        logs = jax.nn.log_softmax(logits)
        # The log of 1 - p is that of the other shares' sum: finite where p rounds to 1, and so is its slope.
        wrong = jax.nn.logsumexp(jnp.where(right, jnp.full_like(logs, -jnp.inf), logs), axis=-1)
        found = -jnp.exp(power * wrong) * jnp.sum(jnp.where(right, logs, jnp.zeros_like(logs)), axis=-1)
        return found if alpha is None else times(_weights_of(alpha, logits, "alpha")[labels], found)
    check_same_shape(outputs, targets)
    _check.within("targets", targets, 0, 1)
    if alpha is not None:
        number("alpha", alpha, 0, 1)
        alpha = spread("alpha", alpha, logits)
    labels = jnp.asarray(targets, logits.dtype)
    return sum_outputs(optax.sigmoid_focal_loss(logits, labels, alpha=alpha, gamma=power))


def _weights_of(given: Number, logits: Array, what: str = "class_weight") -> Array:
    """Return one weight for each class, (classes,)."""
    number(what, given, 0, np.inf)
    weights = jnp.asarray(given, logits.dtype)
    if weights.shape != logits.shape[-1:]:
        raise ValueError(
            f"{what} must be one number for each of {logits.shape[-1]} classes; got {_check.describe(weights)}"
        )
    return weights
