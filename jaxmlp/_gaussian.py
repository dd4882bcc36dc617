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

FLOOR = 1e-6  # the floor under a variance where none is given, of the losses and of all that read their outputs


@taking("outputs")
def gaussian(outputs: Numeric, *, min_variance: Number = FLOOR) -> tuple[Array, Array]:
    """Return mean and variance of the Gaussian that outputs (..., 2 d) hold: d means, then d raw scales.

    variance = softplus(raw scale)^2 + min_variance. Shapes: (..., 2 d) -> (..., d), (..., d).

    Raises:
      ValueError: for outputs that are not pairs, or a negative floor.

    >>> mean, variance = gaussian(jnp.array([[3.0, 0.0]]))
    >>> mean, variance.round(4)
    (Array([[3.]], dtype=float32), Array([[0.4805]], dtype=float32))
    """
    _check.floating("outputs", outputs)
    if outputs.ndim < 1 or outputs.shape[-1] % 2:
        raise ValueError(
            f"outputs must hold a mean and a raw scale for each target, (batch, 2 d); got {_check.describe(outputs)}; "
            f"give the last layer two outputs a target"
        )
    number("min_variance", min_variance, 0, np.inf)
    mean, raw_scale = jnp.split(wide(outputs), 2, axis=-1)
    return mean, jnp.square(jax.nn.softplus(raw_scale)) + spread("min_variance", min_variance, mean)


def gaussian_for(outputs: Numeric, targets: Numeric, min_variance: Number) -> tuple[Array, Array]:
    """Return mean and variance (batch, d) of outputs that fit the targets (batch, d)."""
    _check.floating("targets", targets)
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

    Its variance scale^2 (softplus(raw)^2 + FLOOR) is met with the floor that is added to it again.
    """
    mean, variance = gaussian(outputs)
    wanted = jnp.square(jnp.broadcast_to(scale, mean.shape)) * variance - FLOOR
    root = jnp.sqrt(jnp.maximum(wanted, jnp.finfo(mean.dtype).tiny))
    # softplus^-1(s) = s + log(1 - exp(-s)), exact at both ends.
    raw = root + jnp.log(-jnp.expm1(-root))
    return jnp.concatenate([moved(mean), raw], axis=-1)
