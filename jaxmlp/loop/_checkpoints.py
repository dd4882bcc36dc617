"""Arrays and JSON to disk and back, whole: each checkpoint is a folder that is there complete or not at all.

    directory/00000012/arrays/      the arrays, written by Orbax
                       run.json     what the caller says of them
                       SHA256SUMS   a digest of every file; `sha256sum -c SHA256SUMS` reads it too

A checkpoint is written under another name and renamed when complete: a process that is killed leaves either all of it
or a folder that ends in ".saving", which the next one clears away. A power cut is another matter, since a renamed
folder may then hold files whose bytes never reached the disk. To rule that out, each checkpoint would have to
wait until the disk has every file (fsync). Digests tell it afterwards instead, and damage done later too, and the
checkpoint before is used. Nothing here knows what a run is.
"""

import hashlib
import json
import os
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlp import _check
from jaxmlp.loop._fields import read_json
from jaxmlp.types import Json, StrPath

SAVING, DAMAGED = ".saving", ".damaged"
FORMAT = 1


class Saved(NamedTuple):
    """A checkpoint as it was read."""

    number: int
    meta: Json
    arrays: dict[str, np.ndarray]


class Checkpoints:
    """The checkpoints in a directory: the newest `keep` and the best are kept."""

    def __init__(self, directory: StrPath, keep: int = 3):
        """Open or make the directory, for one process at a time, and clear away what a killed one left unfinished.

        Raises:
          ValueError: for a directory that cannot be written, or that another process trains in.
        """
        self._orbax = _check.extra("orbax.checkpoint", "checkpoint")
        self.directory, self.keep = Path(directory).absolute(), _check.positive_int("keep", keep)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.directory)
            for unfinished in self.directory.glob(f"*{SAVING}"):
                shutil.rmtree(unfinished)
        except OSError as error:
            raise ValueError(_cannot_write(self.directory, error)) from error

    def save(
        self,
        number: int,
        arrays: dict[str, np.ndarray],
        meta: Json,
        *,
        score: float | None = None,
        first: Callable[[], None] | None = None,
    ) -> None:
        """Do `first`, then write a checkpoint, in the background and after the one before it.

        Args:
          number: its name; the highest is the newest.
          arrays: by name.
          meta: whatever JSON can hold.
          score: the checkpoint of the lowest one is kept beside the newest; None is no candidate.
          first: is done in the background before the checkpoint is begun, so that where the checkpoint is, it is done.

        Raises:
          ValueError: where the one before could not be written.
        """
        self.wait()
        meta = {**meta, "score": score}
        self._thread = threading.Thread(target=self._write, args=(number, arrays, meta, first), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
          ValueError: where it could not be written; the older checkpoints are whole.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise ValueError(_cannot_write(self.directory, error)) from error

    def close(self) -> None:
        """Wait for what is being written, whatever becomes of it, and let others into the directory."""
        if self._thread is not None:
            self._thread.join()
        if self._lock is not None:
            self._lock.close()

    def numbers(self) -> list[int]:
        """Return which checkpoints are there, oldest first."""
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def recover(self) -> Saved | None:
        """Return the newest whole checkpoint; damaged ones above it are named by a warning, and set aside.

        Raises:
          ValueError: where it was written in another format.
        """
        for number in reversed(self.numbers()):
            folder = self._folder(number)
            problems = damages(folder)
            if not problems:
                meta = self.meta(number)
                if meta.get("format") != FORMAT:
                    raise ValueError(
                        f"{folder} must be of format {FORMAT}; got {meta.get('format')!r}; resume it with the version "
                        f"of jaxmlp that wrote it, or pass another directory"
                    )
                try:
                    return Saved(number, meta, self._arrays(folder))
                except Exception as error:  # whatever Orbax raises for bytes that it cannot read
                    problems = [f"{type(error).__name__}: {error}"]
            aside = folder.with_name(folder.name + DAMAGED)
            warnings.warn(
                f"checkpoint {folder} is damaged and is not used; the one before it is: {'; '.join(problems[:3])}; "
                f"it is set aside as {aside.name}",
                stacklevel=_check.level_of_caller(),
            )
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(folder, aside)
        return None

    def meta(self, number: int) -> Json:
        """Return what the caller said of a checkpoint, with its score and the format."""
        path = self._folder(number) / "run.json"
        return read_json(path.read_bytes(), path)

    def _folder(self, number: int) -> Path:
        return self.directory / f"{number:08d}"

    def _arrays(self, folder: Path) -> dict[str, np.ndarray]:
        ocp = self._orbax
        reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        arrays = reader.restore(folder / "arrays", args=ocp.args.StandardRestore())
        return {name: np.asarray(array) for name, array in arrays.items()}

    def _write(self, number: int, arrays: dict[str, np.ndarray], meta: Json, first: Callable[[], None] | None) -> None:
        ocp, folder = self._orbax, self._folder(number)
        saving = folder.with_name(folder.name + SAVING)
        try:
            if first is not None:
                first()
            saving.mkdir()
            writer = ocp.Checkpointer(ocp.StandardCheckpointHandler())
            writer.save(saving / "arrays", args=ocp.args.StandardSave(arrays))
            (saving / "run.json").write_text(json.dumps({"format": FORMAT, **meta}, indent=1))
            (saving / "SHA256SUMS").write_text(_sums(saving))
            if folder.exists():  # saved by a run that was resumed from an earlier one, and came here a second time
                shutil.rmtree(folder)
            os.replace(saving, folder)
            self._forget()
        except BaseException as error:  # raised by the next `save` or `wait`
            shutil.rmtree(saving, ignore_errors=True)
            self._error = error

    def _forget(self) -> None:
        numbers = self.numbers()
        scores = {number: self._score(number) for number in numbers}
        scored = [number for number in numbers if scores[number] is not None]
        best = min(scored, key=lambda number: scores[number], default=None)  # type: ignore[arg-type,return-value]
        for number in numbers[: -self.keep]:
            if number != best:
                # Renamed first: a folder that is half removed when the process dies must not look like a checkpoint.
                gone = self._folder(number).with_name(f"{number:08d}{SAVING}")
                os.replace(self._folder(number), gone)
                shutil.rmtree(gone)

    def _score(self, number: int) -> float | None:
        try:
            return self.meta(number).get("score")
        except (OSError, ValueError):  # damaged since: to be named when it is wanted, not while another is saved
            return None


def damages(folder: Path) -> list[str]:
    """Return what is wrong with the files of a checkpoint, by their digests."""
    try:
        wanted = dict(line.split("  ", 1)[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    except (OSError, ValueError) as error:
        return [f"SHA256SUMS cannot be read ({error})"]
    found = dict(line.split("  ", 1)[::-1] for line in _sums(folder).splitlines())
    if not wanted:
        return ["SHA256SUMS is empty"]
    lines = [f"{name} is missing" for name in wanted if name not in found]
    lines += [f"{name} does not belong there" for name in found if name not in wanted]
    return lines + [f"{name} has changed" for name in wanted if name in found and wanted[name] != found[name]]


def _sums(folder: Path) -> str:
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    lines = []
    for name in names:
        if name != "SHA256SUMS":
            with open(folder / name, "rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _lock(directory: Path) -> Any:
    """Hold the directory until the file is closed or the process is gone, however it goes."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    # The system lets go of a lock with the process, even a killed one: no stale lock is ever to be removed by hand.
    file = open(directory / ".lock", "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"directory must be one run's own; another process trains in {directory} now; wait for it, or pass another"
        ) from None
    except OSError:  # a file system without locks
        pass
    return file


def _cannot_write(directory: Path, error: BaseException) -> str:
    return (
        f"directory must be writable and have room; {directory} could not be written: "
        f"{type(error).__name__}: {error}; older checkpoints in it are whole: make room, and the same call goes on"
    )
