"""The host's loop around pure training: it shows, stops, saves and resumes, and changes not one bit.

The device runs compiled chunks, of epochs or for a stream of steps; between two of them stands everything that is no
mathematics: progress, callbacks, checkpoints, signals.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _check
from jaxmlp._engine.executor import Cohort
from jaxmlp._engine.inputs import enter, plan_for
from jaxmlp._engine.plan import Layout, Plan, plan
from jaxmlp._engine.stops import stops
from jaxmlp.loop._digest import of_data
from jaxmlp.loop._manifest import Manifest, Seen, Start
from jaxmlp.loop._saving import RunDirectory, SavedRun
from jaxmlp.loop._session import Epochs, Session, Steps
from jaxmlp.loop.streams import is_stream, open_stream
from jaxmlp.recipe import Recipe
from jaxmlp.training import check_data


def train(
    key: Array,
    data: Any,
    recipe: Recipe,
    hyperparams: Any = None,
    *,
    validation: Any = None,
    epochs: int | None = None,
    directory: Any = None,
    every: int | None = None,
    keep: int = 3,
    callbacks: Iterable[Callable[[Any, dict[str, Any]], None]] = (),
    progress: bool | None = None,
    stop: Any = None,
    steps: int | None = None,
    weights: Any = None,
    rows: Any = None,
    validation_rows: Any = None,
    plan: Plan | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train as `fit` does, or for keys (members,) as `population.fit` does, chunk by chunk from the host.

    The result equals theirs bit for bit, whatever the chunks. With a directory, the same call goes on where a run that
    was stopped or killed left off, and ends with the bits of one that was not.

    Args:
      key: one typed key for one network, (members,) of them for a population.
      data: as `fit`; or what does not fit in memory: arrays of `numpy.load(..., mmap_mode="r")`, a folder of x.npy and
        y.npy or of shards x-000.npy, y-000.npy ..., or anything that gives batches (x, y) or (x, y, weight) anew for
        each epoch, such as a Grain loader. The members of a population share a stream's batches.
      recipe: what is trained, by what, how long.
      hyperparams: as `fit`, or as `population.fit`.
      validation: data of the same form, in memory, evaluated after each epoch.
      epochs: instead of the recipe's.
      directory: where checkpoints go, one run's own; needs the extra `checkpoint`.
      every: epochs, or steps of a stream, from one checkpoint and call of the callbacks to the next; unless given,
        chunks take half a second and a checkpoint is made every ten.
      keep: how many of the newest checkpoints stay; the best one, by validation loss or else loss, stays too.
      callbacks: plain functions of (state, history so far), called between chunks.
      progress: None shows a live line on a terminal and plain lines in a pipe, False nothing.
      stop: `Patience`, `Target`, `Budget`, `Halving`, or a list of them.
      steps: of a stream without an end, how many batches make an epoch.
      weights: of a population, as `population.fit`.
      rows: likewise.
      validation_rows: likewise.
      plan: likewise.

    Returns:
      The last state, with patience that of the best epoch's parameters; and the history, (epochs,) arrays that end
      where the run did, or for a population as `population.fit` has it.

    Raises:
      ValueError: as `fit`; for a directory that holds another run; for a stream that breaks, with the batch named.
      NonFinite: where the one network's loss or parameters left the finite.
      Interrupted: after Ctrl-C or SIGTERM, once the chunk is done and saved; a second one ends at once.

    >>> from jaxmlp import MLP, losses
    >>> from jaxmlp.loop import Target
    >>> import optax
    >>> x = jnp.linspace(-1, 1, 32)[:, None]
    >>> recipe = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=200, batch_size=8)
    >>> enough = Target("loss", at_most=1e-6)
    >>> state, history = train(
    ...     jax.random.key(0), (x, 2 * x + 1), recipe, {"learning_rate": 0.1}, stop=enough, progress=False
    ... )
    >>> state.params[0].w.round(2), len(history["loss"]) < 200
    (Array([[2.]], dtype=float32), True)
    """
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=epochs)
    options = {"validation": validation, "weights": weights, "rows": rows, "validation_rows": validation_rows}
    with contextlib.ExitStack() as stack:
        saving = None
        if directory is not None:
            run = stack.enter_context(RunDirectory(directory, keep))
            saving = run, run.recover()
        call = _Call(every, tuple(callbacks), progress, stop, steps, plan)
        return _train(key, data, recipe, hyperparams, options, call, saving)


def resume(
    directory: Any,
    data: Any,
    recipe: Recipe | None = None,
    *,
    validation: Any = None,
    epochs: int | None = None,
    every: int | None = None,
    keep: int = 3,
    callbacks: Iterable[Callable[[Any, dict[str, Any]], None]] = (),
    progress: bool | None = None,
    stop: Any = None,
    weights: Any = None,
    rows: Any = None,
    validation_rows: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """Go on with the run in a directory from its newest whole checkpoint, to the end that `train` would have reached.

    Args:
      directory: where `train` saved.
      data: the same data; its fingerprint is compared.
      recipe: needed only where it has parts that are not of jaxmlp, Optax or JAX; these are not looked for by name.
      validation: the same validation data.
      epochs: more epochs than the run was begun with.
      every: as `train`, and so the others; `every` and `stop` go on as they were unless given.
      keep: as `train`.
      callbacks: as `train`.
      progress: as `train`.
      stop: as `train`.
      weights: the same as before, and so rows and validation_rows.
      rows: the same as before.
      validation_rows: the same as before.

    Returns:
      As `train`.

    Raises:
      ValueError: where there is no whole checkpoint, and as `train`.
    """
    if not Path(directory).is_dir():
        raise ValueError(f"directory must be one that train saved in; {directory} is not there")
    options = {"validation": validation, "weights": weights, "rows": rows, "validation_rows": validation_rows}
    with RunDirectory(directory, keep) as run:
        saved = run.recover()
        if saved is None:
            raise ValueError(f"directory must hold a whole checkpoint; {directory} has none; begin with loop.train")
        recipe = saved.manifest.rebuild_recipe() if recipe is None else recipe
        if epochs is not None:
            saved, recipe = saved.with_epochs(epochs), dataclasses.replace(recipe, epochs=epochs)
        start = saved.start()
        stop = saved.manifest.rebuild_stop() if stop is None else stop
        every = saved.every if every is None else every
        call = _Call(every, tuple(callbacks), progress, stop, saved.manifest.steps, None)
        return _train(start.key, data, recipe, start.hyperparams, options, call, (run, saved))


class _Call(NamedTuple):
    """What of a call is about how it runs, and not about what."""

    every: int | None
    callbacks: tuple[Callable[[Any, dict[str, Any]], None], ...]
    progress: bool | None
    stop: Any
    steps: int | None
    plan: Plan | None


def _train(
    key: Any,
    data: Any,
    recipe: Recipe,
    hyperparams: Any,
    options: dict[str, Any],
    call: _Call,
    saving: tuple[RunDirectory, SavedRun | None] | None,
) -> tuple[Any, dict[str, Any]]:
    """Check everything at the door, seat the members, and run; one network is a population of one in a block of one."""
    single = getattr(key, "ndim", 0) == 0
    if single:
        _check.typed_key(key)
        recipe.route(hyperparams)
    keys = key[None] if single else key
    run, saved = (None, None) if saving is None else saving
    every = None if call.every is None else _check.positive_int("every", call.every)
    watched = options["validation"] is not None or options["validation_rows"] is not None
    rules = stops(call.stop, validation=watched, members=not single)
    stream = open_stream(data, keys[0], recipe.batch_size, call.steps) if is_stream(data) else None
    if stream is None:
        table, entered = data, recipe
        if call.steps is not None:
            raise ValueError(f"steps must be None for data in memory, whose epochs have all examples; got {call.steps}")
    else:
        table, entered = stream.example, dataclasses.replace(recipe, batch_size=None)
        _only_in_memory(options, recipe)
    numbers = hyperparams
    if single:
        numbers = {name: jnp.asarray(value)[None] for name, value in (hyperparams or {}).items()}
    members, shared = enter(keys, table, entered, numbers, **options, tables=not single and stream is None)
    first = {name: value[0] for name, value in members.hyperparams.items()}
    if single:
        layout, slots = Layout(1, (jax.local_devices()[0],)), 1
    else:
        chosen = call.plan
        if chosen is None and saved is not None and (wanted := saved.manifest.plan_options()):
            chosen = plan(len(keys), table, entered, first, **wanted)
        chosen = plan_for(members, table, entered, rules.rules, chosen)
        if chosen.wave < len(keys):
            raise ValueError(
                f"loop.train must hold all {len(keys)} members at once; the plan's memory holds {chosen.wave}; train "
                f"them by population.fit, or in several calls"
            )
        layout, slots = chosen.layout, chosen.slots
    restore, where = None, {}
    if run is not None:
        seen = Seen(of_data(data) if stream is None else stream.fingerprint, options, call.steps)
        start = Start(key, (hyperparams or {}) if single else members.hyperparams)
        manifest = Manifest.of(recipe, start, seen, rules, layout)
        run.begin(manifest, start)
        if saved is not None:
            saved.check(manifest)
            restore, where = saved.restore, saved.where
    batch = None if stream is None else stream.example
    shared = shared if stream is None else (None, shared[1])
    cohort = Cohort(members, shared, recipe, rules.rules, layout, slots, batch=batch, restore=restore)
    for metric in rules.rules.targets:
        _check.one_of("the metric of a Target", metric, cohort.runs.history)
    if stream is None:
        rows = jax.tree.leaves(table)[0].shape[members.data is not None] if members.rows is None else members.rows.index
        examples = len(keys) * (rows if isinstance(rows, int) else rows.shape[1])
        work: Any = Epochs(cohort, recipe.epochs, every, rules.halving, where, examples)
    else:
        work = Steps(cohort, recipe.epochs, every, stream, where, _checker(keys[0], entered, first))
    return Session(cohort, work, rules, every, call.callbacks, call.progress, saving, single).run()


def _only_in_memory(options: dict[str, Any], recipe: Recipe) -> None:
    for name in ("weights", "rows", "validation_rows"):
        if options[name] is not None:
            raise ValueError(f"{name} must be None for a stream: it names examples of a table in memory")
    if recipe.metrics and options["validation"] is None:
        raise ValueError("metrics must have validation data for a stream, which is not read twice; pass validation=")


def _checker(key: Any, recipe: Recipe, numbers: Any) -> Callable[[Any], None]:
    """Return a check of a batch's values; that of labels traces the loss, so floats do without it."""

    def check(batch: Any) -> None:
        if all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(batch[1])):
            _check.examples("data", *batch)
        else:
            check_data("data", key, batch, recipe, numbers)

    return check
