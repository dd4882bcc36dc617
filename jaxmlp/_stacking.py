"""Depth: runs of equal hidden layers, held apart or as one stacked `Layer` that a scan goes through.

A part of a net is one layer, or a run of equal ones whose leaves have a leading axis (after those of members). What has
to be compiled, passes and optimizer alike, grows with the number of parts and not of layers.
"""

from collections.abc import Callable
from itertools import accumulate, groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp._eager import compile_once
from jaxmlp._varying import vary_as
from jaxmlp.layer import Layer
from jaxmlp.types import Number, PyTree

Parts = list[tuple[int, tuple[int, int]]]  # how many equal layers, and the shape of the w of each
AXES = (-3, -2, -2, -2)  # where the layers of a stack lie, in w, b, scale and shift


def parts_of(shapes: list[tuple[int, int]], scan: bool) -> Parts:
    """Return the parts of a net: with `scan` each run of equal hidden layers is one; the last layer stands alone.

    >>> parts_of([(4, 8), (8, 8), (8, 8), (8, 8)], scan=True)
    [(1, (4, 8)), (2, (8, 8)), (1, (8, 8))]
    """
    *hidden, last = shapes
    runs = [(len(list(run)), shape) for shape, run in groupby(hidden)] if scan else [(1, shape) for shape in hidden]
    return [*runs, (1, last)]


def cut(layers: PyTree, parts: Parts) -> list[PyTree]:
    """Cut a sequence of layers, or of their keys, into the parts.

    >>> cut("abcd", [(1, (4, 8)), (2, (8, 8)), (1, (8, 8))])
    ['a', 'bc', 'd']
    """
    ends = accumulate(count for count, _ in parts)
    return [layers[end - 1] if n == 1 else layers[end - n : end] for end, (n, _) in zip(ends, parts, strict=True)]


def through(
    hidden: Callable[..., Array], run: Layer, h: Array, keys: Array | None, rate: Number | None, count: int
) -> Array:
    """Return h after the hidden layers of a part, `hidden(layer, h, key, rate)` each: one, or one after the other."""
    if count == 1:
        return hidden(run, h, keys, rate)
    known = rate if isinstance(rate, float | int) else None  # a constant of the program, by which it divides otherwise
    return _scan(run, h, keys, rate if known is None else None, hidden=hidden, known=known)


@compile_once("hidden", "known", inline=False)  # the way back is then one program too
def _scan(
    run: Layer, h: Array, keys: Array | None, rate: Number | None, *, hidden: Callable[..., Array], known: float | None
) -> Array:
    def one(h: Array, part: tuple[Layer, Array | None]) -> tuple[Array, None]:
        layer, key = part
        return hidden(layer, h, key, rate if known is None else known), None

    return jax.lax.scan(one, vary_as(h, run, keys, rate), (run, keys))[0]


def stack(layers: tuple[Layer, ...], parts: Parts) -> tuple[Layer, ...]:
    """Return layers held apart as the parts of a net; NumPy's arrays as one, by NumPy.

    >>> layers = (Layer(jnp.ones((2, 2))),) * 3 + (Layer(jnp.ones((2, 1))),)
    >>> [part.w.shape for part in stack(layers, [(3, (2, 2)), (1, (2, 1))])]
    [(3, 2, 2), (2, 1)]
    """

    def together(run: tuple[Layer, ...]) -> Layer:
        alike: Any = zip(*run, strict=True)
        # A program that stacks thousands of arrays is compiled for minutes.
        xp = np if isinstance(run[0].w, np.ndarray) else jnp
        leaves: Any = [None if a[0] is None else xp.stack(a, axis) for a, axis in zip(alike, AXES, strict=True)]
        return Layer(*leaves)

    return tuple(
        one if count == 1 else together(one) for one, (count, _) in zip(cut(layers, parts), parts, strict=True)
    )


def unstack(params: tuple[Layer, ...], parts: Parts) -> tuple[Layer, ...]:
    """Return the parts of a net as layers held apart."""

    def apart(part: Layer, i: int) -> Layer:
        leaves: Any = [None if a is None else jnp.take(a, i, axis) for a, axis in zip(part, AXES, strict=True)]
        return Layer(*leaves)

    layers: list[Layer] = []
    for part, (count, _) in zip(params, parts, strict=True):
        layers += [part] if count == 1 else [apart(part, i) for i in range(count)]
    return tuple(layers)
