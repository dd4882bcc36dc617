"""`train` and `resume`: a run as chunks from the host, that shows, stops, saves and goes on."""

import dataclasses
from collections.abc import Iterable, Sequence

from jax import Array

from jaxmlp import _disk
from jaxmlp._engine.inputs import Inputs, Request
from jaxmlp._engine.parts import check_lists, groups, join_groups
from jaxmlp._engine.plan import Plan
from jaxmlp._engine.stops import Budget, Halving, Stop, Stops
from jaxmlp.loop._run import below, run, run_saved
from jaxmlp.loop._saving import RunDirectory
from jaxmlp.loop._session import RunOptions, Saving
from jaxmlp.loop.streams import is_stream
from jaxmlp.recipe import Recipe
from jaxmlp.types import Callback, Data, History, Hyperparams, Numeric, States, StrPath


def train(
    key: Array,
    data: Data,
    recipe: Recipe | Sequence[Recipe],
    hyperparams: Hyperparams = None,
    *,
    validation: Data | None = None,
    epochs: int | None = None,
    directory: StrPath | None = None,
    every: int | None = None,
    keep: int = 3,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    stop: Stop | Iterable[Stop] | None = None,
    steps: int | None = None,
    weights: Numeric | None = None,
    rows: Numeric | None = None,
    validation_rows: Numeric | None = None,
    plan: Plan | None = None,
) -> tuple[States, History]:
    """Train one network as `jaxmlp.fit` does, or many as `population.fit` does, chunk by chunk from the host.

    The result equals theirs bit for bit, whatever the chunks. With a directory, the same call resumes a run that was
    stopped or killed from its newest checkpoint, and ends with the bits of a run that was not.

    Args:
      key: one typed key for one network, (members,) of them for a population.
      data: (x, y) or (x, y, weight) in memory; for a population `population.each(x, y)` gives each member a table. What
        does not fit in memory: arrays of `numpy.load(..., mmap_mode="r")`; a folder of x.npy and y.npy or of shards
        x-000.npy, y-000.npy ...; or anything that gives batches (x, y) or (x, y, weight) anew for each epoch, such as a
        Grain loader. The members of a population share a stream's batches.
      recipe: what is trained, by what, how long; for a population also a list of one a member.
      hyperparams: numbers by name; for a population {name: (members,)}, numbers that all share, or a list of dicts.
      validation: data of the same form, in memory, evaluated after each epoch.
      epochs: instead of the recipe's.
      directory: where checkpoints go, one run's own, on this machine; needs the extra `checkpoint`. Lists of recipes,
        and members that do not fit in memory at once, are saved in directories below it, recipe-000, wave-000 and so
        on. Nothing in it is touched but what runs have written.
      every: epochs, or steps of a stream, from one checkpoint and call of the callbacks to the next; unless given,
        chunks take half a second and a checkpoint is made every ten seconds.
      keep: how many of the newest checkpoints stay; the best one, by validation loss or else loss, stays too.
      callbacks: plain functions of (state, history so far), called between chunks. Where one raises and `every` is not
        given, what is trained is saved first.
      progress: None shows a live line on a terminal and plain lines in a pipe, False nothing.
      stop: `Patience`, `Target`, `Budget`, `Halving`, or a list of them.
      steps: of a stream without an end, how many batches make an epoch.
      weights: (members, N), what each example counts for each member of a population.
      rows: (members, n) integers, which rows of the data each member owns; -1 at a row's end is padding.
      validation_rows: (members, n) integers, the rows of the validation data, or of the data, each is evaluated on.
      plan: how a population runs, from `population.plan`.

    Returns:
      The last state, with patience that of the best epoch's parameters, and the `History`. For one network its entries
      have shape (epochs,) and end where the run did. For a population state and history have a leading axis (members,),
      NaN after a member's end, with "status", "epochs" and with patience "best_epoch" (members,).

    Raises:
      ValueError: for data, numbers and keys that `jaxmlp.fit` or `population.fit` would refuse; for a directory that
        holds another run, with the difference, or only damaged checkpoints, with their names; for a stream that breaks,
        with the batch named.
      NotSaved: where the directory cannot be written; `state` and `history` so far are in the error.
      NonFinite: where the one network's loss or parameters became NaN or infinite.
      Interrupted: after Ctrl-C or SIGTERM, once the chunk is done and saved; a second one ends at once.

    >>> from jaxmlp import MLP, losses
    >>> from jaxmlp.loop import Target
    >>> import jax, jax.numpy as jnp, optax
    >>> x = jnp.linspace(-1, 1, 32)[:, None]
    >>> recipe = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=200, batch_size=8)
    >>> enough = Target("loss", at_most=1e-6)
    >>> state, history = train(
    ...     jax.random.key(0), (x, 2 * x + 1), recipe, {"learning_rate": 0.1}, stop=enough, progress=False
    ... )
    >>> state.params[0].w.round(2), len(history["loss"]) < 200
    (Array([[2.]], dtype=float32), True)
    """
    directory = None if directory is None else _disk.path_of("directory", directory)
    recipes = [recipe] if isinstance(recipe, Recipe) else list(recipe)
    if epochs is not None:
        recipes = [dataclasses.replace(one, epochs=epochs) for one in recipes]
    inputs = Inputs(data, validation, weights, rows, validation_rows)
    single = getattr(key, "ndim", 0) == 0
    stops = Stops.of(stop, validation=inputs.watched, members=not single)
    options = RunOptions(every, tuple(callbacks), progress, directory, keep, steps, plan, stops.deadline)
    if isinstance(recipe, Recipe):
        return run_saved(Request(key, inputs, recipes[0], hyperparams), stops, options)
    if single:
        raise ValueError("recipe must be one Recipe for one network; for a list of them pass keys (members,)")
    check_lists(plan, stops)
    if hasattr(data, "__next__"):
        raise ValueError(
            f"data must give its batches anew for each recipe; this {type(data).__name__} is used up after one; pass "
            f"what makes a new iterator each time, or train each recipe's members in a call of its own"
        )
    parts, found = groups(key, inputs, recipes, hyperparams, is_stream(data)), []
    options = options._replace(order_key=key[0])  # all recipes see mapped files in one order
    for i, part in enumerate(parts):
        mine = below(options, f"recipe-{i:03d}")._replace(first=i == 0, more=i + 1 < len(parts))
        found.append(run_saved(part.request, stops, mine))
    return join_groups(parts, found)


def resume(
    directory: StrPath,
    data: Data,
    recipe: Recipe | None = None,
    *,
    validation: Data | None = None,
    epochs: int | None = None,
    every: int | None = None,
    keep: int = 3,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    stop: Stop | Iterable[Stop] | None = None,
    weights: Numeric | None = None,
    rows: Numeric | None = None,
    validation_rows: Numeric | None = None,
) -> tuple[States, History]:
    """Resume the run in a directory from its newest whole checkpoint, to the end that `loop.train` would have reached.

    A checkpoint holds the key, the hyperparameters, the rules and a description of the recipe, so that these need not
    be given again; of data it holds fingerprints, which are compared with the data that is given.

    Args:
      directory: where `loop.train` saved.
      data: the data that the run began with.
      recipe: needed only where it has parts that are not of jaxmlp, Optax or JAX; these are not looked for by name.
      validation: the validation data that the run began with.
      epochs: where given, train for more epochs than the run was begun with.
      every: epochs, or steps of a stream, from one checkpoint to the next; as it was unless given.
      keep: how many of the newest checkpoints stay; the best one stays too.
      callbacks: plain functions of (state, history so far), called between chunks.
      progress: None shows a live line on a terminal and plain lines in a pipe, False nothing.
      stop: a `Budget` for this call, beside the rules that the run began with, which hold. Other rules must be those
        that it began with: they are compared.
      weights: the weights of a population's examples that the run began with.
      rows: the rows of each member that the run began with.
      validation_rows: the validation rows of each member that the run began with.

    Returns:
      The last state and the `History`, as `loop.train` would have returned them had the run not been stopped.

    Raises:
      ValueError: where the directory holds no whole checkpoint; for data, recipe or rules that differ from those the
        run began with, with a line for each difference.
      NonFinite: where the one network's loss or parameters became NaN or infinite.
      Interrupted: after Ctrl-C or SIGTERM, once the chunk is done and saved; a second one ends at once.
    """
    path = _disk.path_of("directory", directory)
    if not path.is_dir():
        raise ValueError(f"directory must be one that train saved in; {directory} is not there")
    with RunDirectory(path, keep) as run_directory:
        saved = run_directory.recover()
        if saved is None:
            parts = sorted(part.name for part in path.glob("*-[0-9][0-9][0-9]"))
            fix = "begin with loop.train"
            if parts:
                fix = f"its parts {', '.join(parts[:4])} are resumed by the call of loop.train that made them"
            raise ValueError(f"directory must hold a whole checkpoint; {directory} has none; {fix}")
        recipe = saved.manifest.rebuild_recipe() if recipe is None else recipe
        rules, begun = saved.manifest.rebuild_stop(), saved.manifest.recipe["epochs"]
        if epochs is not None:
            _check_longer(rules, begun, epochs)
            saved, recipe = saved.with_epochs(epochs), dataclasses.replace(recipe, epochs=epochs)
        start, steps = saved.start(), saved.manifest.steps
        inputs = Inputs(data, validation, weights, rows, validation_rows)
        request = Request(start.key, inputs, recipe, start.hyperparams)
        if stop is None or isinstance(stop, Budget):
            stop = [*rules, *([] if stop is None else [stop])]
        every = saved.every if every is None else every
        stops = Stops.of(stop, validation=inputs.watched, members=not request.single)
        options = RunOptions(every, tuple(callbacks), progress, path, keep, steps, deadline=stops.deadline)
        return run(request, stops, options, Saving(run_directory, saved))


def _check_longer(rules: Iterable[Stop], begun: int, epochs: int) -> None:
    """Raise where a longer run would have halved its members at the epoch at which the shorter one ended."""
    for rule in rules:
        if isinstance(rule, Halving) and begun != epochs and begun in rule.rungs(epochs):
            raise ValueError(
                f"epochs must not make a rung of Halving of the end of the run: at {begun} epochs a run of {epochs} "
                f"would have left members out; begin the longer run in another directory"
            )
