"""Stacks of equal batches: what one dispatch trains on, and where a stream stands before and after."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import DTypeLike

from jaxmlp import _check
from jaxmlp.types import Json, PyTree

STACK_BYTES, STACK_STEPS = 2**25, 4096  # a dispatch takes about so much, and no more steps

Batch = tuple[PyTree, PyTree, PyTree]  # (x, y, weight): trees of NumPy arrays, with as many examples each

# Of the state of a loader: the batches before are those of other data, which the caller accepts "now" or did "before";
# whether the caller accepts them if they turn out to be others.
OTHER, ACCEPTED = "other", "accepted"


class Position(NamedTuple):
    """Where a stream stands: epochs done, steps done of the next one, and steps done in all."""

    epoch: int = 0
    step: int = 0
    total: int = 0

    def after(self, count: int, ends: bool) -> "Position":
        """Return the position after `count` steps, where they end the epoch or not."""
        return Position(self.epoch + ends, 0 if ends else self.step + count, self.total + count)


class Stack(NamedTuple):
    """Batches for one dispatch, of one epoch, and where the stream stands after them.

    All stacks of a stream have one shape, so that one compiled program takes them all: where fewer steps are taken
    than there is room for, the rest is filled with anything of weight zero.
    """

    first: Position  # of the first of these batches
    batches: Batch  # (steps, batch, ...) each
    taken: int  # how many of the steps are there
    ends: bool  # whether they end the epoch
    after: Position
    state: Json  # what else the stream needs to go on from there, as JSON


class Taken(NamedTuple):
    """One batch, and where the stream stands after it."""

    batch: Batch  # (batch, ...) each
    ends: bool  # whether it ends the epoch
    after: Position
    state: Json  # what else the stream needs to go on from there, as JSON


def stacks_of(
    taken: Iterable[Taken], example: Batch, steps: int | None, start: Position, every: int | None
) -> Iterator[Stack]:
    """Yield stacks of the batches of a stream that stands at `start`.

    Args:
      taken: the batches one by one; all have the shapes of the example.
      example: a batch.
      steps: how many batches an epoch has, where that is known.
      start: where the first of the batches stands.
      every: a stack ends wherever the steps done in all are a multiple of it: there a checkpoint is made.
    """
    size = stack_size(example, steps, every)
    whole, count = None, 0
    for batch, ends, after, state in taken:
        if whole is None:
            whole = jax.tree.map(lambda a: aligned((size, *a.shape), a.dtype), batch)
        # At once, and not when the stack is full: a stream may use the memory of its batches again.
        jax.tree.map(partial(_put, count), whole, batch)
        count += 1
        if ends or cuts(after, size, every):
            jax.tree.map(partial(_clear, count), whole)
            yield Stack(start, whole, count, ends, after, state)
            whole, count, start = None, 0, after


def _put(place: int, whole: np.ndarray, array: np.ndarray) -> None:
    if whole.shape[1:] != array.shape or whole.dtype != array.dtype:
        raise ValueError(
            f"the batches of a stack must be of one form; got {_check.describe(array)} where the first has "
            f"{whole.dtype} of shape {whole.shape[1:]}"
        )
    whole[place] = array


def _clear(count: int, whole: np.ndarray) -> None:
    """Make zero what the batches of a stack do not fill."""
    whole[count:] = 0


def cuts(position: Position, size: int, every: int | None) -> bool:
    """Tell whether a stack ends at this position inside an epoch; it does at each epoch's end as well.

    It is said of the position alone, and not of where the run began, so that a resumed run has the same stacks.
    """
    return position.step % size == 0 or every is not None and position.total % every == 0


def stack_size(example: Batch, steps: int | None, every: int | None) -> int:
    """Return how many batches make a stack: an epoch, the distance of checkpoints, or 32 MiB, as is known."""
    fits = max(1, STACK_BYTES // sum(a.nbytes for a in jax.tree.leaves(example)))
    return min(n for n in (fits, STACK_STEPS, steps, every) if n is not None)


def name(position: Position) -> str:
    """Return how messages call the batch that begins at a position."""
    return f"batch {position.step} of epoch {position.epoch}"


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an empty array that begins where a CPU device can use it in place, without a copy."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
