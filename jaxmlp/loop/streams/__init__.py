"""Data that does not fit in memory, or comes from elsewhere: streams of batches for `loop.train`.

What `loop.train` takes for data, arrays in memory apart:

- a folder of .npy files, or arrays that `numpy.load(..., mmap_mode="r")` has mapped: `_npy.Files`, which gives the
  batches that `fit` would take of the same arrays, bit for bit; `npy` opens either with a digest of all bytes;
- an iterable of batches (x, y) or (x, y, weight), such as a Grain or a PyTorch loader: `_loader.Batches`. To resume a
  run it must give the same batches again when it is made anew: it is told the number of each pass by `set_epoch`, its
  iterator has `get_state` and `set_state`, or its order comes of a seed. What is read again is compared;
- an object of your own that is a `Stream`: for a database, a simulation, or an order of your own. It yields `Stack`s;
  `stacks_of` makes them of single batches.

One network on a mesh of several processes trains on the same batches in the same order as on one. Of files each process
reads the rows that lie on its own devices, but for those that are small together, which each reads once, whole. A
loader and a `Stream` give the whole batch on each process, the same, of which each keeps its part: one that is sharded
by the process would train on other data, and is refused where the first batches differ.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp.loop.streams._folder import Table, folder
from jaxmlp.loop.streams._folder import npy as npy
from jaxmlp.loop.streams._loader import Batches
from jaxmlp.loop.streams._npy import Files
from jaxmlp.loop.streams._own import Own
from jaxmlp.loop.streams._stacks import ACCEPTED, OTHER
from jaxmlp.loop.streams._stacks import Batch as Batch
from jaxmlp.loop.streams._stacks import Position as Position
from jaxmlp.loop.streams._stacks import Stack as Stack
from jaxmlp.loop.streams._stacks import Taken as Taken
from jaxmlp.loop.streams._stacks import stacks_of as stacks_of
from jaxmlp.loop.streams._trail import Earlier as Earlier
from jaxmlp.types import Json


@runtime_checkable
class Stream(Protocol):
    """Batches in an order that can be given again from any place: what `loop.train` needs to train and to resume.

    A class of your own needs not to inherit from it; it needs the five members.

    >>> class Halves:
    ...     def __init__(self, x, y):
    ...         self.x, self.y, self.batch_size, self.steps = x, y, len(x) // 2, 2
    ...         self.example = self.batch(0)
    ...         self.fingerprint = ["two halves"]
    ...
    ...     def batch(self, step):
    ...         rows = slice(step * self.batch_size, (step + 1) * self.batch_size)
    ...         return self.x[rows], self.y[rows], np.ones(self.batch_size, "f")
    ...
    ...     def stacks(self, start, epochs, every, state):
    ...         return stacks_of(self.taken(start, epochs), self.example, self.steps, start, every)
    ...
    ...     def taken(self, position, epochs):
    ...         while position.epoch < epochs:
    ...             batch, ends = self.batch(position.step), position.step + 1 == self.steps
    ...             position = position.after(1, ends)
    ...             yield Taken(batch, ends, position, {})
    >>> halves = Halves(np.ones((6, 2), "f"), np.ones((6, 1), "f"))
    >>> isinstance(halves, Stream), next(halves.stacks(Position(), 1, None, {})).batches[0].shape
    (True, (2, 3, 2))
    """

    @property
    def example(self) -> Batch:
        """A batch (x, y, weight) of NumPy arrays, (batch_size, ...) each, for shapes and dtypes."""
        ...

    @property
    def batch_size(self) -> int:
        """How many examples a batch has, those of weight zero that fill up a short one included."""
        ...

    @property
    def steps(self) -> int | None:
        """How many batches an epoch has; None where only its end will tell."""
        ...

    @property
    def fingerprint(self) -> list[str]:
        """Texts that tell these data from others: a run goes on only with those that it was begun with."""
        ...

    def stacks(self, start: Position, epochs: int, every: int | None, state: Json) -> Iterator[Stack]:
        """Yield the stacks from `start` to the end of the last epoch, read in another thread than the caller's.

        Args:
          start: where to begin; `Position()` for a new run, else the `after` of the last stack before a checkpoint.
          epochs: how many epochs the whole run has.
          every: where it is given, a stack must end wherever the steps done in all are a multiple of it.
          state: the `state` of the last stack before the checkpoint, {} for a new run.
        """
        ...


def is_stream(data: object) -> bool:
    """Tell whether data is a stream, a folder, mapped files or an iterable of batches, and not arrays in memory."""
    if isinstance(data, str | os.PathLike | Table):
        return True
    if _check.is_array(data):
        return False
    if isinstance(data, Stream):
        return True
    if not isinstance(data, Iterable):
        return False
    return not _is_table(data) or any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(tuple(data)))


def open_stream(
    data: Any, key: Array, batch_size: int | None, steps: int | None, earlier: Earlier | None = None
) -> Stream:
    """Return the stream behind data.

    Args:
      data: what `is_stream` says yes to.
      key: the key of the run, of which the order of mapped files comes.
      batch_size: the recipe's; None where the stream's own is taken.
      steps: how many batches of an iterable make an epoch.
      earlier: what the recipes of the call that were trained before have read, which this one must read as well.

    Raises:
      ValueError: for data that cannot be read, and sizes that do not agree.
    """
    if steps is not None:
        steps = _check.positive_int("steps", steps)
    if isinstance(data, Stream):
        return Own(data, batch_size, steps)
    if isinstance(data, str | os.PathLike):
        data = Table(folder(data))
    elif not isinstance(data, Table) and _is_table(data):
        if len(data) not in (2, 3):
            raise ValueError(f"data must be (x, y) or (x, y, weight); got {type(data).__name__} of length {len(data)}")
        data = Table([tuple(data)])
    if isinstance(data, Table):
        if steps is not None:
            raise ValueError(f"steps must be None for files: an epoch of theirs has all rows; got {steps}")
        return Files(data, key, batch_size)
    return Batches(data, batch_size, steps, earlier)


def accepting(stream: Stream, state: Json, *, others: bool) -> Json:
    """Return the state to go on with where the caller accepts other data.

    Args:
      stream: of the data that are given now.
      state: what was saved.
      others: whether these are known to be others, or only may be: then what is read again tells.
    """
    if isinstance(stream, Batches):
        return {OTHER: "now"} if others else {**state, ACCEPTED: True}
    return {} if others else state


def _is_table(data: object) -> bool:
    """Tell a table, a tuple of whole arrays or a list of two or three, from a list of batches."""
    return isinstance(data, tuple) or isinstance(data, list) and len(data) in (2, 3) and any(map(_check.is_array, data))
