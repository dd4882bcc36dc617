"""What is said where a run's directory cannot be read, written or gone on with: what is there, and the ways out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def cannot_write(directory: Path, error: BaseException) -> str:
    """Return what is said of an error while writing."""
    return (
        f"directory must be writable and have room; {directory} could not be written: "
        f"{type(error).__name__}: {error}; older checkpoints in it are whole: make room, and the same call goes on"
    )


def cannot_read(path: Path, error: BaseException) -> str:
    """Return what is said of an error while reading, which is no damage."""
    return (
        f"directory must be readable; {path} could not be read: {type(error).__name__}: {str(error)[:400]}; nothing "
        f"was changed: once it can be read the same call goes on, or from the one before once it is moved away"
    )


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Name the folder in whatever Orbax raises for what it cannot read."""
    try:
        yield
    except Exception as error:
        raise ValueError(cannot_read(folder, error)) from error


def none_whole(directory: Path, damaged: Sequence[tuple[Path, list[str]]]) -> str:
    """Return what is said of checkpoints that are all damaged, each with its problems."""
    told = "\n  ".join(f"{folder.name}: {'; '.join(problems[:3])}" for folder, problems in damaged[:12])
    return (
        f"directory must hold a whole checkpoint, or none; {directory} has {len(damaged)}, and each is "
        f"damaged:\n  {told}\nnothing was changed: put them back from a copy, or, to begin anew, move them "
        f"away or pass another directory"
    )


def names_taken(directory: Path, taken: Sequence[str]) -> str:
    """Return what is said of names that checkpoints will need and something else has."""
    return (
        f"directory must have the names free that the checkpoints and files of the run will have; {directory} holds "
        f"{', '.join(taken[:8])}; nothing was changed: move what has such a name away, or pass another directory"
    )
