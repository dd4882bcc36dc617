"""Where arrays lie: those of members, shared out over the devices, and those of one network that trains on a mesh.

That is a run of one member, whose own axis is not shared out; its other axes are, as its placement says.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmlp._engine import hosts
from jaxmlp._engine.inputs import Member, Tables
from jaxmlp._engine.plan import Layout
from jaxmlp._engine.runs import Run
from jaxmlp._layout import follow, leaves_of
from jaxmlp._placement import Placement, spread
from jaxmlp.training import State
from jaxmlp.types import Data, PyTree


def mesh_of(layout: Layout) -> Mesh:
    """Return the mesh of the devices."""
    return Mesh(np.array(layout.devices), ("members",), axis_types=(AxisType.Auto,))


def put(layout: Layout, tree: PyTree, *, shared: bool = False) -> PyTree:
    """Place arrays on the devices: a copy on each, or a share of the leading axis; of one network as it lies."""
    if layout.placement.mesh is not None:
        return _put_on_mesh(tree, layout.placement)
    if len(layout.devices) == 1:
        return jax.device_put(tree, layout.devices[0])
    sharding = NamedSharding(mesh_of(layout), P() if shared else P("members"))
    return hosts.spread(tree, sharding) if hosts.hosts_of(layout.devices).many else jax.device_put(tree, sharding)


@partial(jax.jit, static_argnames=("layout", "count"))
def in_order(tree: PyTree, *, layout: Layout, count: int) -> PyTree:
    """Return arrays of all slots in the order of `count` members, who were dealt to the devices in turn."""

    def one(a: Array) -> Array:
        dealt = a.reshape(len(layout.devices), -1, *a.shape[1:])
        members = jnp.swapaxes(dealt, 0, 1).reshape(-1, *a.shape[1:])[:count]
        return jax.lax.with_sharding_constraint(members, NamedSharding(mesh_of(layout), P("members")))

    return jax.tree.map(one, tree)


def of_run(run: Run, placement: Placement) -> Any:
    """Return the sharding of each array of a run, whose leaves may be forms alone."""
    every = jax.tree.map(lambda _: NamedSharding(placement.mesh, P()), run)
    best = run.best and every.best._replace(params=_of_params(run.best.params, placement))
    return every._replace(state=_of_state(run.state, placement), best=best)


def settled(run: Run, placement: Placement) -> Run:
    """Return a run inside a program, each array where it is to lie."""
    return jax.lax.with_sharding_constraint(run, of_run(run, placement))


def _put_on_mesh(tree: Any, placement: Placement) -> Any:
    """Return what a program takes on the mesh: a run and what it begins with split as the placement says, data by rows.

    All else is whole on each device.
    """
    if isinstance(tree, Run):
        return _spread(tree, of_run(tree, placement))
    if isinstance(tree, Tables):
        data, validation = placement.lay((tree.data, tree.validation))
        return Tables(data, validation, _put_on_mesh(tree.numbers, placement))
    whole = jax.tree.map(lambda _: NamedSharding(placement.mesh, P()), tree)
    if isinstance(tree, Member) and tree.params is not None:
        begun = tree.params
        lie = _of_state(begun, placement) if isinstance(begun, State) else _of_params(begun, placement)
        whole = whole._replace(params=lie)
    return _spread(tree, whole)


def put_batches(batches: Data, placement: Placement) -> Data:
    """Return a stack of batches (steps, batch, ...) on the mesh, each batch by its rows.

    A batch that the devices do not divide is filled up with its first row, at weight zero.
    """
    x, y, weight = batches
    if isinstance(weight, jax.Array):  # put there already
        return batches
    missing = -weight.shape[1] % placement.parts

    def one(a: Any) -> Any:
        a = np.asarray(a)
        a = np.concatenate([a, np.repeat(a[:, :1], missing, axis=1)], axis=1) if missing else a
        return spread(a, placement.mesh, P(None, placement.rows or None))

    weight = np.pad(np.asarray(weight), ((0, 0), (0, missing)))
    return (*jax.tree.map(one, (x, y)), spread(weight, placement.mesh, P(None, placement.rows or None)))


def of_first(a: Any) -> Any:
    """Return entry 0 of an array as it lies; of one on several devices, which is let go of."""
    lies = getattr(a, "sharding", None)
    if not isinstance(lies, NamedSharding) or lies.mesh.size == 1:
        return a[0]
    own = jax.device_put(a[0], NamedSharding(lies.mesh, P(*lies.spec[1:])))
    a.delete()
    return own


def _of_state(state: State, placement: Placement) -> Any:
    params = _params(state.params, placement)
    specs = placement.opt_state
    if specs is None:
        like = jax.tree.unflatten(jax.tree.structure(state.params), params)
        specs = leaves_of(follow(state.params, like, state.opt_state))
    every = jax.tree.map(lambda _: NamedSharding(placement.mesh, P()), state)
    return every._replace(
        params=_under(state.params, params, placement), opt_state=_under(state.opt_state, specs, placement)
    )


def _of_params(params: PyTree, placement: Placement) -> Any:
    return _under(params, _params(params, placement), placement)


def _params(params: PyTree, placement: Placement) -> Sequence[P]:
    return (P(),) * len(jax.tree.leaves(params)) if placement.params is None else placement.params


def _under(tree: PyTree, specs: Sequence[P], placement: Placement) -> Any:
    """Return the shardings of a tree whose leaves have an axis of one member before those of their specs."""
    lie = [NamedSharding(placement.mesh, P(None, *spec)) for spec in specs]
    return jax.tree.unflatten(jax.tree.structure(tree), lie)


def _spread(tree: Any, lie: Any) -> Any:
    return jax.tree.map(lambda a, to: spread(a, to.mesh, to.spec), tree, lie)
