"""What every verb does first and last: its arguments are named by kind, and parameters of another model are told apart.

Whether parameters are those of a model is known by what its `init` makes. To ask that at each call would take longer
than a step, and a model of a caller's may take more than its own `init` makes: so it is asked where a call has failed.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _arrays, _check
from jaxmlp._order import check_rows
from jaxmlp.recipe import Bound, Recipe
from jaxmlp.types import History, PyTree

Function = TypeVar("Function", bound=Callable[..., Any])
PACKAGE = str(Path(__file__).parent)


def verb(function: Function) -> Function:
    """Decorate a function of a recipe, a state, a model or parameters, which it names so.

    Raises:
      ValueError: for arguments of another kind before the call; for a state or parameters of another model after it,
        where something else than a refusal of ours came of them.
    """
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | options
        if "recipe" in given:
            check_recipe(given["recipe"])
        if "model" in given:
            check_model(given["model"])
        if "state" in given:
            _check_state(given["state"])
        if given.get("rows") is not None:
            check_rows(given["rows"], given["data"])
        try:
            return function(*args, **options)
        except Exception as error:
            if not _is_ours(error):
                _explain(given, error)
            raise

    return call  # type: ignore[return-value]


@contextlib.contextmanager
def loose() -> Iterator[None]:
    """Let Optax mix dtypes and ranks, as its Adam does, also where the caller has made JAX strict."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def check_recipe(recipe: object) -> None:
    """Raise unless it is a recipe, bound or not."""
    if not isinstance(recipe, Recipe | Bound):
        raise ValueError(f"recipe must be a Recipe; got {_check.describe(recipe)}")


def check_model(model: Any) -> None:
    """Raise unless it is an object with `apply`."""
    if isinstance(model, type | Bound) or not callable(getattr(model, "apply", None)):
        raise ValueError(f"model must have apply(params, x), as an MLP; got {_check.describe(model)}")


def _check_state(state: Any) -> None:
    if isinstance(state, type) or not all(hasattr(state, name) for name in ("params", "opt_state", "step", "key")):
        raise ValueError(f"state must be a State, as start makes it; got {_check.describe(state)}")
    _check.typed_key(state.key)
    if (
        not _check.is_number(state.step)
        or jnp.shape(state.step)
        or not jnp.issubdtype(jax.dtypes.result_type(state.step), jnp.integer)
    ):
        raise ValueError(f"state.step must be one integer, the steps done; got {_check.describe(state.step)}")


def _explain(given: dict[str, Any], error: Exception) -> None:
    """Raise where the state or the parameters are not those of the model; return where the fault is another's."""
    recipe, state = given.get("recipe"), given.get("state")
    if recipe is not None:
        try:
            bound = recipe.bind(given.get("hyperparams"))
            like = jax.eval_shape(bound.init, jax.random.key(0))
            optimizer = jax.eval_shape(bound.optimizer().init, like)
        except Exception:  # the fault is the recipe's
            return
        if state is not None:
            _compare("state.params", state.params, like, error)
            _compare("state.opt_state", state.opt_state, optimizer, error)
        elif "params" in given:
            _compare("params", given["params"], like, error)
    elif "params" in given:
        _check_leaves("params", given["params"], error)


def _compare(what: str, given: PyTree, like: PyTree, error: Exception) -> None:
    """Raise for another structure, or another shape of a leaf."""
    _check_leaves(what, given, error)
    found, wanted = jax.tree.structure(given), jax.tree.structure(like)
    if found != wanted:
        raise ValueError(
            f"{what} must be of the recipe's own, {str(wanted)[:300]}; got {str(found)[:300]}; start makes a state"
        ) from error
    for (path, leaf), want in zip(jax.tree_util.tree_leaves_with_path(given), jax.tree.leaves(like), strict=True):
        if jnp.shape(leaf) != want.shape or jnp.issubdtype(leaf.dtype, jnp.inexact) != jnp.issubdtype(
            want.dtype, jnp.inexact
        ):
            raise ValueError(
                f"{what}{jax.tree_util.keystr(path)} must be {_check.describe(want)}, as the recipe's own; got "
                f"{_check.describe(leaf)}"
            ) from error


def members(what: str, tree: Any) -> int:
    """Return how many members there are, of states, parameters or whatever has them on its first axis.

    Raises:
      ValueError: for leaves that are no arrays, or without one leading axis.
    """
    if isinstance(tree, History):
        raise ValueError(f"{what} must be the members' states or parameters; got a history; the states come first")
    leaves = jax.tree.leaves(tree)
    fit = all(
        isinstance(a, np.ndarray | jax.Array) and a.ndim and getattr(a.dtype, "kind", "") not in tuple("OUSTMm")
        for a in leaves
    )
    lengths = {len(a) for a in leaves} if fit else set()
    if len(lengths) != 1:
        told = ", ".join(dict.fromkeys(map(_check.describe, leaves))) or "nothing"
        raise ValueError(
            f"{what} must be arrays with a leading axis of members in every leaf, as population.fit gives them; got "
            f"{told[:300]}"
        )
    return lengths.pop()


def _check_leaves(what: str, given: PyTree, error: Exception) -> None:
    """Raise for a leaf that is no array of numbers."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(given):
        place = what + jax.tree_util.keystr(path)
        try:
            key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            known = key or _arrays.array(place, leaf) is not None
        except ValueError as found:
            raise found from error
        if not known or not isinstance(leaf, jax.Array) and not _check.is_number(leaf):
            raise ValueError(f"{place} must be an array of NumPy or JAX; got {_check.describe(leaf)}") from error


def _is_ours(error: Exception) -> bool:
    """Tell whether an exception is a refusal in our words, raised by this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return isinstance(error, ValueError) and trace is not None and trace.tb_frame.f_code.co_filename.startswith(PACKAGE)
