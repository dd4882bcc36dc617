"""Training every member of a population: `fit`, and `halving` as a rule of it."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from jaxmlp import _arguments, _check
from jaxmlp._engine.devices import by_itself
from jaxmlp._engine.driver import Callbacks, Epochs, Observer, Round, drive
from jaxmlp._engine.entry import check_keys, enter
from jaxmlp._engine.executor import Executor, Job
from jaxmlp._engine.hosts import hosts_of_call, together
from jaxmlp._engine.inputs import Inputs, Request, at_hand, plain
from jaxmlp._engine.options import checked_callbacks, checked_plan, listed_recipes
from jaxmlp._engine.parts import check_lists, groups, in_waves, join_groups, plan_for
from jaxmlp._engine.plan import Plan
from jaxmlp._engine.portion import check_part
from jaxmlp._engine.stops import Halving, Patience, Stop, Stops, listed
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import Callback, Data, History, Hyperparams, Numeric, States

ROUNDS = 32  # how often a run with early stopping looks for members to leave out


@together
def fit(
    keys: Array,
    data: Data,
    recipe: Recipe | Sequence[Recipe],
    hyperparams: Hyperparams = None,
    *,
    validation: Data | None = None,
    weights: Numeric | None = None,
    rows: Numeric | None = None,
    validation_rows: Numeric | None = None,
    stop: Stop | Iterable[Stop] | None = None,
    callbacks: Iterable[Callback] = (),
    plan: Plan | None = None,
    params: Any = None,
    patience: int | None = None,
    min_improvement: float = 0.0,
    callback: Callable[[int, np.ndarray], None] | None = None,
) -> tuple[States, History]:
    """Train every member from start to end, as `jaxmlp.fit` trains one.

    The host runs it, so it is not for `jit` itself: `jax.vmap(jaxmlp.fit)` is. A member's bits depend on the plan's
    width and number of devices, and on neither the number of members, nor their order, nor what becomes of the others.

    Args:
      keys: (members,) typed keys.
      data: (x, y) or (x, y, weight) that all members share, never copied a member; or `population.each(x, y)`, a table
        for each: x (members, N, ...) and y (members, N, ...).
      recipe: one for all, or a list of one a member: equal ones are trained together, so widths, depths and
        activations may differ at one compilation each.
      hyperparams: {name: (members,)}, a number that all share, or a list of dicts, one a member.
      validation: data of the same form, evaluated after each epoch.
      weights: (members, N), what each example counts for each member: folds, bootstraps.
      rows: (members, n) integers, which rows of the data each member owns; -1 at a row's end is padding. The member is
        that of `jaxmlp.fit` on data[rows].
      validation_rows: (members, n) integers, the rows of the validation data that each member is evaluated on, or of
        the data where there is no validation data; -1 at a row's end is padding.
      stop: `Patience`, `Target`, `Budget`, `Halving`, or a list of them. Patience, targets and halving end a member;
        a budget of seconds ends the run.
      callbacks: plain functions of (states, history so far), called on the host between chunks of the run, with the
        members that train at the time.
      plan: how to run, from `population.plan`.
      params: to begin with, instead of those that the model draws: one for all members, `population.shared(params)`, or
        with a leading axis (members,) one for each, `population.each(params)`; or states to go on from.
      patience: the same as stop=Patience(patience, min_improvement).
      min_improvement: by how much the validation loss must fall to count.
      callback: an older form of callbacks: one function of (epochs done, status (members,)).

    Returns:
      States with a leading axis (members,), and the `History`: the entries that `jaxmlp.fit` records, (members,
      epochs), NaN after a member's end; "status" (members,), one of `types.Status`: 0 finished, 1 stopped early, 2
      diverged; "epochs" (members,), how many a member was trained for; with patience "best_epoch", whose parameters
      come back. A member whose loss or parameters become NaN or infinite keeps its state before that epoch. For a list
      of recipes the states are a list, in its order, and shorter histories end in NaN.

    Raises:
      ValueError: for data that is empty, not finite or does not fit; labels outside the classes; numbers that no part
        takes; keys that are not typed or do not match other leading axes; and a rule that lacks what it watches.

    >>> from jaxmlp import MLP, losses, population
    >>> import jax.numpy as jnp, optax
    >>> x = jnp.linspace(-1, 1, 32)[:, None]
    >>> recipe = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=50, batch_size=8)
    >>> keys, hyperparams = population.grid(seeds=2, learning_rate=[0.1, 0.2])
    >>> states, history = fit(keys, (x, 2 * x + 1), recipe, hyperparams)
    >>> history["loss"].shape, history["status"].tolist(), states.params[0].w.shape
    ((4, 50), [0, 0, 0, 0], (4, 1, 1))
    """
    keys, hyperparams = at_hand((keys, hyperparams))
    inputs = Inputs(data, validation, weights, rows, validation_rows, params)
    stops = Stops.of(_with_patience(stop, patience, min_improvement), validation=inputs.watched, members=True)
    check_part(hyperparams, stops, keys)
    options = Options(checked_plan(plan), checked_callbacks(callbacks), callback, stops.deadline)
    if callback is not None:
        _arguments.takes("callback", callback, 2, "(epochs done, status)")
    if isinstance(recipe, Recipe):
        return train(Request(keys, inputs, recipe, hyperparams), stops, options)
    recipes = listed_recipes(recipe)
    check_lists(plan, stops)
    parts = groups(keys, inputs, recipes, hyperparams)
    return join_groups(
        parts, [train(part.request, stops, options._replace(first=i == 0)) for i, part in enumerate(parts)]
    )


def halving(
    keys: Array,
    data: Data,
    recipe: Recipe,
    hyperparams: Hyperparams = None,
    *,
    factor: float = 3,
    first: int = 1,
    by: str = "validation_loss",
    largest: bool | None = None,
    **options: Any,
) -> tuple[State, History]:
    """Train by successive halving: `fit` with stop=Halving(factor, first, by, largest).

    After first, factor first, factor^2 first ... epochs the best 1 / factor of the members go on. Jamieson and
    Talwalkar 2016 (arXiv 1502.07943). A stopped member keeps the state that it stopped with, and the survivors are
    what `fit` makes of them.

    Args:
      keys: (members,) typed keys.
      data: (x, y) or (x, y, weight) that all members share, or `population.each(x, y)`.
      recipe: one for all.
      hyperparams: {name: (members,)}, a number that all share, or a list of dicts, one a member.
      factor: above 1; of n members ceil(n / factor) go on.
      first: epochs before the first cut.
      by: the entry of the history to rank by.
      largest: whether the largest value is the best. It is known of losses and of this library's metrics.
      **options: validation, weights, rows, validation_rows, params, callbacks, plan and callback of `fit`.

    Returns:
      States and history with a leading axis (members,); the members that were left out have status 1.

    Raises:
      ValueError: for whatever `fit` refuses, and where there is nothing to rank by.
    """
    known = ("validation", "weights", "rows", "validation_rows", "plan", "params", "callbacks", "callback")
    for name in options:
        _check.one_of("an option of halving", name, known)
    return fit(keys, data, recipe, hyperparams, stop=Halving(factor, first, by, largest), **options)


class Options(NamedTuple):
    """What of a call is about how it runs, and not about what."""

    plan: Plan | None = None
    callbacks: tuple[Callback, ...] = ()
    callback: Callable[[int, np.ndarray], None] | None = None  # the older form
    deadline: float = math.inf  # on the clock of `time.monotonic`
    first: bool = True  # whether no part of the call was trained before


@by_itself
def train(
    request: Request,
    stops: Stops = Stops(),  # noqa: B008  (constants)
    options: Options = Options(),  # noqa: B008
) -> tuple[State, History]:
    """Train the members of one recipe."""
    check_keys(request.key)
    hosts = hosts_of_call(options.plan and options.plan.devices)
    request = request._replace(inputs=request.inputs.shared_whole())
    with hosts.alike():
        request = request.entered()
        members, tables = enter(request)
    recipe = request.recipe
    whole = Job(members, tables, recipe, stops)
    chosen = plan_for(whole, plain(request.inputs.data), options.plan)
    if hosts.many:
        from jaxmlp.loop._agreement import check_request  # which an import of this room need not wait for

        check_request(hosts, request, whole, chosen)
    watched = bool(stops.patience or stops.targets or stops.budget or options.callbacks)
    watched |= options.callback is not None and stops.halving is None  # at the rungs alone, as it always was
    (watched,) = hosts.either(watched)  # a callback may be that of one process
    chunk = math.ceil(recipe.epochs / ROUNDS) if watched else recipe.epochs

    def wave(job: Job, plan: Plan, number: int) -> Executor:
        executor = Executor(job, plan.layout, plan.slots)
        stops.check_names(executor.runs.history, job.members.numbers.loss)
        observers: list[Observer] = [Callbacks(options.callbacks, hosts)]
        if options.callback is not None:
            observers.append(_Counting(options.callback, recipe.epochs))
        source = Epochs(recipe.epochs, chunk, cuts=stops.rungs(recipe.epochs))
        drive(executor, source, observers, deadline=options.deadline, begins=options.first and number == 0)
        return executor

    return in_waves(whole, chosen, wave)


def _with_patience(stop: Any, patience: int | None, min_improvement: float) -> Any:
    """Return the rules, with patience where it is said by its older spelling."""
    if patience is None:
        if _arguments.scalar("min_improvement", min_improvement):
            raise ValueError(f"min_improvement={min_improvement} needs patience, the epochs to wait for it")
        return stop
    return [*listed(stop), Patience(patience, min_improvement)]


class _Counting:
    """The older form of a callback: (epochs done, status), after each chunk but the last epoch's."""

    def __init__(self, callback: Callable[[int, np.ndarray], None], total: int):
        self._callback, self._total = callback, total

    def see(self, now: Round) -> None:
        if now.source.done < self._total:
            self._callback(now.source.done, now.status)

    def end(self, now: Round | None) -> None:
        pass
