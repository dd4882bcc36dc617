"""The host's side of a run: scikit-learn's order in chunks, tables that are read batch by batch, and who looks on."""

import contextlib
import dataclasses
import multiprocessing
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp.estimators._orders import epochs, in_batches, room_of, roomy
from jaxmlp.estimators._program import Member, Program, Run, Span, Tables, begin, close, outputs_of, train
from jaxmlp.layer import Layer
from jaxmlp.training import State

AT_ONCE = 1024  # epochs whose order is drawn before they are run, since a run may end long before its limit
CURVE = 2**16  # epochs that a curve has room for at first
LARGE = 2**26  # bytes of a table: training on one takes longer than to compile
ENTRIES = 2**22  # of an order that is sent at once, and of a sparse table that is made dense at once


class Table(NamedTuple):
    """The rows that a run is trained on; x is dense and scaled, or sparse with a function that makes rows of it so."""

    x: Any
    y: np.ndarray
    weight: np.ndarray | None
    validation: Any
    unit: Any = 1  # that the weights were divided by, to lie near one
    dense: Any = None  # a function of rows of a sparse x, or None


class Course(NamedTuple):
    """How long a run goes on, and in which order."""

    epochs: int
    batch_size: int
    shuffle: bool
    ended: np.ndarray  # (members,), by whoever looks on: which take no more epochs
    watched: bool = False  # whether somebody looks on after every epoch
    once: bool = False  # whether it is one epoch of many, each with data of its own


@contextlib.contextmanager
def computing(dtype: Any, device: Any) -> Iterator[None]:
    """Compute in this dtype, on this device: the kind of it by name, or one of JAX's; None leaves the default."""
    _share_cores()
    with contextlib.ExitStack() as stack:
        if np.dtype(dtype) == np.float64:
            stack.enter_context(jax.enable_x64(True))
        if device is not None:
            stack.enter_context(jax.default_device(_device_of(device)))
        yield


def _device_of(device: Any) -> Any:
    """Return the device of a name, "gpu" or "gpu:1", or itself.

    Raises:
      ValueError: for one that this machine has not.
    """
    if not isinstance(device, str):
        return device
    kind, _, number = device.partition(":")
    try:
        return jax.devices(kind)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError) as error:
        known = ", ".join(sorted({f"{d.platform}:{d.id}" for d in jax.devices()}))
        raise ValueError(f"device must be one that JAX has, {known}; got {device!r}") from error


def seeds_of(rngs: Sequence[Any]) -> np.ndarray:
    """Return a number of each generator, for the draws on the device: of its state, and where in that it stands."""
    states = [
        {name: np.asarray(a).tolist() for name, a in rng.get_state(legacy=False)["state"].items()} for rng in rngs
    ]
    return np.asarray([zlib.crc32(repr(state).encode()) for state in states])


def _share_cores() -> None:
    """Let JAX have as many threads as joblib says that this worker may have; heard where JAX has not started yet."""
    limit = os.environ.get("OMP_NUM_THREADS")
    if limit and multiprocessing.parent_process() is not None:
        os.environ.setdefault("NPROC", limit)  # what XLA asks before it counts the cores


def started(layers: Sequence[Layer], member: Member, program: Program, seeds: np.ndarray) -> Run:
    """Return the run of members at its first step; all leaves have the leading axis (members,)."""
    params = tuple(jax.tree.map(np.asarray, layer) for layer in layers)
    members, dtype = len(seeds), params[0].w.dtype
    zero: Any = np.zeros(members, dtype)
    whole: Any = np.zeros(members, np.int32)
    best = np.full(members, -np.inf if program.early_stopping else np.inf, dtype)
    keys: Any = np.stack([np.zeros_like(seeds), seeds], axis=1).astype(np.uint32)
    state = State(params, begin(params, member, program), whole, keys)
    return Run(state, params, member.rate, zero, zero, whole, best, whole, np.ones(members, bool), {})


def with_curves(run: Run, epochs: int, program: Program) -> Run:
    """Return the run with room for what each of so many epochs tells."""
    names = ["loss", *(["score", "validation_loss"] if program.score is not None else [])]
    members = len(run.rate)
    curves = {name: np.zeros((members, roomy(min(epochs, CURVE))), run.total.dtype) for name in names}
    return run._replace(curves=curves, epoch=np.zeros(members, np.int32), running=np.ones(members, bool))


def drive(run: Run, member: Member, table: Table, program: Program, course: Course, rngs: list[Any]) -> Iterator[Run]:
    """Train to the end of the course, or of all members by the rule of stopping; yield the run after each chunk.

    With one generator all members see one order, else each its own.
    """
    rows = len(table.y)
    steps = -(-rows // course.batch_size)
    streams = [epochs(rng, rows, course.shuffle) for rng in rngs]
    size = steps * course.batch_size * len(rngs)
    chunk = 1 if course.watched or table.dense is not None else max(1, min(course.epochs, AT_ONCE, ENTRIES // size))
    tables = None if table.dense is not None else _on_device(table)
    program = dataclasses.replace(program, apart=tables is None and table.validation is not None)
    done = 0
    while done < course.epochs:
        count = min(chunk, course.epochs - done)
        before, run = rngs[0].get_state(legacy=False), _with_room(run, done + count)
        orders = _orders(streams, count, room_of(course.batch_size, rows))
        if tables is None:
            run = _sparse_epoch(run, member, table, program, orders)
        else:
            room = np.full((roomy(chunk * steps), *orders.shape[1:]), -1, np.int32)
            room[: len(orders)] = orders
            run = train(run, member, tables, room, Span(np.int32(len(orders)), np.int32(0)), program)
        taken = int(np.asarray(run.epoch).max()) - done
        if len(rngs) == 1 and taken < count:  # the caller's generator stands where scikit-learn leaves it
            rngs[0].set_state(before)
            stream = epochs(rngs[0], rows, course.shuffle)
            for _ in range(taken):
                next(stream)
        done += count
        yield run
        if course.ended.any():
            run = run._replace(running=np.asarray(run.running) & ~course.ended)
        if not np.asarray(run.running).any():
            return


def _with_room(run: Run, count: int) -> Run:
    """Return the run with curves that so many epochs fit into; few who set a limit of millions ever reach it."""
    have = run.curves["loss"].shape[1]
    if count <= have:
        return run
    more = [(0, 0), (0, roomy(max(count, 8 * have)) - have)]
    return run._replace(curves={name: np.pad(np.asarray(curve), more) for name, curve in run.curves.items()})


def _orders(streams: list[Iterator[np.ndarray]], count: int, batch_size: int) -> np.ndarray:
    """Return the order of some epochs, (steps, batch), or (steps, members, batch) where each has its own."""
    each = [np.concatenate([in_batches(next(stream), batch_size) for _ in range(count)]) for stream in streams]
    return each[0] if len(each) == 1 else np.stack(each, axis=1)


def _on_device(table: Table) -> Tables:
    """Return the tables where they stay for the run, of a length that near ones share, if they are not large."""
    rows = len(table.y) if table.x.nbytes > LARGE else roomy(len(table.y))

    def padded(a: Any) -> Any:
        # `jnp.asarray` would compile a copy for each shape.
        return None if a is None else jax.device_put(a if len(a) == rows else _filled(a, rows))

    return Tables(padded(table.x), padded(table.y), padded(table.weight), table.unit, laid_out(table.validation))


def laid_out(validation: Any) -> Any:
    """Return validation data (x, y, weight) on the device, filled up with rows of weight zero, as near lengths share.

    These are copies of the first row, since a loss may be infinite of anything made up.
    """
    if validation is None:
        return None
    x, y, weight = validation
    size = roomy(len(y))
    weight = np.ones(len(y), x.dtype) if weight is None else weight
    return jax.tree.map(jax.device_put, (with_copies(x, size), with_copies(y, size), _filled(weight, size)))


def with_copies(a: np.ndarray, size: int) -> np.ndarray:
    """Return an array that is filled up with copies of its first row."""
    return np.concatenate([a, np.repeat(a[:1], size - len(a), axis=0)]) if len(a) < size else a


def _sparse_epoch(run: Run, member: Member, table: Table, program: Program, orders: np.ndarray) -> Run:
    """Take the steps of an epoch on a sparse table, of which a few batches are dense at a time."""
    most = max(1, ENTRIES // (orders[0].size * table.x.shape[1]))
    for first in range(0, len(orders), most):
        part = orders[first : first + most]
        rows = np.maximum(part, 0).ravel()
        local = np.full((min(most, len(orders)), *part.shape[1:]), -1, np.int32)
        local[: len(part)] = np.where(part >= 0, np.arange(part.size, dtype=np.int32).reshape(part.shape), -1)
        x = np.zeros((local.size, table.x.shape[1]), table.y.dtype if table.y.dtype.kind == "f" else run.total.dtype)
        x[: len(rows)] = table.dense(table.x[rows])
        room = [None if a is None else _filled(a[rows], local.size) for a in (table.y, table.weight)]
        span = Span(np.int32(len(part)), np.int32(first))
        run = train(run, member, Tables(x, room[0], room[1], table.unit), local, span, program)
    return close(run, member, *_validated(run, member, table, program), program) if program.apart else run


def _validated(run: Run, member: Member, table: Table, program: Program) -> Any:
    """Return the members' outputs on sparse validation data, of which some rows are dense at a time, and the rest."""
    x, *seen = table.validation
    most = min(x.shape[0], max(1, ENTRIES // x.shape[1]))
    parts = []
    for first in range(0, x.shape[0], most):
        part = table.dense(x[first : first + most])
        parts.append(outputs_of(run, member, _filled(part, most), program)[:, : len(part)])
    return jnp.concatenate(parts, axis=1), tuple(seen)


def _filled(a: np.ndarray, size: int) -> np.ndarray:
    """Return an array that is filled up with zeros."""
    room = np.zeros((size, *a.shape[1:]), a.dtype)
    room[: len(a)] = a
    return room
