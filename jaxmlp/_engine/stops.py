"""When a run ends before its last epoch: patience, a target, a wall-clock budget, halving."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxmlp import _check


class Patience(NamedTuple):
    """Stop when the validation loss did not fall by more than `min_improvement` for so many epochs; keep the best.

    Prechelt 1998 (doi 10.1007/3-540-49430-8_3). The parameters that come back are those of the best epoch.
    """

    epochs: Any
    min_improvement: Any = 0.0


class Target(NamedTuple):
    """Stop at the first epoch whose entry `metric` of the history is `at_least`, or `at_most`, so much.

    >>> Target("validation_accuracy", at_least=0.97)
    Target(metric='validation_accuracy', at_least=0.97, at_most=None)
    """

    metric: str
    at_least: Any = None
    at_most: Any = None


class Budget(NamedTuple):
    """Stop at the end of the chunk in which this call has used so many seconds; the next call goes on from there."""

    seconds: float


class Halving(NamedTuple):
    """Of a population, let the best 1 / factor go on after first, factor first, factor^2 first ... epochs.

    Jamieson and Talwalkar 2016 (arXiv 1502.07943); as `population.halving`.
    """

    factor: float = 3
    first: int = 1
    by: str = "validation_loss"

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


class Bound(NamedTuple):
    """What a target asks of a metric."""

    at_least: Any
    at_most: Any


class Rules(NamedTuple):
    """The rules that are read inside the compiled program, at each epoch's end: their numbers are traced."""

    patience: Patience | None = None
    targets: dict[str, Bound] = {}  # noqa: RUF012  (never written to)


class Stops(NamedTuple):
    """All rules of a run, sorted by who reads them."""

    rules: Rules
    budget: Budget | None
    halving: Halving | None


def stops(stop: Any, *, validation: bool, members: bool) -> Stops:
    """Check the rules and sort them.

    Raises:
      ValueError: for what is no rule, for two of a kind, and for a rule that lacks what it watches.
    """
    given = [stop] if isinstance(stop, Patience | Target | Budget | Halving) else stop
    given = [] if given is None else given
    if not isinstance(given, Iterable) or not all(isinstance(r, Patience | Target | Budget | Halving) for r in given):
        raise ValueError(f"stop must be Patience, Target, Budget or Halving, or a list of them; got {stop!r}")
    given = list(given)
    for kind in (Patience, Budget, Halving):
        if sum(isinstance(rule, kind) for rule in given) > 1:
            raise ValueError(f"stop must name at most one {kind.__name__}; got {given}")
    patience = next((rule for rule in given if isinstance(rule, Patience)), None)
    budget = next((rule for rule in given if isinstance(rule, Budget)), None)
    halving = next((rule for rule in given if isinstance(rule, Halving)), None)
    if patience is not None:
        patience = check_patience(patience, validation)
    if budget is not None and not 0 < budget.seconds < math.inf:
        raise ValueError(f"Budget must have seconds above 0; got {budget.seconds!r}")
    if halving is not None:
        check_halving(halving)
        if not members:
            raise ValueError("Halving must have a population to choose from; pass keys of shape (members,)")
    targets = {}
    for target in given:
        if isinstance(target, Target):
            if (target.at_least is None) == (target.at_most is None):
                raise ValueError(f"Target must say either at_least or at_most; got {target}")
            if target.metric in targets:
                raise ValueError(f"stop must name at most one Target of {target.metric!r}; got {given}")
            numbers = [None if b is None else float(b) for b in (target.at_least, target.at_most)]
            targets[target.metric] = Bound(*numbers)
    return Stops(Rules(patience, targets), budget, halving)


def check_patience(patience: Patience, validation: bool) -> Patience:
    """Raise unless patience has whole epochs, an improvement of at least 0 and a validation loss to watch."""
    epochs = _check.positive_int("patience", patience.epochs)
    if not validation:
        raise ValueError("patience must have validation data to watch; pass validation=(x, y)")
    _check.within("min_improvement", patience.min_improvement, 0, math.inf)
    return Patience(epochs, float(patience.min_improvement))


def check_halving(halving: Halving) -> None:
    """Raise unless the population gets smaller from rung to rung."""
    if not halving.factor > 1:
        raise ValueError(f"factor must be above 1; got {halving.factor}")
    _check.positive_int("first", halving.first)
