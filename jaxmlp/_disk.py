"""What a path is, which files are read, and how bytes are written so that neither a kill nor a power cut halves them.

A name that is given to a file counts only once the file's bytes and the folder that holds the name are on the disk
itself, and not in memory alone: both are synced (`os.fsync`) here, in that order.
"""

import contextlib
import errno
import os
import re
import secrets
import stat
import warnings
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from jaxmlp import _check
from jaxmlp.types import StrPath

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
SCHEMES = re.compile(r"(?:file|https?|ftp|s3|gs|gcs|az|abfss?|hdfs):/")  # what `Path` leaves of a URL
NOBODY = 2**31 - 1  # the number of no process
NEW = re.compile(r"\.jaxmlp-([0-9]+)-[0-9a-f]{16}\.new", re.ASCII)
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # of file systems that sync no folders


def path_of(what: str, path: StrPath) -> Path:
    """Return the absolute path that a caller means: `~` is the home, and what is relative is so to where we are now.

    Raises:
      ValueError: for what is no path of a file or folder on this machine.

    >>> path_of("directory", "/runs/../runs/one/")
    PosixPath('/runs/../runs/one')
    >>> path_of("directory", "gs://bucket/run")
    Traceback (most recent call last):
    ValueError: directory must be a path on this machine; got the URL 'gs://bucket/run'; mount it or copy from and to it
    """
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str):
        fix = "; pass os.fsdecode(path)" if isinstance(text, bytes) else ""
        raise ValueError(f"{what} must be a str or a pathlib.Path; got {type(path).__name__} {path!r:.80}{fix}")
    if not text or "\0" in text:
        raise ValueError(f"{what} must be the name of a file or folder; got {text!r:.80}; '.' is where you are")
    if URL.match(text) or SCHEMES.match(text):
        raise ValueError(
            f"{what} must be a path on this machine; got the URL {text!r:.200}; mount it or copy from and to it"
        )
    whole = os.path.expanduser(text)
    if text.startswith("~") and whole == text:
        raise ValueError(f"{what} must begin with the home of a user who is known; got {text!r:.200}; or ./~ for a ~")
    try:
        os.fsencode(whole)
        return Path(whole).absolute()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} must be a name that this file system can hold; got {text!r:.200}") from error
    except OSError as error:
        raise ValueError(f"{what} must not be relative to a folder that is gone; got {text!r:.200}") from error


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to be read; one that others write to, a pipe or a device, has no end or never begins.

    Raises:
      ValueError: for what is no regular file.
      OSError: where it cannot be opened.
    """
    # Asked before it is opened, since to open a device may do something, and after, since it may be another by then.
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        mode = os.fstat(number).st_mode
        if stat.S_ISREG(mode):
            return os.fdopen(number, "rb")
        os.close(number)
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    raise ValueError(f"{path} must be a regular file; it is {kinds.get(stat.S_IFMT(mode), 'a device')}")


def read_file(path: Path, most: int | None = None) -> bytes:
    """Return the bytes of a regular file, `most` of them."""
    with open_file(path) as file:
        return file.read(-1 if most is None else most)


def new_name(process: int | None = None) -> str:
    """Return a name that no other call has, in this process or another, for a file that is being written by one."""
    return f".jaxmlp-{os.getpid() if process is None else process}-{secrets.token_hex(8)}.new"


def write_file(path: Path, data: bytes) -> None:
    """Write a file that is there whole or as it was, whoever else writes it, and whenever the power goes.

    Raises:
      ValueError: where something that is no regular file has the name.
      OSError: where it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{path} must be a file, or a name that is free; a folder, pipe or device has it")
    new = path.with_name(new_name())
    try:
        with open(new, "xb") as file:
            file.write(data)
            sync(file)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append(path: Path, data: bytes) -> None:
    """Add bytes to the end of a regular file."""
    open_file(path).close()
    with open(path, "ab") as file:
        file.write(data)
        sync(file)


def sync(file: BinaryIO) -> None:
    """Wait until the bytes of a file are on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    if os.name == "nt":  # opens no folders
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(number)


def sync_tree(folder: Path) -> None:
    """Wait until all that a folder holds is on the disk."""
    for path in files_below(folder):
        with open(path, "rb+" if os.name == "nt" else "rb") as file:
            os.fsync(file.fileno())
    for inner, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(inner))


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder below one, itself too, with the names in it, of folders and of files.

    Raises:
      OSError: for what cannot be listed, which `os.walk` leaves out.
    """

    def refuse(error: OSError) -> None:
        raise error

    for inner, folders, files in os.walk(folder, onerror=refuse):
        yield Path(inner), folders, files


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; raise an OSError for what cannot be listed, as `Path.rglob` does not."""
    for inner, _, names in walk(folder):
        yield from (inner / name for name in names)


def free_name(path: Path, word: str) -> Path:
    """Return a name beside a path that nothing has, of a word that says why it gets another: `run.csv.before`."""
    free, count = path.with_name(f"{path.name}.{word}"), 1
    while os.path.lexists(free):
        count += 1
        free = path.with_name(f"{path.name}.{word}-{count}")
    return free


def check_writable(folder: Path) -> None:
    """Raise an OSError unless a name can be given to a file in a folder."""
    new = folder / new_name(NOBODY)  # where it cannot be removed, whoever comes next may do so
    open(new, "xb").close()
    new.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Tell whether a process of this number lives on this machine, as far as can be told."""
    if os.name == "nt":  # where such a signal is one
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        return True
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and wait until they are on the disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def hold(directory: Path) -> Any:
    """Hold a directory until what is returned is closed or the process is gone, however it goes.

    Raises:
      ValueError: where another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    # The system lets go of a lock with the process, even a killed one: no stale lock is ever to be removed by hand.
    file = os.fdopen(os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"directory must be one run's own; another process trains in {directory} now; wait for it, or pass another"
        ) from None
    except OSError as error:
        warnings.warn(
            f"{directory} cannot be locked ({error}): a second process that trains in it would not be noticed; let one "
            f"process alone write there",
            stacklevel=_check.level_of_caller(),
        )
    return file
