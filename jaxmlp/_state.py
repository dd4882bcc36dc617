"""Where a run stands: the state between two steps, the mean of an epoch that is under way, and a choice of two."""

from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import optax
from jax import Array

from jaxmlp._averaging import Iterate, settle
from jaxmlp._dry_run import loose
from jaxmlp._requests import Told
from jaxmlp.metrics import Mean, average
from jaxmlp.recipe import Bound
from jaxmlp.types import Data, Params


class State(NamedTuple):
    """All that the next step needs, and all that a checkpoint holds."""

    params: Params
    opt_state: optax.OptState
    step: Array  # () int32, steps done
    key: Array  # the run's key; each use folds its step or epoch into a part of it


jax.export.register_namedtuple_serialization(State, serialized_name="jaxmlp.State")


def form_of_start(bound: Bound, key: Any, given: Params | State) -> Any:
    """Return the form that given parameters, or a state, must have to begin with."""

    def begun(key: Array, bound: Bound) -> Any:
        params = bound.init(key)
        with loose():
            return State(params, bound.optimizer().init(params), jnp.zeros((), jnp.int32), key)

    like = jax.eval_shape(begun, key, bound)
    return like if isinstance(given, State) else like.params


def settled(
    state: State, trained: Params, opt_state: Any, bound: Bound, extras: dict[str, Array], told: Told
) -> tuple[Params, Any]:
    """Return parameters and the optimizer's state after a step: `after` has followed, and an average is up to date.

    Args:
      state: before the step.
      trained: what the update makes of what is trained.
      opt_state: after the update.
      bound: the recipe with its numbers.
      extras: the means of what the loss says besides.
      told: what `after` may ask for.
    """
    begun, whole = bound.split(state.params)
    if not isinstance(opt_state, Iterate):
        return bound.follow(whole(trained), state.params, extras, told), opt_state
    old: Any = state.opt_state
    rest = whole  # of what is frozen; once `after` has run, as that leaves it

    def follow(now: Params, before: Params) -> Params:
        nonlocal rest
        trained, rest = bound.split(bound.follow(whole(now), whole(before), extras, told))
        return trained

    with loose():
        now, after = opt_state._replace(params=trained), bound.recipe.after
        average, opt_state = settle(begun, old, now, follow if after else None)
    return rest(average), opt_state


def empty_mean(state: State, batch: Data, bound: Bound) -> Mean:
    """Return the mean over no steps, of what a step returns."""

    def values(state: State, batch: Data) -> dict[str, Array]:
        told = bound.told(state.params, batch, state.key, state.step, training=False)
        losses, extras = bound.per_example(told.apply(state.params, batch[0]), batch[1], told)
        return {"loss": average(losses), **{name: average(values) for name, values in extras.items()}}

    zeros = {name: jnp.zeros((), a.dtype) for name, a in jax.eval_shape(values, state, batch).items()}
    loss = zeros.pop("loss")
    return Mean(loss, loss, zeros)


def where(condition: Array, state: State, other: State) -> State:
    """Return `state` where the condition () holds, else `other`; of the same run, so with the same key."""
    one, two = state._replace(key=None), other._replace(key=None)
    return jax.tree.map(lambda a, b: jax.lax.select(condition, a, b), one, two)._replace(key=state.key)
