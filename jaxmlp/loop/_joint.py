"""Arrays of a checkpoint that lie on several processes: written and read by all of them, each the parts that it has.

All call these functions together, with the same arrays, and see the same disk.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from jaxmlp import _check, _disk
from jaxmlp._engine.hosts import Hosts
from jaxmlp._known import is_apart
from jaxmlp.loop import _trouble
from jaxmlp.loop._folder import Stored, plain
from jaxmlp.loop._ours import ARRAYS, SUMS

SEEN = 10.0  # seconds after which a file that another machine has made is there, or the disk is another
PIECE = 2**28  # bytes that are read back at a time: a second copy of a network may not fit where the first lies


def write(folder: Path, arrays: Mapping[str, Any]) -> None:
    """Write the arrays into a folder that is there, and read those back that lie on several processes.

    Raises:
      OSError: where it cannot be written, here or by another process.
      ValueError: where what this process reads is not what it has written.
    """
    ocp = _check.extra("orbax.checkpoint", "checkpoint")
    with plain(folder) as path, _waiting():
        _checkpointer(ocp.StandardCheckpointHandler).save(path / ARRAYS, args=ocp.args.StandardSave(dict(arrays)))
    for part in _pieces({name: a for name, a in arrays.items() if is_apart(a)}):
        stored = {name: Stored(folder.name, name, a.shape, a.dtype) for name, a in part.items()}
        back = read(folder.parent, stored, {name: a.sharding for name, a in part.items()})
        if lost := [name for name, a in part.items() if not _same(a, back[name])]:
            raise ValueError(f"{lost[0]} and {len(lost) - 1} more are not read as they were written")


def read(directory: Path, stored: Mapping[str, Stored], lie: Mapping[str, Sharding]) -> dict[str, jax.Array]:
    """Return arrays of one checkpoint where they are to lie, of which each process reads what its devices have.

    Raises whatever Orbax raises for what it cannot read.
    """
    if not stored:
        return {}
    ocp = _check.extra("orbax.checkpoint", "checkpoint")
    forms = {name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=lie[name]) for name, a in stored.items()}
    kinds = ocp.checkpoint_utils.construct_restore_args(forms)
    args = ocp.args.PyTreeRestore(item=forms, restore_args=kinds, partial_restore=True)
    with plain(directory / next(iter(stored.values())).checkpoint) as path, _waiting():
        return _checkpointer(ocp.PyTreeCheckpointHandler).restore(path / ARRAYS, args=args)


def check_seen(directory: Path, hosts: Hosts, checkpoint: str | None = None) -> None:
    """Raise on all processes unless all of them see the directory of the first: a checkpoint in it, or a new file.

    Raises:
      ValueError: which names a process that does not, or where the directory cannot be written.
    """
    with hosts.alike():
        name = _disk.new_name() if checkpoint is None else f"{checkpoint}/{SUMS}"
        if hosts.leads and checkpoint is None:
            try:
                _disk.write_file(directory / name, b"")
            except OSError as error:
                raise ValueError(_trouble.cannot_write(directory, error)) from error
    path = directory / hosts.from_first(name)
    try:
        with hosts.alike():
            until = time.monotonic() + SEEN
            while not path.is_file() and time.monotonic() < until:
                time.sleep(0.1)
            if not path.is_file():
                raise ValueError(
                    f"directory must be one that all processes see, for a network that lies on several of them, each "
                    f"of which writes its own part; process {hosts.index} does not find in {directory} what process 0 "
                    f"has there; pass a path of a disk that all machines share"
                )
    finally:
        if hosts.leads and checkpoint is None:
            path.unlink(missing_ok=True)


def _checkpointer(handler: Any) -> Any:
    """Return what writes and reads arrays of all processes.

    All are named: Orbax then waits for them by the runtime's own barriers, which an error of one lets run out, and not
    by computations on the devices, of which another one of ours would be taken for the answer.
    """
    ocp = _check.extra("orbax.checkpoint", "checkpoint")
    every = ocp.options.MultiprocessingOptions(active_processes=set(range(jax.process_count())))
    return ocp.Checkpointer(handler(multiprocessing_options=every), multiprocessing_options=every)


@contextmanager
def _waiting() -> Iterator[None]:
    """Say in words that Orbax has waited for another process, five minutes long, which is there and has not come."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        raise TimeoutError("another process has not written or read its part; its own error says why") from error


def _pieces(arrays: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the arrays some at a time, of about so many bytes."""
    part: dict[str, Any] = {}
    for name, a in arrays.items():
        if part and sum(each.nbytes for each in part.values()) + a.nbytes > PIECE:
            yield part
            part = {}
        part[name] = a
    if part:
        yield part


def _same(one: jax.Array, other: jax.Array) -> bool:
    """Tell whether the parts of two arrays that this process has are equal."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    there = {shard.device: shard.data for shard in other.addressable_shards}
    pairs = ((np.asarray(shard.data), np.asarray(there[shard.device])) for shard in one.addressable_shards)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)
