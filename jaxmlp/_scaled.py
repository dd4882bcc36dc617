"""A model around a model: it sees scaled inputs, is trained on scaled targets, and predicts in the targets' units."""

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arrays, _check
from jaxmlp._gaussian import check_units, rescaled
from jaxmlp._mesh import here
from jaxmlp._scaling import check_inner, is_frozen
from jaxmlp._transforms import Fitted, Transform
from jaxmlp.types import Model, Numeric, Params, PyTree

HEADS = ("values", "gaussian", "quantiles")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Scaled:
    """A model of z = f(y) on x' = g(x), where f and g are fitted transforms of columns.

    Its parameters are {"model": those of the model, "x": what g was fitted to, "y": what f was}; the last two are
    frozen. `apply` gives z, on which losses are computed, of targets that are scaled too. A loss that is a density, as
    `losses.gaussian_nll` is, becomes that of y, since log p(y) = log p(z) + log |det df/dy|; any other stays in the
    units of z. Metrics, `serving.predict`, `serving.in_numpy` and `export` give outputs in the units of y.

    Args:
      model: of the scaled inputs, and of the scaled outputs.
      x: what is done to the inputs (batch, d), such as `Standard()`; None leaves them.
      y: what is done to the targets (batch, d); None leaves them, as classes want.
      head: what the outputs are: "values" of y; "gaussian", pairs of which `losses.gaussian` makes mean and variance;
        or "quantiles", as `losses.quantile` has them for several levels.

    Raises:
      ValueError: for transforms that are none, another head, and a head that the transform of y cannot give back.

    >>> import optax
    >>> from jaxmlp import MLP, Recipe, fit, losses, serving, transforms
    >>> x = np.linspace(0, 1000, 50, dtype="f")[:, None]
    >>> model = Scaled(MLP((1, 1)), x=transforms.Standard(), y=transforms.Standard())
    >>> recipe = Recipe(model, losses.squared_error, optax.sgd, epochs=50, batch_size=10)
    >>> numbers = {"learning_rate": 0.1, "scaling": model.fitted(x, 7 * x)}
    >>> state, _ = fit(jax.random.key(0), (x, 7 * x), recipe, numbers)
    >>> serving.predict(model, state.params, np.array([[100.0]], "f")).round(1)
    Array([[700.]], dtype=float32)
    """

    model: Model
    _: dataclasses.KW_ONLY
    x: Transform | None = None
    y: Transform | None = None
    head: str = "values"

    def __post_init__(self) -> None:
        check_inner("Scaled", self.model)
        for name, transform in (("x", self.x), ("y", self.y)):
            if isinstance(transform, type) or not isinstance(transform, Transform | None):
                raise ValueError(
                    f"{name} must be a transform, as transforms.Standard(), or None; got {_check.shown(transform)}"
                )
        _check.one_of("head", self.head, HEADS)
        if self.y is not None and self.head == "gaussian" and not getattr(self.y, "affine", False):
            raise ValueError(
                f"y must scale each column by one number to make a Gaussian of y from one of z; got {self.y!r}; use "
                f"Standard() or Robust(), or head='values' and read z from apply(params, x)"
            )
        if self.y is not None and self.head == "quantiles" and not getattr(self.y, "each_alone", False):
            raise ValueError(
                f"y must scale each column by itself, since quantiles of mixed columns are no quantiles; got {self.y!r}"
            )

    if TYPE_CHECKING:  # to a type checker two methods, as any model has

        def init(self, key: Array, /, *args: Any, **numbers: Any) -> Params: ...  # noqa: D102

        def apply(self, params: Params, x: PyTree, /, *args: Any, **numbers: Any) -> PyTree: ...  # noqa: D102

    else:

        @property
        def init(self) -> "_Call":
            """(key, *, scaling, **numbers of the model) -> parameters; `scaling` is what `fitted` gives."""
            return _Call(self, "init")

        @property
        def apply(self) -> "_Call":
            """(params, x, **numbers of the model) -> the model's outputs, z."""
            return _Call(self, "apply")

    def fitted(self, x: Numeric, y: Numeric | None = None) -> dict[str, Fitted]:
        """Return what the transforms are fitted to on training data: the number `scaling` of a run.

        Raises:
          ValueError: for tables that are not (N, d) and finite, for y that is missing or not asked for, and for values
            that a transform cannot scale.
        """
        if (y is None) != (self.y is None):
            word = "left out, since the model scales none" if self.y is None else "given, since the model scales it"
            raise ValueError(f"y must be {word}; got {_check.describe(y)}")
        found = {}
        for name, transform, table in (("x", self.x, x), ("y", self.y, y)):
            if transform is not None:
                values = _table(name, table)
                found[name] = jax.tree.map(jnp.asarray, transform.fit(values, invert=name == "y"))
        if self.y is not None and self.head == "gaussian":
            check_units(np.asarray(self.y.scale(found["y"])))
        return found

    def frozen(self, path: tuple[Any, ...]) -> bool:
        """Tell whether a parameter is not trained: what was fitted, and what the model itself calls frozen."""
        return path[0] in ("x", "y") or is_frozen(self.model, path[1:])

    def encode(self, params: Params, y: PyTree) -> PyTree:
        """Return the targets z = f(y)."""
        if self.y is None:
            return y
        fitted = _part(params, "y", self.y)
        return self.y.forward(fitted, _columns("targets", y, fitted))

    def log_slope(self, params: Params, y: PyTree) -> Array | None:
        """Return log |det df/dy| of each example (batch,), where the targets are scaled."""
        if self.y is None:
            return None
        fitted = _part(params, "y", self.y)
        return self.y.log_slope(fitted, _columns("targets", y, fitted))

    def decode(self, params: Params, outputs: PyTree) -> PyTree:
        """Return outputs in the units of y.

        Raises:
          ValueError: for outputs of another width than the head's, and for a transform that a head cannot go back by.
        """
        if self.y is None:
            return outputs
        fitted = _part(params, "y", self.y)
        if self.head == "values":
            return self.y.inverse(fitted, _columns("outputs", outputs, fitted))
        width = _width(fitted) or outputs.shape[-1]
        outputs = _columns("outputs", outputs, {})
        if self.head == "quantiles":
            levels = outputs.reshape(*outputs.shape[:-1], -1, width)
            return self.y.inverse(fitted, levels).reshape(outputs.shape)
        return rescaled(outputs, lambda mean: self.y.inverse(fitted, mean), self.y.scale(fitted))  # type: ignore[union-attr]

    def predict(self, params: Params, x: PyTree, **numbers: Any) -> PyTree:
        """Return decode(params, apply(params, x))."""
        return self.decode(params, self.apply(params, x, **numbers))


@dataclasses.dataclass(frozen=True)
class _Call:
    """`init` or `apply` of a scaled model, with the numbers that the model's own names in its signature."""

    of: Scaled
    name: str

    @property
    def __signature__(self) -> inspect.Signature:
        inner = inspect.signature(getattr(self.of.model, self.name))
        if self.name == "apply":
            return inner
        scaling = inspect.Parameter("scaling", inspect.Parameter.KEYWORD_ONLY)
        rest = [p for p in inner.parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
        return inner.replace(parameters=[*rest, scaling])

    def __call__(self, first: Any, *args: Any, **numbers: Any) -> Any:
        of = self.of
        if self.name == "apply":
            (x,) = args
            inner = _part(first, "model")
            if of.x is not None:
                fitted = _part(first, "x", of.x)
                x = of.x.forward(fitted, _columns("x", x, fitted))
            return of.model.apply(inner, x, **numbers)
        scaling = numbers.pop("scaling")
        for name, transform in (("x", of.x), ("y", of.y)):
            _check_fitted(name, transform, scaling)
        return {"model": of.model.init(first, **numbers), **scaling}


def _table(name: str, table: Any) -> np.ndarray:
    table = here(name, _arrays.array(name, table, narrowed=False))
    _check.floating(name, table)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"{name} must be a table (N, d) with at least one row; got {_check.describe(table)}")
    _check.finite(name, table)
    values = _check.on_host(table)
    if values is None:
        raise ValueError(f"{name} must be known to fit a scaling to it; JAX traces it here; call fitted outside of jit")
    return values.astype(np.float64)


def _part(params: Params, name: str, transform: Transform | None = None) -> Any:
    """Return the model's parameters, or what a transform was fitted to."""
    there = isinstance(params, dict) and name in params
    if not there or transform is not None and not _fits(transform, params[name]):
        got = _check.shown(params[name] if there else params)
        raise ValueError(
            f"params must be those of a Scaled model, {{'model': ..., 'x': ..., 'y': ...}} with arrays as fitted(x, y) "
            f"gives them; got {got} for {name!r}"
        )
    return params[name]


def _fits(transform: Transform, fitted: Any) -> bool:
    """Tell whether arrays are such as a transform fits."""
    try:
        found, structure = jax.tree.flatten(fitted)
    except ValueError:  # a dict whose keys cannot be sorted
        return False
    if not all(_check.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in found):
        return False
    shapes, wanted = jax.tree.flatten(transform.shapes(_width(fitted) or 1), is_leaf=_is_shape)
    return structure == wanted and [leaf.shape for leaf in found] == shapes


def _width(fitted: Fitted) -> int | None:
    """Return how many columns were fitted, where the arrays tell it: it is the last axis of the first of them."""
    leaves = jax.tree.leaves(fitted)
    return leaves[0].shape[-1] if leaves and leaves[0].ndim else None


def _columns(what: str, values: Any, fitted: Fitted) -> Any:
    """Return values (..., d), of as many columns as were fitted."""
    values = _arrays.array(what, values) if _arrays.is_like_array(values) else values
    width = _width(fitted)
    if not _check.is_array(values) or values.ndim < 1 or width not in (None, values.shape[-1]):
        fix = "; outputs of a distribution ask for Scaled(head=...)" if what == "outputs" else ""
        raise ValueError(
            f"{what} must be of the {width or 'd'} columns that the scaling was fitted to, (..., {width or 'd'}); got "
            f"{_check.describe(values)}{fix}"
        )
    # A shift and a scale are no integers, and in half precision a mean far from zero is infinite.
    narrow = not jnp.issubdtype(values.dtype, jnp.floating) or values.dtype.itemsize < 4
    return values.astype(jnp.float32) if narrow else values


def _check_fitted(name: str, transform: Transform | None, scaling: Any) -> None:
    """Raise unless a scaling holds what a transform was fitted to."""
    there = isinstance(scaling, dict) and scaling.keys() <= {"x", "y"} and (name in scaling) == (transform is not None)
    if not there or transform is not None and not _fits(transform, scaling[name]):
        got = list(scaling) if isinstance(scaling, dict) else _check.describe(scaling)
        raise ValueError(
            f"scaling must be what model.fitted(x, y) gives, for x and y as the model scales them; its {name!r} does "
            f"not fit {transform!r}; got {got}"
        )


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) > 0 and all(isinstance(item, int) for item in node)
