"""An optimizer on each layer of a stack by itself, as if the net held its layers apart."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jaxmlp._coupling import made
from jaxmlp._kinds import aval
from jaxmlp._roles import apart, has_stacks, is_layer, together
from jaxmlp.layer import Layer
from jaxmlp.types import Params, PyTree

Transformation = optax.GradientTransformationExtraArgs
STUMBLES = (AttributeError, TypeError, ValueError)


def layer_by_layer(inner: Transformation) -> Transformation:
    """Return a transformation that sees each stack as a tuple of its layers."""
    return _seen_through(inner, apart, together)


def adapted(inner: Transformation, sees_stacks: Callable[[Params], bool]) -> Transformation:
    """Return a transformation that treats a stack as its layers apart, whatever it does.

    One that does with a stack what it does with its layers gets the stacks as they are, which costs less. The None that
    a `Layer` has in the place of a leaf is left out for one that does not know it as an empty subtree.
    """
    plain = _seen_through(inner, _without_none, _with_none)

    def chosen(params: Params) -> Transformation:
        return layer_by_layer(inner) if has_stacks(params) and sees_stacks(params) else inner

    def init(params: Params) -> optax.OptState:
        try:
            return chosen(params).init(params)
        except STUMBLES as error:
            return _again(error, params, lambda: plain.init(params))

    def update(
        updates: PyTree, state: optax.OptState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, optax.OptState]:
        try:
            return chosen(updates).update(updates, state, params, **extra)
        except STUMBLES as error:
            return _again(error, updates, lambda: plain.update(updates, state, params, **extra))

    update.__wrapped__ = inner.update  # pyright: ignore[reportFunctionMemberAccess]  (whose signature counts)
    return Transformation(init, update)


def sees_stacks(build: Callable[..., Transformation], numbers: Mapping[str, Any], params: Params) -> bool:
    """Tell whether an optimizer does with a stack what it does not do with its layers.

    Args:
      build: numbers by name -> the transformation; of equal ones the answer is kept.
      numbers: these, of which only the form counts.
      params: the parameters, of which only the form counts.
    """
    leaves, structure = jax.tree.flatten(params)
    forms = tuple((name, aval(value)) for name, value in numbers.items())
    return _sees_stacks(build, forms, structure, tuple(map(aval, leaves)))


@functools.lru_cache(maxsize=256)
def _sees_stacks(build: Callable[..., Transformation], numbers: Any, structure: Any, leaves: Any) -> bool:
    params = jax.tree.unflatten(structure, leaves)
    stacks = made(build, dict(numbers), params)
    layers = None if stacks is None else made(build, dict(numbers), jax.eval_shape(apart, params))
    if layers is None:
        return True
    # A stack and each of its layers are made in one way, or the rank chose: that of a mask by `ndim`, for one.
    parts, whole = jax.tree.flatten(stacks, is_leaf=is_layer)
    return any(
        part != layer
        for part, found in zip(parts, whole.flatten_up_to(layers), strict=True)
        for layer in ([found] if is_layer(found) or not is_layer(part) else found)
    )


def _again(error: Exception, params: Params, attempt: Callable[[], Any]) -> Any:
    """Return the second attempt where a None may have been the first one's trouble, else raise the first error."""
    if not any(None in node for node in jax.tree.leaves(params, is_leaf=is_layer) if is_layer(node)):
        raise error
    try:
        return attempt()
    except STUMBLES:
        raise error from None


def _seen_through(
    inner: Transformation, forth: Callable[[PyTree], PyTree], back: Callable[[PyTree, PyTree], PyTree]
) -> Transformation:
    """Return a transformation for which parameters have another form; `back(tree, like)` undoes `forth`."""

    def init(params: Params) -> optax.OptState:
        return inner.init(forth(params))

    def update(
        updates: PyTree, state: optax.OptState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, optax.OptState]:
        def given(name: str, value: Any) -> Any:
            if name == "grad":
                return forth(value)
            if name not in ("value_fn", "obj_fn", "grad_fn"):
                return value

            @functools.wraps(value)
            def function(params: Params, *args: Any, **named: Any) -> Any:
                found = value(back(params, updates), *args, **named)
                return forth(found) if name == "grad_fn" else found

            return function

        there = {name: given(name, value) for name, value in extra.items()}
        seen, state = inner.update(forth(updates), state, None if params is None else forth(params), **there)
        return back(seen, updates), state

    update.__wrapped__ = inner.update  # pyright: ignore[reportFunctionMemberAccess]
    return Transformation(init, update)


def _without_none(tree: PyTree) -> PyTree:
    def one(part: Any) -> Any:
        if not is_layer(part):
            return part
        return {name: leaf for name, leaf in part._asdict().items() if leaf is not None}

    return jax.tree.map(one, apart(tree), is_leaf=is_layer)


def _with_none(tree: PyTree, like: PyTree) -> PyTree:
    layers = jax.tree.map(
        lambda part, leaves: Layer(**leaves) if is_layer(part) else leaves, apart(like), tree, is_leaf=is_layer
    )
    return together(layers, like)
