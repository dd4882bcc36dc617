"""The forward pass of a fitted estimator, by NumPy alone: one row or many, dense or sparse, one net or an ensemble."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlp._in_numpy import ACTIVATIONS, NORMS
from jaxmlp.estimators._units import Columns
from jaxmlp.layer import Layer

CHUNK = 4096  # rows whose activations stay in the cache


class Net(NamedTuple):
    """Fitted layers, w (in, out), or (members, in, out) of an ensemble, and what stands between them."""

    layers: list[Layer]
    activation: Any
    norm: str | None
    residual: bool
    inputs: Columns | None  # the scaling of the inputs, where the first layer does not hold it

    def __call__(self, x: Any) -> np.ndarray:
        """Return outputs (rows, out), or (members, rows, out), for x (rows, in), dense or sparse.

        In float64, so that a row's outputs do not depend on the rows beside it by more than float64 rounds; float32
        where both x and the weights are of it.
        """
        first = self.layers[0].w
        dtype = np.result_type(x.dtype if x.dtype.kind == "f" else np.float64, first.dtype)
        layers = [jax.tree.map(lambda a: a.astype(dtype, copy=False), layer) for layer in self.layers]
        if x.shape[0] <= CHUNK and first.ndim == 2:
            return self._of_one(layers, x, dtype)
        if first.ndim == 3:
            parts = []
            for i in range(len(first)):
                member = jax.tree.map(lambda a, i=i: a[i], layers)
                parts.append(self._in_chunks(member, x, dtype))
            return np.stack(parts)
        return self._in_chunks(layers, x, dtype)

    def _in_chunks(self, layers: list[Layer], x: Any, dtype: Any) -> np.ndarray:
        parts = [self._of_one(layers, x[i : i + CHUNK], dtype) for i in range(0, x.shape[0], CHUNK)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _of_one(self, layers: list[Layer], x: Any, dtype: Any) -> np.ndarray:
        if not isinstance(x, np.ndarray) and (self.inputs is not None or self.residual):
            x = x.toarray()
        h = x.astype(dtype, copy=False)
        if self.inputs is not None:
            h = self.inputs.forward(h, dtype)
        phi = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else _by_jax(self.activation)
        for layer in layers[:-1]:
            z = h @ layer.w
            z += layer.b
            new = phi(NORMS[self.norm](layer, z))
            h = h + new if self.residual and new.shape == h.shape else new
        z = h @ layers[-1].w
        z += layers[-1].b
        return z


def _by_jax(activation: Any) -> Any:
    """Return an activation of a caller's, which is a function of JAX, on NumPy's arrays."""

    def phi(h: np.ndarray) -> np.ndarray:
        return np.asarray(activation(h)).astype(h.dtype, copy=False)

    return phi
