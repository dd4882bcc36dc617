"""The compiled program of a population: many members, block by block, on every device.

One program trains any number of members: the host says by an `Order` which of them still run, so that members that stop
leave no gap and ask for no new compilation.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec as P

from jaxmlp import _compile, training
from jaxmlp._engine import lie
from jaxmlp._engine.inputs import Member, Tables
from jaxmlp._engine.plan import Layout
from jaxmlp._engine.runs import BatchSpan, Best, EpochSpan, Order, Run, Work, with_key
from jaxmlp._engine.stops import Stops
from jaxmlp._weights import scaled
from jaxmlp.data import pick, take
from jaxmlp.metrics import Mean
from jaxmlp.recipe import Bound, Recipe
from jaxmlp.training import State
from jaxmlp.types import Params, PyTree, Status

RUNNING, STOPPED, DIVERGED = (int(status) for status in (Status.RUNNING, Status.STOPPED, Status.DIVERGED))


@_compile.jit(quick=True, static_argnames=("layout", "batched"))
def begin(work: Work, recipe: Recipe, *, layout: Layout, batched: bool = False) -> Run:
    """Return the runs of all members before their first epoch; of a stream, the tables hold one batch for the data."""

    def one(member: Member, work: Work) -> Run:
        bound = _bound(recipe, member, work.tables, layout)
        state = training.start(member.key, bound, params=member.params)
        whole = bound._replace(recipe=dataclasses.replace(recipe, batch_size=None)) if batched else bound
        _, record = jax.eval_shape(lambda s, m, t: _epoch(s, m, t, whole), state, member, work.tables)
        # Zeros and not NaN, which `jax_debug_nans` would take for an error.
        history = {name: jnp.zeros((recipe.epochs, *a.shape), a.dtype) for name, a in record.items()}
        zero = jnp.zeros((), jnp.int32)
        best = None
        if work.stops.patience is not None:
            figure = work.stops.patience.figure
            work.stops.check_names(record, {})  # here for patience, whose column tells a dtype
            infinite = jnp.full((), jnp.inf, jax.eval_shape(figure.less, record[figure.name]).dtype)
            best = Best(state.params, infinite, zero, infinite, zero)
        mean = training.empty_mean(state, work.tables.data, bound) if batched else None
        return Run(state, zero, zero, history, best, mean)

    if layout.placement.mesh is not None:
        return _alone(one, layout)(work.members, work._replace(members=None))

    def on_device(members: Member, work: Work) -> Run:
        blocks = jax.tree.map(lambda a: a.reshape(-1, layout.width, *a.shape[1:]), members)
        runs = jax.lax.map(lambda block: _over(one, layout.width)(block, work), blocks)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), runs)

    return _on_devices(on_device, layout, (P("members"), P()))(work.members, work._replace(members=None))


@_compile.jit(static_argnames=("layout",), donate_argnums=0)
def train_epochs(runs: Run, work: Work, recipe: Recipe, span: EpochSpan, order: Order, *, layout: Layout) -> Run:
    """Train some epochs of the members that `order` names."""
    _compile.count_trace()

    def one(run: Run, member: Member, work: Work, span: EpochSpan) -> Run:
        bound = _bound(recipe, member, work.tables, layout)

        def one_epoch(number: Array, run: Run) -> Run:
            state, record = _epoch(run.state, member, work.tables, bound)
            return _observe(run, state, record, number, work.stops)

        return jax.lax.fori_loop(span.first, span.last, one_epoch, run)

    return _blocks(one, layout)(runs, work.members, work._replace(members=None), span, order)


@_compile.jit(static_argnames=("layout",), donate_argnums=0)
def train_batches(runs: Run, work: Work, recipe: Recipe, span: BatchSpan, order: Order, *, layout: Layout) -> Run:
    """Take a step for each batch of a stack: the data of `work` are batches, with leading axes (steps, batch)."""
    _compile.count_trace()

    def one(run: Run, member: Member, work: Work, span: BatchSpan) -> Run:
        batches, validation, _ = work.tables
        bound = _bound(recipe, member, work.tables, layout)

        def one_step(i: Array, carry: tuple[State, Mean, Array]) -> tuple[State, Mean, Array]:
            state, mean, first_bad = carry
            size = batches[2].shape[1]  # picked as `epoch` picks, so that the compiler rounds as it does there
            rows = i * size + jnp.arange(size, dtype=jnp.int32)
            if layout.placement.mesh is None:
                x, y, _ = jax.tree.map(lambda a: pick(a.reshape(-1, *a.shape[2:]), rows), batches)
            else:  # where the rows of each lie on devices of their own
                x, y, _ = jax.tree.map(lambda a: a[i], batches)
            state, metrics = training.step(state, (x, y, batches[2][i]), bound)
            bad = jax.lax.select(_finite(metrics["loss"], state.params), first_bad, jnp.minimum(first_bad, i))
            return state, mean.add(metrics), bad

        start = run.state, run.mean, span.count
        state, mean, first_bad = jax.lax.fori_loop(0, span.count, one_step, start)
        good = first_bad == span.count
        # To keep the state before a bad step, every step would have to copy it. Instead the stack is run through; if a
        # step made a NaN or an infinity, the steps before it are run again from the stack's start.
        redone = jax.lax.fori_loop(0, jax.lax.select(good, jnp.zeros_like(first_bad), first_bad), one_step, start)
        state = training.where(good, state, redone[0])
        mean = jax.tree.map(lambda a, b: jax.lax.select(good, a, b), mean, redone[1])
        stood = run.status != RUNNING
        status = jax.lax.select(stood | good, run.status, jnp.full_like(run.status, DIVERGED))
        state = training.where(stood, run.state, state)
        run = run._replace(state=state, status=status, mean=mean)

        def close(run: Run) -> Run:
            record = training.observe(run.state, run.mean.values, validation, bound)
            closed = _observe(run, run.state, record, span.epoch, work.stops)
            return closed._replace(mean=jax.tree.map(jnp.zeros_like, run.mean))

        return jax.lax.cond(span.closes > 0, close, lambda run: run, run)

    return _blocks(one, layout)(runs, work.members, work._replace(members=None), span, order)


def _blocks(one: Callable[..., Run], layout: Layout) -> Callable[..., Run]:
    """Run `one` over the first blocks of the members in order, on each device."""
    if layout.placement.mesh is not None:
        return lambda runs, members, work, span, _: _alone(one, layout)(runs, members, work, span)

    def on_device(runs: Run, members: Member, work: Work, span: EpochSpan | BatchSpan, order: Order) -> Run:
        def one_block(b: Array, runs: Run) -> Run:
            who = jax.lax.dynamic_slice_in_dim(order.slots, b * layout.width, layout.width)
            mine, theirs = jax.tree.map(lambda a: a.at[who].get(mode="promise_in_bounds"), (runs, members))
            # Where a device has one block alone, XLA sees that `who` are all and fuses what was gathered into the step,
            # which then rounds otherwise: a member's bits must not depend on how many there are.
            own = jax.lax.optimization_barrier((jax.random.key_data(theirs.key), theirs.numbers, theirs.steps))
            theirs = theirs._replace(key=jax.random.wrap_key_data(own[0], impl=impl), numbers=own[1], steps=own[2])
            mine = with_key(mine, jax.random.wrap_key_data(mine.state.key, impl=impl))
            mine = _over(one, layout.width)(mine, theirs, work, span)
            mine = with_key(mine, jax.random.key_data(mine.state.key))
            return jax.tree.map(
                lambda a, new: a.at[who].set(new, mode="promise_in_bounds", unique_indices=True), runs, mine
            )

        # Keys go round as integers: to `jax_debug_key_reuse`, a key that is put back where it was is used again.
        impl = jax.random.key_impl(runs.state.key)
        words = with_key(runs, jax.random.key_data(runs.state.key))
        runs = jax.lax.fori_loop(0, order.blocks[0], one_block, words)
        return with_key(runs, jax.random.wrap_key_data(runs.state.key, impl=impl))

    own, all_ = P("members"), P()
    return _on_devices(on_device, layout, (own, own, all_, all_, own))


def _alone(one: Callable[..., Run], layout: Layout) -> Callable[..., Run]:
    """Run `one` over the one network of a mesh, all of whose devices compute each of its operations."""
    return lambda *args: lie.settled(_over(one, 1)(*args), layout.placement)


def _on_devices(function: Callable[..., Run], layout: Layout, specs: PyTree) -> Callable[..., Run]:
    if (
        len(layout.devices) == 1
    ):  # nothing is shared out, and a caller's mesh, or a solver in the loss, may stand around
        return function
    return jax.shard_map(function, mesh=lie.mesh_of(layout), in_specs=specs, out_specs=P("members"), check_vma=False)


def _over(function: Callable[..., Run], width: int) -> Callable[..., Run]:
    """Map over the leading axis of Run and Member; a block of one runs as a network alone does, bit for bit."""

    def alone(*args: PyTree) -> Run:
        own = [jax.tree.map(lambda a: a[0], a) if isinstance(a, Run | Member) else a for a in args]
        return jax.tree.map(lambda a: a[None], function(*own))

    def together(*args: PyTree) -> Run:
        return jax.vmap(function, [0 if isinstance(a, Run | Member) else None for a in args])(*args)

    return alone if width == 1 else together


def _bound(recipe: Recipe, member: Member, tables: Tables, layout: Layout) -> Bound:
    return Bound(recipe, member.numbers.joined(tables.numbers), member.steps, layout.placement)


def _epoch(state: State, member: Member, tables: Tables, bound: Bound) -> tuple[State, dict[str, Array]]:
    data = member.data if tables.data is None else tables.data
    validation = member.validation if tables.validation is None else tables.validation
    if member.weight is not None:
        x, y, weight = (*data, None)[:3]
        # Each near one: a product of extreme ones overflows or vanishes.
        data = (
            x,
            y,
            member.weight if weight is None else scaled(jnp.asarray(member.weight))[0] * scaled(jnp.asarray(weight))[0],
        )
    if member.validation_rows is not None:
        validation = take(validation, member.validation_rows)
    return training.observed_epoch(state, data, bound, validation, member.rows)


def _finite(loss: Array, params: Params) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in (loss, *jax.tree.leaves(params))]))


def _judge(run: Run, loss: Array, params: Params) -> tuple[Array, Array]:
    """Return whether the run takes this epoch, and its status: a member whose numbers are not finite has diverged."""
    finite, runs = _finite(loss, params), run.status == RUNNING
    return runs & finite, jax.lax.select(runs & ~finite, jnp.full_like(run.status, DIVERGED), run.status)


def _observe(run: Run, state: State, record: dict[str, Array], number: Array, stops: Stops) -> Run:
    """Return the run after an epoch: a member that has stopped, or just diverged, keeps its state from before."""
    goes, status = _judge(run, record["loss"], state.params)
    # A `cond` and not a `select`: XLA would fuse a select into the optimizer's update, which then rounds differently
    # from the same update in `fit`. The branch keeps the member's bits those of its solo run.
    state = jax.lax.cond(goes, lambda: state._replace(key=None), lambda: run.state._replace(key=None))
    history = {
        name: run.history[name].at[number].set(jax.lax.select(goes, value, run.history[name][number]))
        for name, value in record.items()
    }
    ends = jnp.zeros((), bool)
    best = run.best
    if best is not None and stops.patience is not None:
        figure = stops.patience.figure
        loss, epoch = figure.less(record[figure.name]).astype(best.loss.dtype), number.astype(jnp.int32)
        better, enough = goes & (loss < best.loss), goes & (loss < best.mark - stops.patience.min_improvement)
        new = Best(state.params, loss, epoch, loss, epoch)
        taken = zip((better, better, better, enough, enough), new, best, strict=True)
        best = Best(*(jax.tree.map(partial(jax.lax.select, take), a, b) for take, a, b in taken))
        ends |= number - best.since >= stops.patience.epochs
    for name, limit in stops.targets.items():
        ends |= record[name] >= limit.at_least if limit.at_most is None else record[name] <= limit.at_most
    status = jax.lax.select(goes & ends, jnp.full_like(status, STOPPED), status)
    return run._replace(
        state=state._replace(key=run.state.key),
        status=status,
        epochs=run.epochs + goes.astype(jnp.int32),
        history=history,
        best=best,
    )
