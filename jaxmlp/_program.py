"""The compiled program of a population: many members, block by block, on every device.

One program trains any number of survivors: the host says by `order` and `blocks` which members are still to run,
so that members that stop leave no gap and ask for no new compilation.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmlp import training
from jaxmlp.data import Rows, take
from jaxmlp.planning import Layout
from jaxmlp.recipe import Recipe
from jaxmlp.training import State

RUNNING, STOPPED, DIVERGED = 0, 1, 2  # who runs to the end stays 0: finished


class Member(NamedTuple):
    """What is one member's own; None where it is shared by all."""

    key: Array
    hyperparams: dict[str, Any]
    data: Any  # (x, y) or (x, y, weight)
    validation: Any
    weight: Any  # (N,)
    rows: Rows | None
    validation_rows: Rows | None


class Best(NamedTuple):
    """The best weights so far, by validation loss."""

    params: Any
    loss: Array  # ()
    epoch: Array  # ()


class Run(NamedTuple):
    """Where a member stands."""

    state: State
    status: Array  # () int32
    epochs: Array  # () int32, epochs done
    history: dict[str, Array]  # (epochs,) each, NaN where the member did not come to
    best: Best | None


class Patience(NamedTuple):
    """Stop a member whose validation loss did not fall by `minimum` for `epochs` epochs."""

    epochs: Any
    minimum: Any


def mesh_of(layout: Layout) -> Mesh:
    """Return the mesh of the devices."""
    return Mesh(np.array(layout.devices), ("members",), axis_types=(AxisType.Auto,))


def put(layout: Layout, tree: Any, *, shared: bool = False) -> Any:
    """Place arrays on the devices: a copy on each, or a share of the leading axis."""
    return jax.device_put(tree, NamedSharding(mesh_of(layout), P() if shared else P("members")))


@partial(jax.jit, static_argnames=("layout", "keep_best"))
def begin(members: Member, shared: Any, recipe: Recipe, *, layout: Layout, keep_best: bool) -> Run:
    """Return the runs of all members before their first epoch."""

    def one(member: Member, shared: Any) -> Run:
        state = training.start(member.key, recipe, member.hyperparams)
        _, record = jax.eval_shape(lambda s, m, d: _epoch(s, m, d, recipe), state, member, shared)
        history = {name: jnp.full((recipe.epochs, *a.shape), jnp.nan, a.dtype) for name, a in record.items()}
        zero = jnp.zeros((), jnp.int32)
        best = Best(state.params, jnp.full((), jnp.inf, history["loss"].dtype), zero) if keep_best else None
        return Run(state, zero, zero, history, best)

    def on_device(members: Member, shared: Any) -> Run:
        blocks = jax.tree.map(lambda a: a.reshape(-1, layout.width, *a.shape[1:]), members)
        runs = jax.lax.map(lambda block: _over(one, layout.width)(block, shared), blocks)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), runs)

    return _on_devices(on_device, layout, (P("members"), P()))(members, shared)


@partial(jax.jit, static_argnames=("layout",), donate_argnums=0)
def advance(
    runs: Run,
    members: Member,
    shared: Any,
    recipe: Recipe,
    span: Array,
    order: Array,
    blocks: Array,
    patience: Patience | None,
    *,
    layout: Layout,
) -> Run:
    """Train epochs span[0] ... span[1] - 1 of the first `blocks` blocks, on each device, of members in `order`."""
    training.count_trace()

    def one(run: Run, member: Member, shared: Any, span: Array, patience: Patience | None) -> Run:
        def one_epoch(number: Array, run: Run) -> Run:
            state, record = _epoch(run.state, member, shared, recipe)
            return _observe(run, state, record, number, patience)

        return jax.lax.fori_loop(span[0], span[1], one_epoch, run)

    def on_device(runs: Run, members: Member, shared: Any, span: Array, order: Array, blocks: Array, patience: Any):
        def one_block(b: Array, runs: Run) -> Run:
            who = jax.lax.dynamic_slice_in_dim(order, b * layout.width, layout.width)
            mine, theirs = jax.tree.map(lambda a: a.at[who].get(mode="promise_in_bounds"), (runs, members))
            mine = _over(one, layout.width)(mine, theirs, shared, span, patience)
            return jax.tree.map(
                lambda a, new: a.at[who].set(new, mode="promise_in_bounds", unique_indices=True), runs, mine
            )

        return jax.lax.fori_loop(0, blocks[0], one_block, runs)

    own, all_ = P("members"), P()
    specs = (own, own, all_, all_, own, own, all_)
    return _on_devices(on_device, layout, specs)(runs, members, shared, span, order, blocks, patience)


def _on_devices(function: Any, layout: Layout, specs: Any) -> Any:
    return jax.shard_map(function, mesh=mesh_of(layout), in_specs=specs, out_specs=P("members"), check_vma=False)


def _over(function: Any, width: int) -> Any:
    """Map over the leading axis of Run and Member; a block of one runs as a network alone does, bit for bit."""

    def alone(*args: Any) -> Any:
        own = [jax.tree.map(lambda a: a[0], a) if isinstance(a, Run | Member) else a for a in args]
        return jax.tree.map(lambda a: a[None], function(*own))

    def together(*args: Any) -> Any:
        return jax.vmap(function, [0 if isinstance(a, Run | Member) else None for a in args])(*args)

    return alone if width == 1 else together


def _epoch(state: State, member: Member, shared: Any, recipe: Recipe) -> tuple[State, dict[str, Array]]:
    data = member.data if shared[0] is None else shared[0]
    validation = member.validation if shared[1] is None else shared[1]
    if member.weight is not None:
        x, y, weight = (*data, None)[:3]
        data = x, y, member.weight if weight is None else member.weight * weight
    if member.validation_rows is not None:
        validation = take(validation, member.validation_rows)
    return training.observed_epoch(state, data, recipe, member.hyperparams, validation, member.rows)


def _observe(run: Run, state: State, record: dict[str, Array], number: Array, patience: Patience | None) -> Run:
    """Return the run after an epoch: a member that stands still, or just left the finite, keeps its state."""
    leaves = [record["loss"], *jax.tree.leaves(state.params)]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in leaves]))
    runs = run.status == RUNNING
    goes = runs & finite
    status = jax.lax.select(runs & ~finite, jnp.full_like(run.status, DIVERGED), run.status)
    state = training.where(goes, state, run.state)
    history = {
        name: run.history[name].at[number].set(jax.lax.select(goes, value, run.history[name][number]))
        for name, value in record.items()
    }
    best = run.best
    if best is not None and patience is not None:
        loss = record["validation_loss"].astype(best.loss.dtype)
        better = goes & (loss < best.loss - patience.minimum)
        new = Best(state.params, loss, number.astype(jnp.int32))
        best = jax.tree.map(lambda a, b: jax.lax.select(better, a, b), new, best)
        late = goes & (number - best.epoch >= patience.epochs)
        status = jax.lax.select(late, jnp.full_like(status, STOPPED), status)
    return Run(state, status, run.epochs + goes.astype(jnp.int32), history, best)
