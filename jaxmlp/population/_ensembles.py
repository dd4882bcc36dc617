"""Many members, one prediction with honest uncertainty: mixtures and averaged votes."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arguments, _arrays, _check, _compile, losses
from jaxmlp._eager import compile_once
from jaxmlp._gaussian import negative_log
from jaxmlp._scaling import outputs as in_units
from jaxmlp._verbs import members, verb
from jaxmlp.data import Statistics, unstandardise
from jaxmlp.types import Model, Number, Numeric, Params, Status


@verb
def predict(model: Model, params: Params, x: Numeric, **numbers: Number) -> Array:
    """Return the outputs of every member on the same x (batch, in): (members, batch, out).

    Raises:
      ValueError: for x or parameters that do not fit the model, and for states in the place of their params.

    >>> from jaxmlp import MLP
    >>> params = jax.vmap(MLP((3, 2)).init)(jax.random.split(jax.random.key(0), 4))
    >>> predict(MLP((3, 2)), params, jnp.ones((5, 3))).shape
    (4, 5, 2)
    """
    if hasattr(params, "opt_state"):
        raise ValueError("params must be the members' parameters; got states; pass states.params")
    members("params", params)
    numbers = {name: _arrays.number(name, value) for name, value in numbers.items()}
    return _predict(model, params, jnp.asarray(_arrays.array("x", x)), numbers)


@_compile.jit(static_argnums=0)
def _predict(model: Model, params: Params, x: Array, numbers: dict[str, Number]) -> Array:
    return jax.vmap(lambda p: in_units(model, p, model.apply(p, x, **numbers)))(params)


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

    def log_prob(self, y: Numeric) -> Array:
        """Return log (1 / M) sum_m prod_d N(y_d; mean_md, variance_md), (batch,), for y (batch, d)."""
        targets = jnp.broadcast_to(self._targets(y)[None], self.means.shape)
        members = -negative_log(self.means, self.variances, targets).sum(-1)  # (members, batch)
        return jax.nn.logsumexp(members, axis=0) - np.log(len(self.means)).astype(members.dtype)

    def gaussian_log_prob(self, y: Numeric) -> Array:
        """Return log N(y; mean, variance), (batch,), of the one Gaussian with the mixture's moments."""
        return -negative_log(self.mean, self.variance, self._targets(y)).sum(-1)

    def cdf(self, y: Numeric) -> Array:
        """Return P(Y_d <= y_d) for y (batch, d)."""
        z = (jnp.broadcast_to(self._targets(y), self.means.shape) - self.means) / jnp.sqrt(self.variances)
        return jax.scipy.stats.norm.cdf(z).mean(0)

    def quantile(self, level: float) -> Array:
        """Return the value (batch, d) that the mixture stays below with probability `level` in (0, 1).

        By bisection between the lowest and the highest quantile of the members: it lies there.
        """
        if not 0 < _arguments.scalar("level", level) < 1:
            raise ValueError(f"level must lie in (0, 1); got {level}")
        members = self.means + jax.scipy.stats.norm.ppf(level).astype(self.means.dtype) * jnp.sqrt(self.variances)

        low, high = _bisect_cdf(self, jnp.asarray(level, members.dtype), members.min(0), members.max(0))
        return 0.5 * (low + high)

    def sample(self, key: Array, count: int) -> Array:
        """Return draws (count, batch, d); each draw is of one member, the same for all of the batch."""
        _check.typed_key(key)
        member_key, noise_key = jax.random.split(key)
        who = jax.random.randint(member_key, (_check.positive_int("count", count),), 0, len(self.means))
        noise = jax.random.normal(noise_key, (count, *self.means.shape[1:]), self.means.dtype)
        return self.means[who] + jnp.sqrt(self.variances[who]) * noise

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


def mixture(outputs: Numeric, *, status: Numeric | None = None, min_variance: Number = losses.FLOOR) -> Mixture:
    """Return the mixture of the members' Gaussians.

    Args:
      outputs: (members, batch, 2 d), from `predict` with nets trained on `losses.gaussian_nll`.
      status: history["status"]; members that diverged are left out, and a warning counts them.
      min_variance: the floor that they were trained with.

    Raises:
      ValueError: for outputs without a members' axis, or of no member that is left.

    >>> m = mixture(jnp.array([[[0.0, 0.5413]], [[2.0, 0.5413]]]))
    >>> m.mean, m.aleatoric.round(2), m.epistemic
    (Array([[1.]], dtype=float32), Array([[1.]], dtype=float32), Array([[1.]], dtype=float32))
    """
    return Mixture(*losses.gaussian(_healthy(outputs, status), min_variance=min_variance))


class Categorical(NamedTuple):
    """Averaged class probabilities, one vote a member."""

    probabilities: Array  # (members, batch, classes)

    @property
    def mean(self) -> Array:
        """Averaged probabilities, (batch, classes)."""
        return self.probabilities.mean(0)

    @property
    def entropy(self) -> Array:
        """Entropy of the average in nats, (batch,): all uncertainty."""
        return _entropy(self.mean)

    @property
    def mutual_information(self) -> Array:
        """Entropy of the average less the members' mean entropy, (batch,): what the members disagree about."""
        return self.entropy - _entropy(self.probabilities).mean(0)

    def log_prob(self, y: Numeric) -> Array:
        """Return the log of the averaged probability of labels y (batch,); of 0, that of the least normal float."""
        y = _arrays.array("y", y)
        _check.labels("y", y, self.mean.shape[-1])
        if y.shape != self.probabilities.shape[1:2]:
            raise ValueError(f"y must have shape {self.probabilities.shape[1:2]}; got {_check.describe(y)}")
        tiny = jnp.finfo(self.probabilities.dtype).tiny
        chosen = jnp.take_along_axis(self.mean, jnp.asarray(y)[:, None], axis=-1)[:, 0]
        return jnp.log(jnp.maximum(chosen, tiny))


def categorical(outputs: Numeric, *, status: Numeric | None = None) -> Categorical:
    """Return the averaged probabilities softmax(outputs) of the members' logits.

    Args:
      outputs: (members, batch, classes), from `predict` with nets trained on `losses.cross_entropy`.
      status: history["status"]; members that diverged are left out, and a warning counts them.

    Raises:
      ValueError: for outputs without a members' axis, or of no member that is left.

    >>> c = categorical(jnp.array([[[10.0, -10.0]], [[-10.0, 10.0]]]))
    >>> c.mean.round(2), c.mutual_information.round(2)
    (Array([[0.5, 0.5]], dtype=float32), Array([0.69], dtype=float32))
    """
    return Categorical(jax.nn.softmax(losses.wide(_healthy(outputs, status)), axis=-1))


@compile_once()
def _bisect_cdf(mixture: Mixture, level: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Return ends, closer than rounding, between which the mixture's distribution function crosses `level`."""

    def halve(_: object, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        above = mixture.cdf(middle) > level
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    return jax.lax.fori_loop(0, 60, halve, (low, high))


def _entropy(p: Array) -> Array:
    return -jnp.sum(jax.scipy.special.xlogy(p, p), axis=-1)


def _healthy(outputs: Numeric, status: Numeric | None) -> Array:
    outputs = _arrays.array("outputs", outputs)
    status = None if status is None else np.asarray(_arrays.listed("status", status))
    _check.floating("outputs", outputs)
    if outputs.ndim != 3 or len(outputs) == 0:
        raise ValueError(
            f"outputs must have shape (members, batch, out), as population.predict gives; got "
            f"{_check.describe(outputs)}"
        )
    outputs = jnp.asarray(outputs)
    if status is None:
        return outputs
    good = np.flatnonzero(np.asarray(status) != Status.DIVERGED)
    if np.shape(status) != (len(outputs),) or len(good) == 0:
        raise ValueError(f"status must be history['status'] of {len(outputs)} members, not all diverged; got {status}")
    if len(good) < len(outputs):
        warnings.warn(f"{len(outputs) - len(good)} of {len(outputs)} members diverged and are left out", stacklevel=3)
    return outputs[good]
