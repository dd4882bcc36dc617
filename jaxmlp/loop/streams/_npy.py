"""Tables in mapped .npy files, larger than memory: shuffled rows by number, and no more pages than needed."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check, _compile
from jaxmlp._order import MOST_ROWS
from jaxmlp.data import shuffle, steps_per_epoch
from jaxmlp.loop._digest import of_data
from jaxmlp.loop._mapped import MappedFile
from jaxmlp.loop.streams._folder import Shard, Table
from jaxmlp.loop.streams._leaves import fill, narrow
from jaxmlp.loop.streams._stacks import Batch, Position, Stack, aligned, stack_size
from jaxmlp.types import Json

# Files that are small together are read into memory whole, which takes their rows fastest; of the others each row is
# read into its place when it is wanted. No map is touched: whoever cuts a mapped file short kills who touches it.
MAPPED_BYTES = 2**28


class Files:
    """The rows of mapped files, each once an epoch, in the order of `data.epoch_order`, so as `fit` would take them."""

    def __init__(self, table: Table, key: Array, batch_size: int | None):
        shards = [_same_form(shard, table.shards[0], i) for i, shard in enumerate(table.shards)]
        self.first = np.cumsum([0, *(len(jax.tree.leaves(shard)[0]) for shard in shards)])
        n = int(self.first[-1])
        if n > MOST_ROWS:
            raise ValueError(f"data must have at most 2^31 rows; got {n}; train on a part, or give batches by a loader")
        if batch_size is None or batch_size > n:
            raise ValueError(f"batch_size must be at most the {n} rows of the files, and not None; got {batch_size}")
        self.count, self.batch_size, self.steps = n, batch_size, steps_per_epoch(n, batch_size)
        self.columns: np.ndarray | None = None  # places of a batch that are read here, where others read the rest
        self._table, self._fingerprint = table, None
        self.shards, self._files = _opened(shards)
        _, loop_key = jax.random.split(key)  # as `start` and `epoch` split it
        self._order_key, _ = jax.random.split(loop_key)
        x, y, weight = self._gather(np.arange(batch_size))
        self.example = x, y, np.ones(batch_size, np.float32 if weight is None else weight.dtype)

    @property
    def fingerprint(self) -> list[Any]:
        """The digests of the shards; made when a run that is saved asks for them, and once."""
        if self._fingerprint is None:
            self._fingerprint = [of_data(shard, full=self._table.digest == "full") for shard in self._table.shards]
        return self._fingerprint

    def stacks(self, start: Position, epochs: int, every: int | None, state: Json) -> Iterator[Stack]:
        """Yield the stacks from `start` to the end of the last epoch; the position alone says where to go on."""
        if min(start) < 0 or start.step >= self.steps:
            raise ValueError(
                f"the position of the checkpoint must be one in an epoch of {self.steps} steps; got {list(start)}"
            )
        size = stack_size(self.example, self.steps, every)
        position = start
        while position.epoch < epochs:
            count = min(size, self.steps - position.step, *([every - position.total % every] if every else []))
            batches = self._read(position.epoch, position.step, size)
            after = position.after(count, position.step + count == self.steps)
            yield Stack(position, batches, count, after.step == 0, after, {})
            position = after

    def _read(self, epoch: int, step: int, steps: int) -> Batch:
        """Return (x, y, weight) of so many steps, (steps, batch, ...) each; beyond the epoch's end they weigh zero."""
        first = np.uint32(step * self.batch_size)
        places = partial(_places, count=steps * self.batch_size)
        rows, present = map(np.asarray, places(self._order_key, np.uint32(epoch), first, np.uint32(self.count)))
        if self.columns is not None:
            rows, present = self._own(rows, steps), self._own(present, steps, 0)
        x, y, weight = self._gather(rows)
        weight = present if weight is None else present.astype(weight.dtype) * weight
        return jax.tree.map(lambda a: a.reshape(steps, -1, *a.shape[1:]), (x, y, weight))

    def _own(self, values: np.ndarray, steps: int, filling: int | None = None) -> np.ndarray:
        """Return those of the places that are read here; places that fill a batch up have its first, or `filling`."""
        columns = np.asarray(self.columns)
        there = columns < self.batch_size
        taken = values.reshape(steps, self.batch_size)[:, np.where(there, columns, 0)]
        return (taken if filling is None else np.where(there, taken, values.dtype.type(filling))).ravel()

    def _gather(self, rows: np.ndarray) -> Batch:
        """Return a copy of these rows of (x, y, weight or None)."""
        like = (*self.shards[0], None)[:3]
        out = jax.tree.map(lambda a: aligned((len(rows), *a.shape[1:]), narrow("data", a.dtype)), like)
        shard = np.searchsorted(self.first, rows, side="right") - 1
        for i in np.unique(shard):
            mine = np.flatnonzero(shard == i)
            places = rows[mine] - self.first[i]
            jax.tree.map(partial(self._copy, mine, places), out, (*self.shards[i], None)[:3])
        return out

    def _copy(self, here: np.ndarray, places: np.ndarray, out: np.ndarray, source: np.ndarray) -> None:
        """Write the rows of `source` at `places` to those of `out` at `here`."""
        file, native = self._files.get(id(source)), source.dtype == out.dtype
        if file is not None and native:
            file.read(here, places, out)
        elif len(here) == len(out) and native:
            np.take(source, places, axis=0, out=out, mode="clip")
        else:
            if file is None:
                rows = source[places]
            else:
                rows = np.empty((len(here), *source.shape[1:]), source.dtype)
                file.read(np.arange(len(here)), places, rows)
            if not native:
                wide, rows = rows, np.empty(rows.shape, out.dtype)
                fill("data", rows, wide)
            out[here] = rows


def _opened(shards: list[Shard]) -> tuple[list[Shard], dict[int, MappedFile]]:
    """Return the shards with the small ones read into memory, and by its `id` the file of each of the others."""
    leaves = sorted((leaf for shard in shards for leaf in jax.tree.leaves(shard)), key=lambda a: a.nbytes)
    sizes = np.cumsum([leaf.nbytes for leaf in leaves])
    small = {id(leaf) for leaf, size in zip(leaves, sizes, strict=True) if size <= MAPPED_BYTES}
    large = {id(leaf): file for leaf in leaves if id(leaf) not in small and (file := MappedFile.behind(leaf))}

    def held(leaf: Any) -> Any:
        if id(leaf) not in small or not isinstance(leaf, np.memmap):
            return leaf
        if (file := MappedFile.behind(leaf)) is not None:
            return file.whole(leaf)
        file = MappedFile.behind(leaf.T)  # in Fortran's order
        return leaf if file is None else file.whole(leaf.T).T

    return [jax.tree.map(held, shard) for shard in shards], large


@_compile.jit(static_argnames="count")
def _places(key: Array, epoch: Any, first: Any, n: Any, *, count: int) -> tuple[Array, Array]:
    """Return rows and weights of `count` places of an epoch, from place `first` on, as `data.epoch_order` has them."""
    place = first + jnp.arange(count, dtype=jnp.uint32)
    present = place < n
    row = shuffle(jax.random.fold_in(key, epoch), place, n)
    return jnp.where(present, row, jnp.zeros_like(row)).astype(jnp.int32), present.astype(jnp.float32)


def _same_form(shard: Shard, like: Shard, number: int) -> Shard:
    for leaf in jax.tree.leaves(shard):
        if not _check.is_array(leaf):
            raise ValueError(f"data must hold arrays beside those that are mapped; got {_check.describe(leaf)}")
        narrow("data", leaf.dtype)
    counts = {len(leaf) if leaf.ndim else 0 for leaf in jax.tree.leaves(shard)}
    forms = [[(a.shape[1:], a.dtype) for a in jax.tree.leaves(s)] for s in (shard, like)]
    if len(counts) != 1 or 0 in counts or forms[0] != forms[1]:
        raise ValueError(
            f"shard {number} must have as many rows in each file, and the form of the first; got "
            f"{', '.join(_check.describe(leaf) for leaf in jax.tree.leaves(shard))}"
        )
    return shard
