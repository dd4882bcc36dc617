"""Fitted maps of columns: what each makes of them, the way back, and how far it stretches them.

Each is a description, static and hashable; what was fitted are arrays in a dict. NumPy's arrays are mapped by NumPy.
"""

import dataclasses
import math
from statistics import NormalDist
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp.types import PyTree

Fitted: TypeAlias = PyTree  # the arrays of a transform: a dict, or of a chain a tuple of them
FAR = 2.0**20  # standard deviations between the mean and zero: float32 keeps a sixteenth of one, and no more beyond


@runtime_checkable
class Transform(Protocol):
    """A fitted map z = f(v) of columns v (..., d), and its inverse."""

    def fit(self, values: np.ndarray, *, invert: bool) -> Fitted:
        """Return the arrays that rows (N, d) determine; with `invert`, so that f has an inverse and a density."""
        ...

    def forward(self, fitted: Fitted, values: Any) -> Any:
        """Return z = f(v)."""
        ...

    def inverse(self, fitted: Fitted, values: Any) -> Any:
        """Return v = f^-1(z)."""
        ...

    def log_slope(self, fitted: Fitted, values: Any) -> Array:
        """Return log |det df/dv| of each row, (batch,)."""
        ...

    def shapes(self, width: int) -> Any:
        """Return the shapes of the fitted arrays for so many columns, a tree of tuples."""
        ...

    def scale(self, fitted: Fitted) -> Any:
        """Return dv/dz of each column (d,) where it is one number each, else None."""
        ...


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Standard:
    """z = (v - mean) / standard deviation, a column at a time; a constant column is only moved.

    `affine` and `each_alone` say that it is one number a column, and that no column counts for another.

    >>> standard = Standard()
    >>> fitted = standard.fit(np.array([[1.0], [3.0]]), invert=True)
    >>> standard.forward(fitted, np.array([[5.0]], "f"))
    array([[3.]], dtype=float32)
    """

    affine: ClassVar[bool] = True
    each_alone: ClassVar[bool] = True

    def fit(self, values: np.ndarray, *, invert: bool) -> Fitted:
        """Return {"shift": the means, "scale": the deviations}, (d,) each.

        Raises:
          ValueError: for columns so far from zero that float32 loses their spread.
        """
        return _affine(values, values.mean(0), values.std(0))

    def forward(self, fitted: Fitted, values: Any) -> Any:
        """Return (v - shift) / scale."""
        return (values - row(fitted["shift"], values)) / row(fitted["scale"], values)

    def inverse(self, fitted: Fitted, values: Any) -> Any:
        """Return z scale + shift."""
        return values * row(fitted["scale"], values) + row(fitted["shift"], values)

    def log_slope(self, fitted: Fitted, values: Any) -> Array:
        """Return -sum_d log scale_d of each row, (batch,)."""
        return jnp.full(len(values), -jnp.sum(jnp.log(fitted["scale"])))

    def shapes(self, width: int) -> Any:
        """Return the shapes for so many columns."""
        return {"shift": (width,), "scale": (width,)}

    def scale(self, fitted: Fitted) -> Any:
        """Return the scale (d,)."""
        return fitted["scale"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Robust(Standard):
    """z = (v - median) / (interquartile range / 1.349): that of `Standard` for a Gaussian, whatever the outliers.

    Where half of a column is one value, its standard deviation stands for the range (Huber 1981, doi
    10.1002/0471725250).

    >>> robust = Robust()
    >>> fitted = robust.fit(np.array([[0.0], [1.0], [2.0], [3.0], [1000.0]]), invert=True)
    >>> robust.forward(fitted, np.array([[2.0]], "f"))
    array([[0.]], dtype=float32)
    """

    def fit(self, values: np.ndarray, *, invert: bool) -> Fitted:
        """Return {"shift": the medians, "scale": the ranges / 1.349}, (d,) each."""
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        spread = (high - low) / 1.3489795
        return _affine(values, median, np.where(spread > 0, spread, values.std(0)))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Quantile:
    """z = f(v), straight lines between quantiles of v and those of a standard Gaussian, and beyond the last ones.

    Whatever the distribution of v without ties, z is nearly Gaussian (Bartlett 1947, doi 10.2307/3001536).

    >>> quantile = Quantile(points=5)
    >>> fitted = quantile.fit(np.arange(100.0)[:, None] ** 3, invert=True)
    >>> quantile.forward(fitted, np.array([[49.5**3]], "f")).round(3)
    array([[0.]], dtype=float32)
    """

    each_alone: ClassVar[bool] = True
    points: int = 101

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _check.positive_int("points", self.points, most=10**6))
        if self.points < 2:
            raise ValueError(f"points must be at least 2, for a line between them; got {self.points}")

    def fit(self, values: np.ndarray, *, invert: bool) -> Fitted:
        """Return {"quantiles": (points, d)}.

        Raises:
          ValueError: with `invert`, for quantiles that coincide: there the density of v is infinite.
        """
        found = np.quantile(values, self._shares(), axis=0).astype(np.float32)
        flat = np.flatnonzero((np.diff(found, axis=0) <= 0).any(0))
        if invert and len(flat):
            raise ValueError(
                f"values must differ from quantile to quantile to have an inverse; column {flat[0]} repeats more than "
                f"one {self.points}th of them; pass fewer points, or Robust()"
            )
        return {"quantiles": found}

    def forward(self, fitted: Fitted, values: Any) -> Any:
        """Return f(v)."""
        return self._lines(values, fitted["quantiles"], None)[0]

    def inverse(self, fitted: Fitted, values: Any) -> Any:
        """Return f^-1(z)."""
        return self._lines(values, None, fitted["quantiles"])[0]

    def log_slope(self, fitted: Fitted, values: Any) -> Array:
        """Return the sum of the logarithms of the lines' slopes, (batch,)."""
        return jnp.sum(jnp.log(self._lines(values, fitted["quantiles"], None)[1]), axis=-1)

    def shapes(self, width: int) -> Any:
        """Return the shape of the quantiles of so many columns."""
        return {"quantiles": (self.points, width)}

    def scale(self, fitted: Fitted) -> Any:
        """Return None: it is not affine."""
        return None

    def _shares(self) -> np.ndarray:
        return (np.arange(self.points) + 0.5) / self.points

    def _lines(self, values: Any, across: Any, up: Any) -> tuple[Any, Any]:
        """Return the heights and the slopes of lines through points (points, d), for values (..., d)."""
        xp = module_of((values, across, up))
        gaussian = np.array([NormalDist().inv_cdf(share) for share in self._shares()], np.float32)
        columns = []
        for i in range(values.shape[-1]):
            at, to = (gaussian if knots is None else knots[:, i] for knots in (across, up))
            place = xp.clip(xp.searchsorted(at, values[..., i], side="right") - 1, 0, self.points - 2)
            at, to = xp.asarray(at), xp.asarray(to)
            wide = at[place + 1] - at[place]
            slope = (to[place + 1] - to[place]) / xp.where(wide > 0, wide, xp.full_like(wide, math.inf))
            columns.append((to[place] + slope * (values[..., i] - at[place]), slope))
        return xp.stack([height for height, _ in columns], -1), xp.stack([slope for _, slope in columns], -1)


def _affine(values: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> Fitted:
    size = np.abs(values).max(0)
    constant = scale <= 1e-12 * size  # to the rounding of a mean
    scale = np.where(constant, 1.0, scale)
    with np.errstate(over="ignore"):
        lost = np.flatnonzero(~np.isfinite(scale.astype(np.float32)) | (scale < np.finfo(np.float32).tiny))
    if lost.size:
        raise ValueError(
            f"values must spread by what float32 can hold; column {lost[0]} has a deviation of {scale[lost[0]]:g}; "
            f"give it in another unit"
        )
    if (far := np.flatnonzero((np.abs(shift) > FAR * scale) & ~constant)).size:
        raise ValueError(
            f"values must spread by more than float32 loses, a millionth of their size; column {far[0]} lies about "
            f"{shift[far[0]]:g} with a deviation of {scale[far[0]]:g}; subtract a constant in float64 first"
        )
    return {"shift": shift.astype(np.float32), "scale": scale.astype(np.float32)}


def row(fitted: Any, values: Any) -> Any:
    """Return fitted numbers (d,) in the shape and the dtype of values (..., d)."""
    xp = module_of((fitted, values))
    return xp.broadcast_to(xp.asarray(fitted, xp.result_type(values)), xp.shape(values))


def module_of(tree: PyTree) -> Any:
    """Return NumPy where all leaves are NumPy's, else JAX's."""
    return np if all(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(tree)) else jnp
