"""Scalings that travel with a model: fitted once, left alone by training, and saved, undone and exported with it.

    model = transforms.Scaled(MLP((8, 64, 1)), x=transforms.Standard(), y=transforms.Standard())
    numbers = {"learning_rate": 1e-3, "scaling": model.fitted(x, y)}

A `Scaled` model is trained on z = f(y) of x' = g(x), both fitted beforehand, and predicts in the units of y. A
transform is any static object with the methods of `Transform`; `Chain` makes one of several.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arguments, _check
from jaxmlp._scaled import Scaled as Scaled
from jaxmlp._transforms import Fitted as Fitted
from jaxmlp._transforms import Quantile as Quantile
from jaxmlp._transforms import Robust as Robust
from jaxmlp._transforms import Standard as Standard
from jaxmlp._transforms import Transform as Transform
from jaxmlp._transforms import module_of, row

EXACT = jax.lax.Precision.HIGHEST  # a scaling is no product to be rounded for speed


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Log:
    """z = log(v - offset), for what is positive and spans powers of ten; outside v > offset it is NaN.

    >>> Log().forward({"shift": np.zeros(1, "f")}, np.array([[1.0]], "f"))
    array([[0.]], dtype=float32)
    """

    each_alone: ClassVar[bool] = True
    offset: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", _arguments.scalar("offset", self.offset))

    def fit(self, values: np.ndarray, *, invert: bool) -> Fitted:
        """Return {"shift": the offset of each column, (d,)}.

        Raises:
          ValueError: for values that have no logarithm.
        """
        if not (values > self.offset).all():
            raise ValueError(
                f"values must be above the offset {self.offset:g} to have a logarithm; got {values.min():g}; pass "
                f"Log(offset=...) below it, or Quantile() or Robust()"
            )
        return {"shift": np.full(values.shape[1], self.offset, np.float32)}

    def forward(self, fitted: Fitted, values: Any) -> Any:
        """Return log(v - offset)."""
        moved = values - row(fitted["shift"], values)
        return module_of(moved).log(moved)

    def inverse(self, fitted: Fitted, values: Any) -> Any:
        """Return exp(z) + offset."""
        return module_of((fitted, values)).exp(values) + row(fitted["shift"], values)

    def log_slope(self, fitted: Fitted, values: Any) -> Array:
        """Return -sum_d log(v_d - offset) of each row, (batch,)."""
        return -jnp.sum(jnp.log(values - row(fitted["shift"], values)), axis=-1)

    def shapes(self, width: int) -> Any:
        """Return the shapes for so many columns."""
        return {"shift": (width,)}

    def scale(self, fitted: Fitted) -> Any:
        """Return None: it is not affine."""
        return None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Whiten:
    """z = (v - mean) V / sqrt(lambda): uncorrelated columns of variance one, by principal components.

    V and lambda are eigenvectors and eigenvalues of the covariance of the rows, the largest first; `components` keeps
    so many of them. Kessy 2018, arXiv 1512.00809 (PCA whitening).

    >>> rows = np.random.default_rng(0).normal(size=(100, 2)) @ np.array([[1.0, 2.0], [0.0, 1.0]])
    >>> z = Whiten().forward(Whiten().fit(rows, invert=True), rows)
    >>> bool(np.abs(np.cov(z.T, bias=True) - np.eye(2)).max() < 1e-4)
    True
    """

    components: int | None = None

    def __post_init__(self) -> None:
        if self.components is not None:
            object.__setattr__(self, "components", _check.positive_int("components", self.components))

    def fit(self, values: np.ndarray, *, invert: bool) -> Fitted:
        """Return {"shift": (d,), "turn": (d, k), "back": (k, d)}.

        Raises:
          ValueError: for fewer directions than `components`, or with `invert` for components that are left out.
        """
        width = values.shape[1]
        kept = width if self.components is None else self.components
        mean = values.mean(0)
        powers, vectors = np.linalg.eigh((values - mean).T @ (values - mean) / len(values))
        powers, vectors = powers[::-1], vectors[:, ::-1]
        rank = int((powers > 1e-10 * powers[0]).sum())
        if kept > rank:
            raise ValueError(
                f"components must be at most the {rank} directions in which the values vary; got {kept}; pass "
                f"Whiten(components={rank})"
            )
        if invert and kept < width:
            raise ValueError(f"components must be None where there is a way back from all {width} columns; got {kept}")
        # The sign of an eigenvector is the solver's whim: the largest entry of each is positive.
        vectors = vectors[:, :kept] * np.sign(vectors[np.abs(vectors[:, :kept]).argmax(0), np.arange(kept)])
        root = np.sqrt(powers[:kept])
        arrays = {"shift": mean, "turn": vectors / root, "back": (vectors * root).T}
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    def forward(self, fitted: Fitted, values: Any) -> Any:
        """Return (v - shift) turn."""
        return _product(values - row(fitted["shift"], values), fitted["turn"])

    def inverse(self, fitted: Fitted, values: Any) -> Any:
        """Return z back + shift."""
        found = _product(values, fitted["back"])
        return found + row(fitted["shift"], found)

    def log_slope(self, fitted: Fitted, values: Any) -> Array:
        """Return log |det turn| of each row, (batch,)."""
        return jnp.full(len(values), jnp.linalg.slogdet(fitted["turn"])[1])

    def shapes(self, width: int) -> Any:
        """Return the shapes for so many columns."""
        kept = width if self.components is None else self.components
        return {"shift": (width,), "turn": (width, kept), "back": (kept, width)}

    def scale(self, fitted: Fitted) -> Any:
        """Return None: it mixes columns."""
        return None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, init=False)
class Chain:
    """One transform after the other, each fitted on what those before it give: Chain(Log(), Standard()).

    >>> chain = Chain(Log(), Standard())
    >>> fitted = chain.fit(np.exp(np.array([[1.0], [3.0]])), invert=True)
    >>> chain.forward(fitted, np.exp(np.array([[5.0]], "f")))
    array([[3.]], dtype=float32)
    """

    links: tuple[Transform, ...]

    def __init__(self, *chain: Any, links: Any = ()):
        links = chain or tuple(links)
        if not links or not all(isinstance(link, Transform) for link in links):
            raise ValueError(f"links must be one transform or several, as Chain(Log(), Standard()); got {links!r:.200}")
        object.__setattr__(self, "links", links)

    @property
    def affine(self) -> bool:
        """Whether it is one number a column."""
        return all(getattr(link, "affine", False) for link in self.links)

    @property
    def each_alone(self) -> bool:
        """Whether no column counts for another."""
        return all(getattr(link, "each_alone", False) for link in self.links)

    def fit(self, values: np.ndarray, *, invert: bool) -> Fitted:
        """Return what each link fits, a tuple."""
        found = []
        for link in self.links:
            found.append(link.fit(values, invert=invert))
            values = np.asarray(link.forward(found[-1], values), np.float64)
        return tuple(found)

    def forward(self, fitted: Fitted, values: Any) -> Any:
        """Return the last link's z."""
        for link, arrays in zip(self.links, fitted, strict=True):
            values = link.forward(arrays, values)
        return values

    def inverse(self, fitted: Fitted, values: Any) -> Any:
        """Return the first link's v."""
        for link, arrays in reversed(list(zip(self.links, fitted, strict=True))):
            values = link.inverse(arrays, values)
        return values

    def log_slope(self, fitted: Fitted, values: Any) -> Array:
        """Return the sum of the links', each where the ones before it lead, (batch,)."""
        total = jnp.zeros(len(values))
        for link, arrays in zip(self.links, fitted, strict=True):
            total = total + link.log_slope(arrays, values)
            values = link.forward(arrays, values)
        return total

    def shapes(self, width: int) -> Any:
        """Return the shapes of all links, a tuple."""
        found = []
        for link in self.links:
            found.append(link.shapes(width))
            width = getattr(link, "components", None) or width
        return tuple(found)

    def scale(self, fitted: Fitted) -> Any:
        """Return the product of the links' scales, where all have one."""
        total: Any = 1.0
        for link, arrays in zip(self.links, fitted, strict=True):
            one = link.scale(arrays)
            if one is None:
                return None
            total = total * one
        return total


def _product(values: Any, by: Any) -> Any:
    if module_of((values, by)) is np:
        return values @ by.astype(values.dtype)
    return jnp.matmul(values, jnp.asarray(by, values.dtype), precision=EXACT)


KINDS = (Chain, Log, Quantile, Robust, Scaled, Standard, Whiten)  # what a file or a checkpoint may make again
for _kind in KINDS:
    _kind.__module__ = __name__  # they are found here by name, also by a run that is resumed
