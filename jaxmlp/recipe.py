"""What a run is made of: a model, a loss, an optimizer and metrics, and who of them takes which hyperparameter."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from jaxmlp import _check
from jaxmlp._naming import metric_names
from jaxmlp.types import Hyperparams, Loss, Metric, Model, Number, Numeric, OptimizerFactory, Params, PyTree

OF_TRAINING = ("label_smoothing",)  # shapes training, and is no part of the likelihood that a metric reports


class Numbers(NamedTuple):
    """The hyperparameters, sorted by who takes them."""

    init: Mapping[str, Number]
    apply: Mapping[str, Number]
    loss: Mapping[str, Number]
    optimizer: Mapping[str, Number]
    metrics: Mapping[str, Number]  # a number that loss and metrics both name stands in both

    @property
    def by_name(self) -> dict[str, Number]:
        """All of them in one dict, as they were given."""
        return {**self.init, **self.apply, **self.loss, **self.optimizer, **self.metrics}


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
        if isinstance(self.optimizer, optax.GradientTransformation):
            raise ValueError(
                "optimizer must be a factory, as optax.adam, and its numbers go to hyperparams={'learning_rate': ...}; "
                "got a finished optax.GradientTransformation"
            )
        metrics = (self.metrics,) if callable(self.metrics) else tuple(self.metrics)
        for name, part in (("loss", self.loss), ("optimizer", self.optimizer), *(("metrics", m) for m in metrics)):
            if not callable(part):
                raise ValueError(f"{name} must be callable; got {part!r}")
        metric_names(metrics)
        object.__setattr__(self, "metrics", metrics)
        object.__setattr__(self, "epochs", _check.positive_int("epochs", self.epochs))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", _check.positive_int("batch_size", self.batch_size))
        try:
            hash(self)
        except TypeError as error:
            raise ValueError(f"every part of a Recipe must be hashable ({error}); use tuples for lists") from error

    def bind(self, hyperparams: Hyperparams) -> "Bound":
        """Return this recipe with its hyperparameters, each routed to the one that takes it.

        Every verb of training takes the result in the place of the recipe, and then routes nothing again.

        Raises:
          ValueError: for a name that no part takes or that two take, and for a number that the optimizer lacks.

        >>> from jaxmlp import MLP, losses
        >>> recipe = Recipe(MLP((2, 1)), losses.squared_error, optax.adam, epochs=1)
        >>> recipe.bind({"learning_rate": 0.1}).numbers.optimizer
        {'learning_rate': 0.1}
        """
        return Bound(self, route(self, hyperparams))


class Bound(NamedTuple):
    """A recipe and its hyperparameters, each with the one that takes it. A pytree whose leaves are the numbers."""

    recipe: Recipe
    numbers: Numbers

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
            takes = _names_of_metric(metric)
            numbers = {of: value for of, value in self.numbers.metrics.items() if of in takes}
            if weight is not None:
                if not _takes(metric, "weight"):
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
        optimizer = self.recipe.optimizer(**self.numbers.optimizer)
        if not isinstance(optimizer, optax.GradientTransformation):
            raise ValueError(f"optimizer must return an optax.GradientTransformation; got {type(optimizer).__name__}")
        return optax.with_extra_args_support(optimizer)


def route(recipe: Recipe, hyperparams: Hyperparams) -> Numbers:
    """Sort `hyperparams` by the one whose signature names each; loss and metrics may share a name, and both get it.

    Raises:
      ValueError: for a name that no part takes, or that two take; for a value that is no number; and where a part
        needs a number that is not there.
    """
    hyperparams = {} if hyperparams is None else hyperparams
    if not isinstance(hyperparams, Mapping):
        raise ValueError(f"hyperparams must be a dict of numbers; got {_check.describe(hyperparams)}")
    model, loss, optimizer = recipe.model, recipe.loss, recipe.optimizer
    init, apply, needs = _names(model.init, 1), _names(model.apply, 2), _names(optimizer, 0)
    of_loss, of_metrics = _names(loss, 2), [(metric, _names_of_metric(metric)) for metric in recipe.metrics]
    takers = {
        f"model {type(model).__name__}": {**init, **apply},
        f"loss {_check.name_of(loss)}": of_loss,
        f"optimizer {_check.name_of(optimizer)}": needs,
    } | {f"metric {_check.name_of(metric)}": names for metric, names in of_metrics}
    seen = {name for _, names in of_metrics for name in names}
    for name, value in hyperparams.items():
        _check_taken_once(name, takers)
        _check_number(name, value, vector=name in of_loss or name in seen)
    for taker, names in takers.items():
        for name, required in names.items():
            if required and name not in hyperparams:
                raise ValueError(f"{taker} needs {name}: pass hyperparams={{{name!r}: ...}}")
    return Numbers(
        *(
            {name: value for name, value in hyperparams.items() if name in names}
            for names in (init, apply, of_loss, needs, seen)
        )
    )


def _check_taken_once(name: str, takers: dict[str, dict[str, bool]]) -> None:
    owners = [taker for taker, names in takers.items() if name in names]
    # What a loss and metrics name is one number, of which the metrics tell: min_variance, a quantile's level.
    if len(owners) == 1 or owners and all(owner.startswith(("loss ", "metric ")) for owner in owners):
        return
    if owners:
        found = f"is taken by {' and '.join(owners)}"
        fix = f"; give one of them another name for it, as lambda *args, {name}_2: ..."
    else:
        found = "is taken by nobody"
        fix = _check.did_you_mean(name, [known for names in takers.values() for known in names])
    raise ValueError(
        f"hyperparams[{name!r}] must be a number that model, loss, optimizer or a metric names; it {found}{fix}\n"
        + "\n".join(f"  {taker} takes {', '.join(names) or 'none'}" for taker, names in takers.items())
    )


def _check_number(name: str, value: object, vector: bool) -> None:
    """A loss may take a vector (quantile levels); a model and an optimizer take one number each."""
    if not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)):
        raise ValueError(f"hyperparams[{name!r}] must be a number; got {_check.describe(value)}")
    if not vector and np.ndim(value) != 0:
        raise ValueError(
            f"hyperparams[{name!r}] must be one number for one network; got {_check.describe(value)}; to sweep it, "
            f"map: jax.vmap(jaxmlp.fit, (None, None, None, 0))(key, data, recipe, {{{name!r}: values}})"
        )


@lru_cache(maxsize=1024)
def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _names(function: Callable[..., object], data: int) -> dict[str, bool]:
    """Names of the numbers that `function` takes after its first `data` arguments, and whether each is needed."""
    signature = _signature(function)
    parameters = list(signature.parameters.values())[data:] if signature else []
    return {
        p.name: p.default is p.empty
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "key"
    }


def _names_of_metric(metric: Metric) -> dict[str, bool]:
    """Names of the numbers that a metric takes: its own, and where it hands them on to a likelihood, those of that."""
    signature = _signature(metric)
    names = {name: required for name, required in _names(metric, 2).items() if name != "weight"}
    if signature and "likelihood" in signature.parameters and _takes(metric, ""):
        likelihood = signature.parameters["likelihood"].default
        if callable(likelihood):
            names |= {name: required for name, required in _names(likelihood, 2).items() if name not in OF_TRAINING}
    return names


def takes_key(function: Callable[..., object]) -> bool:
    """Tell whether `function` names an argument `key`."""
    signature = _signature(function)
    return signature is not None and "key" in signature.parameters


def _takes(function: Callable[..., object], name: str) -> bool:
    """Tell whether `function` can be called with an argument of this name; one that cannot be read can."""
    signature = _signature(function)
    parameters = signature.parameters.values() if signature else []
    return signature is None or any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)
