"""The loop of rounds that every run on the host goes through: train a chunk, look, stop some, show the others.

A source says what a chunk is (epochs of a table, batches of a stream), the rules say who stops, and observers see each
round: progress, callbacks, checkpoints. None of them changes a bit of what is trained.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jax import Array

from jaxmlp._engine.executor import Executor
from jaxmlp._engine.hosts import ALONE, Hosts
from jaxmlp.training import State
from jaxmlp.types import Callback, History, Json

FIX = "each process must be given batches of the same data, as many as the others"
CHUNK = 0.5  # seconds that a chunk is to take on the device, where its length is not given


class Source(Protocol):
    """What members are trained on, chunk by chunk."""

    unit: str  # "epoch" or "step"
    examples: int | None  # of one unit, for the rate that progress shows

    @property
    def done(self) -> int:
        """How many units are done."""
        ...

    @property
    def total(self) -> int | None:
        """How many units there are, where that is known."""
        ...

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        ...

    @property
    def finished(self) -> bool:
        """Whether all is done."""
        ...

    def advance(self, executor: Executor) -> bool:
        """Start the next chunk on the devices, and return whether it ends an epoch."""
        ...

    def took(self, seconds: float) -> None:
        """Be told how long the devices worked on the last chunk."""
        ...

    def place(self) -> Json:
        """Return where a run that is saved now stands, as JSON."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Round(NamedTuple):
    """What an observer sees when a chunk is done."""

    executor: Executor
    source: Source
    status: np.ndarray  # (members,), see `types.Status`
    closed: bool  # whether an epoch has ended with it
    last: bool  # whether no round follows


class Observer(Protocol):
    """What watches a run."""

    def see(self, now: Round) -> None:
        """Be shown a round; in the order in which the observers are given."""
        ...

    def end(self, now: Round | None) -> None:
        """Be told that the run has ended without an error; `now` is the last round, if there was one."""
        ...


class Epochs:
    """Epochs of a table in memory, so many in a chunk.

    Args:
      total: how many there are.
      chunk: how many a chunk has; None lets it take half a second.
      done: with how many to begin.
      cuts: epochs at which a chunk ends in any case, as rungs of halving must.
      examples: of one epoch.
    """

    unit = "epoch"

    def __init__(
        self, total: int, chunk: int | None, *, done: int = 0, cuts: Sequence[int] = (), examples: int | None = None
    ):
        self.total, self.done, self.examples = total, done, examples
        self._chunk, self._cuts = chunk, cuts
        self._fitting, self._length, self._chunks = 1.0, 0, 0

    @property
    def epochs(self) -> int:
        return self.done

    @property
    def finished(self) -> bool:
        return self.done >= self.total

    def advance(self, executor: Executor) -> bool:
        if self._chunk is None:
            end = self.done + max(1, math.floor(self._fitting))
        else:
            end = (self.done // self._chunk + 1) * self._chunk
        end = min(end, self.total, *(cut for cut in self._cuts if cut > self.done))
        executor.train_epochs(self.done, end)
        self._length, self.done = end - self.done, end
        return True

    def took(self, seconds: float) -> None:
        # The first chunk's time is mostly compiling, so the second is as long as it; then at most four times longer.
        self._chunks += 1
        self._fitting = self._length * (min(4.0, CHUNK / max(seconds, 1e-4)) if self._chunks > 1 else 1.0)

    def place(self) -> Json:
        return {"epoch": self.done}

    def close(self) -> None:
        pass


def drive(
    executor: Executor,
    source: Source,
    observers: Sequence[Observer] = (),
    *,
    deadline: float = math.inf,
    begins: bool = True,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Train chunk after chunk until the source or the members are at their end, or a rule or the caller ends it.

    Args:
      executor: the members, with the rules: those of epochs are read by the compiled program, halving here; and with
        the processes that run them together: clock and signals of any of them hold for all.
      source: what they are trained on.
      observers: shown each round, in this order.
      deadline: on the clock of `time.monotonic`; the chunk in which it passes is the last.
      begins: whether to train a chunk even where the deadline has passed, so that each call goes on by one at least.
      interrupted: asked between two rounds whether to end.
    """
    halving, rungs = executor.job.stops.halving, executor.job.stops.rungs(executor.job.recipe.epochs)
    now, hosts = None, executor.team

    def asked() -> tuple[bool, ...]:
        return hosts.either(time.monotonic() >= deadline, interrupted())

    while not source.finished and executor.anyone_runs:
        late, ends = asked()
        if ends or late and not begins:
            break
        started = time.monotonic()
        with hosts.alike():  # a stream may end on one of them, or a device run out of memory
            closed = source.advance(executor)
            _wait(executor.runs.status)
        hosts.check_same({"how far the data goes": f"{source.done} {closed} {source.finished}"}, FIX)
        # Only the devices' own time: a slow callback must not shorten the chunks.
        source.took(hosts.of_first(time.monotonic() - started))
        status = executor.status()
        if halving is not None and closed and source.epochs in rungs:
            status = executor.stop(halving.losers(executor.history(), status, source.epochs))
        late, ends = asked()
        last = source.finished or not executor.anyone_runs or late or ends
        now = Round(executor, source, status, closed, last)
        for observer in observers:
            with hosts.alike():
                observer.see(now)
        if late:
            break
    for observer in observers:
        with hosts.alike():
            observer.end(now)


class Callbacks:
    """Calls functions of (state, history so far) after each chunk that ends an epoch, or that is due.

    Each process calls those that it was given; where any has some, all bring what these are shown.
    """

    def __init__(
        self, callbacks: Sequence[Callback], hosts: Hosts = ALONE, *, single: bool = False, every: int | None = None
    ):
        self._callbacks, self._single, self._every = callbacks, single, every
        (self._called,) = hosts.either(bool(callbacks))

    def see(self, now: Round) -> None:
        due = now.last or (self._every is not None and now.source.done % self._every == 0)
        if not self._called or not (now.closed or due):
            return
        state, history = so_far(now, self._single)
        for callback in self._callbacks:
            callback(state, history)

    def end(self, now: Round | None) -> None:
        pass


def so_far(now: Round, single: bool) -> tuple[State, History]:
    """Return copies of state and history that stay when training goes on; of one network without the members' axis."""
    executor = now.executor
    history = executor.history()
    if single:
        done = int(executor.runs.epochs[0])
        return executor.state(0), History({name: values[0, :done] for name, values in history.items()})
    seen = {name: values[:, : now.source.epochs] for name, values in history.items()}
    return executor.state(), History({**seen, "status": now.status, **executor.progress()})


def _wait(array: Array) -> None:
    """Wait for a device as `block_until_ready` does, but let signals through.

    Python runs a signal's handler only in the main thread and only between two of its instructions; a thread that
    waits inside the compiler's code would answer Ctrl-C at the chunk's end, a lock can be interrupted at once.
    """
    done = threading.Event()

    def wait() -> None:
        with contextlib.suppress(Exception):  # raised below
            array.block_until_ready()
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    done.wait()
    array.block_until_ready()  # at once by now; raises what went wrong
