"""Hyperparameters that are no single number: trees of arrays that are not trained, such as the weights of another net.

Where a function names a number, by a number for its default or in its annotation, it is given one; elsewhere a tree.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmlp import _arrays, _check
from jaxmlp.types import Number, Numeric, PyTree


def is_tree(value: Any) -> bool:
    """Tell whether a hyperparameter is a container of arrays; lists of plain numbers are columns, or a mistake.

    >>> is_tree({"w": np.ones(2)}), is_tree((np.ones(2),)), is_tree(np.ones(2)), is_tree([0.1, 0.2]), is_tree(None)
    (True, True, False, False, False)
    """
    if value is None or isinstance(value, str | bytes) or callable(value) or _arrays.is_like_array(value):
        return False
    try:
        leaves = jax.tree.leaves(value)
    except ValueError:  # a dict whose keys cannot be sorted: `entered` says so
        return True
    if type(value) in (list, tuple):
        within = any(isinstance(item, Mapping | tuple | list) or np.ndim(item) for item in value)
        return within and any(map(_arrays.is_like_array, leaves))
    return isinstance(value, Mapping) or len(leaves) != 1 or leaves[0] is not value


def entered(what: str, tree: PyTree) -> PyTree:
    """Return a tree with arrays for leaves, such as JAX takes; a plain number becomes one.

    Raises:
      ValueError: for a leaf that is none, and for a dict whose keys cannot be sorted.
    """

    def enter(path: Any, leaf: Any) -> Numeric:
        if isinstance(leaf, jax.Array):
            return leaf
        if isinstance(leaf, np.ndarray):
            return leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
        number = np.asarray(_arrays.number(f"{what}{jax.tree_util.keystr(path)}", leaf, "must be an array or a number"))
        return number.astype(jax.dtypes.canonicalize_dtype(number.dtype))

    found = jax.tree_util.tree_map_with_path(enter, _arrays.tree(what, tree))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(found)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    if len(set(names)) < len(names):  # by which a checkpoint knows them
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{what} must have a name of its own for each array; {twice!r} stands for two; rename one")
    return found


def with_trees(hyperparams: Any) -> dict[str, Any]:
    """Return the hyperparameters of one network with their trees as `entered` gives them, and numbers as they are."""
    given = dict(hyperparams or {})
    return {n: entered(f"hyperparams[{n!r}]", value) if is_tree(value) else value for n, value in given.items()}


def wants_number(function: Any, name: str) -> bool:
    """Tell whether an argument of a function is one number, by its default or by its annotation.

    >>> def loss(outputs, targets, *, base, scale=1.0, rate: float):
    ...     return outputs
    >>> [wants_number(loss, name) for name in ("base", "scale", "rate")]
    [False, True, True]
    """
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):
        return False
    if parameter is None:
        return False
    by_default = isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
    return by_default or parameter.annotation in (float, int, Number, "float", "int", "Number")


def taken(name: str, tree: PyTree, optimizer: Any, functions: Sequence[Any]) -> PyTree:
    """Return a tree that is given to these functions.

    Raises:
      ValueError: for words of a population, for an optimizer, and for a function that names one number.
    """
    word = type(tree).__name__
    if word in ("Each", "Shared"):  # of a room above this one
        raise ValueError(
            f"hyperparams[{name!r}] must be the tree itself for one network; got population.{word.lower()}(tree), "
            f"which is for the members of population.fit, with a key each"
        )
    for function in functions if optimizer is None else (optimizer,):
        if optimizer is not None or wants_number(function, name):
            raise ValueError(
                f"hyperparams[{name!r}] must be a number, as {_check.name_of(function)} takes it; got "
                f"{_check.describe(tree)}"
            )
    return entered(f"hyperparams[{name!r}]", tree)


def first(value: PyTree, i: int = 0) -> Any:
    """Return entry i of each leaf on its first axis."""
    return jax.tree.map(lambda a: a[i], value)


def on_host(value: PyTree) -> PyTree:
    """Return the leaves as NumPy's arrays: slices on a device would each be a small program to compile."""
    return jax.tree.map(np.asarray, value)
