"""One call of the loop: chunks of work on the device, and what the host does between two of them."""

import contextlib
import math
import signal
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp._engine.executor import Cohort
from jaxmlp._engine.inputs import losers, result
from jaxmlp._engine.program import DIVERGED, Run
from jaxmlp.loop._progress import Progress
from jaxmlp.loop._saving import Place, RunDirectory, SavedRun
from jaxmlp.loop.streams._prefetch import Position, ahead
from jaxmlp.training import State

CHUNK, SAVE = 0.5, 10.0  # seconds that a chunk is to take, and between two checkpoints, where `every` is not given


class NonFinite(ValueError, FloatingPointError):
    """The loss or the parameters of a network left the finite; `state` and `history` are those before."""

    state: Any
    history: dict[str, Any]


class Interrupted(KeyboardInterrupt):
    """The run ended at the end of a chunk, as Ctrl-C or SIGTERM asked; `state` and `history` are those so far."""

    state: Any
    history: dict[str, Any]


class Session:
    """One call of `train`: the loop itself."""

    def __init__(
        self,
        cohort: Cohort,
        work: Any,
        rules: Any,
        every: int | None,
        callbacks: tuple[Any, ...],
        progress: bool | None,
        saving: tuple[RunDirectory, SavedRun | None] | None,
        single: bool,
    ):
        self.cohort, self.work, self.rules, self.every = cohort, work, rules, every
        self.callbacks, self.progress, self.single = callbacks, progress, single
        self.directory, self.saved = (None, None) if saving is None else saving

    def run(self) -> tuple[Any, dict[str, Any]]:
        """Train to the end, or to where a rule, a signal or the arithmetic ends it."""
        cohort, work, directory = self.cohort, self.work, self.directory
        started = saved_at = time.monotonic()
        rungs = () if self.rules.halving is None else self.rules.halving.rungs(work.total_epochs)
        status = cohort.look()
        unsaved = False
        with (
            contextlib.closing(work),
            Progress(self.progress, work.unit, work.total, work.done, work.examples) as progress,
            _Signals(progress) as signals,
        ):
            if directory is not None and self.saved is not None:
                over = work.finished or not cohort.goes_on
                how = "has ended, and comes back as it is" if over else f"goes on from {self._place()}"
                progress.say(f"the run in {directory.path} {how}")
            while not work.finished and cohort.goes_on and not signals.caught:
                closed = work.advance()
                _wait(cohort.runs.status)
                status = cohort.look()
                if self.rules.halving is not None and closed and work.epochs in rungs:
                    cohort.stop(losers(self.rules.halving, cohort.history(), status, work.epochs))
                    status = cohort.look()
                now = time.monotonic()
                late = self.rules.budget is not None and now - started >= self.rules.budget.seconds
                last = work.finished or not cohort.goes_on or late or bool(signals.caught)
                due = last or (now - saved_at >= SAVE if self.every is None else work.done % self.every == 0)
                unsaved = True
                if directory is not None and due:
                    self._save(directory)
                    saved_at, unsaved = time.monotonic(), False
                if progress.due or self.callbacks and (due or closed):
                    history = cohort.history()
                    done = int(cohort.runs.epochs[0]) if self.single and work.unit == "epoch" else work.done
                    progress.update(done, work.epochs, history, status)
                    if self.callbacks and (due or closed):
                        state, seen = self._so_far(history, status)
                        for callback in self.callbacks:
                            callback(state, seen)
                if late:
                    break
            if directory is not None:
                if unsaved and signals.caught:
                    self._save(directory)
                directory.wait()
            caught = signals.caught
        state, history = self._result()
        if self.single and status[0] == DIVERGED:
            raise self._diverged(state, history)
        if caught and not work.finished and cohort.goes_on:
            raise self._interrupted(state, history)
        return state, history

    def _save(self, directory: RunDirectory) -> None:
        place = Place(self.work.done, self.work.epochs, self.work.where())
        directory.save(self.cohort.runs_in_order(), place, self.every)

    def _so_far(self, history: dict[str, np.ndarray], status: np.ndarray) -> tuple[Any, dict[str, Any]]:
        """Return copies of the state and the history that stay when training goes on."""
        state = jax.tree.map(lambda a: jnp.copy(a[0] if self.single else a[self.cohort.seats]), self.cohort.runs.state)
        done = int(self.cohort.runs.epochs[0]) if self.single else self.work.epochs
        seen = {name: values[0, :done] if self.single else values[:, :done] for name, values in history.items()}
        return state, seen if self.single else seen | {"status": status}

    def _result(self) -> tuple[Any, dict[str, Any]]:
        runs = self.cohort.runs
        if not self.single:
            seats = self.cohort.seats
            return result(jax.tree.map(lambda a: jnp.asarray(a)[seats], runs))
        run: Run = jax.tree.map(lambda a: a[0], runs)
        history = {name: values[: int(run.epochs)] for name, values in run.history.items()}
        return (run.state if run.best is None else run.state._replace(params=run.best.params)), history

    def _diverged(self, state: State, history: dict[str, Any]) -> NonFinite:
        epoch = len(history["loss"])
        numbers = {name: value[0] for name, value in self.cohort.members.hyperparams.items()}
        told = ", ".join(f"{name}={float(value):g}" for name, value in numbers.items() if np.ndim(value) == 0)
        kept = f", and saved in {self.directory.path}" if self.directory is not None else ""
        error = NonFinite(
            f"the loss must stay finite; it or the parameters did not in epoch {epoch} (the first is 0), step "
            f"{int(state.step)}; the last good state is in this error's .state{kept}; likely causes: a learning rate "
            f"that is too high ({told or 'no hyperparams given'}), columns of x that are not standardised, a loss "
            f"without bound, whose gradient wants clipping"
        )
        error.state, error.history = state, history
        return error

    def _place(self) -> str:
        return f"{self.work.unit} {self.work.done}" + (f" of {self.work.total}" if self.work.total else "")

    def _interrupted(self, state: Any, history: dict[str, Any]) -> Interrupted:
        if self.directory is not None:
            way = f"saved in {self.directory.path}; the same call goes on from there, and so does loop.resume"
        else:
            way = "not saved: pass directory= to be able to go on"
        error = Interrupted(f"interrupted after {self._place()}; {way}")
        error.state, error.history = state, history
        return error


class Epochs:
    """Work on data in memory: chunks of epochs."""

    unit = "epoch"

    def __init__(self, cohort: Cohort, total: int, every: int | None, halving: Any, where: Any, examples: int):
        self.cohort, self.total, self.every, self.examples = cohort, total, every, examples
        self.total_epochs = total
        self.rungs = [] if halving is None else halving.rungs(total)
        self.done = self.epochs = int(where.get("epoch", 0))
        self._chunk, self._began, self._chunks = 1.0, 0.0, 0

    @property
    def finished(self) -> bool:
        return self.done >= self.total

    def advance(self) -> bool:
        now = time.monotonic()
        if self.every is not None:
            end = (self.done // self.every + 1) * self.every
        else:
            if self._chunks > 1:  # the first chunk compiles
                self._chunk *= min(4.0, CHUNK / max(now - self._began, 1e-4))
            end = self.done + max(1, math.floor(self._chunk))
        end = min(end, self.total, *(rung for rung in self.rungs if rung > self.done))
        self._chunk, self._began, self._chunks = end - self.done, now, self._chunks + 1
        self.cohort.advance(self.done, end)
        self.done = self.epochs = end
        return True

    def where(self) -> dict[str, Any]:
        return {"epoch": self.done}

    def close(self) -> None:
        pass


class Steps:
    """Work on a stream: stacks of batches, read ahead."""

    unit = "step"

    def __init__(self, cohort: Cohort, epochs: int, every: int | None, stream: Any, where: Any, check: Any):
        self.cohort, self.total_epochs, self.stream = cohort, epochs, stream
        self.position = Position(*where.get("position", ()))
        self.state = where.get("stream", {})
        self.examples = stream.batch_size
        self._stacks = ahead(stream.stacks(self.position, epochs, every, self.state), check)

    @property
    def total(self) -> int | None:
        length = self.stream.steps or self.state.get("length")
        return length and self.total_epochs * length

    @property
    def done(self) -> int:
        return self.position.total

    @property
    def epochs(self) -> int:
        return self.position.epoch

    @property
    def finished(self) -> bool:
        return self.position.epoch >= self.total_epochs

    def advance(self) -> bool:
        stack = next(self._stacks)
        self.cohort.follow(stack.batches, stack.taken, ends=stack.ends, epoch=self.position.epoch)
        self.position, self.state = stack.after, stack.state
        return stack.ends

    def where(self) -> dict[str, Any]:
        return {"position": list(self.position), "stream": self.state}

    def close(self) -> None:
        self._stacks.close()


def _wait(array: Array) -> None:
    """Wait for a device as `block_until_ready` does, but let signals through: a lock may be interrupted."""
    done = threading.Event()

    def wait() -> None:
        with contextlib.suppress(Exception):  # whoever reads the array raises it
            array.block_until_ready()
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    done.wait()


class _Signals:
    """Remembers the first Ctrl-C or SIGTERM, and lets the second do what the system makes of it."""

    def __init__(self, progress: Progress):
        self.caught = 0
        self._progress, self._before = progress, {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: Any) -> None:
        self.caught = number
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)
        self._progress.say("ending after this chunk; once more ends at once")
