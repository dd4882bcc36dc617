"""`train`: a run as chunks from the host, that shows, stops, saves and goes on."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from jax import Array

from jaxmlp import _check, _disk
from jaxmlp._engine.hosts import together
from jaxmlp._engine.inputs import Inputs, Request, at_hand
from jaxmlp._engine.options import checked_callbacks, checked_plan, checked_progress, listed_recipes
from jaxmlp._engine.parts import check_lists, groups, join_groups
from jaxmlp._engine.plan import Plan
from jaxmlp._engine.portion import check_part, portion_of
from jaxmlp._engine.stops import Stop, Stops
from jaxmlp.loop._changes import accepted
from jaxmlp.loop._run import below, run_saved
from jaxmlp.loop._session import RunOptions
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

    Under `jax.distributed` all processes train together, one network as well as many: each makes the same call.

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
      directory: where checkpoints go, one run's own, on this machine, or for one network that lies on several processes
        on a disk that all see; needs the extra `checkpoint`. Lists of recipes,
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
    if not (single := getattr(key, "ndim", 0) == 0):
        key, hyperparams = at_hand((key, hyperparams))
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
