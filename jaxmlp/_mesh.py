"""Arrays on a mesh: which lie there, moved between its kinds of axes, and spread over its devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmlp.types import PyTree


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
    if isinstance(a, jax.Array) and not a.is_fully_addressable:
        return jax.device_put(a, to)
    known = np.asarray(a)
    known = known.astype(jax.dtypes.canonicalize_dtype(known.dtype), copy=False)
    return jax.make_array_from_callback(known.shape, to, lambda index: known[index])
