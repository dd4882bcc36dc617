"""Back to where a run was saved: a loader is put there by its own state, or read again and compared all the way.

What is read again depends on what is known of the passes:

- with `steps`, the one pass, from its beginning;
- where each pass is told its number, and of a list, the last whole pass and what was read of the one after it: passes
  that are read as before, to the same end, say that the rest and the next one will be as well;
- else all passes, since an order that goes on from pass to pass, as that of a seeded generator, comes from all before;
  that they were equal so far says nothing of the next.
"""

from collections.abc import Iterator

from jaxmlp.loop._digest import of_data
from jaxmlp.loop.streams._passes import FIX, Passes, set_state
from jaxmlp.loop.streams._stacks import OTHER, Batch, Position, name
from jaxmlp.loop.streams._trail import Trail, Trails, digest
from jaxmlp.types import Json


class Differs(ValueError):
    """A loader gives other batches than before."""


def resume(passes: Passes, start: Position, state: Json) -> Iterator[object]:
    """Return an iterator that stands at `start`.

    Args:
      passes: over the loader.
      start: the position.
      state: what `Walk.take` gave with the batch before it; empty for a new run.

    Raises:
      Differs: where the loader gives other batches than before, or not as many.
      ValueError: where it cannot be read.
    """
    return _Replay(passes, start, state).run()


class _Replay:
    """The one use of what was saved of a walk."""

    def __init__(self, passes: Passes, start: Position, state: Json):
        self._passes, self._start, self._state = passes, start, state
        self._saved = Trails(state.get("digests"), start)

    def run(self) -> Iterator[object]:
        """Return an iterator that stands at the start."""
        passes, start = self._passes, self._start
        other = self._state.get(OTHER)
        if other == "now":
            iterator, done = passes.begin(0 if passes.steps else start.epoch), 0 if passes.steps else start.step
            return self._read(iterator, Position(start.epoch), done, _Again(None, False))
        if passes.steps is not None:
            iterator, there = self._begun(0)
            again = _Again(self._saved.run, True)
            if other and not there:
                raise _unknown()
            return iterator if there else self._read(iterator, Position(), start.total, again)
        # Whether a pass can be read without those before it.
        alone = passes.told or type(passes.loader) in (list, tuple)
        if not alone and other:
            raise _unknown()
        if not alone and start.epoch > 0:
            return self._all(passes.begin(0))
        iterator, there = self._begun(start.epoch)
        if there:
            return iterator
        last = _Again(self._saved.last(start), False)
        if start.epoch > 0 and last.before is not None:
            place = Position(start.epoch - 1)
            iterator = self._read(passes.begin(place.epoch), place, last.before.count, last)
            self._must_end(iterator, Position(place.epoch, last.before.count))
            iterator = passes.begin(start.epoch)
        return self._read(iterator, Position(start.epoch), start.step, _Again(self._saved.this, False))

    def _begun(self, epoch: int) -> tuple[Iterator[object], bool]:
        """Return the iterator of a pass, and whether its own state has put it to the start."""
        # Between two passes there is nothing to put back: the state is that of the pass before, which has ended.
        saved = self._state.get("iterator") if self._start.step or self._passes.steps else None
        iterator = self._passes.begin(epoch)
        took = set_state(iterator, saved)
        return (self._passes.begin(epoch) if took is False else iterator), bool(took)

    def _all(self, iterator: Iterator[object]) -> Iterator[object]:
        """Read all passes before the epoch of the start, and of that one up to its step."""
        start, again, place = self._start, _Again(self._saved.run, True), Position()
        before = start.total - start.step  # batches of whole passes
        while place.epoch < start.epoch:
            if place.total == before and place.epoch == start.epoch - 1:
                self._must_end(iterator, place)
                place = place.after(0, True)
                iterator = self._passes.begin(place.epoch)
            elif place.total < before and (batch := self._passes.read(iterator, place)) is not None:
                again.compare(batch, place, place.step == 0)
                place = place.after(1, False)
            elif place.total < before and place.step > 0 and place.epoch < start.epoch - 1:
                place = place.after(0, True)
                iterator = self._passes.begin(place.epoch)
            else:
                raise Differs(
                    f"the passes before epoch {start.epoch} must have {before} batches together, as before the run was "
                    f"saved; {name(place)} is not as it was; {FIX}"
                )
        return self._read(iterator, place, start.step, again)

    def _read(self, iterator: Iterator[object], place: Position, count: int, again: "_Again") -> Iterator[object]:
        """Read so many batches from a place on, and compare them."""
        steps = self._passes.steps
        for _ in range(count):
            batch = self._passes.read(iterator, place)
            if batch is None:
                raise Differs(
                    f"{name(place)} must be there, as it was before; the stream ended; pass the stream that the "
                    f"run was begun with"
                )
            told = self._state.get("first") if place[:2] == (self._start.epoch, 0) else None
            if again.before is None and told not in (None, of_data(batch)):  # saved by a version without trails
                raise _other(place, place)
            again.compare(batch, place, place.total == 0 if steps is not None else place.step == 0)
            place = place.after(1, place.step + 1 == steps)
        return iterator

    def _must_end(self, iterator: Iterator[object], place: Position) -> None:
        if self._passes.read(iterator, place) is not None:
            raise Differs(
                f"epoch {place.epoch} must end after {place.step} batches, as before the run was saved; the stream "
                f"goes on; {FIX}"
            )


class _Again:
    """Batches that are read again, compared with the trail of what they were, where there is one."""

    def __init__(self, before: Trail | None, begins: bool):
        self.before = before if before is not None and before.count else None
        self._begins, self._now = begins, Trail()
        self._since: Position | None = None  # the first of those that are not compared yet

    def compare(self, batch: Batch, place: Position, begins: bool) -> None:
        """Compare the next batch, which stands at a place and begins a pass or does not."""
        if self.before is None:
            return
        told, self._since = digest(batch), self._since or place
        self._now.add(f"begin {told}" if begins and self._begins else told)
        agrees = self.before.agrees(self._now)
        if agrees is False:
            raise _other(self._since, place)
        self._since = None if agrees else self._since


def _other(first: Position, last: Position) -> Differs:
    where = name(first) if first == last else f"{name(first)}, or one after it up to {name(last)},"
    return Differs(f"{where} must be what it was before the run was saved; it holds other examples; {FIX}")


def _unknown() -> Differs:
    return Differs(
        "data must give each pass by its number, as set_epoch(number) tells it, for a run to be resumed a second time "
        "after other data were accepted; the order of this loader comes from all passes before; accept it again"
    )
