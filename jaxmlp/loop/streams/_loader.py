"""A stream of batches, as any loader gives it, checked and made into stacks of equal ones."""

import base64
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxmlp import _check
from jaxmlp.loop._digest import of_data
from jaxmlp.loop.streams._prefetch import Position, Stack, name, stack, stack_size


class Batches:
    """Batches as a loader gives them, all of one form; only the last of a pass may be shorter.

    A pass over the loader is an epoch; with `steps`, so many batches are, and one pass serves them all. What has
    `set_epoch(number)` is told which pass begins. An iterator with `get_state` and `set_state`, as Grain's, is put
    back to its place on resuming; any other is asked for its batches again up to there.
    """

    def __init__(self, data: Any, batch_size: int | None, steps: int | None):
        self.data, self.steps = data, steps
        first = next(begun := self._pass(0), None)
        if first is None:
            raise ValueError("data must give at least one batch; its first pass gave none")
        # What was looked at must be given again: by a new pass, or where there is only one, from here.
        self._once = itertools.chain([first], begun) if begun is data else None
        self.form = None
        self.example = self._unpack(first, Position())
        self.form = _form(self.example)
        self.batch_size = len(jax.tree.leaves(self.example)[0])
        if batch_size not in (None, self.batch_size):
            raise ValueError(f"batch_size must be None or that of the stream, {self.batch_size}; got {batch_size}")
        self.fingerprint = [of_data(self.example)]

    def stacks(self, start: Position, epochs: int, every: int | None, state: dict[str, Any]) -> Iterator[Stack]:
        """Yield the stacks from `start` to the end of the last epoch."""
        size = stack_size(self.example, self.steps, every)

        def cut(position: Position) -> bool:
            return position.step % size == 0 or every is not None and position.total % every == 0

        parts: list[Any] = []
        for after, batch, ends, now in self._walk(start, epochs, cut, state):
            parts.append(batch)
            if ends or cut(after):
                stacked = jax.tree.map(lambda *leaves: stack(leaves, size), *parts)
                yield Stack(start, stacked, len(parts), ends, after, now)
                parts, start = [], after

    def _walk(
        self, start: Position, epochs: int, cut: Callable[[Position], bool], state: dict[str, Any]
    ) -> Iterator[tuple[Position, Any, bool, dict[str, Any]]]:
        """Yield each batch with the position after it, whether it ends an epoch, and the stream's state after it."""
        length, first = state.get("length"), state.get("first")
        position, iterator = start, self._resume(start, state)
        following = None
        while position.epoch < epochs:
            batch = self._next(iterator, position) if following is None else following
            following = None
            if batch is None:
                raise ValueError(f"{name(position)} must be there; the stream ended after {position.step} batches")
            if position.step == 0:
                first = of_data(batch)
            after = position.after(1, False)
            now = {"iterator": _state_of(iterator) if cut(after) or after.step == self.steps else None}
            if self.steps is None:
                following = self._next(iterator, after)  # to know whether this one was the last of the pass
                ends = following is None
            else:
                ends = after.step == self.steps
            if ends and length is not None and after.step < length:
                raise ValueError(
                    f"{name(after)} must be there, as in the first pass of {length} batches; the stream ended; for "
                    f"passes of unequal length say how many steps an epoch has: steps={after.step}"
                )
            length = after.step if ends and length is None else length
            after = position.after(1, ends)
            yield after, self._whole(batch, ends, position), ends, now | {"length": length, "first": first}
            if ends and self.steps is None and after.epoch < epochs:
                iterator = self._pass(after.epoch)
            position = after

    def _resume(self, start: Position, state: dict[str, Any]) -> Any:
        """Return the iterator at `start`."""
        iterator: Any = self._once or self._pass(0 if self.steps else start.epoch)
        saved = state.get("iterator")
        if saved is not None and (start.step or self.steps):
            try:
                iterator.set_state(base64.b64decode(saved["bytes"]) if set(saved) == {"bytes"} else saved)
                return iterator
            except ValueError:  # Grain knows a source by its repr, which may hold an address: count batches instead
                iterator = self._pass(0 if self.steps else start.epoch)
        skipped = start.total if self.steps is not None else start.step
        for number in range(skipped):
            place = (
                Position(start.epoch, number) if self.steps is None else Position(*divmod(number, self.steps), number)
            )
            batch = self._next(iterator, place)
            if batch is None:
                raise ValueError(f"{name(place)} must be there, as it was before; the stream ended")
            if place.step == 0 and place.epoch == start.epoch and state.get("first") not in (None, of_data(batch)):
                raise ValueError(
                    f"{name(place)} must be what it was before the run was saved; it holds other examples; a stream "
                    f"must give the same order again, by set_epoch(number) or get_state and set_state"
                )
        return iterator

    def _pass(self, epoch: int) -> Any:
        if hasattr(self.data, "set_epoch"):
            self.data.set_epoch(epoch)
        try:
            iterator = iter(self.data)
        except TypeError:
            raise ValueError(
                f"data must be arrays, files or an iterable of batches; got {_check.describe(self.data)}"
            ) from None
        if iterator is self.data and epoch > 0 and self.steps is None:
            raise ValueError(
                f"data must give its batches again for each of its epochs; this {type(self.data).__name__} is used up "
                f"after one; pass what makes a new iterator each time, or steps=, how many batches an epoch has"
            )
        return iterator

    def _next(self, iterator: Any, position: Position) -> Any:
        try:
            batch = next(iterator)
        except StopIteration:
            return None
        except Exception as error:
            raise ValueError(f"{name(position)} could not be read: {type(error).__name__}: {error}") from error
        return self._unpack(batch, position)

    def _unpack(self, batch: Any, position: Position) -> tuple[Any, Any, Any]:
        """Return a batch as (x, y, weight), and check its form against the first."""
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise ValueError(
                f"{name(position)} must be (x, y) or (x, y, weight); got {type(batch).__name__} {_check.length(batch)}"
            )
        batch = jax.tree.map(np.asarray, tuple(batch))
        batch = jax.tree.map(lambda a: a.astype(jax.dtypes.canonicalize_dtype(a.dtype), copy=False), batch)
        counts = {len(leaf) if leaf.ndim else None for leaf in jax.tree.leaves(batch)}
        if len(counts) != 1 or counts & {None, 0}:
            raise ValueError(
                f"{name(position)} must have arrays of as many examples each; got "
                f"{', '.join(_check.describe(leaf) for leaf in jax.tree.leaves(batch))}"
            )
        count = int(counts.pop() or 0)
        if len(batch) == 2:
            batch = (*batch, np.ones(count, np.float32))
        if self.form is not None and (_form(batch) != self.form or count > self.batch_size):
            raise ValueError(
                f"{name(position)} must be as the first, of {self.batch_size} examples at most:\n"
                f"  first {', '.join(map(_check.describe, jax.tree.leaves(self.example)))}\n"
                f"  got   {', '.join(map(_check.describe, jax.tree.leaves(batch)))}"
            )
        return batch

    def _whole(self, batch: Any, ends: bool, position: Position) -> Any:
        """Return the batch filled up with its first example at weight zero, if it is the last of a pass."""
        missing = self.batch_size - len(batch[2])
        if missing == 0:
            return batch
        if not ends:
            raise ValueError(
                f"{name(position)} must have {self.batch_size} examples as the first; got {len(batch[2])}: only the "
                f"last of a pass may have fewer"
            )
        x, y = jax.tree.map(lambda a: np.concatenate([a, np.repeat(a[:1], missing, axis=0)]), batch[:2])
        return x, y, np.concatenate([batch[2], np.zeros(missing, batch[2].dtype)])


def _form(batch: Any) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(a.shape[1:], a.dtype) for a in leaves]


def _state_of(iterator: Any) -> Any:
    state = iterator.get_state() if hasattr(iterator, "get_state") else None
    return {"bytes": base64.b64encode(state).decode()} if isinstance(state, bytes) else state
