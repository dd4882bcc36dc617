"""Outputs and targets on their way into a loss: one shape, one dtype, wide enough to be summed."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxmlp import _check
from jaxmlp.types import Numeric


def alike(outputs: Numeric, targets: Numeric) -> tuple[Array, Array]:
    """Check equal shapes and float dtypes; return both in one dtype of at least 32 bits."""
    _check.floating("outputs", outputs)
    _check.floating("targets", targets)
    check_same_shape(outputs, targets)
    outputs = wide(outputs)
    return outputs, jnp.asarray(targets, outputs.dtype)


def check_same_shape(outputs: Numeric, targets: Numeric) -> None:
    """Raise unless outputs and targets have one shape: (N,) against (N, 1) would broadcast to (N, N)."""
    if not _check.is_array(targets) or outputs.shape != targets.shape or outputs.ndim < 1:
        hint = ""
        if _check.is_array(targets) and (targets.ndim, outputs.ndim) in ((1, 2), (2, 1)):
            hint = "; a column is targets[:, None]" if targets.ndim == 1 else "; a column of outputs is outputs[:, 0]"
        raise ValueError(
            f"outputs and targets must have one shape (batch, d); got {_check.describe(outputs)} and "
            f"{_check.describe(targets)}{hint}"
        )


def check_probabilities(targets: Numeric) -> None:
    """Raise where targets (batch, classes) are known and are no distributions over the classes."""
    _check.within("targets of shape (batch, classes)", targets, 0, 1)
    known = _check.on_host(targets)
    if known is not None and known.size and not np.allclose(known.astype(np.float32).sum(-1), 1, atol=1e-3):
        raise ValueError(
            "targets of shape (batch, classes) must sum to one over the classes; for many labels an example "
            "use binary_cross_entropy"
        )


def wide(values: ArrayLike) -> Array:
    """Bring integers and half precision to float32: a sum of squares overflows or vanishes in 16 bits.

    >>> wide(jnp.ones(1, jnp.bfloat16)).dtype, wide(jnp.ones(1, jnp.float32)).dtype
    (dtype('float32'), dtype('float32'))
    """
    values = jnp.asarray(values)
    keep = jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize >= 4
    return values if keep else values.astype(jnp.float32)


def sum_outputs(values: Array) -> Array:
    """Return the sum over all axes but the first, that of the examples."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
