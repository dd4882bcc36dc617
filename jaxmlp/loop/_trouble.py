"""What is said where a run's directory cannot be read, written or gone on with: what is there, and the ways out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxmlp._engine.exchange import HostLost


def of_the_system(error: BaseException) -> bool:
    """Tell whether an error comes from the system: Orbax raises its own from one."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OSError):
        seen = seen.__cause__ or seen.__context__
    return seen is not None or "errno" in str(error).lower()


def cannot_write(directory: Path, error: BaseException) -> str:
    """Return what is said of an error while writing."""
    told = f"{type(error).__name__}: {str(error)[:400]}"
    if of_the_system(error):
        must, fix = "be writable and have room", "make room, and the same call goes on"
    else:
        must, fix = "take a checkpoint", "the same call goes on from them"
    return f"directory must {must}; {directory} could not be written: {told}; older checkpoints in it are whole: {fix}"


def cannot_read(path: Path, error: BaseException) -> str:
    """Return what is said of an error while reading, which is no damage."""
    told = f"{type(error).__name__}: {str(error)[:400]}"
    if of_the_system(error):
        must = "be readable"
        fix = "once it can be read the same call goes on, or from the one before once it is moved away"
    else:
        must, fix = "hold what a run wrote", "once it is moved away the same call goes on from the one before"
    return f"directory must {must}; {path} could not be read: {told}; nothing was changed: {fix}"


@contextmanager
def writing(directory: Path, kind: type[Exception]) -> Iterator[None]:
    """Raise what goes wrong while writing as an error of this kind, which says what can be done."""
    try:
        yield
    except (kind, HostLost):
        raise
    except Exception as error:
        raise kind(cannot_write(directory, error)) from error


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Name the folder in whatever Orbax raises for what it cannot read."""
    try:
        yield
    except HostLost:
        raise
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
