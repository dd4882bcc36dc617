"""The states and the history of a whole population, from the saved runs of its parts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmlp import _check, training
from jaxmlp._engine.entry import like_key
from jaxmlp._engine.executor import outcome, with_keys, without_keys
from jaxmlp._engine.inputs import plain
from jaxmlp._engine.names import path_name
from jaxmlp._engine.portion import digest_of
from jaxmlp._engine.runs import Best, Run
from jaxmlp._factories import RunLength, takes_run_steps
from jaxmlp._trees import first, on_host
from jaxmlp.loop._parts import PartRun, check_together, read_parts
from jaxmlp.loop._resuming import check_size, checked_run
from jaxmlp.loop._run import told_by_words
from jaxmlp.loop._saved import ONCE
from jaxmlp.loop._start import Start
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import History

BEST, HISTORY, MEAN = "run.best.", "run.history.", "run.mean"


def gathered(directories: Any, recipe: Recipe | None) -> tuple[State, History]:
    """Return what one run of all members would have returned; see `population.gather`."""
    if recipe is not None and not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be one Recipe, or None for the saved one; got {_check.describe(recipe)}")
    _check.extra("orbax.checkpoint", "checkpoint")
    parts, empty = read_parts(directories)
    check_together(parts, empty)
    manifest = parts[0].runs[0].manifest
    arrays = _joined(parts)
    start = manifest.rebuild_start(arrays)
    _check_digests(parts[0], start, arrays)
    rebuilt = recipe is None
    if recipe is None:
        recipe = manifest.rebuild_recipe()
        check_size(recipe, arrays)
    recipe = dataclasses.replace(recipe, epochs=manifest.recipe["epochs"])
    with told_by_words(rebuilt):
        like = _form_of(recipe, start, arrays)
    return outcome(_filled(like, arrays))


def _joined(parts: Sequence[PartRun]) -> dict[str, Any]:
    """Return the arrays of all members by name; each part's is let go of once it has its place."""
    epochs, count = parts[0].runs[0].manifest.recipe["epochs"], parts[0].portion.count
    pieces: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []  # whose they are, and their arrays
    for part in parts:
        members, begin = part.portion.members, 0
        for run in part.runs:
            size, streamed = len(run.arrays["members.key"]), not isinstance(run.manifest.data, dict)
            arrays, _ = checked_run(run, size, epochs, streamed=streamed)
            pieces.append((members[begin : begin + size], arrays))
            begin += size
            run.arrays.clear()
    whole = {name: array for name, array in pieces[0][1].items() if name.startswith("shared.")}
    for name in [name for name in pieces[0][1] if name not in whole]:
        form = pieces[0][1][name]
        joined = np.empty((count, *form.shape[1:]), form.dtype)
        for who, arrays in pieces:
            found = arrays.pop(name, None)
            if found is None or found.shape[1:] != form.shape[1:] or found.dtype != form.dtype:
                got = "nothing" if found is None else f"{found.dtype}{found.shape[1:]}"
                raise ValueError(
                    f"parts must have arrays of one form; {name:.80} is {form.dtype}{form.shape[1:]} in one and {got} "
                    f"in that of members {who[:4].tolist()}; they were not trained alike"
                )
            joined[who] = found
        whole[name] = joined
    return whole


def _check_digests(part: PartRun, start: Start, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise unless keys and numbers of all members are those that were cut.

    Raises:
      ValueError: where a part was trained with others.
    """
    impl = str(jax.random.key_impl(start.key))
    numbers = {name: array for name, array in arrays.items() if ".hyperparams." in name and not name.startswith("run.")}
    found = {"keys": digest_of({impl: arrays["members.key"]}), "hyperparams": digest_of(numbers)}
    for name, digest in found.items():
        if digest != getattr(part.portion, name):
            raise ValueError(
                f"{name} of all parts together must be those that population.part cut; they are others: a part was "
                f"trained with {name} of its own; pass on both keys and hyperparams as population.part returns them"
            )


def _form_of(recipe: Recipe, start: Start, arrays: Mapping[str, Any]) -> Run:
    """Return the form of the runs of all members: that of the state is the recipe's, the rest is what was saved."""
    count, given = len(start.key), start.given()
    own = {name: first(on_host(plain(value))) for name, value in given.items() if name in start.hyperparams}
    bound = recipe.bind({**own, **start.shared})
    if takes_run_steps(recipe.optimizer):  # of whose number no form depends; a schedule must be long enough for it
        steps, epochs = int(arrays["run.state.step"].max()), max(1, int(arrays["run.epochs"].max()))
        bound = bound._replace(steps=RunLength(max(1, math.ceil(steps / epochs) * recipe.epochs)))
    one = jax.eval_shape(training.start, like_key(start.key), bound)
    state = jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape), a.dtype), one)
    history = {name.removeprefix(HISTORY): array for name, array in sorted(arrays.items()) if name.startswith(HISTORY)}
    best: Any = None
    if f"{BEST}loss" in arrays:
        figure, epoch = arrays[f"{BEST}loss"], arrays["run.epochs"]
        best = Best(state.params, figure, epoch, figure, epoch)
    return Run(state, arrays["run.status"], arrays["run.epochs"], history, best, None)


def _filled(like: Run, arrays: Mapping[str, np.ndarray]) -> Run:
    """Return the runs in this form.

    Raises:
      ValueError: for a recipe whose states have another form than those that were saved.
    """
    plain = jax.eval_shape(without_keys, like)
    leaves, problems, used = [], [], set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(plain):
        name = path_name("run", path)
        name = name if name in arrays else ONCE.get(name, name)
        found = arrays.get(name)
        if found is None or found.shape != leaf.shape or found.dtype != leaf.dtype:
            got = "nothing" if found is None else f"{found.dtype}{found.shape[1:]}"
            problems.append(f"{name}: saved {got}, given {leaf.dtype}{leaf.shape[1:]}")
        leaves.append(found)
        used.add(name)
    problems += [
        f"{name}: saved, given nothing"
        for name in arrays
        if name.startswith("run.") and name not in used and not name.startswith(MEAN)
    ]
    if problems:
        raise ValueError(
            "recipe must be the one that the parts were trained with; the arrays of its states are others:\n  "
            + "\n  ".join(problems[:12])
        )
    return with_keys(jax.tree.unflatten(jax.tree.structure(plain), leaves), like)
