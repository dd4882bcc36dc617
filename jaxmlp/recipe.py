"""What a run is made of: a model, a loss and an optimizer, and who of them takes which hyperparameter."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from jaxmlp import _check
from jaxmlp._factories import RunLength, of_run, takes_run_steps
from jaxmlp._kinds import check_kind, missing_number
from jaxmlp._per_layer import adapted, sees_stacks
from jaxmlp.types import Hyperparams, Loss, Metric, Model, Number, Numeric, OptimizerFactory, Params, PyTree


class Numbers(NamedTuple):
    """The hyperparameters, sorted by who takes them."""

    init: Mapping[str, Number]
    apply: Mapping[str, Number]
    loss: Mapping[str, Number]
    optimizer: Mapping[str, Number]

    @property
    def by_name(self) -> dict[str, Number]:
        """All of them in one dict, as they were given."""
        return {**self.init, **self.apply, **self.loss, **self.optimizer}


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
      metrics: functions (outputs, targets) -> number, read at each epoch's end on the validation data, or on the
        training data where there is none.

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
        bound = Bound(self, route(self.model, self.loss, self.optimizer, hyperparams))
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

    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """Return the Optax transformation of these numbers.

        Built while tracing: it is a closure over its numbers, and these are traced.
        """
        build, numbers = of_run(self.recipe.optimizer, self.numbers.optimizer, self.steps)
        return adapted(build(**numbers), partial(sees_stacks, build, numbers))


def route(model: Model, loss: Loss, optimizer: OptimizerFactory, hyperparams: Hyperparams) -> Numbers:
    """Sort `hyperparams` by the one whose signature names each.

    Raises:
      ValueError: for a name that no part takes, or that two take; for a value that is no number; and where the
        optimizer needs a number that is not there.
    """
    hyperparams = {} if hyperparams is None else hyperparams
    if not isinstance(hyperparams, Mapping):
        raise ValueError(f"hyperparams must be a dict of numbers; got {_check.describe(hyperparams)}")
    init, apply, needs = _names(model.init, 1), _names(model.apply, 2), _names(optimizer, 0)
    of_loss = _names(loss, 2)
    takers = {
        f"model {type(model).__name__}": {**init, **apply},
        f"loss {_check.name_of(loss)}": of_loss,
        f"optimizer {_check.name_of(optimizer)}": needs,
    }
    for name, value in hyperparams.items():
        _check_taken_once(name, takers)
        taker = loss if name in of_loss else optimizer if name in needs else type(model)
        check_kind(name, value, taker)
        _check_number(name, value, vector=name in of_loss)
    missing = [name for name, required in needs.items() if required and name not in hyperparams]
    if missing:
        raise ValueError(missing_number(optimizer, missing[0]))
    return Numbers(
        *(
            {name: value for name, value in hyperparams.items() if name in names}
            for names in (init, apply, of_loss, needs)
        )
    )


def _check_taken_once(name: str, takers: dict[str, dict[str, bool]]) -> None:
    owners = [taker for taker, names in takers.items() if name in names]
    if len(owners) == 1:
        return
    if owners:
        found = f"is taken by {' and '.join(owners)}"
        fix = f"; give one of them another name for it, as lambda *args, {name}_2: ..."
    else:
        found = "is taken by nobody"
        fix = _check.did_you_mean(name, [known for names in takers.values() for known in names])
    raise ValueError(
        f"hyperparams[{name!r}] must be a number that one of model, loss and optimizer names; it {found}{fix}\n"
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
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name != "key"
        and (p.name != "run_steps" or data)  # which an optimizer is given by the run
    }


def takes_key(function: Callable[..., object]) -> bool:
    """Tell whether `function` names an argument `key`."""
    signature = _signature(function)
    return signature is not None and "key" in signature.parameters
