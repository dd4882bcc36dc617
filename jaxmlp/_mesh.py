"""Arrays on a mesh: which lie there, moved between its kinds of axes, spread over its devices, and brought from them.

Over explicit axes, as `jax.make_mesh` makes them, JAX asks at each gather and sum where its result shall lie, and
refuses many. So what is given there is moved to automatic axes, computed, and moved back: the same devices hold the
same bytes.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, auto_axes, get_abstract_mesh
from jax.sharding import PartitionSpec as P

from jaxmlp import _compile
from jaxmlp._known import is_apart, is_far
from jaxmlp.types import PyTree

Function = TypeVar("Function", bound=Callable[..., Any])


@functools.lru_cache(maxsize=64)
def automatic(mesh: Any) -> Any:
    """Return the mesh of the same devices whose axes JAX shards by itself."""
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    if mesh.axis_types == kinds:
        return mesh
    if isinstance(mesh, AbstractMesh):
        return AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=kinds)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)


def is_on(a: Any, mesh: Any) -> bool:
    laid = getattr(a, "sharding", None)
    return isinstance(laid, NamedSharding) and automatic(laid.mesh) == mesh


def beside(tree: PyTree, mesh: Any) -> Any:
    """Return numbers as they are, but for those that lie on devices of their own, which are put on all of the mesh."""

    def put(a: Any) -> Any:
        elsewhere = isinstance(a, jax.Array) and not isinstance(a, Tracer) and a.committed and not is_on(a, mesh)
        return spread(a, mesh, P()) if elsewhere else a

    return jax.tree.map(put, moved(tree, mesh))


def moved(tree: PyTree, mesh: Any) -> Any:
    """Return a tree with each array of a mesh of the same devices on this one, without a byte sent."""

    def move(a: Any) -> Any:
        laid = getattr(a, "sharding", None)
        if not isinstance(laid, NamedSharding) or laid.mesh == mesh or automatic(laid.mesh) != automatic(mesh):
            return a
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):  # which JAX moves by their words alone between processes
            return jax.random.wrap_key_data(move(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        return jax.device_put(a, NamedSharding(mesh, laid.spec))

    return jax.tree.map(move, tree)


def spread(a: Any, mesh: Mesh, spec: P) -> Any:
    """Return an array on a mesh, of which this process may have a part of the devices alone.

    What lies on several processes is moved between the devices; of what does not, each process has the whole, the same.
    """
    to = NamedSharding(mesh, spec)
    if to.is_fully_addressable:
        return jax.device_put(a, to)
    if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        words = spread(jax.random.key_data(a), mesh, spec)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(a))
    if is_apart(a):
        return jax.device_put(a, to)
    known = np.asarray(a)
    known = known.astype(jax.dtypes.canonicalize_dtype(known.dtype), copy=False)
    return jax.make_array_from_callback(known.shape, to, lambda index: known[index])


def explicit_mesh(tree: PyTree) -> Any:
    """Return the mesh of explicit axes that arrays of a tree lie on, which JAX does not trace, or None."""
    try:
        leaves = jax.tree.leaves(tree)
    except ValueError:  # a dict whose keys cannot be sorted: who takes it says so
        return None
    for leaf in leaves:
        if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
            continue
        laid = leaf.sharding
        if isinstance(laid, NamedSharding) and AxisType.Explicit in laid.mesh.axis_types:
            return laid.mesh
    return None


def over_automatic_axes(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return function(*args, **options); where arrays lie on explicit axes, computed over automatic ones instead.

    Within a caller's own program the axes stay as they are.
    """
    outer = explicit_mesh((args, options))
    if outer is None or not _compile.outermost():
        return function(*args, **options)
    inside = automatic(outer)
    args, options = moved((args, options), inside)
    with contextlib.nullcontext() if get_abstract_mesh().empty else jax.set_mesh(inside):
        found = function(*args, **options)
    return moved(found, outer)


def relaxed(tree: PyTree) -> Any:
    """Return a tree with its arrays of explicit axes on automatic ones."""
    outer = explicit_mesh(tree)
    return tree if outer is None else moved(tree, automatic(outer))


def on_automatic_axes(function: Function) -> Function:
    """Decorate a function of arrays, which may lie on explicit axes."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return over_automatic_axes(function, args, options)

    return call  # type: ignore[return-value]


def by_rows(function: Callable[..., Array], params: PyTree, x: Any, *rest: Any) -> Array:
    """Return function(params, x, *rest), also where parameters are split over explicit axes, also within a program.

    The product of two arrays that such an axis splits JAX refuses, since it cannot know where the result shall lie.
    Here it lies by the rows of x.
    """
    every = (getattr(jax.typeof(a), "sharding", None) for a in jax.tree.leaves(params))
    mesh = next((laid.mesh for laid in every if laid is not None and _splits(laid)), None)
    if mesh is None:
        return function(params, x, *rest)
    rows = jax.typeof(x).sharding.spec[: np.ndim(x) - 1]
    over_automatic: Any = auto_axes(function, out_sharding=NamedSharding(mesh, P(*rows)))
    return over_automatic(params, x, *rest)


def _splits(laid: Any) -> bool:
    return AxisType.Explicit in laid.mesh.axis_types and any(part is not None for part in laid.spec)


def here(what: str, tree: PyTree) -> Any:
    """Return a tree with each array of a mesh as an array of this process's own: NumPy's, or a key on its first device.

    Raises:
      ValueError: where a part of an array is with other processes alone.
    """

    def bring(a: Any) -> Any:
        if not isinstance(a, jax.Array) or isinstance(a, Tracer) or not isinstance(a.sharding, NamedSharding):
            return a
        is_key = jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
        if is_far(a):
            raise ValueError(
                f"{what} must be on this process; got an array of shape {tuple(a.shape)} that lies on several; on each "
                f"of them, pass jax.experimental.multihost_utils.process_allgather("
                f"{f'jax.random.key_data({what})' if is_key else what}, tiled=True)"
            )
        if is_key:
            words = jnp.asarray(np.asarray(jax.random.key_data(a)))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(a))
        return np.asarray(a)

    try:
        leaves, structure = jax.tree.flatten(tree)
    except ValueError:  # a dict whose keys cannot be sorted: who takes it says so
        return tree
    found = [bring(a) for a in leaves]
    same = all(a is b for a, b in zip(found, leaves, strict=True))
    return tree if same else jax.tree.unflatten(structure, found)


def whole(tree: PyTree) -> Any:
    """Return a tree with each array that lies on several processes whole on all of them, where each can read it."""
    return jax.tree.map(lambda a: spread(a, a.sharding.mesh, P()) if is_far(a) else a, tree)
