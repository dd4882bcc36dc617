"""A walk through the passes of a loader: batch by batch, from anywhere, with errors that name the batch.

TURNING ──begin a pass──> READING ──read a batch──> READING      (steps are given: their count ends an epoch)
   ^                         │                        │
   │                         └──read, and look ahead──┴─> HOLDING (the pass goes on; its next batch is read)
   └────────────────── the pass has ended: nothing was there to hold
"""

import enum
from collections.abc import Callable, Iterator

from jaxmlp.loop._digest import of_data
from jaxmlp.loop.streams._passes import Passes, state_of
from jaxmlp.loop.streams._stacks import OTHER, Position, Taken, name
from jaxmlp.loop.streams._trail import Trails
from jaxmlp.types import Json


class Phase(enum.Enum):
    """What the next batch asks for."""

    TURNING = "a pass ended with its epoch: a new one must begin"
    READING = "the iterator stands before it"
    HOLDING = "it was read already, to see whether the one before was the last"


class Walk:
    """Where a walk through passes stands. `take` is its one move; `phase` says what the next one begins with.

    Args:
      passes: the passes.
      position: where the walk begins, or goes on.
      iterator: stands there.
      state: what `take` gave with the batch before, empty at the beginning. As JSON: "iterator", the loader's own
        state, where it has one; "length", the batches of an epoch; "first", the digest of the epoch's first batch;
        "digests", the trails of what was read.
    """

    def __init__(self, passes: Passes, position: Position, iterator: Iterator[object], state: Json):
        self.phase, self.position = Phase.READING, position
        self._passes, self._iterator, self._held = passes, iterator, None
        self._length: int | None = state.get("length")
        self._first: Json | None = state.get("first")
        self.trails = Trails(state.get("digests"), position)
        self._other = {OTHER: "before"} if OTHER in state else {}

    def take(self, wants_state: Callable[[Position], bool]) -> Taken:
        """Return the next batch, whether it ends its epoch, where the walk stands now, and the state to go on from.

        The loader is asked for its own state only where `wants_state`, since that may take long.
        """
        if self.phase is Phase.TURNING:
            self._iterator, self.phase = self._passes.begin(self.position.epoch), Phase.READING
        held, self._held = self._held, None
        batch = held if self.phase is Phase.HOLDING else self._passes.read(self._iterator, self.position)
        if batch is None:
            raise ValueError(self._missing())
        if self.position.step == 0:
            self._first = of_data(batch)
        self.trails.add(batch, (self.position.total if self._passes.steps else self.position.step) == 0)
        inside = self.position.after(1, False)
        # The state must be asked for before the look ahead: a run that goes on reads the batch that is held here.
        wanted = wants_state(inside) or inside.step == self._passes.steps
        saved = state_of(self._iterator) if wanted else None
        ends = self._ends(inside)
        state: Json = {"iterator": saved, "length": self._length, "first": self._first, **self._other}
        if wanted or ends:
            state["digests"] = self.trails.to_json()
        self.position = self.position.after(1, ends)
        return Taken(batch, ends, self.position, state)

    def _missing(self) -> str:
        """Return what to say where the next batch is not there."""
        told = f"{name(self.position)} must be there; "
        if self.position.step == 0 and self._passes.steps is None:
            return (
                f"{told}this pass gave no batch, where the first gave {self._length}; pass what makes a new iterator "
                f"each time"
            )
        return (
            f"{told}the stream ended after {self.position.step} batches; pass a stream that gives as many as steps "
            f"says, in each epoch, or fewer steps or epochs"
        )

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
