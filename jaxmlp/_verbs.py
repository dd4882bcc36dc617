"""What every verb does first and last: its arguments are named by kind, and parameters of another model are told apart.

Whether parameters are those of a model is known by what its `init` makes. To ask that at each call would take longer
than a step, and a model of a caller's may take more than its own `init` makes: so it is asked where a call has failed.
"""

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _arrays, _check, _compile, _mesh, _placement
from jaxmlp._dry_run import loose
from jaxmlp._freezing import check_floats, split
from jaxmlp._order import check_rows
from jaxmlp.recipe import Bound, Recipe
from jaxmlp.types import History, PyTree

ARGUMENTS = ("key", "data", "batch", "recipe", "state", "model", "params", "x")  # what no verb does without
_inside = ContextVar("inside", default=False)  # whether a verb is being called, by this thread or task
Function = TypeVar("Function", bound=Callable[..., Any])
PACKAGE = str(Path(__file__).parent)


def verb(function: Function) -> Function:
    """Decorate a function of a recipe, a state, a model or parameters, which it names so.

    Raises:
      ValueError: for arguments of another kind before the call; for a state or parameters of another model after it,
        where something else than a refusal of ours came of them.
    """
    parameters = inspect.signature(function).parameters
    names = [name for name, p in parameters.items() if p.kind == p.POSITIONAL_OR_KEYWORD]

    def checked(**given: Any) -> Any:
        if "state" in given:
            _check_optimizer(given["state"], given["recipe"])
        return function(**given)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | options
        whole = len(given) == len(args) + len(options) and given.keys() >= {n for n in names if n in ARGUMENTS}
        if _inside.get() or not whole:  # of another verb, which has asked all this; or Python's to refuse
            return function(*args, **options)
        _check_kinds(given)
        token = _inside.set(True)
        try:
            given |= {name: _arrays.leaves_of_numpy(name, given[name]) for name in ("params", "state") if name in given}
            if "recipe" in given:  # bound here, so that the numbers are routed once
                given |= {"recipe": given["recipe"].bind(given.get("hyperparams")), "hyperparams": None}
                if _compile.outermost() and (placement := _placement.read(given)) is not None:
                    return _placement.through(checked, given, placement)
                _placement.check_traced(given)
                return checked(**given)
            return _mesh.over_automatic_axes(checked, (), given)
        except Exception as error:
            if not _is_ours(error):
                _explain(given, error)
            raise
        finally:
            _inside.reset(token)

    return call  # type: ignore[return-value]


def _check_kinds(given: dict[str, Any]) -> None:
    if "recipe" in given:
        check_recipe(given["recipe"])
    if "model" in given:
        check_model(given["model"])
    if "state" in given:
        _check_state(given["state"], given.get("recipe"))
    if given.get("rows") is not None:
        check_rows(given["rows"], given["data"])


def _check_optimizer(state: Any, bound: Bound) -> None:
    """Raise for the optimizer's state of another recipe: one that has none would drop it without a word."""
    try:
        wanted, form = _optimizer_state(*_form(bound), *_form(state.params))
        same = _form(state.opt_state) == form
    except (TypeError, ValueError):  # of leaves that are no arrays
        _check_leaves("state.params", state.params, None)
        _check_leaves("state.opt_state", state.opt_state, None)
        raise
    if not same:
        _compare("state.opt_state", state.opt_state, wanted, None)


def _form(tree: PyTree) -> tuple[Any, tuple[Any, ...]]:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(map(_kind, leaves))


def _kind(leaf: Any) -> Any:
    """Return the form of a leaf, wherever it lies."""
    kind: Any = jax.typeof(leaf)
    return kind if kind.sharding.mesh.empty else kind.update(sharding=None)


@functools.lru_cache(maxsize=256)
def _optimizer_state(bound: Any, numbers: Any, params: Any, shapes: Any) -> tuple[PyTree, Any]:
    """Return the optimizer's state before the first step, of a recipe and parameters of these forms, and its form."""
    with loose():
        state = jax.eval_shape(
            lambda bound, params: bound.optimizer().init(params),
            jax.tree.unflatten(bound, numbers),
            jax.tree.unflatten(params, shapes),
        )
    return state, _form(state)


def check_recipe(recipe: object) -> None:
    """Raise unless it is a recipe, bound or not."""
    if not isinstance(recipe, Recipe | Bound):
        raise ValueError(f"recipe must be a Recipe; got {_check.describe(recipe)}")


def check_model(model: Any) -> None:
    """Raise unless it is an object with `apply`."""
    other = isinstance(model, type | Bound) or _arrays.is_like_array(model)  # a DataFrame has an `apply` too
    if other or not callable(getattr(model, "apply", None)):
        raise ValueError(f"model must have apply(params, x), as an MLP; got {_check.describe(model)}")


def _check_state(state: Any, recipe: Recipe | Bound | None) -> None:
    if isinstance(state, type) or not all(hasattr(state, name) for name in ("params", "opt_state", "step", "key")):
        raise ValueError(f"state must be a State, as start makes it; got {_check.describe(state)}")
    _check.typed_key(state.key)
    bound = recipe.recipe if isinstance(recipe, Bound) else recipe
    check_floats("state.params", state.params if bound is None else split(bound.frozen, bound.model, state.params)[0])
    if (
        not _check.is_number(state.step)
        or jnp.shape(state.step)
        or not jnp.issubdtype(jax.dtypes.result_type(state.step), jnp.integer)
    ):
        raise ValueError(f"state.step must be one integer, the steps done; got {_check.describe(state.step)}")
    if isinstance(state.step, int) and not 0 <= state.step < 2**31:
        raise ValueError(f"state.step must be in 0 ... {2**31 - 1}; got {state.step}")


def _explain(given: dict[str, Any], error: Exception) -> None:
    """Raise where the state or the parameters are not those of the model; return where the fault is another's."""
    bound, state = given.get("recipe"), given.get("state")
    if isinstance(bound, Bound):
        try:
            like = jax.eval_shape(bound.init, jax.random.key(0))
            optimizer = jax.eval_shape(bound.optimizer().init, like)
        except Exception:  # the fault is the recipe's
            return
        if state is not None:
            _compare("state.params", state.params, like, error)
            _compare("state.opt_state", state.opt_state, optimizer, error)
        elif given.get("params") is not None and not hasattr(given["params"], "opt_state"):
            _compare("params", given["params"], like, error)
    elif given.get("params") is not None:
        _check_leaves("params", given["params"], error)


def _compare(what: str, given: PyTree, like: PyTree, error: Exception | None) -> None:
    """Raise for other leaves, or another shape of a leaf."""
    _check_leaves(what, given, error)
    found, wanted = (
        {jax.tree_util.keystr(path): a for path, a in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (given, like)
    )
    for name in [*wanted, *found]:
        if name not in found or name not in wanted:
            fault = f"lacks {name}" if name in wanted else f"has {name}"
            raise ValueError(
                f"{what} must be as start makes it for this recipe; it {fault}, of another recipe"
            ) from error
        if jnp.shape(found[name]) != wanted[name].shape:
            raise ValueError(
                f"{what}{name} must be {_check.describe(wanted[name])}, as start makes it for this recipe; got "
                f"{_check.describe(found[name])}"
            ) from error


def members(what: str, tree: Any) -> int:
    """Return how many members there are, of states, parameters or whatever has them on its first axis.

    Raises:
      ValueError: for leaves that are no arrays, or without one leading axis.
    """
    if isinstance(tree, History):
        raise ValueError(f"{what} must be the members' states or parameters; got a history; the states come first")
    try:
        leaves = jax.tree.leaves(tree)
    except ValueError as error:  # the keys of a dict that cannot be sorted
        raise ValueError(f"{what} must be a pytree of arrays; got {_check.shown(tree)}") from error
    fit = all(isinstance(a, np.ndarray | jax.Array) and a.ndim and _is_numeric(a.dtype) for a in leaves)
    lengths = {len(a) for a in leaves} if fit else set()
    if len(lengths) != 1:
        told = ", ".join(dict.fromkeys(map(_check.describe, leaves))) or "nothing"
        raise ValueError(
            f"{what} must be arrays with a leading axis of members in every leaf, as population.fit gives them; got "
            f"{told[:300]}"
        )
    return lengths.pop()


def _is_numeric(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key) or _check.is_number(np.empty(0, dtype))


def _check_leaves(what: str, given: PyTree, error: Exception | None) -> None:
    """Raise for a leaf that is no array of numbers."""
    try:
        leaves = jax.tree_util.tree_leaves_with_path(given)
    except ValueError:  # the keys of a dict that cannot be sorted
        raise ValueError(f"{what} must be a pytree of arrays; got {_check.shown(given)}") from error
    for path, leaf in leaves:
        place = what + jax.tree_util.keystr(path)
        try:
            key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            known = key or _arrays.array(place, leaf) is leaf
        except ValueError as found:
            raise found from error
        if not known:
            fix = "pass jax.tree.map(jnp.asarray, ...)"
            raise ValueError(f"{place} must be an array of NumPy or JAX; got {_check.describe(leaf)}; {fix}") from error


def _is_ours(error: Exception) -> bool:
    """Tell whether an exception is a refusal in our words, raised by this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return isinstance(error, ValueError) and trace is not None and trace.tb_frame.f_code.co_filename.startswith(PACKAGE)
