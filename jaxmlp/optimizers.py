"""Optimizers as factories of numbers: a few over Optax, what their numbers may be, and how they see a stack of layers.

A `Recipe` takes any other factory of Optax's or of your own just as well. A parameter named `run_steps` of a factory is
no hyperparameter: it is given the steps of the run, so that a schedule need not be told a number that must agree:

    def scheduled(learning_rate, run_steps):
        return optax.adam(optax.cosine_decay_schedule(learning_rate, run_steps))

It is an int, but for members that own unequal numbers of rows: then it is traced, as `CosineAdamW` can take it.

An optimizer of Optax that asks for more than gradients gets it: value, grad, value_fn, obj_fn and grad_fn.

Where an optimizer has better parameters than those it trains, they are state.params: what is validated, chosen,
returned and saved. So it is with `Averaged`, and with `optax.contrib.schedule_free_adamw`, `schedule_free_sgd` and
`schedule_free` of others (Defazio 2024, arXiv 2405.15682): state.params is their x, and the y at which gradients are
taken, and of which the loss of an epoch is the mean, is state.opt_state.params. There `after` acts on the iterate z.
"""

import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxmlp import _check
from jaxmlp._averaging import averaging
from jaxmlp._factories import check_descends, finished, takes_run_steps
from jaxmlp._kinds import check_ranges
from jaxmlp._per_layer import layer_by_layer
from jaxmlp._roles import decays as decays
from jaxmlp.types import Number, OptimizerFactory


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CosineAdamW:
    """AdamW whose rate warms up linearly and then falls to zero along a cosine, with decay of the matrices alone.

    rate(t) = learning_rate t / warm for t < warm, else learning_rate (1 + cos(pi (t - warm) / (steps - warm))) / 2.
    Loshchilov and Hutter 2017 (arXiv 1608.03983) and 2019 (arXiv 1711.05101). A value, not a closure: equal
    factories make equal recipes, which share one compilation. What decays is known by name: see `decays`.

    Args:
      steps: at which the rate is zero, and stays so. None takes the steps of the run, which `fit`, `population.fit`,
        `loop.train` and the verbs on them know; for `start`, `step` and `epoch` they are bound:
        `recipe.bind(hyperparams, steps=...)`. A number may be larger than those of the run, not smaller.
      warmup: the share of them that warms up, in [0, 1).

    Raises:
      ValueError: for steps below 1 or a share outside [0, 1).

    >>> CosineAdamW()
    CosineAdamW(steps=None, warmup=0.05)
    """

    steps: int | None = None
    warmup: float = 0.05

    def __post_init__(self) -> None:
        if self.steps is not None:
            object.__setattr__(self, "steps", _check.positive_int("steps", self.steps))
        if isinstance(self.warmup, bool) or not isinstance(self.warmup, int | float | np.number):
            raise ValueError(f"warmup must be a share, in [0, 1); got {_check.describe(self.warmup)}")
        _check.within("warmup", self.warmup, 0, 1, open_high=True)
        object.__setattr__(self, "warmup", float(self.warmup))

    def __call__(
        self,
        learning_rate: Number,
        weight_decay: float | Array = 0.0,
        *,
        eps: Number = 1e-8,
        run_steps: int | Array | None = None,
    ) -> optax.GradientTransformation:
        """Return the transformation; all numbers may be traced.

        Raises:
          ValueError: for known numbers that are negative or not finite, for `steps` below those of the run, and where
            neither is known.
        """
        check_ranges({"learning_rate": learning_rate, "weight_decay": weight_decay, "eps": eps})
        shape = self._shape(run_steps)
        return optax.adamw(lambda count: learning_rate * shape(count), eps=eps, weight_decay=weight_decay, mask=decays)

    def _shape(self, run_steps: int | Array | None) -> optax.Schedule:
        """Return the rate at a step, for a learning rate of one."""
        name = type(self).__name__
        if self.steps is None and run_steps is None:
            raise ValueError(
                f"{name} must know the steps of the run, as fit, population.fit and loop.train do; "
                f"got none; give {name}(steps=...), or pass recipe.bind(hyperparams, steps=...) for the recipe"
            )
        steps = run_steps if self.steps is None else self.steps
        if self.steps is not None and isinstance(run_steps, int) and self.steps < run_steps:
            raise ValueError(
                f"steps of {name} must be at least the {run_steps} of the run, or the last {run_steps - self.steps} "
                f"have a rate of zero; got {self.steps}; leave steps out to take those of the run: {name}()"
            )
        if not isinstance(steps, int):
            return functools.partial(_cosine, steps=steps, warmup=self.warmup)
        warm = round(self.warmup * steps)
        rise = optax.linear_schedule(0.0, 1.0, warm)
        fall = optax.cosine_decay_schedule(1.0, max(steps - warm, 1))
        return optax.join_schedules([rise, fall], [warm]) if warm else fall


def _cosine(count: Any, *, steps: Any, warmup: float) -> Array:
    """Return the rate at a step where the steps of the run are traced."""
    count, steps = jnp.asarray(count, jnp.float32), jnp.asarray(steps, jnp.float32)
    warm = jnp.round(warmup * steps)
    fallen = jnp.minimum(count - warm, steps - warm) / jnp.maximum(steps - warm, 1.0)
    return jnp.where(count < warm, count / jnp.maximum(warm, 1.0), 0.5 * (1 + jnp.cos(jnp.pi * fallen)))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ClippedCosineAdamW(CosineAdamW):
    """`CosineAdamW` on gradients whose global norm is clipped (Pascanu 2013, arXiv 1211.5063).

    The Gaussian likelihood needs it at large rates: an error at a small variance has a gradient without bound.

    >>> ClippedCosineAdamW(steps=1000)
    ClippedCosineAdamW(steps=1000, warmup=0.05)
    """

    def __call__(
        self,
        learning_rate: Number,
        weight_decay: float | Array = 0.0,
        clip_norm: Number = 1.0,
        *,
        eps: Number = 1e-8,
        run_steps: int | Array | None = None,
    ) -> optax.GradientTransformation:
        """Return the transformation; all numbers may be traced.

        Raises:
          ValueError: for what `CosineAdamW` refuses, and for a known norm that is not positive.
        """
        check_ranges({"clip_norm": clip_norm})
        cosine = super().__call__(learning_rate, weight_decay, eps=eps, run_steps=run_steps)
        return optax.chain(optax.clip_by_global_norm(clip_norm), cosine)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PerLayer:
    """A factory whose optimizer sees the layers of a stack one by one: `PerLayer(optax.lamb)`.

    `MLP(..., scan=True)` holds equal layers as one stack, w (layers, width, width) and b (layers, width). Optimizers
    that take a leaf for a layer or a matrix would take the stack for one: lamb, lars, fromage, novograd, adafactor,
    sm3, `contrib.muon`, `contrib.galore`, and chains with adaptive_grad_clip, clip_by_block_rms, centralize,
    scale_by_trust_ratio or scale_by_distance_over_gradients. With the layers apart they make the steps that they make
    with scan=False, at a compilation that grows with depth. A `Recipe` finds out by itself which optimizers need
    that, those of your own among them; this is for optimizers that are used without one, and to say it. Those that
    work element by element (Adam, SGD, ...) or with a norm of all parameters (clip_by_global_norm) do not need it.

    Args:
      factory: of numbers, as a `Recipe` takes it; they are routed by its signature.

    Raises:
      ValueError: for a finished transformation, or what is not callable.

    >>> PerLayer(optax.lamb) == PerLayer(optax.lamb)
    True
    >>> list(inspect.signature(PerLayer(optax.sgd)).parameters)
    ['learning_rate', 'momentum', 'nesterov', 'accumulator_dtype']
    """

    factory: OptimizerFactory

    def __post_init__(self) -> None:
        object.__setattr__(self, "__signature__", _signature_of(self.factory))

    def __call__(self, *args: Any, **numbers: Any) -> optax.GradientTransformationExtraArgs:
        """Return the transformation; numbers may be traced."""
        return layer_by_layer(finished(self.factory(*args, **numbers)))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Averaged:
    """A factory whose optimizer trains as another one and keeps an average of the iterates: `Averaged(optax.adam)`.

        a_n = a_{n-1} + share_n (p_n - a_{n-1}),    share_n = (1 - average_decay) / (1 - average_decay^n)

    p_n is the n-th iterate after step `average_start`, counted from 1, and a the average, state.params: what is
    validated, chosen, returned and saved. Until then it is the iterate itself. Gradients are taken at p, of which the
    loss of an epoch is the mean too, and which is state.opt_state.params; `after` acts on p before it is averaged. The
    average begins at p_1, so it is the exponential one without the bias of a start at zero; average_decay=1 is its
    limit, share_n = 1 / n: the mean of all iterates (Polyak and Juditsky 1992, doi 10.1137/0330046), and with a start
    late in the run stochastic weight averaging (Izmailov 2018, arXiv 1803.05407). What is frozen is not averaged.

    Args:
      factory: of numbers, as a `Recipe` takes it. To its numbers come average_decay, in [0, 1], and average_start, a
        number of steps, 0 unless given.

    Raises:
      ValueError: for a finished transformation, what is not callable, and a factory that has numbers of these names;
        in training for parameters narrower than float32.

    >>> list(inspect.signature(Averaged(optax.sgd)).parameters)[-3:]
    ['accumulator_dtype', 'average_decay', 'average_start']
    """

    factory: OptimizerFactory

    def __post_init__(self) -> None:
        signature = _signature_of(self.factory)
        own = [p for p in inspect.signature(self.__call__).parameters.values() if p.kind is p.KEYWORD_ONLY]
        for p in own:
            if p.name in signature.parameters:
                raise ValueError(f"factory must not name {p.name}, a number of Averaged itself; got {self.factory!r}")
        named = sorted([*signature.parameters.values(), *own], key=lambda p: p.kind)  # as a signature has them
        object.__setattr__(self, "__signature__", signature.replace(parameters=named))

    def __call__(
        self, *args: Any, average_decay: Number, average_start: Number = 0, **numbers: Any
    ) -> optax.GradientTransformationExtraArgs:
        """Return the transformation; numbers may be traced."""
        check_ranges({"average_decay": average_decay, "average_start": average_start})
        return averaging(finished(self.factory(*args, **numbers)), average_decay, average_start)


WRAPPERS = (PerLayer, Averaged)


def _signature_of(factory: Any) -> inspect.Signature:
    """Return the signature of a factory of numbers.

    Raises:
      ValueError: for a finished transformation, or what is not callable.
    """
    if isinstance(factory, optax.GradientTransformation) or not callable(factory):
        raise ValueError(f"factory must be one of numbers, as optax.lamb; got {type(factory).__name__}")
    check_descends(factory)
    return inspect.signature(factory)


def schedule_length(factory: Any) -> int | str | None:
    """Return what a factory's rate depends on: its own number of steps, "run" for those of the run, None for neither.

    >>> schedule_length(CosineAdamW(steps=9)), schedule_length(CosineAdamW()), schedule_length(optax.adam)
    (9, 'run', None)
    """
    inner = factory
    while isinstance(inner, (*WRAPPERS, functools.partial)):
        inner = inner.func if isinstance(inner, functools.partial) else inner.factory
    if isinstance(inner, CosineAdamW) and inner.steps is not None:
        return inner.steps
    return "run" if takes_run_steps(factory) else None
