"""What a run writes down so that it can be gone on with: its state, what it is made of, and where it stands."""

import dataclasses
import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import records
from jaxmlp._engine.executor import Executor, with_keys, without_keys
from jaxmlp._engine.inputs import Member, Request, plain
from jaxmlp._engine.plan import Layout, Plan, plan
from jaxmlp._engine.program import Run
from jaxmlp._engine.stops import Halving, Patience, Stops, Target
from jaxmlp.loop._checkpoints import Checkpoints, Saved
from jaxmlp.loop._digest import check_same, describe, differences, of_array, of_data, recipe_of
from jaxmlp.recipe import Recipe


class Journal:
    """A run's checkpoints, and the comparison of what they hold with what is given."""

    def __init__(self, directory: Any, keep: int):
        """Open the directory.

        Raises:
          ValueError: where it cannot be written.
        """
        self._store = Checkpoints(directory, keep)
        self.directory = directory
        self.saved: Saved | None = None
        self._described: dict[str, Any] = {}
        self._members: dict[str, np.ndarray] = {}

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: Any) -> None:
        self._store.close()

    def find(self) -> None:
        """Read the newest whole checkpoint, if there is one."""
        self.saved = self._store.newest()

    @property
    def _run(self) -> dict[str, Any]:
        return {} if self.saved is None else self.saved.meta["run"]

    @property
    def where(self) -> dict[str, Any]:
        """Where the saved run stands."""
        return {} if self.saved is None else self.saved.meta["where"]

    def recipe(self, given: Recipe | None, epochs: int | None) -> Recipe:
        """Return the recipe to go on with: the given one, or the one that was saved; with other epochs if asked."""
        recipe = recipe_of(self._run["recipe"]) if given is None else given
        if epochs is None:
            return recipe
        if epochs < self._run["recipe"]["epochs"]:
            raise ValueError(f"epochs must be at least the {self._run['recipe']['epochs']} of the run; got {epochs}")
        self._run["recipe"]["epochs"] = epochs
        return dataclasses.replace(recipe, epochs=epochs)

    def key(self) -> Any:
        """Return the key that the run began with."""
        saved = self._run["key"]
        keys = jax.random.wrap_key_data(jnp.asarray(self._saved_members("key")), impl=saved["impl"])
        return keys[0] if saved["single"] else keys

    def hyperparams(self) -> dict[str, Any]:
        """Return the numbers that the run began with."""
        numbers = {}
        for name, told in self._run["hyperparams"].items():
            value = self._saved_members(f"hyperparams.{name}")
            value = value[0] if self._run["key"]["single"] else value
            # A Python number mixes with any dtype, an array does not: what it was decides about bits.
            numbers[name] = jnp.asarray(value) if isinstance(told, dict) else told
        return numbers

    def _saved_members(self, name: str) -> np.ndarray:
        return self.saved.arrays[f"members.{name}"]  # type: ignore[union-attr]

    def stop(self) -> list[Any]:
        """Return the rules that the run began with, but for a budget, which is a call's own."""
        rules: list[Any] = []
        for name, told in self._run["stop"].items():
            if name == "patience":
                rules.append(Patience(**told))
            elif name == "halving":
                rules.append(Halving(**told))
            else:
                rules.append(Target(name, **told))
        return rules

    def every(self) -> int | None:
        """Return how often the run was saved."""
        return None if self.saved is None else self.saved.meta["every"]

    def steps(self) -> int | None:
        """Return how many batches make an epoch, where that was given."""
        return self._run["steps"]

    def plan(self, members: int, data: Any, recipe: Recipe, numbers: Any) -> Plan | None:
        """Return the plan of the saved run: a member's bits depend on its width and its devices."""
        if self.saved is None:
            return None
        layout = self._run["layout"]
        if layout["devices"] > len(jax.local_devices()):
            return None  # the comparison names it
        return plan(members, data, recipe, numbers, width=layout["width"], devices=layout["devices"])

    def describe(
        self, request: Request, data: Any, members: Member, rules: Stops, steps: int | None, layout: Layout
    ) -> None:
        """Write down what the run is made of; `data` is its fingerprint.

        Raises:
          ValueError: with a line for each difference, where the directory holds a run of something else.
        """
        key, inputs, recipe, hyperparams = request
        single = request.single
        options = inputs._asdict() | {"data": None}
        options.pop("data")
        targets = {name: bound._asdict() for name, bound in rules.targets.items()}
        named = {"patience": rules.patience, "halving": rules.halving}
        self._described = {
            "recipe": describe(recipe),
            "key": {"impl": str(jax.random.key_impl(key)), "single": single, **of_array(key)},
            "hyperparams": {
                name: _number((hyperparams or {})[name]) if single else _number(value)
                for name, value in members.numbers.by_name.items()
            },
            "data": data,
            **{name: of_data(plain(value)) for name, value in options.items()},
            "stop": {name: rule._asdict() for name, rule in named.items() if rule is not None} | targets,
            "steps": steps,
            "layout": {
                "width": layout.width,
                "devices": len(layout.devices),
                "kind": layout.devices[0].device_kind,
            },
        }
        self._members = _flat({"key": members.key, "hyperparams": members.numbers.by_name}, "members")
        if self.saved is not None:
            check_same(self._run, self._described, self.directory)
            for line in differences(self.saved.meta["versions"], _versions(), "version"):
                warnings.warn(f"{line}: the run goes on, but only equal versions promise equal bits", stacklevel=5)

    def restore(self, like: Run) -> Run:
        """Return the saved runs in the form of `like`, a history that is to become longer filled up with NaN."""
        saved = self.saved.arrays if self.saved is not None else {}
        plain = jax.eval_shape(without_keys, like)
        wanted = jax.tree_util.tree_leaves_with_path(plain)
        leaves, problems = [], []
        for path, leaf in wanted:
            name = _path("run", path)
            found = saved.get(name)
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
            )
        return with_keys(jax.tree.unflatten(jax.tree.structure(plain), leaves), like)

    def save(self, executor: Executor, source: Any, every: int | None) -> None:
        """Save where the run stands; files are written in the background."""
        runs = executor.saved_runs()
        history = {name: values[:, : source.epochs] for name, values in runs.history.items()}
        meta = {
            "run": self._described,
            "where": source.place(),
            "every": every,
            "score": _score(history),
            "versions": _versions(),
        }

        def write_records() -> None:
            records.write(self._store.directory, history, runs.epochs)

        self._store.save(source.done, _flat(runs, "run") | self._members, meta, write_records)

    def wait(self) -> None:
        """Wait until all is on disk.

        Raises:
          ValueError: where it could not be written.
        """
        self._store.wait()


def _flat(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(without_keys(tree))
    return {_path(prefix, path): np.asarray(leaf) for path, leaf in leaves}


def _path(prefix: str, path: Any) -> str:
    return f"{prefix}.{jax.tree_util.keystr(path, simple=True, separator='.')}"


def _number(value: Any) -> Any:
    if type(value) in (int, float):
        return value
    array = np.asarray(value)
    return {"value": array.item(), "dtype": str(array.dtype)} if array.ndim == 0 else of_array(array)


def _score(history: Mapping[str, Any]) -> float | None:
    """Return by what the best checkpoint is chosen: the last validation loss, or loss, of the best member."""
    values = history.get("validation_loss", history["loss"])
    if values.shape[1] == 0 or np.isnan(values[:, -1]).all():
        return None
    return float(np.nanmin(values[:, -1]))


def _versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "optax", "jaxmlp")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
