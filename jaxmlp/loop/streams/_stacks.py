"""Stacks of equal batches: what one dispatch trains on, where a stream stands, and how it is read ahead."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

STACK_BYTES, STACK_STEPS = 2**25, 4096  # a dispatch takes about so much, and no more steps
SCOPED = ("enable_x64", "numpy_dtype_promotion", "numpy_rank_promotion")  # JAX's options that are a thread's own


class Position(NamedTuple):
    """Where a stream stands: epochs done, steps done of the next one, and steps done in all."""

    epoch: int = 0
    step: int = 0
    total: int = 0

    def after(self, count: int, ends: bool) -> "Position":
        """Return the position after `count` steps, where they end the epoch or not."""
        return Position(self.epoch + ends, 0 if ends else self.step + count, self.total + count)


class Stack(NamedTuple):
    """Batches for one dispatch, and where the stream stands after them."""

    first: Position
    batches: tuple[Any, Any, Any]  # (steps, batch, ...) each
    taken: int  # how many of the steps are there
    ends: bool  # whether they end the epoch
    after: Position
    state: dict[str, Any]  # what else the stream needs to go on from there, as JSON


def stack_size(example: Any, steps: int | None, every: int | None) -> int:
    """Return how many batches make a stack."""
    fits = max(1, STACK_BYTES // sum(a.nbytes for a in jax.tree.leaves(example)))
    return min(n for n in (fits, STACK_STEPS, steps, every) if n is not None)


def stack(leaves: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    whole = aligned((size, *leaves[0].shape), leaves[0].dtype)
    np.stack(leaves, out=whole[: len(leaves)])
    whole[len(leaves) :] = 0
    return whole


def name(position: Position) -> str:
    return f"batch {position.step} of epoch {position.epoch}"


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an empty array that begins where a CPU device can use it in place, without a copy."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def ahead(stacks: Iterator[Stack], check: Callable[[Any], None]) -> Generator[Stack]:
    """Yield the stacks, read and checked in the background while the one before trains."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=2)
    closed = threading.Event()
    # What the caller has set for its own thread holds in the reader's as well.
    options = {name: getattr(jax.config, f"jax_{name}") for name in SCOPED}

    def put(item: Any) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            with contextlib.ExitStack() as scopes:
                for name, value in options.items():
                    scopes.enter_context(getattr(jax, name)(value))
                for stack in stacks:
                    if closed.is_set():
                        return
                    _check(stack, check)
                    put(stack)
            put(None)
        except BaseException as error:
            put(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        reader.join(timeout=10)  # a thread that still computes while the interpreter ends would abort the process


def _check(stack: Stack, check: Callable[[Any], None]) -> None:
    """Check the values of a stack at once, and only where that fails find the batch."""
    there = jax.tree.map(lambda a: a[: stack.taken].reshape(-1, *a.shape[2:]), stack.batches)
    try:
        check(there)
    except ValueError as error:
        for i in range(stack.taken):
            try:
                check(jax.tree.map(lambda a, i=i: a[i], stack.batches))
            except ValueError as found:
                raise ValueError(f"{name(stack.first.after(i, False))}: {found}") from None
        raise error
