"""A model in a file: its description as JSON, and which tensors of which shapes belong to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _check, _stacking, transforms
from jaxmlp.layer import Layer
from jaxmlp.mlp import MLP
from jaxmlp.types import Json, Params, PyTree

AROUND = (transforms.Chain, transforms.Scaled)
KINDS = {kind.__name__: kind for kind in transforms.KINDS if kind not in AROUND}
SIDES = ("x", "y")
MOST = 16  # links of a chain, and scalings around scalings


@dataclasses.dataclass(frozen=True)
class Described:
    """A model that a file holds, an `MLP` or a `Scaled` around one, and the columns that were fitted."""

    model: MLP | transforms.Scaled
    widths: tuple[int | None, int | None] = (None, None)  # of x and of y, where they are scaled

    @classmethod
    def of(cls, model: Any, params: Params) -> "Described":
        """Return the description of a model with its parameters.

        Raises:
          ValueError: for a model that is no such one.
        """
        if isinstance(model, MLP):
            return cls(model)
        if not isinstance(model, transforms.Scaled) or not isinstance(model.model, MLP):
            raise ValueError(
                f"model must be an MLP, whose description is data, or transforms.Scaled around one; got {model!r}"
            )
        sides = dict(zip(SIDES, (model.x, model.y), strict=True))
        for name, transform in sides.items():
            if transform is not None:
                _told(name, transform)
        if not isinstance(params, dict) or set(params) != {"model", *(n for n, t in sides.items() if t is not None)}:
            raise ValueError(f"params must be those of {model!r}, which are a dict; got {_check.shown(params)}")
        found = [jax.tree.leaves(params.get(name)) for name in SIDES]
        for name, leaf in ((name, leaf) for name, leaves in zip(SIDES, found, strict=True) for leaf in leaves[:1]):
            _check.floating(f"{name} of params", leaf)
        return cls(model, tuple(int(leaves[0].shape[-1]) if leaves and leaves[0].ndim else None for leaves in found))  # type: ignore[arg-type]

    @property
    def net(self) -> MLP:
        """The network itself."""
        return self.model if isinstance(self.model, MLP) else self.model.model  # type: ignore[return-value]

    def to_json(self) -> Json:
        """Return it as JSON can hold it: an `MLP` as ever."""
        if isinstance(self.model, MLP):
            return self.model.to_dict()
        sides = {name: _told(name, getattr(self.model, name)) for name in SIDES}
        scaled = {"model": self.net.to_dict(), **sides, "head": self.model.head, "widths": list(self.widths)}
        return {"scaled": scaled}

    @classmethod
    def from_json(cls, told: Json) -> "Described":
        """Return what `to_json` wrote.

        Raises:
          ValueError: for words that describe no model.
        """
        if set(told) != {"scaled"}:
            return cls(MLP.from_dict(told))
        told = told["scaled"]
        if not isinstance(told, dict) or set(told) != {"model", "x", "y", "head", "widths"}:
            raise ValueError("a scaled model must be described by model, x, y, head and widths")
        widths = told["widths"]
        fits = isinstance(widths, list) and len(widths) == 2
        if not fits or not all(w is None or type(w) is int and 0 < w < 2**31 for w in widths):
            raise ValueError(f"widths must be two numbers of columns, or null; got {widths!r:.80}")
        sides = {name: _transform(name, told[name]) for name in SIDES}
        return cls(transforms.Scaled(MLP.from_dict(told["model"]), **sides, head=told["head"]), tuple(widths))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of one network, by its name in a file."""
        prefix = "" if isinstance(self.model, MLP) else "model/"
        net = {
            f"{prefix}{i}/{name}": shape
            for i, leaves in enumerate(self.net.structure.leaves)
            for name, shape in leaves.items()
        }
        return net | {
            _name(side, path): shape
            for side, width in self._scaled()
            for path, shape in jax.tree_util.tree_leaves_with_path(self._shapes(side, width), is_leaf=_is_shape)
        }

    def params(self, arrays: Mapping[str, np.ndarray]) -> Params:
        """Return the parameters that tensors by name make."""
        prefix, net = "" if isinstance(self.model, MLP) else "model/", self.net
        named = enumerate(net.structure.leaves)
        layers: list[Any] = [{name: arrays[f"{prefix}{i}/{name}"] for name in leaves} for i, leaves in named]
        params = _stacking.stack(tuple(Layer(**leaves) for leaves in layers), net.structure.parts)
        if isinstance(self.model, MLP):
            return jax.tree.map(jnp.asarray, params)
        sides: dict[str, PyTree] = {}
        for side, width in self._scaled():
            leaves, structure = jax.tree_util.tree_flatten_with_path(self._shapes(side, width), is_leaf=_is_shape)
            sides[side] = jax.tree.unflatten(structure, [arrays[_name(side, path)] for path, _ in leaves])
        return jax.tree.map(jnp.asarray, {"model": params, **sides})

    def tensors(self, params: Params) -> dict[str, Any]:
        """Return the arrays of parameters by name, of a population with its leading axes."""
        net = self.net
        prefix, inner = ("", params) if isinstance(self.model, MLP) else ("model/", params["model"])
        found = {
            f"{prefix}{i}/{name}": leaf
            for i, layer in enumerate(net.layers(inner))
            for name, leaf in layer._asdict().items()
            if leaf is not None
        }
        for side, _ in self._scaled():
            leaves = jax.tree_util.tree_leaves_with_path(params[side])
            found |= {_name(side, path): leaf for path, leaf in leaves}
        return found

    def _scaled(self) -> list[tuple[str, int]]:
        if isinstance(self.model, MLP):
            return []
        pairs = zip(SIDES, self.widths, strict=True)
        return [(name, width or 1) for name, width in pairs if getattr(self.model, name) is not None]

    def _shapes(self, side: str, width: int) -> PyTree:
        return getattr(self.model, side).shapes(width)

    def __str__(self) -> str:
        text = repr(self.model)
        return text if len(text) <= 200 else text[:197] + "..."


def _told(name: str, transform: Any) -> Any:
    """Return a transform as JSON can hold it.

    Raises:
      ValueError: for one that is none of the library's.
    """
    if transform is None:
        return None
    if type(transform) is transforms.Chain:
        return {"kind": "Chain", "links": [_told(name, link) for link in transform.links]}
    if type(transform) not in KINDS.values():
        raise ValueError(
            f"model.{name} must be a transform of jaxmlp.transforms, whose description is data; got {transform!r}"
        )
    return {"kind": type(transform).__name__, **dataclasses.asdict(transform)}


def _transform(name: str, told: Any, deep: int = 0) -> Any:
    """Return the transform that was told."""
    if told is None:
        return None
    options = dict(told) if isinstance(told, dict) else {}
    kind = options.pop("kind", None)
    if kind == "Chain" and isinstance(options.get("links"), list) and len(options["links"]) <= MOST > deep:
        return transforms.Chain(*(_transform(name, link, deep + 1) for link in options["links"]))
    if kind not in KINDS or not options.keys() <= {field.name for field in dataclasses.fields(KINDS[kind])}:
        raise ValueError(f"{name} must be one of {', '.join(KINDS)} or Chain, with its options; got {told!r:.120}")
    return KINDS[kind](**options)


def _name(side: str, path: Any) -> str:
    return "/".join([side, *([jax.tree_util.keystr(path, simple=True, separator="/")] if path else [])])


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) > 0 and all(isinstance(item, int) for item in node)
