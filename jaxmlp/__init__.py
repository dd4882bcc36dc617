"""Multi-layer perceptrons as pure functions in JAX: one network or ten thousand in one compiled program."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxmlp import data, linear, losses, metrics, training, types
from jaxmlp._compile import use_compilation_cache
from jaxmlp._engine.devices import use_all_cores
from jaxmlp._transfer import transfer
from jaxmlp.layer import Layer
from jaxmlp.mlp import MLP
from jaxmlp.training import Recipe, State, epoch, evaluate, fit, start, step

if TYPE_CHECKING:
    from jaxmlp import conformal, estimators, interop, loop, population, records, serving, sharding, transforms
    from jaxmlp.files import load, save
    from jaxmlp.interop import export

# The rooms that stand on these are entered when they are first named: a script that never does, never waits for them.
_LATER = {n: n for n in ("conformal", "estimators", "interop", "loop", "population", "records", "serving", "sharding")}
_LATER |= {"transforms": "transforms", "load": "files", "save": "files", "export": "interop"}

__version__ = "0.1.0"
__all__ = [
    "MLP",
    "Layer",
    "Recipe",
    "State",
    "conformal",
    "data",
    "epoch",
    "estimators",
    "evaluate",
    "export",
    "fit",
    "interop",
    "linear",
    "load",
    "loop",
    "losses",
    "metrics",
    "population",
    "records",
    "save",
    "serving",
    "sharding",
    "start",
    "step",
    "training",
    "transfer",
    "transforms",
    "types",
    "use_all_cores",
    "use_compilation_cache",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'jaxmlp' has no attribute {name!r}")
    room = import_module(f"jaxmlp.{_LATER[name]}")
    return room if _LATER[name] == name else getattr(room, name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LATER))
