"""What a walk has read, told by digests: what is read again on resuming is compared with it, batch by batch."""

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmlp.loop.streams._stacks import Batch, Position, name
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
        self.count: int = count
        self.value: str = value
        self.stride: int = stride
        self.marks: list[str] = list(marks)

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
    """The trails of all that a walk has read, of the pass that it is in or that has just ended, and of the one before.

    Args:
      saved: what `to_json` gave, None where nothing was saved or by a version that had no trails; one that kept none
        of the pass before is compared without it.
      start: where the walk begins; without `saved` only what is read from its beginning on has a trail.
    """

    def __init__(self, saved: Json | None, start: Position):
        new = Trail() if start.total == 0 else None
        self.run, self.this, self.before = new, new and Trail(), None
        if saved is None:
            return
        try:
            trails = [told and Trail.read(told) for told in (saved["run"], saved["pass"], saved.get("before"))]
            self.run, self.this, self.before = trails
            passes = sum(trail.count for trail in trails[1:] if trail is not None)
            right = passes <= start.total and (self.run is None or self.run.count == start.total)
        except (TypeError, ValueError, KeyError, AttributeError):
            right = False
        if not right:
            raise ValueError("stream.digests of the checkpoint must tell what was read before its place; they do not")

    def last(self, start: Position) -> Trail | None:
        """Return the trail of the last whole pass before the start, None where it is not known."""
        return self.this if start.step == 0 else self.before

    def add(self, batch: Batch, begins: bool) -> None:
        """Go on by a batch, which begins a pass or does not."""
        if begins:
            self.this, self.before = Trail(), self.this
        told = digest(batch)
        if self.run is not None:
            self.run.add(f"begin {told}" if begins else told)
        if self.this is not None:
            self.this.add(told)

    def to_json(self) -> Json:
        """Return them as JSON."""
        trails = {"run": self.run, "pass": self.this, "before": self.before}
        return {name: trail and trail.to_json() for name, trail in trails.items()}


class Earlier:
    """The trails of the recipes of a call that were trained before, on batches that must be those of each later one."""

    def __init__(self) -> None:
        self._runs: list[Trail] = []

    def follow(self, run: Trail | None) -> Callable[[Position], None]:
        """Take in the trail of a further recipe, and return what compares it with the others as it grows.

        That of a run whose beginning is not known, None, is compared with none.
        """
        before = [*self._runs]
        self._runs += [] if run is None else [run]

        def compare(place: Position) -> None:
            """Raise where the batch at a place is not, or one shortly before it was not, what the others had."""
            for other in before:
                if run is not None and run.count <= other.count and other.agrees(run) is False:
                    raise ValueError(
                        f"data must give the same batches to each recipe; {name(place)}, or one shortly before it, is "
                        f"another than an earlier one had; give it set_epoch(number), which is called before each "
                        f"pass, or train each recipe in a call of its own"
                    )

        return compare
