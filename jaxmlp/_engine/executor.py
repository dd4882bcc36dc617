"""The host's side of the members that are in memory at once: which device slot each has, and who still runs."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp._engine.hosts import Hosts, fetch, hosts_of
from jaxmlp._engine.inputs import Member, Tables
from jaxmlp._engine.lie import in_order, put
from jaxmlp._engine.plan import EVERYWHERE, FIRST, SHARDED, Layout
from jaxmlp._engine.program import begin, train_batches, train_epochs
from jaxmlp._engine.runs import BatchSpan, Best, EpochSpan, Order, Run, Work
from jaxmlp._engine.stops import Stops
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import Data, History, Json, Numeric, PyTree, Status

Restore = Callable[[Run], Run]


class Job(NamedTuple):
    """What is to be trained at once."""

    members: Member
    tables: Tables
    recipe: Recipe
    stops: Stops
    batch: Data | None = None  # of a stream, an example of its batches
    program: Json | None = None  # digests of what it computes, where it is saved or several processes compare it


class Executor:
    """Members in their device slots. They are dealt to the devices in turn, so that stops spread evenly.

    Arrays on the devices have a leading axis of slots; `slots[i]` is that of member i. Whatever leaves the executor is
    in the order of the members.
    """

    def __init__(self, job: Job, layout: Layout, slots: int, restore: Restore | None = None, team: Hosts | None = None):
        """Place the members before their first epoch, or as `restore` has them, given the form of the runs.

        Args:
          job: the members, and what they train on.
          layout: devices, and how many members are trained at a time on each.
          slots: places on each device.
          restore: gives saved runs in the order of the members.
          team: the processes that run it together; those of the devices unless given.
        """
        self.job, self.layout, self.hosts = job, layout, hosts_of(layout.devices)
        self.team = self.hosts if team is None else team
        count, devices = len(job.members.key), layout.lanes
        number = np.arange(count)
        self.slots = number % devices * slots + number // devices
        occupant = np.zeros(devices * slots, int)  # an empty slot holds a copy of member 0 that is never trained
        occupant[self.slots] = number
        tables = put(layout, job.tables, shared=True)
        members = put(layout, jax.tree.map(lambda a: _take(a, occupant), job.members))
        self._work = Work(members, tables, job.stops.in_program)
        first = self._work if job.batch is None else self._with_batches(job.batch)
        starting = partial(begin, layout=layout, batched=job.batch is not None)
        if restore is None:
            self.runs = starting(first, job.recipe)
        else:
            runs = restore(jax.eval_shape(starting, first, job.recipe))
            runs = runs._replace(history=_filled(runs.history, runs.epochs, 0))
            self.runs = put(layout, jax.tree.map(lambda a: _take(a, occupant), runs))
        self._work = self._work._replace(members=members._replace(params=None))  # they have begun
        self._running = np.zeros((devices, slots), bool)
        self._order = self._ordered(self._running)
        self.status()

    @property
    def count(self) -> int:
        """How many members there are."""
        return len(self.slots)

    @property
    def anyone_runs(self) -> bool:
        """Whether a member is still to be trained, as of the last call of `status`."""
        return bool(self._running.any())

    def train_epochs(self, first: int, last: int) -> None:
        """Train the epochs first ... last - 1 of the members that run."""
        span = EpochSpan(np.int32(first), np.int32(last))
        self.runs = train_epochs(self.runs, self._work, self.job.recipe, span, self._order, layout=self.layout)

    def train_batches(self, batches: Data, count: int, *, closes: bool, epoch: int) -> None:
        """Take a step for each of the first `count` of a stack of batches; with `closes` they end the epoch."""
        span = BatchSpan(np.int32(count), np.int32(closes), np.int32(epoch))
        work = self._with_batches(batches)
        self.runs = train_batches(self.runs, work, self.job.recipe, span, self._order, layout=self.layout)

    def _with_batches(self, batches: Data) -> Work:
        placed = put(self.layout, batches, shared=True)
        return self._work._replace(tables=self._work.tables._replace(data=placed))

    def status(self) -> np.ndarray:
        """Wait for the devices and return the status of each member; those who stopped make room for the others."""
        status = np.array(fetch(self.runs.status))
        running = np.zeros_like(self._running)
        running.ravel()[self.slots] = status[self.slots] == Status.RUNNING
        if (running != self._running).any():
            self._running, self._order = running, self._ordered(running)
        return status[self.slots]

    def _ordered(self, running: np.ndarray) -> Order:
        # On each device the slots whose members run come first, and only as many blocks as they fill are trained.
        slots = np.argsort(~running, axis=1, kind="stable").astype(np.int32).ravel()
        blocks = -(-running.sum(1) // self.layout.width).astype(np.int32)
        return put(self.layout, Order(slots, blocks))

    def stop(self, losers: np.ndarray) -> np.ndarray:
        """Stop these members from now on and return the status of each member."""
        status = np.array(fetch(self.runs.status))
        status[self.slots[losers]] = Status.STOPPED
        self.runs = self.runs._replace(status=put(self.layout, status))
        return self.status()

    def history(self) -> dict[str, np.ndarray]:
        """Return the history so far, (members, epochs)."""
        history, epochs = fetch((self.runs.history, self.runs.epochs))
        history = {name: np.asarray(values)[self.slots] for name, values in history.items()}
        return _filled(history, np.asarray(epochs)[self.slots], np.nan)

    def state(self, member: int | None = None) -> State:
        """Return a copy of the members' states, or of one's, that stays when training goes on."""
        which = self.slots if member is None else self.slots[member]
        return jax.tree.map(lambda a: jnp.copy(a[which]), fetch(self.runs.state))

    def progress(self) -> dict[str, np.ndarray]:
        """Return how many epochs each member was trained for and, with patience, the epoch of its best weights."""
        best = None if self.runs.best is None else fetch(self.runs.best._replace(params=None))
        epochs = np.asarray(fetch(self.runs.epochs))
        told = {"epochs": epochs[self.slots]}
        if best is not None:
            told["best_epoch"] = np.where(_never(epochs, best), epochs - 1, np.asarray(best.epoch))[self.slots]
        return told

    def runs_so_far(self) -> Run:
        """Return a copy of the runs in the order of the members."""
        runs = jax.tree.map(lambda a: jnp.asarray(a)[self.slots], fetch(self.runs))
        return runs._replace(history=jax.tree.map(jnp.asarray, self.history()))

    def saved_runs(self) -> Run:
        """Return a copy of the runs on the host, keys as the integers behind them."""
        runs = jax.tree.map(lambda a: np.asarray(a)[self.slots], fetch(without_keys(self.runs)))
        return runs._replace(history=_filled(runs.history, runs.epochs, np.nan))

    def results(self, to: Callable[[np.ndarray], Numeric] = jax.device_put, place: str = EVERYWHERE) -> Run:
        """Return the runs, keys as the integers behind them, each array brought `to` its place; nothing can follow.

        Array by array, and each is freed before the next is read, so that the results do not need their room twice.
        Of several processes each gets them all, or the first alone; or the states stay where they are trained.
        """
        runs, large, first = without_keys(self.runs), None, place == FIRST
        del self.runs
        self.hosts.ready(runs)  # once for all arrays
        if place == SHARDED:
            large = in_order((runs.state, runs.best and runs.best.params), layout=self.layout, count=self.count)
            runs = runs._replace(state=None, best=runs.best and runs.best._replace(params=None))
        epochs = np.asarray(fetch(runs.epochs, ready=True))[self.slots][: None if self.hosts.leads or not first else 0]
        history = {
            name: to(_filled({name: self._collect(leaf, first)}, epochs, np.nan)[name])
            for name, leaf in runs.history.items()
        }
        leaves, structure = jax.tree.flatten(runs._replace(history={}))
        brought = jax.tree.unflatten(structure, [to(self._collect(leaf, first)) for leaf in leaves])
        if large is not None:
            brought = brought._replace(state=large[0], best=brought.best and brought.best._replace(params=large[1]))
        return brought._replace(history=history)

    def _collect(self, leaf: Array, first: bool) -> np.ndarray:
        if self.hosts.many:
            values = fetch(leaf, ready=True)
            leaf.delete()
            return values[self.slots] if self.hosts.leads or not first else values[:0]
        values = np.empty((self.count, *leaf.shape[1:]), leaf.dtype)
        for shard in leaf.addressable_shards:  # on a CPU a shard is read in place, the whole would be a copy
            low, high, _ = shard.index[0].indices(len(leaf))
            here = (low <= self.slots) & (self.slots < high)
            values[here] = np.asarray(shard.data)[self.slots[here] - low]
        leaf.delete()
        return values


def outcome(run: Run) -> tuple[State, History]:
    """Return the states of the members, with patience those of their best epochs, and their history.

    A member whose figure was NaN at each epoch has no best one: it has its last state, and a warning says so.
    """
    history = History({**run.history, "status": run.status, "epochs": run.epochs})
    if run.best is None:
        return run.state, history
    params, epoch, never = run.best.params, run.best.epoch, _never(run.epochs, run.best)
    if never.any():
        who = str(np.flatnonzero(never)[:8].tolist()).strip("[]")
        warnings.warn(
            f"patience must watch a figure that is a number at some epoch; it was at none for {never.sum()} of "
            f"{len(never)} members, {who}, which have the parameters of their last epoch",
            stacklevel=_check.level_of_caller(),
        )
        xp = np if isinstance(epoch, np.ndarray) else jnp
        params = jax.tree.map(
            lambda a, b: xp.where(never.reshape(-1, *[1] * (a.ndim - 1)), a, b), run.state.params, params
        )
        epoch = xp.where(never, run.epochs - 1, epoch)
    return run.state._replace(params=params), History({**history, "best_epoch": epoch})


def _never(epochs: Any, best: Best) -> np.ndarray:
    """Tell who was trained for an epoch and had no figure to keep weights by."""
    return (np.asarray(epochs) > 0) & np.isposinf(np.asarray(best.loss, np.float64))


def _filled(history: Mapping[str, Any], epochs: Any, value: float) -> dict[str, np.ndarray]:
    """Return the history (members, epochs) with `value` where a member did not come to."""
    filled = {}
    for name, values in history.items():
        values = np.asarray(values)
        after = np.arange(values.shape[1]) >= np.asarray(epochs)[:, None]
        if after.any() and jnp.issubdtype(values.dtype, jnp.floating):
            values = values.copy() if not values.flags.writeable else values
            values[after] = value
        filled[name] = values
    return filled


def _take(array: Numeric, places: np.ndarray) -> Numeric:
    """Return array[places]; on the host for NumPy arrays, without a program to compile."""
    return array if len(array) == len(places) and (places == np.arange(len(places))).all() else array[places]


def without_keys(tree: PyTree) -> PyTree:
    """Return the tree with typed keys as the integers behind them, which NumPy and files can hold."""
    return jax.tree.map(lambda a: jax.random.key_data(a) if is_key(a) else a, tree)


def with_keys(tree: PyTree, like: PyTree) -> PyTree:
    """Return the tree with the keys that `like` has, undoing `without_keys`."""
    return jax.tree.map(
        lambda a, b: (
            jax.random.wrap_key_data(jnp.asarray(a), impl=jax.random.key_impl(jnp.empty(0, b.dtype)))
            if is_key(b)
            else a
        ),
        tree,
        like,
    )


def is_key(leaf: object) -> bool:
    """Tell whether a leaf holds typed keys."""
    return jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
