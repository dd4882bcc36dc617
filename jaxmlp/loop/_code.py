"""A digest of what a Python object does, as its code and its state tell it: of functions, objects, and what they name.

The traced program says it exactly (`_program`); this says it where no trace can be compared: for what the host runs
inside a program, and between versions of JAX that trace differently. Lines, files, docstrings, names of locals and
addresses do not count. What a walk cannot tell to its end is equal to nothing, itself included.
"""

import contextlib
import dis
import enum
import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxmlp.loop._digest import of_array
from jaxmlp.loop._hidden import HANDLES, HEAP, HOUSE, has_words, installed, source_of, state_of, unknown

# What lies in these is told by its name: their versions are saved beside a run.
KNOWN = {"jaxmlp", "jax", "jaxlib", "optax", "numpy", *sys.stdlib_module_names} - {"__main__"}
MOST, DEEP = 20_000, 60  # objects that are walked, and one within another: a library may name without end
SILENT = {"RESUME", "NOP", "CACHE", "EXTENDED_ARG", "PRECALL"}
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
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
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
        if value is None or value is Ellipsis or isinstance(value, bool | int | float | complex | str | bytes):
            if not isinstance(value, enum.Enum):
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
        if isinstance(value, HANDLES):
            yield "of the machine", type(value).__qualname__
        elif isinstance(value, np.generic | np.ndarray | jax.Array):
            yield self._all(np.ravel(value).tolist()) if value.dtype == np.dtype("O") else of_array(value)
        elif isinstance(value, tuple | list):
            names = getattr(value, "_fields", range(len(value)))
            yield type(value).__name__, self._all(v for n, v in zip(names, value, strict=False) if n not in LINES)
        elif isinstance(value, set | frozenset):
            yield "set", sorted(self._all(value))
        elif isinstance(value, Mapping):
            yield "mapping", sorted((self.tell(name), self.tell(item)) for name, item in value.items())
            if (default := getattr(value, "default_factory", None)) is not None:
                yield self.tell(default)
        elif isinstance(value, ModuleType):
            yield from self._module(value)
        elif isinstance(value, enum.Enum | np.dtype):
            yield str(value)
        elif isinstance(value, CodeType):
            yield from self._code(value, {})
        elif isinstance(value, functools.partial):
            yield "partial", self._all([value.func, value.args, value.keywords])
        elif isinstance(value, MethodType):
            yield "method", self._all([value.__func__, value.__self__])
        elif (name := found_by_name(value)) is not None and (house := _house(name.split(":")[0])) is not None:
            yield name, house
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, BuiltinFunctionType):
            yield value.__qualname__, self.tell(value.__self__)
        elif isinstance(value, type) and not value.__flags__ & HEAP:  # written in C
            yield value.__module__, value.__qualname__
        elif isinstance(value, type):
            yield value.__qualname__, self._all(value.__bases__)
            yield [(name, self.tell(vars(value)[name])) for name in sorted(vars(value)) if name not in _OF_CLASSES]
        elif isinstance(value, property):
            yield "property", self._all([value.fget])
        elif isinstance(value, staticmethod | classmethod | functools.cached_property):
            yield type(value).__name__, self.tell(getattr(value, "__func__", None) or getattr(value, "func", None))
        else:
            yield from self._object(value)

    def _function(self, function: FunctionType) -> Iterator[Any]:
        code = function.__code__
        yield code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        yield from self._code(code, function.__globals__)
        yield self._all([function.__defaults__, function.__kwdefaults__])
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty one
                yield self.tell(cell.cell_contents)

    def _code(self, code: CodeType, scope: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the instructions with what they mean, and what they name in the module around."""
        steps = [step for step in dis.get_instructions(code) if step.opname not in SILENT]
        for i, step in enumerate(steps):
            if step.opcode in dis.hasconst:
                inner = isinstance(step.argval, CodeType)
                yield step.opname, list(self._code(step.argval, scope)) if inner else self.tell(step.argval)
            elif step.opcode in dis.hasname:
                yield step.opname, step.argval
                if step.opname == "IMPORT_NAME":
                    yield from self._imported(step, steps[:i], scope)
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in scope:
                    yield self.tell(_reached(scope[step.argval], steps[i + 1 :]))
            elif step.opcode in dis.haslocal or step.opcode in dis.hasfree:
                yield step.opname, step.arg
            else:
                yield step.opname, str(step.argval)

    def _module(self, module: ModuleType) -> Iterator[Any]:
        house = _house(module.__name__)
        yield module.__name__, house
        if house is None:  # of the caller's, all of it: which part is read is not seen
            names = sorted(name for name in vars(module) if not name.startswith("__"))
            yield [(name, self.tell(vars(module)[name])) for name in names]

    def _imported(self, step: dis.Instruction, steps: list[dis.Instruction], scope: Mapping[str, Any]) -> Iterator[Any]:
        """Yield what an import within a function leads to, also where it has not been run yet."""
        (level, names), name = [getattr(before, "argval", None) for before in steps[-2:]], step.argval
        if isinstance(level, int) and level > 0:
            name = importlib.util.resolve_name("." * level + name, str(scope.get("__package__")))
        if (house := _house(name)) is not None:
            yield name, house
        elif (module := sys.modules.get(name)) is None:
            yield name, source_of(name)
        else:
            found = [getattr(module, part, None) for part in names or ()]
            yield self._all(found or [module])

    def _object(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        yield self.tell(kind)
        aside = {name for name in dir(kind) if isinstance(getattr(kind, name, None), functools.cached_property)}
        aside |= LINES
        state = {name: item for name, item in getattr(value, "__dict__", {}).items() if name not in aside}
        for base in kind.__mro__:
            slots = base.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name) and name not in aside:
                    state[name] = getattr(value, name)
        told = [(name, self.tell(item)) for name, item in sorted(state.items()) if not name.startswith("__")]
        inside = getattr(value, "__wrapped__", None)
        yield told, self.tell(inside)
        if _house(kind.__module__) in HOUSE:
            yield "" if told or inside is not None else without_addresses(repr(value))
        elif inside is None and (has_words(kind) or not told):
            words = state_of(value)
            yield self._untold(f"the state of a {kind.__qualname__} is hidden") if words is None else self.tell(words)


_OF_CLASSES = {
    *("__module__", "__doc__", "__dict__", "__weakref__", "__qualname__", "__annotations__", "__firstlineno__"),
    *("__static_attributes__", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__slots__"),
    *("_abc_impl", "__abstractmethods__", "__parameters__", "__orig_bases__", "__annotate__", "__annotate_func__"),
    *("__repr__", "__eq__", "__hash__", "__replace__"),
}


def _house(module: str) -> str | None:
    """Return what tells a module of a library that is known, or installed, by name and version; None of one's own."""
    root = module.split(".")[0]
    return root if root in KNOWN else installed(module)


def _reached(value: Any, following: list[dis.Instruction]) -> Any:
    """Return what a name leads to: of a module of the caller's, the attribute that is read from it."""
    for step in following:
        if not isinstance(value, ModuleType) or _house(value.__name__) is not None:
            return value
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not hasattr(value, step.argval):
            return value
        value = getattr(value, step.argval)
    return value
