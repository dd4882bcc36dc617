"""Members that train in blocks, from tables on the device; a seat that falls free is taken by the next in line."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlp._engine.devices import cores
from jaxmlp.estimators._drive import (
    ENTRIES,
    Course,
    Table,
    computing,
    laid_out,
    seeds_of,
    started,
    with_copies,
    with_curves,
)
from jaxmlp.estimators._orders import epochs, in_batches, room_of, roomy
from jaxmlp.estimators._program import Member, Program, Run, Span, Tables, train

COMPILING = threading.Lock()  # two threads that need one program must not both compile it
ROUND = 16  # epochs before those that have ended leave their seats
ALONE = 48  # epochs whose order one member is sent at once: it ends by itself, and then the rest were in vain


class Job(NamedTuple):
    """A fit that is ready to run: one net, or one for each member of an ensemble."""

    number: int  # of the task
    estimator: Any
    table: Table
    digest: bytes  # of the table
    course: Course
    rngs: list[Any]
    net: tuple[Any, Member, Program]
    dtype: Any

    @property
    def room(self) -> int:
        """For how many rows a batch has room."""
        return room_of(self.course.batch_size, len(self.table.y))


class Seat(NamedTuple):
    """A member at work."""

    job: Job
    member: int  # within the job
    order: Iterator[np.ndarray]
    first: int  # row of its table

    def start(self) -> tuple[Run, Member]:
        """Return the run before the first step."""
        layers, member, program = self.job.net
        layers, member = jax.tree.map(lambda a: a[self.member : self.member + 1], (layers, member))
        run = started(layers, member, program, seeds_of([self.job.rngs[self.member]]))
        return with_curves(run, self.job.course.epochs, program), member


def width_of(work: float, *, cpu: bool) -> int:
    """Return how many members a block has, for the multiplications of one member's step.

    Measured on two cores: where a step is small, what surrounds its products is shared by a block, at most a quarter of
    the time; where it is large, a block only leaves the caches.
    """
    if not cpu:
        return 64
    return 16 if work < 2**18 else 4 if work < 2**20 else 1


def _width(work: float, members: int, workers: int, *, cpu: bool) -> int:
    """Return a width of few, that searches of nearly one size may share a program, and of which each worker has one."""
    most = width_of(work, cpu=cpu)
    return next((width for width in (64, 16, 4) if width <= min(most, -(-members // workers))), 1)


def train_all(jobs: list[Job]) -> list[Run]:
    """Train the members of all jobs, and return the run of each, on the host."""
    first = jobs[0]
    device = first.estimator.device
    with computing(first.dtype, device):
        tables, places = _laid(jobs)
        cpu = next(iter(tables.x.devices())).platform == "cpu"
    line: deque[Seat] = deque()
    for job in jobs:
        rows = len(job.table.y)
        for i, rng in enumerate(job.rngs):
            line.append(Seat(job, i, epochs(rng, rows, job.course.shuffle), places[job.digest]))
    work = first.course.batch_size * sum(layer.w[0].size for layer in first.net[0])
    workers = cores() if cpu else 1
    width = _width(work, len(line), workers, cpu=cpu)
    done: dict[tuple[int, int], Run] = {}

    def run(_: int) -> None:
        with computing(first.dtype, device):
            _work(line, width, tables, done)

    if workers == 1 or len(line) <= width:
        run(0)
    else:
        with ThreadPoolExecutor(workers) as pool:
            try:
                list(pool.map(run, range(workers)))
            finally:
                line.clear()  # where one has failed, or the user has had enough, the others find no more
    whole = [[done[job.number, i] for i in range(len(job.rngs))] for job in jobs]
    return [jax.tree.map(lambda *a: np.stack(a), *runs) for runs in whole]


def _laid(jobs: list[Job]) -> tuple[Tables, dict[bytes, int]]:
    """Return all tables as one on the device, and the row at which each begins."""
    each = {job.digest: job.table for job in jobs}
    places, rows = {}, 0
    for name, table in each.items():
        places[name] = rows
        rows += len(table.y)
    size = roomy(rows)

    def joined(parts: list[Any]) -> Any:
        if parts[0] is None:
            return None
        room = np.zeros((size, *parts[0].shape[1:]), parts[0].dtype)
        np.concatenate(parts, out=room[:rows])
        return jax.device_put(room)

    some = next(iter(each.values()))
    x, y, weight = (joined([getattr(table, name) for table in each.values()]) for name in ("x", "y", "weight"))
    return Tables(x, y, weight, some.unit, laid_out(some.validation)), places


def _work(line: deque[Seat], width: int, tables: Tables, done: dict[tuple[int, int], Run]) -> None:
    """Train a block, round by round, until nobody stands in line."""
    seats: list[Seat] = []
    block: Any = None
    fresh = True
    while True:
        while len(seats) < width and (seat := _next(line)) is not None:
            seats.append(seat)
            start = seat.start()
            block = start if block is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), block, start)
        if not seats:
            return
        course, program = seats[0].job.course, seats[0].job.net[2]
        steps = int(block[1].steps[0])
        room = seats[0].job.room
        most = min(course.epochs, max(1, ENTRIES // (steps * width * room)))
        most = min(most, ROUND if width > 1 else ALONE)
        count = min(most, course.epochs - int(block[0].epoch.max()))
        run, member = jax.tree.map(lambda a: with_copies(a, width), block)
        run = run._replace(running=np.arange(width) < len(seats))
        order = _orders(seats, (roomy(most * steps), width, room), count)
        span = Span(np.int32(count * steps), np.int32(0))
        if fresh:
            with COMPILING:
                train(run, member, tables, order, span._replace(count=np.int32(0)), program)
            fresh = False
        run = train(run, member, tables, order, span, program)
        run = jax.tree.map(lambda a, seats=seats: np.array(a[: len(seats)]), jax.device_get(run))
        goes = run.running & (run.epoch < course.epochs)
        for i in np.flatnonzero(~goes):
            end = jax.tree.map(lambda a, i=i: a[i], run)
            done[seats[i].job.number, seats[i].member] = end._replace(state=end.state._replace(params=(), opt_state=()))
        seats = [seat for seat, stays in zip(seats, goes, strict=True) if stays]
        block = jax.tree.map(lambda a, goes=goes: a[: len(goes)][goes], (run, member)) if seats else None


def _next(line: deque[Seat]) -> Seat | None:
    try:
        return line.popleft()
    except IndexError:
        return None


def _orders(seats: list[Seat], shape: tuple[int, ...], count: int) -> np.ndarray:
    """Return the rows of so many epochs, (steps, members, batch), in the order of each; -1 is padding."""
    room = np.full(shape, -1, np.int32)
    for i, seat in enumerate(seats):
        own = np.concatenate([in_batches(next(seat.order), shape[2]) for _ in range(count)])
        room[: len(own), i] = np.where(own >= 0, own + seat.first, -1)
    room[:, len(seats) :] = room[:, :1]
    return room
