"""What the instructions of a function say: operations, constants, and what they name in the module around or import."""

import dis
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any

from jaxmlp.loop._hidden import house_of, peek, source_of

SILENT = {"RESUME", "NOP", "CACHE", "EXTENDED_ARG", "PRECALL"}
ANYTHING = {"eval", "exec", "globals", "__import__"}  # what they lead to stands in no instruction
Tell = Callable[[Any], str]


def meanings(code: CodeType, scope: Mapping[str, Any], tell: Tell, untold: Tell) -> Iterator[Any]:
    """Yield the instructions with what they mean.

    Args:
      code: compiled.
      scope: the names of the module around.
      tell: returns the digest of an object.
      untold: notes why something cannot be told.
    """
    steps = [step for step in dis.get_instructions(code) if step.opname not in SILENT]
    for i, step in enumerate(steps):
        if step.opcode in dis.hasconst:
            inner = isinstance(step.argval, CodeType)
            yield step.opname, list(meanings(step.argval, scope, tell, untold)) if inner else tell(step.argval)
        elif step.opcode in dis.hasname:
            yield step.opname, step.argval
            if step.opname == "IMPORT_NAME":
                yield from _imported(step, steps[:i], scope, tell)
            elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in scope:
                yield tell(_reached(scope[step.argval], steps[i + 1 :]))
            elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in ANYTHING:
                yield untold(f"{step.argval}() may name anything")
        elif step.opcode in dis.haslocal or step.opcode in dis.hasfree:
            yield step.opname, step.arg
        else:
            yield step.opname, str(step.argval)


def _imported(
    step: dis.Instruction, steps: list[dis.Instruction], scope: Mapping[str, Any], tell: Tell
) -> Iterator[Any]:
    """Yield what an import within a function leads to, also where it has not been run yet."""
    (level, names), name = [peek(before, "argval") for before in steps[-2:]], step.argval
    if isinstance(level, int) and level > 0:
        name = importlib.util.resolve_name("." * level + name, str(scope.get("__package__")))
    if (house := house_of(name)) is not None:
        yield name, house
    elif (module := sys.modules.get(name)) is None:
        yield name, source_of(name)
    else:
        yield [tell(found) for found in [peek(module, part) for part in names or ()] or [module]]


def _reached(value: Any, following: list[dis.Instruction]) -> Any:
    """Return what a name leads to: of a module of the caller's, the attribute that is read from it."""
    for step in following:
        if not isinstance(value, ModuleType) or house_of(value.__name__) is not None:
            return value
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not hasattr(value, step.argval):
            return value
        value = getattr(value, step.argval)
    return value
