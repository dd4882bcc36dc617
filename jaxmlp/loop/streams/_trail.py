"""What a walk has read, told by digests: what is read again on resuming is compared with it, batch by batch."""

import hashlib
from typing import NamedTuple

import jax
import numpy as np

from jaxmlp.loop.streams._stacks import Batch, Position
from jaxmlp.types import Json

MARKS = 128  # how many places of a trail are kept, at most


def digest(batch: Batch) -> str:
    """Return a digest of all bytes of a batch."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(batch):
        found.update(repr(leaf.shape).encode())
        found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:16]


class Trail:
    """A running digest of batches, and what it was at every `stride`-th of them, so that a difference has a place.

    Up to 127 batches are told one by one; then every second mark is dropped, again and again, so that it stays small.

    >>> trail = Trail()
    >>> for number in range(300):
    ...     trail.add(str(number))
    >>> trail.count, trail.stride, len(trail.marks)
    (300, 4, 75)
    """

    def __init__(self, count: int = 0, value: str = "", stride: int = 1, marks: tuple[str, ...] = ()):
        self.count, self.value, self.stride, self.marks = count, value, stride, list(marks)

    def add(self, told: str) -> None:
        """Go on by a batch, told by its digest."""
        self.count += 1
        self.value = hashlib.sha256((self.value + told).encode()).hexdigest()[:16]
        if self.count % self.stride == 0:
            self.marks.append(self.value)
        if len(self.marks) == MARKS:
            self.marks, self.stride = self.marks[1::2], 2 * self.stride

    def agrees(self, again: "Trail") -> bool | None:
        """Tell whether another trail is at its end what this one was there; None where this one does not know."""
        if again.count == self.count:
            return again.value == self.value
        if again.count > self.count:
            return False
        return None if again.count % self.stride else again.value == self.marks[again.count // self.stride - 1]

    def to_json(self) -> Json:
        """Return it as JSON."""
        return {"count": self.count, "value": self.value, "stride": self.stride, "marks": list(self.marks)}


class Alike(NamedTuple):
    """Whether passes were equal: so many of them, of this digest; None where two were not."""

    passes: int = 0
    value: str | None = ""

    @property
    def known(self) -> bool:
        """Whether several passes were read, and all of them were equal."""
        return self.passes > 1 and self.value is not None


class Trails:
    """The trail of all that a walk has read and that of the pass that it is in, or after its end of that one.

    Args:
      saved: what `to_json` gave, None where nothing was saved or by a version that had no trails.
      start: where the walk begins; without `saved` only what is read from its beginning on has a trail.
    """

    def __init__(self, saved: Json | None, start: Position):
        saved = saved or {}
        run, this = saved.get("run"), saved.get("pass")
        self.run = Trail(**run) if run else Trail() if start.total == 0 else None
        self.this = Trail(**this) if this else Trail() if start.total == 0 else None
        self.alike = Alike(*saved.get("alike", ()))

    def add(self, batch: Batch, begins: bool) -> None:
        """Go on by a batch, which begins a pass or does not."""
        if begins:
            self.this = Trail()
        told = digest(batch)
        if self.run is not None:
            self.run.add(f"begin {told}" if begins else told)
        if self.this is not None:
            self.this.add(told)

    def end(self) -> None:
        """Say that the pass has ended."""
        if self.this is not None:
            passes, value = self.alike
            same = passes == 0 or value == self.this.value
            self.alike = Alike(passes + 1, self.this.value if same else None)

    def to_json(self) -> Json:
        """Return them as JSON."""
        trails = {"run": self.run, "pass": self.this}
        return {**{name: trail and trail.to_json() for name, trail in trails.items()}, "alike": list(self.alike)}
