"""The digest of a traced program: of the operations and what goes into each, by value and without names or lines."""

import enum
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxmlp.loop._code import of_behaviour, without_addresses
from jaxmlp.loop._digest import of_array

CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
# Derivatives of one's own show where a program derives; the rest is no mathematics.
RULES = {"jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "out_trees"}
ASIDE = {"name", "debug_info", "name_and_src_info", "ctx_mesh"} | RULES
SHOWN = {"debug_callback", "debug_print"}  # `jax.debug.print` changes no number


class Trace:
    """The digests of one traced program."""

    def __init__(self) -> None:
        self._functions: dict[int, tuple[Any, str]] = {}

    def function(self, closed: Any) -> str:
        """Return the digest of a program of its own: of its results, and of what it does besides."""
        if id(closed) not in self._functions:
            jaxpr, consts = (closed.jaxpr, closed.consts) if hasattr(closed, "consts") else (closed, [])
            inputs = [hashed("input", i, variable.aval.str_short()) for i, variable in enumerate(jaxpr.invars)]
            effects: list[str] = []
            found = self._outputs(jaxpr, consts, inputs, effects)
            self._functions[id(closed)] = closed, hashed(*found, "effects", *effects)
        return self._functions[id(closed)][1]

    def _outputs(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[str], effects: list[str]) -> list[str]:
        told: dict[Any, str] = dict(zip(jaxpr.invars, inputs, strict=True))
        told |= {variable: self._constant(const) for variable, const in zip(jaxpr.constvars, consts, strict=False)}

        def read(atom: Any) -> str:
            return self._constant(atom.val, atom.aval) if isinstance(atom, core.Literal) else told[atom]

        for equation in jaxpr.eqns:
            name, params = equation.primitive.name, equation.params
            if name in SHOWN:
                continue
            given = [read(atom) for atom in equation.invars]
            inside = params.get("jaxpr", params.get("call_jaxpr")) if name in CALLS else None
            if inside is not None:
                closed = (inside.jaxpr, inside.consts) if hasattr(inside, "consts") else (inside, [])
                found = self._outputs(*closed, given, effects)
            else:
                kept = [(key, self.tell(params[key])) for key in sorted(params) if key not in ASIDE]
                done = hashed(name, *kept, *given)
                found = [hashed(done, i) for i in range(len(equation.outvars))]
                if equation.effects:
                    effects.append(done)
            told.update(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def tell(self, value: Any) -> Any:
        """Return what a parameter of an operation says, without names, lines and addresses."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.dtype):
            return str(value) if not isinstance(value, enum.Enum) else f"{type(value).__name__}.{value.name}"
        if hasattr(value, "eqns") or hasattr(value, "jaxpr") and hasattr(value, "consts"):
            return self.function(value)
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._constant(value)
        if isinstance(value, tuple | list):
            return (
                [type(value).__name__, *map(self.tell, value)]
                if hasattr(value, "_fields")
                else [*map(self.tell, value)]
            )
        if isinstance(value, set | frozenset):
            return sorted(str(self.tell(item)) for item in value)
        if isinstance(value, Mapping):
            return sorted((str(key), str(self.tell(item))) for key, item in value.items())
        if hasattr(value, "tag") and hasattr(value, "random_bits"):  # how keys are made
            return value.name
        # What runs on the host inside a program, and rules for `vmap`: JAX knows nothing of it but where it is.
        return of_behaviour(value) if callable(value) else without_addresses(str(value))

    def _constant(self, value: Any, aval: Any = None) -> str:
        if isinstance(value, Tracer) or not hasattr(value, "dtype") and not np.isscalar(value):
            return without_addresses(str(value))
        if not isinstance(value, np.ndarray | np.generic | jax.Array):  # a number, Python's or one with a dtype
            value = np.asarray(value, getattr(aval, "dtype", getattr(value, "dtype", None)))
        return hashed("constant", *of_array(value).values())


def hashed(*parts: Any) -> str:
    """Return a digest of these."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
