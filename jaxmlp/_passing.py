"""What a loss made of losses takes: the numbers of its parts, and what they ask for, each for those who name it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxmlp import _arguments, _check
from jaxmlp._requests import REQUESTS, asked


def check_part(what: str, loss: Any) -> None:
    """Raise unless a part can be called as a loss, and has a hash."""
    _arguments.takes(what, loss, 2, "(outputs, targets)", numbers=True)
    try:
        hash(loss)
    except TypeError as error:
        raise ValueError(f"{what} must be hashable ({error}); use tuples for lists") from error


def parameters(loss: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return what a loss takes by name after outputs and targets: numbers, and what it asks for."""
    try:
        named = list(inspect.signature(loss).parameters.values())[2:]
    except (TypeError, ValueError):  # of a function in C that does not tell
        return {}
    wanted = asked(loss)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in named if p.kind in kinds and (p.name not in REQUESTS or p.name in wanted)}


def signature(losses: Sequence[Any], weights: Mapping[str, float]) -> inspect.Signature:
    """Return the signature of a loss that names what its parts name: needed where one of them needs it."""
    kind, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    defaults: dict[str, Any] = dict(weights)
    for loss in losses:
        for name, parameter in parameters(loss).items():
            needed = parameter.default is empty or defaults.get(name) is empty
            defaults[name] = empty if needed else defaults.get(name, parameter.default)
    first = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("outputs", "targets")]
    return inspect.Signature([*first, *(inspect.Parameter(n, kind, default=d) for n, d in defaults.items())])


def check_names(loss: Any, given: Mapping[str, Any]) -> None:
    """Raise for an argument that no part names."""
    known = list(inspect.signature(loss).parameters)[2:]
    for name in given:
        _check.one_of(f"a number of {type(loss).__name__}", name, known)


def share(loss: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that a part names."""
    return {name: given[name] for name in parameters(loss) if name in given}


def apart(found: Any) -> tuple[Any, dict[str, Any]]:
    """Return what a loss returned as its values and what it says besides."""
    return found if isinstance(found, tuple) and len(found) == 2 else (found, {})
