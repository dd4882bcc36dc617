"""Likelihoods and scores whose spread is a part of what is learned: counts, evidence, and samples of any model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import betaln

from jaxmlp import _check
from jaxmlp._arrays import taking
from jaxmlp._likelihoods import student
from jaxmlp._targets import number, spread, sum_outputs, wide
from jaxmlp.types import Number, Numeric

LEAST = -15.0  # of the log dispersion: below, it is a Poisson distribution to all digits of float32


@taking("outputs", "targets")
def negative_binomial(outputs: Numeric, targets: Numeric) -> Array:
    """Return -sum_d log P(y_d) of counts y_d of mean m and variance m + a m^2, m = exp(o), a = exp(raw).

    With t = o + raw: softplus(t) / a - y log sigmoid(t) - log G(y + 1/a) + log G(1/a) + log y!, G the gamma function
    (Hilbe 2011, doi 10.1017/CBO9780511973420). As a falls to 0 it is `poisson`; a is at least exp(-15).

    Args:
      outputs: (batch, 2 d), d log means and then d log dispersions.
      targets: (batch, d), counts as floats.

    Raises:
      ValueError: for outputs that are not twice as wide as the targets, and negative counts where they are known.

    >>> negative_binomial(jnp.array([[0.0, 0.0]]), jnp.array([[1.0]])).round(4)
    Array([1.3863], dtype=float32)
    """
    log_mean, log_dispersion = _columns(outputs, targets, 2, "log means and log dispersions")
    _check.within("targets, counts,", targets, 0, np.inf)
    log_dispersion = jnp.maximum(log_dispersion, LEAST)
    counts, size, t = jnp.asarray(targets, log_mean.dtype), jnp.exp(-log_dispersion), log_mean + log_dispersion
    some = jnp.where(counts > 0, counts, jnp.ones_like(counts))
    # log [G(y + r) / (G(r) y!)] = -log y - log B(y, r): the difference of two large logarithms would lose it.
    ways = jnp.where(counts > 0, -jnp.log(some) - betaln(some, size), jnp.zeros_like(counts))
    return sum_outputs(size * jax.nn.softplus(t) - counts * jax.nn.log_sigmoid(t) - ways)


class Evidence(NamedTuple):
    """What `evidential` reads: means, and the variances of noise and of what the model does not know, (..., d) each."""

    mean: Array
    noise: Array  # E[sigma^2], aleatoric
    doubt: Array  # Var[mu], epistemic


@taking("outputs")
def evidential(outputs: Numeric) -> Evidence:
    """Return the mean, the noise b / (a - 1) and the doubt b / (v (a - 1)) that outputs (..., 4 d) hold.

    They are d means and then d raw v, d raw a, d raw b each: v = softplus, a = 1 + softplus, b = softplus, of a
    normal-inverse-gamma distribution (Amini 2020, arXiv 1910.02600).

    Raises:
      ValueError: for outputs that are not a multiple of four wide.

    >>> evidential(jnp.array([[3.0, 0.0, 0.0, 0.0]])).mean
    Array([[3.]], dtype=float32)
    """
    mean, v, a, b = _evidence(outputs)
    return Evidence(mean, b / (a - 1), b / (v * (a - 1)))


@taking("outputs", "targets")
def evidential_nll(outputs: Numeric, targets: Numeric, *, evidence: Number = 0.01) -> Array:
    """Return sum_d of -log t(y_d; 2 a, mean, b (1 + v) / (v a)) + evidence |y_d - mean| (2 v + a).

    The likelihood of y under a normal-inverse-gamma distribution, and a price for being sure where one is wrong
    (Amini 2020, arXiv 1910.02600). `evidential` reads the outputs.

    Args:
      outputs: (batch, 4 d), d means, then d raw v, d raw a and d raw b.
      targets: (batch, d).
      evidence: the weight of the second term, not negative.

    Raises:
      ValueError: for outputs that are not four times as wide as the targets, or a negative weight.

    >>> evidential_nll(jnp.array([[0.0, 0.5413, 0.5413, 0.5413]]), jnp.array([[0.0]]), evidence=0.0).round(3)
    Array([0.981], dtype=float32)
    """
    number("evidence", evidence, 0, np.inf)
    _columns(outputs, targets, 4, "means, raw v, raw a and raw b")
    mean, v, a, b = _evidence(outputs)
    misfit = student(mean, b * (1 + v) / (v * a), 2 * a, targets)
    price = jnp.abs(jnp.asarray(targets, mean.dtype) - mean) * (2 * v + a)
    return sum_outputs(misfit + spread("evidence", evidence, mean) * price)


@taking("outputs", "targets")
def crps(outputs: Numeric, targets: Numeric) -> Array:
    """Return sum_d of mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 m (m - 1)), the score of m samples, in units of y.

    The fair estimate of the continuous ranked probability score: its mean does not depend on m (Gneiting and Raftery
    2007, doi 10.1198/016214506000001437; Ferro 2014, doi 10.1002/qj.2270). For any model that draws samples.

    Shapes: samples (batch, m, d), targets (batch, d) -> (batch,); also (batch, m) and (batch,).

    Raises:
      ValueError: for shapes that do not fit, and for fewer than two samples.

    >>> crps(jnp.array([[0.0, 2.0]]), jnp.array([1.0]))
    Array([0.], dtype=float32)
    """
    for name, value in (("outputs", outputs), ("targets", targets)):
        _check.floating(name, value)
    if outputs.ndim not in (2, 3) or outputs.shape[:1] + outputs.shape[2:] != targets.shape or outputs.shape[1] < 2:
        raise ValueError(
            f"outputs must be at least two samples of each target, (batch, m, d) for (batch, d); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    samples = wide(outputs)
    m = samples.shape[1]
    near = jnp.abs(samples - jnp.asarray(targets, samples.dtype)[:, None]).mean(1)
    # Of sorted samples sum_ij |x_i - x_j| is 2 sum_i (2 i - m + 1) x_i, counted from 0.
    ranks = (2 * jnp.arange(m, dtype=samples.dtype) - m + 1).reshape(1, m, *[1] * (samples.ndim - 2))
    apart = jnp.sum(jnp.sort(samples, axis=1) * jnp.broadcast_to(ranks, samples.shape), axis=1) / (m * (m - 1))
    return sum_outputs(near - apart)


def _evidence(outputs: Numeric) -> tuple[Array, Array, Array, Array]:
    _check.floating("outputs", outputs)
    if outputs.ndim < 1 or outputs.shape[-1] % 4:
        raise ValueError(f"outputs must be a multiple of four wide, (..., 4 d); got {_check.describe(outputs)}")
    mean, *raw = jnp.split(wide(outputs), 4, axis=-1)
    v, a, b = (jax.nn.softplus(part) + jnp.finfo(mean.dtype).eps for part in raw)
    return mean, v, 1 + a, b


def _columns(outputs: Numeric, targets: Numeric, parts: int, what: str) -> list[Array]:
    """Return the parts (batch, d) of outputs (batch, parts d) that fit the targets (batch, d)."""
    for name, value in (("outputs", outputs), ("targets", targets)):
        _check.floating(name, value)
    if outputs.ndim != 2 or targets.ndim != 2 or outputs.shape != (len(targets), parts * targets.shape[1]):
        raise ValueError(
            f"outputs must have shape (batch, {parts} d), {what}, for targets (batch, d); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    return jnp.split(wide(outputs), parts, axis=-1)
