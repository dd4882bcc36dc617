"""What in a run's directory this library wrote: nothing else in it is ever removed or renamed.

A checkpoint is known by what is written in it, whatever is damaged; what is left of a save that was cut, by a name with
a process and a random number in it, which nobody else gives. A user's folder may have the name of a checkpoint, and
hold a run.json and a folder arrays: it is none.
"""

import os
import re
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmlp import _disk

SUMS, TOLD, ARRAYS = "SHA256SUMS", "run.json", "arrays"
NUMBER = re.compile(r"[0-9]{8}|[1-9][0-9]{8,}", re.ASCII)
REPLACED = re.compile(r"([0-9]{8,})\.[0-9]+-[0-9a-f]{16}\.replaced", re.ASCII)
SAVING = re.compile(r"[0-9]{8,}\.[0-9]+-[0-9a-f]{16}\.saving", re.ASCII)  # earlier versions gave no number: left alone
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)", re.ASCII)
# What Orbax writes below `arrays`, of which _METADATA is always there.
FORMS = f"{ARRAYS}/_METADATA"
ORBAX = re.compile(
    ARRAYS + r"/(_[A-Za-z_]+(\.json)?|commit_success\.txt|array_metadatas/process_[0-9]+|"
    r"(ocdbt\.process_[0-9]+/)?(manifest\.ocdbt|d/[0-9a-f]{32}))",
    re.ASCII,
)
PARTLY = re.compile(ARRAYS + r"(\.orbax-checkpoint-tmp.*)?", re.ASCII)  # its folder while it writes
# Any of these, in any of three files: two may be lost, or lie in each other's place.
MARKS = re.compile(
    rb'^[0-9a-f]{64} [ *]arrays/_METADATA\r?$|"type": "jaxmlp[.\w]*:Recipe"|"\(\'members\.key\',\)"', re.MULTILINE
)
JUNK = re.compile(r"\.DS_Store|\._.*|\.nfs[0-9a-f]+|Thumbs\.db|desktop\.ini", re.ASCII)  # of systems, not of users


def name_of(number: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"{number:08d}"


def saving_name(number: int) -> str:
    """Return a name, which no other call has, for a checkpoint that is being written or removed."""
    return f"{name_of(number)}.{os.getpid()}-{secrets.token_hex(8)}.saving"


def replaced_name(number: int) -> str:
    """Return a name, which no other call has, for a checkpoint while another takes its place."""
    return saving_name(number).removesuffix(".saving") + ".replaced"


def name_before(path: Path) -> str | None:
    """Return the name that a checkpoint had before another began to take its place, if it is one of those."""
    found = REPLACED.fullmatch(path.name)
    return found[1] if found and is_a(path, stat.S_ISDIR) else None


def number_of(folder: Path) -> int | None:
    """Return the number of a checkpoint, damaged or whole, by its name and by what is in it; None for all else.

    Raises:
      OSError: where it cannot be looked into.
    """
    if not NUMBER.fullmatch(folder.name) or not is_a(folder, stat.S_ISDIR):
        return None
    there = [folder / name for name in (SUMS, TOLD, FORMS) if is_a(folder / name, stat.S_ISREG)]
    # All three names, where the files were emptied.
    known = len(there) == 3 or any(MARKS.search(_disk.read_file(path, 2**24)) for path in there)
    return int(folder.name) if known else None


def was_emptied(folder: Path) -> bool:
    """Tell whether a folder has the name of a checkpoint, as only counting gives it, and nothing is left in it.

    Raises:
      OSError: where it cannot be looked into.
    """
    real = NUMBER.fullmatch(folder.name) and folder.name.startswith("0") and not folder.is_symlink()
    return bool(real) and is_a(folder, stat.S_ISDIR) and not any(_disk.files_below(folder))


def is_left_over(path: Path) -> bool:
    """Tell whether a process that is gone left this behind while it saved, and nobody put anything into it since."""
    if path.is_symlink():
        return False
    if new := _disk.NEW.fullmatch(path.name):  # of `jaxmlp.save` perhaps, by another process and right now
        return is_a(path, stat.S_ISREG) and not _disk.is_alive(int(new[1]))
    if not SAVING.fullmatch(path.name) or not is_a(path, stat.S_ISDIR):
        return False
    return all(name in (SUMS, TOLD) or PARTLY.fullmatch(name) or JUNK.fullmatch(name) for name in os.listdir(path))


def is_all_ours(folder: Path) -> bool:
    """Tell whether a checkpoint holds nothing but what a run wrote, so that it may be removed.

    Raises:
      OSError: where it cannot be looked into.
    """
    if folder.is_symlink():  # where it leads is the user's affair
        return False
    listed = {SUMS, TOLD}
    if is_a(folder / SUMS, stat.S_ISREG):
        lines = _disk.read_file(folder / SUMS, 2**24).decode(errors="replace").splitlines()
        listed |= {found[2] for line in lines if (found := LINE.fullmatch(line))}
    for inner, folders, files in _disk.walk(folder):
        within = inner.relative_to(folder)
        if any((inner / name).is_symlink() for name in folders) or within == Path() and set(folders) - {ARRAYS}:
            return False
        for name in files:
            told = (within / name).as_posix()
            ours = told in listed or ORBAX.fullmatch(told) or JUNK.fullmatch(name)
            if not ours or (inner / name).is_symlink():
                return False
    return True


def taken(directory: Path, first: int, last: int, files: Sequence[str]) -> list[str]:
    """Return in words what has the name of one of these checkpoints, or of one of these files and is none."""
    paths = [path for path in sorted(directory.iterdir()) if NUMBER.fullmatch(path.name)]
    paths = [path for path in paths if first <= int(path.name) <= last]
    paths += [directory / name for name in files if is_a(directory / name, lambda mode: not stat.S_ISREG(mode))]
    return [f"{path.name} ({_kind(path)})" for path in paths]


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "a link"
    if not path.is_dir():
        return "a file" if path.is_file() else "a pipe or device"
    if number_of(path) is not None:
        return "a checkpoint"
    return "a folder of something else" if any(_disk.files_below(path)) else "an empty folder"


def is_a(path: Path, kind: Any) -> bool:
    """Tell whether something of a kind is there, and raise an OSError where that cannot be told."""
    try:
        return kind(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
