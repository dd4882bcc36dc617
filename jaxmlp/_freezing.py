"""Which parameters are trained, and which are frozen: kept as they are, without a gradient.

What is frozen has None in its place in what is trained, so that an optimizer neither sees nor remembers it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmlp import _check
from jaxmlp.types import Model, Params, PyTree

MOST = 24  # paths that a message names
Path = tuple[Any, ...]


def path_of(entries: Any) -> Path:
    """Return a path of JAX's as the plain names and places that lead to a leaf.

    >>> [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path({"trunk": (1, [2, 3])})]
    [('trunk', 0), ('trunk', 1, 0), ('trunk', 1, 1)]
    """
    return tuple(next(getattr(e, at) for at in ("name", "idx", "key") if hasattr(e, at)) for e in entries)


def frozen_paths(frozen: Callable[[Path], Any] | None, model: Any, params: Params) -> frozenset[Path]:
    """Return the paths of what the recipe's predicate or the model's own calls frozen.

    Raises:
      ValueError: where the predicate holds for none, and where nothing is left to train.
    """
    own = getattr(model, "frozen", None)
    own = own if callable(own) else None
    if frozen is None and own is None:
        return frozenset()
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    asked = {path for path in paths if frozen is not None and frozen(path)}
    found = frozenset(asked.union(path for path in paths if own is not None and own(path)))
    there = ", ".join(map(str, paths[:MOST])) + f" and {len(paths) - MOST} more" * (len(paths) > MOST)
    if frozen is not None and not asked:
        raise ValueError(
            f"frozen must hold for a path of the parameters; {_check.name_of(frozen)} does for none: {there}"
        )
    if found and len(found) == len(paths):
        by = "the model" if frozen is None else _check.name_of(frozen)
        raise ValueError(f"frozen must leave something to train; {by} freezes all: {there}")
    return found


def split(
    frozen: Callable[[Path], Any] | None, model: Model, params: Params
) -> tuple[Params, Callable[[Params], Params]]:
    """Return what is trained of the parameters, and the function that puts what is frozen beside it again.

    >>> trained, whole = split(lambda path: path[0] == "trunk", None, {"head": 1.0, "trunk": 2.0})
    >>> trained, whole({"head": 3.0, "trunk": None})
    ({'head': 1.0, 'trunk': None}, {'head': 3.0, 'trunk': 2.0})
    """
    held = frozen_paths(frozen, model, params)
    if not held:
        return params, lambda trained: trained
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    kept = [leaf if path_of(path) in held else None for path, leaf in leaves]
    rest = [leaf if old is None else None for (_, leaf), old in zip(leaves, kept, strict=True)]

    def whole(trained: Params) -> Params:
        new = iter(jax.tree.leaves(trained))
        return jax.tree.unflatten(structure, [next(new) if old is None else old for old in kept])

    return jax.tree.unflatten(structure, rest), whole


def begins_with(
    trained: Callable[[Params], Params], optimizer: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that is begun with all parameters and sees those that are trained."""
    return optax.GradientTransformationExtraArgs(lambda params: optimizer.init(trained(params)), optimizer.update)


def check_floats(what: str, trained: PyTree) -> None:
    """Raise for what has no gradient among what is trained.

    Raises:
      ValueError: with the first such leaf, and how to keep it as it is.
    """

    def floats(leaf: Any) -> bool:
        return not _check.is_array(leaf) or jnp.issubdtype(leaf.dtype, jnp.floating)

    if all(map(floats, jax.tree.leaves(trained))):  # an eager step asks it each time, and paths take long to make
        return
    path, leaf = next((p, leaf) for p, leaf in jax.tree_util.tree_leaves_with_path(trained) if not floats(leaf))
    raise ValueError(
        f"{what} must hold floats, which have gradients; got {_check.describe(leaf)} at {path_of(path)}; to keep it as "
        f"it is, freeze it: Recipe(..., frozen=...)"
    )
