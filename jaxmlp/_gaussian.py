"""The Gaussian that two outputs a target hold: what the losses of it, and all who read their outputs, share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxmlp import _check
from jaxmlp._arrays import taking
from jaxmlp._targets import number, spread, wide
from jaxmlp.types import Number, Numeric

SMALL, LARGE = 0.03, 1e15  # spreads whose variances are well above the floor, and below infinity
FLOOR = 1e-6  # the floor under a variance where none is given, of the losses and of all that read their outputs


@taking("outputs")
def gaussian(outputs: Numeric, *, min_variance: Number = FLOOR) -> tuple[Array, Array]:
    """Return mean and variance of the Gaussian that outputs (..., 2 d) hold: d means, then d raw scales.

    variance = exp(4 asinh(raw scale / 16)) + min_variance. Shapes: (..., 2 d) -> (..., d), (..., d).

    The standard deviation is (h + sqrt(h^2 + 1))^2 with h = raw / 16: one at zero, (raw / 8)^2 far above it and
    (8 / raw)^2 far below. Where it falls exponentially, as softplus(raw) does, it vanishes within a few steps of Adam,
    faster than the mean can follow, and the next error is divided by it. The price: little noise, below a tenth of a
    unit, is learnt in more steps; where gradients are clipped and steps are few, train through `from_softplus`.

    Raises:
      ValueError: for outputs that are not pairs, or a negative floor.

    >>> mean, variance = gaussian(jnp.array([[3.0, 0.0]]))
    >>> mean, variance.round(4)
    (Array([[3.]], dtype=float32), Array([[1.]], dtype=float32))
    """
    mean, raw_scale = pairs_of(outputs)
    number("min_variance", min_variance, 0, np.inf)
    variance = jnp.exp(log_variance_of(raw_scale))
    return mean, variance + spread("min_variance", min_variance, mean)


@taking("outputs")
def from_softplus(outputs: Numeric) -> Array:
    """Return outputs (..., 2 d), whose raw scales softplus made standard deviations, as those that `gaussian` reads.

    raw scale -> 16 sinh(log(s) / 2) = 8 (sqrt(s) - 1 / sqrt(s)) with s = softplus(raw scale). For nets of jaxmlp before
    0.2, in model files of format 1, and of other programs; where their floor of the variance was given, give it again.

    Raises:
      ValueError: for outputs that are not pairs.

    >>> mean, variance = gaussian(from_softplus(jnp.array([[3.0, 0.0]])))
    >>> mean, variance.round(4), round(jnp.log(2.0).item() ** 2, 4)
    (Array([[3.]], dtype=float32), Array([[0.4805]], dtype=float32), 0.4805)
    """
    mean, raw_scale = pairs_of(outputs)
    root = jnp.sqrt(jax.nn.softplus(jnp.maximum(raw_scale, -40.0)))  # of less, the variance is below any floor
    return jnp.concatenate([mean, 8 * (root - 1 / root)], axis=-1)


def log_variance_of(raw_scale: Array) -> Array:
    """Return the logarithm of the variance, without its floor."""
    return 4 * jnp.arcsinh(raw_scale / 16)


def raw_scale_of(log_variance: Array) -> Array:
    """Return the raw scale of a variance, the inverse of `log_variance_of`."""
    return 16 * jnp.sinh(log_variance / 4)


def pairs_of(outputs: Numeric, what: str = "a mean and a raw scale") -> tuple[Array, Array]:
    """Return the first and the second halves (..., d) of outputs (..., 2 d): means and raw scales, or `what` else."""
    _check.floating("outputs", outputs)
    if outputs.ndim < 1 or outputs.shape[-1] % 2:
        raise ValueError(
            f"outputs must hold {what} for each target, (batch, 2 d); got {_check.describe(outputs)}; give the last "
            f"layer two outputs a target"
        )
    first, second = jnp.split(wide(outputs), 2, axis=-1)
    return first, second


def gaussian_for(outputs: Numeric, targets: Numeric, min_variance: Number) -> tuple[Array, Array]:
    """Return mean and variance (batch, d) of outputs that fit the targets (batch, d)."""
    _check.floating("targets", targets)
    _check.floating("outputs", outputs)
    if outputs.ndim != 2 or targets.ndim != 2 or outputs.shape != (len(targets), 2 * targets.shape[1]):
        raise ValueError(
            f"outputs must have shape (batch, 2 d), means then raw scales, for targets (batch, d); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    return gaussian(outputs, min_variance=min_variance)


def negative_log(mean: Array, variance: Array, targets: Numeric) -> Array:
    """Return -log N(y; mean, variance) of each output, (batch, d)."""
    error = optax.squared_error(mean, jnp.asarray(targets, mean.dtype))
    return 0.5 * (jnp.log(2 * np.pi * variance) + error / variance)


def rescaled(outputs: Array, moved: Callable[[Array], Array], scale: Array) -> Array:
    """Return the outputs (..., 2 d) of the Gaussian of y, of those of z, where y = moved(z) has dy/dz = scale (d,).

    Its variance is scale^2 that of z, less the floor that is added to it again.
    """
    mean, variance = gaussian(outputs)
    wanted = jnp.square(jnp.broadcast_to(scale, mean.shape)) * variance - FLOOR
    raw_scale = raw_scale_of(jnp.log(jnp.maximum(wanted, jnp.finfo(mean.dtype).tiny)))
    return jnp.concatenate([moved(mean), raw_scale], axis=-1)


def check_units(scale: np.ndarray) -> None:
    """Raise for units of y, by its spread (d,), in which a variance is below its floor or above all floats.

    Raises:
      ValueError: with the first such spread.
    """
    outside = (scale < SMALL) | (scale > LARGE)
    if outside.any():
        raise ValueError(
            f"y must be in units in which it spreads between {SMALL:g} and {LARGE:g}, since a variance has a floor of "
            f"{FLOOR:g} in them; got {scale[outside][0]:.3g}; multiply y by a number"
        )
