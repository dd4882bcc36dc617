"""Losses of single examples: (outputs, targets, **numbers) -> (batch,).

Each is summed over the outputs d of an example and never over the examples: the mean, sample weights and masks
stay with the caller. Targets have the shape of the outputs; (N,) against (N, 1) is an error, not a broadcast.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxmlp import _check
from jaxmlp._arrays import taking
from jaxmlp._bounds import Bounded as Bounded
from jaxmlp._bounds import BoundedScales as BoundedScales
from jaxmlp._bounds import bounded as bounded
from jaxmlp._classes import binary_cross_entropy as binary_cross_entropy
from jaxmlp._classes import cross_entropy as cross_entropy
from jaxmlp._classes import focal as focal
from jaxmlp._composed import PerToken as PerToken
from jaxmlp._composed import Total as Total
from jaxmlp._composed import per_token as per_token
from jaxmlp._composed import total as total
from jaxmlp._evidence import crps as crps
from jaxmlp._evidence import evidential as evidential
from jaxmlp._evidence import evidential_nll as evidential_nll
from jaxmlp._gaussian import FLOOR as FLOOR
from jaxmlp._gaussian import from_softplus as from_softplus
from jaxmlp._gaussian import gaussian as gaussian
from jaxmlp._gaussian import gaussian_for, negative_log
from jaxmlp._likelihoods import gaussian_crps as gaussian_crps
from jaxmlp._likelihoods import mixture_nll as mixture_nll
from jaxmlp._likelihoods import negative_binomial as negative_binomial
from jaxmlp._likelihoods import negative_binomial_moments as negative_binomial_moments
from jaxmlp._likelihoods import poisson as poisson
from jaxmlp._likelihoods import student_t_nll as student_t_nll
from jaxmlp._pairs import cox as cox
from jaxmlp._pairs import info_nce as info_nce
from jaxmlp._pairs import pairwise_ranking as pairwise_ranking
from jaxmlp._pairs import triplet as triplet
from jaxmlp._scaling import density as density
from jaxmlp._slopes import sobolev as sobolev
from jaxmlp._targets import alike, number, spread, sum_outputs
from jaxmlp._targets import wide as wide
from jaxmlp.types import Number, Numeric

_ELSEWHERE = (
    *(Bounded, BoundedScales, bounded, crps, evidential_nll, pairwise_ranking, triplet),
    *(binary_cross_entropy, cross_entropy, focal, PerToken, Total, per_token, sobolev, total),
    *(cox, gaussian_crps, info_nce, mixture_nll, negative_binomial, poisson, student_t_nll),
)
for _loss in _ELSEWHERE:
    _loss.__module__ = __name__  # they are found here by name, also by a run that is resumed


@taking("outputs", "targets")
def squared_error(outputs: Numeric, targets: Numeric) -> Array:
    """Return sum_d (y_d - yhat_d)^2; its mean over examples is the notes' MSE.

    Shapes: (batch, d), (batch, d) -> (batch,); (batch,), (batch,) -> (batch,).

    Raises:
      ValueError: for shapes that differ, or targets that are not floats.

    >>> squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 2.0]]))
    Array([4.], dtype=float32)
    """
    return sum_outputs(optax.squared_error(*alike(outputs, targets)))


@taking("outputs", "targets")
def absolute_error(outputs: Numeric, targets: Numeric) -> Array:
    """Return sum_d |y_d - yhat_d|, minimised by the median.

    Shapes: (batch, d), (batch, d) -> (batch,); (batch,), (batch,) -> (batch,).

    Raises:
      ValueError: for shapes that differ, or targets that are not floats.

    >>> absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 1.0]]))
    Array([3.], dtype=float32)
    """
    outputs, targets = alike(outputs, targets)
    return sum_outputs(jnp.abs(targets - outputs))


@taking("outputs", "targets")
def huber(outputs: Numeric, targets: Numeric, *, delta: Number = 1.0) -> Array:
    """Return sum_d of r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2), with r = y - yhat.

    Huber 1964, doi 10.1214/aoms/1177703732. Shapes: (batch, d), (batch, d) -> (batch,); (batch,), (batch,) -> (batch,).

    Raises:
      ValueError: for shapes that differ, targets that are not floats, or a delta that is not above 0.

    >>> huber(jnp.array([[0.0], [0.0]]), jnp.array([[0.5], [3.0]]))
    Array([0.125, 2.5  ], dtype=float32)
    """
    number("delta", delta, 0, np.inf, open_low=True)
    outputs, targets = alike(outputs, targets)
    return sum_outputs(optax.huber_loss(outputs, targets, delta=spread("delta", delta, outputs)))  # type: ignore[arg-type]


@taking("outputs", "targets")
def quantile(outputs: Numeric, targets: Numeric, *, level: Number) -> Array:
    """Return the pinball loss, sum of max(q r, (q - 1) r) with r = y - yhat, minimised by the quantile q of y.

    Koenker and Bassett 1978, doi 10.2307/1913643.

    Args:
      outputs: (batch, d) for one level; (batch, q d) for q levels, all d outputs of the first level first.
      targets: (batch, d).
      level: a number in (0, 1), or an array of q of them.

    Raises:
      ValueError: for outputs that do not fit targets and levels, or levels outside (0, 1).

    >>> quantile(jnp.array([[0.0], [0.0]]), jnp.array([[1.0], [-1.0]]), level=0.75)
    Array([0.75, 0.25], dtype=float32)
    """
    _check.floating("targets", targets)
    _check.floating("outputs", outputs)
    number("level", level, 0, 1, open_low=True, open_high=True)
    outputs = wide(outputs)
    levels = jnp.asarray(level, outputs.dtype)
    if levels.ndim > 1:
        raise ValueError(f"level must be a number or a vector of them; got {_check.describe(levels)}")
    if levels.ndim == 0:
        alike(outputs, targets)
    elif targets.ndim != 2 or outputs.shape != (len(targets), levels.size * targets.shape[1]):
        raise ValueError(
            f"outputs must have shape (batch, {levels.size} levels x d) for targets (batch, d); got "
            f"{_check.describe(outputs)} and {_check.describe(targets)}"
        )
    outputs = outputs.reshape(len(targets), levels.size, -1)  # (batch, q, d)
    targets = jnp.asarray(targets, outputs.dtype).reshape(len(targets), 1, -1)
    residual = jnp.broadcast_to(targets, outputs.shape) - outputs
    q = jnp.broadcast_to(levels.reshape(1, -1, 1), outputs.shape)
    return sum_outputs(jnp.maximum(q * residual, (q - 1) * residual))


@density
@taking("outputs", "targets")
def unit_gaussian_nll(outputs: Numeric, targets: Numeric) -> Array:
    """Return -sum_d log N(y_d; yhat_d, 1) = sum_d [(y_d - yhat_d)^2 + log 2 pi] / 2, the notes' likelihood negated.

    Half of `squared_error`, up to a constant. Shapes: (batch, d), (batch, d) -> (batch,); also (batch,), (batch,).

    Raises:
      ValueError: for shapes that differ, or targets that are not floats.

    >>> unit_gaussian_nll(jnp.array([[1.0]]), jnp.array([[1.0]])).round(4)
    Array([0.9189], dtype=float32)
    """
    outputs, targets = alike(outputs, targets)
    return sum_outputs(0.5 * (optax.squared_error(outputs, targets) + np.log(2 * np.pi).astype(outputs.dtype)))


@density
@taking("outputs", "targets")
def gaussian_nll(outputs: Numeric, targets: Numeric, *, min_variance: Number = FLOOR) -> Array:
    """Return -sum_d log N(y_d; mean_d, variance_d) = sum_d [log(2 pi variance_d) + (y_d - mean_d)^2 / variance_d] / 2.

    The full constant is there, so that figures compare with papers (Nix and Weigend 1994, doi
    10.1109/ICNN.1994.374138; Lakshminarayanan 2017, arXiv 1612.01474). In the units of the targets.

    Args:
      outputs: (batch, 2 d), d means and then d raw scales; see `gaussian`.
      targets: (batch, d).
      min_variance: the floor under the variance, in squared units of the targets.

    Raises:
      ValueError: for outputs that are not twice as wide as the targets, or a negative floor.

    >>> gaussian_nll(jnp.array([[0.0, 0.0]]), jnp.array([[0.0]])).round(3)
    Array([0.919], dtype=float32)
    """
    mean, variance = gaussian_for(outputs, targets, min_variance)
    return sum_outputs(negative_log(mean, variance, targets))


@taking("outputs", "targets")
def beta_gaussian_nll(outputs: Numeric, targets: Numeric, *, beta: Number = 0.5, min_variance: Number = FLOOR) -> Array:
    """Return sum_d of stop_gradient(variance_d^beta) [log(2 pi variance_d) + (y_d - mean_d)^2 / variance_d] / 2.

    The likelihood alone lets a network call hard examples noise and learn them no more; the weight gives them back
    (Seitzer 2022, arXiv 2203.09168): beta 0 is `gaussian_nll`, 1 fits the mean as the squared error does. To train on;
    score with `gaussian_nll`.

    Args:
      outputs: (batch, 2 d), d means and then d raw scales; see `gaussian`.
      targets: (batch, d).
      beta: the power of the variance that weighs an example, in [0, 1].
      min_variance: the floor under the variance, in squared units of the targets.

    Raises:
      ValueError: for outputs that are not twice as wide as the targets, a beta outside [0, 1], or a negative floor.

    >>> beta_gaussian_nll(jnp.array([[0.0, 0.0]]), jnp.array([[0.0]]), beta=0.0).round(3)
    Array([0.919], dtype=float32)
    """
    number("beta", beta, 0, 1)
    mean, variance = gaussian_for(outputs, targets, min_variance)
    weight = jax.lax.stop_gradient(variance ** spread("beta", beta, variance))
    return sum_outputs(weight * negative_log(mean, variance, targets))
