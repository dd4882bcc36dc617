"""What a caller's mesh says of a value: over which axes of `jax.shard_map` it varies, and where it lies.

JAX keeps the axes of a mesh over which a value may differ as a part of its type. What goes through a loop must have one
type throughout, and a derivative in a value that is the same on all devices is the sum over them. Parameters that begin
as zeros are the same everywhere until the first step: without a word they would get the sum of all devices' gradients.
"""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmlp.types import PyTree


def vary_as(tree: PyTree, *others: PyTree) -> Any:
    """Return the tree with every array varying over all axes that one of it, or of `others`, varies over.

    Outside of `jax.shard_map`, and in one that does not keep the axes (`check_vma=False`), it is the tree as it is.
    """
    axes = frozenset[str]().union(*map(_axes, jax.tree.leaves((tree, others))))
    if not axes:
        return tree

    def varying(leaf: Any) -> Any:
        return jax.lax.pcast(leaf, tuple(sorted(axes - _axes(leaf))), to="varying")

    return jax.tree.map(varying, tree)


def _axes(leaf: Any) -> frozenset[str]:
    if not isinstance(leaf, Tracer):
        return frozenset()
    kind: Any = jax.typeof(leaf)
    # A JAX before the manual axis types has the axes as they are.
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else getattr(kind, "vma", frozenset())


def whole(tree: PyTree) -> Any:
    """Return the tree with arrays that a caller has laid out over explicit axes of a mesh as ones that lie whole.

    With such axes JAX asks at each gather and sum where its result shall lie; one network stays on one device.
    """
    return jax.tree.map(_whole, tree)


def _whole(a: Any) -> Any:
    if not isinstance(a, jax.Array):
        return a
    if isinstance(a, Tracer):
        laid = jax.typeof(a).sharding
        return jax.sharding.reshard(a, NamedSharding(laid.mesh, PartitionSpec())) if any(laid.spec) else a
    laid = a.sharding
    explicit = isinstance(laid, NamedSharding) and AxisType.Explicit in laid.mesh.axis_types
    return np.asarray(a) if explicit and len(laid.device_set) > 1 else a
