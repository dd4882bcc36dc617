"""The share of a batch that lies on the devices of this process: it alone need be read here."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmlp._placement import Placement
from jaxmlp.types import Data


def columns_of(placement: Placement, size: int) -> np.ndarray | None:
    """Return which places of a batch lie on this process, in order; None where all of them do.

    Args:
      placement: of one network on a mesh.
      size: how many examples a batch has; places from there on are those that fill it up to what the devices divide.
    """
    if placement.mesh is None:
        return None
    full = _full(placement, size)
    held = NamedSharding(placement.mesh, P(placement.rows or None)).addressable_devices_indices_map((full,))
    places = np.unique(np.concatenate([np.arange(full)[index] for index in held.values()]))
    return None if len(places) == full else places


def put_share(share: Data, columns: np.ndarray, size: int, placement: Placement) -> Data:
    """Return a stack of batches (steps, batch, ...) on the mesh, of which each process has its places alone.

    Args:
      share: (x, y, weight), (steps, places, ...) each.
      columns: the places of a batch that it holds, as `columns_of` gives them.
      size: how many examples a batch has.
      placement: where it is to lie.
    """
    to = NamedSharding(placement.mesh, P(None, placement.rows or None))
    full = _full(placement, size)

    def one(a: np.ndarray) -> jax.Array:
        known = a.astype(jax.dtypes.canonicalize_dtype(a.dtype), copy=False)

        def part(index: Any) -> np.ndarray:
            first, last, _ = index[1].indices(full)
            at = int(np.searchsorted(columns, first))
            return known[:, at : at + last - first]

        return jax.make_array_from_callback((len(a), full, *a.shape[2:]), to, part)

    return jax.tree.map(one, tuple(share))


def _full(placement: Placement, size: int) -> int:
    return size + -size % placement.parts
