"""The parameters of a net, as they follow from its description: their names, shapes and first values."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxmlp import _arrays, _check
from jaxmlp._eager import compile_once
from jaxmlp._stacking import Parts, cut, parts_of
from jaxmlp._varying import vary_as
from jaxmlp.layer import Layer
from jaxmlp.types import Params, PyTree


class Structure(NamedTuple):
    """What the parameters of a net are: which leaves each layer has, of which shapes, and which layers lie in a stack.

    It follows from four options of an `MLP` alone, so nets that differ in the others share it, and their `init`.

    >>> structure = Structure((4, 8, 8, 8, 2), bias=True, norm=None, scan=True)
    >>> structure.leaves[0], structure.parts
    ({'w': (4, 8), 'b': (8,)}, [(1, (4, 8)), (2, (8, 8)), (1, (8, 2))])
    """

    sizes: tuple[int, ...]
    bias: bool
    norm: str | None
    scan: bool

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The shape of w of each layer."""
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def leaves(self) -> list[dict[str, tuple[int, ...]]]:
        """The leaves of each layer on its own, by name."""
        bias, norm = ["b"] * self.bias, {None: [], "layer": ["scale", "shift"], "rms": ["scale"]}[self.norm]
        *hidden, last = self.shapes
        leaves = [{"w": shape} | dict.fromkeys(bias + norm, shape[1:]) for shape in hidden]
        return [*leaves, {"w": last} | dict.fromkeys(bias, last[1:])]

    @property
    def parts(self) -> Parts:
        """How the parameters hold the layers: for each `Layer` how many, and the shape of the w of each."""
        return parts_of(self.shapes, self.scan)

    @property
    def parameter_count(self) -> int:
        """Number of trained numbers."""
        return sum(math.prod(shape) for leaves in self.leaves for shape in leaves.values())

    def check(self, params: Params, model: object, *, members: bool = False) -> Parts:
        """Raise unless `params` are those of `model`, or with `members` of many such nets; return the parts."""
        if not isinstance(params, tuple) or not all(isinstance(layer, Layer) for layer in params):
            raise ValueError(f"params must be a tuple of Layer, as init makes it; got {type(params).__name__}")
        parts = self.parts
        if len(params) != len(parts):
            what = "parts, a run of equal hidden layers each," if self.scan else "layers"
            raise ValueError(f"params must have {len(parts)} {what} for {model!r}; got {len(params)}")
        if members:
            _check.floating(f"w of the last layer of {model!r}", params[-1].w)
        lead = params[-1].w.shape[:-2] if members else ()  # the last layer is in no stack: what is left are members
        leaves = [run[0] if isinstance(run, list) else run for run in cut(self.leaves, parts)]
        for i, (layer, (count, _), wanted) in enumerate(zip(params, parts, leaves, strict=True)):
            given = {name: leaf for name, leaf in layer._asdict().items() if leaf is not None}
            if given.keys() != wanted.keys():
                raise ValueError(f"layer {i} of {model!r} must have {', '.join(wanted)}; got {', '.join(given)}")
            for name, leaf in given.items():
                if not (isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)):
                    what = f"{name} of layer {i} of {model!r}"  # a text that takes longer than the check
                    _check.floating(what, leaf)
                    _arrays.fitting(what, leaf)
                shape = (*lead, *((count,) if count > 1 else ()), *wanted[name])
                if np.shape(leaf) != shape:
                    hint = "; map over members with jax.vmap" if np.ndim(leaf) > len(shape) else ""
                    raise ValueError(
                        f"layer {i} of {model!r} must have {name} of shape {shape}; got {np.shape(leaf)}{hint}"
                    )
        return parts


def check_like(what: str, given: PyTree, like: PyTree) -> None:
    """Raise unless a tree has the structure of another, and leaves of its shapes and dtypes.

    Raises:
      ValueError: with the first place that differs.
    """
    given_, like_ = ({jax.tree_util.keystr(p): a for p, a in _leaves(tree)} for tree in (given, like))
    if given_.keys() != like_.keys() or jax.tree.structure(given) != jax.tree.structure(like):
        odd = [*sorted(given_.keys() ^ like_.keys()), "its containers"][0]
        raise ValueError(f"{what} must have the leaves {', '.join(like_)}; it differs in {odd}")
    for place, wanted in like_.items():
        leaf = given_[place]
        if jnp.shape(leaf) != wanted.shape or getattr(leaf, "dtype", None) != wanted.dtype:
            raise ValueError(f"{what} must have {_check.describe(wanted)} at {place}; got {_check.describe(leaf)}")


def _leaves(tree: PyTree) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


@compile_once("structure", "initializer", "dtype", quick=True)
def draw(
    key: Array, scale: Array, *, structure: Structure, initializer: Callable[..., Array], dtype: DTypeLike | None
) -> tuple[Layer, ...]:
    """Return the parameters of a net, as one program."""
    # As integers, of which several loops may each take some: `jax_debug_key_reuse` counts an array of keys as one.
    keys = jax.random.key_data(jax.random.split(key, len(structure.shapes)))
    impl = jax.random.key_impl(key)

    def weights(shape: tuple[int, int], words: Array) -> Array:
        key = jax.random.wrap_key_data(words, impl=impl)
        w = initializer(key, shape, dtype)
        if getattr(w, "shape", None) != shape:
            raise ValueError(
                f"initializer must be a callable (key, shape, dtype) -> array of that shape; asked for {shape} it gave "
                f"{_check.describe(w)}; jax.nn.initializers.he_normal is a factory: pass he_normal()"
            )
        return scale * w

    # Equal layers are drawn by one loop: compiling a random number generator for each is most of a cold start.
    drawn: dict[tuple[int, int], Array] = {}
    for shape in dict.fromkeys(structure.shapes):
        which = np.array([i for i, other in enumerate(structure.shapes) if other == shape])
        drawn[shape] = jax.lax.map(partial(weights, shape), keys[which])
    parts, layers, used = structure.parts, [], dict.fromkeys(drawn, 0)
    for i, (count, shape) in enumerate(parts):
        width = shape[1:] if count == 1 else (count, *shape[1:])
        first, used[shape] = used[shape], used[shape] + count
        norm = structure.norm if i < len(parts) - 1 else None
        layers.append(
            Layer(
                drawn[shape][first if count == 1 else slice(first, first + count)],
                jnp.zeros(width, dtype) if structure.bias else None,
                jnp.ones(width, dtype) if norm else None,
                jnp.zeros(width, dtype) if norm == "layer" else None,
            )
        )
    return vary_as(tuple(layers), key)


def widths(sizes: Iterable[int]) -> tuple[int, ...]:
    """Return the widths of a net (input, hidden..., output) as a tuple.

    Raises:
      ValueError: for what lists no positive ints, or fewer than two.
    """
    other = isinstance(sizes, str | bytes | set | Mapping) or getattr(sizes, "ndim", 1) != 1
    if not isinstance(sizes, Iterable) or other:
        fix = "; pass them as one tuple, MLP((784, 64, 10))" if isinstance(sizes, int) else ""
        raise ValueError(f"sizes must list the widths (input, hidden..., output); got {sizes!r}{fix}")
    sizes = tuple(_check.positive_int("every size", size) for size in sizes)
    if len(sizes) < 2:
        raise ValueError(f"sizes must name at least an input and an output width; got {sizes}")
    return sizes
