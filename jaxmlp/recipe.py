"""What a run is made of: a model, a loss, an optimizer and metrics, and who of them takes which hyperparameter."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import optax
from jax import Array

from jaxmlp import _arguments, _check
from jaxmlp._factories import RunLength, check_descends, of_run, takes_run_steps
from jaxmlp._naming import metric_names
from jaxmlp._per_layer import adapted, sees_stacks
from jaxmlp._routing import Numbers as Numbers
from jaxmlp._routing import names_of_metric, route, takes, takes_key
from jaxmlp.types import Hyperparams, Loss, Metric, Model, Numeric, OptimizerFactory, Params, PyTree


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Recipe:
    """What changes the program of a run; compared by value, so equal recipes share one compilation.

    Args:
      model: an `MLP`, or any hashable `types.Model`: an object with `init(key)` and `apply(params, x)`; where `apply`
        names `key`, it gets one in training and none in evaluation.
      loss: (outputs, targets, **numbers) -> (batch,), one loss an example.
      optimizer: a factory of numbers, `optax.adamw`, not `optax.adamw(1e-3)`; any function that returns an
        `optax.GradientTransformation`.
      epochs: how often each example is seen.
      batch_size: examples a step; None takes all at once, in their order.
      metrics: functions (outputs, targets, *, weight=None, **numbers) -> number, read at each epoch's end on the
        validation data, or on the training data where there is none. Each is a column of the history by its name;
        of several partials of one function, by what they were given too: "top_k_accuracy(k=3)". A number that the
        loss and a metric both name goes to both.

    Raises:
      ValueError: for a part that is not as said.
    """

    model: Model
    loss: Loss
    optimizer: OptimizerFactory
    epochs: int = dataclasses.field(kw_only=True)
    batch_size: int | None = dataclasses.field(default=None, kw_only=True)
    metrics: tuple[Metric, ...] = dataclasses.field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for name in ("init", "apply"):
            if isinstance(self.model, type) or not callable(getattr(self.model, name, None)):
                raise ValueError(f"model must have init(key) and apply(params, x); got {self.model!r} without {name}")
        for kind in (optax.GradientTransformation, optax.MultiSteps):
            if isinstance(self.optimizer, kind):
                raise ValueError(
                    f"optimizer must be a factory, as optax.adam, and its numbers go to hyperparams={{'learning_rate': "
                    f"...}}; got a finished optax.{kind.__name__}"
                )
        check_descends(self.optimizer)
        metrics = (self.metrics,) if callable(self.metrics) else self.metrics
        if not isinstance(metrics, tuple | list):
            raise ValueError(f"metrics must be a function or a tuple of them; got {_check.describe(metrics)}")
        metrics = tuple(metrics)
        for name, part in (("loss", self.loss), ("optimizer", self.optimizer), *(("metrics", m) for m in metrics)):
            if not callable(part):
                raise ValueError(f"{name} must be callable; got {_check.shown(part)}")
            if name != "optimizer":
                _arguments.takes(name, part, 2, "(outputs, targets)", numbers=True)
        metric_names(metrics)
        object.__setattr__(self, "metrics", metrics)
        object.__setattr__(self, "epochs", _check.positive_int("epochs", self.epochs))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", _check.positive_int("batch_size", self.batch_size))
        try:
            hash(self)
        except TypeError as error:
            raise ValueError(f"every part of a Recipe must be hashable ({error}); use tuples for lists") from error

    def bind(self, hyperparams: Hyperparams, *, steps: int | None = None) -> "Bound":
        """Return this recipe with its hyperparameters, each routed to the one that takes it.

        Every verb of training takes the result in the place of the recipe, and then routes nothing again.

        Args:
          hyperparams: numbers by name.
          steps: of the whole run, for an optimizer whose schedule follows it; `fit` and `loop.train` know them.

        Raises:
          ValueError: for a name that no part takes or that two take, and for a number that the optimizer lacks.

        >>> from jaxmlp import MLP, losses
        >>> recipe = Recipe(MLP((2, 1)), losses.squared_error, optax.adam, epochs=1)
        >>> recipe.bind({"learning_rate": 0.1}).numbers.optimizer
        {'learning_rate': 0.1}
        """
        bound = Bound(self, route(self.model, self.loss, self.optimizer, self.metrics, hyperparams))
        return bound if steps is None else bound.for_run(_check.positive_int("steps", steps))


class Bound(NamedTuple):
    """A recipe and its hyperparameters, each with the one that takes it. A pytree whose leaves are the numbers."""

    recipe: Recipe
    numbers: Numbers
    steps: RunLength | Numeric | None = None  # of the run, where the optimizer asks; an array is a member's own

    def for_run(self, steps: int) -> "Bound":
        """Return it with the steps of the run, where its optimizer asks for them.

        Raises:
          ValueError: where it was bound to fewer.
        """
        if not takes_run_steps(self.recipe.optimizer):
            return self
        if isinstance(self.steps, RunLength):
            if self.steps.steps < steps:
                raise ValueError(
                    f"steps must be at least the {steps} of the run; the recipe was bound to {self.steps.steps}; "
                    f"bind it without steps"
                )
            return self
        return self if self.steps is not None else self._replace(steps=RunLength(steps))

    def bind(self, hyperparams: None) -> "Bound":
        """Return itself: it has its hyperparameters."""
        if hyperparams is not None:
            raise ValueError("hyperparams must be None for a recipe that was bound to its own; bind the Recipe anew")
        return self

    def init(self, key: Array) -> Params:
        """Return the parameters that the model draws with `key`."""
        return self.recipe.model.init(key, **self.numbers.init)

    def apply(self, params: Params, x: PyTree, key: Array | None = None) -> PyTree:
        """Return the model's outputs; with a key, and a model that takes one, those of training."""
        options = {"key": key} if key is not None and takes_key(self.recipe.model.apply) else {}
        return self.recipe.model.apply(params, x, **self.numbers.apply, **options)

    def per_example(self, outputs: PyTree, y: PyTree) -> Array:
        """Return the loss of each example, (batch,).

        Raises:
          ValueError: for a loss of another shape.
        """
        losses = self.recipe.loss(outputs, y, **self.numbers.loss)
        if getattr(losses, "shape", None) != outputs.shape[:1]:
            raise ValueError(
                f"loss must return one value an example, shape {outputs.shape[:1]}; got {_check.describe(losses)}; "
                f"leave the mean over examples to the step"
            )
        return losses

    def measures(self, outputs: PyTree, y: PyTree, weight: Numeric | None) -> dict[str, Array]:
        """Return the value of each metric by its name, () each.

        Raises:
          ValueError: where examples are weighted and a metric takes no weight.
        """
        values = {}
        for name, metric in zip(metric_names(self.recipe.metrics), self.recipe.metrics, strict=True):
            wanted = names_of_metric(metric)
            numbers = {of: value for of, value in self.numbers.metrics.items() if of in wanted}
            if weight is not None:
                if not takes(metric, "weight"):
                    raise ValueError(
                        f"metric {name} must take weight=, (batch,), which counts an example more or less and is zero "
                        f"for padding: this run has weights or members of unequal size; got a function without it"
                    )
                numbers["weight"] = weight
            values[name] = metric(outputs, y, **numbers)
        return values

    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """Return the Optax transformation of these numbers.

        Built while tracing: it is a closure over its numbers, and these are traced.
        """
        build, numbers = of_run(self.recipe.optimizer, self.numbers.optimizer, self.steps)
        return adapted(build(**numbers), partial(sees_stacks, build, numbers))
