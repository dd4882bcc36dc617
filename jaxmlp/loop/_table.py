"""What the words of a checkpoint may stand for: a closed list of types, and the functions of a fixed table by name.

A checkpoint may come from anywhere. Nothing is imported or looked up by a name that stands in one, and nothing is ever
called but what is listed here: types that only hold their fields, and functions that only compute.
"""

import functools
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.nn import initializers

from jaxmlp import losses, metrics
from jaxmlp.loop._code import found_by_name
from jaxmlp.mlp import MLP
from jaxmlp.optimizers import Averaged, ClippedCosineAdamW, CosineAdamW, PerLayer
from jaxmlp.recipe import Recipe

OWN = ("jaxmlp", "optax", "jax")  # whose functions are told by name alone, where that leads to them
CURVES = """abs arctan arcsinh clip cos cosh exp exp2 expm1 fabs log log1p positive reciprocal sign
sin sinc sinh sqrt square tan tanh"""
LOSSES = """absolute_error beta_gaussian_nll binary_cross_entropy cox cross_entropy gaussian_crps gaussian_nll huber
info_nce mixture_nll poisson quantile squared_error student_t_nll unit_gaussian_nll"""
METRICS = """accuracy average_precision binary_accuracy confusion_matrix exact_match expected_calibration_error f1
interval_coverage mae multilabel_accuracy nll precision r2 recall rmse roc_auc top_k_accuracy"""
# Optimizers, schedules and losses of Optax, and nothing else of it: not what calls a function that it is given.
OPTAX = """adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars lbfgs lion
noisy_sgd novograd optimistic_adam optimistic_adam_v2 optimistic_gradient_descent polyak_sgd radam rmsprop rprop sgd
sign_sgd signum sm3 yogi
constant_schedule cosine_decay_schedule cosine_onecycle_schedule exponential_decay linear_onecycle_schedule
linear_schedule piecewise_constant_schedule piecewise_interpolate_schedule polynomial_schedule sgdr_schedule
warmup_constant_schedule warmup_cosine_decay_schedule warmup_exponential_decay_schedule
convex_kl_divergence cosine_distance cosine_similarity generalized_kl_divergence hinge_loss huber_loss kl_divergence
l2_loss log_cosh ntxent safe_softmax_cross_entropy sigmoid_binary_cross_entropy sigmoid_focal_loss smooth_labels
softmax_cross_entropy softmax_cross_entropy_with_integer_labels squared_error"""
ACTIVATIONS = """celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu log_sigmoid
log_softmax mish relu relu6 selu sigmoid silu soft_sign softmax softplus sparse_plus sparse_sigmoid squareplus
standardize swish tanh"""
INITIALIZERS = """constant delta_orthogonal glorot_normal glorot_uniform he_normal he_uniform kaiming_normal
kaiming_uniform lecun_normal lecun_uniform normal ones orthogonal truncated_normal uniform variance_scaling
xavier_normal xavier_uniform zeros"""
MODULES: list[tuple[ModuleType, str]] = [
    (losses, LOSSES),
    (metrics, METRICS),
    (optax, OPTAX),
    (jax.nn, ACTIVATIONS),
    (initializers, INITIALIZERS),
    (jnp, CURVES),
    (jax.lax, f"erf logistic rsqrt {CURVES}"),
    (jax.scipy.special, "erf expit"),
]


def name_of(value: Any) -> str:
    """Return "module:name" of a function or type, by the shortest name that leads to it.

    >>> name_of(optax.adamw)
    'optax:adamw'
    """
    module, name = value.__module__ or "builtins", value.__qualname__
    root = module.split(".")[0]
    if getattr(sys.modules.get(root), name, None) is value:  # optax.adamw, not optax._src.alias.adamw
        module = root
    return f"{module}:{name}"


def is_known(function: Any) -> bool:
    """Tell whether a function is one of jaxmlp, Optax or JAX: `__module__` and `__qualname__` alone may be copied."""
    return root_of(name_of(function)) in OWN and found_by_name(getattr(function, "__func__", function)) is not None


def root_of(name: str) -> str:
    """Return the package in "package.module:name"."""
    return name.split(":")[0].split(".")[0]


@functools.cache
def types() -> dict[str, type]:
    """Return the types that a description may build, by name: dataclasses that hold what they are given."""
    return {name_of(kind): kind for kind in (MLP, Recipe, CosineAdamW, ClippedCosineAdamW, PerLayer, Averaged)}


@functools.cache
def functions() -> dict[str, Any]:
    """Return the functions that a description may name, each by its public name and by the one that it bears."""
    found: dict[str, Any] = {}
    for module, names in MODULES:
        for name in names.split():
            function = vars(module).get(name)
            if function is not None:  # versions differ in what they have
                found[f"{module.__name__}:{name}"] = found[name_of(function)] = function
    return found


def find(what: str, name: object) -> Any:
    """Return the function of the table by that name.

    Raises:
      ValueError: for any other, before anything is looked up.
    """
    if isinstance(name, str) and name in functions():
        return functions()[name]
    module, _, rest = str(name).partition(":")
    if root_of(str(name)) not in OWN or "." in rest:
        raise ValueError(yours(what, name))
    if any(module == known.__name__ for known, _ in MODULES[:2]):
        raise ValueError(f"{what} was {name}, which is not there any more; pass recipe=")
    raise ValueError(
        f"{what} must be given again: {name:.80} is no loss, metric, optimizer, schedule, activation or initializer "
        f"that is found by name; pass recipe="
    )


def find_type(what: str, name: object) -> type:
    """Return the type of the closed list by that name.

    Raises:
      ValueError: for any other.
    """
    if isinstance(name, str) and name in types():
        return types()[name]
    if root_of(str(name)) not in OWN:
        raise ValueError(yours(what, name))
    raise ValueError(f"{what} must be one of {', '.join(types())}; got {name!r:.80}; pass recipe=")


def yours(what: str, name: object) -> str:
    """Return what is said of a part that only the caller has."""
    told = str(name)[:200]
    return f"{what} must be given again: {told} is not of jaxmlp, Optax or JAX, and is not looked for; pass recipe="
