"""Values and gradients together: a network learns a function and its derivative in x, of which few points tell much."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arguments, _arrays, _check
from jaxmlp._targets import alike, number, sum_outputs, widest
from jaxmlp.types import Number, Numeric, Params, PyTree


def sobolev(
    outputs: Numeric,
    targets: Mapping[str, Numeric],
    *,
    params: Params,
    x: Numeric,
    apply: Callable[[Params, PyTree], Any],
    slope_weight: Number = 1.0,
) -> tuple[Array, dict[str, Array]]:
    """Return sum_d (y_d - yhat_d)^2 + slope_weight sum_dn (s_dn - d yhat_d / d x_n)^2, the value and its gradients.

    Czarnecki 2017 (arXiv 1706.04859). The two parts are columns of the history, "value" and "slope". Slopes are in
    units of the targets by units of x: where data are standardised, so are they, by (scale of x) / (scale of y). Each
    output costs a backward pass more. An example's outputs must hang on its own x alone.

    Args:
      outputs: (batch, d).
      targets: {"value": (batch, d), "slope": (batch, d, n)}, floats; the gradient of output d is slope[:, d].
      params: of the model; a `Recipe` gives these three.
      x: (batch, n).
      apply: the model, (params, x) -> (batch, d).
      slope_weight: what the slopes count beside the values, a number that is not negative.

    Raises:
      ValueError: for targets that are no such dict, shapes that do not fit each other, and a negative weight.

    >>> line = lambda params, x: x @ params
    >>> w, x = jnp.array([[2.0], [0.0]]), jnp.ones((1, 2))
    >>> targets = {"value": jnp.array([[2.0]]), "slope": jnp.array([[[3.0, 1.0]]])}
    >>> values, told = sobolev(line(w, x), targets, params=w, x=x, apply=line)
    >>> values, told["value"], told["slope"]
    (Array([2.], dtype=float32), Array([0.], dtype=float32), Array([2.], dtype=float32))
    """
    _arguments.takes("apply", apply, 2, "(params, x)", numbers=True)
    number("slope_weight", slope_weight, 0, np.inf)
    if np.ndim(slope_weight):
        raise ValueError(f"slope_weight must be one number; got {_check.describe(slope_weight)}")
    if not isinstance(targets, Mapping) or set(targets) != {"value", "slope"}:
        raise ValueError(
            f"targets must be {{'value': (batch, d), 'slope': (batch, d, n)}}; got "
            f"{list(targets) if isinstance(targets, Mapping) else _check.describe(targets)}"
        )
    outputs, x = _arrays.array("outputs", outputs), _arrays.array("x", x)
    value, slope = (_arrays.array(f"targets[{name!r}]", targets[name]) for name in ("value", "slope"))
    _check.floating("x", x)
    _check.floating("outputs", outputs)
    if outputs.ndim != 2 or x.ndim != 2 or len(x) != len(outputs):
        raise ValueError(
            f"outputs and x must have shapes (batch, d) and (batch, n); got {_check.describe(outputs)} and "
            f"{_check.describe(x)}"
        )
    _check.floating("targets['slope']", slope)
    if slope.shape != (*outputs.shape, x.shape[1]):
        raise ValueError(
            f"targets['slope'] must have shape {(*outputs.shape, x.shape[1])}, a gradient for each output; got "
            f"{_check.describe(slope)}"
        )
    off = sum_outputs(jnp.square(jnp.subtract(*alike(outputs, value))))
    steep = sum_outputs(jnp.square(jnp.subtract(*alike(_jacobian(apply, params, jnp.asarray(x)), slope))))
    dtype = widest(off, steep)
    return off.astype(dtype) + jnp.asarray(slope_weight, dtype) * steep.astype(dtype), {"value": off, "slope": steep}


def _jacobian(apply: Callable[[Params, PyTree], Any], params: Params, x: Array) -> Array:
    """Return d output_d / d x_n of each example, (batch, d, n): of all at once, a backward pass for each output."""
    outputs, pull = jax.vjp(lambda x: apply(params, x), x)
    if not _check.is_array(outputs) or outputs.ndim != 2 or len(outputs) != len(x):
        raise ValueError(f"apply must return outputs (batch, d); got {_check.describe(outputs)}")
    ones = jnp.broadcast_to(jnp.eye(outputs.shape[1], dtype=outputs.dtype)[:, None], (outputs.shape[1], *outputs.shape))
    (slopes,) = jax.vmap(pull)(ones)
    return jnp.moveaxis(slopes, 0, 1)
