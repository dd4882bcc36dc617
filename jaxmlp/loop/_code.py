"""A digest of what a Python object does, as its code and its state tell it: of functions, objects, and what they name.

The traced program says it exactly (`_program`); this says it where no trace can be compared: for what the host runs
inside a program, and between versions of JAX that trace differently. Lines, files, docstrings, names of locals and
addresses do not count. What a walk cannot tell to its end is equal to nothing, itself included.
"""

import contextlib
import enum
import functools
import hashlib
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxmlp.loop._digest import of_array
from jaxmlp.loop._hidden import HANDLES, HEAP, HOUSE, has_words, house_of, peek, place_of, state_of, unknown
from jaxmlp.loop._instructions import meanings

MOST, DEEP = 200_000, 60  # objects that are walked, and one within another: a library may name without end
SCALARS = (bool, int, float, complex, str, bytes)
IN_MEMORY = (io.BytesIO, io.StringIO)
LINES = {"fun_sourceinfo", "debug_info", "_debug_info"}  # where jax.jit and its like found a function
PYTHON = ".".join(map(str, sys.version_info[:2]))  # whose bytecode it is


def of_behaviour(value: object) -> str:
    """Return a digest of what an object does, after the version of Python that compiled it.

    >>> def outer(k, scale=2.0):
    ...     return lambda x: scale * x + k
    >>> of_behaviour(outer(1)) == of_behaviour(outer(1)), of_behaviour(outer(1)) == of_behaviour(outer(2))
    (True, False)
    """
    walk = _Walk()
    told = walk.tell(value)
    return f"{PYTHON}:{unknown(walk.untold) if walk.untold else told}"


def comparable(one: object, other: object) -> bool:
    """Tell whether two digests are of bytecode of one version of Python."""
    return str(one).split(":")[0] == str(other).split(":")[0]


def without_addresses(text: str) -> str:
    """Return a text without the places of objects in memory.

    >>> without_addresses("<Loss object at 0x7F3A>, <id=0x10>")
    '<Loss object>, <id=>'
    """
    return re.sub(r"( at )?0x[0-9a-fA-F]+", "", text)


def found_by_name(value: Any) -> str | None:
    """Return "module:name" where that leads to the value itself, among the modules that are there; else None."""
    module, name = peek(value, "__module__"), peek(value, "__qualname__")
    if not isinstance(module, str) or not isinstance(name, str) or module not in sys.modules:
        return None
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value else None


class _Walk:
    """One walk from an object through all that it names. What was met before is told by when it was met."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[object, str]] = {}
        self._depth = 0
        self.untold = ""  # why it is not told to its end, if it is not

    def tell(self, value: Any) -> str:
        if value is None or value is Ellipsis or value is NotImplemented or type(value) in SCALARS:
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, Tracer):
            return f"tracer {jax.typeof(value)}"
        if id(value) in self._met:
            return self._met[id(value)][1]
        if len(self._met) >= MOST or self._depth >= DEEP:
            return self._untold(f"names more than can be followed, from {type(value).__qualname__} on")
        # Kept alive: an id is free for another otherwise. What lies within itself is told by how far up it is.
        self._met[id(value)] = value, f"from {self._depth}"
        self._depth += 1
        parts = repr(list(self._parts(value)))
        self._depth -= 1
        told = hashlib.blake2b(parts.encode(errors="surrogatepass"), digest_size=12).hexdigest()
        self._met[id(value)] = value, told
        return told

    def _untold(self, why: str) -> str:
        self.untold = self.untold or why
        return why

    def _all(self, values: Iterable[Any]) -> list[str]:
        return [self.tell(value) for value in values]

    def _parts(self, value: Any) -> Iterator[Any]:
        if isinstance(value, HANDLES) and not isinstance(value, IN_MEMORY):
            yield "of the machine", type(value).__qualname__
        elif isinstance(value, np.generic | np.ndarray | jax.Array):
            held = value.dtype == np.dtype("O")
            yield (value.shape, self._all(np.ravel(value).tolist())) if held else of_array(value)
            if isinstance(value, np.ma.MaskedArray):
                yield self.tell(np.ma.getmaskarray(value))
        elif isinstance(value, enum.Enum):
            yield self.tell(type(value)), value.name, self.tell(value.value)
        elif isinstance(value, (tuple, list, set, frozenset, Mapping, *SCALARS)):
            yield from self._container(value)
        elif isinstance(value, memoryview):
            yield "memory", value.tobytes()
        elif isinstance(value, ModuleType):
            yield from self._module(value)
        elif isinstance(value, np.dtype):
            yield str(value)
        elif isinstance(value, CodeType):
            yield from meanings(value, {}, self.tell, self._untold)
        elif isinstance(value, functools.partial):
            yield "partial", self._all([value.func, value.args, value.keywords])
        elif isinstance(value, MethodType):
            yield "method", self._all([value.__func__, value.__self__])
        elif (name := found_by_name(value)) is not None and (house := house_of(name.split(":")[0])) is not None:
            yield name, house
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, BuiltinFunctionType):
            yield value.__qualname__, self.tell(value.__self__)
        elif isinstance(value, type) and not value.__flags__ & HEAP:  # written in C
            yield value.__module__, value.__qualname__
        elif isinstance(value, type):
            yield value.__qualname__, self._all([*value.__bases__, *([type(value)] if type(value) is not type else [])])
            yield [(name, self.tell(item)) for name, item in sorted(vars(value).items()) if not _is_made(name, item)]
        elif isinstance(value, property):
            yield "property", self._all([value.fget])
        elif isinstance(value, staticmethod | classmethod | functools.cached_property):
            yield type(value).__name__, self.tell(getattr(value, "__func__", None) or getattr(value, "func", None))
        else:
            yield from self._object(value)

    def _container(self, value: Any) -> Iterator[Any]:
        """Yield what a container holds, or what a number or a text of the caller's own type is, and what that does."""
        kind = type(value)
        if isinstance(value, SCALARS):
            plain: Any = next(base for base in SCALARS if isinstance(value, base))
            yield plain.__repr__(value)
        elif isinstance(value, Mapping):
            yield "mapping", [(self.tell(name), self.tell(item)) for name, item in value.items()]
            if (default := peek(value, "default_factory")) is not None:
                yield self.tell(default)
        elif isinstance(value, set | frozenset):
            yield "set", sorted(self._all(value))
        else:
            names = peek(value, "_fields") or range(len(value))
            yield kind.__name__, self._all(v for n, v in zip(names, value, strict=False) if n not in LINES)
        if kind.__module__ != "builtins":
            yield self.tell(kind), self.tell(peek(value, "__dict__"))

    def _function(self, function: FunctionType) -> Iterator[Any]:
        code = function.__code__
        yield code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        yield from meanings(code, function.__globals__, self.tell, self._untold)
        own = {name: item for name, item in vars(function).items() if name not in {"__wrapped__", *LINES}}
        yield self._all([function.__defaults__, function.__kwdefaults__, *([own] if own else [])])
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty one
                yield self.tell(cell.cell_contents)

    def _module(self, module: ModuleType) -> Iterator[Any]:
        house = house_of(module.__name__)
        yield module.__name__, house
        if house is None:  # of the caller's, all of it: which part is read is not seen
            names = sorted(name for name in vars(module) if not name.startswith("__"))
            yield [(name, self.tell(vars(module)[name])) for name in names]

    def _object(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        if (place := place_of(value)) is not None:
            yield place
            return
        yield self.tell(kind)
        if (
            has_words(kind)
            and house_of(kind.__module__) not in {None, *HOUSE}
            and (words := state_of(value)) is not None
        ):
            yield self.tell(words)  # beside them attributes may be what was computed and kept
            return
        aside = {name for name in dir(kind) if isinstance(getattr(kind, name, None), functools.cached_property)}
        aside |= LINES
        state = {name: item for name, item in (peek(value, "__dict__") or {}).items() if name not in aside}
        for base in kind.__mro__:
            slots = base.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                private = name.startswith("__") and not name.endswith("__")
                name = f"_{base.__name__.lstrip('_')}{name}" if private else name
                if name not in aside and (item := peek(value, name, self)) is not self:
                    state[name] = item
        told = [(name, self.tell(item)) for name, item in sorted(state.items()) if not name.startswith("__")]
        inside = peek(value, "__wrapped__")
        yield told, self.tell(inside)
        if house_of(kind.__module__) in HOUSE:
            yield "" if told or inside is not None else without_addresses(repr(value))
        elif inside is None and (has_words(kind) or not told):
            words = state_of(value)
            yield self._untold(f"the state of a {kind.__qualname__} is hidden") if words is None else self.tell(words)


_OF_CLASSES = {
    *("__module__", "__doc__", "__dict__", "__weakref__", "__qualname__", "__annotations__", "__firstlineno__"),
    *("__static_attributes__", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__slots__"),
    *("_abc_impl", "__abstractmethods__", "__parameters__", "__orig_bases__", "__annotate__", "__annotate_func__"),
    *("__repr__", "__annotations_cache__"),
}
_OF_DATACLASSES = {"__init__", "__eq__", "__hash__", "__replace__", "__setattr__", "__delattr__"}


def _is_made(name: str, item: Any) -> bool:
    """Tell what a class has that says nothing of what it does, or that a dataclass makes of its fields."""
    made_here = name in _OF_DATACLASSES and isinstance(item, FunctionType) and item.__module__ == "dataclasses"
    by_text = name in _OF_DATACLASSES and isinstance(item, FunctionType) and item.__code__.co_filename == "<string>"
    return name in _OF_CLASSES or made_here or by_text or name == "__hash__" and item is None
