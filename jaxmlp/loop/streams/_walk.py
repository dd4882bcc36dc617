"""A walk through the passes of a loader: batch by batch, from anywhere, with errors that name the batch.

TURNING ──begin a pass──> READING ──read a batch──> READING      (steps are given: their count ends an epoch)
   ^                         │                        │
   │                         └──read, and look ahead──┴─> HOLDING (the pass goes on; its next batch is read)
   └────────────────── the pass has ended: nothing was there to hold
"""

import base64
import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxmlp import _check
from jaxmlp.loop._digest import of_data
from jaxmlp.loop.streams._stacks import Batch, Position, Taken, name
from jaxmlp.types import Json


class Phase(enum.Enum):
    """What the next batch asks for."""

    TURNING = "a pass ended with its epoch: a new one must begin"
    READING = "the iterator stands before it"
    HOLDING = "it was read already, to see whether the one before was the last"


class Passes:
    """The passes over a loader, told their number by `set_epoch` where the loader has it.

    Args:
      loader: gives its batches anew each time that it is iterated; an iterator gives them once.
      steps: how many batches make an epoch, in one pass that serves them all; None if a pass is an epoch.
      unpack: from what the loader gives, with its position, to a batch; raises ValueError for what is none.
    """

    def __init__(self, loader: Iterable[object], steps: int | None, unpack: Callable[[object, Position], Batch]):
        self.loader, self.steps, self._unpack = loader, steps, unpack

    def begin(self, epoch: int) -> Iterator[object]:
        """Return the iterator of a new pass, that of an epoch."""
        set_epoch = getattr(self.loader, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        try:
            iterator = iter(self.loader)
        except TypeError:
            raise ValueError(
                f"data must be arrays, files or an iterable of batches; got {_check.describe(self.loader)}"
            ) from None
        if iterator is self.loader and epoch > 0 and self.steps is None:
            raise ValueError(
                f"data must give its batches again for each of its epochs; this {type(self.loader).__name__} is used "
                f"up after one; pass what makes a new iterator each time, or steps=, how many batches an epoch has"
            )
        return iterator

    def read(self, iterator: Iterator[object], position: Position) -> Batch | None:
        """Return the next batch, or None at the end of the pass."""
        try:
            batch = next(iterator)
        except StopIteration:
            return None
        except Exception as error:
            raise ValueError(f"{name(position)} could not be read: {type(error).__name__}: {error}") from error
        return self._unpack(batch, position)

    def resume(self, start: Position, state: Json, first: Iterator[object] | None = None) -> Iterator[object]:
        """Return an iterator that stands at `start`: put there by its own state, or by reading its way there.

        Args:
          start: the position.
          state: what `Walk.take` gave with the batch before it; empty for a new run.
          first: the only iterator, at its first batch, of a loader that is used up by one pass.
        """
        number = 0 if self.steps else start.epoch
        iterator = self.begin(number) if first is None else first
        saved = state.get("iterator")
        # Between two passes there is nothing to put back: the state is that of the pass before, which has ended.
        inside = start.step > 0 or self.steps is not None
        if saved is not None and inside and hasattr(iterator, "set_state"):
            try:
                _set_state(iterator, saved)
                return iterator
            except ValueError:  # Grain knows a source by its repr, which may hold an address: count batches instead
                iterator = self.begin(number) if first is None else first
        self._skip(iterator, start, state.get("first"))
        return iterator

    def _skip(self, iterator: Iterator[object], start: Position, first: str | None) -> None:
        """Read up to `start`, and compare the first batch of its epoch with what it was."""
        steps = self.steps
        for done in range(start.step if steps is None else start.total):
            place = Position(start.epoch, done) if steps is None else Position(*divmod(done, steps), done)
            batch = self.read(iterator, place)
            if batch is None:
                raise ValueError(
                    f"{name(place)} must be there, as it was before; the stream ended; pass the stream that the "
                    f"run was begun with"
                )
            if place.epoch == start.epoch and place.step == 0 and first not in (None, of_data(batch)):
                raise ValueError(
                    f"{name(place)} must be what it was before the run was saved; it holds other examples; a stream "
                    f"must give the same order again, by set_epoch(number) or get_state and set_state"
                )


class Walk:
    """Where a walk through passes stands. `take` is its one move; `phase` says what the next one begins with.

    Args:
      passes: the passes.
      position: where the walk begins, or goes on.
      iterator: stands there.
      state: what `take` gave with the batch before, empty at the beginning. As JSON: "iterator", the loader's own
        state, where it has one; "length", the batches of an epoch; "first", the digest of the epoch's first batch.
    """

    def __init__(self, passes: Passes, position: Position, iterator: Iterator[object], state: Json):
        self.phase, self.position = Phase.READING, position
        self._passes, self._iterator, self._held = passes, iterator, None
        self._length: int | None = state.get("length")
        self._first: str | None = state.get("first")

    def take(self, wants_state: Callable[[Position], bool]) -> Taken:
        """Return the next batch, whether it ends its epoch, where the walk stands now, and the state to go on from.

        The loader is asked for its own state only where `wants_state`, since that may take long.
        """
        if self.phase is Phase.TURNING:
            self._iterator, self.phase = self._passes.begin(self.position.epoch), Phase.READING
        held, self._held = self._held, None
        batch = held if self.phase is Phase.HOLDING else self._passes.read(self._iterator, self.position)
        if batch is None:
            raise ValueError(
                f"{name(self.position)} must be there; the stream ended after {self.position.step} batches; pass a "
                f"stream that gives as many as steps says, in each epoch, or fewer steps or epochs"
            )
        if self.position.step == 0:
            self._first = of_data(batch)
        inside = self.position.after(1, False)
        # The state must be asked for before the look ahead: a run that goes on reads the batch that is held here.
        saved = _state_of(self._iterator) if wants_state(inside) or inside.step == self._passes.steps else None
        ends = self._ends(inside)
        self.position = self.position.after(1, ends)
        return Taken(batch, ends, self.position, {"iterator": saved, "length": self._length, "first": self._first})

    def _ends(self, after: Position) -> bool:
        """Tell whether the batch just read is the last of its epoch, and change the phase accordingly."""
        if self._passes.steps is not None:
            ends = after.step == self._passes.steps
        else:
            self._held = self._passes.read(self._iterator, after)
            ends = self._held is None
            self.phase = Phase.TURNING if ends else Phase.HOLDING
        if ends and self._length is None:
            self._length = after.step
        elif ends and self._length is not None and after.step < self._length:
            raise ValueError(
                f"{name(after)} must be there, as in the first pass of {self._length} batches; the stream ended; for "
                f"passes of unequal length say how many steps an epoch has: steps={after.step}"
            )
        return ends


def _state_of(iterator: Iterator[object]) -> Any:
    """Return an iterator's own state as JSON can hold it, None where it has none."""
    get_state = getattr(iterator, "get_state", None)
    state = None if get_state is None else get_state()
    return {"bytes": base64.b64encode(state).decode()} if isinstance(state, bytes) else state


def _set_state(iterator: Any, saved: Any) -> None:
    iterator.set_state(base64.b64decode(saved["bytes"]) if set(saved) == {"bytes"} else saved)
