"""Checks of plain arguments: one number, a text, a path, a function that takes what it will be given."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmlp import _check


def scalar(what: str, value: Any) -> float:
    """Return one number that is known now as a float; a flag is none."""
    known = None if isinstance(value, Tracer | bool | np.bool_) or not _check.is_number(value) else np.asarray(value)
    if known is None or known.ndim or known.dtype.kind == "b":
        raise ValueError(f"{what} must be a number; got {_check.describe(value)}")
    return float(known)


def text(what: str, value: object) -> None:
    """Raise unless `value` is a text."""
    if not isinstance(value, str):
        raise ValueError(f"{what} must be a text; got {_check.describe(value)}")


def takes(what: str, function: Any, count: int, names: str, *, numbers: bool = False) -> None:
    """Raise unless `function` can be called with so many arguments, where its signature says so.

    Args:
      what: how the message calls it.
      function: no class, which would make an object of the arguments.
      count: how many arguments it is given by position.
      names: what they are.
      numbers: whether it may ask for more by name, as a loss does for its hyperparameters.
    """
    if isinstance(function, type):
        raise ValueError(f"{what} must take {names}; got the class {function.__name__}; pass an object or a function")
    if not callable(function):
        raise ValueError(f"{what} must be callable, with {names}; got {_check.shown(function)}")
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a function in C that does not tell
        return
    positional = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    few = len(positional) < count and not any(p.kind == p.VAR_POSITIONAL for p in given)
    more = [*positional[count:], *(p for p in given if p.kind == p.KEYWORD_ONLY)]
    if few or not numbers and any(p.default is p.empty for p in more):
        raise ValueError(f"{what} must take {names}; got {_check.name_of(function)}{inspect.signature(function)}")


def float_name(what: str, dtype: Any) -> str | None:
    """Return the name of a floating dtype, which JSON can hold; None stays None."""
    if dtype is None:
        return None
    known = ("bfloat16", "float16", "float32", "float64")
    name: Any = dtype
    try:  # an array has a dtype and is none
        name = dtype if _check.is_array(dtype) else jnp.dtype(dtype).name
    except (TypeError, ValueError):
        name = dtype
    _check.one_of(what, name, known)
    return name


def usable_dtype(what: str, name: str | None) -> Any:
    """Return the dtype of that name, or None; raise for one that JAX would silently narrow."""
    if name == "float64" and jax.dtypes.canonicalize_dtype(name) != name:
        raise ValueError(f"{what}='float64' needs 64-bit JAX; call jax.config.update('jax_enable_x64', True) first")
    return name and jnp.dtype(name)
