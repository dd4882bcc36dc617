"""Bounds of a variance that are trained, one pair for all inputs: a model around a model, and a loss around a loss."""

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arguments, _check
from jaxmlp._gaussian import log_variance_of, raw_scale_of
from jaxmlp._passing import apart, check_names, check_part, parameters, share, signature
from jaxmlp._scaling import check_inner, is_density, is_frozen
from jaxmlp._targets import number
from jaxmlp.types import Loss, Model, Number, Params, PyTree


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class BoundedScales:
    """A model whose log variances lie between two bounds that are trained with it, the same for all inputs.

    Of the model's outputs, d means and then d raw scales (see `losses.gaussian`), a log variance v becomes

        v' = high - softplus(high - v),    low + softplus(v' - low)

    and the raw scale of that (Chua 2018, arXiv 1805.12114, A.1). Far from the data a net then says no variance that it
    has not seen. Train it on `losses.bounded`, which draws the bounds together: without that nothing does. Parameters
    are {"model": those of the model, "low": (d,), "high": (d,)}; the model's numbers are its own.

    Args:
      model: any static object with `init(key)` and `apply(params, x)`, of 2 d outputs.
      d: how many targets there are.
      low: the log variance that the lower bounds start from.
      high: that which the upper bounds start from.

    Raises:
      ValueError: for what is no model, d below 1, a low that is not below high; when applied, for another width.

    >>> from jaxmlp import MLP
    >>> model = BoundedScales(MLP((3, 8, 2)), 1)
    >>> params = model.init(jax.random.key(0))
    >>> params["low"], params["high"], model.apply(params, jnp.ones((5, 3))).shape
    (Array([-10.], dtype=float32), Array([0.5], dtype=float32), (5, 2))
    """

    model: Model
    d: int
    low: float = -10.0
    high: float = 0.5

    def __post_init__(self) -> None:
        check_inner("BoundedScales", self.model)
        object.__setattr__(self, "d", _check.positive_int("d", self.d))
        for name in ("low", "high"):
            value = _arguments.scalar(name, getattr(self, name))
            number(name, value, -np.inf, np.inf)
            object.__setattr__(self, name, value)
        if not self.low < self.high:
            raise ValueError(f"low must be below high; got {self.low} and {self.high}")
        try:
            hash(self.model)
        except TypeError as error:
            raise ValueError(f"model must be hashable ({error}); use tuples for lists") from error

    if TYPE_CHECKING:  # to a type checker two methods, as any model has

        def init(self, key: Array, /, *args: Any, **numbers: Any) -> Params: ...  # noqa: D102

        def apply(self, params: Params, x: PyTree, /, *args: Any, **numbers: Any) -> PyTree: ...  # noqa: D102

    else:

        @property
        def init(self) -> Any:
            """The function of a key, and of the model's numbers, that draws the parameters."""
            return _Method(self, "init")

        @property
        def apply(self) -> Any:
            """The function of params and x, and of the model's numbers, that gives the outputs (batch, 2 d)."""
            return _Method(self, "apply")

    def frozen(self, path: tuple[Any, ...]) -> bool:
        """Tell whether a parameter is not trained: what the model itself calls frozen."""
        return path[0] == "model" and is_frozen(self.model, path[1:])

    def _init(self, key: Array, **numbers: Any) -> Params:
        dtype = jax.dtypes.canonicalize_dtype(float)
        bounds = {name: jnp.full(self.d, getattr(self, name), dtype) for name in ("low", "high")}
        return {"model": self.model.init(key, **numbers), **bounds}

    def _apply(self, params: Params, x: PyTree, **numbers: Any) -> Array:
        low, high = _bounds_of(params, self.d)
        outputs: Any = self.model.apply(params["model"], x, **numbers)
        if not _check.is_array(outputs) or outputs.ndim < 1 or outputs.shape[-1] != 2 * self.d:
            raise ValueError(
                f"model must have {2 * self.d} outputs, {self.d} means and as many raw scales; got "
                f"{_check.describe(outputs)}"
            )
        mean, raw = jnp.split(jnp.asarray(outputs), 2, axis=-1)
        low, high = (jnp.broadcast_to(bound.astype(raw.dtype), raw.shape) for bound in (low, high))
        below = high - jax.nn.softplus(high - log_variance_of(raw))
        return jnp.concatenate([mean, raw_scale_of(low + jax.nn.softplus(below - low))], axis=-1)


@dataclasses.dataclass(frozen=True)
class _Method:
    """A method that takes the numbers that the model's own takes: its signature names them."""

    of: BoundedScales
    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "__signature__", inspect.signature(getattr(self.of.model, self.name)))

    def __call__(self, *args: Any, **numbers: Any) -> Any:
        return getattr(self.of, f"_{self.name}")(*args, **numbers)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Bounded:
    """A loss and what draws the bounds of a `BoundedScales` together, as `bounded` makes it.

    Args:
      loss: of the model's outputs.

    Raises:
      ValueError: for what is no loss or has no hash, and for one that names bound_weight itself.
    """

    loss: Loss

    def __post_init__(self) -> None:
        check_part("the loss of bounded", self.loss)
        if "bound_weight" in parameters(self.loss):
            raise ValueError("bound_weight must be one number; the loss of bounded names it too; bound a loss once")
        more = {"params": inspect.Parameter.empty, "bound_weight": 0.01}
        object.__setattr__(self, "__signature__", signature([self.loss], more))

    @property
    def density(self) -> bool:
        """Whether the loss is that of a density, whose targets a model may scale."""
        return is_density(self.loss)

    def __call__(
        self, outputs: PyTree, targets: PyTree, *, params: Params, bound_weight: Number = 0.01, **given: Any
    ) -> tuple[Array, dict[str, Array]]:
        """Return the loss of each example, (batch,), and beside what it says itself the distance of the bounds."""
        check_names(self, given)
        number("bound_weight", bound_weight, 0, np.inf)
        if np.ndim(bound_weight):
            raise ValueError(f"bound_weight must be one number; got {_check.describe(bound_weight)}")
        low, high = _bounds_of(params)
        values, extras = apart(self.loss(outputs, targets, **share(self.loss, {**given, "params": params})))
        apart_by = jnp.broadcast_to(jnp.sum(high - low).astype(values.dtype), values.shape)
        return values + jnp.asarray(bound_weight, values.dtype) * apart_by, {**extras, "bounds": apart_by}


def bounded(loss: Loss) -> Bounded:
    """Return the loss of a `BoundedScales`: loss + bound_weight sum_d (high_d - low_d), a value as its parts are.

    The second part draws the bounds together until the data hold them apart (Chua 2018, arXiv 1805.12114). Its weight
    is a number, 0.01 as in the paper where it is not given; the sum is a column of the history, "bounds". Numbers and
    requests of the loss are passed on. It asks for `params`, those of the model.

    Args:
      loss: one that reads d means and then d raw scales, as `gaussian_nll`, `student_t_nll` or `gaussian_crps`.

    Raises:
      ValueError: for what is no loss; when called, for parameters without bounds, and for a weight that is negative.

    >>> params = {"model": (), "low": jnp.array([-10.0]), "high": jnp.array([0.5])}
    >>> values, told = bounded(gaussian_nll)(jnp.zeros((1, 2)), jnp.zeros((1, 1)), params=params, bound_weight=0.0)
    >>> told["bounds"]
    Array([10.5], dtype=float32)
    """
    return Bounded(loss)


def _bounds_of(params: Params, d: int | None = None) -> tuple[Array, Array]:
    while isinstance(params, dict) and not {"low", "high"} <= params.keys() and isinstance(params.get("model"), dict):
        params = params["model"]  # of a model around it
    if not isinstance(params, dict) or not {"model", "low", "high"} <= params.keys():
        raise ValueError(f"params must be those of a BoundedScales, with low and high; got {_check.shown(params)}")
    low, high = params["low"], params["high"]
    for name, bound in (("low", low), ("high", high)):
        _check.floating(f"{name} of params", bound)
        if bound.ndim != 1 or bound.shape != low.shape or d not in (None, len(bound)):
            raise ValueError(f"{name} of params must have shape ({d or 'd'},); got {_check.describe(bound)}")
    return jnp.asarray(low), jnp.asarray(high)
