"""What an `MLP` has in common with the nets of other libraries: affine maps with one activation between them."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp._mesh import here
from jaxmlp.layer import Layer
from jaxmlp.mlp import MLP

Activation: TypeAlias = str | Callable[[Array], Array]
FLOATS = ("bfloat16", "float16", "float32", "float64")


def layers_of(model: MLP, params: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the layers of a net that other libraries have too.

    Raises:
      ValueError: for a model that is more than that, or computes in another dtype than that of its parameters; for
        parameters that are not its own, of a population, or that lie on several processes.
    """
    if not isinstance(model, MLP) or model.norm or model.residual or callable(model.activation):
        raise ValueError(f"model must be an MLP of affine maps and a named activation; got {model!r}")
    layers = model.layers(here("params", params))
    if layers[0].w.ndim != 2:
        raise ValueError(f"params must be of one network; got w of shape {layers[0].w.shape}; population.member picks")
    if model.dtype not in (None, layers[0].w.dtype.name):
        raise ValueError(
            f"model must compute in the dtype of its parameters, {layers[0].w.dtype.name}, as it will elsewhere; got "
            f"{model!r}; pass model.replace(dtype=None)"
        )
    return layers


def model_of(
    weights: Sequence[np.ndarray], biases: Sequence[np.ndarray | None], activation: Activation
) -> tuple[MLP, tuple[Layer, ...]]:
    """Return the MLP of these weights (in, out) and biases (out,) or None.

    Raises:
      ValueError: for weights that do not chain, or that the dtype here cannot hold.
    """
    shapes = [w.shape for w in weights]
    if any(len(s) != 2 for s in shapes) or any(a[1] != b[0] for a, b in zip(shapes, shapes[1:], strict=False)):
        raise ValueError(f"weights must chain, (in, out) each; got {shapes}")
    if len({b is None for b in biases}) != 1 or any(
        b is not None and b.shape != w.shape[1:] for w, b in zip(weights, biases, strict=True)
    ):
        raise ValueError(f"biases must be there for all layers or none, (out,) each; got {biases!r:.200}")
    dtypes = sorted({a.dtype.name for a in (*weights, *biases) if a is not None})
    if len(dtypes) > 1 or dtypes[0] not in FLOATS:
        raise ValueError(
            f"weights and biases must be of one dtype, one of {', '.join(FLOATS)}; got {', '.join(dtypes)}; convert "
            f"them there first"
        )
    dtype = jax.dtypes.canonicalize_dtype(dtypes[0])
    model = MLP((len(weights[0]), *(w.shape[1] for w in weights)), activation, bias=biases[0] is not None)
    if dtype != jax.dtypes.canonicalize_dtype(float):
        model = model.replace(param_dtype=dtype)
    layers = [
        Layer(_narrowed(w, dtype), None if b is None else _narrowed(b, dtype))
        for w, b in zip(weights, biases, strict=True)
    ]
    return model, tuple(layers)


def _narrowed(values: np.ndarray, dtype: np.dtype) -> Array:
    """Return the values in `dtype`, which is narrower than theirs only where JAX has no 64 bits."""
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    if dtype != values.dtype and (np.isinf(narrow) & np.isfinite(values)).any():
        raise ValueError(
            f"weights must be numbers that {dtype} can hold; got {np.abs(values).max():.3g} in {values.dtype}; call "
            f"jax.config.update('jax_enable_x64', True) first"
        )
    return jnp.asarray(narrow)
