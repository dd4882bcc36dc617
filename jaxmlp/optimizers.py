"""A factory or two over Optax; a `Recipe` takes any other factory of Optax's or of your own just as well."""

import dataclasses

import jax
import optax
from jax import Array

from jaxmlp import _check


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CosineAdamW:
    """AdamW whose rate warms up linearly and then falls to zero along a cosine, without decay of the biases.

    rate(t) = learning_rate t / warm for t < warm, else learning_rate (1 + cos(pi (t - warm) / (steps - warm))) / 2.
    Loshchilov and Hutter 2017 (arXiv 1608.03983) and 2019 (arXiv 1711.05101). A value, not a closure: equal
    factories make equal recipes, which share one compilation.

    Args:
      steps: all steps of the run, epochs times `data.steps_per_epoch(n, batch_size)`.
      warmup: the share of them that warms up, in [0, 1).

    Raises:
      ValueError: for steps below 1 or a share outside [0, 1).

    >>> CosineAdamW(steps=1000)
    CosineAdamW(steps=1000, warmup=0.05)
    """

    steps: int
    warmup: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _check.positive_int("steps", self.steps))
        _check.within("warmup", self.warmup, 0, 1, open_high=True)

    def __call__(self, learning_rate: float | Array, weight_decay: float | Array = 0.0) -> optax.GradientTransformation:
        """Return the transformation; both numbers may be traced."""
        warm = round(self.warmup * self.steps)
        rise = optax.linear_schedule(0.0, 1.0, warm)
        fall = optax.cosine_decay_schedule(1.0, max(self.steps - warm, 1))
        shape = optax.join_schedules([rise, fall], [warm]) if warm else fall
        return optax.adamw(
            lambda count: learning_rate * shape(count),
            weight_decay=weight_decay,
            mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
        )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ClippedCosineAdamW(CosineAdamW):
    """`CosineAdamW` on gradients whose global norm is clipped (Pascanu 2013, arXiv 1211.5063).

    The Gaussian likelihood needs it at large rates: an error at a small variance has a gradient without bound.

    >>> ClippedCosineAdamW(steps=1000)
    ClippedCosineAdamW(steps=1000, warmup=0.05)
    """

    def __call__(
        self, learning_rate: float | Array, weight_decay: float | Array = 0.0, clip_norm: float | Array = 1.0
    ) -> optax.GradientTransformation:
        """Return the transformation; all numbers may be traced."""
        cosine = super().__call__(learning_rate, weight_decay)
        return optax.chain(optax.clip_by_global_norm(clip_norm), cosine)
