"""What a saved run was made of, as JSON: its recipe and its data, to be compared with what is given on resuming."""

import dataclasses
import functools
import hashlib
import importlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmlp.mlp import MLP
from jaxmlp.recipe import Recipe

OWN = ("jaxmlp", "optax", "jax")  # whose functions are told by name alone, and may be found again by it
SAMPLES, BLOCK = 64, 2**16  # of a file that is mapped, not read: so many blocks of so many bytes


def describe(value: Any) -> Any:
    """Return a value of a recipe as JSON: functions by name, dataclasses by field, what is the caller's by its code.

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
    if isinstance(value, MLP):
        options = {name: describe(option) for name, option in value._options().items()}
        return {"type": "jaxmlp:MLP", **options}
    if isinstance(value, functools.partial):
        return {"partial": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    if callable(value) and hasattr(value, "__qualname__"):
        return {"function": _name(value)} | _code(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": _name(type(value)), **fields}
    return {"object": _name(type(value)), "repr": re.sub(r" at 0x[0-9a-f]+", "", repr(value))}


def rebuild(what: str, value: Any) -> Any:
    """Return what `describe` told of, where it is made of jaxmlp's, Optax's and JAX's own parts.

    Raises:
      ValueError: for a part that only the caller's code has.
    """
    if isinstance(value, list):
        return tuple(rebuild(what, item) for item in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"function"}:
        return _find(what, value["function"])
    if "partial" in value:
        keywords = {name: rebuild(what, item) for name, item in value["keywords"].items()}
        return functools.partial(rebuild(what, value["partial"]), *rebuild(what, value["args"]), **keywords)
    if "type" in value:
        kind = _find(what, value["type"])
        return kind(**{name: rebuild(name, item) for name, item in value.items() if name != "type"})
    raise ValueError(_yours(what, value.get("function") or value.get("object") or value))


def recipe_of(description: dict[str, Any]) -> Recipe:
    """Return the recipe that was described.

    Raises:
      ValueError: for a part that only the caller's code has.
    """
    return rebuild("recipe", description)


def differences(saved: Any, given: Any, path: str) -> list[str]:
    """Return a line for each place where two descriptions differ.

    >>> differences({"epochs": 5, "sizes": [2, 1]}, {"epochs": 6, "sizes": [2, 1]}, "recipe")
    ['recipe.epochs: saved 5, given 6']
    """
    if isinstance(saved, dict) and isinstance(given, dict):
        lines = []
        for name in dict.fromkeys([*saved, *given]):
            lines += differences(saved.get(name), given.get(name), f"{path}.{name}")
        return lines
    return [] if saved == given else [f"{path}: saved {_short(saved)}, given {_short(given)}"]


def of_data(data: Any) -> Any:
    """Return shape, dtype and a digest of every array in the data.

    The digest is of all bytes, or where a file is mapped of 64 blocks of 64 KiB spread evenly over it.
    """
    if data is None:
        return None
    leaves = jax.tree_util.tree_leaves_with_path(data)
    return {jax.tree_util.keystr(path, simple=True, separator="."): of_array(leaf) for path, leaf in leaves}


def of_array(array: Any) -> dict[str, Any]:
    """Return shape, dtype and digest of one array."""
    digest = hashlib.sha256()
    mapped = isinstance(array, np.memmap)
    if getattr(array, "dtype", None) is not None and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    flat = np.asarray(array)
    flat = (flat if flat.flags.c_contiguous else np.ascontiguousarray(flat)).reshape(-1).view(np.uint8)
    if mapped and len(flat) > SAMPLES * BLOCK:
        for start in np.linspace(0, len(flat) - BLOCK, SAMPLES).astype(np.int64):
            digest.update(flat[start : start + BLOCK].tobytes())
    else:
        digest.update(flat.data)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest.hexdigest()[:32]}


def _name(value: Any) -> str:
    module, name = value.__module__ or "builtins", value.__qualname__
    root = module.split(".")[0]
    if getattr(sys.modules.get(root), name, None) is value:  # optax.adamw, not optax._src.alias.adamw
        module = root
    return f"{module}:{name}"


def _code(function: Any) -> dict[str, Any]:
    """Return what else tells a function of the caller's from another of its name."""
    if (function.__module__ or "").split(".")[0] in OWN:
        return {}
    code = getattr(_unwrap(function), "__code__", None)
    if code is None:
        return {}
    told = [code.co_code, code.co_names, [c for c in code.co_consts if isinstance(c, int | float | str | bytes)]]
    cells = [cell.cell_contents for cell in (getattr(function, "__closure__", None) or ())]
    held = [str(describe(cell)) if cell is not function else "itself" for cell in cells]
    return {"code": hashlib.sha256(repr((told, held)).encode()).hexdigest()[:16]}


def _unwrap(function: Any) -> Any:
    """Return the function inside `jax.jit` and other wrappers."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _find(what: str, name: str) -> Any:
    module, _, path = name.partition(":")
    if module.split(".")[0] not in OWN:
        raise ValueError(_yours(what, name))
    try:
        found = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} was {name}, which is not there any more ({error}); pass recipe=") from error
    # A path through a module could lead anywhere: what is found must be of the house itself.
    if (getattr(found, "__module__", "") or "").split(".")[0] not in OWN:
        raise ValueError(_yours(what, name))
    return found


def _yours(what: str, name: Any) -> str:
    return f"{what} must be given again: {name} is not of jaxmlp, Optax or JAX, and is not looked for; pass recipe="


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("function") or value.get("type") or value.get("object") or value
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_same(saved: dict[str, Any], given: dict[str, Any], directory: Any) -> None:
    """Raise where a run was saved from something else than what is given.

    Raises:
      ValueError: with a line for each difference.
    """
    lines = [line for name in given for line in differences(saved.get(name), given[name], name)]
    if lines:
        raise ValueError(
            f"a run must be resumed with what it began with; {directory} holds another:\n  "
            + "\n  ".join(lines[:12])
            + (f"\n  and {len(lines) - 12} more" * (len(lines) > 12))
            + "\npass what was saved, or another directory"
        )
