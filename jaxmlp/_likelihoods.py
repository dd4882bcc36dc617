"""Likelihoods beside the Gaussian, with their full constants, and a score that is none."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import betaln, gammaln, ndtr

from jaxmlp import _check
from jaxmlp._arrays import taking
from jaxmlp._gaussian import FLOOR, gaussian, gaussian_for, negative_log, pairs_of
from jaxmlp._scaling import density
from jaxmlp._targets import alike, number, spread, sum_outputs, wide
from jaxmlp.types import Number, Numeric

LEAST = 1e-6  # of a dispersion, whose inverse is taken


@taking("outputs", "targets")
def poisson(outputs: Numeric, targets: Numeric) -> Array:
    """Return -sum_d log P(y_d) of counts y_d of the rate exp(output_d): exp(o) - y o + log y!.

    Shapes: (batch, d), (batch, d) -> (batch,); (batch,), (batch,) -> (batch,).

    Raises:
      ValueError: for shapes that differ, targets that are not floats, and negative counts where they are known.

    >>> poisson(jnp.array([[0.0]]), jnp.array([[2.0]])).round(4)
    Array([1.6931], dtype=float32)
    """
    _check.floating("targets", targets)
    _check.within("targets, counts,", targets, 0, np.inf)
    rate, counts = alike(outputs, targets)
    return sum_outputs(jnp.exp(rate) - counts * rate + gammaln(counts + 1))


@taking("outputs")
def negative_binomial_moments(outputs: Numeric) -> tuple[Array, Array]:
    """Return mean and variance of the counts that outputs (..., 2 d) hold: d log means, then d raw dispersions.

    variance = mean + dispersion mean^2 with dispersion = softplus(raw dispersion). As SciPy has it: n = 1 / dispersion
    and p = mean / variance. Shapes: (..., 2 d) -> (..., d), (..., d).

    Raises:
      ValueError: for outputs that are not pairs.

    >>> mean, variance = negative_binomial_moments(jnp.array([[0.0, 0.5413]]))
    >>> mean, variance.round(3)
    (Array([[1.]], dtype=float32), Array([[2.]], dtype=float32))
    """
    log_mean, dispersion = _log_mean_and_dispersion(outputs)
    mean = jnp.exp(log_mean)
    return mean, mean + dispersion * jnp.square(mean)


@taking("outputs", "targets")
def negative_binomial(outputs: Numeric, targets: Numeric) -> Array:
    """Return -sum_d log P(y_d) of counts of mean m_d and variance m_d + a_d m_d^2, more than those of Poisson have.

    With n = 1 / a: log n G(n) G(y + 1) / (n G(n + y)) + (n + y) log(1 + a m) - y log(a m), G the gamma function (Hilbe
    2011, doi 10.1017/CBO9780511973420; of a network Salinas 2020, arXiv 1704.04110). As a vanishes it is `poisson`.

    Args:
      outputs: (batch, 2 d), d log means and then d raw dispersions, a = softplus(raw); see `negative_binomial_moments`.
      targets: (batch, d), counts as floats.

    Raises:
      ValueError: for outputs that are not twice as wide as the targets, targets that are not floats, and negative
        counts where they are known.

    >>> negative_binomial(jnp.array([[0.0, 0.5413]]), jnp.array([[2.0]])).round(4)
    Array([2.0794], dtype=float32)
    """
    _check.floating("targets", targets)
    _check.within("targets, counts,", targets, 0, np.inf)
    _check.floating("outputs", outputs)
    if outputs.ndim != 2 or targets.ndim != 2 or outputs.shape != (len(targets), 2 * targets.shape[1]):
        raise ValueError(
            f"outputs must have shape (batch, 2 d), log means then raw dispersions, for targets (batch, d); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    log_mean, a = _log_mean_and_dispersion(outputs)
    y = jnp.asarray(targets, log_mean.dtype)
    small, large = jnp.minimum(a, 0.125), jnp.maximum(a, 0.125)
    # Of little dispersion the gamma functions differ in digits that float32 has not: then by Stirling's series.
    spread_, n = log_mean + jnp.log(small), 1 / small
    grown = jnp.log1p(small * y)
    rest = small / 12 * (1 / (1 + small * y) - 1) - small**3 / 360 * ((1 + small * y) ** -3 - 1)
    near = gammaln(y + 1) - y * log_mean + y - (y + n - 0.5) * grown - rest + (n + y) * jax.nn.softplus(spread_)
    spread_, n = log_mean + jnp.log(large), 1 / large
    far = betaln(n, y + 1) + jnp.log(n + y) + n * jax.nn.softplus(spread_) + y * jax.nn.softplus(-spread_)
    return sum_outputs(jnp.where(a < 0.125, near, far))


def _log_mean_and_dispersion(outputs: Numeric) -> tuple[Array, Array]:
    log_mean, raw = pairs_of(outputs, "a log mean and a raw dispersion")
    return log_mean, jax.nn.softplus(raw) + np.asarray(LEAST, log_mean.dtype)


@density
@taking("outputs", "targets")
def student_t_nll(outputs: Numeric, targets: Numeric, *, df: Number = 4.0, min_variance: Number = FLOOR) -> Array:
    """Return -sum_d log t(y_d; df, mean_d, scale_d), whose tails forgive outliers.

    With z = (y - mean) / scale: log scale + log(pi df) / 2 + log G(df / 2) - log G((df + 1) / 2) + (df + 1) / 2
    log(1 + z^2 / df), G the gamma function (Lange 1989, doi 10.1080/01621459.1989.10478852).

    Args:
      outputs: (batch, 2 d), d means and then d raw scales, whose scale^2 is the variance of `gaussian`.
      targets: (batch, d).
      df: degrees of freedom, above 0; at infinity it is `gaussian_nll`.
      min_variance: the floor under scale^2, in squared units of the targets.

    Raises:
      ValueError: for outputs that are not twice as wide as the targets, a df that is not above 0, or a negative floor.

    >>> student_t_nll(jnp.array([[0.0, 0.0]]), jnp.array([[0.0]])).round(3)
    Array([0.981], dtype=float32)
    """
    number("df", df, 0, np.inf, open_low=True)
    mean, squared = gaussian_for(outputs, targets, min_variance)
    return sum_outputs(student(mean, squared, spread("df", df, mean), targets))


def student(mean: Array, squared: Array, df: Array, targets: Numeric) -> Array:
    """Return -log t(y; df, mean, scale) of each output, (batch, d), with scale^2 = squared."""
    df = jnp.broadcast_to(df, mean.shape)
    error = jnp.square(jnp.asarray(targets, mean.dtype) - mean) / squared
    # Of many degrees of freedom the two differ in digits that float32 has not: then by Stirling's series.
    few, many = jnp.minimum(df, 60.0), jnp.maximum(df, 60.0)
    exact = gammaln(0.5 * few) - gammaln(0.5 * (few + 1)) + 0.5 * jnp.log(np.pi * few)
    series = (0.5 * np.log(2 * np.pi)).astype(mean.dtype) + 0.25 / many - 1 / (24 * many**3)
    constant = jnp.where(df < 60, exact, series)
    return constant + 0.5 * jnp.log(squared) + 0.5 * (df + 1) * jnp.log1p(error / df)


@density
@taking("outputs", "targets")
def mixture_nll(outputs: Numeric, targets: Numeric, *, min_variance: Number = FLOOR) -> Array:
    """Return -log sum_k share_k prod_d N(y_d; mean_kd, variance_kd), a mixture density network (Bishop 1994).

    Bishop's report is NCRG/94/004 of Aston University. How many components there are follows from the widths.

    Args:
      outputs: (batch, k (1 + 2 d)): k logits of the shares, then k times d means and d raw scales, see `gaussian`.
      targets: (batch, d).
      min_variance: the floor under each variance, in squared units of the targets.

    Raises:
      ValueError: for widths that do not fit each other, or a negative floor.

    >>> mixture_nll(jnp.array([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]), jnp.array([[0.0]])).round(3)
    Array([0.919], dtype=float32)
    """
    _check.floating("outputs", outputs)
    _check.floating("targets", targets)
    if outputs.ndim != 2 or targets.ndim != 2 or len(outputs) != len(targets):
        raise ValueError(
            f"outputs and targets must be (batch, k (1 + 2 d)) and (batch, d); got {_check.describe(outputs)} and "
            f"{_check.describe(targets)}"
        )
    width, d = outputs.shape[1], targets.shape[1]
    if width % (1 + 2 * d):
        raise ValueError(
            f"outputs must be a multiple of {1 + 2 * d} wide, a logit and {d} means and raw scales for each component; "
            f"got {width}"
        )
    k = width // (1 + 2 * d)
    logits, parts = outputs[:, :k], outputs[:, k:].reshape(len(outputs), k, 2 * d)
    mean, variance = gaussian(parts, min_variance=min_variance)
    each = negative_log(mean, variance, jnp.broadcast_to(jnp.asarray(targets, mean.dtype)[:, None], mean.shape))
    return -jax.nn.logsumexp(jax.nn.log_softmax(wide(logits)) - each.sum(-1), axis=-1)


@taking("outputs", "targets")
def gaussian_crps(outputs: Numeric, targets: Numeric, *, min_variance: Number = FLOOR) -> Array:
    """Return sum_d of the continuous ranked probability score of N(mean_d, variance_d), in the units of the targets.

    s (z (2 F(z) - 1) + 2 f(z) - 1 / sqrt(pi)) with z = (y - mean) / s, F and f of the standard normal (Gneiting 2005,
    doi 10.1175/MWR2904.1). It is proper as the likelihood is, and an outlier costs no more than its distance.

    Args:
      outputs: (batch, 2 d), d means and then d raw scales; see `gaussian`.
      targets: (batch, d).
      min_variance: the floor under the variance, in squared units of the targets.

    Raises:
      ValueError: for outputs that are not twice as wide as the targets, or a negative floor.

    >>> gaussian_crps(jnp.array([[0.0, 0.0]]), jnp.array([[0.0]])).round(4)
    Array([0.2337], dtype=float32)
    """
    mean, variance = gaussian_for(outputs, targets, min_variance)
    scale = jnp.sqrt(variance)
    z = (jnp.asarray(targets, mean.dtype) - mean) / scale
    density = jnp.exp(-0.5 * jnp.square(z)) / np.sqrt(2 * np.pi).astype(z.dtype)
    return sum_outputs(scale * (z * (2 * ndtr(z) - 1) + 2 * density - np.asarray(1 / np.sqrt(np.pi), z.dtype)))
