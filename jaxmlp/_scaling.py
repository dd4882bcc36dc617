"""What a model that scales its targets asks of a run: targets, losses and outputs in the units that each is read in."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from jax import Array

from jaxmlp.types import Params, PyTree

Function = TypeVar("Function", bound=Callable[..., Any])


def density(loss: Function) -> Function:
    """Say that a loss is -log p(y) of a density p of y, and return it.

    Where a model scales its targets (`transforms.Scaled`), such a loss is that of y in its own units, by the slope of
    the scaling.

    >>> import jax.numpy as jnp
    >>> @density
    ... def laplace_nll(outputs, targets):
    ...     return jnp.sum(jnp.abs(outputs - targets) + jnp.log(2.0), axis=-1)
    """
    loss.density = True  # type: ignore[attr-defined]
    return loss


def is_density(loss: Any) -> bool:
    """Tell whether a loss is one of a density, also behind `functools.partial`."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return bool(getattr(loss, "density", False))


def check_once(what: str, model: Any) -> None:
    """Raise for a model that scales its targets inside another one, which would not ask it to.

    Raises:
      ValueError: with the way round.
    """
    if scales(model):
        raise ValueError(
            f"model of {what} must not scale its targets, which only the outermost model can; got {model!r:.200}; put "
            f"transforms.Scaled around {what}, and several scalings into one transforms.Chain"
        )


def scales(model: Any) -> bool:
    """Tell whether a model has targets of its own, which its parameters make of those of the data."""
    return callable(getattr(model, "encode", None)) and callable(getattr(model, "decode", None))


def targets(model: Any, params: Params, y: PyTree) -> PyTree:
    """Return the targets that the loss is given."""
    return model.encode(params, y) if scales(model) else y


def outputs(model: Any, params: Params, found: PyTree) -> PyTree:
    """Return outputs in the units of the data."""
    return model.decode(params, found) if scales(model) else found


def of_data(recipe: Any, params: Params, losses: Array, y: PyTree) -> Array:
    """Return the losses (batch,), of a density in the units of the data: -log p(y) = -log p(z) - log |det dz/dy|."""
    if not scales(recipe.model) or not is_density(recipe.loss):
        return losses
    slope = recipe.model.log_slope(params, y)
    return losses if slope is None else losses - slope.astype(losses.dtype)
