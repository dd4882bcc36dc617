"""A stream of batches, as any loader gives it, checked and made into stacks of equal ones."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxmlp import _check
from jaxmlp.loop._digest import of_data
from jaxmlp.loop.streams._leaves import arrays
from jaxmlp.loop.streams._passes import Passes
from jaxmlp.loop.streams._replay import Differs, resume
from jaxmlp.loop.streams._stacks import (
    ACCEPTED,
    OTHER,
    Batch,
    Position,
    Stack,
    Taken,
    cuts,
    name,
    stack_size,
    stacks_of,
)
from jaxmlp.loop.streams._trail import Earlier, Trails
from jaxmlp.loop.streams._walk import Walk
from jaxmlp.types import Json


class Batches:
    """Batches as a loader gives them, all of one form; only the last of a pass may be shorter.

    A pass over the loader is an epoch; with `steps`, so many batches are, and one pass serves them all. What has
    `set_epoch(number)` is told which pass begins. An iterator with `get_state` and `set_state`, as Grain's, is put
    back to its place on resuming, where its pass alone says what it gives: the first, one that is told its number, or
    with `steps` the one of all epochs. Any other is asked for its batches again up to there, and these are compared.

    Args:
      data: the loader: an iterable of batches (x, y) or (x, y, weight).
      batch_size: None, or what the first batch must have.
      steps: how many batches make an epoch; None for a pass.
      earlier: what the recipes of the call that were trained before have read.

    Raises:
      ValueError: for what cannot be iterated, gives nothing, or gives a first batch of another form or size.
    """

    def __init__(
        self, data: Iterable[object], batch_size: int | None, steps: int | None, earlier: Earlier | None = None
    ):
        self.steps, self._earlier = steps, Earlier() if earlier is None else earlier
        self._form: Any = None  # until the first batch is known, which then says what the others must be
        self._passes = Passes(data, steps, self._unpack)
        self.example: Batch = self._passes.look()
        self._form = _form(self.example)
        self.batch_size = len(self.example[2])
        if batch_size not in (None, self.batch_size):
            raise ValueError(f"batch_size must be None or that of the stream, {self.batch_size}; got {batch_size}")
        self.fingerprint: list[str] = [of_data(self.example)]

    def stacks(self, start: Position, epochs: int, every: int | None, state: Json) -> Iterator[Stack]:
        """Yield the stacks from `start` to the end of the last epoch."""
        if start.epoch >= epochs:  # nothing is read, and what was is known
            self._earlier.follow(Trails(state.get("digests"), start).run)
        return stacks_of(self._taken(start, epochs, every, state), self.example, self.steps, start, every)

    def _taken(self, start: Position, epochs: int, every: int | None, state: Json) -> Iterator[Taken]:
        if start.epoch >= epochs:
            return
        self._check_place(start, state)
        size = stack_size(self.example, self.steps, every)
        try:
            iterator = resume(self._passes, start, state)
        except Differs:
            if not state.get(ACCEPTED):
                raise
            state = {OTHER: "now"}
            iterator = resume(self._passes, start, state)
        walk = Walk(self._passes, start, iterator, state)
        compare = self._earlier.follow(walk.trails.run)
        while walk.position.epoch < epochs:
            place = walk.position
            taken = walk.take(lambda position: cuts(position, size, every))
            compare(place)
            yield taken._replace(batch=self._whole(taken.batch, taken.ends, place))

    def _check_place(self, start: Position, state: Json) -> None:
        """Raise for a place in a checkpoint that no walk has stood at."""
        length, known = state.get("length"), {"iterator", "length", "first", "digests", OTHER, ACCEPTED}
        right = not set(state) - known and isinstance(state.get("first"), dict | None)
        right = right and (length is None or type(length) is int and length > 0)
        if self.steps is not None:
            right = right and start.step < self.steps and start.total == start.epoch * self.steps + start.step
        if not right or min(start) < 0 or start.total < start.step:
            raise ValueError(
                f"position and stream of the checkpoint must be a place in this stream; got {list(start)} and "
                f"{state!r:.200}"
            )

    def _unpack(self, batch: Any, position: Position) -> Batch:
        """Return a copy of a batch as (x, y, weight), and check its form against the first."""
        if not isinstance(batch, tuple | list) or len(batch) not in (1, 2, 3):
            raise ValueError(
                f"{name(position)} must be (x, y) or (x, y, weight); got {type(batch).__name__} {_check.length(batch)}"
            )
        parts = [
            jax.tree.map(partial(arrays, part, position), given)
            for part, given in zip(("x", "y", "weight"), (*batch, *[None] * (2 - len(batch))), strict=False)
        ]
        leaves = jax.tree.leaves(parts)
        counts = {len(leaf) if leaf.ndim else None for leaf in leaves}
        if len(counts) != 1 or counts & {None, 0} or not jax.tree.leaves(parts[0]):
            raise ValueError(
                f"{name(position)} must have arrays of as many examples each; got "
                f"{', '.join(map(_check.describe, leaves)) or 'none'}"
            )
        count = int(counts.pop() or 0)
        if len(parts) == 2 or parts[2] is None:
            parts[2:] = [np.ones(count, np.float32)]
        if len(jax.tree.leaves(parts[2])) != 1:
            raise ValueError(f"weight of {name(position)} must be one array; got {type(parts[2]).__name__}")
        found: Batch = (parts[0], parts[1], parts[2])
        if self._form is not None and (_form(found) != self._form or count > self.batch_size):
            raise ValueError(
                f"{name(position)} must be as the first, of {self.batch_size} examples at most:\n"
                f"  first {', '.join(map(_check.describe, jax.tree.leaves(self.example)))}\n"
                f"  got   {', '.join(map(_check.describe, jax.tree.leaves(found)))}"
            )
        return found

    def _whole(self, batch: Batch, ends: bool, position: Position) -> Batch:
        """Return the batch filled up with its first example at weight zero, if it is the last of a pass.

        Filled up with an example that is there, and not with zeros, since a model may give no finite number for those.
        """
        x, y, weight = batch
        missing = self.batch_size - len(weight)
        if missing == 0:
            return batch
        if not ends:
            raise ValueError(
                f"{name(position)} must have {self.batch_size} examples as the first; got {len(weight)}: only the "
                f"last of a pass may have fewer"
            )
        x, y = jax.tree.map(lambda a: np.concatenate([a, np.repeat(a[:1], missing, axis=0)]), (x, y))
        return x, y, np.concatenate([weight, np.zeros(missing, weight.dtype)])


def _form(batch: Batch) -> Any:
    """Return what all batches have in common: the structure, and each array's shape but the first axis, and dtype."""
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(a.shape[1:], a.dtype) for a in leaves]
