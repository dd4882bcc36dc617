"""Digests of arrays, of tables and of a function's code: two runs are of the same things where these are equal."""

import hashlib
from types import CodeType
from typing import Any

import jax
import numpy as np

from jaxmlp.types import Data, Json

SAMPLES, BLOCK = 64, 2**16  # of a file that is mapped, not read: so many blocks of so many bytes


def of_array(array: Any) -> Json:
    """Return shape, dtype and digest of one array, typed keys as the integers behind them.

    >>> of_array(np.zeros((2, 3), "f"))["shape"], of_array(np.zeros(2)) == of_array(np.zeros(2))
    ([2, 3], True)
    """
    if getattr(array, "dtype", None) is not None and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    digest = hashlib.sha256()
    flat = np.asarray(array)
    flat = (flat if flat.flags.c_contiguous else np.ascontiguousarray(flat)).reshape(-1).view(np.uint8)
    if isinstance(array, np.memmap) and len(flat) > SAMPLES * BLOCK:
        # To read a table that is larger than memory once more, before every run, would take as long as an epoch.
        for start in np.linspace(0, len(flat) - BLOCK, SAMPLES).astype(np.int64):
            digest.update(flat[start : start + BLOCK].tobytes())
    else:
        digest.update(flat.data)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest.hexdigest()[:32]}


def of_data(data: Data) -> Any:
    """Return shape, dtype and digest of every array of a table, by its path; None for None.

    The digest is of all bytes, or where a file is mapped of 64 blocks of 64 KiB spread evenly over it.

    >>> list(of_data((np.zeros((2, 3)), {"y": np.zeros(2)})))
    ['0', '1.y']
    """
    if data is None:
        return None
    leaves = jax.tree_util.tree_leaves_with_path(data)
    return {jax.tree_util.keystr(path, simple=True, separator="."): of_array(leaf) for path, leaf in leaves}


def of_code(code: CodeType, held: list[str]) -> str:
    """Return a digest of a function's instructions, names and plain constants, and of the values that it `held`."""
    constants = [c for c in code.co_consts if isinstance(c, int | float | str | bytes)]
    told = ([code.co_code, code.co_names, constants], held)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
