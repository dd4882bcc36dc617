"""Multi-layer perceptrons as pure functions in JAX: one network or ten thousand in one compiled program."""

from jaxmlp import data, linear, loop, losses, metrics, population, training
from jaxmlp.devices import use_all_cores
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
    "fit",
    "linear",
    "loop",
    "losses",
    "metrics",
    "population",
    "start",
    "step",
    "training",
    "use_all_cores",
]
