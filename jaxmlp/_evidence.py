"""Uncertainty that is no Gaussian's: evidence for a mean and a variance, and samples, scored as they are."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln

from jaxmlp import _check
from jaxmlp._arrays import taking
from jaxmlp._targets import number, spread, sum_outputs, wide, widest
from jaxmlp.types import Number, Numeric

LEAST = 1e-6  # of what is divided by


@taking("outputs")
def evidential(outputs: Numeric) -> tuple[Array, Array, Array]:
    """Return mean, variance of the noise and variance of the mean that outputs (..., 4 d) hold.

    The mean is g; the noise's variance, E[s^2], is b / (a - 1), and that of the mean, Var[m], b / (v (a - 1)), of a
    normal-inverse-gamma law of m and s^2. Outputs are d of g, and then d raw of each of v, a - 1 and b, which softplus
    makes positive (Amini 2020, arXiv 1910.02600). Shapes: (..., 4 d) -> (..., d) each.

    Raises:
      ValueError: for outputs that are no fours.

    >>> tuple(a.round(2).item() for a in evidential(jnp.array([[3.0, 0.5413, 0.5413, 0.5413]])))
    (3.0, 1.0, 1.0)
    """
    mean, v, a, b = _evidence(outputs)
    return mean, b / (a - 1), b / (v * (a - 1))


@taking("outputs", "targets")
def evidential_nll(outputs: Numeric, targets: Numeric, *, evidence: Number = 0.01) -> Array:
    """Return sum_d of -log t(y_d; 2 a, g, sqrt(b (1 + v) / (v a))) + evidence |y_d - g| (2 v + a).

    The first part is the likelihood, with its full constant, of a Gaussian whose mean and variance have a
    normal-inverse-gamma law; the second takes evidence away where the mean is wrong (Amini 2020, arXiv 1910.02600).

    Args:
      outputs: (batch, 4 d), d of g, then d raw of each of v, a - 1 and b; see `evidential`.
      targets: (batch, d).
      evidence: the weight of the second part, not negative; at 0 it is the likelihood.

    Raises:
      ValueError: for outputs that are not four times as wide as the targets, or a negative weight.

    >>> evidential_nll(jnp.array([[0.0, 0.5413, 0.5413, 0.5413]]), jnp.array([[0.0]])).round(3)
    Array([0.981], dtype=float32)
    """
    _check.floating("outputs", outputs)
    _check.floating("targets", targets)
    if outputs.ndim != 2 or targets.ndim != 2 or outputs.shape != (len(targets), 4 * targets.shape[1]):
        raise ValueError(
            f"outputs must have shape (batch, 4 d), of g, v, a - 1 and b, for targets (batch, d); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    number("evidence", evidence, 0, np.inf)
    mean, v, a, b = _evidence(outputs)
    error = jnp.asarray(targets, mean.dtype) - mean
    squared = b * (1 + v) / (v * a)
    # Of much evidence the gamma functions differ in digits that float32 has not: then by Stirling's series.
    few, many = jnp.minimum(a, 30.0), jnp.maximum(a, 30.0)
    exact = gammaln(few) - gammaln(few + 0.5) + 0.5 * jnp.log(2 * np.pi * few)
    series = 0.5 * math.log(2 * math.pi) + 0.125 / many - 1 / (192 * many**3)
    constant = jnp.where(a < 30, exact, series)
    nll = constant + 0.5 * jnp.log(squared) + (a + 0.5) * jnp.log1p(jnp.square(error) / (2 * a * squared))
    return sum_outputs(nll + spread("evidence", evidence, mean) * jnp.abs(error) * (2 * v + a))


def _evidence(outputs: Numeric) -> tuple[Array, Array, Array, Array]:
    _check.floating("outputs", outputs)
    if outputs.ndim < 1 or outputs.shape[-1] % 4:
        raise ValueError(
            f"outputs must hold four numbers for each target, (batch, 4 d); got {_check.describe(outputs)}; "
            f"give the last layer four outputs a target"
        )
    mean, *raw = jnp.split(wide(outputs), 4, axis=-1)
    v, above, b = (jax.nn.softplus(part) + np.asarray(LEAST, mean.dtype) for part in raw)
    return mean, v, 1 + above, b


@taking("outputs", "targets")
def crps(outputs: Numeric, targets: Numeric) -> Array:
    """Return sum_d of mean_k |x_kd - y_d| - sum_{k < l} |x_kd - x_ld| / (m (m - 1)), x the m samples of a forecast.

    The continuous ranked probability score, E|X - y| - E|X - X'| / 2, each mean without bias, so that few samples are
    not drawn together: the fair form (Gneiting and Raftery 2007, doi 10.1198/016214506000001437; Ferro 2014, doi
    10.1002/qj.2270). In units of the targets. A single score may be below zero, its expectation is not.

    Args:
      outputs: (batch, samples) for targets (batch,), or (batch, samples, d); at least two samples.
      targets: (batch,), or (batch, d).

    Raises:
      ValueError: for shapes that do not fit each other, for one sample, and for targets that are not floats.

    >>> crps(jnp.array([[0.0, 1.0, 2.0]]), jnp.array([1.0])).round(4)
    Array([0.], dtype=float32)
    """
    _check.floating("outputs", outputs)
    _check.floating("targets", targets)
    fits = outputs.ndim in (2, 3) and (outputs.shape[0], *outputs.shape[2:]) == targets.shape
    if not fits or outputs.shape[1] < 2:
        raise ValueError(
            f"outputs must be at least two samples, (batch, samples, d) for targets (batch, d) or (batch, samples) for "
            f"(batch,); got {_check.describe(outputs)} and {_check.describe(targets)}"
        )
    dtype, m = widest(outputs, targets), outputs.shape[1]
    samples, y = jnp.asarray(outputs, dtype), jnp.asarray(targets, dtype)[:, None]
    off = jnp.mean(jnp.abs(samples - jnp.broadcast_to(y, samples.shape)), axis=1)
    # In order, the sum over pairs is one over samples: the k-th of m is above k others and below the rest.
    rank = np.arange(1 - m, m, 2).astype(dtype) / (m * (m - 1))
    rank = jnp.broadcast_to(jnp.asarray(rank).reshape(1, m, *[1] * (samples.ndim - 2)), samples.shape)
    return sum_outputs(off - jnp.sum(rank * jnp.sort(samples, axis=1), axis=1))
