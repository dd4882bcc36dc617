"""The compiled program of a population: many members, block by block, on every device.

One program trains any number of survivors: the host says by `order` and `blocks` which members are still to run,
so that members that stop leave no gap and ask for no new compilation.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmlp import training
from jaxmlp._engine.plan import Layout
from jaxmlp._engine.stops import Rules
from jaxmlp.data import Rows, pick, take
from jaxmlp.metrics import Mean
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
    mean: Any  # Mean of the losses of an epoch that is under way: only a stream stops inside one


def mesh_of(layout: Layout) -> Mesh:
    """Return the mesh of the devices."""
    return Mesh(np.array(layout.devices), ("members",), axis_types=(AxisType.Auto,))


def put(layout: Layout, tree: Any, *, shared: bool = False) -> Any:
    """Place arrays on the devices: a copy on each, or a share of the leading axis."""
    return jax.device_put(tree, NamedSharding(mesh_of(layout), P() if shared else P("members")))


@partial(jax.jit, static_argnames=("layout", "keep_best", "batched"))
def begin(
    members: Member, shared: Any, recipe: Recipe, *, layout: Layout, keep_best: bool, batched: bool = False
) -> Run:
    """Return the runs of all members before their first epoch; of a stream, `shared` has a batch for the data."""

    def one(member: Member, shared: Any) -> Run:
        state = training.start(member.key, recipe, member.hyperparams)
        whole = recipe if not batched else dataclasses.replace(recipe, batch_size=None)
        _, record = jax.eval_shape(lambda s, m, d: _epoch(s, m, d, whole), state, member, shared)
        history = {name: jnp.full((recipe.epochs, *a.shape), jnp.nan, a.dtype) for name, a in record.items()}
        zero = jnp.zeros((), jnp.int32)
        best = Best(state.params, jnp.full((), jnp.inf, history["loss"].dtype), zero) if keep_best else None
        mean = training.no_steps(state, shared[0], recipe, member.hyperparams) if batched else None
        return Run(state, zero, zero, history, best, mean)

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
    rules: Rules,
    *,
    layout: Layout,
) -> Run:
    """Train epochs span[0] ... span[1] - 1 of the first `blocks` blocks, on each device, of members in `order`."""
    training.count_trace()

    def one(run: Run, member: Member, shared: Any, span: Array, rules: Rules) -> Run:
        def one_epoch(number: Array, run: Run) -> Run:
            state, record = _epoch(run.state, member, shared, recipe)
            return _observe(run, state, record, number, rules)

        return jax.lax.fori_loop(span[0], span[1], one_epoch, run)

    return _blocks(one, layout)(runs, members, shared, span, order, blocks, rules)


@partial(jax.jit, static_argnames=("layout",), donate_argnums=0)
def follow(
    runs: Run,
    members: Member,
    shared: Any,
    recipe: Recipe,
    span: Array,
    order: Array,
    blocks: Array,
    rules: Rules,
    *,
    layout: Layout,
) -> Run:
    """Take the first span[0] of a stack of batches, a step each; with span[1] they end epoch span[2].

    `shared` is (batches, validation), the batches with leading axes (steps, batch).
    """
    training.count_trace()

    def one(run: Run, member: Member, shared: Any, span: Array, rules: Rules) -> Run:
        batches, validation = shared

        def one_step(i: Array, carry: tuple[State, Mean, Array]) -> tuple[State, Mean, Array]:
            state, mean, first_bad = carry
            size = batches[2].shape[1]  # picked as `epoch` picks, so that the compiler rounds as it does there
            rows = i * size + jnp.arange(size, dtype=jnp.int32)
            x, y, _ = jax.tree.map(lambda a: pick(a.reshape(-1, *a.shape[2:]), rows), batches)
            state, metrics = training.step(state, (x, y, batches[2][i]), recipe, member.hyperparams)
            bad = jax.lax.select(_finite(metrics["loss"], state.params), first_bad, jnp.minimum(first_bad, i))
            return state, mean.add(metrics), bad

        start = run.state, run.mean, span[0]
        state, mean, first_bad = jax.lax.fori_loop(0, span[0], one_step, start)
        good = first_bad == span[0]
        # Choosing in each step would cost a copy of the state: a step gone bad is seen, and those before it redone.
        redone = jax.lax.fori_loop(0, jax.lax.select(good, jnp.zeros_like(first_bad), first_bad), one_step, start)
        state = training.where(good, state, redone[0])
        mean = jax.tree.map(lambda a, b: jax.lax.select(good, a, b), mean, redone[1])
        stood = run.status != RUNNING
        status = jax.lax.select(stood | good, run.status, jnp.full_like(run.status, DIVERGED))
        state = training.where(stood, run.state, state)
        run = run._replace(state=state, status=status, mean=mean)

        def close(run: Run) -> Run:
            record = training.observe(run.state, run.mean.loss, validation, recipe, member.hyperparams)
            closed = _observe(run, run.state, record, span[2], rules)
            return closed._replace(mean=jax.tree.map(jnp.zeros_like, run.mean))

        return jax.lax.cond(span[1] > 0, close, lambda run: run, run)

    return _blocks(one, layout)(runs, members, shared, span, order, blocks, rules)


def _blocks(one: Any, layout: Layout) -> Any:
    """Run `one` over the first blocks of members in `order`, on each device."""

    def on_device(runs: Run, members: Member, shared: Any, span: Array, order: Array, blocks: Array, rules: Any):
        def one_block(b: Array, runs: Run) -> Run:
            who = jax.lax.dynamic_slice_in_dim(order, b * layout.width, layout.width)
            mine, theirs = jax.tree.map(lambda a: a.at[who].get(mode="promise_in_bounds"), (runs, members))
            mine = _over(one, layout.width)(mine, theirs, shared, span, rules)
            return jax.tree.map(
                lambda a, new: a.at[who].set(new, mode="promise_in_bounds", unique_indices=True), runs, mine
            )

        return jax.lax.fori_loop(0, blocks[0], one_block, runs)

    own, all_ = P("members"), P()
    return _on_devices(on_device, layout, (own, own, all_, all_, own, own, all_))


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


def _finite(loss: Array, params: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in (loss, *jax.tree.leaves(params))]))


def _judge(run: Run, loss: Array, params: Any) -> tuple[Array, Array]:
    """Return whether the run takes this epoch, and its status: who just left the finite has diverged."""
    finite, runs = _finite(loss, params), run.status == RUNNING
    return runs & finite, jax.lax.select(runs & ~finite, jnp.full_like(run.status, DIVERGED), run.status)


def _observe(run: Run, state: State, record: dict[str, Array], number: Array, rules: Rules) -> Run:
    """Return the run after an epoch: a member that stands still, or just left the finite, keeps its state."""
    goes, status = _judge(run, record["loss"], state.params)
    # A branch and not a choice: that would be fused into the update of a run without batches, and round it otherwise.
    state = jax.lax.cond(goes, lambda: state, lambda: run.state)
    history = {
        name: run.history[name].at[number].set(jax.lax.select(goes, value, run.history[name][number]))
        for name, value in record.items()
    }
    stops = jnp.zeros((), bool)
    best = run.best
    if best is not None and rules.patience is not None:
        loss = record["validation_loss"].astype(best.loss.dtype)
        better = goes & (loss < best.loss - rules.patience.min_improvement)
        new = Best(state.params, loss, number.astype(jnp.int32))
        best = jax.tree.map(lambda a, b: jax.lax.select(better, a, b), new, best)
        stops |= number - best.epoch >= rules.patience.epochs
    for name, bound in rules.targets.items():
        stops |= record[name] >= bound.at_least if bound.at_most is None else record[name] <= bound.at_most
    status = jax.lax.select(goes & stops, jnp.full_like(status, STOPPED), status)
    return run._replace(
        state=state, status=status, epochs=run.epochs + goes.astype(jnp.int32), history=history, best=best
    )
