"""Over which axes of a mesh parameters are split: by their places and shapes alone, so that a state knows it too."""

import warnings
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from jaxmlp import _check
from jaxmlp.layer import Layer
from jaxmlp.types import Params, PyTree

DATA, MODEL = "data", "model"


def check_mesh(mesh: Any, *, fsdp: bool = False) -> None:
    """Raise unless it is a mesh with an axis that means something here.

    Raises:
      ValueError: for what is no mesh, for one without either axis, and without the axis that `fsdp` splits over.
    """
    fix = f'make one with jax.make_mesh((8,), ("{DATA}",)), or ((4, 2), ("{DATA}", "{MODEL}"))'
    if not isinstance(mesh, Mesh | AbstractMesh):
        raise ValueError(f"mesh must be a jax.sharding.Mesh; got {_check.describe(mesh)}; {fix}")
    if not {DATA, MODEL} & set(mesh.axis_names):
        raise ValueError(
            f'mesh must have an axis "{DATA}", for examples, or "{MODEL}", for weights; got {mesh.axis_names}; {fix}'
        )
    if fsdp and DATA not in mesh.axis_names:
        raise ValueError(
            f'mesh must have an axis "{DATA}" with fsdp=True, which splits parameters over the examples\' axis; got '
            f"{mesh.axis_names}; {fix}"
        )


def layout(params: Params, mesh: Mesh | AbstractMesh, fsdp: bool = False) -> PyTree:
    """Return a pytree of `PartitionSpec` like the parameters, which may be shapes alone."""
    check_mesh(mesh, fsdp=fsdp)
    model, data = mesh.shape.get(MODEL, 1), mesh.shape.get(DATA, 1) if fsdp else 1

    def part(node: Any) -> Any:
        if not _is_net(node):
            return _over_data(node, P(), 0, data, model)
        stacks = [np.ndim(layer.w) - 2 for layer in node]
        return tuple(
            jax.tree.map(lambda a, spec, lead=lead: _over_data(a, spec, lead, data, model), layer, specs)
            for layer, specs, lead in zip(node, _of_net(node, model), stacks, strict=True)
        )

    return jax.tree.map(part, params, is_leaf=_is_net)


def _is_net(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) > 0 and all(isinstance(layer, Layer) for layer in node)


def _of_net(layers: tuple[Layer, ...], devices: int) -> tuple[Layer, ...]:
    """Return the specs of a net's layers, by columns and by rows in turn."""
    specs: list[Layer] = []
    by_columns = False  # whether what goes into the layer is split
    for layer in layers:
        stack = [None] * (np.ndim(layer.w) - 2)
        into, out = layer.w.shape[-2:]
        if devices == 1:
            w, beside = P(), P()
        elif by_columns and not stack and into % devices == 0:
            w, beside, by_columns = P(MODEL, None), P(), False
        elif out % devices == 0:
            w, beside, by_columns = P(*stack, None, MODEL), P(*stack, MODEL), True
        else:
            w, beside, by_columns = P(), P(), False
        spec: list[Any] = [w, *(None if leaf is None else beside for leaf in layer[1:])]
        specs.append(Layer(*spec))
    return tuple(specs)


def _over_data(a: Any, spec: P, lead: int, data: int, model: int) -> P:
    """Return the spec of a leaf that is split over the examples' axis too, of so many devices, where it can be.

    The `lead` axes of a stack are not split: a scan goes over them.
    """
    shape = np.shape(a)
    axes = [*spec, *[None] * (len(shape) - len(spec))]
    free = [i for i in range(lead, len(shape)) if axes[i] is None and shape[i] % data == 0]
    split = [i for i, axis in enumerate(axes) if axis == MODEL and shape[i] % (data * model) == 0]
    if data > 1 and free:
        axes[max(free, key=lambda i: (shape[i], i))] = DATA
    elif data > 1 and split:  # a bias that "model" has split: both axes share its one dimension
        axes[split[0]] = (MODEL, DATA)
    else:
        return spec
    return P(*axes)


def warn_of_whole(params: Params, specs: PyTree, mesh: Mesh | AbstractMesh, fsdp: bool) -> None:
    """Warn where parameters were to be split and nothing is: each device then holds them all, without an error."""
    parts = {axis: mesh.shape.get(axis, 1) for axis in (MODEL, *[DATA] * fsdp)}
    parts = {axis: devices for axis, devices in parts.items() if devices > 1}
    if not parts or any(set(spec) - {None} for spec in leaves_of(specs)):
        return
    asked = " and ".join(f'over the {devices} devices of axis "{axis}"' for axis, devices in parts.items())
    sizes = {DATA: "a size of a parameter", MODEL: "the width of a layer of an MLP"}
    wanted = ", and ".join(f'{sizes[axis]} a multiple of {parts[axis]} for "{axis}"' for axis in parts)
    shapes = ", ".join(map(str, dict.fromkeys(np.shape(a) for a in jax.tree.leaves(params))))
    warnings.warn(
        f"parameters were to be split {asked}, and none is: each device holds them all; there must be {wanted}; got "
        f"shapes {shapes:.200}; choose such widths, or pass rules=",
        stacklevel=_check.level_of_caller(),
    )


def follow(params: Params, specs: PyTree, tree: PyTree) -> PyTree:
    """Return the specs of an optimizer's state: those of a parameter where its path and shape end a leaf's, else P().

    >>> specs = follow({"w": np.ones(4)}, {"w": P("data")}, {"mean": {"w": np.ones(4)}, "count": np.ones(())})
    >>> specs["mean"]["w"] == P("data"), specs["count"] == P()
    (True, True)
    """
    known = {
        (path, np.shape(a)): spec
        for (path, a), spec in zip(jax.tree_util.tree_leaves_with_path(params), leaves_of(specs), strict=True)
    }

    def of(path: Any, a: Any) -> P:
        ends = (known.get((path[start:], np.shape(a))) for start in range(len(path) + 1))
        return next((spec for spec in ends if spec is not None), P())

    return jax.tree_util.tree_map_with_path(of, tree)


def leaves_of(specs: PyTree) -> list[P]:
    """Return the specs of a tree in order."""
    return jax.tree.leaves(specs, is_leaf=lambda node: isinstance(node, P))


def check_specs(params: Params, specs: PyTree, mesh: Mesh | AbstractMesh) -> None:
    """Raise unless there is a spec for each parameter, of axes of the mesh that divide its dimensions.

    Raises:
      ValueError: naming the place.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    given = leaves_of(specs)
    if len(given) != len(leaves) or not all(isinstance(spec, P) for spec in given):
        raise ValueError(
            f"rules must be a PartitionSpec for each of the {len(leaves)} parameters, a pytree like them or a function "
            f"of a path; got {len(given)}; P() leaves one whole"
        )
    for (path, a), spec in zip(leaves, given, strict=True):
        place, shape = jax.tree_util.keystr(path), np.shape(a)
        axes = [part if isinstance(part, tuple) else () if part is None else (part,) for part in spec]
        unknown = [axis for part in axes for axis in part if axis not in mesh.axis_names]
        if unknown or len(axes) > len(shape):
            raise ValueError(f"rules for {place} must name axes of {mesh.axis_names}, one a dimension; got {spec}")
        for size, part in zip(shape, axes, strict=False):
            parts = int(np.prod([mesh.shape[axis] for axis in part], dtype=int))
            if size % parts:
                raise ValueError(
                    f"rules for {place} must split what divides; got {spec}, {parts} parts, for shape {shape}; leave "
                    f"that dimension whole: None"
                )
