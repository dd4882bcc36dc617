"""One network in a run: how it lies, on one device or on a mesh of several, and how it goes back to the caller."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxmlp import _check
from jaxmlp._engine.hosts import Hosts
from jaxmlp._engine.inputs import Request
from jaxmlp._engine.lie import of_first
from jaxmlp._engine.plan import Plan
from jaxmlp._placement import Placement, automatic, moved, read
from jaxmlp.loop._folder import Stored
from jaxmlp.loop._joint import check_seen
from jaxmlp.loop._lying import check_like, laid_so
from jaxmlp.loop._saved import SavedRun, Where
from jaxmlp.loop.streams import is_stream
from jaxmlp.training import State
from jaxmlp.types import History


def checked_like(like: Any) -> Any:
    """Return parameters or a state that lie as those of a run that is resumed are to, or None for as they lay.

    Raises:
      ValueError: for what is no tree of arrays, or of their shapes.
    """
    leaves = jax.tree.leaves(like)
    if like is not None and not (leaves and all(isinstance(a, jax.Array | jax.ShapeDtypeStruct) for a in leaves)):
        raise ValueError(
            f"like must be parameters or a state, arrays that lie as those of the run are to; got "
            f"{_check.describe(like)}; jaxmlp.sharding.start(key, recipe, hyperparams, mesh=mesh) makes a state"
        )
    return like


def on_mesh(request: Request, lie: Any = None, saved: SavedRun | None = None) -> tuple[Request, Placement | None, Any]:
    """Return a request with its arrays on a mesh of automatic axes, how they lie there, and the mesh of the caller.

    Args:
      request: as it was given.
      lie: parameters or a state that lie where those of a run that is resumed are to.
      saved: that run, which says how they lay, where nothing that is given does.

    Returns:
      None for the placement where nothing lies on several devices, and for the mesh where it is the same.

    Raises:
      ValueError: where arrays lie on several meshes.
    """
    inputs = request.inputs
    if not request.single:
        return request, None, None
    data = None if is_stream(inputs.data) else inputs.data
    given = {"params": inputs.params if lie is None else lie, "data": data, "validation": inputs.validation}
    placement = None
    if inputs.params is None and saved is not None and (lie is not None or "mesh" in saved.manifest.layout):
        params = jax.eval_shape(request.recipe.bind(request.hyperparams).init, request.key)
        if lie is None:
            placement = laid_so(saved.manifest.layout["mesh"], params, data, inputs.validation)
        else:
            given["params"] = lie.params if isinstance(lie, State) else lie  # the optimizer's state follows
            placement = read(given)
            check_like(params, given["params"], placement)
    placement = placement or read(given)
    if placement is None:
        return request, None, None
    laid = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(given))
    others = [one.mesh for one in laid if isinstance(one, NamedSharding) and one.mesh != placement.mesh]
    outer = next((mesh for mesh in others if automatic(mesh) == placement.mesh), None)
    data, validation, params = moved((data, inputs.validation, inputs.params), placement.mesh)
    inputs = inputs._replace(data=inputs.data if data is None else data, validation=validation, params=params)
    return request._replace(inputs=inputs), placement, outer


def check_directory(placement: Placement | None, saved: SavedRun | None, directory: Any, hosts: Hosts) -> None:
    """Raise where a network is saved that no process has the whole of, and not all see where.

    Raises:
      ValueError: which says what can be done.
    """
    if directory is not None and Where(placement or Placement(), hosts).is_apart:
        stored = [] if saved is None else [a for a in saved.arrays.values() if isinstance(a, Stored)]
        check_seen(Path(directory), hosts, stored[0].checkpoint if stored else None)


def plan_of_one(placement: Placement | None) -> Plan:
    """Return the plan of a network that lies so, or on the first device."""
    placement = Placement() if placement is None else placement
    devices = (jax.local_devices()[0],) if placement.mesh is None else tuple(placement.mesh.devices.flat)
    return Plan(1, 1, devices, wave=1, member_bytes=0, memory=0, placement=placement)


def of_one(states: State, history: History) -> tuple[State, History]:
    """Return a population of one as one network: its state, and the history up to where its run ended."""
    done = int(history.epochs[0])
    # On the host: under `jax_debug_nans` the device refuses to read past the run's end, where its history is NaN.
    curves = {name: jnp.asarray(np.asarray(values)[0, :done]) for name, values in history.curves.items()}
    return jax.tree.map(of_first, states), History(curves)


def back(state: State, history: History, outer: Any) -> tuple[State, History]:
    """Return a result on the mesh of the caller."""
    return state if outer is None else moved(state, outer), history
