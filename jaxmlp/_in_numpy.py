"""The forward pass of a perceptron by NumPy alone: activations and norms as JAX defines them."""

from collections.abc import Callable

import numpy as np

from jaxmlp import _arrays, _check
from jaxmlp.layer import Layer


def forward(layers: list[Layer], activation: str, norm: str | None, residual: bool, x: np.ndarray) -> np.ndarray:
    """Return the outputs of layers (w, b, scale, shift) for x (..., in), in the dtype of w.

    Raises:
      ValueError: for x of another width.
    """
    phi, normalise = ACTIVATIONS[activation], NORMS[norm]
    *hidden, last = layers
    x = np.asarray(_arrays.listed("x", x))
    h = np.asarray(x, layers[0].w.dtype)  # as `apply` does: NumPy would widen all that follows for a row of float64
    width = layers[0].w.shape[0]
    if h.ndim < 1 or h.shape[-1] != width:
        raise ValueError(f"x must have shape (..., {width}); got {_check.describe(x)}; one row has shape ({width},)")
    for layer in hidden:
        new = phi(normalise(layer, _affine(layer, h)))
        h = new + h if residual and new.shape == h.shape else new
    return _affine(last, h)


def _affine(layer: Layer, h: np.ndarray) -> np.ndarray:
    y = h @ layer.w
    if layer.b is not None:
        y += layer.b
    return y


def _layer_norm(layer: Layer, h: np.ndarray) -> np.ndarray:
    centred = h - h.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * layer.scale + layer.shift


def _rms_norm(layer: Layer, h: np.ndarray) -> np.ndarray:
    return h / np.sqrt(np.square(h).mean(-1, keepdims=True) + 1e-5) * layer.scale


def _sigmoid(h: np.ndarray) -> np.ndarray:
    return 0.5 * (np.tanh(0.5 * h) + 1)  # no overflow at either end


def _softplus(h: np.ndarray) -> np.ndarray:
    return np.logaddexp(h, 0)


def _elu(h: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(h > 0, h, alpha * np.expm1(np.minimum(h, 0)))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # those of jaxmlp.layer, as JAX defines them
    "identity": lambda h: h,
    "relu": lambda h: np.maximum(h, 0),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "leaky_relu": lambda h: np.where(h > 0, h, 0.01 * h),
    "elu": _elu,
    "selu": lambda h: 1.0507009873554805 * _elu(h, 1.6732632423543772),
    "gelu": lambda h: 0.5 * h * (1 + np.tanh(0.7978845608028654 * (h + 0.044715 * h**3))),
    "silu": lambda h: h * _sigmoid(h),
    "softplus": _softplus,
    "mish": lambda h: h * np.tanh(_softplus(h)),
    "hard_tanh": lambda h: np.clip(h, -1, 1),
}
NORMS: dict[str | None, Callable[[Layer, np.ndarray], np.ndarray]] = {
    None: lambda layer, h: h,
    "layer": _layer_norm,
    "rms": _rms_norm,
}
