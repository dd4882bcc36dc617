"""Checks of plain arguments: one number, a text, a path, a function that takes what it will be given."""

import inspect
import os
from pathlib import Path
from typing import Any

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


def path(what: str, value: object) -> Path:
    """Return `value` as a path."""
    told = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(told, str) or not told or "\0" in told:
        raise ValueError(f"{what} must be a path; got {_check.describe(value)}")
    return Path(told)


def takes(what: str, function: Any, count: int, names: str) -> None:
    """Raise unless `function` can be called with so many arguments, where its signature says so."""
    if not callable(function):
        raise ValueError(f"{what} must be callable, {names}; got {_check.shown(function)}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function in C that does not tell
        return
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        if "positional" in str(error) or count == 0:  # a keyword that is missing is a number, which is routed
            raise ValueError(f"{what} must take {names}; got {_check.shown(function)} with {signature}") from None
