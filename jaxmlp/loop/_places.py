"""Which checkpoint has which name: one takes the place of another, gets its own back after a kill, or is set aside.

Nothing is removed before what takes its place is there, and nothing into which someone has put something of their own.
"""

import os
import shutil
from pathlib import Path

from jaxmlp import _disk
from jaxmlp.loop._ours import is_all_ours, name_before, number_of, replaced_name


def put(saving: Path, folder: Path) -> None:
    """Give a checkpoint its name, in the place of one that a run wrote which was resumed from an earlier one.

    That one is removed; where someone has put something into it, it is kept as `00000012.before`.
    """
    old = None
    if os.path.lexists(folder):
        if number_of(folder) is None:
            raise FileExistsError(f"{folder} has the name of a checkpoint and is none; move it away")
        old = folder.with_name(replaced_name(int(folder.name)))
        os.replace(folder, old)
    try:
        os.replace(saving, folder)
        _disk.sync_folder(folder.parent)
    except BaseException:
        if old is not None and not os.path.lexists(folder):
            os.replace(old, folder)
        raise
    if old is not None:
        _clear_away(old, folder)


def put_back(directory: Path) -> None:
    """Give checkpoints their names back whose places others were taking when the process died."""
    for path in sorted(directory.iterdir()):
        if (name := name_before(path)) is None:
            continue
        if os.path.lexists(directory / name):
            _clear_away(path, directory / name)
        else:
            os.replace(path, directory / name)


def _clear_away(old: Path, folder: Path) -> None:
    """Remove a checkpoint whose place another has taken, unless someone has put something into it."""
    if is_all_ours(old):
        shutil.rmtree(old)
    else:
        os.replace(old, _disk.free_name(folder, "before"))


def set_aside(folder: Path, word: str = "damaged") -> Path:
    """Give a checkpoint another name that says why, which it returns."""
    aside = _disk.free_name(folder, word)
    os.replace(folder, aside)
    return aside
