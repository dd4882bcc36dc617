"""Predictions after training: many rows in cache-sized chunks, and a handful of rows without JAX at all."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _arrays, _check, _compile, _mesh
from jaxmlp._in_numpy import ACTIVATIONS, forward
from jaxmlp._known import is_far
from jaxmlp._scaled import Scaled
from jaxmlp._scaling import outputs as in_units
from jaxmlp._verbs import verb
from jaxmlp.mlp import MLP
from jaxmlp.types import Model, Number, Numeric, Params, PyTree

CHUNK = 1000  # rows whose activations stay in the cache of a CPU; more than enough to fill it with work


@verb
def predict(model: Model, params: Params, x: Numeric, *, chunk: int | None = CHUNK, **numbers: Number) -> PyTree:
    """Return model.apply(params, x), `chunk` rows at a time inside one compiled program.

    A `transforms.Scaled` predicts in the units of its targets.

    Shapes: x (N, in) -> (N, out), or a pytree of such outputs. The activations of all rows at once would leave a CPU's
    cache; on an accelerator pass a chunk as large as its memory likes, or None for all rows.

    A row's outputs do not depend on the chunk, with two limits. What a model draws with a `key` depends on the shape
    that it draws, so with a key all rows go through at once, whatever the chunk. And a model that mixes rows, say by
    the mean of its batch, mixes those of a chunk: for that one pass None.

    Parameters may be split over a mesh; where it has devices of several processes, all of them call this alike.

    Raises:
      ValueError: for x without rows or of another width than the model takes, for parameters that do not fit the model,
        for outputs that have no entry for each row, and for a chunk that is no positive int.

    >>> params = MLP((3, 2)).init(jax.random.key(0))
    >>> predict(MLP((3, 2)), params, jnp.ones((5, 3)), chunk=2).shape
    (5, 2)
    """
    if _arrays.is_like_array(x):
        x = _arrays.array("x", x)
    if not _check.is_array(x) or x.ndim < 2:
        raise ValueError(f"x must have a row an example, (N, in); got {_check.describe(x)}; one row is x[None]")
    chunk = None if chunk is None else _check.positive_int("chunk", chunk)
    numbers = {
        name: a if name == "key" or _draws({name: a}) else _arrays.number(name, a) for name, a in numbers.items()
    }
    outputs = _predict(model, params, x, numbers, chunk=chunk)
    return outputs if is_far(x) else _mesh.whole(outputs)


@_compile.jit(static_argnames=("model", "chunk"))
def _predict(model: Model, params: Params, x: Numeric, numbers: Mapping[str, Number], *, chunk: int | None) -> PyTree:
    def of_rows(rows: Numeric) -> PyTree:
        outputs = in_units(model, params, model.apply(params, rows, **numbers))
        for leaf in jax.tree.leaves(outputs):
            if jnp.shape(leaf)[:1] != (len(rows),):
                raise ValueError(
                    f"model.apply must return outputs with the rows of x on their first axis, {len(rows)} of them; got "
                    f"{_check.describe(leaf)}"
                )
        return outputs

    if chunk is None or len(x) <= chunk or _draws(numbers):
        return of_rows(x)
    whole = len(x) // chunk * chunk
    blocks = jax.lax.map(of_rows, x[:whole].reshape(-1, chunk, *x.shape[1:]))
    outputs = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), blocks)
    if whole == len(x):
        return outputs
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, of_rows(x[whole:]))


def _draws(numbers: Mapping[str, Number]) -> bool:
    """Return whether a model is given a key, typed or of the old form by its name."""
    typed = [jnp.issubdtype(a.dtype, jax.dtypes.prng_key) for a in jax.tree.leaves(numbers) if _check.is_array(a)]
    return any(typed) or numbers.get("key") is not None


@verb
def in_numpy(model: Model, params: Params) -> Callable[[np.ndarray], np.ndarray]:
    """Return x -> model.apply(params, x) in NumPy alone, for a server that answers with a handful of rows at a time.

    For one row, calling a compiled program costs more than the arithmetic. The function holds NumPy copies of the
    parameters, can be pickled, and needs no device, but where it reads back a Gaussian of `transforms.Scaled`. Shapes:
    x (..., in) -> (..., out), in the parameters' dtype, whatever that of x; the function raises a ValueError for x of
    another width.

    Raises:
      ValueError: for parameters that do not fit or that lie on several processes, an activation that is a callable, and
        for half precision: NumPy has no fast products in it.

    >>> mlp = MLP((3, 8, 2))
    >>> params = mlp.init(jax.random.key(0))
    >>> row = np.ones(3, "float32")
    >>> bool(np.allclose(in_numpy(mlp, params)(row), mlp.apply(params, row), atol=1e-6))
    True
    """
    if isinstance(model, Scaled) and isinstance(params, dict):
        params = _mesh.here("params", params)
        inner = in_numpy(model.model, params["model"])
        scaling = jax.tree.map(np.asarray, {name: fitted for name, fitted in params.items() if name != "model"})
        dtype = jax.tree.leaves(params["model"])[0].dtype
        return partial(_forward_scaled, dataclasses.replace(model, model=_Inner(inner)), scaling, dtype)
    if not isinstance(model, MLP):
        raise ValueError(f"model must be an MLP, or transforms.Scaled around one; got {_check.describe(model)}")
    if callable(model.activation):
        raise ValueError(f"in_numpy knows activations by name: {', '.join(ACTIVATIONS)}; got {model.activation!r}")
    if model.dtype not in (None, "float32", "float64") or model.param_dtype not in (None, "float32", "float64"):
        raise ValueError(f"in_numpy computes in float32 or float64; got {model!r}; pass model.replace(dtype=None)")
    model.structure.check(params, model)
    params = _mesh.here("params", params)
    jax.eval_shape(model.apply, params, jnp.zeros(model.sizes[0], params[0].w.dtype))
    layers: Any = [jax.tree.map(np.array, layer) for layer in model.layers(params)]
    return partial(forward, layers, model.activation, model.norm, model.residual)


@dataclasses.dataclass(frozen=True)
class _Inner:
    """What a scaled model is around, where it is a function of NumPy."""

    function: Callable[[np.ndarray], np.ndarray]

    def init(self, key: Any) -> Params:
        return None

    def apply(self, params: Params, x: Any) -> Any:
        return self.function(x)


def _forward_scaled(model: Scaled, scaling: dict[str, Any], dtype: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict({"model": None, **scaling}, np.asarray(_arrays.listed("x", x), dtype)))
