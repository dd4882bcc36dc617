"""One call of the loop: what the host does between two chunks, as observers of the engine's rounds."""

import contextlib
import signal
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from jaxmlp._engine.driver import Callbacks, Observer, Round, Source, drive
from jaxmlp._engine.exchange import is_told
from jaxmlp._engine.executor import Executor, outcome
from jaxmlp._engine.hosts import ALONE, Hosts
from jaxmlp._engine.plan import Plan
from jaxmlp._trees import first, is_tree, on_host
from jaxmlp.loop._checkpoints import NotSaved
from jaxmlp.loop._progress import Progress
from jaxmlp.loop._saved import SavedRun
from jaxmlp.loop._saving import Place, RunDirectory
from jaxmlp.loop._single import of_one
from jaxmlp.loop.streams import Earlier
from jaxmlp.training import State
from jaxmlp.types import Callback, History, Status, StrPath

SAVE = 10.0  # seconds between two checkpoints, where `every` is not given


class NonFinite(ValueError, FloatingPointError):
    """The loss or the parameters of a network became NaN or infinite; `state` and `history` are those before."""

    state: State
    history: History


class Interrupted(KeyboardInterrupt):
    """The run ended at the end of a chunk, as Ctrl-C or SIGTERM asked; `state` and `history` are those so far."""

    state: State
    history: History


class RunOptions(NamedTuple):
    """What of a call is about how it runs, and not about what."""

    every: int | None = None
    callbacks: tuple[Callback, ...] = ()
    progress: bool | None = None
    directory: StrPath | None = None
    keep: int = 3
    steps: int | None = None
    plan: Plan | None = None
    deadline: float = float("inf")  # on the clock of `time.monotonic`
    first: bool = True  # whether no part of the call was trained before
    more: bool = False  # whether parts of the call are to be trained after
    order_key: Any = None  # of the order of mapped files, where it is not the members' first
    earlier: Earlier | None = None  # what the recipes of the call that were trained before have read of a stream
    accept: frozenset[str] = frozenset()  # what may differ from the saved run
    rebuilt: bool = False  # whether the recipe comes from the checkpoint, and is nobody's code
    lie: Any = None  # parameters or a state that lie where those of a run that is resumed are to
    hosts: Hosts = ALONE  # the processes that run it together


class Saving(NamedTuple):
    """Where a run is saved, and what was saved there."""

    directory: RunDirectory
    saved: SavedRun | None


class Session:
    """Trains the members of an executor, shows them, saves them and lets signals end the run between two chunks."""

    def __init__(self, executor: Executor, source: Source, options: RunOptions, saving: Saving | None, single: bool):
        self._executor, self._source, self._options = executor, source, options
        self._saving, self._single, self._hosts = saving, single, options.hosts

    def run(self) -> None:
        """Train to the end, or to where a rule, a signal or the arithmetic ends it.

        Raises:
          NonFinite: where the one network diverged.
          Interrupted: where a signal ended the run before its end.
          NotSaved: where the directory cannot be written; what was trained is in the error.
        """
        executor, source, hosts = self._executor, self._source, self._hosts
        watched = executor.job.stops.watched
        shown = self._options.progress if hosts.leads else False
        progress = Progress(shown, source.unit, source.total, source.done, source.examples, watched)
        # Saved first: what progress and callbacks have shown is then never more than what a crash leaves behind.
        saves = None if self._saving is None else _Checkpointing(self._saving.directory, self._options)
        observers: list[Observer] = [] if saves is None else [saves]
        observers.append(_Showing(progress, self._single, hosts))
        observers.append(_Calling(self._options, self._single, saves))
        with progress, _Signals(progress) as signals:
            if self._saving is not None and self._saving.saved is not None:
                progress.say(f"the run in {self._saving.directory.path} {self._outlook()}")
            try:
                drive(
                    executor,
                    source,
                    observers,
                    deadline=self._options.deadline,
                    begins=self._options.first,
                    interrupted=lambda: bool(signals.caught),
                )
            except NotSaved as error:
                error.state, error.history = self._now()
                raise
        if self._single and executor.status()[0] == Status.DIVERGED:
            raise self._non_finite()
        # A signal in the last chunk of a part ends the call too, unless that was the last part.
        (caught,) = hosts.either(bool(signals.caught))
        if caught and (self._options.more or not source.finished and executor.anyone_runs):
            raise self._interrupted()

    def _outlook(self) -> str:
        over = self._source.finished or not self._executor.anyone_runs
        return "has ended, and comes back as it is" if over else f"goes on from {self._place()}"

    def _place(self) -> str:
        total = self._source.total
        return f"{self._source.unit} {self._source.done}" + (f" of {total}" if total else "")

    def _now(self) -> tuple[State, History]:
        """Return state and history as a result would be: with patience the parameters of the best epoch."""
        state, history = outcome(self._executor.runs_so_far())
        return of_one(state, history) if self._single else (state, history)

    def _non_finite(self) -> NonFinite:
        state, history = self._now()
        epoch = len(history["loss"])
        numbers = first(on_host(self._executor.job.members.numbers.by_name))
        told = ", ".join(
            f"{name}={float(value):g}" for name, value in numbers.items() if not is_tree(value) and np.ndim(value) == 0
        )
        kept = f", and saved in {self._saving.directory.path}" if self._saving is not None else ""
        error = NonFinite(
            f"the loss must stay finite; it or the parameters did not in epoch {epoch} (the first is 0), step "
            f"{int(state.step)}; the last good state is in this error's .state{kept}; likely causes: a learning rate "
            f"that is too high ({told or 'no hyperparams given'}), columns of x that are not standardised, a loss "
            f"without bound, whose gradient wants clipping"
        )
        error.state, error.history = state, history
        return error

    def _interrupted(self) -> Interrupted:
        if self._saving is not None:
            way = f"saved in {self._saving.directory.path}; the same call goes on from there, and so does loop.resume"
        else:
            way = "not saved: pass directory= to be able to go on"
        error = Interrupted(f"interrupted after {self._place()}; {way}")
        error.state, error.history = self._now()
        return error


class _Checkpointing:
    """Saves a checkpoint when one is due, and at the end."""

    def __init__(self, directory: RunDirectory, options: RunOptions):
        self._directory, self._every, self._hosts = directory, options.every, options.hosts
        self._saved_at, self._unsaved = time.monotonic(), False

    def see(self, now: Round) -> None:
        self._unsaved = True
        if self._every is None:
            due = bool(self._hosts.of_first(time.monotonic() - self._saved_at >= SAVE))
        else:
            due = now.source.done % self._every == 0
        if due or now.last:
            self._save(now)

    def end(self, now: Round | None) -> None:
        if now is not None and self._unsaved:  # a signal came after the round was called not the last
            self._save(now)
        self._directory.wait()

    def keep(self, now: Round, error: BaseException) -> None:
        """Save a round that an error ends, unless `every` says when to save; where that fails too, a note tells it."""
        try:
            if self._every is None:
                self.end(now)
        except Exception as other:
            error.add_note(str(other))

    def _save(self, now: Round) -> None:
        place = Place(now.source.done, now.source.epochs, now.source.place())
        self._directory.save(now.executor.saved_runs(), place, self._every)
        self._saved_at, self._unsaved = time.monotonic(), False


class _Showing:
    """Tells the progress line of each chunk."""

    def __init__(self, progress: Progress, single: bool, hosts: Hosts):
        self._progress, self._single, self._hosts = progress, single, hosts

    def see(self, now: Round) -> None:
        if not self._hosts.either(self._progress.due)[0]:  # the history is brought from all, by all
            return
        done = now.source.done
        if self._single and now.source.unit == "epoch":  # a network that stopped early has not done them all
            done = int(now.executor.runs.epochs[0])
        self._progress.update(done, now.source.epochs, now.executor.history(), now.status)

    def end(self, now: Round | None) -> None:
        pass


class _Calling(Callbacks):
    """Calls the callbacks; where one raises, what is trained is saved before its error goes on."""

    def __init__(self, options: RunOptions, single: bool, saves: _Checkpointing | None):
        super().__init__(options.callbacks, options.hosts, single=single, every=options.every)
        self._saves, self._hosts = saves, options.hosts

    def see(self, now: Round) -> None:
        try:
            with self._hosts.alike():
                super().see(now)
        except BaseException as error:
            if self._saves is not None and (is_told(error) or not self._hosts.many):  # all save, or none
                self._saves.keep(now, error)
            raise


class _Signals:
    """Remembers the first Ctrl-C or SIGTERM, and lets the second do what the system makes of it."""

    def __init__(self, progress: Progress):
        self.caught = 0
        self._progress, self._before = progress, {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set a handler
            for number in (signal.SIGINT, signal.SIGTERM):
                # None is a handler of another language's, which Python can replace and not bring back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    with contextlib.suppress(ValueError):  # of an interpreter that is not the main one
                        self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            # Who has set another one meanwhile keeps it.
            if signal.getsignal(number) in (self._catch, signal.SIG_DFL):
                signal.signal(number, handler)

    def _catch(self, number: int, frame: object) -> None:
        self.caught = number
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)
        self._progress.say("ending after this chunk; once more ends at once")
