"""Reading ahead: the next stack of a stream is read and checked in a thread while the one before trains."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator

import jax

from jaxmlp.loop.streams._stacks import Batch, Position, Stack, name

__all__ = ["Position", "ahead"]  # Position: whoever reads ahead says from where

SCOPED = ("enable_x64", "numpy_dtype_promotion", "numpy_rank_promotion")  # JAX's options that are a thread's own


def ahead(stacks: Iterator[Stack], check: Callable[[Batch], None]) -> Generator[Stack]:
    """Yield the stacks, read and checked in the background while the one before trains.

    Whatever the reading raises, or the check, is raised here, in its turn: after the stacks that came before it.
    """
    # Two wait at most, so that memory holds no more: one that trains, two here, and one that is being read.
    ready: queue.Queue[Stack | BaseException | None] = queue.Queue(maxsize=2)
    closed = threading.Event()
    # What the caller has set for its own thread holds in the reader's as well.
    options = {name: getattr(jax.config, f"jax_{name}") for name in SCOPED}

    def put(item: Stack | BaseException | None) -> None:
        # With a time limit: who no longer takes from the queue has closed it, and would leave this thread waiting.
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
            put(error)  # of any kind: it belongs to the caller, and a thread of its own would only print it

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


def _check(stack: Stack, check: Callable[[Batch], None]) -> None:
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
