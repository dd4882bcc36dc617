"""The processes that run one program together, each on devices of its own: what they agree on, and arrays of all.

All of them run the same Python, so whatever decides what is computed next must be equal on all of them; a clock, a
signal and an error are not. They are asked here, by one small array that goes round. A process by itself asks nobody.
"""

import contextlib
import dataclasses
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from jaxmlp.types import PyTree

ERROR_BYTES = 2000  # of an error's text, that the other processes are told


class HostLost(RuntimeError):
    """A computation of several processes failed: mostly because one of them is gone."""


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

    def either(self, *told: bool) -> tuple[bool, ...]:
        """Return for each question whether any process says yes."""
        return tuple(bool(column.any()) for column in _gather(np.asarray(told)).T) if self.many else told

    def of_first(self, value: float) -> float:
        """Return what the first process says."""
        return float(_gather(np.float32(value))[0]) if self.many else value

    def texts(self, text: str) -> list[str]:
        """Return what each process says."""
        if not self.many:
            return [text]
        own = np.frombuffer(text.encode(), np.uint8)
        lengths = _gather(np.int32(len(own)))
        padded = np.zeros(max(1, lengths.max()), np.uint8)
        padded[: len(own)] = own
        every = _gather(padded)
        return [bytes(row[:length]).decode() for row, length in zip(every, lengths, strict=True)]

    def from_first(self, value: Any) -> Any:
        """Return on all processes what the first has: anything that can be pickled."""
        if not self.many:
            return value
        from jax.experimental import multihost_utils  # which not every import pays for

        with _told_by_words():
            data = np.frombuffer(pickle.dumps(value) if self.leads else b"", np.uint8)
            size = int(_gather(np.int32(len(data)))[0])
            data = data if self.leads else np.zeros(size, np.uint8)
            return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(data)).tobytes())

    def alike(self, *kinds: type[Exception]) -> "Alike":
        """Raise on all processes what any of them raises inside: else the others would wait for it, for ever.

        What is computed inside by several processes must not be cut short by one of them.

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
        every = [dict(zip(told, text.split("\n"), strict=False)) for text in self.texts("\n".join(told.values()))]
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

    def __init__(self, hosts: Hosts, kinds: tuple[type[Exception], ...]):
        self._hosts, self._kinds = hosts, {kind.__name__: kind for kind in (ValueError, *kinds)}

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        hosts = self._hosts
        # Nobody is left to be told of a lost process, and who ends at once by Ctrl-C or exit is soon a lost one.
        if not hosts.many or isinstance(error, HostLost) or error is not None and not isinstance(error, Exception):
            return
        told = hosts.texts("" if error is None else f"{type(error).__name__}: {error}"[:ERROR_BYTES])
        for who, text in enumerate(told if error is None else []):
            if text:
                raised = self._kinds.get(text.split(":")[0], RuntimeError)
                raise raised(f"process {who} of {hosts.count} could not go on, and so none can: {text}")


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
        if isinstance(a, jax.Array) and not a.is_fully_addressable:
            return jax.device_put(a, sharding)
        known = np.asarray(a)
        known = known.astype(jax.dtypes.canonicalize_dtype(known.dtype), copy=False)
        return jax.make_array_from_callback(known.shape, sharding, lambda index: known[index])

    return jax.tree.map(one, tree)


def fetch(tree: PyTree) -> Any:
    """Return arrays whose values this process can read: as they are, or brought here from all processes, by all."""

    def one(a: Any) -> Any:
        if not isinstance(a, jax.Array) or a.is_fully_addressable:
            return a
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        from jax.experimental import multihost_utils

        with _told_by_words():
            return np.asarray(multihost_utils.process_allgather(a, tiled=True))

    return jax.tree.map(one, tree)


def _gather(own: Any) -> np.ndarray:
    """Return what each process has, (processes, ...)."""
    from jax.experimental import multihost_utils

    with _told_by_words():
        return np.asarray(multihost_utils.process_allgather(own))


@contextlib.contextmanager
def _told_by_words() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        told = re.sub(r"\s+", " ", str(error))
        raise HostLost(
            f"all processes of a run must live to its end; a computation of several failed here, mostly because "
            f"another process is gone, whose own output says why: {told[:300]}; start the same call on all processes "
            f"again: a run with a directory goes on from its newest checkpoint"
        ) from error
