"""What one affine layer can do alone: y = W'x + b for every example, x @ w + b for a batch.

The closed form of its least squares, its gradients by hand, and the fold of a stack of affine layers into one.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxmlp import _arrays, _check, _weights
from jaxmlp._arrays import taking
from jaxmlp._mesh import on_automatic_axes
from jaxmlp._targets import number, wide, widest
from jaxmlp.layer import Layer, affine
from jaxmlp.types import Number, Numeric

Params = TypeVar("Params", Layer, tuple[Layer, ...])


@taking("x", "y")
def least_squares(x: Numeric, y: Numeric, l2: Number = 0.0) -> Layer:
    """Return the layer that minimises sum_i |x_i w + b - y_i|^2 + l2 |w|^2, with b free of the penalty.

    With x and y centred and x = U S V' their singular value decomposition, w = V diag(s / (s^2 + l2)) U' y and
    b = mean(y) - mean(x) w. Where x has not full rank, singular values below eps max(N, in) s_max count as zero,
    which gives the w of minimum norm (Golub and Van Loan 2013, section 5.5). `l2` is scikit-learn's Ridge alpha.

    Shapes: x (N, in), y (N, out) -> w (in, out), b (out,).

    Raises:
      ValueError: for empty, non-finite or non-float data, other ranks, lengths that differ, a negative l2.

    >>> line = least_squares(jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[1.0], [3.0], [5.0]]))
    >>> line.w.round(4), line.b.round(4)
    (Array([[2.]], dtype=float32), Array([1.], dtype=float32))
    """
    _table(x, y)
    l2 = _arrays.number("l2", l2, ndim=0)
    number("l2", l2, 0, float("inf"))
    dtype = widest(x, y)
    (x, x_scale, x_mean), (y, y_scale, y_mean) = _centred(x, dtype), _centred(y, dtype)
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    kept = s > jnp.finfo(dtype).eps * max(x.shape) * s[0]
    # One division after the other: by their product, as a compiler would have it, is by zero.
    penalty = jax.lax.optimization_barrier(jnp.asarray(l2, dtype) / x_scale) / x_scale
    gain = jnp.where(kept, s / jnp.where(kept, s * s + penalty, 1), 0)
    w = vt.T @ (gain[:, None] * (u.T @ y))
    return Layer(jax.lax.optimization_barrier(w / x_scale) * y_scale, (y_mean - x_mean @ w) * y_scale)


@taking("x", "y")
def gradients(params: Params, x: Numeric, y: Numeric) -> Params:
    """Return the partial derivatives of the mean squared error in w and b, written out by hand.

    With MSE = 1/N sum_i sum_d (yhat_id - y_id)^2 and yhat = x w + b:
    dMSE/dw = 2/N x' (yhat - y), dMSE/db = 2/N sum_i (yhat_i - y_i).

    Args:
      params: one `Layer`, or a tuple of one, as `MLP((in, out)).init` makes it; the result has the same form.
      x: inputs, shape (N, in).
      y: targets, shape (N, out).

    Raises:
      ValueError: for a stack of several layers, and for shapes that do not fit.

    >>> gradients(Layer(jnp.array([[1.0]]), jnp.array([0.0])), jnp.array([[2.0]]), jnp.array([[5.0]]))
    Layer(w=Array([[-12.]], dtype=float32), b=Array([-6.], dtype=float32), scale=None, shift=None)
    """
    if not isinstance(params, Layer):
        params = _layers(params)
        if len(params) != 1:
            raise ValueError(f"gradients needs one affine layer; got {len(params)}; fold them with linear.compose")
        return (_gradients(params[0], x, y),)
    return _gradients(_layers(params)[0], x, y)


@on_automatic_axes
def compose(params: Layer | tuple[Layer, ...]) -> Layer:
    """Return the one layer that equals a stack of affine layers: (x w1 + b1) w2 + b2 = x (w1 w2) + (b1 w2 + b2).

    Raises:
      ValueError: for an empty stack, layers with a norm, and widths that do not follow each other.

    >>> two = (Layer(jnp.array([[2.0]]), jnp.array([1.0])), Layer(jnp.array([[3.0]]), jnp.array([4.0])))
    >>> folded = compose(two)
    >>> folded.w, folded.b
    (Array([[6.]], dtype=float32), Array([7.], dtype=float32))
    """
    layers = _layers(params)
    if not layers:
        raise ValueError("compose needs at least one Layer; got an empty stack")
    for i, layer in enumerate(layers):
        if layer.scale is not None or layer.shift is not None:
            raise ValueError(f"compose needs affine layers; layer {i} has a norm, which is not affine in x")
        if i and layer.w.shape[0] != layers[i - 1].w.shape[1]:
            raise ValueError(
                f"layer {i} must take the {layers[i - 1].w.shape[1]} outputs of layer {i - 1}; its w is {layer.w.shape}"
            )
    if len({layer.w.dtype for layer in layers}) > 1:
        dtype = widest(*(layer.w for layer in layers))
        layers = [jax.tree.map(lambda a: a.astype(dtype), layer) for layer in layers]
    folded, *rest = layers
    for layer in rest:
        # The bias of the fold is the upper layer, applied to the bias below it.
        b = layer.b if folded.b is None else affine(layer, folded.b)
        folded = Layer(folded.w @ layer.w, b)
    return folded


def _gradients(layer: Layer, x: Numeric, y: Numeric) -> Layer:
    _table(x, y)
    if layer.scale is not None or layer.shift is not None:
        raise ValueError("gradients needs an affine layer; this one has a norm, of which they are not written out")
    if layer.w.shape != (x.shape[1], y.shape[1]):
        raise ValueError(f"w must have shape {(x.shape[1], y.shape[1])} (in, out) for x and y; got {layer.w.shape}")
    x, y = (jnp.asarray(a).astype(widest(x, y)) for a in (x, y))
    residual = affine(jax.tree.map(wide, layer), x) - y  # (N, out); in half precision the sums below overflow
    two_over_n = 2 / len(x)
    b = None if layer.b is None else (two_over_n * residual.sum(0)).astype(layer.b.dtype)
    return Layer((two_over_n * x.T @ residual).astype(layer.w.dtype), b)


def _centred(a: Numeric, dtype: DTypeLike) -> tuple[Array, Array, Array]:
    """Return a table less its mean and the mean, both divided by a power of two at its largest number, and that.

    A float64 table that JAX narrows is centred first.
    """
    if isinstance(a, np.ndarray) and a.dtype.itemsize > jnp.dtype(dtype).itemsize:
        mean = a.mean(0, dtype=np.float64)
        near, mean = (jnp.asarray(v.astype(dtype)) for v in (a - mean, mean))
        scale = _weights.unit(near).reshape(())
        return near / scale, scale, mean / scale
    near = jnp.asarray(a).astype(dtype)
    scale = _weights.unit(near).reshape(())
    near = near / scale
    mean = near.mean(0)
    return near - jnp.broadcast_to(mean, near.shape), scale, mean


def _layers(params: Any) -> tuple[Layer, ...]:
    """Return one layer, or a tuple of them, as a tuple; raise for anything else."""
    layers = (params,) if isinstance(params, Layer) else params
    if not isinstance(layers, tuple | list) or not all(isinstance(layer, Layer) for layer in layers):
        raise ValueError(f"params must be a Layer or a tuple of them; got {_check.describe(params)}")
    for i, layer in enumerate(layers):
        for name, ndim in (("w", 2), ("b", 1)):
            leaf = getattr(layer, name)
            if name == "b" and leaf is None:
                continue
            _check.floating(f"{name} of layer {i}", leaf)
            _arrays.fitting(f"{name} of layer {i}", leaf)
            if leaf.ndim != ndim or ndim == 1 and leaf.shape != layer.w.shape[1:]:
                raise ValueError(f"layer {i} must have w (in, out) and b (out,); got {name} {_check.describe(leaf)}")
    return tuple(layers)


def _table(x: Numeric, y: Numeric) -> None:
    for name, value in (("x", x), ("y", y)):
        _check.floating(name, value)
        if value.ndim != 2:
            raise ValueError(
                f"{name} must have two axes (N, d); got {_check.describe(value)}; one column is {name}[:, None]"
            )
        if 0 in value.shape:
            raise ValueError(f"{name} must not be empty; got {_check.describe(value)}")
        _check.finite(name, value)
    if len(x) != len(y):
        raise ValueError(f"x and y must have as many rows; got {len(x)} and {len(y)}")
