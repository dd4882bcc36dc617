"""A stream as a source of the engine's rounds: stacks of batches, read ahead while the one before trains."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxmlp import _check
from jaxmlp._engine.entry import like_key
from jaxmlp._engine.executor import Executor
from jaxmlp._engine.inputs import Member, Request, Tables, first_numbers
from jaxmlp._engine.share import columns_of, put_share
from jaxmlp._placement import Placement
from jaxmlp._preflight import check_data
from jaxmlp._weights import check_of_stream
from jaxmlp.loop.streams import Batch, Files, Position, Stream
from jaxmlp.loop.streams._prefetch import ahead
from jaxmlp.types import Data, Json

Put = Callable[[Data], Data]


class Steps:
    """The steps of a stream, a stack of them in a chunk.

    Args:
      epochs: how many there are.
      every: stacks end at its multiples.
      stream: what gives the stacks.
      place: where a saved run stood, as `place` wrote it.
      check: raises for a batch whose values are not as they must be.
      put: puts the batches of a stack where they are to lie, where the executor does not.
    """

    unit = "step"

    def __init__(
        self,
        epochs: int,
        every: int | None,
        stream: Stream,
        place: Json,
        check: Callable[[Batch], None],
        put: Put | None = None,
    ):
        self._total_epochs, self._stream, self._put = epochs, stream, put
        self._position = Position(*place.get("position", ()))
        self._state = place.get("stream", {})
        self.examples: int | None = stream.batch_size
        self._stacks = ahead(stream.stacks(self._position, epochs, every, self._state), check)

    @property
    def total(self) -> int | None:
        length = self._stream.steps or self._state.get("length")
        return length and self._total_epochs * length

    @property
    def done(self) -> int:
        return self._position.total

    @property
    def epochs(self) -> int:
        return self._position.epoch

    @property
    def finished(self) -> bool:
        return self._position.epoch >= self._total_epochs

    def advance(self, executor: Executor) -> bool:
        stack = next(self._stacks)
        batches = stack.batches if self._put is None else self._put(stack.batches)
        executor.train_batches(batches, stack.taken, closes=stack.ends, epoch=self._position.epoch)
        self._position, self._state = stack.after, stack.state
        return stack.ends

    def took(self, seconds: float) -> None:
        """A stack's length is that of its bytes, not of its time."""

    def place(self) -> Json:
        """Return where the stream stands, as JSON."""
        return {"position": list(self._position), "stream": self._state}

    def close(self) -> None:
        """Stop reading ahead."""
        self._stacks.close()


def checker(request: Request, members: Member, tables: Tables) -> Callable[[Batch], None]:
    """Return a check of a batch's values; that of labels traces the loss, so floats do without it."""
    first = request.hyperparams if request.single else first_numbers(members, tables)
    bound, key = request.recipe.bind(first), like_key(request.key)

    def check(batch: Batch) -> None:
        check_of_stream(batch[2])
        if all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(batch[1])):
            _check.examples("data", *batch)
        else:
            check_data("data", key, batch, bound, measured=False)

    return check


def shared(stream: Stream | None, placement: Placement | None) -> Put | None:
    """Let each process read the rows of files that lie on its devices alone, and return what puts them there.

    None where a process has the whole of each batch: all that do not read files give it on every process, the same.
    """
    if placement is None or not isinstance(stream, Files):
        return None
    stream.columns = columns_of(placement, stream.batch_size)
    if stream.columns is None:
        return None
    return partial(put_share, columns=stream.columns, size=stream.batch_size, placement=placement)
