"""Where one network and its data lie on a mesh: read off at the door, and said to the compiler inside a run.

JAX's compiler loses the placement of rows in the gather of a batch, and would then compute the whole batch everywhere.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding, get_abstract_mesh
from jax.sharding import PartitionSpec as P

from jaxmlp._layout import DATA, follow, leaves_of
from jaxmlp._mesh import automatic as automatic
from jaxmlp._mesh import beside, is_on
from jaxmlp._mesh import moved as moved
from jaxmlp._mesh import spread as spread
from jaxmlp.types import PyTree

Specs = tuple[P, ...]  # of the leaves of a tree, in their order
HERE = {SingleDeviceSharding, type(None)}  # how arrays lie on one device, and those of NumPy
STATES, TABLES = ("state", "params"), ("data", "batch", "validation")  # arguments that may lie on a mesh


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Placement:
    """How a run lies on a mesh, as a static part of its program; what lies on one device stays as it is.

    Args:
      mesh: with automatic axes; None for one device.
      rows: the axes that the examples of a batch are split over; () keeps a batch whole on every device.
      params: the spec of each leaf of the parameters, or None where all are whole.
      opt_state: that of each leaf of the optimizer's state, or None where it follows the parameters.
    """

    mesh: Any = None
    rows: tuple[str, ...] = ()
    params: Specs | None = None
    opt_state: Specs | None = None

    @property
    def parts(self) -> int:
        """Into how many parts a batch is split."""
        return int(np.prod([self.mesh.shape[axis] for axis in self.rows], dtype=int))

    def batch(self, tree: PyTree) -> Any:
        """Return a batch split over its rows, and each other axis as the compiler likes."""
        if not self.rows:
            return tree
        free = P.UNCONSTRAINED
        return jax.tree.map(lambda a: self._lie(a, P(self.rows, *[free] * (a.ndim - 1))) if a.ndim else a, tree)

    def padded(self, order: Any) -> Any:
        """Return the order of batches (steps, batch), filled up by row 0 at weight zero to what the devices divide."""
        if not self.rows:
            return order
        return jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, -a.shape[1] % self.parts))), order)

    def settled(self, state: Any) -> Any:
        """Return a state whose leaves lie as they did when the run began, and its step and key whole."""
        if self.mesh is None:
            return state
        params = self._each(state.params, self._params(state.params))
        specs = self.opt_state
        if specs is None:
            like = jax.tree.unflatten(jax.tree.structure(state.params), self._params(state.params))
            specs = leaves_of(follow(state.params, like, state.opt_state))
        opt_state = self._each(state.opt_state, specs)
        step, key = self._each((state.step, state.key), (P(), P()))
        return state._replace(params=params, opt_state=opt_state, step=step, key=key)

    def gathered(self, params: PyTree) -> Any:
        """Return parameters that the products take: whole over the examples' axes, over which some are kept split.

        In the derivative the sum over these axes is split again, before the optimizer sees it.
        """
        if self.params is None:
            return params
        leaves, structure = jax.tree.flatten(params)
        found = []
        for a, spec in zip(leaves, self._params(params), strict=True):
            axes = [_axes(part) for part in spec]
            kept = [tuple(axis for axis in part if axis not in self.rows) for part in axes]
            if kept != axes:
                a = self._lie(self._lie(a, spec), P(*[part or None for part in kept]))
            found.append(a)
        return jax.tree.unflatten(structure, found)

    def lay(self, tree: PyTree) -> Any:
        """Return data on the mesh: as they lie, else by rows over the examples' axes, or whole where they do not fit.

        Arrays that JAX traces stay as they are.
        """
        if self.mesh is None:
            return tree

        def put(a: Any) -> Any:
            if isinstance(a, Tracer) or not isinstance(a, np.ndarray | jax.Array) or is_on(a, self.mesh):
                return a
            rows = P(self.rows) if a.ndim and len(a) % self.parts == 0 else P()
            return spread(a, self.mesh, rows)

        return jax.tree.map(put, tree)

    def _params(self, params: PyTree) -> Specs:
        return (P(),) * len(jax.tree.leaves(params)) if self.params is None else self.params

    def _each(self, tree: PyTree, specs: Sequence[P]) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(structure, [self._lie(a, spec) for a, spec in zip(leaves, specs, strict=True)])

    def _lie(self, a: Any, spec: P) -> Any:
        return jax.lax.with_sharding_constraint(a, NamedSharding(self.mesh, spec))


def _axes(part: Any) -> tuple[str, ...]:
    return () if part is None else part if isinstance(part, tuple) else (part,)


def read(given: dict[str, Any]) -> Placement | None:
    """Return how the arguments of a verb, by name, lie on a mesh of several devices; None where none of them does.

    Raises:
      ValueError: where they lie on several meshes.
    """
    mesh = common_mesh(given)
    if mesh is None:
        return None
    return placement(mesh, *(given.get(a, given.get(b)) for a, b in (STATES, TABLES[:2])))


def common_mesh(given: dict[str, Any]) -> Any:
    """Return the mesh that the arguments of a verb, by name, lie on; None where none of them lies on one.

    Raises:
      ValueError: where they lie on several meshes.
    """
    names = [name for name in (*STATES, *TABLES) if given.get(name) is not None]
    mesh = None
    try:
        leaves = jax.tree.leaves([given[name] for name in names])
    except ValueError:  # the keys of a dict that cannot be sorted, which later checks name
        return None
    if {type(getattr(leaf, "sharding", None)) for leaf in leaves} <= HERE:  # as nearly always
        return None
    try:
        for name in names:
            mesh = _mesh_of(name, given[name], mesh)
    except TypeError:  # leaves of another library, which later checks name
        return None
    return mesh


def check_traced(given: dict[str, Any]) -> None:
    """Raise for arrays on explicit axes in a caller's program, which a recipe that is bound to a mesh cannot place.

    Raises:
      ValueError: which says how they lie on automatic ones.
    """
    if given["recipe"].placement.mesh is None:
        return
    for name in (*STATES, *TABLES):
        if any(AxisType.Explicit in jax.typeof(a).sharding.mesh.axis_types for a in jax.tree.leaves(given.get(name))):
            raise ValueError(
                f"{name} must lie on automatic axes in a program of your own, as sharding.bind has it; got explicit "
                f"ones; make the mesh with jax.make_mesh(..., axis_types=(jax.sharding.AxisType.Auto,)), an axis each"
            )


def placement(mesh: Any, state: Any, data: Any) -> Placement:
    """Return how a state, or parameters alone, and data lie on a mesh."""
    mesh = automatic(mesh)
    params, opt_state = (state.params, state.opt_state) if hasattr(state, "opt_state") else (state, None)
    there = [leaf for leaf in jax.tree.leaves(opt_state) if is_on(leaf, mesh)]
    return Placement(
        mesh,
        rows_of(data, mesh),
        None if params is None else tuple(_spec_of(a, mesh) for a in jax.tree.leaves(params)),
        tuple(_spec_of(a, mesh) for a in jax.tree.leaves(opt_state)) if there else None,
    )


def rows_of(data: Any, mesh: Any) -> tuple[str, ...]:
    """Return the axes that examples are split over: those of x, else "data" where the mesh has it."""
    x = data[0] if isinstance(data, tuple | list) and data else None
    for leaf in jax.tree.leaves(x):
        spec = _spec_of(leaf, mesh)
        if len(spec) and (axes := _axes(spec[0])):
            return axes
    return (DATA,) if DATA in mesh.axis_names else ()


def _spec_of(a: Any, mesh: Any) -> P:
    """Return over which axes an array, or its shape, is split; P() for one that lies whole or elsewhere."""
    spec = list(a.sharding.spec) if is_on(a, mesh) else []
    while spec and spec[-1] is None:  # so that P("data", None) and P("data") are one program
        spec.pop()
    return P(*spec)


def _mesh_of(name: str, tree: PyTree, mesh: Any) -> Any:
    """Return the mesh that the arrays of a tree lie on, of several devices or of explicit axes, or `mesh` for none."""
    for leaf in jax.tree.leaves(tree):
        laid = leaf.sharding if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else None
        if not isinstance(laid, NamedSharding) or laid.mesh is mesh:
            continue
        explicit = AxisType.Explicit in laid.mesh.axis_types
        if laid.mesh.size == 1 and not explicit:
            continue
        if mesh is not None and automatic(laid.mesh) != automatic(mesh):
            raise ValueError(
                f"{name} must lie on one mesh with what came before it; got arrays on {_shown(laid.mesh)} and on "
                f"{_shown(mesh)}; put parameters or a state there by jaxmlp.sharding.place(..., mesh), and data by "
                f"jax.device_put(x, NamedSharding(mesh, PartitionSpec('data')))"
            )
        mesh = laid.mesh if mesh is None or explicit else mesh
    return mesh


def _shown(mesh: Any) -> str:
    return f"{dict(mesh.shape)} of devices {[d.id for d in mesh.devices.flat]}" if isinstance(mesh, Mesh) else str(mesh)


def through(function: Callable[..., Any], given: dict[str, Any], placed: Placement) -> Any:
    """Call a verb whose arguments lie on a mesh, with all of them there, and return what it gives as they lay.

    Explicit axes of a caller's, over which JAX asks at each gather and sum where its result shall lie, are automatic
    inside: the same devices hold the same bytes.
    """
    mesh, outer = placed.mesh, None
    for leaf in jax.tree.leaves([given.get(name) for name in (*STATES, *TABLES)]):
        if is_on(leaf, mesh) and leaf.sharding.mesh != mesh:
            outer = leaf.sharding.mesh
    given = {**given, **{name: moved(given[name], mesh) for name in (*STATES, *TABLES) if name in given}}
    for name in (*STATES, "key"):
        if given.get(name) is not None:
            given[name] = jax.tree.map(lambda a: a if is_on(a, mesh) else spread(a, mesh, P()), given[name])
    for name in ("rows", "step"):
        if given.get(name) is not None:
            given[name] = beside(given[name], mesh)
    bound = given["recipe"]
    given["recipe"] = bound._replace(numbers=beside(bound.numbers, mesh), placement=placed)
    with contextlib.nullcontext() if get_abstract_mesh().empty else jax.set_mesh(mesh):
        result = function(**given)
    return result if outer is None else moved(result, outer)
