"""The IDX format of MNIST and its kin: a magic number, the sizes, then the values, most significant byte first."""

import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from jaxmlp import _check, _disk
from jaxmlp.types import StrPath

# The third byte of the magic number names the type (LeCun, Cortes and Burges 1998).
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

BLOCK, EMPTY = 2**13, 1000  # bytes of a gzip file read at a time; members in a row that hold nothing


def read_idx(path: StrPath, *, max_bytes: int = 2**31) -> np.ndarray:
    """Read an IDX file, plain or gzipped, as an array in the machine's byte order.

    Args:
      path: the file; gzip is told by its content, not its name.
      max_bytes: the most that a header may claim. No more than the claim is ever read.

    Raises:
      ValueError: says what in the file is wrong: the magic number, the sizes, too few bytes or too many, broken
        compression, or that it is no regular file.
      OSError: where the file cannot be opened.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     file.flush()
    ...     read_idx(file.name)
    array([7, 8, 9], dtype=uint8)
    """
    path = _disk.path_of("path", path)
    max_bytes = _check.positive_int("max_bytes", max_bytes, most=2**63 - 1)
    with _disk.open_file(path) as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not zipped:
            return _read(file, path, max_bytes)
        try:
            return _read(_Unzipped(file), path, max_bytes)
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{path}: the gzip data is broken ({error}); fetch the file again") from error


class _Unzipped:
    """What a gzip file holds, member after member (RFC 1952).

    zlib reads the headers too: the gzip module takes a name in one, and the zeros after the last member, byte by byte.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self._member, self._left, self._empty = file, zlib.decompressobj(31), b"", 0

    def read(self, size: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        found = bytearray()
        while len(found) < size and (not self._member.eof or self._next()):
            piece = self._member.decompress(self._left, size - len(found))
            self._left = self._member.unconsumed_tail
            if not piece and not self._member.eof:
                if not self._left:
                    self._left = self._file.read(BLOCK)
                if not self._left:
                    raise EOFError("it ends within a member")
            self._empty = 0 if piece else self._empty
            found += piece
        return bytes(found)

    def _next(self) -> bool:
        """Begin the next member; tell whether there is one. Zeros may follow the last."""
        rest = self._member.unused_data.lstrip(b"\0")
        while not rest and (data := self._file.read(BLOCK)):
            rest = data.lstrip(b"\0")
        self._empty += 1
        if self._empty > EMPTY:
            raise EOFError(f"{EMPTY} members in a row hold nothing")
        self._left, self._member = rest, zlib.decompressobj(31) if rest else self._member
        return bool(rest)


def _read(file: IO[bytes] | _Unzipped, path: Path, max_bytes: int) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4:
        raise ValueError(f"{path}: an IDX file starts with 4 bytes of magic number; the file has {len(magic)} bytes")
    if magic[:2] != b"\0\0" or magic[2] not in TYPES:
        raise ValueError(
            f"{path}: an IDX magic number is 00 00, a type ({' '.join(f'{t:02x}' for t in TYPES)}) and the number of "
            f"axes; got {magic.hex(' ')}"
        )
    dtype, axes = np.dtype(TYPES[magic[2]]), magic[3]
    header = file.read(4 * axes)
    if len(header) < 4 * axes:
        raise ValueError(f"{path}: truncated in the header: {axes} axes need {4 * axes} bytes, {len(header)} are there")
    shape = tuple(np.frombuffer(header, ">u4").tolist())
    claimed = math.prod(shape) * dtype.itemsize
    # An axis of length zero makes the claim nothing, and the others could still be more than an array can have.
    if claimed > max_bytes or axes > 32 or math.prod(n or 1 for n in shape) * dtype.itemsize >= 2**63:
        raise ValueError(
            f"{path}: the header claims {claimed:,} bytes in shape {shape}, over the bound of {max_bytes:,} bytes in "
            f"32 axes; pass max_bytes= if the file is right"
        )
    # In pieces, so that a false claim costs no more memory than the file holds.
    body = bytearray()
    while len(body) < claimed and (piece := file.read(min(2**24, claimed - len(body)))):
        body += piece
    if len(body) < claimed:
        raise ValueError(
            f"{path}: truncated: the header counts {shape} values, {claimed:,} bytes; {len(body):,} bytes are there"
        )
    if file.read(1):
        raise ValueError(f"{path}: wrong count: the header counts {shape} values, {claimed:,} bytes; more bytes follow")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
