"""A stream of the user's own, held to what it promises: its stacks follow one another and have one form."""

import json
from collections.abc import Iterator
from typing import Any

import jax

from jaxmlp import _check
from jaxmlp.loop.streams._stacks import Batch, Position, Stack
from jaxmlp.types import Json


class Own:
    """The user's own stream, checked for what the loop would trip over later, or train on without a word.

    Args:
      stream: has the members of `Stream`.
      batch_size: None, or what it must have.
      steps: None, or what it must have.

    Raises:
      ValueError: for an example that is no batch, and for sizes that do not agree.
    """

    def __init__(self, stream: Any, batch_size: int | None, steps: int | None):
        self._stream, self.steps, self.batch_size = stream, stream.steps, stream.batch_size
        if steps not in (None, self.steps):
            raise ValueError(
                f"steps must be None or that of the stream, {self.steps}, which says itself how many batches an epoch "
                f"has; got {steps}"
            )
        self.example: Batch = stream.example
        leaves = jax.tree.leaves(self.example)
        if not isinstance(self.example, tuple) or len(self.example) != 3 or not all(map(_check.is_array, leaves)):
            raise ValueError(
                f"the example of a stream must be a batch (x, y, weight) of NumPy arrays; got "
                f"{type(self.example).__name__} {_check.length(self.example)}"
            )
        if batch_size not in (None, self.batch_size):
            raise ValueError(f"batch_size must be None or that of the stream, {self.batch_size}; got {batch_size}")
        if any(a.shape[:1] != (self.batch_size,) for a in leaves):
            raise ValueError(
                f"the example of a stream must have as many examples as its batch_size says, {self.batch_size}; got "
                f"{', '.join(map(_check.describe, leaves))}"
            )

    @property
    def fingerprint(self) -> list[str]:
        """The texts of the stream, as JSON has them."""
        return self._stream.fingerprint

    def stacks(self, start: Position, epochs: int, every: int | None, state: Json) -> Iterator[Stack]:
        """Yield the stream's stacks, each checked against the one before."""
        place, size = start, None
        for stack in self._stream.stacks(start, epochs, every, state):
            self._check_place(stack, place, every)
            size = self._check_form(stack, size)
            place = Position(*map(int, stack.after))
            yield stack._replace(taken=int(stack.taken), ends=bool(stack.ends), after=place)
        if place.epoch < epochs:
            raise ValueError(
                f"the stacks of a stream must go on to the end of epoch {epochs - 1}; they ended at {_told(place)}"
            )

    def _check_place(self, stack: Stack, place: Position, every: int | None) -> None:
        if not isinstance(stack, Stack):
            raise ValueError(f"a stream must yield stacks; got {type(stack).__name__}; make them by stacks_of")
        after = place.after(stack.taken, bool(stack.ends))
        if tuple(stack.first) != tuple(place) or tuple(stack.after) != tuple(after):
            raise ValueError(
                f"the stacks of a stream must follow one another from where they are asked for; at {_told(place)} got "
                f"{stack.taken} batches from {_told(stack.first)} to {_told(stack.after)}; begin at `start`"
            )
        if self.steps is not None and (place.step + stack.taken == self.steps) != bool(stack.ends):
            raise ValueError(
                f"an epoch of the stream must have {self.steps} batches, as it says; the stack at {_told(place)} has "
                f"{stack.taken} and {'ends it' if stack.ends else 'does not end it'}"
            )
        if every is not None and place.total // every != (after.total - 1) // every:
            raise ValueError(
                f"a stack must end where the steps done in all are a multiple of every={every}; got {stack.taken} "
                f"batches at {_told(place)}"
            )
        try:
            json.dumps(stack.state)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the state of a stack must be JSON; at {_told(place)} it is not: {error}") from error

    def _check_form(self, stack: Stack, size: int | None) -> int:
        """Return how many batches a stack has room for; raise unless it has the form of the example."""
        found, like = jax.tree.leaves(stack.batches), jax.tree.leaves(self.example)
        size = len(found[0]) if size is None and found and getattr(found[0], "ndim", 0) else size
        forms = [(getattr(a, "shape", None), getattr(a, "dtype", None)) for a in found]
        same = jax.tree.structure(stack.batches) == jax.tree.structure(self.example)
        if not same or forms != [((size, *a.shape), a.dtype) for a in like] or not 1 <= stack.taken <= (size or 0):
            raise ValueError(
                f"the stacks of a stream must be of one form, that of its example with a first axis of steps, of which "
                f"1 to all are taken; at {_told(stack.first)} got {stack.taken} taken of "
                f"{', '.join(map(_check.describe, found))}, the example is {', '.join(map(_check.describe, like))}"
            )
        return size or 0


def _told(place: Any) -> str:
    epoch, step, total = place
    return f"epoch {epoch}, step {step} ({total} in all)"
