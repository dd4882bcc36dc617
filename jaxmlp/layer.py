"""One layer: the affine map, and the nonlinear pieces that stand between two of them.

Activations and initializers are JAX's own, under their names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import Array, nn
from jax.nn import initializers
from jax.typing import DTypeLike

from jaxmlp import _arrays, _check
from jaxmlp._matmul import SHORT as SHORT
from jaxmlp._matmul import matmul
from jaxmlp.types import Number, Numeric

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    name: getattr(nn, name)
    for name in "identity relu sigmoid tanh leaky_relu elu selu gelu silu softplus mish hard_tanh".split()
}
INITIALIZERS: dict[str, Callable[..., Array]] = {
    **{
        f"{author}_{law}": getattr(initializers, f"{author}_{law}")()
        for author in ("he", "glorot", "lecun", "kaiming", "xavier")
        for law in ("normal", "uniform")
    },
    **{name: getattr(initializers, name)() for name in ("normal", "uniform", "truncated_normal", "orthogonal")},
    "zeros": initializers.zeros,
    "ones": initializers.ones,
}


def default_init(activation: object) -> str:
    """Name the initializer that keeps the variance of the signal through `activation`.

    He (2015, arXiv 1502.01852) where about half the input is cut off, Glorot (2010,
    proceedings.mlr.press/v9/glorot10a.html) for saturating curves, LeCun (1998, doi 10.1007/3-540-49430-8_2) for
    the rest, selu among them (Klambauer 2017, arXiv 1706.02515).

    >>> default_init("relu"), default_init("tanh"), default_init("selu")
    ('he_normal', 'glorot_uniform', 'lecun_normal')
    """
    if activation in ("relu", "leaky_relu", "elu", "gelu", "silu", "mish"):
        return "he_normal"
    return "glorot_uniform" if activation in ("tanh", "sigmoid", "hard_tanh") else "lecun_normal"


class Layer(NamedTuple):
    """One affine map, y = x @ w + b; `scale` and `shift` are leaves only where a norm asks for them."""

    w: Array  # (in, out)
    b: Any = None  # (out,), or None where the map has no bias
    scale: Any = None  # (out,), or None where there is no norm
    shift: Any = None  # (out,)


# So that a program that takes parameters can be written to a file: `jax.export` knows a container by its name.
jax.export.register_namedtuple_serialization(Layer, serialized_name="jaxmlp.Layer")


def affine(layer: Layer, x: Numeric, dtype: DTypeLike | None = None) -> Array:
    """Return x @ w + b, with the operands of the product in `dtype` and its sum in the dtype of w.

    Shapes: x (..., in) -> (..., out).

    Raises:
      ValueError: for what is no layer, for x that is no array of numbers (..., in), and for numbers beyond the dtype.

    >>> affine(Layer(jnp.eye(2), jnp.ones(2)), jnp.array([3.0, 4.0]))
    Array([4., 5.], dtype=float32)
    """
    if not isinstance(layer, Layer):
        raise ValueError(f"layer must be a Layer; got {_check.describe(layer)}; a net has mlp.apply(params, x)")
    for name, leaf in zip(layer._fields, layer, strict=True):
        if leaf is not None and not isinstance(leaf, jax.Array):
            _check.floating(name, leaf)
            _arrays.fitting(name, leaf)
    _check.floating("w", layer.w)
    x = _arrays.listed("x", x)
    if x.ndim < 1 or x.shape[-1] != layer.w.shape[-2]:
        raise ValueError(f"x must have shape (..., {layer.w.shape[-2]}) for this layer; got {_check.describe(x)}")
    y = matmul(jnp.asarray(x), layer.w, dtype)
    return y if layer.b is None else y + jnp.broadcast_to(layer.b, y.shape)


def _wide(h: Array) -> Array:
    """Return h in float32 at least: in float16 the square of 256 is infinite, and bfloat16 subtracts in eight bits."""
    return h.astype(jnp.float32) if h.dtype in (jnp.float16, jnp.bfloat16) else h


def layer_norm(layer: Layer, h: Array) -> Array:
    """Return (h - mean) / sqrt(variance + 1e-5) * scale + shift over the last axis (Ba 2016, arXiv 1607.06450)."""
    wide = _wide(h)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    # The mean of their squares, and not mean(h^2) - mean(h)^2, which cancels where the mean is large.
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    h = jnp.asarray(centred * jax.lax.rsqrt(variance + 1e-5), h.dtype)
    return h * jnp.broadcast_to(layer.scale, h.shape) + jnp.broadcast_to(layer.shift, h.shape)


def rms_norm(layer: Layer, h: Array) -> Array:
    """Return h / sqrt(mean(h^2) + 1e-5) * scale over the last axis (Zhang 2019, arXiv 1910.07467)."""
    wide = _wide(h)
    h = jnp.asarray(wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-5), h.dtype)
    return h * jnp.broadcast_to(layer.scale, h.shape)


NORMS: dict[str | None, Callable[[Layer, Array], Array]] = {
    None: lambda layer, h: h,
    "layer": layer_norm,
    "rms": rms_norm,
}


def dropout(key: Array | None, rate: Number | None, h: Array) -> Array:
    """Return h with each unit zeroed at `rate`, the rest divided by 1 - rate; h itself where `key` is None.

    Srivastava 2014 (jmlr.org/papers/v15/srivastava14a.html).
    """
    if key is None:
        return h
    keep = 1 - jnp.asarray(rate, h.dtype)
    return jnp.where(jax.random.bernoulli(key, keep, h.shape), h / keep, jnp.zeros_like(h))


class Hidden(NamedTuple):
    """A hidden layer without its numbers: h -> dropout(phi(norm(h W + b))), to which a residual net adds h."""

    activation: Callable[[Array], Array]
    norm: str | None
    residual: bool
    dtype: DTypeLike | None

    def __call__(self, layer: Layer, h: Array, key: Array | None, rate: Number | None) -> Array:
        """Return the new h; raise a ValueError where the activation gives another shape, or no floats."""
        before = NORMS[self.norm](layer, affine(layer, h, self.dtype))
        new = self.activation(before)
        if not _check.is_array(new) or new.shape != before.shape or not jnp.issubdtype(new.dtype, jnp.floating):
            raise ValueError(
                f"activation must be elementwise, from floats (..., units) to floats of that shape; got "
                f"{_check.describe(new)} of {_check.describe(before)} from {_check.name_of(self.activation)}"
            )
        new = dropout(key, rate, jnp.asarray(new))
        return jnp.asarray(h, new.dtype) + new if self.residual and h.shape == new.shape else new
