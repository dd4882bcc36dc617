"""What goes round between the processes of a run: a small array, that says what is asked and what is answered.

So who comes with an error, or from another line, is understood wherever the others are: all raise then, and none waits
for one that has left.
"""

import contextlib
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

HEAD = 64  # bytes of what goes round: what is asked, how long the answer is, and the answer, or its beginning
# What may be asked, which `exchange` compares; and as it is said of who asks another thing.
RAISED, DONE, EITHER, FIRST_NUMBER, TEXTS, FROM_FIRST, ARRAYS = range(7)
PLACES = ("an error", "the end of a part", "a question", "a clock", "a comparison", "a checkpoint", "its results")


class HostLost(RuntimeError):
    """A computation of several processes failed: mostly because one is gone, or did not make the same call in time."""


def exchange(what: int, own: bytes, kinds: Mapping[str, type[Exception]] | None = None, about: str = "") -> list[bytes]:
    """Return what each process answers, where all are asked the same.

    Args:
      what: one of the above.
      own: the answer of this process.
      kinds: of errors besides a ValueError, by name, as which that of another process is raised here.
      about: more of the question, that is the same only on the same line.

    Raises:
      ValueError: on all, where one has raised it; else a RuntimeError, or one of the kinds.
    """
    head = np.zeros(HEAD, np.uint8)
    question = what | zlib.crc32(about.encode()) << 8 & 0xFFFFFFFF
    start = np.array([question, len(own)], np.uint32).tobytes() + own
    head[: min(HEAD, len(start))] = np.frombuffer(start[:HEAD], np.uint8)
    heads = gather(head)
    asked, lengths = np.ascontiguousarray(heads[:, :8]).view(np.uint32).T
    rest = int(lengths.max()) - (HEAD - 8)
    if rest > 0:
        more = np.zeros(rest, np.uint8)
        more[: max(0, len(start) - HEAD)] = np.frombuffer(start[HEAD:], np.uint8)
        heads = np.concatenate([heads, gather(more)], axis=1)
    said = [bytes(row[8 : 8 + length]) for row, length in zip(heads, lengths, strict=True)]
    if what == RAISED:  # and who else has
        return [own if place & 0xFF == RAISED else b"" for own, place in zip(said, asked, strict=True)]
    if (asked == question).all():
        return said
    for who in np.flatnonzero(asked & 0xFF == RAISED):
        text = said[who].decode(errors="replace")
        names, _, words = text.partition(": ")
        known = {"ValueError": ValueError, **(kinds or {})}
        kind = next((known[name] for name in names.split("<") if name in known), RuntimeError)
        name = names.split("<")[0]
        raise told(kind(f"process {who} of {len(said)} could not go on, and so none can: {name}: {words}"))
    places = "; ".join(f"process {who} is at {PLACES[place & 0xFF]}" for who, place in enumerate(asked))
    raise told(RuntimeError(f"all processes must run the same lines with the same arguments; {places}"))


def told(error: BaseException) -> BaseException:
    """Remember of an error that all processes know it."""
    error._told_to_all = True  # type: ignore[attr-defined]
    return error


def is_told(error: BaseException | None) -> bool:
    """Tell whether all processes know an error, or that of which it was made."""
    return error is not None and (getattr(error, "_told_to_all", False) or is_told(error.__cause__))


def forget(error: BaseException | None) -> None:
    """Let an error, and that of which it was made, be new again."""
    while error is not None:
        error.__dict__.pop("_told_to_all", None)
        error = error.__cause__


def gather(own: Any) -> np.ndarray:
    """Return what each process has, (processes, ...)."""
    from jax.experimental import multihost_utils

    with told_by_words():
        return np.asarray(multihost_utils.process_allgather(own))


@contextlib.contextmanager
def told_by_words() -> Iterator[None]:
    """Say in words what the runtime raises where a process is gone, or is not here in time."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        words = re.sub(r"\s+", " ", str(error))
        raise HostLost(
            f"all processes of a run must live to its end; a computation of several failed here, mostly because "
            f"another process is gone, or did not make this call in time; its own output says why: {words[:300]}; "
            f"start the same call on all processes again: a run with a directory goes on from its newest checkpoint"
        ) from error
