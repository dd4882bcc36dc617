"""`train` and `resume`: a run as chunks from the host, that shows, stops, saves and goes on."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jax import Array

from jaxmlp import _check, _disk
from jaxmlp._engine.hosts import everyone, together
from jaxmlp._engine.inputs import Inputs, Request
from jaxmlp._engine.options import checked_callbacks, checked_plan, checked_progress, listed_recipes
from jaxmlp._engine.parts import check_lists, groups, join_groups
from jaxmlp._engine.plan import Plan
from jaxmlp._engine.portion import check_part, portion_of
from jaxmlp._engine.stops import Budget, Stop, Stops, listed
from jaxmlp.loop._changes import accepted
from jaxmlp.loop._folder import Form
from jaxmlp.loop._manifest import Manifest
from jaxmlp.loop._resuming import check_longer, check_size
from jaxmlp.loop._run import below, run, run_saved
from jaxmlp.loop._saving import RunDirectory
from jaxmlp.loop._session import RunOptions, Saving
from jaxmlp.loop.streams import Earlier, is_stream
from jaxmlp.recipe import Recipe
from jaxmlp.types import Callback, Data, History, Hyperparams, Numeric, States, StrPath


@together
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
    params: Any = None,
    accept: str | Iterable[str] | None = (),
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
      hyperparams: numbers by name; for a population {name: (members,)}, numbers that all share, a list of dicts,
        or what `population.part` cut.
      validation: data of the same form, in memory, evaluated after each epoch.
      epochs: instead of the recipe's.
      directory: where checkpoints go, one run's own, on this machine; needs the extra `checkpoint`. Lists of recipes,
        and members that do not fit in memory at once, are saved in directories below it, recipe-000, wave-000 and so
        on. Nothing in it is touched but what runs have written.
      every: epochs, or steps of a stream, from one checkpoint and call of the callbacks to the next; unless given,
        chunks take half a second and a checkpoint is made every ten seconds.
      keep: how many of the newest checkpoints stay, beside the best: by patience or halving, else (validation) loss.
      callbacks: plain functions of (state, history so far), called between chunks. Where one raises and `every` is not
        given, what is trained is saved first.
      progress: None shows a live line on a terminal and plain lines in a pipe, False nothing.
      stop: `Patience`, `Target`, `Budget`, `Halving`, or a list of them.
      steps: of a stream without an end, how many batches make an epoch.
      weights: (members, N), what each example counts for each member of a population.
      rows: (members, n) integers, which rows of the data each member owns; -1 at a row's end is padding.
      validation_rows: (members, n) integers, the rows of the validation data, or of the data, each is evaluated on.
      plan: how a population runs, from `population.plan`.
      params: to begin with, instead of those that the model draws, or a `State` to go on from; of a population one for
        all members or one for each. A run that is resumed has begun: they need not be given again.
      accept: what may differ from the run in the directory, which then goes on with what is given now; see `resume`.

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
    recipes = [recipe] if isinstance(recipe, Recipe) else listed_recipes(recipe)
    recipes = recipes if epochs is None else [dataclasses.replace(one, epochs=epochs) for one in recipes]
    inputs = Inputs(data, validation, weights, rows, validation_rows, params)
    single = getattr(key, "ndim", 0) == 0
    stops = Stops.of(stop, validation=inputs.watched, members=not single)
    check_part(hyperparams, stops, key)
    _check.positive_int("keep", keep)
    options = RunOptions(every, checked_callbacks(callbacks), checked_progress(progress), directory, keep, steps)
    options = options._replace(plan=checked_plan(plan), deadline=stops.deadline, accept=accepted(accept))
    if isinstance(recipe, Recipe):
        return run_saved(Request(key, inputs, recipes[0], hyperparams), stops, options)
    if single:
        raise ValueError("recipe must be one Recipe for one network; for a list of them pass keys (members,)")
    check_lists(plan, stops)
    if directory is not None and portion_of(hyperparams) is not None:
        raise ValueError(
            "recipe must be one Recipe for a part that is saved: members of several cannot be gathered; cut and train "
            "each recipe's members in a call of its own, in a directory of its own"
        )
    if hasattr(data, "__next__"):
        raise ValueError(
            f"data must give its batches anew for each recipe; this {type(data).__name__} is used up after one; pass "
            f"what makes a new iterator each time, or train each recipe's members in a call of its own"
        )
    parts, found = groups(key, inputs, recipes, hyperparams, is_stream(data)), []
    options = options._replace(order_key=key[0], earlier=Earlier())  # all recipes see the same batches in one order
    for i, part in enumerate(parts):
        mine = below(options, f"recipe-{i:03d}")._replace(first=i == 0, more=i + 1 < len(parts))
        found.append(run_saved(part.request, stops, mine))
    return join_groups(parts, found)


@together
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
    hyperparams: Hyperparams = None,
    accept: str | Iterable[str] | None = (),
) -> tuple[States, History]:
    """Resume the run in a directory from its newest whole checkpoint, to the end that `loop.train` would have reached.

    A checkpoint holds the key, the hyperparameters, the rules and a description of the recipe, so that these need not
    be given again; of data it holds fingerprints, which are compared with the data that is given. Two recipes are one
    where model, loss, optimizer and metrics compute the same: new names, lines and comments do not count, but a global
    or a helper that they use does. Rules that stop the run, `every`, `keep`, callbacks and progress may be others at
    each call; another kind of device goes on with a warning. What else differs is refused unless `accept` names it:

        model, loss, optimizer, metrics, after, frozen, batch_size
                                       what computes something else now; "recipe" names all of these
        hyperparams                                    other numbers, from now on
        data, validation                               other tables, other weights or rows
        epochs                                         more of them; `epochs=` here accepts them by itself
        schedule                                       a schedule that follows the length of a run that is longer now
        layout                                         another width or number of devices: equal up to rounding
        options                                        options of JAX that change numbers

    The optimizer's state is kept where it has the form of the new optimizer's, and else begins anew, with a warning.

    Args:
      directory: where `loop.train` saved.
      data: the data that the run began with.
      recipe: needed only where it has parts that are not of jaxmlp, Optax or JAX; these are not looked for by name.
      validation: the validation data that the run began with.
      epochs: where given, train for more epochs than the run was begun with.
      every: epochs, or steps of a stream, from one checkpoint to the next; as it was unless given.
      keep: how many of the newest checkpoints stay, beside the best.
      callbacks: plain functions of (state, history so far), called between chunks.
      progress: None shows a live line on a terminal and plain lines in a pipe, False nothing.
      stop: a `Budget` for this call, beside the rules that the run has, which hold. Other rules take the place of
        those, [] leaves none: who was stopped and would not be under the new ones goes on, if it stopped where the run
        stands. Patience that is new counts from here.
      weights: the weights of a population's examples that the run began with.
      rows: the rows of each member that the run began with.
      validation_rows: the validation rows of each member that the run began with.
      hyperparams: where given, the numbers from now on; needs accept="hyperparams" if they are others.
      accept: what may differ from what was saved, one word or several of those above.

    Returns:
      The last state and the `History`, as `loop.train` would have returned them had the run not been stopped.

    Raises:
      ValueError: where the directory holds no whole checkpoint; for data, recipe or rules that differ from those the
        run began with, with a line for each difference.
      NonFinite: where the one network's loss or parameters became NaN or infinite.
      Interrupted: after Ctrl-C or SIGTERM, once the chunk is done and saved; a second one ends at once.

    >>> from jaxmlp import MLP, losses
    >>> import jax, jax.numpy as jnp, optax, tempfile
    >>> x = jnp.linspace(-1, 1, 32)[:, None]
    >>> recipe = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=2)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     how = {"directory": directory, "progress": False}
    ...     _ = train(jax.random.key(0), (x, 2 * x), recipe, {"learning_rate": 0.1}, **how)
    ...     _, history = resume(directory, (x, 2 * x), epochs=4, progress=False)
    >>> history["loss"].shape
    (4,)
    """
    path, callbacks = _disk.path_of("directory", directory), checked_callbacks(callbacks)
    progress, allowed, rebuilt = checked_progress(progress), accepted(accept), recipe is None
    epochs = None if epochs is None else _check.positive_int("epochs", epochs)
    if recipe is not None and not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be one Recipe, or None for the saved one; got {_check.describe(recipe)}")
    hosts = everyone()
    if not hosts.from_first(path.is_dir()):
        raise ValueError(f"directory must be one that train saved in; {directory} is not there")
    with RunDirectory(path, keep, hosts) as run_directory:
        saved = run_directory.recover(_check_rebuilt if recipe is None else None)
        if saved is None:
            fix = "begin with loop.train"
            if parts := hosts.from_first(sorted(part.name for part in path.glob("*-[0-9][0-9][0-9]"))):
                fix = f"its parts {', '.join(parts[:4])} are resumed by the call of loop.train that made them"
            raise ValueError(f"directory must hold a whole checkpoint; {directory} has none; {fix}")
        if recipe is None:
            recipe = saved.manifest.rebuild_recipe()
        rules = saved.manifest.rebuild_stop()
        if epochs is not None:
            saved.manifest.with_epochs(epochs)  # raises for fewer than there are
            recipe, allowed = dataclasses.replace(recipe, epochs=epochs), allowed | {"epochs"}
        start, steps = saved.start(), saved.manifest.steps
        numbers = start.given() if hyperparams is None else hyperparams
        request = Request(start.key, Inputs(data, validation, weights, rows, validation_rows), recipe, numbers)
        given = listed(stop)
        if stop is None or given and all(isinstance(rule, Budget) for rule in given):
            given = [*rules, *given]
        every = saved.every if every is None else every
        stops = Stops.of(given, validation=request.inputs.watched, members=not request.single)
        check_part(numbers, stops)
        check_longer(stops, saved.manifest.recipe["epochs"], recipe.epochs)
        options = RunOptions(every, callbacks, progress, path, keep, steps, deadline=stops.deadline, hosts=hosts)
        options = options._replace(accept=allowed, rebuilt=rebuilt)
        return run(request, stops, options, Saving(run_directory, saved))


def _check_rebuilt(manifest: Manifest, forms: Mapping[str, Form]) -> None:
    """Raise unless a saved recipe can be made again, of a model that has these arrays."""
    check_size(manifest.rebuild_recipe(), forms)
