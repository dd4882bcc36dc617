"""A run and its directory: what was saved there comes back, and where the run stands is saved."""

import dataclasses
import shutil
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxmlp import _disk, records
from jaxmlp._choice import Figure
from jaxmlp._engine.exchange import told_by_words
from jaxmlp._engine.hosts import ALONE, Hosts
from jaxmlp._engine.names import flat
from jaxmlp._engine.runs import Run
from jaxmlp._known import is_apart
from jaxmlp.loop import _joint, _trouble
from jaxmlp.loop._bounds import last_number
from jaxmlp.loop._checkpoints import Checkpoints, NotSaved
from jaxmlp.loop._manifest import Manifest
from jaxmlp.loop._rules import figure_of
from jaxmlp.loop._saved import Check, SavedRun, opened, versions
from jaxmlp.loop._start import Start
from jaxmlp.types import Json, Numeric, StrPath


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


class RunDirectory:
    """The directory of one run, held by this process until the `with` block ends.

    A session calls `recover` and compares, then `begin`, then `save` again and again, and `wait` at the end. Parts of a
    run that have directories of their own have a `RunDirectory` each: they share nothing. Of several processes the
    first alone reads and writes, and the others are told: nobody else needs to see its disk. But arrays that no process
    alone has, those of one network that lies on several, are written and read by all.
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
            found = None if self._store is None else opened(self.path, self._store.recover, check, self._hosts.many)
        number, saved = self._hosts.from_first(found or self._done)
        # Each process knows the directory by a path of its own.
        self._done = number, saved and dataclasses.replace(saved, directory=self.path)
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
        """Save the runs, arrays (members, ...), in the background, after those before.

        Where some lie on several processes, all write together, and this returns once that is done.

        Raises:
          NotSaved: where those before, or these, could not be written.
        """
        history = {name: values[:, : place.epochs] for name, values in runs.history.items()}
        meta = {"run": self._manifest, "where": place.where, "every": every, "versions": versions()}
        meta["judged"] = self._judged
        arrays = flat(runs, "run") | self._start
        # The history goes first. A kill between the two leaves lines of epochs that the resumed run repeats, and its
        # next save finds them; the other way round, a kill at the end would leave lines out that nobody adds.
        score, files = _score(history, self._figure), self._history
        first = None if files is None else partial(files.update, history, runs.epochs)
        if any(map(is_apart, arrays.values())):
            return self._save_together(place.number, arrays, meta, score=score, first=first)
        with self._hosts.alike(NotSaved):
            if self._store is not None:
                self._store.save(place.number, arrays, meta, score=score, first=first)

    def _save_together(self, number: int, arrays: Mapping[str, Any], meta: Json, *, score: Any, first: Any) -> None:
        hosts, store = self._hosts, self._store
        with hosts.alike(NotSaved):
            saving = None if store is None else store.begin(number, first)
        folder = self.path / hosts.from_first(saving and saving.name)
        try:
            with hosts.alike(NotSaved), _trouble.writing(self.path, NotSaved), told_by_words():
                _joint.write(folder, arrays)
            with hosts.alike(NotSaved):
                if store is not None:
                    store.finish(number, folder, meta, score=score)
        except NotSaved:
            if store is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def wait(self) -> None:
        """Wait until all is on disk; raise a ValueError where it could not be written."""
        with self._hosts.alike(NotSaved):
            if self._store is not None:
                self._store.wait()


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
