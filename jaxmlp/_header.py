"""The header of a safetensors file: JSON of the tensors' names, dtypes, shapes and places, and of text beside them."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes a number, of those that are read


class Tensor(NamedTuple):
    """What a header says of a tensor: its bytes are those from `begin` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """What a header says: the tensors and the text by name."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read(path: Path, text: bytes, size: int) -> Header:
    """Return what the header of a file says, whose tensors take `size` bytes.

    Raises:
      ValueError: for what is no header, or not that of so many bytes: each is of one tensor.
    """
    try:
        told = json.loads(text.decode(), object_pairs_hook=once)
        if not isinstance(told, dict):
            raise ValueError("it is no object of JSON")
        metadata = told.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("__metadata__ must name texts")
        tensors = {name: _tensor(name, entry) for name, entry in told.items()}
        at = 0
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1][2:]):
            if tensor.begin != at:
                raise ValueError(f"{name[:80]} must begin at byte {at:,}; got {tensor.begin}")
            at = tensor.end
        if at != size:
            raise ValueError(f"the tensors take {at} bytes, and {size:,} are there")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be a whole safetensors file; it could not be read: {str(error)[:400]}"
        ) from error
    return Header(tensors, metadata)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of an object of JSON as a dict; raise for a name that stands there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r:.80} stands twice in one dict")
    return found


def _tensor(name: str, entry: Any) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name[:80]} must have dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"{name[:80]} must have a name for dtype, and natural numbers for shape and data_offsets")
    begin, end = offsets
    if end < begin or len(shape) > 32 or (dtype in SIZES and end - begin != math.prod(shape) * SIZES[dtype]):
        raise ValueError(f"{name[:80]} must have as many bytes as numbers of its dtype and shape")
    return Tensor(dtype, tuple(shape), begin, end)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
