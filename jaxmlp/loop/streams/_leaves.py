"""The arrays of a batch and of a file: numbers that JAX has, in the machine's byte order, narrowed without a loss."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _arrays
from jaxmlp.loop.streams._stacks import Position, name


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
      ValueError: for integers that it does not have, and for floats that it takes for infinite.
    """
    with np.errstate(over="ignore"):
        out[...] = values
    if out.dtype == values.dtype:
        return
    whole = out.dtype.kind in "iu"
    lost = out != values if whole else np.isinf(out) & ~np.isinf(values)
    if lost.any():
        raise ValueError(
            f"{what} must fit {out.dtype}, in which JAX computes; got {values[lost].flat[0]}; "
            f"{'renumber' if whole else 'rescale'} it, or enable jax_enable_x64"
        )


@lru_cache(maxsize=64)
def _is_plain(dtype: np.dtype) -> bool:
    return narrow("x", dtype) == dtype and dtype.isnative


def arrays(part: str, position: Position, value: Any) -> np.ndarray:
    """Return a copy of an array in the dtype that JAX has for it: a loader may use its memory again.

    Args:
      part: what messages call it.
      position: of its batch.
      value: whatever the loader gave.

    Raises:
      ValueError: for what is no array of numbers, and for one that is masked, sparse or not on the host.
    """
    if type(value) is np.ndarray and value.dtype.kind in "biuf" and _is_plain(value.dtype):
        return value.copy()
    what = f"{part} of {name(position)}"
    found = np.asarray(_arrays.array(what, value))
    out = np.empty(found.shape, narrow(what, found.dtype))
    fill(what, out, found)
    return out
