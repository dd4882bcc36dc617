"""Factories of optimizers as a run calls them: with its numbers, and with its steps where one asks for them."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import optax

from jaxmlp import _check
from jaxmlp.types import Number, OptimizerFactory


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class RunLength:
    """The steps of a run as a part of its program, not one of its numbers: a schedule may branch on them."""

    steps: int


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
