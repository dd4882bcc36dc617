"""What a compiled program of a population is given and gives back: where each member stands, and what is to be done."""

from typing import Any, NamedTuple

from jax import Array

from jaxmlp._engine.inputs import Member, Tables
from jaxmlp._engine.stops import Stops
from jaxmlp.training import State
from jaxmlp.types import Number, Numeric, Params


class Best(NamedTuple):
    """The best weights so far, by the figure that patience watches, and what patience counts from."""

    params: Params
    loss: Array  # (), the figure; its negative where the largest is the best; infinite where there was none yet
    epoch: Array  # ()
    mark: Array  # (), the same when it last improved by more than the least improvement
    since: Array  # (), the epoch of that


class Run(NamedTuple):
    """Where a member stands."""

    state: State
    status: Array  # () int32
    epochs: Array  # () int32, epochs done
    history: dict[str, Array]  # (epochs,) each, zero where the member did not come to; the executor shows it as NaN
    best: Best | None
    mean: Any  # Mean of the losses of an epoch that is under way: only a stream stops inside one


class Work(NamedTuple):
    """What does not change while members train."""

    members: Member
    tables: Tables
    stops: Stops  # those that the program reads


class Order(NamedTuple):
    """Which members a call trains: on each device the first `blocks` blocks of those listed in `slots`."""

    slots: Numeric  # (devices x slots,) int32, those that still run first
    blocks: Numeric  # (devices,) int32


class EpochSpan(NamedTuple):
    """The epochs first ... last - 1."""

    first: Number  # () int32
    last: Number


class BatchSpan(NamedTuple):
    """The first `count` batches of a stack; with `closes` they are the last of that `epoch`."""

    count: Any  # () int32
    closes: Any
    epoch: Any


def with_key(run: Run, key: Array) -> Run:
    """Return the run with another key, or with the same in another form."""
    return run._replace(state=run.state._replace(key=key))
