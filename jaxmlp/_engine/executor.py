"""The host's side of members that train together: who sits where on the devices, and who still goes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp._engine.plan import Layout
from jaxmlp._engine.program import RUNNING, STOPPED, Member, Run, advance, begin, follow, put
from jaxmlp._engine.stops import Rules
from jaxmlp.recipe import Recipe


class Cohort:
    """Members that are in memory at once. They are dealt to the devices in turn, so that stops spread evenly."""

    def __init__(
        self,
        members: Member,
        shared: Any,
        recipe: Recipe,
        rules: Rules,
        layout: Layout,
        slots: int,
        *,
        batch: Any = None,
        restore: Callable[[Run], Run] | None = None,
    ):
        """Seat the members before their first epoch, or as they are restored to the form of the runs.

        A stream shows one `batch` of what will come.
        """
        self.recipe, self.rules, self.layout = recipe, rules, layout
        self.shared = put(layout, shared, shared=True)
        count, devices = len(members.key), len(layout.devices)
        turn = np.arange(count)
        self.seats = turn % devices * slots + turn // devices
        sitter = np.zeros(devices * slots, int)  # an empty seat holds a copy of the first that is never trained
        sitter[self.seats] = turn
        self.members = put(layout, jax.tree.map(lambda a: a[sitter], members))
        first = self.shared if batch is None else (put(layout, batch, shared=True), self.shared[1])
        starting = partial(begin, layout=layout, keep_best=rules.patience is not None, batched=batch is not None)
        if restore is None:
            self.runs = starting(self.members, first, recipe)
        else:
            runs = restore(jax.eval_shape(starting, self.members, first, recipe))
            self.runs = put(layout, jax.tree.map(lambda a: a[sitter], runs))
        self._going = np.zeros((devices, slots), bool)
        self._places: Any = None
        self._seat_going()

    def advance(self, done: int, end: int) -> None:
        """Train the epochs done ... end - 1 of those who go on."""
        self._run(advance, self.shared, (done, end))

    def follow(self, batches: Any, count: int, *, ends: bool, epoch: int) -> None:
        """Take `count` steps of a stack of batches; where it `ends`, they close that epoch."""
        shared = (put(self.layout, batches, shared=True), self.shared[1])
        self._run(follow, shared, (count, ends, epoch))

    def _run(self, program: Any, shared: Any, span: tuple[int, ...]) -> None:
        args = (self.members, shared, self.recipe, np.array(span, np.int32), *self._places, self.rules)
        self.runs = program(self.runs, *args, layout=self.layout)

    def look(self) -> np.ndarray:
        """Wait for the devices and return the status of each member; those who stopped leave their place to others."""
        status = self._seat_going()
        return status[self.seats]

    def _seat_going(self) -> np.ndarray:
        status = np.array(self.runs.status)
        going = np.zeros_like(self._going)
        going.ravel()[self.seats] = status[self.seats] == RUNNING
        if self._places is None or (going != self._going).any():
            # On each device, those who go on come first, and only as many blocks as they fill are run.
            order = np.argsort(~going, axis=1, kind="stable").astype(np.int32).ravel()
            blocks = -(-going.sum(1) // self.layout.width).astype(np.int32)
            self._going, self._places = going, put(self.layout, (order, blocks))
        return status

    def stop(self, losers: Any) -> None:
        """Leave these members out from now on."""
        status = np.array(self.runs.status)
        status[self.seats[losers]] = STOPPED
        self.runs = self.runs._replace(status=put(self.layout, status))
        self._seat_going()

    @property
    def goes_on(self) -> bool:
        """Whether anyone is still to be trained."""
        return bool(self._going.any())

    def history(self) -> dict[str, np.ndarray]:
        """Return the history so far, (members, epochs)."""
        return {name: np.asarray(values)[self.seats] for name, values in self.runs.history.items()}

    def runs_in_order(self) -> Run:
        """Return a copy of the runs on the host, in the order of the members, keys as their data."""
        return jax.tree.map(lambda a: np.asarray(a)[self.seats], without_keys(self.runs))

    def bring_home(self, leaf: Array, values: np.ndarray, first: int) -> None:
        """Write a leaf of the runs to `values`, from member `first` on, and free the seats."""
        mine = values[first : first + len(self.seats)]
        for shard in leaf.addressable_shards:  # on a CPU a shard is read in place, the whole would be a copy
            low, high, _ = shard.index[0].indices(len(leaf))
            here = (low <= self.seats) & (self.seats < high)
            mine[here] = np.asarray(shard.data)[self.seats[here] - low]
        leaf.delete()


def without_keys(tree: Any) -> Any:
    """Return the tree with typed keys as the integers behind them, which NumPy and files can hold."""
    return jax.tree.map(lambda a: jax.random.key_data(a) if is_key(a) else a, tree)


def with_keys(tree: Any, like: Any) -> Any:
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


def is_key(leaf: Any) -> bool:
    """Tell whether a leaf holds typed keys."""
    return jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
