"""The scaling of inputs and targets, fitted before training and folded into the first and the last layer after it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
NEAR = 2**16  # numbers of a table that are computed with at once, so that they stay in the processor's cache


class Columns(NamedTuple):
    """z = (v - shift) / scale, a number each for every column."""

    shift: Array
    scale: Array

    def forward(self, values: Array, dtype: Any) -> Array:
        """Return z of this dtype, computed in float64."""
        found = np.empty(values.shape, dtype)
        for part in parts_of(values):
            found[part] = (values[part] - self.shift) / self.scale
        return found


class Units(NamedTuple):
    """What is done to inputs and targets for training; None leaves them as they are."""

    x: Columns | None = None
    y: Columns | None = None


def parts_of(values: Array) -> Iterator[slice]:
    """Yield the rows of a table in parts of few numbers."""
    rows = max(1, NEAR // max(1, values[0].size)) if len(values) else 1
    for first in range(0, len(values), rows):
        yield slice(first, first + rows)


def fit_columns(values: Any, weight: Array | None) -> Columns:
    """Return mean and standard deviation of each column, in float64; a column that does not vary has scale one.

    A row of weight two counts as two rows. Sparse tables are read where they are not zero alone.
    """
    if weight is None:
        share = np.full(values.shape[0], 1 / values.shape[0])
    else:
        share = weight / weight.max()  # so that their sum neither overflows nor vanishes
        share /= share.sum()
    if isinstance(values, np.ndarray):
        mean = sum(share[part] @ values[part] for part in parts_of(values))
        variance, rest = np.zeros_like(mean), np.zeros_like(mean)
        for part in parts_of(values):
            moved = values[part] - mean
            rest += share[part] @ moved
            variance += share[part] @ np.square(moved)
        mean = mean + rest  # the first is rounded where it is far from zero
    else:
        wide = values.astype(np.float64).tocsr()
        wide.sum_duplicates()  # of the copy
        mean = np.asarray(wide.T @ share).ravel()
        moved = wide.copy()
        moved.data = np.square(moved.data - mean[moved.indices])
        absent = wide.copy()
        absent.data = np.ones_like(absent.data)
        filled = np.asarray(absent.T @ share).ravel()
        variance = np.asarray(moved.T @ share).ravel() + np.maximum(1 - filled, 0) * np.square(mean)
    scale = np.sqrt(variance)
    constant = scale <= 10 * np.finfo(values.dtype if values.dtype.kind == "f" else np.float64).eps * np.abs(mean)
    return Columns(mean, np.where(constant | (scale == 0), 1.0, scale))


def fold(net: list[tuple[Any, Any]], units: Units) -> list[tuple[Array, Array]]:
    """Return the layers (w, b) in float64 that compute in the units of the data what `net` does in scaled ones."""
    layers = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in net]
    if units.x is not None:
        w, b = layers[0]
        w = w / units.x.scale[:, None]
        layers[0] = w, b - units.x.shift @ w
    if units.y is not None:
        w, b = layers[-1]
        scale, shift = (np.tile(a, w.shape[-1] // len(a)) for a in (units.y.scale, units.y.shift))
        layers[-1] = w * scale, b * scale + shift
    return layers


def unfold(layers: list[tuple[Any, Any]], units: Units) -> list[tuple[Array, Array]]:
    """Return the layers of the net in scaled units: the inverse of `fold`."""
    net = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in layers]
    if units.y is not None:
        w, b = net[-1]
        scale, shift = (np.tile(a, w.shape[-1] // len(a)) for a in (units.y.scale, units.y.shift))
        net[-1] = w / scale, (b - shift) / scale
    if units.x is not None:
        w, b = net[0]
        net[0] = w * units.x.scale[:, None], b + units.x.shift @ w
    return net
