"""A run and its directory: what was saved there comes back, and where the run stands is saved."""

import dataclasses
import platform
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlp import _check, _disk, records
from jaxmlp._choice import Figure
from jaxmlp._engine.executor import with_keys, without_keys
from jaxmlp._engine.hosts import ALONE, Hosts
from jaxmlp._engine.names import flat, path_name
from jaxmlp._engine.runs import Run
from jaxmlp.loop import _reading
from jaxmlp.loop._bounds import check_forms, last_number
from jaxmlp.loop._checkpoints import Checkpoints, NotSaved
from jaxmlp.loop._fields import META
from jaxmlp.loop._folder import Form
from jaxmlp.loop._hidden import version
from jaxmlp.loop._manifest import Manifest
from jaxmlp.loop._rules import figure_of
from jaxmlp.loop._start import Start
from jaxmlp.types import Json, Numeric, Status, StrPath

Check = Callable[[Manifest, Mapping[str, Form]], None]
# Patience counted from the best epoch itself before the two were apart: what a checkpoint of that time calls them.
ONCE = {"run.best.mark": "run.best.loss", "run.best.since": "run.best.epoch"}


class Place(NamedTuple):
    """Where a run stands.

    Args:
      number: of the checkpoint: epochs, or steps of a stream, that are done.
      epochs: epochs that are done whole.
      where: what the source of the data needs to go on from there, as JSON.
    """

    number: int
    epochs: int
    where: Json


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run as its newest whole checkpoint holds it; `where` is that of its `Place`, `every` that of the call."""

    directory: Path
    manifest: Manifest
    arrays: dict[str, np.ndarray]
    where: Json
    every: int | None
    versions: dict[str, str]

    def with_epochs(self, epochs: int) -> "SavedRun":
        """Return the run with more epochs to go; raise a ValueError for fewer than it has."""
        return dataclasses.replace(self, manifest=self.manifest.with_epochs(epochs))

    def start(self) -> Start:
        """Return the key or keys and the numbers that the run began with."""
        return self.manifest.rebuild_start(self.arrays)

    def has_ended(self, epochs: int) -> bool:
        """Tell whether no member has an epoch to go of so many."""
        status = self.arrays.get("run.status", np.zeros(1))
        return isinstance(self.done, int) and self.done >= epochs or bool((status != Status.RUNNING).all())

    @property
    def done(self) -> Any:
        """How many epochs are done whole, as the checkpoint says it."""
        return self.where.get("epoch", [*(self.where.get("position") or ()), 0][0])

    def check(self, given: Manifest, accept: frozenset[str] = frozenset()) -> None:
        """Compare with what is given now, but for what `accept` names; warn of other versions and other devices.

        Raises:
          ValueError: with a line for each difference.
        """
        for line in self.manifest.check_same(given, self.directory, accept):
            warnings.warn(
                f"{line}: the run goes on, but only equal devices promise equal bits",
                stacklevel=_check.level_of_caller(),
            )
        now = versions()
        for name in now:
            if self.versions.get(name) != now[name]:
                warnings.warn(
                    f"version.{name}: saved {self.versions.get(name, 'nothing')}, given {now[name]}: the run goes on, "
                    f"but only equal versions promise equal bits",
                    stacklevel=_check.level_of_caller(),
                )

    def restore(self, like: Run) -> Run:
        """Return the saved runs in the form of `like`, whose arrays may be shapes alone.

        A history that is to become longer is filled up with NaN, as that of a run that begins.

        Raises:
          ValueError: with a line for each array that has another form.
        """
        plain = jax.eval_shape(without_keys, like)
        leaves, problems = [], []
        for path, leaf in jax.tree_util.tree_leaves_with_path(plain):
            name = path_name("run", path)
            found = self.arrays.get(name, self.arrays.get(ONCE.get(name, "")))
            if found is not None and name.startswith("run.history.") and found.shape[1] < leaf.shape[1]:
                more = np.full((len(found), leaf.shape[1] - found.shape[1], *found.shape[2:]), np.nan, found.dtype)
                found = np.concatenate([found, more], axis=1)
            if found is None or found.shape[1:] != leaf.shape[1:] or found.dtype != leaf.dtype:
                got = "nothing" if found is None else f"{found.dtype}{found.shape[1:]}"
                problems.append(f"{name}: saved {got}, given {leaf.dtype}{leaf.shape[1:]}")
            leaves.append(found)
        if problems:
            raise ValueError(
                f"a run must be resumed with the shapes it began with; {self.directory} holds others:\n  "
                + "\n  ".join(problems[:12])
                + "\npass the model and optimizer that were saved, or another directory"
            )
        return with_keys(jax.tree.unflatten(jax.tree.structure(plain), leaves), like)


class RunDirectory:
    """The directory of one run, held by this process until the `with` block ends.

    A session calls `recover` and compares, then `begin`, then `save` again and again, and `wait` at the end. Parts of a
    run that have directories of their own have a `RunDirectory` each: they share nothing. Of several processes the
    first alone reads and writes, and the others are told: nobody else needs to see its disk.
    """

    def __init__(self, path: StrPath, keep: int = 3, hosts: Hosts = ALONE):
        """Open or make it; the newest `keep` checkpoints and the best one stay.

        Raises:
          ValueError: where it cannot be written, or another process trains in it.
        """
        self.path, self._hosts = _disk.path_of("directory", path), hosts
        with hosts.alike():
            self._store = Checkpoints(path, keep) if hosts.leads else None
            self._history = records.HistoryFiles(self.path) if hosts.leads else None
        self._done: tuple[int, SavedRun | None] = -1, None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *error: object) -> None:
        if self._store is not None:
            self._store.close()

    def recover(self, check: Check | None = None) -> SavedRun | None:
        """Return the run as its newest whole checkpoint holds it, if there is one.

        Damaged ones are named by a warning and set aside, as `00000012.damaged`. No array is read before its words and
        its shape are known to belong to one run.

        Args:
          check: raises a ValueError unless a run of this manifest may have arrays of these forms.

        Raises:
          ValueError: where checkpoints are there and none can be used; nothing is changed then.
        """
        with self._hosts.alike():
            opened = None if self._store is None else _opened(self.path, self._store.recover, check)
        self._done = self._hosts.from_first(opened or self._done)
        return self._done[1]

    def begin(self, manifest: Manifest, start: Start) -> None:
        """Say what the run is made of and begins with; each checkpoint holds it.

        Raises:
          ValueError: where it is to be saved and cannot be.
        """
        number, saved = self._done
        # A run that has ended comes back from where nothing can be written, too.
        with self._hosts.alike():
            if self._store is not None and (saved is None or not saved.has_ended(manifest.recipe["epochs"])):
                self._store.check_names(number + 1, last_number(manifest), ("history.csv", "history.jsonl"))
        self._manifest, self._start = manifest.to_json(), start.arrays()
        self._judged, self._figure = manifest.judged(), figure_of(manifest.stop)

    def save(self, runs: Run, place: Place, every: int | None) -> None:
        """Save the runs, NumPy arrays (members, ...), in the background, after those before.

        Raises:
          ValueError: where those before could not be written.
        """
        history = {name: values[:, : place.epochs] for name, values in runs.history.items()}
        meta = {"run": self._manifest, "where": place.where, "every": every, "versions": versions()}
        meta["judged"] = self._judged
        arrays = flat(runs, "run") | self._start
        # The history goes first. A kill between the two leaves lines of epochs that the resumed run repeats, and its
        # next save finds them; the other way round, a kill at the end would leave lines out that nobody adds.
        score = _score(history, self._figure)
        with self._hosts.alike(NotSaved):
            if self._store is not None and (files := self._history) is not None:
                self._store.save(
                    place.number, arrays, meta, score=score, first=lambda: files.update(history, runs.epochs)
                )

    def wait(self) -> None:
        """Wait until all is on disk; raise a ValueError where it could not be written."""
        with self._hosts.alike(NotSaved):
            if self._store is not None:
                self._store.wait()


def read_run(directory: Path) -> SavedRun | None:
    """Return the run as its newest whole checkpoint holds it, if there is one, and change nothing in the directory.

    Damaged ones are named by a warning.

    Raises:
      ValueError: where checkpoints are there and none can be used.
    """
    opened = _opened(directory, lambda check: _reading.recover(directory, check), None)
    return None if opened is None else opened[1]


def _opened(
    directory: Path, recover: Callable[[_reading.Check], _reading.Saved | None], check: Check | None
) -> tuple[int, SavedRun] | None:
    """Return what `recover` reads once the words of a checkpoint fit its arrays: its number, and the run."""
    read: list[tuple[Json, Manifest]] = []

    def check_all(meta: Json, forms: Mapping[str, Form]) -> None:
        meta = META("run.json", meta)
        manifest = Manifest.from_json(meta["run"])
        check_forms(manifest, forms)
        if check is not None:
            check(manifest, forms)
        read.append((meta, manifest))

    found = recover(check_all)
    if found is None:
        return None
    meta, manifest = read[-1]
    return found.number, SavedRun(directory, manifest, found.arrays, meta["where"], meta["every"], meta["versions"])


def _score(history: Mapping[str, Numeric], figure: Figure | None) -> float | None:
    """Return by what the best checkpoint is chosen, the lowest: the last figure of the best member.

    That of patience or halving; without them the validation loss, or else the loss.
    """
    figure = figure or Figure("validation_loss" if "validation_loss" in history else "loss")
    if figure.name not in history:  # nothing is chosen by another figure than the one that was named
        return None
    values = figure.less(np.asarray(history[figure.name]))
    if values.shape[1] == 0 or np.isnan(values[:, -1]).all():
        return None
    return float(np.nanmin(values[:, -1]))


def versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "optax", "jaxmlp")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
