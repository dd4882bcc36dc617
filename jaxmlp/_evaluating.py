"""The figures of parameters on a table: the loss, the means of what it names besides, and the metrics."""

from typing import Any

import jax
from jax import Array

from jaxmlp import _compile
from jaxmlp._naming import metric_names
from jaxmlp._placement import Placement
from jaxmlp._preflight import check_outputs, entered, unpack
from jaxmlp._requests import Moment
from jaxmlp._state import State
from jaxmlp._verbs import verb
from jaxmlp.metrics import average
from jaxmlp.recipe import Bound, Recipe
from jaxmlp.types import Data, Hyperparams, Params


@verb
def evaluate(
    params: Params,
    data: Data,
    recipe: Recipe | Bound,
    hyperparams: Hyperparams = None,
    *,
    key: Array | None = None,
    step: Any = None,
) -> dict[str, Array]:
    """Return {"loss": ..., the means of its extras, the metrics} of `params` on all of `data`, without dropout.

    Where loss or metrics ask for a key or the steps done, `key=state.key, step=state.step` gives the figures that a
    history has; without a key they draw from `jax.random.key(0)`.

    Raises:
      ValueError: for shapes, dtypes and numbers that do not fit; for a loss that asks for the step where none is given.
    """
    bound, data = recipe.bind(hyperparams), entered(data)
    data, moment = bound.placement.lay(data), bound.moment(key, step)
    if not _compile.outermost():
        return evaluated(params, data, bound, moment)
    try:
        check_outputs(params, data, bound, moment)  # its values too, which a compiled program cannot
        values = _evaluated_at_once(params, data, bound, moment)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        # A metric in NumPy, or one that branches on a value: as it stands, and where JAX computes by itself.
        return evaluated(params, data, bound._replace(placement=Placement()), moment)
    names = metric_names(bound.recipe.metrics)
    return {name: values[name] for name in ("loss", *(n for n in values if n not in ("loss", *names)), *names)}


def evaluated(params: Params, data: Data, bound: Bound, moment: Moment) -> dict[str, Array]:
    """Return loss, means of its extras and metrics on all of the data, where everything was checked."""
    x, y, weight = bound.placement.batch(unpack(data))
    params = bound.placement.gathered(params)
    told = bound.told(params, (x, y, weight), *moment, training=False)
    outputs = told.apply(params, x)
    values = bound.measures(outputs, y, told)
    losses, extras = bound.per_example(outputs, y, told)
    means = {name: average(each, weight) for name, each in extras.items()}
    return {"loss": average(losses, weight), **means, **values}


_evaluated_at_once = _compile.jit(evaluated)


def observe(state: State, means: dict[str, Array], validation: Data | None, bound: Bound) -> dict[str, Array]:
    """Return the line of the history after an epoch of these means, of the loss and of its extras."""
    if validation is None:
        return means
    values = evaluated(state.params, validation, bound, Moment(state.key, state.step))
    return means | {f"validation_{name}": value for name, value in values.items()}
