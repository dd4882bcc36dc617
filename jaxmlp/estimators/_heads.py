"""What the outputs of a regressor mean: values, the logarithm of a rate, a mean and a spread, or quantiles."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import xlogy

from jaxmlp import _check, losses
from jaxmlp.types import Loss, Numeric

LEVELS = (0.1, 0.5, 0.9)  # of the loss "quantile" where none are given


def half_squared_error(outputs: Numeric, targets: Numeric) -> Array:
    """Return sum_d (y_d - yhat_d)^2 / 2, (batch,): what scikit-learn calls the squared error of its perceptron."""
    return 0.5 * losses.squared_error(outputs, targets)


def half_poisson_deviance(outputs: Numeric, targets: Numeric) -> Array:
    """Return sum_d of y log(y / rate) - y + rate with rate = exp(output), (batch,), zero where rate and count agree."""
    targets = jnp.asarray(targets, jnp.result_type(outputs))
    return jnp.sum(xlogy(targets, targets) - targets * outputs - targets + jnp.exp(outputs), axis=-1)


@dataclasses.dataclass(frozen=True)
class Head:
    """How outputs are trained and read."""

    loss: Loss
    kind: str = "values"  # or "rate", "gaussian", "student", "quantiles"

    @property
    def scales(self) -> bool:
        """Whether the targets may be scaled for training."""
        return self.kind != "rate"

    @property
    def folds(self) -> bool:
        """Whether the scaling of the targets is one of the last layer."""
        return self.kind in ("values", "quantiles")

    @property
    def spreads(self) -> bool:
        """Whether the outputs tell a variance."""
        return self.kind in ("gaussian", "student")

    @property
    def tells(self) -> bool:
        """Whether the outputs tell a whole distribution."""
        return self.spreads or self.kind == "rate"

    @property
    def link(self) -> str:
        """What scikit-learn calls the activation of the outputs."""
        return "exp" if self.kind == "rate" else "identity"

    def width(self, targets: int, numbers: Mapping[str, Any]) -> int:
        """Return how many outputs so many targets have."""
        if self.kind == "quantiles":
            return targets * np.size(numbers["level"])
        return 2 * targets if self.spreads else targets


HEADS: dict[str, Head] = {
    "squared_error": Head(half_squared_error),
    "poisson": Head(half_poisson_deviance, "rate"),
    "absolute_error": Head(losses.absolute_error),
    "huber": Head(losses.huber),
    "quantile": Head(losses.quantile, "quantiles"),
    "gaussian": Head(losses.gaussian_nll, "gaussian"),
    "beta_gaussian": Head(losses.beta_gaussian_nll, "gaussian"),
    "crps": Head(losses.gaussian_crps, "gaussian"),
    "student_t": Head(losses.student_t_nll, "student"),
}


def head_of(loss: Any) -> Head:
    """Return the head of a loss, by its name or of one of ours; a function of a caller's gives values."""
    if isinstance(loss, str):
        _check.one_of("loss", loss, HEADS)
        return HEADS[loss]
    known = {head.loss: head for head in HEADS.values()} | {losses.poisson: Head(losses.poisson, "rate")}
    return known.get(loss, Head(loss))


def squares_of(outputs: np.ndarray, numbers: Mapping[str, Any]) -> np.ndarray:
    """Return squared scales (..., d) of outputs (..., 2 d), in the units of the targets that were trained on."""
    _, raw = np.split(outputs, 2, axis=-1)
    return np.exp(4 * np.arcsinh(raw / 16)) + numbers.get("min_variance", losses.FLOOR)


def point(head: Head, outputs: Any, levels: Any = None) -> Any:
    """Return what is predicted of outputs (..., width), (..., d), for NumPy and JAX alike."""
    if head.kind == "rate":
        return (np if isinstance(outputs, np.ndarray) else jnp).exp(outputs)
    if head.spreads:
        return outputs[..., : outputs.shape[-1] // 2]
    if head.kind == "quantiles":
        # The level nearest to the median.
        levels = np.atleast_1d(levels)
        nearest, width = int(np.argmin(np.abs(levels - 0.5))), outputs.shape[-1] // len(levels)
        return outputs[..., nearest * width : (nearest + 1) * width]
    return outputs


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PointR2:
    """R^2 of what is predicted: the score of a regressor on its validation data."""

    kind: str
    levels: tuple[float, ...] | None = None

    def __call__(self, outputs: Numeric, targets: Numeric, *, weight: Numeric | None = None) -> Array:
        """Return 1 - sum (y - yhat)^2 / sum (y - mean y)^2, the mean over the outputs, ()."""
        found = point(Head(losses.squared_error, self.kind), jnp.asarray(outputs), self.levels)
        targets = jnp.asarray(targets, found.dtype)
        weight = jnp.ones(len(targets), found.dtype) if weight is None else weight
        share = (weight / jnp.sum(weight))[:, None]
        mean = jnp.sum(share * targets, axis=0)
        missed = jnp.sum(share * jnp.square(targets - found), axis=0)
        total = jnp.sum(share * jnp.square(targets - mean[None]), axis=0)
        alike = jnp.where(missed > 0, jnp.zeros_like(missed), jnp.ones_like(missed))
        return jnp.mean(jnp.where(total > 0, 1 - missed / jnp.where(total > 0, total, 1), alike))
