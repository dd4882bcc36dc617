"""A saved run goes on: from where it stood, with what is given now where that was accepted, under the rules of now."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _check, training
from jaxmlp._engine.executor import Job, Restore, without_keys
from jaxmlp._engine.names import flat, path_name
from jaxmlp._engine.runs import Run
from jaxmlp._engine.stops import Stops
from jaxmlp._scaled import Scaled
from jaxmlp.loop import _fields as fields
from jaxmlp.loop._best import warn_of_another, what_judges, with_best
from jaxmlp.loop._changes import changes
from jaxmlp.loop._folder import Form, Stored
from jaxmlp.loop._judging import HISTORY, judged_anew
from jaxmlp.loop._manifest import Manifest
from jaxmlp.loop._saved import SavedRun, Where
from jaxmlp.mlp import MLP
from jaxmlp.recipe import Bound, Recipe
from jaxmlp.types import Json, Params, PyTree, Status

OPT = "run.state.opt_state"


class Resumed(NamedTuple):
    """What a run goes on from: its arrays in the form of the runs of now, and its place, as its source wrote it."""

    restore: Restore
    place: Json


def going_on(saved: SavedRun, given: Manifest, job: Job, where: Where, *, streamed: bool) -> Resumed:
    """Return from what a saved run goes on, once it has been compared with what is given now.

    Args:
      saved: the run.
      given: what is given now.
      job: what is to be trained.
      where: it is to lie.
      streamed: whether its data is a stream.

    Raises:
      ValueError: for arrays and places that no run wrote.
    """
    saved = saved if where.is_apart else saved.at_hand(where.hosts)
    arrays, place = checked_run(saved, len(job.members.key), job.recipe.epochs, streamed=streamed)
    words = {change.word for change in changes(saved.manifest, given)}
    before = Stops.of(saved.manifest.rebuild_stop(), validation=True, members=True)
    if given.stop != saved.manifest.stop:
        arrays, place = judged_anew(arrays, place, before, job)
    # Another table or another loss has other losses: the best one so far is none of theirs.
    others = sorted(map(str, words & what_judges(job.stops.figure)))
    forget = bool(others)
    if forget:
        warnings.warn(
            f"the {' and '.join(others)} that is given was accepted in the place of the saved one: what is best is "
            f"chosen anew, and figures of the history from before do not compare with those from now on",
            stacklevel=_check.level_of_caller(),
        )
    warn_of_another(before, job.stops)

    def restore(like: Run) -> Run:
        wanted = _names(like)
        found = dict(arrays)
        if words & {"metrics", "validation", "data"}:
            found = _with_history(found, wanted)
        if given.stop != saved.manifest.stop or forget:
            found = with_best(found, wanted, forget, before, job.stops)
        if words & {"optimizer", "frozen"} and not _fits(found, wanted):
            found = _with_new_optimizer(found, like, wanted, job)
        begun = {name for name in found if name.startswith(("members.", "shared."))}
        if extra := sorted(found.keys() - wanted.keys() - begun):
            raise ValueError(
                f"a run must be resumed with the arrays it began with; {saved.directory} holds {extra[0]:.80} too, "
                f"which the model and optimizer that are given have not; pass what was saved, or another directory"
            )
        return dataclasses.replace(saved, arrays=found).restore(like, where)

    return Resumed(restore, place)


def checked_run(saved: SavedRun, members: int, epochs: int, *, streamed: bool) -> tuple[dict[str, np.ndarray], Json]:
    """Return the arrays of a saved run and its place, which fit each other.

    Raises:
      ValueError: for arrays and places that no run of so many members wrote.
    """
    place = checked_place(saved.where, streamed=streamed)
    arrays = checked_arrays(saved.arrays, members, epochs)
    _check_stands(place, arrays)
    return arrays, place


def checked_place(where: Any, *, streamed: bool) -> Json:
    """Return where the run stood, as the source of its data wrote it.

    Raises:
      ValueError: for a place that no source of this kind wrote.
    """
    if not streamed:
        return fields.having({"epoch": fields.whole(0)})("where", where)
    stream = fields.having({"length": fields.maybe(fields.whole(1))}, ("length",), more=True)
    place = fields.having({"position": fields.listed(fields.whole(0)), "stream": stream})("where", where)
    if len(place["position"]) > 3:
        raise fields.wrong("where.position", "at most three integers", place["position"])
    return place


def checked_arrays(arrays: Mapping[str, np.ndarray], members: int, epochs: int) -> dict[str, np.ndarray]:
    """Return the arrays of a run of so many members.

    Raises:
      ValueError: for arrays of another number of members, and for a status or a count of epochs that there is not.
    """
    for name, array in arrays.items():
        if name.startswith("shared."):
            continue
        if not name.startswith(("run.", "members.")) or array.ndim < 1 or len(array) != members:
            raise ValueError(
                f"{name:.80} of the checkpoint must hold something for each of {members} members; got {array.shape}"
            )
        if name.startswith(HISTORY) and array.ndim < 2:
            raise ValueError(f"{name:.80} of the checkpoint must have an entry an epoch; got shape {array.shape}")
    for name, most in (("run.status", max(map(int, Status))), ("run.epochs", max(epochs, fields.EPOCHS))):
        values = arrays.get(name)
        whole = values is not None and values.ndim == 1 and values.dtype.kind in "iu"
        if values is None or not whole or values.min() < 0 or values.max() > most:
            raise ValueError(f"{name} of the checkpoint must hold an integer in 0 ... {most} a member; it does not")
    return dict(arrays)


def _check_stands(place: Json, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise where the place of a run is not that of its members which still run.

    Raises:
      ValueError: with both.
    """
    if "position" in place:
        epoch, _, total = [*place["position"], 0, 0, 0][:3]
        told = {"run.epochs": epoch, "run.state.step": total}
    else:
        told = {"run.epochs": place.get("epoch", 0)}
    runs = arrays["run.status"] == int(Status.RUNNING)
    for name, wanted in told.items():
        found = arrays[name][runs] if name in arrays else np.zeros(0)
        if (found != wanted).any():
            raise ValueError(
                f"where of the checkpoint must be the place of its members, {name} {found[found != wanted].flat[0]}; "
                f"got {wanted}; it was written by no run"
            )


def check_size(recipe: Recipe, arrays: Mapping[str, Form]) -> None:
    """Raise unless a model whose sizes stand in a checkpoint has as many parameters as the checkpoint.

    Before anything is traced: a list of sizes in a file is short, and what it asks for may have no end.

    Raises:
      ValueError: with both numbers.
    """
    model, within = recipe.model, "run.state.params."
    while isinstance(model, Scaled):
        model, within = model.model, f"{within}model."
    if not isinstance(model, MLP):
        return
    saved = sum(math.prod(array.shape[1:]) for name, array in arrays.items() if name.startswith(within))
    wanted = model.parameter_count
    if wanted != saved:
        raise ValueError(
            f"recipe.model.sizes of the checkpoint must be those of its {saved:,} parameters; got sizes of {wanted:,}"
        )


def check_longer(stops: Stops, begun: int, epochs: int) -> None:
    """Raise where a longer run would have halved its members at the epoch at which the shorter one ended."""
    if begun < epochs and begun in stops.rungs(epochs):
        raise ValueError(
            f"epochs must not make a rung of Halving of the end of the run: at {begun} epochs a run of {epochs} "
            f"would have left members out; begin the longer run in another directory"
        )


def _names(like: PyTree) -> dict[str, Any]:
    """Return the form of each array of the runs by the name that it has in a checkpoint."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(without_keys, like))
    return {path_name("run", path): leaf for path, leaf in leaves}


def _with_history(found: dict[str, np.ndarray], wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays with a history of what is read now: NaN at the epochs at which it was not."""
    loss = found[f"{HISTORY}loss"]
    kept = {name: a for name, a in found.items() if not name.startswith(HISTORY) or name in wanted}
    for name, leaf in wanted.items():
        if name.startswith(HISTORY) and name not in kept:
            kept[name] = np.full((len(loss), loss.shape[1], *leaf.shape[2:]), np.nan, leaf.dtype)
    return kept


def _fits(found: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> bool:
    """Tell whether the optimizer's state that was saved is one of the optimizer that is given."""
    old = {n: (a.shape[1:], a.dtype) for n, a in found.items() if n.startswith(OPT)}
    return old == {n: (a.shape[1:], a.dtype) for n, a in wanted.items() if n.startswith(OPT)}


def _with_new_optimizer(
    found: dict[str, np.ndarray], like: Run, wanted: Mapping[str, Any], job: Job
) -> dict[str, np.ndarray]:
    """Return the arrays with the state of the optimizer that is given, as it begins at the saved parameters."""
    like_params = like.state.params
    names = [path_name("run.state.params", path) for path, _ in jax.tree_util.tree_leaves_with_path(like_params)]
    if any(name not in found or found[name].shape[1:] != wanted[name].shape[1:] for name in names):
        return found  # another model: the comparison of shapes says so
    if any(isinstance(found[name], Stored) for name in names):
        raise ValueError(
            "optimizer must have a state of the saved form, for one network that lies on several processes; resume it "
            "in one process, or begin another run with its parameters: params=state.params"
        )
    params = jax.tree.unflatten(jax.tree.structure(like_params), [jnp.asarray(found[name]) for name in names])

    def begin(key: Any, numbers: Any, steps: Any, params: Params) -> PyTree:
        recipe = dataclasses.replace(job.recipe, model=_Given(params, getattr(job.recipe.model, "frozen", None)))
        alone = numbers._replace(init={}, apply={})  # an optimizer takes none of the trees that all share
        return training.start(key, Bound(recipe, alone, steps)).opt_state

    state = jax.jit(jax.vmap(begin))(job.members.key, job.members.numbers, job.members.steps, params)
    warnings.warn(
        "the optimizer that is given has a state of another form than the one that was saved: its state begins anew, "
        "at the parameters that were saved",
        stacklevel=_check.level_of_caller(),
    )
    return {name: a for name, a in found.items() if not name.startswith(OPT)} | flat(state, OPT)


class _Given:
    """A model that begins with parameters that are there."""

    def __init__(self, params: Params, frozen: Any):
        self._params, self.frozen = params, frozen

    def init(self, key: Any) -> Params:
        return self._params

    def apply(self, params: Params, x: PyTree) -> PyTree:
        return x
