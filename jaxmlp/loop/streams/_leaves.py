"""The arrays of a batch and of a file: numbers that JAX has, in the machine's byte order, narrowed without a loss."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def narrow(what: str, dtype: Any) -> np.dtype:
    """Return the dtype that JAX has for arrays of this one.

    Raises:
      ValueError: for what holds no numbers.

    >>> narrow("x", np.dtype(">f4")), narrow("x", np.dtype("f8"))
    (dtype('float32'), dtype('float32'))
    """
    dtype = np.dtype(dtype)
    if any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        wide = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 8
        return jax.dtypes.canonicalize_dtype(np.dtype(np.float64) if wide else dtype.newbyteorder("="))
    fix = (
        "bfloat16, which NumPy's files do not know, is saved as float32" if dtype.kind == "V" else "code it as numbers"
    )
    raise ValueError(f"{what} must hold numbers; got dtype {dtype}; {fix}")


def fill(what: str, out: np.ndarray, values: np.ndarray) -> None:
    """Write values to an array of the dtype that `narrow` gives for theirs.

    Raises:
      ValueError: for integers that it does not have; what becomes infinite is left to the check of finite values.
    """
    with np.errstate(over="ignore"):
        out[...] = values
    if out.dtype != values.dtype and out.dtype.kind in "iu" and not np.array_equal(out, values):
        bad = values[out != values].flat[0]
        raise ValueError(
            f"{what} must fit {out.dtype}, in which JAX computes; got {bad}; renumber it, or enable jax_enable_x64"
        )


def arrays(what: str, value: Any) -> np.ndarray:
    """Return a copy of an array in the dtype that JAX has for it: a loader may use its memory again.

    Raises:
      ValueError: for what is no array of numbers, and for one that is masked, sparse or not on the host.
    """
    if isinstance(value, np.ma.MaskedArray) or hasattr(value, "todense"):
        raise ValueError(f"{what} must not be masked or sparse; got {type(value).__name__}; fill it, or make it dense")
    try:
        # PyTorch's tensors may hold a gradient, and lie elsewhere.
        found = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except Exception as error:
        raise ValueError(
            f"{what} must be an array; {type(value).__name__} could not be read as one: {type(error).__name__}: {error}"
        ) from error
    out = np.empty(found.shape, narrow(what, found.dtype))
    fill(what, out, found)
    return out
