"""The processes that run one program together, each on devices of its own: what they agree on, and arrays of all.

All of them run the same Python, so whatever decides what is computed next must be equal on all of them; a clock, a
signal and an error are not. They are asked here, by one small array that goes round. A process by itself asks nobody.
"""

import dataclasses
import functools
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from jaxmlp._engine.exchange import (
    ARRAYS,
    DONE,
    EITHER,
    FIRST_NUMBER,
    FROM_FIRST,
    RAISED,
    TEXTS,
    HostLost,
    exchange,
    forget,
    is_told,
    told,
    told_by_words,
)
from jaxmlp._known import is_apart
from jaxmlp.types import PyTree

Function = TypeVar("Function", bound=Callable[..., Any])
ERROR_BYTES = 2000  # of an error's text, that the other processes are told
PIECE = 2**28  # bytes of what is sent at once


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes of a run; `ALONE` is one by itself."""

    count: int
    index: int

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.index == 0

    def either(self, *asked: bool) -> tuple[bool, ...]:
        """Return for each question whether any process says yes."""
        if not self.many:
            return asked
        return tuple(any(column) for column in zip(*exchange(EITHER, bytes(asked), about=str(len(asked))), strict=True))

    def of_first(self, value: float) -> float:
        """Return what the first process says."""
        return float(exchange(FIRST_NUMBER, repr(float(value)).encode())[0]) if self.many else value

    def texts(self, text: str, about: str) -> list[str]:
        """Return what each process says about something."""
        return [said.decode() for said in exchange(TEXTS, text.encode(), about=about)] if self.many else [text]

    def from_first(self, value: Any) -> Any:
        """Return on all processes what the first has: anything that can be pickled."""
        if not self.many:
            return value
        from jax.experimental import multihost_utils  # which not every import pays for

        data = pickle.dumps(value) if self.leads else b""
        size = int(exchange(FROM_FIRST, str(len(data)).encode())[0])
        found = np.frombuffer(data, np.uint8) if self.leads else np.zeros(size, np.uint8)
        with told_by_words():
            pieces = [multihost_utils.broadcast_one_to_all(found[i : i + PIECE]) for i in range(0, size, PIECE)]
        return pickle.loads(b"".join(np.asarray(piece).tobytes() for piece in pieces))

    def ready(self, tree: PyTree = None) -> None:
        """Wait until all are about to bring arrays to each other; raise where one has raised instead."""
        if self.many:
            jax.block_until_ready(tree)  # raises what went wrong on this process's devices, before others wait for it
            exchange(ARRAYS, b"")

    def alike(self, *kinds: type[Exception]) -> "Alike":
        """Raise on all processes what any of them raises inside: else the others would wait for it, for ever.

        They learn of it at the end of the block, or where they next ask each other.

        Raises:
          RuntimeError: where another process has raised, with its words; a ValueError, or one of the `kinds`, where it
            was that.
        """
        return Alike(self, kinds)

    def check_same(self, told: Mapping[str, str], fix: str) -> None:
        """Raise on all processes unless they say the same of each thing, by digests of it.

        Raises:
          ValueError: which names the things, and the processes that differ from the first.
        """
        if not self.many:
            return
        every = [
            dict(zip(told, text.split("\n"), strict=False))
            for text in self.texts("\n".join(told.values()), " ".join(told))
        ]
        lines = []
        for what in told:
            if others := [who for who, mine in enumerate(every) if mine.get(what) != every[0].get(what)]:
                lines.append(f"{what}: process {', '.join(map(str, others))} of {self.count} differs from process 0")
        if lines:
            raise ValueError(
                "all processes must train the same, each its share of it; got others:\n  "
                + "\n  ".join(lines)
                + f"\n{fix}"
            )


class Alike:
    """What `Hosts.alike` enters."""

    _entered = 0  # how many of them this process is in, one in another

    def __init__(self, hosts: Hosts, kinds: tuple[type[Exception], ...]):
        self._hosts, self._kinds = hosts, {kind.__name__: kind for kind in kinds}

    def __enter__(self) -> None:
        Alike._entered += self._hosts.many

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._hosts.many:
            return
        Alike._entered -= 1
        try:
            self._tell(error)
        except Exception as other:
            error = other
            raise
        finally:
            if not Alike._entered:  # who raises the same error again, in another call, has to tell it again
                forget(error)

    def _tell(self, error: BaseException | None) -> None:
        if error is None:
            exchange(DONE, b"", self._kinds)
        elif not isinstance(error, HostLost) and not is_told(error):  # nobody is left to be told of a lost process
            names = "<".join(each.__name__ for each in type(error).__mro__[:-2])
            said = exchange(RAISED, f"{names}: {error}".encode(errors="replace")[:ERROR_BYTES])
            for who, other in enumerate(said):  # an error here may come of one there
                if who != self._hosts.index and other:
                    error.add_note(f"process {who} of {len(said)} raised {other.decode(errors='replace')}")
            told(error)


def together(function: Function) -> Function:
    """Decorate what the processes of a run call, each with a plan or devices: what one of them raises, all raise."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        devices = getattr(options.get("plan"), "devices", options.get("devices"))
        listed = isinstance(devices, list | tuple) and all(isinstance(device, jax.Device) for device in devices)
        with hosts_of_call(devices if listed and devices else None).alike():
            return function(*args, **options)

    return call  # type: ignore[return-value]


ALONE = Hosts(1, 0)


def hosts_of_call(devices: Sequence[Any] | None) -> Hosts:
    """Return the processes of a call, of the devices of its plan or, without one, of all that there are."""
    return everyone() if devices is None else hosts_of(devices)


def everyone() -> Hosts:
    """Return all processes of JAX's distributed runtime, or this one by itself."""
    return Hosts(jax.process_count(), jax.process_index())


def hosts_of(devices: Sequence[Any]) -> Hosts:
    """Return the processes that these devices belong to: all of them, or this one by itself.

    Raises:
      ValueError: for devices of others alone, or of some processes and not of all.
    """
    owners = {device.process_index for device in devices}
    if owners == {jax.process_index()}:
        return ALONE
    if len(owners) == jax.process_count():
        return everyone()
    raise ValueError(
        f"devices must be of this process alone or of all {jax.process_count()}, each of which takes part; got those "
        f"of {sorted(owners)}; pass jax.devices(), or jax.local_devices()"
    )


def spread(tree: PyTree, sharding: Sharding) -> Any:
    """Return arrays that all processes hold alike as arrays on the devices of all."""

    def one(a: Any) -> Any:
        if jnp.issubdtype(getattr(a, "dtype", np.float32), jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        if is_apart(a):
            return jax.device_put(a, sharding)
        known = np.asarray(a)
        known = known.astype(jax.dtypes.canonicalize_dtype(known.dtype), copy=False)
        return jax.make_array_from_callback(known.shape, sharding, lambda index: known[index])

    return jax.tree.map(one, tree)


def fetch(tree: PyTree, *, ready: bool = False) -> Any:
    """Return arrays that this process can read, brought here by all processes, asked first unless known to be ready."""
    afar = [a for a in jax.tree.leaves(tree) if is_apart(a)]
    if afar and not ready:
        everyone().ready(afar)

    def one(a: Any) -> Any:
        if not is_apart(a):
            return a
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        from jax.experimental import multihost_utils

        with told_by_words():
            pieces = -(-a.nbytes // PIECE)
            if pieces > 1 and isinstance(a.sharding, NamedSharding) and a.sharding.spec == P("members"):
                return _in_pieces(a, a.sharding, pieces)
            return np.asarray(multihost_utils.process_allgather(a, tiled=True))

    return jax.tree.map(one, tree)


def _in_pieces(a: jax.Array, lies: NamedSharding, pieces: int) -> np.ndarray:
    """Return an array whose first axis is shared out: the whole of it may be more than a device holds."""
    devices, whole = lies.mesh.size, NamedSharding(lies.mesh, P())
    found = np.empty((devices, len(a) // devices, *a.shape[1:]), a.dtype)
    size = -(-found.shape[1] // pieces)
    for start in range(0, found.shape[1], size):
        start = min(start, found.shape[1] - size)
        piece = _piece(a, np.int32(start), size=size, to=whole)
        found[:, start : start + size] = np.asarray(piece.addressable_data(0))
    return found.reshape(a.shape)


@functools.partial(jax.jit, static_argnames=("size", "to"))
def _piece(a: jax.Array, start: Any, *, size: int, to: NamedSharding) -> jax.Array:
    """Return so many entries of each device's share, (devices, size, ...), on all devices."""
    shares = a.reshape(to.mesh.size, -1, *a.shape[1:])
    return jax.lax.with_sharding_constraint(jax.lax.dynamic_slice_in_dim(shares, start, size, axis=1), to)
