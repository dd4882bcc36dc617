"""What a run is made of: a model, a loss and an optimizer, and who of them takes which number."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import Array

from jaxmlp import _check
from jaxmlp._numbers import Numbers, route


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Recipe:
    """What changes the program of a run; compared by value, so equal recipes share one compilation.

    Args:
      model: an `MLP`, or any hashable object with `init(key)` and `apply(params, x)`; where `apply` names `key`, it
        gets one in training and none in evaluation.
      loss: (outputs, targets, **numbers) -> (batch,), one loss an example.
      optimizer: a factory of numbers, `optax.adamw`, not `optax.adamw(1e-3)`; any function that returns an
        `optax.GradientTransformation`.
      epochs: how often each example is seen.
      batch_size: examples a step; None takes all at once, in their order.
      metrics: functions (outputs, targets) -> number, read at each epoch's end on the validation data, or on the
        training data where there is none.

    Raises:
      ValueError: for a part that is not as said.
    """

    model: Any
    loss: Callable[..., Array]
    optimizer: Callable[..., optax.GradientTransformation]
    epochs: int = dataclasses.field(kw_only=True)
    batch_size: int | None = dataclasses.field(default=None, kw_only=True)
    metrics: tuple[Callable[..., Array], ...] = dataclasses.field(default=(), kw_only=True)

    def __post_init__(self):
        for name in ("init", "apply"):
            if isinstance(self.model, type) or not callable(getattr(self.model, name, None)):
                raise ValueError(f"model must have init(key) and apply(params, x); got {self.model!r} without {name}")
        if isinstance(self.optimizer, optax.GradientTransformation):
            raise ValueError(
                "optimizer must be a factory, as optax.adam, and its numbers go to hyperparams={'learning_rate': ...}; "
                "got a finished optax.GradientTransformation"
            )
        metrics = (self.metrics,) if callable(self.metrics) else tuple(self.metrics)
        for name, part in (("loss", self.loss), ("optimizer", self.optimizer), *(("metrics", m) for m in metrics)):
            if not callable(part):
                raise ValueError(f"{name} must be callable; got {part!r}")
        object.__setattr__(self, "metrics", metrics)
        object.__setattr__(self, "epochs", _check.positive_int("epochs", self.epochs))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", _check.positive_int("batch_size", self.batch_size))
        try:
            hash(self)
        except TypeError as error:
            raise ValueError(f"every part of a Recipe must be hashable ({error}); use tuples for lists") from error

    def route(self, hyperparams: Any) -> Numbers:
        """Return the hyperparams, sorted by who takes them.

        Raises:
          ValueError: for a name that nobody takes, or that two take.
        """
        return route(self.model, self.loss, self.optimizer, hyperparams)

    def transformation(self, numbers: Numbers) -> optax.GradientTransformation:
        """Return the Optax transformation of these numbers.

        Built while tracing: it is a closure over its numbers, and these are traced.
        """
        optimizer = self.optimizer(**numbers.optimizer)
        if not isinstance(optimizer, optax.GradientTransformation):
            raise ValueError(f"optimizer must return an optax.GradientTransformation; got {type(optimizer).__name__}")
        return optimizer

    def per_example(self, outputs: Array, y: Any, numbers: Numbers) -> Array:
        """Return the loss of each example, (batch,)."""
        losses = self.loss(outputs, y, **numbers.loss)
        if getattr(losses, "shape", None) != outputs.shape[:1]:
            raise ValueError(
                f"loss must return one value an example, shape {outputs.shape[:1]}; got {_check.describe(losses)}; "
                f"leave the mean over examples to the step"
            )
        return losses
