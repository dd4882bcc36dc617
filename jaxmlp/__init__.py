"""Multi-layer perceptrons as pure functions in JAX: one network or ten thousand in one compiled program."""

from jaxmlp import data, interop, linear, loop, losses, metrics, population, serving, training
from jaxmlp.devices import use_all_cores
from jaxmlp.files import load, save
from jaxmlp.interop import export
from jaxmlp.layer import Layer
from jaxmlp.mlp import MLP
from jaxmlp.training import Recipe, State, epoch, evaluate, fit, start, step

__version__ = "0.1.0"
__all__ = [
    "MLP",
    "Layer",
    "Recipe",
    "State",
    "data",
    "epoch",
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
    "save",
    "serving",
    "start",
    "step",
    "training",
    "use_all_cores",
]
