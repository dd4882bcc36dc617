"""What a walk has read, told by digests: what is read again on resuming is compared with it, batch by batch."""

import hashlib
import zlib
from typing import Any

import jax
import numpy as np

from jaxmlp.loop.streams._stacks import Batch, Position
from jaxmlp.types import Json

MARKS = 128  # how many places of a trail are kept, at most


def digest(batch: Batch) -> str:
    """Return a digest of all bytes of a batch: of those that a mistake might give, one of 2^32 has the same.

    A cyclic redundancy check, since it is made of each batch that is trained on, and costs a quarter of SHA-256.
    """
    found = 0
    for leaf in jax.tree.leaves(batch):
        array: Any = np.ascontiguousarray(leaf)
        # bfloat16 is none of the formats that Python knows for memory.
        array = array.view(np.uint8) if array.dtype.kind == "V" else array
        found = zlib.crc32(array.data, found ^ len(array))
    return f"{found:08x}"


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

    @classmethod
    def read(cls, told: Json) -> "Trail":
        """Return what `to_json` gave.

        Raises:
          ValueError: for what it never gave.
        """
        trail = cls(**told) if set(told) == {"count", "value", "stride", "marks"} else None
        if trail is not None and type(trail.count) is type(trail.stride) is int and trail.stride > 0 <= trail.count:
            texts = [trail.value, *trail.marks]
            if len(trail.marks) == trail.count // trail.stride and all(isinstance(text, str) for text in texts):
                return trail
        raise ValueError("no trail")

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


class Trails:
    """The trail of all that a walk has read and that of the pass that it is in, or after its end of that one.

    Args:
      saved: what `to_json` gave, None where nothing was saved or by a version that had no trails.
      start: where the walk begins; without `saved` only what is read from its beginning on has a trail.
    """

    def __init__(self, saved: Json | None, start: Position):
        new = Trail() if start.total == 0 else None
        self.run, self.this = new, new and Trail()
        if saved is None:
            return
        try:
            run, this = saved["run"], saved["pass"]
            self.run, self.this = run and Trail.read(run), this and Trail.read(this)
            right = True
        except (TypeError, ValueError, KeyError, AttributeError):
            right = False
        if not right or (self.run is not None and self.run.count != start.total):
            raise ValueError("stream.digests of the checkpoint must tell what was read before its place; they do not")

    def add(self, batch: Batch, begins: bool) -> None:
        """Go on by a batch, which begins a pass or does not."""
        if begins:
            self.this = Trail()
        told = digest(batch)
        if self.run is not None:
            self.run.add(f"begin {told}" if begins else told)
        if self.this is not None:
            self.this.add(told)

    def to_json(self) -> Json:
        """Return them as JSON."""
        trails = {"run": self.run, "pass": self.this}
        return {name: trail and trail.to_json() for name, trail in trails.items()}
