"""A run of one recipe: opened, checked, planned, and trained in as many waves as its plan has."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from jaxmlp import _check
from jaxmlp._engine.devices import by_itself
from jaxmlp._engine.driver import Epochs, Source
from jaxmlp._engine.entry import enter
from jaxmlp._engine.executor import Executor, Job
from jaxmlp._engine.hosts import HostLost, hosts_of_call
from jaxmlp._engine.inputs import Each, Request, Shared, first_numbers, plain
from jaxmlp._engine.parts import in_waves, plan_for
from jaxmlp._engine.plan import Plan, plan
from jaxmlp._engine.portion import as_part, first_key, portion_of
from jaxmlp._engine.stops import Stops
from jaxmlp._engine.wide import executor_of
from jaxmlp._factories import takes_run_steps
from jaxmlp.loop._agreement import check_hosts, written
from jaxmlp.loop._program import of_job
from jaxmlp.loop._resuming import going_on
from jaxmlp.loop._saved import SavedRun, Where
from jaxmlp.loop._saving import RunDirectory
from jaxmlp.loop._session import RunOptions, Saving, Session
from jaxmlp.loop._single import back, check_directory, of_one, on_mesh, plan_of_one
from jaxmlp.loop._steps import Put, Steps, checker, shared
from jaxmlp.loop.streams import Batch, Stream, accepting, is_stream, open_stream
from jaxmlp.training import State
from jaxmlp.types import History, Json

DIRECTORY = "pass directory= and accept= on each process; what each writes of it is its own affair"


class Feed(NamedTuple):
    """Where batches come from that are not in memory, if they are not, what checks each, and what puts it there."""

    stream: Stream | None
    check: Callable[[Batch], None]
    put: Put | None = None


def below(options: RunOptions, name: str) -> RunOptions:
    """Return the options of a part of a run, which is saved in a directory of its own."""
    return options if options.directory is None else options._replace(directory=Path(options.directory) / name)


def run_saved(request: Request, stops: Stops, options: RunOptions) -> tuple[State, History]:
    """Train from the start, or from where the directory has the run, if there is a directory."""
    hosts = hosts_of_call(options.plan and options.plan.devices)
    options = options._replace(hosts=hosts)
    saved = "a directory" if options.directory is not None else "none"
    hosts.check_same({"directory": saved, "accept": " ".join(sorted(options.accept))}, DIRECTORY)
    if options.directory is None:
        return run(request, stops, options, None)
    with RunDirectory(options.directory, options.keep, options.hosts) as directory:
        return run(request, stops, options, Saving(directory, directory.recover()))


@by_itself
def run(request: Request, stops: Stops, options: RunOptions, saving: Saving | None) -> tuple[State, History]:
    """Check everything at the door, choose the plan, and train; one network is a population of one."""
    if request.single:
        _check.typed_key(request.key)
    if not request.single:
        request = request._replace(inputs=request.inputs.shared_whole())
    request, placement, outer = on_mesh(request, options.lie, saving and saving.saved)
    request = request.entered(streamed=is_stream(request.inputs.data))
    check_directory(placement, saving and saving.saved, options.directory, options.hosts)
    every = None if options.every is None else _check.positive_int("every", options.every)
    options = options._replace(every=every)
    with options.hosts.alike():
        stream, entered = _opened(request, options)
        with told_by_words(options.rebuilt):
            members, tables = enter(entered, None if stream is None else _stream_steps(request, stream))
            job = Job(members, tables, request.recipe, stops)
    with told_by_words(options.rebuilt):
        plan = plan_of_one(placement) if request.single else _plan(entered, job, options, saving)
        if stream is not None:
            job = job._replace(tables=tables._replace(data=None), batch=stream.example)
        if options.directory is not None or options.hosts.many:  # one for all waves
            job = job._replace(program=of_job(job))
    feed = Feed(stream, checker(entered, members, tables), shared(stream, placement))

    def train_wave(job: Job, plan: Plan, number: int) -> Executor:
        if len(job.members.key) == len(members.key):
            return _session(request, job, plan, options, feed, saving)
        here = below(options, f"wave-{number:03d}")._replace(
            first=options.first and number == 0, more=options.more or (number + 1) * plan.wave < len(members.key)
        )
        who = slice(number * plan.wave, number * plan.wave + len(job.members.key))
        numbers = as_part(job.members.numbers.by_name, portion_of(request.hyperparams))
        mine = Request(job.members.key, request.inputs.of(who), request.recipe, numbers)
        if here.directory is None:
            return _session(mine, job, plan, here, feed, None)
        with RunDirectory(here.directory, here.keep, here.hosts) as own:
            return _session(mine, job, plan, here, feed, Saving(own, own.recover()))

    if stream is not None and plan.wave < plan.members:
        raise ValueError(
            f"a stream must be read by all {plan.members} members at once; the plan's memory holds {plan.wave}; pass "
            f"a plan with more memory, or train them in several calls"
        )
    states, history = in_waves(job, plan, train_wave)
    return back(*of_one(states, history), outer) if request.single else (states, history)


def _opened(request: Request, options: RunOptions) -> tuple[Stream | None, Request]:
    """Return the stream behind the data, if it is one, and the request with an example of its batches for the data."""
    key, inputs, recipe, _ = request
    if not is_stream(inputs.data):
        if options.steps is not None:
            raise ValueError(
                f"steps must be None for data in memory, whose epochs have all examples; got {options.steps}"
            )
        return None, request
    if (order_key := options.order_key) is None:
        order_key = key if request.single else first_key(key, request.hyperparams)
    stream = open_stream(inputs.data, order_key, recipe.batch_size, options.steps, options.earlier)
    for name in ("weights", "rows", "validation_rows"):
        if getattr(inputs, name) is not None:
            raise ValueError(f"{name} must be None for a stream: it names examples of a table in memory")
    if isinstance(inputs.validation, Each):
        raise ValueError("validation must be shared by all members for a stream; got one for each")
    if recipe.metrics and inputs.validation is None:
        raise ValueError("metrics must have validation data for a stream, which is not read twice; pass validation=")
    validation = None if inputs.validation is None else Shared(plain(inputs.validation))
    inputs = inputs._replace(data=Shared(stream.example), validation=validation)
    return stream, request._replace(inputs=inputs, recipe=dataclasses.replace(recipe, batch_size=None))


def _stream_steps(request: Request, stream: Stream) -> int | None:
    """Return the steps of a run on a stream, where the optimizer asks for them.

    Raises:
      ValueError: for a stream that does not tell its length.
    """
    recipe, data = request.recipe, request.inputs.data
    if not takes_run_steps(recipe.optimizer):
        return None
    length = len(data) if stream.steps is None and hasattr(data, "__len__") else stream.steps
    if not length:
        raise ValueError(
            f"steps must be given for a stream that does not tell its length: {_check.name_of(recipe.optimizer)} takes "
            f"the steps of the run; pass steps= to loop.train"
        )
    return recipe.epochs * length


def _plan(request: Request, job: Job, options: RunOptions, saving: Saving | None) -> Plan:
    """Return how members run: as the caller says, as the saved run did, or as is best."""
    data, chosen, members, tables = plain(request.inputs.data), options.plan, job.members, job.tables
    waves = None if saving is None or saving.saved is not None else _first_wave(saving.directory, options)
    saved = waves if saving is None or waves is not None else saving.saved
    if chosen is None and saved is not None:
        wanted = saved.manifest.plan_options()
        numbers = first_numbers(members, tables)
        chosen = plan(len(members.key), data, request.recipe, numbers, **wanted) if wanted else None
    chosen = plan_for(job, data, chosen)
    if waves is None:
        return chosen
    wave = len(waves.start().key)
    if options.plan is not None and chosen.wave != wave:
        raise ValueError(
            f"plan must have waves of {wave} members, as the run in {options.directory} began; got {chosen.wave}; pass "
            f"no plan, or another directory"
        )
    return dataclasses.replace(chosen, wave=wave)  # also where more or less memory is there than when it began


def _first_wave(directory: RunDirectory, options: RunOptions) -> SavedRun | None:
    """Return what was saved of the first wave of a run in waves, if there is one."""
    first = directory.path / "wave-000"
    if not options.hosts.from_first(first.is_dir()):
        return None
    with RunDirectory(first, hosts=options.hosts) as own:
        return own.recover()


def _session(
    request: Request, job: Job, plan: Plan, options: RunOptions, feed: Feed, saving: Saving | None
) -> Executor:
    """Train the members of a job, from their start or from where they were saved."""
    with told_by_words(options.rebuilt):
        executor, place = _placed(request, job, plan, options, feed, saving)
    epochs = job.recipe.epochs
    if feed.stream is None:
        source: Source = Epochs(
            epochs,
            options.every,
            done=int(place.get("epoch", 0)),
            cuts=job.stops.rungs(epochs),
            examples=_examples(job),
        )
    else:
        source = Steps(epochs, options.every, feed.stream, place, feed.check, feed.put)
    try:
        Session(executor, source, options, saving, request.single).run()
    finally:
        source.close()
    return executor


@contextlib.contextmanager
def told_by_words(rebuilt: bool) -> Iterator[None]:
    """Where the recipe comes from a checkpoint, whatever its parts raise says that they do not fit each other."""
    try:
        yield
    except (ValueError, MemoryError, OSError, HostLost):  # said already, or of the machine
        raise
    except Exception as error:
        if not rebuilt:
            raise
        raise ValueError(
            f"recipe of the checkpoint must be one that trains on this data; it raised {type(error).__name__}: "
            f"{str(error)[:300]}; pass recipe="
        ) from error


def _placed(
    request: Request, job: Job, plan: Plan, options: RunOptions, feed: Feed, saving: Saving | None
) -> tuple[Executor, Json]:
    """Return the members in their places, before their first epoch or as they were saved, and where the run stands."""
    restore, place = None, {}
    if saving is not None or options.hosts.many:
        told = None if feed.stream is None else feed.stream.fingerprint
        with options.hosts.alike():
            manifest, start = written(request, job, plan, steps=options.steps, told=told)
        check_hosts(options.hosts, manifest, plan, every=options.every)
        if saving is not None:
            saved = saving.saved
            if saved is not None and request.inputs.params is None:  # it has begun, with those that it was given
                begun = {"params": saved.manifest.options.get("params")}
                manifest = dataclasses.replace(manifest, options={**manifest.options, **begun})
            saving.directory.begin(manifest, start)
            if saved is not None:
                saved.check(manifest, options.accept)
                where = Where(plan.placement, options.hosts)
                restore, place = going_on(saved, manifest, job, where, streamed=feed.stream is not None)
                if feed.stream is not None and "data" in options.accept:
                    others = manifest.data != saved.manifest.data
                    place = {**place, "stream": accepting(feed.stream, place.get("stream", {}), others=others)}
    executor = executor_of(plan.layout)(job, plan.layout, plan.slots, restore, options.hosts)
    job.stops.check_names(executor.runs.history, job.members.numbers.loss)
    return executor, place


def _examples(job: Job) -> int:
    """Return how many examples all members see in an epoch."""
    members = job.members
    if members.rows is not None:
        return members.rows.index.size
    if members.data is not None:
        shape = jax.tree.leaves(members.data)[0].shape
        return shape[0] * shape[1]
    return len(members.key) * len(jax.tree.leaves(job.tables.data)[0])
