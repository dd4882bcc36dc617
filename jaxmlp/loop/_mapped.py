"""Mapped arrays read past their maps: what was cut short is then an error in words, and not the end of the process.

A page of a map that the file no longer has is a SIGBUS, which no Python code can catch; `pread` returns fewer bytes.
"""

import mmap
import os
import weakref
from typing import Any

import numpy as np

from jaxmlp.types import StrPath

SAMPLES, SAMPLE = 16, 64  # so many pieces of so many bytes tell whether a file is the one that was mapped


class MappedFile:
    """The file behind a mapped array, read past the map."""

    def __init__(self, path: StrPath, offset: int, row: int):
        self._path, self._offset, self._row = path, offset, row
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._number)

    @staticmethod
    def behind(array: Any) -> "MappedFile | None":
        """Return the file of a mapped array whose rows lie in it one after the other; None where there is none.

        Raises:
          ValueError: for a file that was cut short.
        """
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        path = getattr(array, "filename", None)
        if not isinstance(base, mmap.mmap) or path is None or not array.flags.c_contiguous or array.mode == "c":
            return None
        if array.ndim == 0 or array.size == 0 or not hasattr(os, "preadv"):  # where there is none, the map must do
            return None
        begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY  # of the map in the file
        inside = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
        try:
            file = MappedFile(path, begin + inside, array.nbytes // len(array))
        except OSError:  # gone from there, but not from the map
            return None
        return file if file._holds(array) else None

    def _holds(self, array: np.ndarray) -> bool:
        """Tell whether this is the file of the map, and not one that has taken its name since."""
        there = os.fstat(self._number).st_size - self._offset
        if there < array.nbytes:
            raise self._short(max(0, there))
        flat = np.asarray(array).reshape(-1).view(np.uint8)
        for start in np.linspace(0, max(0, len(flat) - SAMPLE), SAMPLES).astype(np.int64).tolist():
            stop = min(start + SAMPLE, len(flat))
            if self.block(start, stop) != flat[start:stop].data:
                return False
        return True

    def _short(self, there: int) -> ValueError:
        return ValueError(f"{self._path} must hold row {there // self._row}; it was cut short since it was mapped")

    def read(self, here: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        """Read the rows at `places` into those of `out`, of the file's dtype, at `here`."""
        lines = out.reshape(-1).view(np.uint8).data
        row, number, begin = self._row, self._number, self._offset
        for i, place in zip(here.tolist(), places.tolist(), strict=True):
            line = lines[i * row : (i + 1) * row]
            if os.preadv(number, (line,), begin + place * row) != row:
                self._fill(line, place * row)  # a signal, or a row above the 2 GiB that a call reads at most

    def whole(self, array: np.ndarray) -> np.ndarray:
        """Return the array in memory."""
        out = np.empty(array.shape, array.dtype)
        self._fill(out.reshape(-1).view(np.uint8).data, 0)
        return out

    def block(self, start: int, stop: int) -> memoryview:
        """Return these bytes of the array."""
        block = memoryview(bytearray(stop - start))
        self._fill(block, start)
        return block

    def _fill(self, target: memoryview, start: int) -> None:
        """Read bytes of the array from `start` on until the target is full."""
        done = 0
        while done < len(target):
            count = os.preadv(self._number, (target[done:],), self._offset + start + done)
            if count == 0:
                raise self._short(start + done)
            done += count
