"""A run as its newest whole checkpoint holds it, and how that is read."""

import dataclasses
import platform
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlp import _check
from jaxmlp._engine.exchange import told_by_words
from jaxmlp._engine.executor import with_keys, without_keys
from jaxmlp._engine.hosts import ALONE, Hosts, hosts_of
from jaxmlp._engine.lie import of_run
from jaxmlp._engine.names import path_name
from jaxmlp._engine.runs import Run
from jaxmlp._placement import Placement
from jaxmlp.loop import _joint, _reading, _trouble
from jaxmlp.loop._bounds import check_forms
from jaxmlp.loop._fields import META
from jaxmlp.loop._folder import Form, Stored, read_arrays
from jaxmlp.loop._hidden import version
from jaxmlp.loop._manifest import Manifest
from jaxmlp.loop._start import Start
from jaxmlp.types import Json, Status

Check = Callable[[Manifest, Mapping[str, Form]], None]
Recover = Callable[[_reading.Check, _reading.Later], _reading.Saved | None]
LARGE = ("run.state.params", "run.state.opt_state", "run.best.params")
# Patience counted from the best epoch itself before the two were apart: what a checkpoint of that time calls them.
ONCE = {"run.best.mark": "run.best.loss", "run.best.since": "run.best.epoch"}


class Where(NamedTuple):
    """Where a run is to lie: on a mesh, if it is one network there, and on which processes."""

    placement: Placement = Placement()
    hosts: Hosts = ALONE

    @property
    def is_apart(self) -> bool:
        """Whether it lies on devices of several processes, each of which has a part."""
        return self.placement.mesh is not None and hosts_of(tuple(self.placement.mesh.devices.flat)).many


HERE = Where()


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run as its newest whole checkpoint holds it; `where` is that of its `Place`, `every` that of the call."""

    directory: Path
    manifest: Manifest
    arrays: dict[str, Any]  # of NumPy, or `Stored` where they are read once it is known where they are to lie
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

    def restore(self, like: Run, where: Where = HERE) -> Run:
        """Return the saved runs in the form of `like`, whose arrays may be shapes alone.

        A history that is to become longer is filled up with NaN, as that of a run that begins. What was not read yet is
        read now, where it is to lie.

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
        leaves = self._laid(leaves, plain, where)
        return with_keys(jax.tree.unflatten(jax.tree.structure(plain), leaves), like)

    def at_hand(self, hosts: Hosts) -> "SavedRun":
        """Return the run with all arrays read, by the first process for all."""
        stored = {name: a for name, a in self.arrays.items() if isinstance(a, Stored)}
        if not stored:
            return self
        folder = self.directory / next(iter(stored.values())).checkpoint
        with hosts.alike(), _trouble.reading(folder):
            found = read_arrays(folder, stored) if hosts.leads else {}
        return dataclasses.replace(self, arrays={**self.arrays, **hosts.from_first(found)})

    def _laid(self, leaves: list[Any], like: Run, where: Where) -> list[Any]:
        """Return arrays with those read, by all processes of a mesh, that were not."""
        stored = {leaf.name: leaf for leaf in leaves if isinstance(leaf, Stored)}
        if not stored:
            return leaves
        lie = jax.tree.leaves(of_run(like, where.placement))
        places = {leaf.name: to for leaf, to in zip(leaves, lie, strict=True) if isinstance(leaf, Stored)}
        with where.hosts.alike(), _trouble.reading(self.directory), told_by_words():
            found = _joint.read(self.directory, stored, places)
        read: list[Any] = []
        for leaf in leaves:  # weights that are the best ones too are read once
            again = isinstance(leaf, Stored) and any(found[leaf.name] is other for other in read)
            value = found[leaf.name] if isinstance(leaf, Stored) else leaf
            read.append(value.copy() if again else value)
        return read


def read_run(directory: Path) -> SavedRun | None:
    """Return the run as its newest whole checkpoint holds it, if there is one, and change nothing in the directory.

    Damaged ones are named by a warning.

    Raises:
      ValueError: where checkpoints are there and none can be used.
    """
    found = opened(directory, lambda check, _: _reading.recover(directory, check), None)
    return None if found is None else found[1]


def opened(directory: Path, recover: Recover, check: Check | None, many: bool = False) -> tuple[int, SavedRun] | None:
    """Return what `recover` reads once the words of a checkpoint fit its arrays: its number, and the run.

    Where there are many processes, the large arrays of one network are left on the disk: no process may have room.
    """
    read: list[tuple[Json, Manifest]] = []

    def check_all(meta: Json, forms: Mapping[str, Form]) -> None:
        meta = META("run.json", meta)
        manifest = Manifest.from_json(meta["run"])
        check_forms(manifest, forms, [name for name in forms if later(meta, name)])
        if check is not None:
            check(manifest, forms)
        read.append((meta, manifest))

    def later(meta: Json, name: str) -> bool:
        return many and meta["run"]["key"]["single"] and name.startswith(LARGE)

    found = recover(check_all, later)
    if found is None:
        return None
    meta, manifest = read[-1]
    return found.number, SavedRun(directory, manifest, found.arrays, meta["where"], meta["every"], meta["versions"])


def versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "optax", "jaxmlp")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
