"""One checkpoint on the disk: its name, its files and their digests, and its arrays, which Orbax writes and reads.

`arrays/` holds the arrays, `run.json` what the caller says of them, and `SHA256SUMS` a digest of every file of both.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlp import _check, _disk
from jaxmlp.loop._fields import read_json
from jaxmlp.loop._ours import ARRAYS, LINE, SUMS, TOLD
from jaxmlp.types import Json

# Orbax reads `[...]` as a pattern and a backslash as a slash, and refuses `//`: it is given only what it is known to
# read as it stands.
PLAIN = re.compile(r"(/(?!\.\.?(/|$))[\w. =+,:@%~-]+)+" if os.name != "nt" else r"[\w./ =+,:@%~\\-]+", re.ASCII)
MOST = 2**27  # bytes of run.json or SHA256SUMS; both are read whole


class Form(NamedTuple):
    """What an array is, told before it is read; `chunk` is the shape of the pieces in which it is stored."""

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many bytes the array takes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array of a checkpoint that was not read yet."""

    checkpoint: str  # the name of its folder
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]


def damages(folder: Path) -> list[str]:
    """Return what is wrong with the files of a checkpoint, by their digests; a file that is not listed is none of it.

    Raises:
      OSError: where a file is there and cannot be read, which says nothing about it.
    """
    try:
        wanted = _listed(_read(folder / SUMS))
        if wanted:
            found = {name: _digest(folder / name) for name in wanted}
            lines = [f"{name} is missing" for name in wanted if found[name] is None]
            lines += [f"{name} has changed" for name in wanted if found[name] not in (None, wanted[name])]
            return lines or _unlisted(folder, wanted)
        return [f"{SUMS} is empty"]
    except (FileNotFoundError, NotADirectoryError):
        return [f"{SUMS} is missing"]
    except ValueError as error:
        return [f"{SUMS} cannot be read ({error})"]


def sums(folder: Path) -> str:
    """Return the digests of the files of a checkpoint as `sha256sum` writes them."""
    names = sorted(path.relative_to(folder).as_posix() for path in _disk.files_below(folder))
    return "".join(f"{_digest(folder / name)}  {name}\n" for name in _ours(names) if name != SUMS)


def write(folder: Path, arrays: Mapping[str, np.ndarray], meta: Json) -> None:
    """Write arrays and what is said of them into a new folder, and read the arrays back.

    Each time, and not only where the name is new: where a system call fails within Orbax, it may go on without a word
    and leave what nobody can read.

    Raises:
      OSError: where it cannot be written.
      ValueError: where what is read is not what was written.
    """
    ocp = _orbax()
    folder.mkdir()
    with plain(folder) as path:
        _checkpointer(ocp.StandardCheckpointHandler).save(path / ARRAYS, args=ocp.args.StandardSave(dict(arrays)))
    back = read_arrays(folder, arrays)
    lost = [name for name, array in arrays.items() if name not in back or not _same(array, back[name])]
    if lost:
        raise ValueError(f"{lost[0]} and {len(lost) - 1} more are not read as they were written")
    tell(folder, meta)


def tell(folder: Path, meta: Json) -> None:
    """Write what the caller says of the arrays of a checkpoint."""
    # The names of the files stand in one of them, so that a list of digests that was cut short is seen.
    files = _ours(sorted(path.relative_to(folder).as_posix() for path in _disk.files_below(folder)))
    text = json.dumps({**meta, "files": files}, indent=1)
    if len(text) > MOST:
        raise ValueError(f"{TOLD} must have at most {MOST:,} characters; where the run stands takes {len(text):,}")
    (folder / TOLD).write_text(text)


def close(folder: Path, digests: str) -> None:
    """Write the digests of a checkpoint, and wait until all of it is on the disk."""
    (folder / SUMS).write_text(digests)
    _disk.sync_tree(folder)


def read_forms(folder: Path) -> dict[str, Form]:
    """Return what the arrays of a checkpoint are; raises whatever Orbax does for what it cannot read.

    Raises:
      ValueError: for what is no dict of arrays, and where reading would take more than the arrays do.
    """
    found = {}
    with plain(folder) as path:
        told = _checkpointer(_orbax().StandardCheckpointHandler).metadata(path / ARRAYS).item_metadata.tree
    for name, array in told.items():
        shape, chunk = getattr(array, "shape", None), getattr(getattr(array, "storage", None), "chunk_shape", None)
        if not isinstance(name, str) or not isinstance(shape, tuple):
            raise ValueError(f"{name!r:.80} must be an array; got {type(array).__name__}")
        chunk = tuple(chunk or shape)
        # A piece is unpacked whole, however little of it the array has.
        if len(chunk) != len(shape) or any(part > max(1, size) for part, size in zip(chunk, shape, strict=True)):
            raise ValueError(f"{name:.80} must be stored in pieces that it has; got {chunk} for shape {shape}")
        found[name] = Form(shape, np.dtype(array.dtype), chunk)
    return found


def read_arrays(folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return arrays of a checkpoint by name; raises whatever Orbax does for what it cannot read."""
    ocp, wanted = _orbax(), dict.fromkeys(names, 0)
    if not wanted:
        return {}
    # As NumPy's, wherever those that wrote them had them: their devices need not be here.
    kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
    args = ocp.args.PyTreeRestore(item=wanted, restore_args=kinds, partial_restore=True)
    with plain(folder) as path:
        arrays = _checkpointer(ocp.PyTreeCheckpointHandler).restore(path / ARRAYS, args=args)
    return {name: np.asarray(array) for name, array in arrays.items()}


def read_meta(folder: Path) -> Json:
    """Return what the caller said of a checkpoint.

    Raises:
      ValueError: for what is no object of JSON.
      OSError: where it cannot be read.
    """
    return read_json(_read(folder / TOLD), folder / TOLD)


def _read(path: Path) -> bytes:
    data = _disk.read_file(path, MOST + 1)
    if len(data) > MOST:
        raise ValueError(f"{path} must have at most {MOST:,} bytes; got more")
    return data


def _orbax() -> Any:
    return _check.extra("orbax.checkpoint", "checkpoint")


def _checkpointer(handler: Any) -> Any:
    """Return what writes and reads arrays of this process; of several, Orbax would wait for the others otherwise."""
    ocp, own = _orbax(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    options = {"multiprocessing_options": alone} if jax.process_count() > 1 else {}
    return ocp.Checkpointer(handler(**options), **options)


@contextmanager
def plain(folder: Path) -> Iterator[Path]:
    """Yield a path to the folder that Orbax takes as it stands: an odd name is reached by a link with a plain one."""
    if PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxmlp-") as place:
        if not PLAIN.fullmatch(place):
            raise ValueError(f"a folder with an odd name is reached by a link in one with a plain name; got {place}")
        link = Path(place) / "link"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _ours(names: list[str]) -> list[str]:
    """Leave out what systems and editors put into folders: names that neither Orbax nor this library gives."""
    return [name for name in names if not any(_foreign(part) for part in name.split("/"))]


def _foreign(name: str) -> bool:
    return name.startswith((".", "#")) or name.endswith("~") or name in ("Thumbs.db", "desktop.ini", "lost+found")


def _listed(data: bytes) -> dict[str, str]:
    """Return the digests by name."""
    found = {}
    for line in data.decode().splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"a line must be a digest and a name; got {line[:80]!r}")
        name = PurePosixPath(match[2])
        # As it stands: a file that is listed by many of its names would be read as often.
        if name.is_absolute() or ".." in name.parts or str(name) != match[2]:
            raise ValueError(f"a name must be one of a file within; got {match[2][:80]!r}")
        found[match[2]] = match[1]
    return found


def _unlisted(folder: Path, wanted: dict[str, str]) -> list[str]:
    """Return which files of a checkpoint have no digest; of earlier versions only run.json is known by name."""
    try:
        names = read_meta(folder).get("files", []) if TOLD in wanted else []
    except ValueError:  # its digest is right: to be named by who reads it
        names = []
    names = [str(name) for name in names] if isinstance(names, list) else []
    return [f"{SUMS} does not list {name}" for name in (TOLD, *names) if name not in wanted]


def _digest(path: Path) -> str | None:
    """Return the digest of a file, or None where there is none; raise an OSError where it cannot be read."""
    try:
        with _disk.open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a folder or a pipe in its place is no file
        return None


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
