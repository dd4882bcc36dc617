"""Metrics of regression, in the units of the targets, at any scale and in the wider of the two dtypes."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check, _weights
from jaxmlp._arrays import taking
from jaxmlp._targets import widest
from jaxmlp.types import Numeric


@taking("outputs", "targets", "weight")
def rmse(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return the root of the mean squared error, one root an output and their mean, in the units of the targets.

    Shapes: (batch, d), (batch, d).

    Raises:
      ValueError: for outputs and targets that are no floats of one shape (batch, d), and for weights that do not fit.

    >>> rmse(jnp.array([[0.0], [0.0]]), jnp.array([[3.0], [4.0]])).round(3)
    Array(3.536, dtype=float32)
    """
    residual, _, share = errors(outputs, targets, weight)
    scale = _weights.unit(residual, 0)  # squares neither overflow nor vanish
    near = residual / jnp.broadcast_to(scale, residual.shape)
    return jnp.mean(jnp.sqrt(_weights.columns(jnp.square(near), share)) * scale[0])


@taking("outputs", "targets", "weight")
def mae(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return the mean absolute error, in the units of the targets. Shapes: (batch, d), (batch, d).

    Raises:
      ValueError: for outputs and targets that are no floats of one shape (batch, d), and for weights that do not fit.

    >>> mae(jnp.array([[0.0], [0.0]]), jnp.array([[3.0], [4.0]]))
    Array(3.5, dtype=float32)
    """
    residual, _, share = errors(outputs, targets, weight)
    return jnp.mean(_weights.columns(jnp.abs(residual), share))


@taking("outputs", "targets", "weight")
def r2(outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
    """Return 1 - sum (y - yhat)^2 / sum (y - mean y)^2, an output at a time, and their mean.

    A constant output counts 1 where it is met exactly and 0 where not. Shapes: (batch, d), (batch, d).

    Raises:
      ValueError: for outputs and targets that are no floats of one shape (batch, d), and for weights that do not fit.

    >>> r2(jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [3.0]]))
    Array(0.5, dtype=float32)
    """
    residual, targets, share = errors(outputs, targets, weight)
    counts = jnp.broadcast_to(_weights.counts(weight, len(targets))[:, None], targets.shape)
    low, high = (
        f(jnp.where(counts, targets, jnp.full_like(targets, end)), axis=0, keepdims=True)
        for f, end in ((jnp.min, jnp.inf), (jnp.max, -jnp.inf))
    )
    varies = (high > low)[0]
    # A mean far from zero is rounded to more than the spread about it, so that is measured from the lowest target.
    origin = jnp.where(high - low < jnp.abs(low) / 256, low, jnp.zeros_like(low))
    moved = jnp.where(counts, targets - jnp.broadcast_to(origin, targets.shape), jnp.zeros_like(targets))
    scale = jnp.broadcast_to(_weights.unit(moved, 0), targets.shape)
    moved = moved / scale
    centred = moved - jnp.broadcast_to(_weights.columns(moved, share), targets.shape)
    missed, total = _weights.columns(jnp.square(residual / scale), share), _weights.columns(jnp.square(centred), share)
    met = jnp.where(jnp.all(residual == 0, axis=0), jnp.ones_like(total), jnp.zeros_like(total))
    met = jnp.where(jnp.any(jnp.isnan(residual), axis=0), missed, met)
    return jnp.mean(jnp.where(varies, 1 - missed / jnp.where(varies, total, jnp.ones_like(total)), met))


def errors(outputs: Any, targets: Any, weight: Numeric | None) -> tuple[Array, Array, Array]:
    """Return residuals and targets (batch, d), where what is left out is zero, and each example's share (batch,)."""
    for name, value in (("outputs", outputs), ("targets", targets)):
        _check.floating(name, value)
    if outputs.shape != targets.shape or outputs.ndim != 2:
        raise ValueError(
            f"outputs and targets must have one shape (batch, d); got {_check.describe(outputs)} and "
            f"{_check.describe(targets)}; a column is targets[:, None]"
        )
    dtype = widest(outputs, targets)
    wider = all(isinstance(a, np.ndarray) and a.dtype.itemsize >= 8 for a in (outputs, targets))
    # Asked of such tables alone: of weights on a device it would wait for them.
    kept = _weights.known_counts(weight, len(targets)) if dtype == jnp.float32 and wider else None
    if kept is not None:
        # Tables that JAX narrows: the difference first, and the targets from an origin near them, of a row that counts.
        with np.errstate(over="ignore", invalid="ignore"):
            residual = jnp.asarray((targets - outputs).astype(dtype))
            targets = jnp.asarray((targets - targets[np.argmax(kept)]).astype(dtype))
    else:
        outputs, targets = (jnp.asarray(a).astype(dtype) for a in (outputs, targets))
        residual = targets - outputs
    if weight is not None:
        counts = jnp.broadcast_to(_weights.counts(weight, len(targets))[:, None], targets.shape)
        residual, targets = (jnp.where(counts, a, jnp.zeros_like(a)) for a in (residual, targets))
    return residual, targets, _weights.shares(weight, len(targets), dtype)
