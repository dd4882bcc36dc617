"""The compiled program of scikit-learn's training: steps in a given order, its rule of stopping, many members at once.

One program trains for any number of epochs, on any order, by any numbers; the host gives it the order in chunks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _compile, training
from jaxmlp.estimators._solvers import SOLVERS
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import Metric, Params

SMALLEST_RATE = 1e-6  # at which an adaptive rate ends the run, as in scikit-learn


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Program:
    """What changes the program: the recipe, and how rate and end follow from the epochs."""

    recipe: Recipe
    learning_rate: str = "constant"
    score: Metric | None = None  # of the validation data, by which early stopping stops
    early_stopping: bool = False
    factor: Callable[..., Any] | None = None  # of the rate, a function of steps done and steps in all
    apart: bool = False  # whether epochs are ended by `close`, for validation data that is read in parts


class Tables(NamedTuple):
    """What all members read."""

    x: Any  # (rows, in)
    y: Any
    weight: Any = None  # (rows,), or None
    unit: Any = 1  # that the weights were divided by, to lie near one
    validation: Any = None  # (x, y, weight or None), or None


class Member(NamedTuple):
    """The numbers of a member; leading axis (members,)."""

    numbers: dict[str, Any]
    rate: Any
    power: Any
    tol: Any
    patience: Any
    rows: Any  # in an epoch
    steps: Any  # in an epoch
    last: Any  # steps of the whole run


class Span(NamedTuple):
    """Which steps of the order are taken."""

    count: Any
    first: Any = 0  # steps of the epoch that were taken before


class Run(NamedTuple):
    """Where a member stands; leading axis (members,)."""

    state: State  # its key as integers
    kept: Params  # of the last epoch before the end, or of the best one
    rate: Any
    seen: Any  # examples
    total: Any  # of the losses in this epoch
    epoch: Any  # of this call
    best: Any
    waited: Any
    running: Any
    curves: dict[str, Any]  # (epochs of this call,) each


def begin(params: Params, member: Member, program: Program) -> Any:
    """Return the optimizer's state before the first step; of our own solvers it is zero, and nothing is compiled."""
    solver = program.recipe.optimizer
    if isinstance(solver, SOLVERS):
        return solver.first(jax.tree.map(np.zeros_like, params), np.zeros(len(member.rate), np.int32))
    begun = _begin(params, member, program)
    if any(jnp.issubdtype(a.dtype, jax.dtypes.prng_key) for a in jax.tree.leaves(begun)):
        raise ValueError(
            f"optimizer must hold numbers alone, which are kept from one call to the next; {solver} holds a random key"
        )
    return begun


@_compile.jit(quick=True)
def _begin(params: Params, member: Member, program: Program) -> Any:
    def one(params: Params, member: Member) -> Any:
        return program.recipe.bind(member.numbers | {"learning_rate": member.rate}).optimizer().init(params)

    return over(one, len(member.rate))(params, member)


@_compile.jit
def train(run: Run, member: Member, tables: Tables, orders: Any, span: Span, program: Program) -> Run:
    """Take the steps of a span: in the order (steps, batch), shared, or (steps, members, batch); -1 is padding."""
    _compile.count_trace()
    members = len(run.rate)
    own = orders.ndim == 3
    steps = member.steps[0]

    def goes(carry: tuple[Array, Run]) -> Array:
        return (carry[0] < span.count) & jnp.any(carry[1].running)

    def body(carry: tuple[Array, Run]) -> tuple[Array, Run]:
        number, run = carry
        rows = jax.lax.dynamic_index_in_dim(orders, number, keepdims=False)

        def one(run: Run, member: Member, rows: Array) -> Run:
            return _step(run, member, tables, rows, program)

        run = over(one, members, own)(run, member, rows)

        def close(run: Run) -> Run:
            return over(lambda run, member: _close(run, member, tables.validation, program), members)(run, member)

        if program.apart:
            return number + 1, run
        return number + 1, jax.lax.cond((span.first + number + 1) % steps == 0, close, lambda run: run, run)

    return jax.lax.while_loop(goes, body, (jnp.zeros((), jnp.int32), run))[1]


@_compile.jit
def outputs_of(run: Run, member: Member, x: Any, program: Program) -> Array:
    """Return what the members say of some rows, (members, rows, out)."""

    def one(run: Run, member: Member) -> Array:
        bound = program.recipe.bind(member.numbers | {"learning_rate": run.rate})
        return bound.apply(run.state.params, x)

    return over(one, len(run.rate))(run, member)


@_compile.jit
def close(run: Run, member: Member, outputs: Any, seen: Any, program: Program) -> Run:
    """End an epoch, given the members' outputs on the validation data and its (y, weight or None)."""

    def one(run: Run, member: Member, outputs: Any) -> Run:
        return _close(run, member, (outputs, *seen), program)

    return over(one, len(run.rate))(run, member, outputs)


def over(function: Callable[..., Any], members: int, own: bool = True) -> Callable[..., Any]:
    """Map over the leading axis of the arguments, but for a last one that is shared; one member goes unmapped."""

    def alone(*args: Any) -> Any:
        cut = [jax.tree.map(lambda a: a[0], a) for a in (args if own else args[:-1])]
        found = function(*cut, *(() if own else args[-1:]))
        return jax.tree.map(lambda a: a[None], found)

    def together(*args: Any) -> Any:
        axes = [0] * (len(args) - 1) + [0 if own else None]
        return jax.vmap(function, axes)(*args)

    return alone if members == 1 else together


def _step(run: Run, member: Member, tables: Tables, rows: Array, program: Program) -> Run:
    rate = run.rate
    if program.factor is not None:
        rate = rate * jnp.asarray(program.factor(run.state.step, member.last), rate.dtype)
    bound = program.recipe.bind(member.numbers | {"learning_rate": rate})
    present, place = rows >= 0, jnp.maximum(rows, 0)
    weight = present.astype(run.total.dtype)
    if tables.weight is not None:
        weight = weight * tables.weight[place]
    x, y = jax.tree.map(lambda a: a.at[place].get(mode="promise_in_bounds"), (tables.x, tables.y))
    state = run.state._replace(key=jax.random.wrap_key_data(run.state.key, impl="threefry2x32"))
    state, metrics = training.near_step(state, (x, y, weight), bound, tables.unit)
    state = state._replace(key=run.state.key)
    count = jnp.sum(present).astype(run.total.dtype)
    return run._replace(state=state, total=run.total + metrics.get("reported", metrics["loss"]) * count)


def _close(run: Run, member: Member, validation: Any, program: Program) -> Run:
    """Return the run at the end of an epoch, by scikit-learn's rules."""
    loss = run.total / member.rows.astype(run.total.dtype)
    told = {"loss": loss}
    if validation is not None:
        told |= _validate(run, member, validation, program)
    told = {name: value.astype(run.total.dtype) for name, value in told.items()}
    moved, better = _judged(run, member, told, program)
    moved = _paced(moved, member, program)._replace(epoch=run.epoch + 1)
    goes = run.running  # of a run that has ended all stays as it was at its end
    large = {
        "state": run.state,
        "kept": _where(goes & better, run.state.params, run.kept),
        "curves": {
            name: curve.at[run.epoch].set(jnp.where(goes, told[name], curve[run.epoch]))
            for name, curve in run.curves.items()
        },
        "total": jnp.zeros_like(run.total),
    }
    small = _where(goes, *(a._replace(**dict.fromkeys(large)) for a in (moved, run)))
    return small._replace(**large)


def _where(condition: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _judged(run: Run, member: Member, told: dict[str, Array], program: Program) -> tuple[Run, Array]:
    """Count the epochs without an improvement, and return whether the weights of this one are kept."""
    if program.early_stopping:
        score = told["score"]
        worse, better = score < run.best + member.tol, score > run.best
        best = jnp.where(better, score, run.best)
    else:
        loss = told["loss"]
        worse, better = loss > run.best - member.tol, jnp.ones((), bool)
        best = jnp.where(loss < run.best, loss, run.best)
    return run._replace(best=best, waited=jnp.where(worse, run.waited + 1, 0)), better


def _paced(run: Run, member: Member, program: Program) -> Run:
    """Set the rate of the next epoch, and end the run that has waited for too long."""
    seen, rate, waited = run.seen + member.rows.astype(run.seen.dtype), run.rate, run.waited
    if program.learning_rate == "invscaling":
        rate = member.rate / (seen + 1).astype(rate.dtype) ** member.power
    enough = waited > member.patience
    ends = enough
    if program.learning_rate == "adaptive":
        ends = enough & (rate <= SMALLEST_RATE)
        rate = jnp.where(enough & ~ends, rate / 5, rate)
        waited = jnp.where(enough & ~ends, 0, waited)
    return run._replace(seen=seen, rate=rate, waited=waited, running=~ends)


def _validate(run: Run, member: Member, validation: Any, program: Program) -> dict[str, Array]:
    """Return score and loss of the validation data, without the penalty and without smoothed labels."""
    x, y, weight = validation
    bound = program.recipe.bind(member.numbers | {"learning_rate": run.rate})
    outputs = x if program.apart else bound.apply(run.state.params, x)
    numbers = {**bound.numbers.loss, "penalty": jnp.zeros((), outputs.dtype)}
    if "label_smoothing" in numbers:
        numbers["label_smoothing"] = jnp.zeros((), outputs.dtype)
    objective: Any = program.recipe.loss
    found = objective(outputs, y, params=run.state.params, weight=weight, **numbers)
    losses = found[1]["reported"] if isinstance(found, tuple) else found
    mean = jnp.mean(losses) if weight is None else jnp.sum(losses * weight) / jnp.sum(weight)
    score: Any = program.score
    return {"score": score(outputs, y, weight=weight), "validation_loss": mean}
