"""What a run is made of: a model, a loss, an optimizer and metrics, and who of them takes which hyperparameter."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from jaxmlp import _arguments, _check
from jaxmlp import _scaling as scaling
from jaxmlp._averaging import keeping
from jaxmlp._factories import RunLength, check_descends, of_run, takes_run_steps
from jaxmlp._freezing import Path, begins_with, split
from jaxmlp._naming import check_extras, metric_names
from jaxmlp._per_layer import adapted, sees_stacks
from jaxmlp._placement import Placement
from jaxmlp._requests import Moment, Told, asked, examples
from jaxmlp._routing import Numbers as Numbers
from jaxmlp._routing import names_of_metric, route, takes, takes_key, takes_optional
from jaxmlp._structure import check_like
from jaxmlp.types import After, Data, Hyperparams, Loss, Metric, Model, Numeric, OptimizerFactory, Params, PyTree

FOREIGN = {
    "flax": "from_flax(module, example), or from_nnx(module)",
    "haiku": "from_haiku(transformed, example)",
    "equinox": "from_equinox(module)",
}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Recipe:
    """What changes the program of a run; compared by value, so equal recipes share one compilation.

    Args:
      model: an `MLP`, or any hashable `types.Model`: an object with `init(key)` and `apply(params, x)`; where `apply`
        names `key`, it gets one in training and none in evaluation.
      loss: (outputs, targets, **numbers) -> (batch,), one loss an example; or that and {name: (batch,)}, extras whose
        means are columns of the history.
      optimizer: a factory of numbers, `optax.adamw`, not `optax.adamw(1e-3)`; any function that returns an
        `optax.GradientTransformation`.
      epochs: how often each example is seen.
      batch_size: examples a step; None takes all at once, in their order.
      metrics: functions (outputs, targets, *, weight=None, **numbers) -> number, read at each epoch's end on the
        validation data, or on the training data where there is none. Each is a column of the history by its name;
        of several partials of one function, by what they were given too: "top_k_accuracy(k=3)". A number that the
        loss and a metric both name goes to both.
      after: None, or a function of (params, previous, told, **numbers) -> params that follows each update, for masks,
        projections, averages and statistics: `previous` are those before the update, `told` the means of the extras.
      frozen: None, or a function of a path that says of a parameter whether it stays as it is; paths are tuples of
        names and places, as (0, "w") or ("trunk", "kernel"); a stack of scan=True has one. No gradient of it is
        computed, and the optimizer, its weight decay too, never sees it; `after` may change it. A model may say the
        same by a method `frozen(path)`.

    Loss, metrics and `after` may ask by name for `params`, `x`, `apply`, `key`, `weight` and `step`; see `types.Loss`.

    Raises:
      ValueError: for a part that is not as said.
    """

    model: Model
    loss: Loss
    optimizer: OptimizerFactory
    epochs: int = dataclasses.field(kw_only=True)
    batch_size: int | None = dataclasses.field(default=None, kw_only=True)
    metrics: tuple[Metric, ...] = dataclasses.field(default=(), kw_only=True)
    after: After | None = dataclasses.field(default=None, kw_only=True)
    frozen: Callable[[Path], bool] | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("init", "apply"):
            if isinstance(self.model, type) or not callable(getattr(self.model, name, None)):
                raise ValueError(f"model must have init(key) and apply(params, x); got {self.model!r} without {name}")
        for base in type(self.model).__mro__:
            if (library := base.__module__.split(".")[0]) in FOREIGN:  # whose init and apply take other arguments
                raise ValueError(
                    f"model must have init(key) and apply(params, x); got one of {library}; pass "
                    f"{FOREIGN[library]}, of jaxmlp.interop"
                )
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
        if self.after is not None:
            _arguments.takes("after", self.after, 3, "(params, previous, told)", numbers=True)
        if self.frozen is not None:
            _arguments.takes("frozen", self.frozen, 1, "(path)")
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
        bound = Bound(self, route(self.model, self.loss, self.optimizer, self.metrics, self.after, hyperparams))
        scaling.check_numbers(self, hyperparams or ())
        return bound if steps is None else bound.for_run(_check.positive_int("steps", steps))


class Bound(NamedTuple):
    """A recipe and its hyperparameters, each with the one that takes it. A pytree whose leaves are the numbers."""

    recipe: Recipe
    numbers: Numbers
    steps: RunLength | Numeric | None = None  # of the run, where the optimizer asks; an array is a member's own
    placement: Placement = Placement()  # of the run on a mesh

    def for_run(self, steps: int) -> "Bound":
        """Return it with the steps of the run, where its optimizer asks for them.

        Raises:
          ValueError: where it was bound to fewer.
        """
        if not takes_run_steps(self.recipe.optimizer):
            return self
        if isinstance(self.steps, RunLength) and self.steps.steps < steps:
            raise ValueError(
                f"steps must be at least the {steps} of the run; the recipe was bound to {self.steps.steps}; bind it "
                f"without steps"
            )
        return self if self.steps is not None else self._replace(steps=RunLength(steps))

    def bind(self, hyperparams: None) -> "Bound":
        """Return itself: it has its hyperparameters."""
        if hyperparams is not None:
            raise ValueError("hyperparams must be None for a recipe that was bound to its own; bind the Recipe anew")
        return self

    def init(self, key: Array) -> Params:
        """Return the parameters that the model draws with `key`."""
        return self.recipe.model.init(key, **self.numbers.init)

    def split(self, params: Params) -> tuple[Params, Callable[[Params], Params]]:
        """Return what is trained, with None for what is frozen, and the function that puts that beside it again."""
        return split(self.recipe.frozen, self.recipe.model, params)

    def apply(self, params: Params, x: PyTree, key: Array | None = None) -> PyTree:
        """Return the model's outputs; with a key, and a model that takes one, those of training."""
        options = {"key": key} if key is not None and takes_key(self.recipe.model.apply) else {}
        return self.recipe.model.apply(params, x, **self.numbers.apply, **options)

    def told(self, params: Params, batch: Data, key: Array, step: Any, *, training: bool) -> Told:
        """Return what loss, metrics and `after` may ask for on a batch (x, y, weight or None)."""
        x, _, weight = batch
        return Told(params, x, lambda p, x: self.apply(p, x, key if training else None), key, weight, step)

    def moment(self, key: Array | None, step: Any) -> Moment:
        """Return where a run stands that is evaluated, as far as its loss and metrics ask for it.

        Raises:
          ValueError: where they ask for the steps done, and none are given.
        """
        wanted = {name for part in (self.recipe.loss, *self.recipe.metrics) for name in asked(part)}
        if key is not None:
            _check.typed_key(key)
        if "step" in wanted and step is None:
            raise ValueError("step must be given: the loss or a metric asks for it; pass step=state.step")
        key = jax.random.key(0) if key is None and "key" in wanted else key
        return Moment(key if "key" in wanted else None, step if "step" in wanted else None)

    def per_example(self, outputs: PyTree, y: PyTree, told: Told) -> tuple[Array, dict[str, Array]]:
        """Return the loss of each example, (batch,), and what else the loss says of each, by name.

        Raises:
          ValueError: for a loss of another shape, and for extras that are no column of a history.
        """
        targets = scaling.targets(self.recipe.model, told.params, y)
        found = self.recipe.loss(outputs, targets, **self.numbers.loss, **told.answers(self.recipe.loss))
        losses: Any
        losses, extras = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
        shape = (examples(told.x),)
        if getattr(losses, "shape", None) != shape:
            raise ValueError(
                f"loss must return one value an example, shape {shape}; got {_check.describe(losses)}; "
                f"leave the mean over examples to the step"
            )
        check_extras(extras, shape, self.recipe.metrics)
        return scaling.of_data(self.recipe, told.params, losses, y), extras

    def measures(self, outputs: PyTree, y: PyTree, told: Told) -> dict[str, Array]:
        """Return the value of each metric by its name, () each.

        Raises:
          ValueError: where examples are weighted and a metric takes no weight.
        """
        values = {}
        if self.recipe.metrics:
            outputs, told = scaling.as_read(self.recipe.model, outputs, told)
        for name, metric in zip(metric_names(self.recipe.metrics), self.recipe.metrics, strict=True):
            wanted = names_of_metric(metric)
            numbers: dict[str, Any] = {of: value for of, value in self.numbers.metrics.items() if of in wanted}
            numbers |= told.answers(metric)
            if told.weight is None and takes_optional(metric, "weight"):
                numbers["weight"] = None  # as it is where nothing is weighted, and the program with it
            if told.weight is not None:
                if not takes(metric, "weight"):
                    raise ValueError(
                        f"metric {name} must take weight=, (batch,), which counts an example more or less and is zero "
                        f"for padding: this run has weights or members of unequal size; got a function without it"
                    )
                numbers["weight"] = told.weight
            values[name] = metric(outputs, y, **numbers)
        return values

    def follow(self, params: Params, previous: Params, extras: dict[str, Array], told: Told) -> Params:
        """Return the parameters that the recipe's `after` makes of those of an update.

        Raises:
          ValueError: for parameters of another form.
        """
        after = self.recipe.after
        if after is None:
            return params
        found = after(params, previous, extras, **self.numbers.after, **told._replace(params=params).answers(after))
        check_like(f"what after, {_check.name_of(after)}, returns", found, params)
        return found

    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """Return the Optax transformation of these numbers.

        Built while tracing: it is a closure over its numbers, and these are traced.
        """
        build, numbers = of_run(self.recipe.optimizer, self.numbers.optimizer, self.steps)
        made = adapted(build(**numbers), partial(sees_stacks, build, numbers))
        return begins_with(lambda params: self.split(params)[0], keeping(made))
