"""Data that does not fit in memory: which kind it is, and who reads it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmlp import _door
from jaxmlp.batches import Batches
from jaxmlp.mapped import Files, Table, folder


def is_stream(data: Any) -> bool:
    """Tell whether data is a folder, mapped files or an iterable of batches, and not arrays in memory."""
    if isinstance(data, str | Path):
        return True
    if isinstance(data, tuple | list) and any(_door.is_array(leaf) for leaf in jax.tree.leaves(tuple(data[:3]))):
        mapped = any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(tuple(data)))
        return mapped or isinstance(data, list) and isinstance(data[0], tuple | list)
    return isinstance(data, Iterable) and not _door.is_array(data) and not (isinstance(data, tuple) and data == ())


def open_stream(data: Any, key: Any, batch_size: int | None, steps: int | None) -> "Files | Batches":
    """Return the stream behind `data`; see `loop.train`."""
    if steps is not None:
        steps = _door.positive_int("steps", steps)
    if isinstance(data, str | Path):
        data = folder(Path(data))
    elif isinstance(data, tuple | list) and _door.is_array(jax.tree.leaves(data[0])[0]) and len(data) in (2, 3):
        if any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(tuple(data))):
            data = Table([tuple(data)])
    if isinstance(data, Table):
        if steps is not None:
            raise ValueError(f"steps must be None for files: an epoch of theirs has all rows; got {steps}")
        return Files(data, key, batch_size)
    return Batches(data, batch_size, steps)
