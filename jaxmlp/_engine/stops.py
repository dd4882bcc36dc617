"""When a run ends before its last epoch: patience, a target, a wall-clock budget, halving."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmlp import _arguments, _check
from jaxmlp._choice import Figure, check_column
from jaxmlp.types import Number, Status


class Patience(NamedTuple):
    """Stop when a figure did not improve by more than `min_improvement` for so many epochs; keep the best weights.

    It must be better by so much than where it last was. The parameters that come back are those of the epoch of the
    best figure, however little better it was; of equal ones that of the first, and NaN is never better. Prechelt 1998
    (doi 10.1007/3-540-49430-8_3). `by` names the column of the history that is watched. Which way is better is known of
    the losses and of the metrics of this library; of others, `largest` says whether the largest value is the best.
    `Patience(recipe.epochs, by=...)` never stops, and brings the best weights.
    """

    epochs: Number
    min_improvement: Number = 0.0
    by: str = "validation_loss"
    largest: bool | None = None

    @property
    def figure(self) -> Figure:
        """What is watched."""
        return Figure(self.by, self.largest)

    def counts_from(self, figures: np.ndarray) -> tuple[Any, int]:
        """Return figure and epoch from which patience counts after these (epochs,), of which the least is the best.

        >>> Patience(5, 0.1).counts_from(np.array([1.0, 0.95, 0.8, 0.75]))
        (np.float64(0.8), 2)
        """
        mark, since = figures.dtype.type(np.inf), 0
        for epoch, figure in enumerate(figures):
            if figure < mark - figures.dtype.type(self.min_improvement):
                mark, since = figure, epoch
        return mark, since


class Waiting(NamedTuple):
    """Patience as the compiled program reads it: numbers that are traced, and a static figure."""

    epochs: Any
    min_improvement: Any
    figure: Figure


class Target(NamedTuple):
    """Stop at the first epoch whose entry `metric` of the history is `at_least`, or `at_most`, so much.

    >>> Target("validation_accuracy", at_least=0.97)
    Target(metric='validation_accuracy', at_least=0.97, at_most=None)
    """

    metric: str
    at_least: Number | None = None
    at_most: Number | None = None


class Budget(NamedTuple):
    """Stop at the end of the chunk in which this call has used so many seconds; a saved run is resumed from there."""

    seconds: float


class Halving(NamedTuple):
    """Of a population, let the best 1 / factor go on after first, factor first, factor^2 first ... epochs.

    Of n members that still run, ceil(n / factor) go on at each of these rungs. Jamieson and Talwalkar 2016 (arXiv
    1502.07943). `by` names the column of the history to rank by. Which way is better is known of the losses and of the
    metrics of this library; of others, `largest` says whether the largest value is the best.
    """

    factor: float = 3
    first: int = 1
    by: str = "validation_loss"
    largest: bool | None = None

    @property
    def figure(self) -> Figure:
        """What members are ranked by."""
        return Figure(self.by, self.largest)

    def rungs(self, epochs: int) -> list[int]:
        """Return after which epochs members are left out.

        >>> Halving(factor=3, first=2).rungs(60)
        [2, 6, 18, 54]
        """
        ends, rung = [], float(self.first)
        while rung < epochs:
            ends.append(int(rung))
            rung *= self.factor
        return list(dict.fromkeys(ends))

    def losers(self, history: Mapping[str, np.ndarray], status: np.ndarray, done: int) -> np.ndarray:
        """Return who is left out after `done` epochs: of those who run, all but the best 1 / factor."""
        alive = np.flatnonzero(status == Status.RUNNING)
        scores = self.figure.less(np.asarray(history[self.by][alive, done - 1]))
        order = alive[np.argsort(scores, kind="stable")]  # NaN is last
        return order[math.ceil(len(alive) / self.factor) :]


Stop = Patience | Target | Budget | Halving


class Limit(NamedTuple):
    """What a target asks of a metric: one of the two is None."""

    at_least: Any
    at_most: Any


class Stops(NamedTuple):
    """The rules of a run, one of a kind, and a target for each of several metrics."""

    patience: Patience | Waiting | None = None
    targets: Mapping[str, Limit] = {}
    budget: Budget | None = None
    halving: Halving | None = None

    @property
    def in_program(self) -> "Stops":
        """The rules that the compiled program reads at each epoch's end: their numbers are traced."""
        patience = self.patience
        waiting = None if patience is None else Waiting(patience.epochs, patience.min_improvement, patience.figure)
        return Stops(waiting, self.targets)

    @property
    def figure(self) -> Figure | None:
        """By what the run is judged: what patience watches, else what halving ranks by; None where there is neither."""
        rule = self.patience or self.halving
        return None if rule is None else rule.figure

    @property
    def watched(self) -> Figure | None:
        """What a run is looked at for: by what it is judged, else the metric of its one target."""
        if self.figure is None and len(self.targets) == 1:
            ((metric, limit),) = self.targets.items()
            return Figure(metric, limit.at_least is not None)
        return self.figure

    @property
    def deadline(self) -> float:
        """When the budget of a call that begins now is used up, on the clock of `time.monotonic`."""
        return math.inf if self.budget is None else time.monotonic() + self.budget.seconds

    def check_names(self, history: Mapping[str, Any], loss: Mapping[str, Any]) -> None:
        """Raise a ValueError unless the history has the columns that rules watch and rank by.

        And unless members are ranked by one quantity: a loss of which members have numbers of their own is several.
        """
        for metric in self.targets:
            check_column("the metric of a Target", metric, history, _needs(metric, history))
        if self.patience is not None:
            self.patience.figure.check(history, _needs(self.patience.figure.name, history))
        if self.halving is not None:
            self.halving.figure.check(history, _needs(self.halving.by, history))
            own = [name for name, values in loss.items() if not (np.asarray(values) == np.asarray(values)[0]).all()]
            if own and self.halving.by in ("loss", "validation_loss"):
                raise ValueError(
                    f"members that are ranked by {self.halving.by!r} must have one loss; got {own[0]!r}, a number of "
                    f"the loss, that differs between members; rank them by a metric: metrics=(...), by='validation_...'"
                )

    def rungs(self, epochs: int) -> list[int]:
        """Return after which epochs the population is halved."""
        return [] if self.halving is None else self.halving.rungs(epochs)

    @staticmethod
    def of(stop: Stop | Iterable[Stop] | None, *, validation: bool, members: bool) -> "Stops":
        """Check the rules and sort them.

        Raises:
          ValueError: for what is no rule, for two of a kind, and for a rule that lacks what it watches.
        """
        given = listed(stop)
        if not all(isinstance(rule, Stop) for rule in given):
            raise ValueError(f"stop must be Patience, Target, Budget or Halving, or a list of them; got {stop!r}")
        for kind in (Patience, Budget, Halving):
            if sum(isinstance(rule, kind) for rule in given) > 1:
                raise ValueError(f"stop must name at most one {kind.__name__}; got {given}")
        found: dict[str, Any] = {}
        targets: dict[str, Limit] = {}
        for rule in given:
            if isinstance(rule, Patience):
                found["patience"] = _patience(rule, validation)
            elif isinstance(rule, Budget):
                found["budget"] = _budget(rule)
            elif isinstance(rule, Halving):
                found["halving"] = _halving(rule, members)
            elif _metric(rule) in targets:
                raise ValueError(f"stop must name at most one Target of {rule.metric!r}; got {given}")
            else:
                targets[rule.metric] = _limit(rule)
        return Stops(targets=targets, **found)


def listed(stop: Any) -> list[Any]:
    """Return one rule, none or several as a list."""
    if stop is None:
        return []
    return list(stop) if isinstance(stop, list | tuple | set) and not isinstance(stop, Stop) else [stop]


def _needs(name: str, history: Mapping[str, Any]) -> str:
    """Return what is said of a column of validation data where there is none, else ''."""
    lacks = name.startswith("validation_") and "validation_loss" not in history
    return "; validation_... are the columns of validation data: pass validation=(x, y)" if lacks else ""


def _patience(rule: Patience, validation: bool) -> Patience:
    epochs = _check.positive_int("patience", rule.epochs)
    figure = rule.figure
    if not validation and figure.name == "validation_loss":
        raise ValueError("patience must have validation data to watch; pass validation=(x, y)")
    least = _arguments.scalar("min_improvement", rule.min_improvement)
    _check.within("min_improvement", least, 0, math.inf)
    return Patience(epochs, least, rule.by, rule.largest)


def _budget(rule: Budget) -> Budget:
    if not 0 < _arguments.scalar("seconds of Budget", rule.seconds) < math.inf:
        raise ValueError(f"Budget must have seconds above 0; got {rule.seconds!r}")
    return rule


def _halving(rule: Halving, members: bool) -> Halving:
    if not _arguments.scalar("factor", rule.factor) > 1:
        raise ValueError(f"factor must be above 1; got {rule.factor}")
    if rule.factor < 1.01:
        raise ValueError(f"factor must be at least 1.01, or rungs have no end; got {rule.factor}")
    _check.positive_int("first", rule.first)
    _ = rule.figure  # its kinds
    if not members:
        raise ValueError("Halving must have a population to choose from; pass keys of shape (members,)")
    return rule


def _limit(rule: Target) -> Limit:
    if (rule.at_least is None) == (rule.at_most is None):
        raise ValueError(f"Target must say either at_least or at_most; got {rule}")
    bounds = {name: getattr(rule, name) for name in Limit._fields}
    limit = Limit(*(None if b is None else _arguments.scalar(f"{name} of Target", b) for name, b in bounds.items()))
    if any(bound is not None and math.isnan(bound) for bound in limit):
        raise ValueError(f"Target must say a number, which no metric is beside NaN; got {rule}")
    return limit


def _metric(rule: Target) -> str:
    _arguments.text("metric of Target", rule.metric)
    return rule.metric
