"""Digests of arrays, of tables and of a function's code: two runs are of the same things where these are equal."""

import hashlib
from types import CodeType
from typing import Any

import jax
import numpy as np

from jaxmlp._engine.hosts import fetch
from jaxmlp.loop._mapped import MappedFile
from jaxmlp.types import Data, Json

SAMPLES, BLOCK = 64, 2**16  # of a file that is mapped, not read: so many blocks of so many bytes


def of_array(array: Any, full: bool = False) -> Json:
    """Return shape, dtype and digest of one array, typed keys as the integers behind them.

    Args:
      array: the array.
      full: whether all bytes are read also of a mapped file, of which else 64 blocks of 64 KiB are.

    >>> of_array(np.zeros((2, 3), "f"))["shape"], of_array(np.zeros(2)) == of_array(np.zeros(2))
    ([2, 3], True)
    """
    if getattr(array, "dtype", None) is not None and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    digest = hashlib.sha256()
    if isinstance(array, np.memmap):
        # To read a table that is larger than memory once more, before every run, would take as long as an epoch.
        full, last = full or array.nbytes <= SAMPLES * BLOCK, array.nbytes - BLOCK
        starts = range(0, array.nbytes, BLOCK) if full else np.linspace(0, last, SAMPLES).astype(np.int64).tolist()
        file = MappedFile.behind(array)
        for start in starts:
            stop = min(start + BLOCK, array.nbytes)
            digest.update(_block(array, start, stop) if file is None else file.block(start, stop))
    else:
        flat = np.asarray(fetch(array))
        flat = (flat if flat.flags.c_contiguous else np.ascontiguousarray(flat)).reshape(-1).view(np.uint8)
        digest.update(flat.data)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest.hexdigest()[:32]}


def _block(array: np.ndarray, start: int, stop: int) -> bytes:
    """Return these bytes of an array's elements in C order, and read no others."""
    size = array.itemsize
    first = start // size
    return array.flat[first : -(-stop // size)].tobytes()[start - first * size : stop - first * size]


def of_data(data: Data, full: bool = False) -> Any:
    """Return shape, dtype and digest of every array of a table, by its path; None for None.

    The digest is of all bytes, or where a file is mapped of 64 blocks of 64 KiB spread evenly over it, unless `full`.

    >>> list(of_data((np.zeros((2, 3)), {"y": np.zeros(2)})))
    ['0', '1.y']
    """
    if data is None:
        return None
    leaves = jax.tree_util.tree_leaves_with_path(data)
    return {jax.tree_util.keystr(path, simple=True, separator="."): of_array(leaf, full) for path, leaf in leaves}


def of_code(code: CodeType, held: list[str]) -> str:
    """Return a digest of a function's instructions, names and plain constants, and of the values that it `held`."""
    constants = [c for c in code.co_consts if isinstance(c, int | float | str | bytes)]
    told = ([code.co_code, code.co_names, constants], held)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
