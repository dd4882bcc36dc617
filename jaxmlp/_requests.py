"""What a loss, a metric or `after` may ask for by name, beside what it is given by position: see `REQUESTS`.

A function asks by naming an argument. Nothing is computed for one that asks for nothing, so its program is as it was.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp.types import Numeric, Params, PyTree

REQUESTS = ("params", "x", "apply", "key", "weight", "step")
DRAWS = 0xFFFFFFFF  # folded into a key: what a loss draws is no dropout mask of the model, nor an order of an epoch


class Moment(NamedTuple):
    """Where a run stands that is evaluated."""

    key: Any  # of the run, as its state has it; None where nothing asks for one
    step: Any


class Told(NamedTuple):
    """What is there to be asked for, in a step or in an evaluation."""

    params: Params
    x: PyTree
    apply: Callable[[Params, PyTree], PyTree]  # the model with the run's numbers, in training with its key too
    key: Array  # of this step; in evaluation that of the run, so that an evaluation is deterministic
    weight: Numeric | None  # (batch,), None where all examples count one
    step: Any  # steps done, () int32

    def answers(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Return what a function asks for, by name."""
        return {name: self._answer(name) for name in asked(function)}

    def _answer(self, name: str) -> Any:
        if name == "key":
            return jax.random.fold_in(self.key, DRAWS)
        if name == "weight" and self.weight is None:
            return jnp.ones(examples(self.x), jnp.float32)
        return jnp.asarray(self.weight) if name == "weight" else getattr(self, name)


def examples(x: PyTree) -> int:
    """Return how many examples a batch has."""
    return len(jax.tree.leaves(x)[0])


def asked(function: Any) -> tuple[str, ...]:
    """Return what a function asks for: those of `REQUESTS` that its signature names, and no `partial` has given it.

    >>> from functools import partial
    >>> def loss(outputs, targets, *, params, step=0, beta=1.0):
    ...     return outputs
    >>> asked(loss), asked(partial(loss, step=3))
    (('params', 'step'), ('params',))
    """
    try:
        return _asked(function)
    except TypeError:  # one that has no hash
        return _asked.__wrapped__(function)


@functools.lru_cache(maxsize=1024)
def _asked(function: Any) -> tuple[str, ...]:
    given: set[str] = set()
    inner = function
    while isinstance(inner, functools.partial):
        given |= inner.keywords.keys()
        inner = inner.func
    try:
        named: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function in C that does not tell
        return ()
    by_name = [name for name, p in list(named.items())[2:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return tuple(name for name in REQUESTS if name in by_name and name not in given)
