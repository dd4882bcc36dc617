"""How one network lies on a mesh, in words: written into a manifest, compared, and laid so again."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxmlp._layout import DATA, check_specs
from jaxmlp._mesh import automatic
from jaxmlp._placement import Placement, common_mesh, rows_of
from jaxmlp.types import Data, Json, Params

AXES = 16  # of a mesh; NumPy has arrays of 64 dimensions
SHOWN = 200  # characters of how parameters lie


def of_placement(placement: Placement) -> Json:
    """Return how one network lies on a mesh, as a manifest says it; nothing for all that lies on single devices."""
    if placement.mesh is None:
        return {}
    axes, rows = dict(placement.mesh.shape), list(placement.rows)
    specs: Any = placement.params
    if specs is not None:
        specs = [
            [[] if part is None else list(part) if isinstance(part, tuple) else [part] for part in s] for s in specs
        ]
    return {"mesh": {"axes": axes, "rows": rows, "params": specs}}


def shown(told: Json | None) -> str:
    """Return in a line what `of_placement` says.

    >>> shown({"axes": {"data": 4, "model": 2}, "rows": ["data"], "params": [[[], ["model"]], []]})
    'data 4, model 2; examples over data; parameters None|model, whole'
    """
    if told is None:
        return "one device; like= says where else"
    axes = ", ".join(f"{name} {size}" for name, size in told["axes"].items())
    specs = ["|".join("+".join(part) or "None" for part in spec) or "whole" for spec in told["params"] or []]
    split = ", ".join(specs) if any(spec != "whole" for spec in specs) else "whole"
    if len(split) > SHOWN:
        split = f"{split[:SHOWN]}... {hashlib.sha256(split.encode()).hexdigest()[:8]}"
    return f"{axes}; examples over {', '.join(told['rows']) or 'none'}; parameters {split}"


def laid_so(told: Json | None, params: Params, data: Data, validation: Data) -> Placement | None:
    """Return a placement as a saved network had: on the mesh of the data, or else on one like its own of all devices.

    Where there are more or fewer devices, the axis "data" takes those that the others leave. A parameter that the axes
    do not divide lies whole. None for a network that lay on no mesh, and where none like its own is to be had.

    Args:
      told: what `of_placement` wrote.
      params: those of the network, or their shapes.
      data: of the run, which may lie on a mesh.
      validation: the same.

    Raises:
      ValueError: for words that no run wrote, and where data lies on several meshes.
    """
    if told is None:
        return None
    axes, specs = told["axes"], told["params"] or []
    named = [[axis for part in spec for axis in part] for spec in specs]
    if (
        len(axes) > AXES
        or any(len(each) != len(set(each)) for each in named)
        or not {a for each in named for a in each} <= set(axes)
    ):
        raise ValueError(
            f"layout.mesh of the checkpoint must split a parameter over its axes, each once; got {told!s:.200}"
        )
    mesh = common_mesh({"data": data, "validation": validation})
    if mesh is None and (sizes := _sizes(axes, len(jax.devices()))) is not None:
        mesh = jax.make_mesh(sizes, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))
    if mesh is None:
        return None
    mesh = automatic(mesh)
    there = [P(*(tuple(part) or None for part in spec)) for spec in specs]
    rows = tuple(axis for axis in told["rows"] if axis in mesh.axis_names)
    return Placement(
        mesh, rows_of(data, mesh) or rows, None if told["params"] is None else _fitting(params, there, mesh)
    )


def _sizes(axes: dict[str, int], devices: int) -> tuple[int, ...] | None:
    """Return the sizes of axes on so many devices, of which "data" takes what the others leave."""
    others = math.prod(size for name, size in axes.items() if name != DATA)
    if math.prod(axes.values()) == devices:
        return tuple(axes.values())
    if DATA not in axes or devices % others or devices == 1:
        return None
    return tuple(devices // others if name == DATA else size for name, size in axes.items())


def _fitting(params: Params, specs: Sequence[P], mesh: Any) -> tuple[P, ...] | None:
    """Return specs of the parameters, whole where they cannot lie so; None where the parameters are others."""
    leaves = jax.tree.leaves(params)
    if len(leaves) != len(specs):
        return None
    return tuple(spec if _fits(a, spec, mesh) else P() for a, spec in zip(leaves, specs, strict=True))


def _fits(a: Any, spec: P, mesh: Any) -> bool:
    try:
        check_specs(a, spec, mesh)
    except ValueError:
        return False
    return True


def check_like(params: Params, like: Params, placement: Placement | None) -> None:
    """Raise unless parameters are of one form with those that say where they are to lie, and can lie so.

    Raises:
      ValueError: which names what differs.
    """
    one, other = ([tuple(a.shape) for a in jax.tree.leaves(tree)] for tree in (params, like))
    fix = "jaxmlp.sharding.start(key, recipe, hyperparams, mesh=mesh) makes what lies so"
    if one != other:
        raise ValueError(
            f"like must be as the parameters of the run, of shapes {one!s:.200}; got {other!s:.200}; {fix}"
        )
    try:
        if placement is not None and placement.params is not None:
            check_specs(params, list(placement.params), placement.mesh)
    except ValueError as error:
        raise ValueError(f"like must lie as the parameters of the run can; {error}; {fix}") from error
