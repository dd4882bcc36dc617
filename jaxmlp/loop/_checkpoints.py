"""Arrays and JSON to disk and back, whole: each checkpoint is a folder that is there complete or not at all.

    directory/00000012/arrays/      the arrays, written by Orbax
                       run.json     what the caller says of them
                       SHA256SUMS   a digest of every file; `sha256sum -c SHA256SUMS` reads it too

It is written under another name and renamed when all of it is on the disk: a kill or a power cut leaves all of it or a
folder that ends in ".saving", which the next process clears away. Older ones are removed after that, but for those into
which someone has put something. Damage done later is seen by the digests: it is set aside where an older one is whole,
and never where none is. A file that cannot be read is not damaged: the run stops, and nothing is changed. Whatever else
the directory holds is not touched.
Nothing here knows what a run is.
"""

import os
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp import _check, _disk
from jaxmlp.loop import _folder, _ours, _places, _reading, _trouble
from jaxmlp.loop._reading import FORMAT, Check, Later, Saved
from jaxmlp.types import Json, StrPath

_sums = _folder.sums


class NotSaved(ValueError):
    """A checkpoint could not be written; of a run, `state` and `history` are those so far."""

    state: Any
    history: Any


class Checkpoints:
    """The checkpoints in a directory: the newest `keep` and the best are kept."""

    def __init__(self, directory: StrPath, keep: int = 3):
        """Open or make the directory, for one process at a time, and clear away what a killed one left unfinished.

        Raises:
          ValueError: for a directory that cannot be written, or that another process trains in.
        """
        _check.extra("orbax.checkpoint", "checkpoint")
        self.directory, self.keep = _disk.path_of("directory", directory), _check.positive_int("keep", keep)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._kept = ""
        self._lock: Any = None
        try:
            if os.path.lexists(self.directory) and not self.directory.is_dir():
                kind = "a file" if self.directory.exists() else "a link to nothing"
                raise ValueError(f"directory must be a folder; {self.directory} is {kind}; pass another")
            _disk.make_folder(self.directory)
            self._lock = _disk.hold(self.directory)
            _places.put_back(self.directory)
            for path in sorted(self.directory.iterdir()):
                if _ours.is_left_over(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            self.close()
            raise ValueError(_trouble.cannot_write(self.directory, error)) from error

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

        It is read back before it counts.

        Args:
          number: its name; the highest is the newest.
          arrays: by name.
          meta: whatever JSON can hold.
          score: the checkpoint of the lowest one is kept beside the newest; None is no candidate.
          first: is done in the background before the checkpoint is begun, so that where the checkpoint is, it is done.

        Raises:
          NotSaved: where the one before could not be written.
        """
        self.wait()
        meta = {"format": FORMAT, **meta, "score": score}
        self._thread = threading.Thread(target=self._write, args=(number, arrays, meta, first), daemon=True)
        self._thread.start()

    def begin(self, number: int, first: Callable[[], None]) -> Path:
        """Do `first`, and return a folder for the arrays of a checkpoint, which others write; `finish` counts it.

        Raises:
          NotSaved: where that cannot be done.
        """
        self.wait()
        saving = self.directory / _ours.saving_name(number)
        with _trouble.writing(self.directory, NotSaved):
            first()
            saving.mkdir()
        return saving

    def finish(self, number: int, saving: Path, meta: Json, *, score: float | None = None) -> None:
        """Let a checkpoint count whose arrays have been written and read back.

        Raises:
          NotSaved: where it could not be written.
        """
        with _trouble.writing(self.directory, NotSaved):
            _folder.tell(saving, {"format": FORMAT, **meta, "score": score})
            self._close(number, saving)

    def wait(self) -> None:
        """Wait until everything is on disk; warn where an older checkpoint could not be removed.

        Raises:
          NotSaved: where it could not be written; the older checkpoints are whole.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise NotSaved(_trouble.cannot_write(self.directory, error)) from error
        if self._kept:
            kept, self._kept = self._kept, ""
            warnings.warn(
                f"an older checkpoint in {self.directory} could not be removed: {kept}; the run goes on, and tries "
                f"again at the next save",
                stacklevel=_check.level_of_caller(),
            )

    def close(self) -> None:
        """Wait for what is being written, whatever becomes of it, and let others into the directory."""
        if self._thread is not None:
            self._thread.join()
        if self._lock is not None:
            self._lock.close()

    def numbers(self) -> list[int]:
        """Return which checkpoints are there, oldest first; whatever else the directory holds is nobody's business."""
        return _reading.numbers(self.directory)

    def check_names(self, first: int, last: int, files: Sequence[str] = ()) -> None:
        """Raise unless a checkpoint can be written, and its name, of these numbers, and those of files are free.

        Raises:
          ValueError: with what has such a name.
        """
        try:
            taken = _ours.taken(self.directory, first, last, files)
            _disk.check_writable(self.directory)
        except OSError as error:
            raise ValueError(_trouble.cannot_write(self.directory, error)) from error
        if taken:
            raise ValueError(_trouble.names_taken(self.directory, taken))

    def recover(self, check: Check | None = None, later: Later | None = None) -> Saved | None:
        """Return the newest whole checkpoint; damaged ones above it are named by a warning, and set aside.

        Args:
          check: raises a ValueError unless the arrays may be read, of what is said of them and of what they are.
          later: tells which are not read now.

        Raises:
          ValueError: where checkpoints are there and none is whole, where a file of one cannot be read, and where it
            was written in another format. Nothing is changed then.
        """
        saved, damaged = _reading.newest(self.directory, check, later)
        for folder, problems in damaged:
            self._set_aside(folder, problems)
        return saved

    def meta(self, number: int) -> Json:
        """Return what the caller said of a checkpoint, with its score and the format."""
        meta = _folder.read_meta(self._folder(number))
        return {name: told for name, told in meta.items() if name != "files"}

    def _folder(self, number: int) -> Path:
        return self.directory / _ours.name_of(number)

    def _set_aside(self, folder: Path, problems: list[str]) -> None:
        try:
            aside = _places.set_aside(folder)
        except OSError as error:
            raise ValueError(_trouble.cannot_write(self.directory, error)) from error
        warnings.warn(
            f"checkpoint {folder} is damaged and is not used; the one before it is: {'; '.join(problems[:3])}; it is "
            f"set aside as {aside.name}",
            stacklevel=_check.level_of_caller(),
        )

    def _write(self, number: int, arrays: dict[str, np.ndarray], meta: Json, first: Callable[[], None] | None) -> None:
        saving = self.directory / _ours.saving_name(number)
        try:
            if first is not None:
                first()
            _folder.write(saving, arrays, meta)
            self._close(number, saving)
        except BaseException as error:  # raised by the next `save` or `wait`
            shutil.rmtree(saving, ignore_errors=True)
            self._error = error

    def _close(self, number: int, saving: Path) -> None:
        _folder.close(saving, _sums(saving))
        _places.put(saving, self._folder(number))
        try:
            for later in self.numbers():
                if later > number:  # of other rules, from before the run went back: it must not be taken for the newest
                    _places.set_aside(self._folder(later), "superseded")
            self._forget()
        except Exception as error:  # what was saved is saved
            self._kept = f"{type(error).__name__}: {error}"

    def _forget(self) -> None:
        numbers = self.numbers()
        scores = {number: self._score(number) for number in numbers}
        newest = scores[numbers[-1]] if numbers else None
        # Two scores compare where they are of one loss on the same data, which may be others since.
        scored = [(found[0], number) for number, found in scores.items() if found and newest and found[1] == newest[1]]
        best = min(scored)[1] if scored else None
        for number in numbers[: -self.keep]:
            if number != best and _ours.is_all_ours(self._folder(number)):
                # Renamed first: a folder that is half removed when the process dies must not look like a checkpoint.
                gone = self.directory / _ours.saving_name(number)
                os.replace(self._folder(number), gone)
                shutil.rmtree(gone)

    def _score(self, number: int) -> tuple[float, Any] | None:
        """Return the score of a checkpoint, and what tells by what it was judged."""
        try:
            meta = self.meta(number)
        except (OSError, ValueError):  # damaged since: to be named when it is wanted, not while another is saved
            return None
        score = meta.get("score")
        return (score, meta.get("judged")) if isinstance(score, float | int) and score == score else None
