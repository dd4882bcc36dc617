"""The parameters of the estimators: scikit-learn's under its names, defaults and meanings, and ours."""

import abc
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions

from jaxmlp import _check
from jaxmlp.layer import ACTIVATIONS

CURVES = {"logistic": "sigmoid"}  # scikit-learn's name: ours
SOLVERS = ("sgd", "adam")  # that take steps on batches

THEIRS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions({*ACTIVATIONS, *CURVES}), callable],
    "solver": [StrOptions({"lbfgs", *SOLVERS})],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
}
OURS: dict[str, list[Any]] = {
    "norm": [StrOptions({"layer", "rms"}), None],
    "residual": ["boolean"],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "optimizer": [str, callable, None],
    "schedule": [StrOptions({"cosine", "linear"}), callable, None],
    "loss_params": [dict, None],
    "n_members": [Interval(Integral, 1, None, closed="left")],
    "scale": ["boolean"],
    "dtype": [StrOptions({"float32", "float64", "bfloat16", "float16"}), None],
    "device": [str, HasMethods("memory_stats"), None],
}


class Parameters(abc.ABC):
    """What every estimator is given, and what classifier and regressor answer each in its own way."""

    hidden_layer_sizes: Any
    activation: Any
    solver: str
    alpha: float
    batch_size: Any
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: Any
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: Any
    max_fun: int
    loss: Any
    loss_params: Any
    norm: Any
    residual: bool
    dropout: float
    optimizer: Any
    schedule: Any
    n_members: int
    scale: bool
    dtype: Any
    device: Any

    @abc.abstractmethod
    def _loss(self) -> Any:
        """Return the loss of an example."""

    @abc.abstractmethod
    def numbers_of_loss(self) -> dict[str, Any]:
        """Return the numbers of the loss."""

    @abc.abstractmethod
    def score_of_outputs(self) -> Any:
        """Return the metric of early stopping."""

    @abc.abstractmethod
    def _targets(self) -> int:
        """Return by how many the loss is divided where it is told."""

    @abc.abstractmethod
    def _width(self) -> int:
        """Return how many outputs the net has."""

    @abc.abstractmethod
    def _scales_targets(self) -> bool:
        """Return whether the targets may be scaled for training."""

    @abc.abstractmethod
    def _folds_targets(self) -> bool:
        """Return whether the scaling of the targets is one of the last layer."""

    @abc.abstractmethod
    def _head_of_scaled(self) -> str:
        """Return what the outputs are to `transforms.Scaled`."""

    @abc.abstractmethod
    def _validate(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> Any:
        """Return X, the targets of the net, and the labels, checked by scikit-learn's rules."""

    @abc.abstractmethod
    def _weighted(self, weight: Any, labels: np.ndarray, seen: Any = None) -> Any:
        """Return what each row counts, where other rows were `seen`, (labels, weight), in training."""

    def _coded(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        """Return targets as the loss is given them in training."""
        return y

    @abc.abstractmethod
    def _told(self) -> dict[str, Any]:
        """Return what a file says of the targets."""

    @abc.abstractmethod
    def _hear(self, told: dict[str, Any]) -> None:
        """Take what a file says of the targets."""

    @abc.abstractmethod
    def _strata(self, rows: Any) -> Any:
        """Return by what a validation set is stratified, or None."""


def keep(estimator: Any, given: dict[str, Any]) -> None:
    """Set the parameters of an estimator as they were given, as scikit-learn asks of `__init__`."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


def sizes_of(hidden_layer_sizes: Any) -> tuple[int, ...]:
    """Return the widths of the hidden layers.

    Raises:
      ValueError: for one that is not positive, in scikit-learn's words, or no whole number.
    """
    sizes = list(hidden_layer_sizes) if hasattr(hidden_layer_sizes, "__iter__") else [hidden_layer_sizes]
    if np.any(np.array(sizes) <= 0):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    if any(size != int(size) for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be whole numbers; got {sizes}")
    return tuple(int(size) for size in sizes)


def factory_of(optimizer: Any) -> Callable[..., Any]:
    """Return the factory of numbers that an optimizer's name, or a factory itself, means.

    Raises:
      ValueError: for a name that is none of Optax's.
    """
    if not isinstance(optimizer, str):
        return optimizer
    found = getattr(optax, optimizer, None)
    if not callable(found) or isinstance(found, type):
        raise ValueError(
            f"optimizer must be a name of Optax's, as 'adamw' or 'lion', or a factory, as optax.adamw; got "
            f"{_check.shown(optimizer)}"
        )
    return found


def cosine(step: Any, steps: Any) -> Any:
    """Return (1 + cos(pi step / steps)) / 2."""
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / steps, 1)))


def linear(step: Any, steps: Any) -> Any:
    """Return 1 - step / steps."""
    return 1 - jnp.minimum(step / steps, 1)


SCHEDULES: dict[str, Callable[..., Any]] = {"cosine": cosine, "linear": linear}
