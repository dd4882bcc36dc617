"""How one network lies on a mesh, in words: written into a manifest, compared, and laid so again."""

import hashlib
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmlp._placement import Placement, mesh_of
from jaxmlp.types import Data, Json

SHOWN = 200  # characters of how parameters lie


def of_placement(placement: Placement) -> Json:
    """Return how one network lies on a mesh, as a manifest says it; nothing for all that lies on single devices."""
    if placement.mesh is None:
        return {}
    axes, rows = dict(placement.mesh.shape), list(placement.rows)
    return {"mesh": {"axes": axes, "rows": rows, "params": _told(placement.params)}}


def shown(told: Json | None) -> str:
    """Return in a line what `of_placement` says.

    >>> shown({"axes": {"data": 4, "model": 2}, "rows": ["data"], "params": [[[], ["model"]], []]})
    'data 4, model 2; examples over data; parameters None|model, whole'
    """
    if told is None:
        return "one device"
    axes = ", ".join(f"{name} {size}" for name, size in told["axes"].items())
    specs = ["|".join("+".join(part) or "None" for part in spec) or "whole" for spec in told["params"] or []]
    split = ", ".join(specs) if any(spec != "whole" for spec in specs) else "whole"
    if len(split) > SHOWN:
        split = f"{split[:SHOWN]}... {hashlib.sha256(split.encode()).hexdigest()[:8]}"
    return f"{axes}; examples over {', '.join(told['rows']) or 'none'}; parameters {split}"


def laid_so(told: Json | None, data: Data) -> list[Any] | None:
    """Return what lies as the parameters of a saved network did: on the mesh of the data, or else on one like its own.

    None where it lay on no mesh, and where neither is to be had: there are fewer devices, or other axes.

    Raises:
      ValueError: for words that no run wrote.
    """
    if told is None:
        return None
    named = [[axis for part in spec for axis in part] for spec in told["params"] or []]
    if any(len(axes) != len(set(axes)) for axes in named):
        raise ValueError(f"layout.mesh of the checkpoint must split a parameter over an axis once; got {shown(told)}")
    wanted = {axis for axes in named for axis in axes}
    mesh = mesh_of("data", data, None)
    if mesh is None and math.prod(told["axes"].values()) == len(jax.devices()):
        kinds = (AxisType.Auto,) * len(told["axes"])
        mesh = jax.make_mesh(tuple(told["axes"].values()), tuple(told["axes"]), axis_types=kinds)
    if mesh is None or not wanted <= set(mesh.axis_names):
        return None
    return [_form(spec, mesh) for spec in told["params"] or []] or [_form([], mesh)]


def _told(specs: Any) -> Any:
    """Return specs as lists of the axes that split each dimension."""
    if specs is None:
        return None
    return [
        [[] if part is None else list(part) if isinstance(part, tuple) else [part] for part in spec] for spec in specs
    ]


def _form(spec: list[list[str]], mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Return the least array that can lie so."""
    lies = NamedSharding(mesh, P(*(tuple(part) or None for part in spec)))
    shape = tuple(math.prod(mesh.shape[axis] for axis in part) for part in spec)
    return jax.ShapeDtypeStruct(shape, np.float32, sharding=lies)
