"""Tables on disk: which .npy files of a folder are shards of one table, paired by name, and what may be opened."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxmlp import _arrays, _check
from jaxmlp._disk import open_file, path_of
from jaxmlp.loop.streams._leaves import narrow
from jaxmlp.types import PyTree, StrPath

PARTS = ("x", "y", "weight")
COUNT = r"[-_.](\d+)(?:[-_]of[-_](\d+))?"
SHARD = re.compile(rf"(x|y|weight)((?:{COUNT})?)\.npy")
ALMOST = re.compile(
    r"(x|y|weight)[-_.]\d.*\.npy|(w|weights|sample_weights?)\b.*\.npy|w_\d.*\.npy"
)  # refused: who wrote it meant it
DATES = 100_000  # shards numbered from here on are numbered by something else than their count
HEADER = 2**16  # bytes; NumPy's own limit of what it parses is lower

Shard: TypeAlias = tuple[PyTree, ...]  # (x, y) or (x, y, weight) of mapped arrays
Digest: TypeAlias = Literal["sampled", "full"]


class Table:
    """Shards of one table, (x, y) or (x, y, weight) of mapped arrays each, and what their digest is made of."""

    def __init__(self, shards: Sequence[Shard], digest: Digest = "sampled"):
        self.shards: list[Shard] = list(shards)
        self.digest: Digest = digest


def npy(source: StrPath | tuple[Any, ...], *, digest: Digest = "full") -> Table:
    """Open a table in .npy files as data for `loop.train`, with a digest of all its bytes.

    A run is resumed only with the data that it was begun with, told by digests. Of a mapped array of more than 4 MiB
    that of `loop.train` reads 64 blocks of 64 KiB, spread evenly over it, the first and the last included: what differs
    between these goes unseen. With `digest="full"` every byte is read once before each run, and any difference is seen.

    Args:
      source: a folder of x.npy and y.npy, or of shards x-000.npy, y-000.npy and so on; or (x, y) or (x, y, weight) of
        mapped arrays, `numpy.load(..., mmap_mode="r")`.
      digest: "full" or "sampled"; a run that was begun with one is resumed with the same.

    Returns:
      What `loop.train` and `loop.resume` take as data.

    Raises:
      ValueError: for another word, and for a folder or arrays that are no table.

    >>> import tempfile
    >>> from jaxmlp import loop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("x", "y"):
    ...         np.save(f"{folder}/{name}.npy", np.zeros((6, 2), "f"))
    ...     len(loop.npy(folder, digest="full").shards)
    1
    """
    _check.one_of("digest", digest, ("sampled", "full"))
    if isinstance(source, str | os.PathLike):
        return Table(folder(source), digest)
    if not isinstance(source, tuple | list) or len(source) not in (2, 3):
        raise ValueError(
            f"source must be a folder, or (x, y) or (x, y, weight) of mapped arrays; got {type(source).__name__} "
            f"{_check.length(source)}"
        )
    for leaf in jax.tree.leaves(tuple(source)):
        if isinstance(leaf, np.ma.MaskedArray):
            _arrays.array("source", leaf)  # which refuses it
        if not isinstance(leaf, np.ndarray):
            raise ValueError(
                f"source must hold mapped arrays, numpy.load(..., mmap_mode='r'); got {type(leaf).__name__}"
            )
    return Table([tuple(source)], digest)


class _Name(NamedTuple):
    """The name of a shard."""

    part: str  # x, y or weight
    rest: str  # "" or what tells the shards apart, as it is written
    number: int | None
    of: int | None  # how many shards there are, as in x-00000-of-00010.npy

    @classmethod
    def read(cls, name: str) -> "_Name | None":
        found = SHARD.fullmatch(name)
        if found is None:
            return None
        part, rest, number, of = found.groups()
        return cls(part, rest, None if number is None else int(number), None if of is None else int(of))


def folder(path: StrPath) -> list[Shard]:
    """Map the .npy files of a folder: x.npy and y.npy, or shards x-000.npy, y-000.npy, ...

    Where the examples have weights, these are in weight.npy, or in shards weight-000.npy, ... The shards of one number
    belong together, and are in the order of their numbers. Before a number may stand `-`, `_` or `.`, and after it how
    many there are, as in x-00000-of-00010.npy. Other files are no data.

    Raises:
      ValueError: for a folder without them, with shards that do not match or are missing, or with names that are almost
        those of shards.
    """
    path = path_of("data", path)
    try:
        names = sorted(entry.name for entry in os.scandir(path))
    except OSError as error:
        raise ValueError(
            f"{path} must be a folder that holds x.npy and y.npy, or shards x-000.npy, y-000.npy and so on; it could "
            f"not be read: {error}"
        ) from error
    found = [name for text in names if (name := _Name.read(text)) is not None]
    rests = _paired(path, found, names)
    almost = [text for text in names if ALMOST.fullmatch(text) and _Name.read(text) is None]
    if almost:
        raise ValueError(
            f"{path} must hold no name that is almost that of a shard; got {_listed(almost)}; call it x.npy or "
            f"x-<number>.npy, as y and weight, or move it elsewhere"
        )
    parts = [part for part in PARTS if any(name.part == part for name in found)]
    return [tuple(open_npy(path / f"{part}{rest}.npy") for part in parts) for rest in rests]


def _paired(path: Path, found: list[_Name], names: list[str]) -> list[str]:
    """Return what stands after x, y and weight in the names of the shards, in the order of their numbers."""
    rests = {part: {name.rest for name in found if name.part == part} for part in PARTS}
    x, y, weight = rests.values()
    if not x or x != y or weight not in (set(), x):
        lines = [
            f"{part}{rest}.npy is missing"
            for rest in sorted(x | y | weight)
            for part in (PARTS if weight else PARTS[:2])
            if rest not in rests[part]
        ]
        seen = [name for name in names if name.endswith("npy")]
        told = _listed(lines) if lines else f"of .npy files it holds {_listed(seen) if seen else 'none'}"
        raise ValueError(
            f"{path} must hold x.npy and y.npy, or shards x-000.npy, y-000.npy and so on, as many of each; got "
            f"{len(x)} of x, {len(y)} of y and {len(weight)} of weight: {told}"
        )
    shards = sorted((name for name in found if name.part == "x"), key=lambda name: name.number or 0)
    _check_numbers(path, shards)
    return [name.rest for name in shards]


def _check_numbers(path: Path, shards: list[_Name]) -> None:
    """Raise for a whole table beside shards, two shards of one number, and numbers that are left out."""
    texts = [f"x{name.rest}.npy" for name in shards]
    if len(shards) > 1 and any(name.number is None for name in shards):
        raise ValueError(
            f"{path} must hold either one table, x.npy, or its shards; got {_listed(sorted(texts, key=len))}; move "
            f"one of them elsewhere"
        )
    numbers = [name.number for name in shards if name.number is not None]
    twice = [text for text, number in zip(texts, numbers, strict=False) if numbers.count(number) > 1]
    if twice:
        raise ValueError(f"{path} must hold each shard once; got {_listed(twice)}, of one number; remove one of them")
    totals = {name.of for name in shards}
    first, last, end = min(numbers, default=0), max(numbers, default=0), max(numbers, default=0) + 1
    if totals != {None}:
        first = 1 if {last} == totals else 0
        end = first + max(of for of in totals if of is not None)
        if len(totals) > 1 or last >= end:
            raise ValueError(f"{path} must hold the shards of one table; got {_listed(texts)}")
    missing = [] if end > DATES else sorted(set(range(first, end)) - set(numbers))
    if numbers and missing:
        raise ValueError(
            f"{path} must hold every shard of x from number {first} to {end - 1}; {_listed(list(map(str, missing)))} "
            f"missing; add what is missing, or number the shards without a gap"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def open_npy(path: Path) -> np.ndarray:
    """Map one .npy file of numbers.

    Raises:
      ValueError: for what is no regular file, is damaged or cut short, or holds something else than numbers.
    """
    try:
        with open_file(path) as file:
            begin = file.read(12)
        if begin and begin[:6] != b"\x93NUMPY":
            raise ValueError("it does not begin as one")
        # The length of the header, of two bytes or, from version 2 on, of four: NumPy reads it whole before it looks.
        if len(begin) == 12 and begin[6] > 1 and int.from_bytes(begin[8:12], "little") > HEADER:
            raise ValueError("its header is too long")
        with np.errstate(over="ignore"):  # of a header whose sizes are no sizes
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        narrow("it", array.dtype)
    except Exception as error:  # of a damaged header NumPy raises whatever its parser does
        raise ValueError(f"{path} must be a .npy file of numbers; it could not be read: {error}") from error
    return array
