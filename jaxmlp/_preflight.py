"""What only the host can check: the values of the data and all shapes before a run, and after it what came out."""

import warnings
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxmlp import _arrays, _check
from jaxmlp._requests import Moment, asked
from jaxmlp._scaling import scales
from jaxmlp._varying import whole
from jaxmlp.recipe import Bound
from jaxmlp.types import Data, History, Model, Number, Params, PyTree

PARTS = ("x", "y", "weight")
FIRST = "with the examples on its first axis"


def unpack(data: Data, what: str = "data") -> tuple[PyTree, PyTree, Any]:
    """Return data as (x, y, weight or None), each an array or a pytree of them that JAX takes; y may be left out.

    Raises:
      ValueError: for anything but one to three parts, and for leaves that are no arrays of numbers.
    """
    name = type(data).__name__
    of_members = name in ("Each", "Shared")  # of a room above this one
    if not isinstance(data, tuple | list) or len(data) not in (1, 2, 3) or of_members:
        members = "; that is for the members of population.fit, with a key each" if of_members else ""
        raise ValueError(f"{what} must be (x, y) or (x, y, weight); got {name} {_check.length(data)}{members}")
    of = "" if what == "data" else f"{what} "
    x, y, weight = (_arrays.tree(of + name, part) for name, part in zip(PARTS, (*data, None, None)[:3], strict=True))
    for name, part in zip(PARTS, (x, y), strict=False):
        for leaf in jax.tree.leaves(part):
            if not isinstance(leaf, np.ndarray | jax.Array):
                fix = f"; pass numpy.asarray({name})" if isinstance(part, list | tuple) else ""
                raise ValueError(f"{name} of {what} must be an array {FIRST}; got {_check.describe(leaf)}{fix}")
    if not any(leaf.ndim for leaf in jax.tree.leaves(x)):
        raise ValueError(f"x of {what} must hold an array {FIRST}; got {_check.describe(x)}")
    if weight is not None and not _check.is_array(weight):
        raise ValueError(
            f"weight of {what} must be one array, a number an example; got {_check.describe(weight)}; "
            f"pass numpy.asarray(weight)"
        )
    if isinstance(weight, np.ndarray):  # of JAX's arrays a look at the values would wait for the device
        _check.weights(f"weight of {what}", weight, weight.size)
    return whole((x, y, weight))


def entered(data: Data, what: str = "data") -> Data:
    """Return data as it was given, (x, y) or (x, y, weight), as arrays that JAX takes; (x,) as (x, None)."""
    parts = unpack(data, what)
    return parts[: max(2, len(data))]


def check_data(
    what: str, key: Array, data: Data, bound: Bound, others: Sequence[Bound] = (), *, measured: bool
) -> Data:
    """Check what only the host can before a run: the values, and with them the shapes before any compilation.

    Args:
      what: their name in messages, "data" or "validation".
      key: one typed key, or its form.
      data: (x, y) or (x, y, weight).
      bound: the recipe with its numbers, of members those of the first.
      others: the same with numbers of other members, which loss and metrics check too.
      measured: whether the metrics are read on these data.

    Returns:
      The data, as arrays that JAX takes.

    Raises:
      ValueError: for values, shapes and numbers that do not fit.
    """
    x, y, weight = unpack(data, what)
    n = _check.examples(what, x, y, weight)
    batch_size = bound.recipe.batch_size
    if what == "data" and batch_size is not None and batch_size > n:
        raise ValueError(
            f"batch_size must be at most the {n} examples; got {batch_size}; batch_size=None takes all at once"
        )
    numbers = bound.numbers
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), x)
    if "dropout_rate" in numbers.apply:
        _check.within("dropout_rate", numbers.apply["dropout_rate"], 0, 1, open_high=True)
    outputs = _outputs.eval_shape(bound.recipe.model, key, like, numbers.init, numbers.apply)
    wanted = scales(bound.recipe.model) or any(map(asked, (bound.recipe.loss, *bound.recipe.metrics)))
    params = jax.eval_shape(bound.init, key) if wanted else None  # which costs a small run a tenth of its call
    moment = Moment(key, jax.ShapeDtypeStruct((), np.int32))
    try:
        for one in (bound, *others):
            _check_targets(one, outputs, params, (like, y, weight), moment, measured)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        names = ", ".join(dict.fromkeys(map(_check.name_of, (bound.recipe.loss, *bound.recipe.metrics))))
        raise ValueError(
            f"loss and metrics, {names}, must compute with jax.numpy, since JAX traces them; one of them made an array "
            f"of NumPy or branched on a value: {str(error).splitlines()[0]}; evaluate(...) reads metrics made of NumPy"
        ) from error
    return (x, y, weight)[: max(2, len(data))]


def _check_targets(bound: Bound, outputs: PyTree, params: Params, batch: Data, moment: Moment, measured: bool) -> None:
    """Trace loss and metrics on shapes, but for targets and weights: these are known, so that labels are checked."""
    x, y, weight = batch

    def checked(outputs: PyTree, params: Params, x: PyTree, moment: Moment) -> Any:
        told = bound.told(params, (x, y, weight), *moment, training=False)
        return bound.per_example(outputs, y, told), measured and bound.measures(outputs, y, told)

    jax.eval_shape(checked, outputs, params, x, moment)


def check_outputs(params: Params, data: Data, bound: Bound, moment: Moment, *, measured: bool = True) -> None:
    """Check the targets against the outputs that these parameters give, with nothing computed.

    Raises:
      ValueError: for shapes that do not fit, and for labels and probabilities that loss or metrics refuse.
    """
    x, y, weight = (*data, None)[:3]
    if weight is not None:
        _check.weights("weight of data", weight, len(jax.tree.leaves(x)[0]))
    _check_targets(bound, jax.eval_shape(bound.apply, params, x), params, (x, y, weight), moment, measured)


def check_once(params: Params, data: Data, bound: Bound) -> None:
    """Check the targets and the numbers of a loss as `check_outputs` does, unless the call before had the same.

    An epoch is shorter than its check; in a loop of epochs only the first pays for it. Arrays are known by themselves
    and not by their values: labels of NumPy that were changed in place are not looked at again.
    """
    global _last
    leaves, structure = jax.tree.flatten((data, bound.numbers))
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    now = bound.recipe, structure, [_held(leaf) for leaf in leaves]
    if now != _last:
        check_outputs(params, data, bound, Moment(jax.random.key(0), np.int32(0)), measured=False)
        _last = now


_last: Any = None


def _held(leaf: Any) -> Any:
    """Return what is equal for the same array alone, and does not keep it; a number is equal by its value."""
    return _Weak(leaf) if isinstance(leaf, np.ndarray | jax.Array) else leaf


class _Weak:
    """A weak reference that is equal to others of the same object, which still lives."""

    def __init__(self, value: Any):
        self._ref = weakref.ref(value)

    def __eq__(self, other: object) -> bool:
        value = self._ref()
        return isinstance(other, _Weak) and value is not None and value is other._ref()

    __hash__ = object.__hash__


def warn_of_not_finite(params: Params, history: History) -> None:
    """Warn once where a loss or a parameter is NaN or infinite, and the values are known: not while JAX traces."""
    losses = {name: values for name, values in history.items() if name in ("loss", "validation_loss")}
    leaves = jax.tree.leaves((losses, params))
    if any(isinstance(a, Tracer) for a in leaves):
        return
    for name, values in losses.items():
        bad = np.flatnonzero(~np.isfinite(np.asarray(values, np.float64)))
        if len(bad):
            found = f"{name} of epoch {bad[0]} (the first is 0) is {np.asarray(values)[bad[0]]}"
            break
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            if all(map(_is_finite, jax.tree.leaves(params))):
                return
        found = "a parameter became NaN or infinite"
    warnings.warn(
        f"training must stay finite, and did not: {found}; likely causes are a learning rate that is too high, columns "
        f"of x that are not standardised, parameters of too narrow a dtype, and a loss without bound",
        RuntimeWarning,
        stacklevel=_check.level_of_caller(),
    )


def _is_finite(a: Any) -> bool:
    """Tell whether an array is finite: where it is split over devices, on these, so that none has the whole."""
    if isinstance(a, jax.Array) and not a.is_fully_replicated:
        return bool(jnp.all(jnp.isfinite(a)))
    return bool(np.isfinite(np.sum(np.asarray(a), dtype=np.float64)))


@partial(jax.jit, static_argnums=0)  # for its cache of shapes; never run
def _outputs(model: Model, key: Array, x: PyTree, init: dict[str, Number], apply: dict[str, Number]) -> PyTree:
    return model.apply(model.init(key, **init), x, **apply)
