"""The parameters of the estimators: scikit-learn's under its names, defaults and meanings, and ours."""

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


def keep(estimator: Any, given: dict[str, Any]) -> None:
    """Set the parameters of an estimator as they were given, as scikit-learn asks of `__init__`."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


def sizes_of(hidden_layer_sizes: Any) -> tuple[int, ...]:
    """Return the widths of the hidden layers.

    Raises:
      ValueError: for one that is not positive, in scikit-learn's words.
    """
    sizes = list(hidden_layer_sizes) if hasattr(hidden_layer_sizes, "__iter__") else [hidden_layer_sizes]
    if np.any(np.array(sizes) <= 0):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
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
