"""A safetensors file of ours: tensors, a description of them in the header, and a digest that shows later damage."""

import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from jaxmlp import _check, _disk, _header
from jaxmlp.types import StrPath

HEADER = 2**21  # bytes: a thousand layers take a fifth of it
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
Told = TypeVar("Told")


def write(path: StrPath, kind: str, told: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors and their description, JSON that stands under `kind` in the header; there whole or not at all.

    Raises:
      ValueError: for a description that is too long, and a path that cannot be written.
      ImportError: without the extra `files`.
    """
    safetensors: Any = _check.extra("safetensors.numpy", "files")
    path = _disk.path_of("path", path)
    data = safetensors.save(dict(tensors), metadata={kind: told, "sha256": _digest(told, tensors)})
    if int.from_bytes(data[:8], "little") > HEADER:
        raise ValueError(f"metadata must leave the header below {HEADER:,} bytes; got {len(told):,} of description")
    try:
        _disk.write_file(path, data)
    except OSError as error:
        raise ValueError(f"{path} must be a file that can be written: {error}") from error


def read(
    path: StrPath, kind: str, accept: Callable[[Path, _header.Header], Told]
) -> tuple[Told, dict[str, np.ndarray]]:
    """Return what `accept` makes of a header, and the tensors by name, finite and as they were written.

    The file is read and not mapped, since one that is cut short while it is mapped ends the process. No more is read
    than the header, before `accept` has found that the tensors in it are those that its description tells of.

    Raises:
      ValueError: for whatever is no such file, and what `accept` refuses.
    """
    path = _disk.path_of("path", path)
    try:
        with _disk.open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(HEADER, size - 8):
                raise ValueError(
                    f"{path} must be a safetensors file with a header of at most {HEADER:,} bytes; got {size:,} bytes, "
                    f"of which the header is said to take {length:,}"
                )
            header = _header.read(path, file.read(length), size - 8 - length)
            told = accept(path, header)
            body = file.read(size - 8 - length)
    except (OSError, MemoryError) as error:
        raise ValueError(f"{path} must be a file that can be read: {error or type(error).__name__}") from error
    if len(body) < size - 8 - length:
        raise ValueError(f"{path} must be a whole safetensors file; it was cut short while it was read")
    arrays = {}
    for name, (dtype, shape, begin, _) in header.tensors.items():
        arrays[name] = np.frombuffer(body, jnp.dtype(DTYPES[dtype]), math.prod(shape), begin).reshape(shape)
        _check.finite(f"{name} of {path.name}", arrays[name])
    # Files of earlier versions have none; where its own name is damaged, it is known by its form.
    known = {text for name, text in header.metadata.items() if name == "sha256" or DIGEST.fullmatch(text)}
    if known - {_digest(header.metadata[kind], arrays)}:
        raise ValueError(
            f"{path} must hold what was saved; numbers or description have changed since, by their sha256; take a "
            f"copy, or leave sha256 out of the header's metadata if the change is meant"
        )
    return told, arrays


def _digest(told: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Return the digest of a description and its tensors, whatever their order in a file."""
    digest = hashlib.sha256(told.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
