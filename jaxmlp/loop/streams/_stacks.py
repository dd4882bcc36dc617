"""Stacks of equal batches: what one dispatch trains on, and where a stream stands before and after."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import DTypeLike

from jaxmlp.types import Json, PyTree

STACK_BYTES, STACK_STEPS = 2**25, 4096  # a dispatch takes about so much, and no more steps

Batch = tuple[PyTree, PyTree, PyTree]  # (x, y, weight): trees of NumPy arrays, with as many examples each


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
    parts: list[Batch] = []
    for batch, ends, after, state in taken:
        parts.append(batch)
        if ends or cuts(after, size, every):
            yield Stack(
                start, jax.tree.map(lambda *leaves: stack(leaves, size), *parts), len(parts), ends, after, state
            )
            parts, start = [], after


def cuts(position: Position, size: int, every: int | None) -> bool:
    """Tell whether a stack ends at this position inside an epoch; it does at each epoch's end as well.

    It is said of the position alone, and not of where the run began, so that a resumed run has the same stacks.
    """
    return position.step % size == 0 or every is not None and position.total % every == 0


def stack_size(example: Batch, steps: int | None, every: int | None) -> int:
    """Return how many batches make a stack: an epoch, the distance of checkpoints, or 32 MiB, as is known."""
    fits = max(1, STACK_BYTES // sum(a.nbytes for a in jax.tree.leaves(example)))
    return min(n for n in (fits, STACK_STEPS, steps, every) if n is not None)


def stack(leaves: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    """Return the arrays as one, with a leading axis of `size`; what they do not fill is zero."""
    whole = aligned((size, *leaves[0].shape), leaves[0].dtype)
    np.stack(leaves, out=whole[: len(leaves)])
    whole[len(leaves) :] = 0
    return whole


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
