"""Temperature: logits divided by one number, so that their probabilities are calibrated."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxmlp import _arrays, losses
from jaxmlp._eager import compile_once
from jaxmlp._known import known
from jaxmlp.types import Numeric


def temperature(logits: Numeric, y: Numeric) -> Array:
    """Return T > 0 that minimises the mean cross entropy of logits / T against labels y (batch,).

    Guo 2017 (arXiv 1706.04599). The loss is convex in 1 / T: bisection of its derivative between 1/1000 and 1000.

    Raises:
      ValueError: for logits that are not (batch, classes) or not finite, or labels outside the classes.

    >>> temperature(jnp.array([[2.0, 0.0]] * 4), jnp.array([0, 0, 0, 1])).round(2)
    Array(1.82, dtype=float32)
    """
    loss = losses.cross_entropy(logits, y)  # for its door
    if not isinstance(loss, Tracer) and not np.isfinite(known(loss)).all():
        raise ValueError("logits must be finite, or -inf for classes that are not an example's label; got others")
    logits, y = _arrays.array("logits", logits), _arrays.array("y", y)
    # A class that cannot be has no part in the slope, and zero times infinity would be none.
    logits = jnp.maximum(losses.wide(logits), -1e30)
    limit = jnp.log(jnp.asarray(1000.0, logits.dtype))
    low, high = _bisect_slope(logits, jnp.asarray(y), -limit, limit)
    return jnp.exp(-0.5 * (low + high))


@compile_once()
def _bisect_slope(logits: Array, y: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Return ends, closer than rounding, between which the loss at inverse temperature exp(end) stops falling."""
    slope = jax.grad(lambda beta: losses.cross_entropy(beta * logits, y).mean())

    def halve(_: object, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        rises = slope(jnp.exp(middle)) > 0
        return jnp.where(rises, low, middle), jnp.where(rises, middle, high)

    return jax.lax.fori_loop(0, 50, halve, (low, high))
