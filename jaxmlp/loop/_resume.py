"""`resume`: a run in a directory goes on, of what its newest whole checkpoint says."""

import dataclasses
from collections.abc import Iterable, Mapping

from jaxmlp import _check, _disk
from jaxmlp._engine.hosts import everyone, together
from jaxmlp._engine.inputs import Inputs, Request
from jaxmlp._engine.options import checked_callbacks, checked_progress
from jaxmlp._engine.portion import check_part
from jaxmlp._engine.stops import Budget, Stop, Stops, listed
from jaxmlp.loop._changes import accepted
from jaxmlp.loop._folder import Form
from jaxmlp.loop._manifest import Manifest
from jaxmlp.loop._resuming import check_longer, check_size
from jaxmlp.loop._run import run
from jaxmlp.loop._saving import RunDirectory
from jaxmlp.loop._session import RunOptions, Saving
from jaxmlp.loop._single import checked_like
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import Callback, Data, History, Hyperparams, Numeric, Params, States, StrPath


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
    like: Params | State | None = None,
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

    One network on a mesh goes on where it lay: split as it was, over the mesh of the data, else over one like its own
    of all devices, of which an axis "data" takes as many as there are, else whole on one device. `like` says otherwise.
    Another mesh goes on with a warning, equal up to rounding.

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
      like: parameters or a state, arrays or shapes, that lie on a mesh as those of the one network are to.
      accept: what may differ from what was saved, one word or several of those above.

    Returns:
      The last state and the `History`, as `loop.train` would have returned them had the run not been stopped.

    Raises:
      ValueError: where the directory holds no whole checkpoint; for data, recipe or rules that differ from those the
        run began with, with a line for each difference.
      NonFinite: where the one network's loss or parameters became NaN or infinite.
      Interrupted: after Ctrl-C or SIGTERM, once the chunk is done and saved; a second one ends at once.

    >>> from jaxmlp import MLP, losses
    >>> from jaxmlp.loop import train
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
    progress, allowed, rebuilt, like = checked_progress(progress), accepted(accept), recipe is None, checked_like(like)
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
        if like is not None and not saved.manifest.key["single"]:
            raise ValueError("like must be None for a population, whose members are dealt to all devices")
        request = Request(start.key, Inputs(data, validation, weights, rows, validation_rows), recipe, numbers)
        given = listed(stop)
        if stop is None or given and all(isinstance(rule, Budget) for rule in given):
            given = [*rules, *given]
        every = saved.every if every is None else every
        stops = Stops.of(given, validation=request.inputs.watched, members=not request.single)
        check_part(numbers, stops)
        check_longer(stops, saved.manifest.recipe["epochs"], recipe.epochs)
        options = RunOptions(every, callbacks, progress, path, keep, steps, deadline=stops.deadline, hosts=hosts)
        options = options._replace(accept=allowed, rebuilt=rebuilt, lie=like)
        return run(request, stops, options, Saving(run_directory, saved))


def _check_rebuilt(manifest: Manifest, forms: Mapping[str, Form]) -> None:
    """Raise unless a saved recipe can be made again, of a model that has these arrays."""
    check_size(manifest.rebuild_recipe(), forms)
