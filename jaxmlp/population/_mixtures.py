"""An even mixture of the members' Gaussians: its moments, densities, quantiles and draws, and its calibration."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arguments, _arrays, _check, losses
from jaxmlp._eager import compile_once
from jaxmlp._gaussian import negative_log
from jaxmlp._mesh import on_automatic_axes
from jaxmlp._targets import number, spread
from jaxmlp.data import Statistics, unstandardise
from jaxmlp.population._ensembles import healthy
from jaxmlp.types import Number, Numeric


class Mixture(NamedTuple):
    """An even mixture of Gaussians with independent outputs, one a member (Lakshminarayanan 2017, arXiv 1612.01474)."""

    means: Array  # (members, batch, d)
    variances: Array  # (members, batch, d)

    @property
    def mean(self) -> Array:
        """Mean of the mixture, (batch, d)."""
        return self.means.mean(0)

    @property
    def aleatoric(self) -> Array:
        """Mean of the members' variances, (batch, d): the noise that they see."""
        return self.variances.mean(0)

    @property
    def epistemic(self) -> Array:
        """Variance of the members' means, (batch, d): what they disagree about."""
        return self.means.var(0)

    @property
    def variance(self) -> Array:
        """Variance of the mixture: aleatoric + epistemic."""
        return self.aleatoric + self.epistemic

    @on_automatic_axes
    def log_prob(self, y: Numeric) -> Array:
        """Return log (1 / M) sum_m prod_d N(y_d; mean_md, variance_md), (batch,), for y (batch, d)."""
        targets = jnp.broadcast_to(self._targets(y)[None], self.means.shape)
        members = -negative_log(self.means, self.variances, targets).sum(-1)  # (members, batch)
        return jax.nn.logsumexp(members, axis=0) - np.log(len(self.means)).astype(members.dtype)

    @on_automatic_axes
    def gaussian_log_prob(self, y: Numeric) -> Array:
        """Return log N(y; mean, variance), (batch,), of the one Gaussian with the mixture's moments."""
        return -negative_log(self.mean, self.variance, self._targets(y)).sum(-1)

    @on_automatic_axes
    def cdf(self, y: Numeric) -> Array:
        """Return P(Y_d <= y_d) for y (batch, d)."""
        z = (jnp.broadcast_to(self._targets(y), self.means.shape) - self.means) / jnp.sqrt(self.variances)
        return jax.scipy.stats.norm.cdf(z).mean(0)

    @on_automatic_axes
    def quantile(self, level: float) -> Array:
        """Return the value (batch, d) that the mixture stays below with probability `level` in (0, 1).

        By bisection between the lowest and the highest quantile of the members: it lies there.
        """
        if not 0 < _arguments.scalar("level", level) < 1:
            raise ValueError(f"level must lie in (0, 1); got {level}")
        members = self.means + jax.scipy.stats.norm.ppf(level).astype(self.means.dtype) * jnp.sqrt(self.variances)

        low, high = _bisect_cdf(self, jnp.asarray(level, members.dtype), members.min(0), members.max(0))
        return 0.5 * (low + high)

    @on_automatic_axes
    def sample(self, key: Array, count: int) -> Array:
        """Return draws (count, batch, d); each draw is of one member, the same for all of the batch."""
        _check.typed_key(key)
        member_key, noise_key = jax.random.split(key)
        who = jax.random.randint(member_key, (_check.positive_int("count", count),), 0, len(self.means))
        noise = jax.random.normal(noise_key, (count, *self.means.shape[1:]), self.means.dtype)
        return self.means[who] + jnp.sqrt(self.variances[who]) * noise

    @on_automatic_axes
    def scale(self, y: Numeric) -> Array:
        """Return the number by which all deviations are too small, s = sqrt(mean z^2), z = (y - mean) / sqrt(variance).

        For targets y (batch, d) that no member was trained on. `scaled(s)` has the largest `gaussian_log_prob` of them
        that a scale can give (Laves 2021, arXiv 2104.12376; Kuleshov 2018, arXiv 1807.00263, of calibration after
        training).

        Raises:
          ValueError: for y of another shape, or not finite.
        """
        targets = self._targets(y)
        _check.finite("y", targets)
        return jnp.sqrt(jnp.mean(jnp.square(targets - self.mean) / self.variance))

    @on_automatic_axes
    def scaled(self, by: Number) -> "Mixture":
        """Return the mixture whose deviations from its mean are `by` times as large, noise and disagreement alike.

        means: mean + by (means - mean), variances: by^2 variances, (members, batch, d).

        Raises:
          ValueError: for numbers that are not above 0, or neither one nor one for each output.
        """
        number("by", by, 0, np.inf, open_low=True)
        by = jnp.broadcast_to(spread("by", by, self.mean), self.mean.shape)[None]
        center = self.mean[None]
        return Mixture(center + by * (self.means - center), jnp.square(by) * self.variances)

    @on_automatic_axes
    def unstandardise(self, by: Statistics) -> "Mixture":
        """Return the mixture in the targets' own units, for members trained on standardised ones.

        Raises:
          ValueError: for units so far from one, or from zero, that the mixture's dtype cannot hold it.
        """
        means = unstandardise(self.means, by)  # first: it checks the statistics
        known = [_check.on_host(a) for a in (*by, self.variances)]
        if all(a is not None for a in known):
            mean, std, own = (np.asarray(a, np.float64) for a in known)
            own, info = own * std**2, jnp.finfo(self.means.dtype)
            if (own < info.tiny).any() or (own > info.max).any() or (np.abs(mean) * info.eps > 0.01 * std).any():
                raise ValueError(
                    f"units must be such that {info.dtype} holds the variances, and means to a hundredth of a unit; "
                    f"got a mean of {mean} and units of {std}; shift or scale y, or use 64-bit JAX"
                )
        scale = jnp.broadcast_to(jnp.asarray(by.std, self.means.dtype), self.means.shape)
        means = jnp.asarray(means).astype(self.means.dtype)
        return Mixture(means, self.variances * jnp.square(scale))

    def _targets(self, y: Numeric) -> Array:
        y = _arrays.array("y", y)
        _check.floating("y", y)
        if y.shape != self.means.shape[1:]:
            raise ValueError(f"y must have shape {self.means.shape[1:]}; got {_check.describe(y)}")
        return jnp.asarray(y, self.means.dtype)


@on_automatic_axes
def mixture(outputs: Numeric, *, status: Numeric | None = None, min_variance: Number = losses.FLOOR) -> Mixture:
    """Return the mixture of the members' Gaussians.

    Args:
      outputs: (members, batch, 2 d), from `predict` with nets trained on `losses.gaussian_nll`.
      status: history["status"]; members that diverged are left out, and a warning counts them.
      min_variance: the floor that they were trained with.

    Raises:
      ValueError: for outputs without a members' axis, or of no member that is left.

    >>> m = mixture(jnp.array([[[0.0, 0.0]], [[2.0, 0.0]]]))
    >>> m.mean, m.aleatoric.round(2), m.epistemic
    (Array([[1.]], dtype=float32), Array([[1.]], dtype=float32), Array([[1.]], dtype=float32))
    """
    return Mixture(*losses.gaussian(healthy(outputs, status), min_variance=min_variance))


@compile_once()
def _bisect_cdf(mixture: Mixture, level: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Return ends, closer than rounding, between which the mixture's distribution function crosses `level`."""

    def halve(_: object, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        above = mixture.cdf(middle) > level
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    return jax.lax.fori_loop(0, 60, halve, (low, high))
