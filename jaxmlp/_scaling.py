"""What a model that scales its targets asks of a run: targets, losses and outputs in the units that each is read in."""

import functools
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from jax import Array

from jaxmlp._requests import Told
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


def check_inner(what: str, model: Any) -> None:
    """Raise for what is no model inside another one, and for one that scales its targets: nobody would ask it to.

    Raises:
      ValueError: with the way round.
    """
    for name in ("init", "apply"):
        if isinstance(model, type) or not callable(getattr(model, name, None)):
            raise ValueError(f"model must have init(key) and apply(params, x); got {model!r:.200} without {name}")
    if scales(model):
        raise ValueError(
            f"model of {what} must not scale its targets, which only the outermost model can; got {model!r:.200}; put "
            f"transforms.Scaled around {what}, and several scalings into one transforms.Chain"
        )


def is_frozen(model: Any, path: tuple[Any, ...]) -> bool:
    """Tell whether a model inside another one calls a parameter of its own frozen."""
    own = getattr(model, "frozen", None)
    return callable(own) and bool(own(path))


def check_numbers(recipe: Any, names: Collection[str]) -> None:
    """Raise for what would mean two things in a run whose model scales its targets.

    Raises:
      ValueError: for a floor of the variance, in scaled units to the loss and in those of the data to who reads the
        outputs; for a loss around that of a density, which does not hand on the slope of the scaling.
    """
    if not scales(recipe.model) or getattr(recipe.model, "y", None) is None:
        return
    loss, given = recipe.loss, set(names)
    while isinstance(loss, functools.partial):
        given |= loss.keywords.keys()
        loss = loss.func
    if getattr(recipe.model, "head", None) == "gaussian" and "min_variance" in given:
        raise ValueError(
            "min_variance must be left out where a model scales the targets of a Gaussian: the loss counts it in "
            "scaled units, and who reads the outputs in those of the data"
        )
    inner = (getattr(loss, "loss", None), *(getattr(loss, "losses", None) or ()))
    if not is_density(loss) and any(map(is_density, inner)):
        raise ValueError(
            f"loss must be a density itself where a model scales its targets, or a loss around none; got "
            f"{loss!r:.200}, which does not hand on the slope of the scaling; scale the targets "
            f"beforehand, by data.standardise"
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


def as_read(model: Any, found: PyTree, told: Told) -> tuple[PyTree, Told]:
    """Return outputs, and what is told, as metrics read them: all outputs in the units of the data."""
    if not scales(model):
        return found, told

    def apply(params: Params, x: PyTree) -> PyTree:
        return model.decode(params, told.apply(params, x))

    return model.decode(told.params, found), told._replace(apply=apply)


def of_data(recipe: Any, params: Params, losses: Array, y: PyTree) -> Array:
    """Return the losses (batch,), of a density in the units of the data: -log p(y) = -log p(z) - log |det dz/dy|."""
    if not scales(recipe.model) or not is_density(recipe.loss):
        return losses
    slope = recipe.model.log_slope(params, y)
    return losses if slope is None else losses - slope.astype(losses.dtype)
