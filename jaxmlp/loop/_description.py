"""A recipe as JSON and back: its parts by name and by field, and what is the caller's own code by a digest of it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmlp.loop._code import comparable, of_behaviour, without_addresses
from jaxmlp.loop._digest import of_array, of_code
from jaxmlp.loop._fields import anything, few
from jaxmlp.loop._table import OWN, find, find_type, is_known, name_of, root_of, types, yours
from jaxmlp.types import Json


def describe(value: object) -> Any:
    """Return a value of a recipe as JSON: functions by name, dataclasses by field, what is the caller's by its code.

    >>> from jaxmlp import MLP
    >>> import optax
    >>> describe(optax.adamw), describe(MLP((2, 1)))["sizes"]
    ({'function': 'optax:adamw'}, [2, 1])
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        array = np.asarray(value)
        return array.item() if array.ndim == 0 else {"array": of_array(array)}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, functools.partial):
        return {"partial": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    if callable(value) and hasattr(value, "__qualname__"):
        return {"function": name_of(value)} | _code(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        # What a type of the caller's does with its fields is its code's affair.
        own = {} if root_of(name_of(type(value))) in OWN else {"does": of_behaviour(value)}
        return {"type": name_of(type(value)), **fields, **own}
    return {"object": name_of(type(value)), "repr": without_addresses(repr(value)), "does": of_behaviour(value)}


def rebuild(what: str, value: Any) -> Any:
    """Return what `describe` described, where it is made of parts that `_table` lists; nothing else is looked for.

    Args:
      what: the name of the field, for errors.
      value: JSON, of a checkpoint that may come from anywhere.

    Raises:
      ValueError: for a part that only the caller's code has, and for words that describe nothing; both name the field.

    >>> from jaxmlp import MLP
    >>> rebuild("model", describe(MLP((2, 1)))) == MLP((2, 1))
    True
    """
    if isinstance(value, list):
        return tuple(rebuild(what, item) for item in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"function"}:
        return find(what, value["function"])
    if set(value) == {"partial", "args", "keywords"}:
        return _partial(what, **value)
    if "type" in value:
        return _built(what, **value)
    name = value.get("function") or value.get("object") or value
    if isinstance(name, str) and "function" in value and root_of(name) in OWN:
        raise ValueError(
            f"{what} must be given again: it calls itself {name}, and nothing is found by that name that is the same "
            f"function; pass recipe="
        )
    raise ValueError(yours(what, name))


def _partial(what: str, partial: Any, args: Any, keywords: Any) -> Any:
    if not isinstance(partial, dict) or not isinstance(args, list) or not isinstance(keywords, dict):
        raise ValueError(
            f"{what} must be a partial of a function, a list and a dict; got {str(partial):.80}; pass recipe="
        )
    for given in (args, keywords):
        few(anything)(f"arguments of {what}", given)
    if set(partial) != {"function"}:
        raise ValueError(yours(what, partial.get("function") or partial))
    given = {name: rebuild(f"{what}.{name}", item) for name, item in keywords.items()}
    return functools.partial(find(what, partial["function"]), *rebuild(what, args), **given)


def _built(what: str, /, **told: Any) -> Any:
    kind = find_type(what, told.pop("type"))
    for name in told:
        if name not in (names := [field.name for field in dataclasses.fields(kind)]):
            raise ValueError(f"{what} must have the fields {', '.join(names)}; got {name!r:.80}; pass recipe=")
    fields = {name: rebuild(f"{what}.{name}", item) for name, item in told.items()}
    try:
        return kind(**fields)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(
            f"{what} must be a {kind.__name__}; its words build none: {str(error)[:400]}; pass recipe="
        ) from error


def upgrade(value: Any) -> Any:
    """Return a description that an earlier version wrote in the words of this one.

    An MLP's initializer was called "init" once. A field that was added since has its default.

    >>> upgrade({"type": "jaxmlp:MLP", "sizes": [2, 1], "init": "orthogonal"})["initializer"]
    'orthogonal'
    """
    if isinstance(value, list):
        return [upgrade(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {name: upgrade(item) for name, item in value.items()}
    if value.get("type") == "jaxmlp:MLP" and "init" in value:
        value = {("initializer" if name == "init" else name): item for name, item in value.items()}
    if (
        isinstance(value.get("type"), str) and value["type"] in types()
    ):  # the fields of the caller's own types are their own affair
        fields = dataclasses.fields(types()[value["type"]])
        added = [f for f in fields if f.name not in value and f.default is not dataclasses.MISSING]
        value |= {field.name: describe(field.default) for field in added}
    return value


def differences(saved: object, given: object, path: str) -> list[str]:
    """Return a line for each place where two descriptions differ.

    >>> differences({"epochs": 5, "sizes": [2, 1]}, {"epochs": 6, "sizes": [2, 1]}, "recipe")
    ['recipe.epochs: saved 5, given 6']
    """
    if isinstance(saved, dict) and isinstance(given, dict):
        lines = []
        if saved.get("function", saved) != given.get("function", saved) and "function" in saved:  # another altogether
            return differences(saved["function"], given.get("function"), f"{path}.function")
        for name in dict.fromkeys([*saved, *given]):
            # A function that one of JAX's made, as jax.nn.initializers.he_normal() is, had no digest of its code once.
            if name == "code" and name not in saved and "<locals>" in str(saved.get("function")):
                continue
            # What a thing does was told by its outermost code once, or by how it prints: the digest of all that it
            # names says more where both have it, and nothing where another Python compiled it.
            if name == "does" and (name not in saved or not comparable(saved[name], given.get(name, ""))):
                continue
            if name in ("code", "repr") and "does" in saved and "does" in given:
                continue
            lines += differences(saved.get(name), given.get(name), f"{path}.{name}")
        return lines
    if isinstance(saved, list) and isinstance(given, list) and len(saved) == len(given):
        if all(isinstance(item, dict) for item in [*saved, *given]):
            pairs = enumerate(zip(saved, given, strict=True))
            return [line for i, (one, other) in pairs for line in differences(one, other, f"{path}.{i}")]
    return [] if saved == given else [f"{path}: saved {_short(saved)}, given {_short(given)}"]


def _code(function: Any) -> Json:
    """Return what tells a function of the caller's from another of its name; nothing for one of the house."""
    claims = root_of(name_of(function)) in OWN
    if is_known(function):
        return {}
    # Under functools.wraps a function of the caller's bears the name and module of the one inside. Then it is told by
    # its own code, where others are told by that inside their wrappers: `jax.jit` has none to read.
    code = getattr(function if claims and hasattr(function, "__code__") else _unwrap(function), "__code__", None)
    if code is None:
        return {}
    cells = [cell.cell_contents for cell in (getattr(function, "__closure__", None) or ())]
    held = [str(describe(cell)) if cell is not function else "itself" for cell in cells]
    return {"code": of_code(code, held), "does": of_behaviour(function)}


def _unwrap(function: Any) -> Any:
    """Return the function inside `jax.jit` and other wrappers."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _short(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("function") or value.get("type") or value.get("object") or value
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
