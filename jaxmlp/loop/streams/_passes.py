"""The passes over a loader: begun and told their number, read with errors that name the batch."""

import base64
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxmlp import _check
from jaxmlp.loop.streams._stacks import Batch, Position, name

FIX = (
    "a stream must give the same batches again, by set_epoch(number), which is called before each pass, by get_state "
    "and set_state of its iterator, or made anew with the same seed as when the run began; "
    "accept='data' goes on with other batches"
)


class Passes:
    """The passes over a loader, told their number by `set_epoch` where the loader, or a part of it, has it.

    Args:
      loader: gives its batches anew each time that it is iterated; an iterator gives them once.
      steps: how many batches make an epoch, in one pass that serves them all; None if a pass is an epoch.
      unpack: from what the loader gives, with its position, to a batch; raises ValueError for what is none.
    """

    def __init__(self, loader: Iterable[object], steps: int | None, unpack: Callable[[object, Position], Batch]):
        self.loader, self.steps, self._unpack = loader, steps, unpack
        self._looked: Iterator[object] | None = None
        self._seen: list[object] = []

    def look(self) -> Batch:
        """Return the first batch; it is given again by a new pass, or by the same where there is only one.

        Raises:
          ValueError: where there is none.
        """
        iterator, seen = self.begin(0), []

        def unpack(batch: object, position: Position) -> Batch:
            seen.append(batch)
            return self._unpack(batch, position)

        first = Passes(self.loader, self.steps, unpack).read(iterator, Position())
        if first is None:
            raise ValueError(
                "data must give at least one batch; its first pass gave none; pass what makes a new iterator each time"
            )
        # One that cannot begin again: itself the data, or one of Python's own, as a `zip` that the loader keeps.
        # Another may begin anew, as PyTorch's with persistent workers, and to hold it would be to hold its workers.
        if iterator is self.loader or type(iterator).__module__ in ("builtins", "itertools"):
            self._looked, self._seen = iterator, seen
        return first

    @property
    def told(self) -> bool:
        """Whether each pass is told its number, so that a pass can be read again by itself."""
        return bool(self._listeners())

    def _listeners(self) -> list[Any]:
        """Return what has `set_epoch`: the loader, or as of PyTorch's its sampler or its data."""
        batches = getattr(self.loader, "batch_sampler", None)
        parts = [self.loader, *(getattr(self.loader, part, None) for part in ("sampler", "dataset")), batches]
        parts.append(getattr(batches, "sampler", None))
        return list({id(part): part for part in parts if hasattr(part, "set_epoch")}.values())

    def begin(self, epoch: int) -> Iterator[object]:
        """Return the iterator of a new pass, that of an epoch."""
        if not isinstance(self.loader, Iterable):
            raise ValueError(
                f"data must be arrays, files or an iterable of batches; got {_check.describe(self.loader)}"
            )
        try:
            for listener in self._listeners():
                listener.set_epoch(epoch)
            iterator = iter(self.loader)
        except Exception as error:
            raise ValueError(f"pass {epoch} of data could not begin: {type(error).__name__}: {error}") from error
        once = iterator is self._looked
        if (once and not self._seen) or (iterator is self.loader and epoch > 0 and self.steps is None):
            raise ValueError(
                f"data must give its batches again for each of its epochs; this {type(self.loader).__name__} is used "
                f"up after one; pass what makes a new iterator each time, or steps=, how many batches an epoch has"
            )
        if not once:
            return iterator
        seen, self._seen = self._seen, []
        return itertools.chain(seen, iterator)

    def read(self, iterator: Iterator[object], position: Position) -> Batch | None:
        """Return the next batch, or None at the end of the pass."""
        try:
            batch = next(iterator)
        except StopIteration:
            return None
        except Exception as error:
            raise ValueError(f"{name(position)} could not be read: {type(error).__name__}: {error}") from error
        return self._unpack(batch, position)


def state_of(iterator: Iterator[object]) -> Any:
    """Return an iterator's own state as JSON can hold it; None where it has none, or one that JSON would change."""
    get_state = getattr(iterator, "get_state", None)
    if get_state is None or not hasattr(iterator, "set_state"):
        return None
    try:
        state = get_state()
        state = {"bytes": base64.b64encode(state).decode()} if isinstance(state, bytes) else state
        return state if json.loads(json.dumps(state)) == state else None
    except Exception:  # what it cannot tell is counted instead: its batches are read again, and compared
        return None


def set_state(iterator: Any, saved: Any) -> bool | None:
    """Put an iterator into a state that `state_of` gave; return whether it took it, None where it has no state."""
    if saved is None or not hasattr(iterator, "set_state"):
        return None
    packed = isinstance(saved, dict) and set(saved) == {"bytes"}
    try:
        iterator.set_state(base64.b64decode(saved["bytes"]) if packed else saved)
    except Exception:  # Grain knows a source by its repr, which may hold an address: its batches are counted instead
        return False
    return True
