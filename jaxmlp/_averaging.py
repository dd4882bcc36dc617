"""Optimizers that train one point and keep a better one, an average: the average is what a state calls its parameters.

Then it is what is validated, chosen, returned and saved, and nothing else need know. The point at which gradients are
taken lies beside the optimizer's own state, in an `Iterate`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax import Array

from jaxmlp import _check
from jaxmlp._roles import apart, together
from jaxmlp.types import Number, Params, PyTree

Transformation = optax.GradientTransformationExtraArgs
ScheduleFree = optax.contrib.ScheduleFreeState


class Refused(ValueError):
    """There is no average of these parameters by this optimizer; the message says why."""


class Iterate(NamedTuple):
    """The state of an optimizer that keeps an average.

    Args:
      params: where the next gradient is taken, of what is trained.
      optimizer: the optimizer's own state.
    """

    params: Params
    optimizer: Any


class AveragedState(NamedTuple):
    """The state of `optimizers.Averaged`: that of the optimizer inside, and how much the newest iterate counts."""

    inner: Any
    steps: Array  # () int32, done
    share: Array  # () float32


def averaging(inner: Transformation, decay: Number, start: Number) -> Transformation:
    """Return an optimizer whose state says the share of the newest iterate in the average."""

    def init(params: Params) -> AveragedState:
        for leaf in jax.tree.leaves(params):
            if jnp.finfo(leaf.dtype).bits < 32:
                raise Refused(
                    f"parameters must be float32 or wider for an average, which moves by less than a narrow one tells "
                    f"apart; got {_check.describe(leaf)}; multiply in it instead: MLP(..., dtype={leaf.dtype.name!r})"
                )
        return AveragedState(inner.init(params), jnp.zeros((), jnp.int32), jnp.ones((), jnp.float32))

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        updates, after = inner.update(updates, state.inner, params, **extra)
        count = jnp.asarray(optax.safe_increment(state.steps))
        return updates, AveragedState(after, count, share_of(count, decay, start))

    update.__wrapped__ = inner.update  # pyright: ignore[reportFunctionMemberAccess]  (whose signature counts)
    return Transformation(init, update)


def share_of(count: Array, decay: Number, start: Number) -> Array:
    """Return the share of the iterate after so many steps: (1 - decay) / (1 - decay^n), n of them since the start.

    >>> [round(float(share_of(jnp.asarray(n), 0.5, 1)), 3) for n in range(1, 5)]  # 1, 1, 1/1.5, 1/1.75
    [1.0, 1.0, 0.667, 0.571]
    >>> [round(float(share_of(jnp.asarray(n), 1.0, 0)), 3) for n in range(1, 4)]  # the mean of all
    [1.0, 0.5, 0.333]
    """
    n = jnp.maximum(count.astype(jnp.float32) - jnp.asarray(start, jnp.float32), 1.0)
    decay = jnp.asarray(decay, jnp.float32)
    mean = decay >= 1.0  # the limit
    log = jnp.log(jnp.where(mean, 0.5, jnp.maximum(decay, jnp.finfo(jnp.float32).tiny)))  # finite
    return jnp.where(mean, 1.0 / n, jnp.expm1(log) / jnp.expm1(n * log))  # without cancellation, and 1 for n = 1


def keeping(inner: Transformation) -> Transformation:
    """Return an optimizer whose state is an `Iterate` where it keeps an average, and else the same."""

    def init(params: Params) -> Any:
        state = inner.init(params)
        _check_keeps(state, params)
        return Iterate(jax.tree.map(jnp.copy, params), state) if _keepers(state) else state

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        if not isinstance(state, Iterate):
            return inner.update(updates, state, params, **extra)
        updates, after = inner.update(updates, state.optimizer, params, **extra)
        return updates, state._replace(optimizer=after)

    update.__wrapped__ = inner.update  # pyright: ignore[reportFunctionMemberAccess]
    return Transformation(init, update)


def point(opt_state: Any, params: Params) -> Params:
    """Return where the gradient is taken, of what is trained: the iterate, or where there is none the parameters."""
    return opt_state.params if isinstance(opt_state, Iterate) else params


def _is_keeper(node: object) -> bool:
    return isinstance(node, AveragedState | ScheduleFree)


def _keepers(state: Any) -> list[Any]:
    found = [node for node in jax.tree.leaves(state, is_leaf=_is_keeper) if _is_keeper(node)]
    return [*found, *(one for node in found if isinstance(node, AveragedState) for one in _keepers(node.inner))]


def _check_keeps(state: Any, params: Params) -> None:
    found = _keepers(state)
    if len(found) > 1:
        raise Refused(f"an optimizer must keep one average; it keeps {len(found)}: Averaged or schedule_free, not both")
    if found and isinstance(found[0], AveragedState) and found[0] is not state:
        raise Refused("Averaged must be outermost; got it within another transformation; Averaged(mine) around that")
    if (
        found
        and isinstance(found[0], ScheduleFree)
        and jax.tree.structure(found[0].z) not in map(jax.tree.structure, (params, apart(params)))
    ):
        raise Refused("schedule_free must see all that is trained; got it on a part; freeze: Recipe(..., frozen=...)")


def settle(average: Params, before: Iterate, now: Iterate, follow: Any = None) -> tuple[Params, Iterate]:
    """Return the average after an update, and the state with the iterate that `follow` makes of that of the update.

    Args:
      average: before the update, of what is trained.
      before: the state before the update.
      now: that after it, but for the iterate in `params`, which is already the new one.
      follow: None, or what makes of (iterate, iterate before) the one to go on with.
    """
    if isinstance(now.optimizer, AveragedState):
        now = now if follow is None else now._replace(params=follow(now.params, before.params))
        return jax.tree.map(lambda a, p: _mixed(a, p, now.optimizer.share), average, now.params), now
    old, new, y = _keepers(before.optimizer)[0], _keepers(now.optimizer)[0], now.params
    there = jax.tree.structure(new.z) == jax.tree.structure(y)  # else stacks lie apart in z
    if follow is None:
        x = optax.contrib.schedule_free_eval_params(new, y if there else apart(y))
        return jax.tree.map(lambda a, like: a.astype(like.dtype), x if there else together(x, y), y), now
    # The iterate of schedule-free is z; x is an average of all z, and y lies between the two.
    z = follow(*(one.z if there else together(one.z, y) for one in (new, old)))
    weight = new.weight_sum - old.weight_sum
    share = weight / jnp.where(weight > 0, new.weight_sum, 1.0)  # zero where none was taken
    x = jax.tree.map(lambda x, z: _mixed(x, z.astype(x.dtype), share), average, z)
    y = jax.tree.map(lambda x, z: (new.b1 * x + (1 - new.b1) * z).astype(x.dtype), x, z)
    kept = new._replace(z=z if there else apart(z))
    state = jax.tree.map(lambda node: kept if _is_keeper(node) else node, now.optimizer, is_leaf=_is_keeper)
    return x, Iterate(y, state)


def _mixed(average: Array, iterate: Array, share: Array) -> Array:
    part = share.astype(average.dtype)
    return jnp.where(part < 1, average + part * (iterate - average), iterate)
