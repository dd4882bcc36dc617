"""What is saved in a directory, read: nothing is locked, written or renamed, and the directory need not be writable."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmlp import _check
from jaxmlp.loop import _folder, _ours, _trouble
from jaxmlp.loop._folder import Form, Stored
from jaxmlp.types import Json

FORMAT = 1
Check = Callable[[Json, Mapping[str, Form]], None]
Later = Callable[[Json, str], bool]  # whether an array, of what is said and its name, is read later, where it is to lie
Damaged = list[tuple[Path, list[str]]]


class Saved(NamedTuple):
    """A checkpoint as it was read."""

    number: int
    meta: Json
    arrays: dict[str, np.ndarray | Stored]


def numbers(directory: Path) -> list[int]:
    """Return which checkpoints are there, oldest first; whatever else the directory holds is nobody's business."""
    return sorted(n for path in directory.iterdir() if (n := _ours.number_of(path)) is not None)


def newest(directory: Path, check: Check | None = None, later: Later | None = None) -> tuple[Saved | None, Damaged]:
    """Return the newest whole checkpoint, if there is one, and what is wrong with those above it.

    Args:
      directory: where they are.
      check: raises a ValueError unless the arrays may be read, of what is said of them and of what they are.
      later: tells which are not read now.

    Raises:
      ValueError: where checkpoints are there and none is whole, where a file of one cannot be read, and where it was
        written in another format.
    """
    damaged: Damaged = []
    saved = None
    folder = directory
    try:
        for number in reversed(numbers(directory)):
            folder = directory / _ours.name_of(number)
            problems = _folder.damages(folder)
            if not problems:
                saved = _read(number, folder, check, later)
                break
            damaged.append((folder, problems))
        if saved is None:
            emptied = [path for path in directory.iterdir() if _ours.was_emptied(path)]
            damaged = sorted([*damaged, *((path, ["all files are missing"]) for path in emptied)], reverse=True)
    except OSError as error:
        raise ValueError(_trouble.cannot_read(folder, error)) from error
    if saved is None and damaged:
        raise ValueError(_trouble.none_whole(directory, damaged))
    return saved, damaged


def recover(directory: Path, check: Check | None = None) -> Saved | None:
    """Return the newest whole checkpoint, if there is one; damaged ones above it are named by a warning, and stay.

    Raises:
      ValueError: as `newest` does.
    """
    saved, damaged = newest(directory, check)
    for folder, problems in damaged:
        warnings.warn(
            f"checkpoint {folder} is damaged and is not used; the one before it is: {'; '.join(problems[:3])}; nothing "
            f"was changed",
            stacklevel=_check.level_of_caller(),
        )
    return saved


def _read(number: int, folder: Path, check: Check | None, later: Later | None) -> Saved:
    meta = _folder.read_meta(folder)
    if meta.get("format") != FORMAT:
        raise ValueError(
            f"{folder} must be of format {FORMAT}; got {meta.get('format')!r:.80}; resume it with the "
            f"version of jaxmlp that wrote it, or pass another directory"
        )
    with _trouble.reading(folder):
        forms = _folder.read_forms(folder)
    if check is not None:
        check(meta, forms)
    waiting = {} if later is None else {name: form for name, form in forms.items() if later(meta, name)}
    stored = {name: Stored(folder.name, name, form.shape, form.dtype) for name, form in waiting.items()}
    with _trouble.reading(folder):
        return Saved(number, meta, {**_folder.read_arrays(folder, forms.keys() - waiting.keys()), **stored})
