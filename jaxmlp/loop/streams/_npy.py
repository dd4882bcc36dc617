"""Tables in mapped .npy files, larger than memory: shuffled rows by number, and no more pages than needed."""

import mmap
import os
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check, _compile
from jaxmlp.data import shuffle, steps_per_epoch
from jaxmlp.loop._digest import of_data
from jaxmlp.loop.streams._stacks import Batch, Position, Stack, aligned, stack_size
from jaxmlp.types import Json, PyTree, StrPath

# Touching a row of a map maps up to 64 KiB around it, and what is mapped counts as this process's memory. So only files
# that are small together are read by their maps; of the others each row is read into its place.
MAPPED_BYTES = 2**28

Shard: TypeAlias = tuple[PyTree, ...]  # (x, y) or (x, y, weight) of mapped arrays


class Table(NamedTuple):
    """Shards of one table, (x, y) or (x, y, weight) of mapped arrays each."""

    shards: list[Shard]


def folder(path: Path) -> Table:
    """Map the .npy files of a folder: x.npy and y.npy, or shards x-000.npy, y-000.npy, ...

    Where the examples have weights, these are in weight.npy, or in shards weight-000.npy, ...

    Raises:
      ValueError: for a folder without them, or with shards that do not match.
    """
    names = [sorted(path.glob(f"{part}[-_.]*npy")) for part in ("x", "y", "weight")]
    x, y, weight = names
    if not x or len(x) != len(y) or len(weight) not in (0, len(x)):
        raise ValueError(
            f"{path} must hold x.npy and y.npy, or shards x-000.npy, y-000.npy and so on, as many of each; got "
            f"{len(x)} of x, {len(y)} of y and {len(weight)} of weight"
        )
    parts = [p for p in names if p]
    return Table([tuple(_map(part[i]) for part in parts) for i in range(len(x))])


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} must be a .npy file of numbers; it could not be read: {error}") from error


class Files:
    """The rows of mapped files, each once an epoch, in the order of `data.epoch_order`, so as `fit` would take them."""

    def __init__(self, table: Table, key: Array, batch_size: int | None):
        self.shards = [_same_form(shard, table.shards[0], i) for i, shard in enumerate(table.shards)]
        self.first = np.cumsum([0, *(len(jax.tree.leaves(shard)[0]) for shard in self.shards)])
        n = int(self.first[-1])
        if batch_size is None or batch_size > n:
            raise ValueError(f"batch_size must be at most the {n} rows of the files, and not None; got {batch_size}")
        self.count, self.batch_size, self.steps = n, batch_size, steps_per_epoch(n, batch_size)
        leaves = sorted((leaf for shard in self.shards for leaf in jax.tree.leaves(shard)), key=lambda a: a.nbytes)
        sizes = np.cumsum([leaf.nbytes for leaf in leaves])
        large = [leaf for leaf, size in zip(leaves, sizes, strict=True) if size > MAPPED_BYTES]
        self._files = {id(leaf): file for leaf in large if (file := _File.behind(leaf)) is not None}
        _, loop_key = jax.random.split(key)  # as `start` and `epoch` split it
        self._order_key, _ = jax.random.split(loop_key)
        x, y, weight = self._gather(np.arange(batch_size))
        self.example = x, y, np.ones(batch_size, np.float32 if weight is None else weight.dtype)
        self.fingerprint = [of_data(shard) for shard in table.shards]

    def stacks(self, start: Position, epochs: int, every: int | None, state: Json) -> Iterator[Stack]:
        """Yield the stacks from `start` to the end of the last epoch; the position alone says where to go on."""
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
        x, y, weight = self._gather(rows)
        weight = present if weight is None else present.astype(weight.dtype) * weight
        return jax.tree.map(lambda a: a.reshape(steps, self.batch_size, *a.shape[1:]), (x, y, weight))

    def _gather(self, rows: np.ndarray) -> Batch:
        """Return a copy of these rows of (x, y, weight or None)."""
        like = (*self.shards[0], None)[:3]
        out = jax.tree.map(lambda a: aligned((len(rows), *a.shape[1:]), jax.dtypes.canonicalize_dtype(a.dtype)), like)
        shard = np.searchsorted(self.first, rows, side="right") - 1
        for i in np.unique(shard):
            mine = np.flatnonzero(shard == i)
            places = rows[mine] - self.first[i]
            jax.tree.map(partial(self._copy, mine, places), out, (*self.shards[i], None)[:3])
        return out

    def _copy(self, here: np.ndarray, places: np.ndarray, out: np.ndarray, source: np.ndarray) -> None:
        """Write the rows of `source` at `places` to those of `out` at `here`."""
        file = self._files.get(id(source))
        if file is not None:
            file.read(here, places, out, source.dtype)
        elif len(here) == len(out) and source.dtype == out.dtype:
            np.take(source, places, axis=0, out=out, mode="clip")
        else:
            out[here] = source[places]


class _File:
    """The file behind a mapped array, read row by row past the map."""

    def __init__(self, path: StrPath, offset: int, row: int):
        self._path, self._offset, self._row = path, offset, row
        self._number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._number)

    @staticmethod
    def behind(array: Any) -> "_File | None":
        """Return the file of a mapped array whose rows lie in it one after the other."""
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        path = getattr(array, "filename", None)
        if not isinstance(base, mmap.mmap) or path is None or not array.flags.c_contiguous or array.mode == "c":
            return None
        if not hasattr(os, "preadv"):  # where there is none, the map must do
            return None
        begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY  # of the map in the file
        inside = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
        return _File(path, begin + inside, array.nbytes // len(array))

    def read(self, here: np.ndarray, places: np.ndarray, out: np.ndarray, dtype: np.dtype) -> None:
        """Read the rows at `places` into those of `out` at `here`."""
        target = out if out.dtype == dtype else np.empty(out.shape, dtype)
        lines = target.reshape(-1).view(np.uint8).data
        row, number = self._row, self._number
        for i, place in zip(here.tolist(), places.tolist(), strict=True):
            if os.preadv(number, (lines[i * row : (i + 1) * row],), self._offset + place * row) != row:
                raise ValueError(f"{self._path} must hold row {place}; it was cut short since it was mapped")
        if target is not out:
            out[here] = target[here]


@_compile.jit(static_argnames="count")
def _places(key: Array, epoch: Any, first: Any, n: Any, *, count: int) -> tuple[Array, Array]:
    """Return rows and weights of `count` places of an epoch, from place `first` on, as `data.epoch_order` has them."""
    place = first + jnp.arange(count, dtype=jnp.uint32)
    present = place < n
    row = shuffle(jax.random.fold_in(key, epoch), place, n)
    return jnp.where(present, row, jnp.zeros_like(row)).astype(jnp.int32), present.astype(jnp.float32)


def _same_form(shard: Shard, like: Shard, number: int) -> Shard:
    counts = {len(leaf) if leaf.ndim else 0 for leaf in jax.tree.leaves(shard)}
    forms = [[(a.shape[1:], a.dtype) for a in jax.tree.leaves(s)] for s in (shard, like)]
    if len(counts) != 1 or 0 in counts or forms[0] != forms[1]:
        raise ValueError(
            f"shard {number} must have as many rows in each file, and the form of the first; got "
            f"{', '.join(_check.describe(leaf) for leaf in jax.tree.leaves(shard))}"
        )
    return shard
