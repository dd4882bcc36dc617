"""Data that does not fit in memory: which kind it is, and who reads it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmlp import _check
from jaxmlp.loop.streams._loader import Batches
from jaxmlp.loop.streams._npy import Files, Table, folder


def is_stream(data: Any) -> bool:
    """Tell whether data is a folder, mapped files or an iterable of batches, and not arrays in memory."""
    if isinstance(data, str | Path):
        return True
    if _check.is_array(data) or not isinstance(data, Iterable):
        return False
    return not _is_table(data) or any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(tuple(data)))


def _is_table(data: Any) -> bool:
    return isinstance(data, tuple) or isinstance(data, list) and len(data) in (2, 3) and any(map(_check.is_array, data))


def open_stream(data: Any, key: Any, batch_size: int | None, steps: int | None) -> "Files | Batches":
    """Return the stream behind `data`; see `loop.train`."""
    if steps is not None:
        steps = _check.positive_int("steps", steps)
    if isinstance(data, str | Path):
        data = folder(Path(data))
    elif _is_table(data):
        if len(data) not in (2, 3):
            raise ValueError(f"data must be (x, y) or (x, y, weight); got {type(data).__name__} of length {len(data)}")
        data = Table([tuple(data)])
    if isinstance(data, Table):
        if steps is not None:
            raise ValueError(f"steps must be None for files: an epoch of theirs has all rows; got {steps}")
        return Files(data, key, batch_size)
    return Batches(data, batch_size, steps)
