"""Faults for a run's directory: system calls that fail, and files that are damaged afterwards."""

import builtins
import io
import os
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

CALLS = ("open", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "listdir", "scandir", "stat")
STREAMS = ("read", "readinto", "write", "flush", "truncate")


class Failing:
    """A file whose calls are counted, and one of which fails."""

    def __init__(self, file, called):
        self._file, self._called = file, called

    def __getattr__(self, name):
        found = getattr(self._file, name)
        if name not in STREAMS:
            return found

        def call(*args):
            self._called(name)
            return found(*args)

        return call

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __iter__(self):
        return iter(self._file)


@contextmanager
def failing(folder, name=None, number=0, error=0):
    """Let a call on what lies in a folder fail, the `number`-th of that name; yields how often each was called."""
    counted, lock, root = Counter(), threading.Lock(), os.path.realpath(folder)

    def called(what):
        with lock:
            counted[what] += 1
            if what == name and counted[what] == number:
                raise OSError(error, os.strerror(error))

    def within(path):
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return os.path.abspath(os.fsdecode(path)).startswith(root)

    def wrapped(what, call):
        def wrapper(path=".", *args, **options):
            if within(path):
                called(what)
            return call(path, *args, **options)

        return wrapper

    def wrapped_open(call):
        def wrapper(path, *args, **options):
            if not within(path):
                return call(path, *args, **options)
            called("open")
            return Failing(call(path, *args, **options), called)

        return wrapper

    before = {what: getattr(os, what) for what in CALLS}
    opens = builtins.open
    try:
        for what, call in before.items():
            setattr(os, what, wrapped(what, call))
        builtins.open = io.open = wrapped_open(opens)
        yield counted
    finally:
        builtins.open = io.open = opens
        for what, call in before.items():
            setattr(os, what, call)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, rng):
    data = bytearray(path.read_bytes())
    if data:
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size + 1)])


def drop_line(path, rng):
    lines = path.read_bytes().splitlines(keepends=True) or [b""]
    del lines[rng.integers(len(lines))]
    path.write_bytes(b"".join(lines))


def become_a_folder(path, rng):
    path.unlink()
    path.mkdir()


def repeat(path, rng):
    path.write_bytes(path.read_bytes() * 2)


FILES = {
    "flip": flip,
    "cut": cut,
    "a line less": drop_line,
    "remove": lambda path, rng: path.unlink(),
    "a folder": become_a_folder,
    "twice": repeat,
    "empty": lambda path, rng: path.write_bytes(b""),
}


def damage(checkpoint, others, rng):
    """Damage a checkpoint in one of many ways; returns the way in words."""
    kinds = [*FILES, "swap", "no arrays", "junk", "SHA256SUMS of another", "all of another"]
    kind = kinds[rng.integers(len(kinds))]
    files = files_of(checkpoint)
    path = files[rng.integers(len(files))]
    other = others[rng.integers(len(others))]
    if kind in FILES:
        FILES[kind](path, rng)
    elif kind == "swap":
        second = files[rng.integers(len(files))]
        one, two = path.read_bytes(), second.read_bytes()
        path.write_bytes(two)
        second.write_bytes(one)
    elif kind == "no arrays":
        shutil.rmtree(checkpoint / "arrays", ignore_errors=True)
    elif kind == "junk":
        for name in (".DS_Store", "arrays/.nfs0000", "arrays/d/._x", "run.json~", "Thumbs.db", "arrays/lost+found/a"):
            (checkpoint / name).parent.mkdir(exist_ok=True, parents=True)
            (checkpoint / name).write_bytes(rng.bytes(50))
    elif kind == "SHA256SUMS of another":
        shutil.copy(other / "SHA256SUMS", checkpoint)
    else:  # a whole checkpoint under another's number
        shutil.rmtree(checkpoint)
        shutil.copytree(other, checkpoint)
    return f"{checkpoint.name}: {kind} {path.name}"


def names(folder):
    """Return the names of all that a directory holds but for the history, which may grow."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
