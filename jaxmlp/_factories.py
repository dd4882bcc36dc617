"""Factories of optimizers as a run calls them: with its numbers, and with its steps where one asks for them."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
import optax.contrib
from jax.core import Tracer

from jaxmlp import _check
from jaxmlp.types import Number, OptimizerFactory


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class RunLength:
    """The steps of a run as a part of its program, not one of its numbers: a schedule may branch on them."""

    steps: int


# The transformations of Optax that leave the sign of the gradient, so that a step by one of them alone goes uphill.
PARTS = frozenset(
    "adaptive_grad_clip add_decayed_weights add_noise apply_every centralize clip clip_by_block_rms "
    "clip_by_global_norm ema hutchinson_estimator_diag_hessian identity keep_params_nonnegative monitor normalize "
    "normalize_by_update_norm reduce_on_plateau scale_by_acprop scale_by_adadelta scale_by_adam scale_by_adamax "
    "scale_by_adan scale_by_ademamix scale_by_adopt scale_by_amsgrad scale_by_backtracking_linesearch scale_by_belief "
    "scale_by_distance_over_gradients scale_by_factored_rms scale_by_galore scale_by_lbfgs scale_by_lion "
    "scale_by_novograd scale_by_optimistic_gradient scale_by_param_block_norm scale_by_param_block_rms scale_by_polyak "
    "scale_by_radam scale_by_rms scale_by_rprop scale_by_rss scale_by_sign scale_by_simplified_ademamix scale_by_sm3 "
    "scale_by_stddev scale_by_trust_ratio scale_by_yogi scale_by_zoom_linesearch snapshot trace zero_nans".split()
)


# Those of them that follow a whole optimizer, of whose updates they make others.
LAST = frozenset(
    "keep_params_nonnegative monitor reduce_on_plateau scale_by_backtracking_linesearch scale_by_polyak "
    "scale_by_zoom_linesearch snapshot".split()
)


def check_descends(factory: Any, numbers: Mapping[str, Any] | None = None) -> None:
    """Raise for a part of an optimizer of Optax, which alone would climb the loss instead of descending it.

    Told by name, where the factory is one of them or made of it by `functools.partial` or `optax.inject_hyperparams`;
    what a function of the caller's own puts together is the caller's.
    """
    given: dict[str, Any] = {}
    while isinstance(factory, functools.partial):
        given = {**dict(zip(("step_size",), factory.args, strict=False)), **factory.keywords, **given}
        factory = factory.func
    function = inspect.unwrap(factory) if callable(factory) else factory
    name = getattr(function, "__name__", "")
    watched = name in PARTS or name in ("scale", "scale_by_learning_rate")
    room = next((room for room in (optax, optax.contrib) if watched and getattr(room, name, None) is function), None)
    if room is None:
        return
    spoken = f"{room.__name__}.{name}"
    if name in PARTS:
        chain = f"{spoken}(...), optax.scale_by_learning_rate(learning_rate)"
        chain = f"optax.sgd(learning_rate), {spoken}(...)" if name in LAST else chain
        raise ValueError(
            f"optimizer must descend; {spoken} is a part of one, and alone steps along the gradient, uphill; "
            f"write a factory: def mine(learning_rate): return optax.chain({chain})"
        )
    size = {**given, **(numbers or {})}.get("step_size")
    known = isinstance(size, int | float | np.generic | np.ndarray | jax.Array) and not isinstance(size, Tracer)
    if name == "scale" and known and np.any(np.asarray(size) > 0) or given.get("flip_sign") is False:
        raise ValueError(f"optimizer must descend; {spoken} of what is given steps uphill; optax.sgd descends")


def finished(made: Any) -> optax.GradientTransformationExtraArgs:
    """Return what a factory made as a transformation that takes extra arguments.

    Raises:
      ValueError: for anything but a transformation or an `optax.MultiSteps`.
    """
    if isinstance(made, optax.MultiSteps):
        made = made.gradient_transformation()
    if not isinstance(made, optax.GradientTransformation):
        raise ValueError(f"optimizer must return an optax.GradientTransformation; got {type(made).__name__}")
    return optax.with_extra_args_support(made)


@dataclasses.dataclass(frozen=True)
class Finished:
    """A factory with what of its arguments is no number of the program; compared by value."""

    factory: OptimizerFactory
    fixed: tuple[tuple[str, Any], ...] = ()

    def __call__(self, **numbers: Any) -> optax.GradientTransformationExtraArgs:
        """Return the transformation of these numbers."""
        return finished(self.factory(**numbers, **dict(self.fixed)))


def of_run(factory: OptimizerFactory, numbers: Mapping[str, Number], steps: Any) -> tuple[Finished, dict[str, Number]]:
    """Return a factory and its numbers, with the steps of the run where it asks for them.

    Args:
      factory: of numbers.
      numbers: these.
      steps: a `RunLength`, a number that is traced, or None where they are not known.

    Raises:
      ValueError: for a factory that cannot be called without the steps.
    """
    if isinstance(steps, RunLength):
        return Finished(factory, (("run_steps", steps.steps),)), dict(numbers)
    if steps is not None:
        return Finished(factory), {**numbers, "run_steps": steps}
    if needs_run_steps(factory):
        raise ValueError(
            f"optimizer {_check.name_of(factory)} must know the steps of the run, as fit, population.fit and "
            f"loop.train do; got none; pass recipe.bind(hyperparams, steps=...) for the recipe"
        )
    return Finished(factory), dict(numbers)


def takes_run_steps(factory: Any) -> bool:
    """Tell whether a factory's signature names `run_steps`, the steps of the run."""
    return _run_steps(factory) is not None


def needs_run_steps(factory: Any) -> bool:
    """Tell whether a factory cannot be called without the steps of the run."""
    parameter = _run_steps(factory)
    return parameter is not None and parameter.default is parameter.empty


@functools.lru_cache(maxsize=1024)
def _run_steps(factory: Any) -> inspect.Parameter | None:
    try:
        return inspect.signature(factory).parameters.get("run_steps")
    except (TypeError, ValueError):
        return None
