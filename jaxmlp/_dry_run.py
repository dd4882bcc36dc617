"""An optimizer's step, and the same on shapes alone before a run: what it cannot do is said at the door, in words."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.core import Tracer

from jaxmlp import _check
from jaxmlp._averaging import Refused
from jaxmlp._coupling import extra_arguments, stand_ins
from jaxmlp._factories import RunLength, check_descends
from jaxmlp._freezing import check_floats, split
from jaxmlp._kinds import NEVER, aval, check_ranges, fix, root, spoken
from jaxmlp.optimizers import WRAPPERS, CosineAdamW
from jaxmlp.recipe import Bound, Numbers, Recipe
from jaxmlp.types import Params, PyTree

Known = tuple[Any, tuple[Any, ...]]  # the structure of numbers by name, and their avals: a key of a cache
OTHERWISE = (
    "write a factory of numbers for a transformation that updates a tree of arrays by its gradients, and asks for no "
    "more than params, value, grad, value_fn, obj_fn or grad_fn"
)


def update(
    bound: Bound, grads: PyTree, opt_state: optax.OptState, params: Params, loss: Array, objective: Callable[..., Array]
) -> tuple[Params, optax.OptState]:
    """Return parameters and state after a step of the optimizer, both in the dtypes that they had.

    Raises:
      ValueError: for updates of other shapes than the parameters.
    """
    with loose():
        optimizer = bound.optimizer()
        extra = extra_arguments(optimizer.update, loss, grads, objective)
        updates, after = optimizer.update(grads, opt_state, params, **extra)
        if [jnp.shape(u) for u in jax.tree.leaves(updates)] != [jnp.shape(p) for p in jax.tree.leaves(params)]:
            raise ValueError("updates must have the shapes of the parameters, or JAX would stretch them without a word")
        # A number of a wider dtype than the parameters, as NumPy's float64 is, would widen what the state remembers.
        return optax.apply_updates(params, updates), jax.tree.map(_as_before, after, opt_state)


def _as_before(after: Any, before: Any) -> Any:
    both = [jnp.issubdtype(jnp.result_type(a), jnp.floating) for a in (after, before)]
    return jnp.asarray(after, before.dtype) if all(both) and after.dtype != before.dtype else after


def run_steps(recipe: Recipe, examples: Any) -> Any:
    """Return how many steps a run has on a table of so many examples, or on an array of such counts."""
    return recipe.epochs * (1 if recipe.batch_size is None else -(-examples // recipe.batch_size))


def ready(key: Any, bound: Bound, examples: int) -> Bound:
    """Return the recipe of a run on so many examples, which knows its steps, once its optimizer is checked."""
    bound = bound.for_run(run_steps(bound.recipe, examples))
    check_optimizer(key, bound)
    return bound


def check_optimizer(key: Any, bound: Bound, columns: Mapping[str, Any] | None = None) -> None:
    """Check before a run what its optimizer needs and does; nothing is computed.

    Args:
      key: of the run, or its form.
      bound: the recipe with its numbers, of members those of the first.
      columns: the numbers of all members.

    Raises:
      ValueError: for numbers out of their range, or that choose the program; for an optimizer that cannot update these
        parameters, or that makes NaN of them for certain.
    """
    numbers, factory = bound.numbers.optimizer, bound.recipe.optimizer
    given = numbers if columns is None else {name: columns.get(name, value) for name, value in numbers.items()}
    check_descends(factory, given)
    if _is_known(factory):
        check_ranges({**getattr(factory, "keywords", {}), **given})
    avals = tuple(_forms(part) for part in (bound.numbers.init, numbers))
    steps = bound.steps if isinstance(bound.steps, RunLength | None) else aval(bound.steps)
    settings = (jax.ShapeDtypeStruct((), key.dtype), jax.config.read("jax_enable_x64"))
    parts = (bound.recipe.model, bound.recipe.optimizer, bound.recipe.frozen)
    try:
        half = _tried(parts, steps, avals, *settings)
    except _Failed as failure:
        raise _explained(failure, bound, steps) from failure.error
    if half:
        _check_eps(factory, {**_defaults(factory), **given})


class _Failed(Exception):
    """The dry run raised `error`, on these shapes of the parameters."""

    def __init__(self, error: Exception, params: Params, building: bool):
        self.error, self.params, self.building = error, params, building


@functools.lru_cache(maxsize=256)
def _tried(parts: tuple[Any, Any, Any], steps: Any, avals: tuple[Known, Known], key: Any, x64: bool) -> bool:
    """Try a step on shapes with all numbers traced, and return whether parameters are float16."""
    (model, factory, frozen), (init, numbers) = parts, avals
    params = jax.eval_shape(lambda key, init: model.init(key, **init), key, _rebuilt(init))
    params, _ = split(frozen, model, params)
    check_floats("parameters", params)
    _attempt(factory, steps, _rebuilt(numbers), {}, params)
    return any(leaf.dtype == jnp.float16 for leaf in jax.tree.leaves(params))


def _forms(numbers: Mapping[str, Any]) -> Known:
    leaves, structure = jax.tree.flatten(dict(numbers))
    return structure, tuple(map(aval, leaves))


def _rebuilt(forms: Known) -> dict[str, Any]:
    return jax.tree.unflatten(*forms)


def _attempt(factory: Any, steps: Any, traced: dict[str, Any], known: dict[str, Any], params: Params) -> None:
    """Trace the building of an optimizer, its first state and a step.

    Raises:
      _Failed: where one of them fails, or changes the form of the state.
    """
    building = True

    def whole(traced: dict[str, Any], steps: Any, params: Params) -> tuple[PyTree, PyTree]:
        nonlocal building
        bound = Bound(_Only(factory), Numbers({}, {}, {}, {**traced, **known}, {}), steps)  # pyright: ignore
        with loose():
            building = True
            optimizer = bound.optimizer()
            building = False
            state = jax.tree.map(jnp.asarray, optimizer.init(params))
            extra = stand_ins(optimizer.update, params)
        return state, update(bound, params, state, params, extra.get("value", 0.0), _paraboloid)[1]

    try:
        before, after = jax.eval_shape(whole, traced, steps, params)
        for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise ValueError(
                    f"its state must keep its form; {jax.tree_util.keystr(path)} was {_check.describe(old)} and became "
                    f"{_check.describe(new)}"
                )
    except Exception as error:  # whatever a factory of anyone's raises
        raise _Failed(error, params, building) from error


class _Only:
    """The part of a recipe that makes the optimizer, for parameters that are all trained."""

    model, frozen = None, None

    def __init__(self, optimizer: Any):
        self.optimizer = optimizer


def _paraboloid(params: Params) -> Any:
    return sum(jnp.sum(jnp.square(a)) for a in jax.tree.leaves(params))


def _explained(failure: _Failed, bound: Bound, steps: Any) -> Exception:
    """Return the ValueError that says what failed: a number that must not be traced, or the optimizer itself."""
    factory, numbers = bound.recipe.optimizer, bound.numbers.optimizer
    values = {name: _value(value) for name, value in numbers.items()}

    def fails(traced: list[str]) -> Exception | None:
        known = {name: value for name, value in values.items() if name not in traced}
        try:
            _attempt(factory, steps, {name: aval(numbers[name]) for name in traced}, known, failure.params)
        except _Failed as again:
            return again.error
        return None

    name = spoken(factory)
    if numbers and fails([]) is None:
        sizes = [one for one in numbers if fails([one]) is not None]
        which = sizes[0] if sizes else next(iter(numbers))
        return ValueError(
            f"hyperparams[{which!r}] must be a number that may change while the program stays; got "
            f"{_check.describe(numbers[which])}; {fix(which, values[which], factory)}"
        )
    error = failure.error
    if isinstance(steps, jax.ShapeDtypeStruct):  # as a number of the program it went
        return ValueError(
            f"run_steps of {name} must not choose the program where members own unequal numbers of rows, and so train "
            f"for unequal numbers of steps: it is traced; compute with jax.numpy, as CosineAdamW() does; "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        )
    own = failure.building and isinstance(error, ValueError) and not name.startswith("optax.")
    if own or isinstance(error, Refused):
        return error  # a factory's own words
    told = (str(error).strip().splitlines() or ["no reason"])[0]
    way = NEVER.get(_check.name_of(factory), OTHERWISE)
    return ValueError(f"optimizer {name} cannot update these parameters: {type(error).__name__}: {told}; {way}")


def _check_eps(factory: Any, numbers: Mapping[str, Any]) -> None:
    """Raise where float16 takes away what keeps an optimizer from dividing zero by zero."""
    eps, root = (_known_number(numbers.get(name, 0.0)) for name in ("eps", "eps_root"))
    if eps is None or root is None or np.float16(root).all():  # not known, or the square root is kept from zero
        return
    with np.errstate(under="ignore"):
        lost = (eps > 0) & (eps.astype(np.float16) == 0)
    if lost.any():
        raise ValueError(
            f"eps of {spoken(factory)} must not be zero in float16, the dtype of the parameters, or a gradient of zero "
            f"becomes NaN; got {eps[lost].flat[0]:g}; pass 'eps': 1e-4 where the factory takes it, or keep the "
            f"parameters float32 and multiply in float16: MLP(..., dtype='float16')"
        )


def _known_number(value: Any) -> np.ndarray | None:
    if isinstance(value, Tracer) or not isinstance(value, int | float | np.generic | np.ndarray | jax.Array):
        return None
    return np.asarray(value, np.float64)


@functools.lru_cache(maxsize=256)
def _defaults(factory: Any) -> dict[str, Any]:
    """Return the numbers that a factory has unless given, those set by `partial` among them."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return {}
    plain = (int, float, np.generic)
    return {p.name: p.default for p in parameters if isinstance(p.default, plain) and not isinstance(p.default, bool)}


def _is_known(factory: Any) -> bool:
    """Tell whether a factory is of Optax's or ours, where a number's name says what it must be."""
    while isinstance(factory, (*WRAPPERS, functools.partial)):
        factory = factory.func if isinstance(factory, functools.partial) else factory.factory
    return isinstance(factory, CosineAdamW) or root(factory) == "optax"


def _value(value: Any) -> Any:
    """Return a number as Python's, and of one that the caller traces some number of its kind."""
    if isinstance(value, Tracer):
        return 2 if jnp.issubdtype(value.dtype, jnp.integer) else 0.5
    return np.asarray(value).item() if np.ndim(value) == 0 else value


@contextmanager
def loose() -> Iterator[None]:
    """Let Optax mix dtypes and ranks, as its Adam does, also where the caller has made JAX strict."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
