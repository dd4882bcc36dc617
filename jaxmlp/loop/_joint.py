"""Arrays of a checkpoint that lie on several processes: written and read by all of them, each the parts that it has.

All call these functions together, with the same arrays, and see the same disk.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from jaxmlp import _check, _disk
from jaxmlp._engine.hosts import Hosts
from jaxmlp.loop._folder import Stored
from jaxmlp.loop._ours import ARRAYS

SEEN = 10.0  # seconds after which a file that another machine has made is there, or the disk is another


def is_far(a: Any) -> bool:
    """Tell whether no process alone has an array."""
    return isinstance(a, jax.Array) and not a.is_fully_addressable


def write(folder: Path, arrays: Mapping[str, Any]) -> None:
    """Write the arrays into a folder that is there, and read those back that lie on several processes.

    Raises:
      OSError: where it cannot be written.
      ValueError: where what this process reads is not what it has written.
    """
    ocp = _check.extra("orbax.checkpoint", "checkpoint")
    _checkpointer(ocp.StandardCheckpointHandler).save(folder / ARRAYS, args=ocp.args.StandardSave(dict(arrays)))
    far = {name: a for name, a in arrays.items() if is_far(a)}
    stored = {name: Stored(folder, name, a.shape, a.dtype) for name, a in far.items()}
    back = read(stored, {name: a.sharding for name, a in far.items()})
    lost = [name for name, a in far.items() if not _same(a, back[name])]
    if lost:
        raise ValueError(f"{lost[0]} and {len(lost) - 1} more are not read as they were written")


def read(stored: Mapping[str, Stored], lie: Mapping[str, Sharding]) -> dict[str, jax.Array]:
    """Return arrays of one checkpoint where they are to lie, of which each process reads what its devices have.

    Raises:
      ValueError: whatever Orbax raises for what it cannot read.
    """
    if not stored:
        return {}
    ocp = _check.extra("orbax.checkpoint", "checkpoint")
    folder = next(iter(stored.values())).folder
    forms = {name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=lie[name]) for name, a in stored.items()}
    args = ocp.checkpoint_utils.construct_restore_args(forms)
    return _checkpointer(ocp.PyTreeCheckpointHandler).restore(
        folder / ARRAYS, args=ocp.args.PyTreeRestore(item=forms, restore_args=args, partial_restore=True)
    )


def _checkpointer(handler: Any) -> Any:
    """Return what writes and reads arrays of all processes.

    All are named: Orbax then waits for them by the runtime's own barriers, which an error of one lets run out, and not
    by computations on the devices, of which another one of ours would be taken for the answer.
    """
    ocp = _check.extra("orbax.checkpoint", "checkpoint")
    every = ocp.options.MultiprocessingOptions(active_processes=set(range(jax.process_count())))
    return ocp.Checkpointer(handler(multiprocessing_options=every), multiprocessing_options=every)


def check_seen(directory: Path, hosts: Hosts) -> None:
    """Raise on all processes unless all of them see the directory of the first.

    Raises:
      ValueError: which names a process that does not.
    """
    with hosts.alike():
        name = _disk.new_name()
        if hosts.leads:
            _disk.write_file(directory / name, b"")
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
                    f"wrote there; pass a path of a disk that all machines share"
                )
    finally:
        if hosts.leads:
            path.unlink(missing_ok=True)


def _same(one: jax.Array, other: jax.Array) -> bool:
    """Tell whether the parts of two arrays that this process has are equal."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    there = {shard.device: shard.data for shard in other.addressable_shards}
    pairs = ((np.asarray(shard.data), np.asarray(there[shard.device])) for shard in one.addressable_shards)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)
