"""Many fits as one population: which of them share a program, and what each estimator is told at the end."""

import hashlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.utils import check_random_state

from jaxmlp.estimators._base import BaseMLP
from jaxmlp.estimators._blocks import Job, train_all
from jaxmlp.estimators._drive import Table
from jaxmlp.estimators._history import Before
from jaxmlp.estimators._program import Run

GIVEN = {"sample_weight", "X_val", "y_val"}  # what a fit may be given here
TABLE_BYTES = 2**30  # of the tables that lie on the device at once


class Task(NamedTuple):
    """An estimator to fit, and what it is given."""

    estimator: Any
    X: Any
    y: Any
    given: dict[str, Any]


class Outcome(NamedTuple):
    """How a fit ended: with an error, or none, and after how many seconds, its share of those of all."""

    error: Exception | None
    seconds: float


def fits_together(task: Task) -> bool:
    """Return whether an estimator is one of ours, as it is, that takes steps and that nobody watches."""
    estimator = task.estimator
    ours = isinstance(estimator, BaseMLP) and type(estimator).__module__.startswith("jaxmlp.")
    if not ours or hasattr(task.X, "tocsr") or not set(task.given) <= GIVEN:
        return False
    watched = bool(estimator.verbose) or bool(getattr(estimator, "_skl_callbacks", None))
    return bool(estimator._steps()) and not watched


def fit_together(tasks: Sequence[Task], *, strict: bool) -> list[Outcome]:
    """Fit all estimators, each to what its own `fit` would give; an error is raised where `strict`."""
    found: list[Outcome] = []
    groups: dict[Any, list[Job]] = {}
    tables: dict[bytes, Table] = {}
    for number, task in enumerate(tasks):
        begun = time.perf_counter()
        job, error = None, None
        try:
            job = _job(number, task, tables)
        except Exception as problem:
            if strict:
                raise
            error = problem
        if job is not None:
            groups.setdefault(_kind(job), []).append(job)
        found.append(Outcome(error, time.perf_counter() - begun))
    for jobs in groups.values():
        for bundle in _bundles(jobs):
            begun = time.perf_counter()
            runs = train_all(bundle)
            took = time.perf_counter() - begun
            whole = sum(int(run.epoch.max()) for run in runs)
            for job, run in zip(bundle, runs, strict=True):
                error = _finish(job, run)
                if error is not None and strict:
                    raise error
                share = took * int(run.epoch.max()) / whole
                found[job.number] = Outcome(error, found[job.number].seconds + share)
    return found


def _job(number: int, task: Task, tables: dict[bytes, Table]) -> Job:
    """Let an estimator check and draw; equal tables are held once."""
    estimator = task.estimator
    estimator._validate_params()
    ready = estimator._prepare(task.X, task.y, task.given)
    course, table = estimator._course(ready), estimator._table(ready)
    digest = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves((table.x, table.y, table.weight, table.validation, table.unit)):
        digest.update(repr((leaf.shape, leaf.dtype.str)).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    name = digest.digest()
    net = estimator._start(table, course)
    own = [_apart(rng) for rng in ready.rngs]
    return Job(number, estimator, tables.setdefault(name, table), name, course, own, net, ready.dtype)


def _apart(rng: Any) -> Any:
    """Return a generator that no other fit draws from, in place of NumPy's global one."""
    return np.random.RandomState(rng.randint(2**31 - 1)) if rng is check_random_state(None) else rng


def _kind(job: Job) -> Any:
    """Return what jobs of one program share."""
    layers, member, program = job.net
    form = jax.tree.structure((layers, member.numbers)), tuple(a.shape[1:] for a in jax.tree.leaves((layers, member)))
    table = job.table
    data = table.x.shape[1:], table.y.shape[1:], table.y.dtype.str, table.weight is None
    apart = (job.digest,) if table.weight is not None or table.validation is not None else ()
    where = str(job.estimator.device), job.dtype
    course = job.course.epochs, job.room, job.course.shuffle
    return form, program, course, data, apart, where, int(member.steps[0])


def _bundles(jobs: list[Job]) -> list[list[Job]]:
    """Return the jobs in parts of which the tables lie on the device at once."""
    parts: list[list[Job]] = [[]]
    seen: dict[bytes, int] = {}
    for job in sorted(jobs, key=lambda job: job.digest):
        seen[job.digest] = job.table.x.nbytes
        if parts[-1] and sum(seen.values()) > TABLE_BYTES:
            seen = {job.digest: job.table.x.nbytes}
            parts.append([])
        parts[-1].append(job)
    return parts


def _finish(job: Job, run: Run) -> Exception | None:
    """Let an estimator hold what its run has learnt; return what is wrong with it."""
    estimator = job.estimator
    try:
        estimator._record(run, job.table, job.course, Before.of(estimator))
        if run.running.any():
            estimator._warn_of_the_limit()  # an error where the user has made warnings so
        estimator._check_finite()
    except Exception as error:
        return error
    return None
