"""The settings of a search: a grid or draws, all at once or by successive halving."""

from collections.abc import Callable
from math import ceil, floor, log
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.model_selection._split import _yields_constant_splits
from sklearn.utils import resample
from sklearn.utils.validation import _num_samples

from jaxmlp import _check

DRAWS = 10  # where `n_iter` is None and nothing is halved


class Halving(NamedTuple):
    """What `halving=` may hold, under scikit-learn's names."""

    resource: str = "n_samples"
    factor: float = 3
    min_resources: Any = "exhaust"
    max_resources: Any = "auto"
    aggressive_elimination: bool = False

    @staticmethod
    def of(given: Any) -> "Halving | None":
        """Return it as it was given: a dict, True for the defaults, False or None for none.

        Raises:
          ValueError: for names or values that it does not take.
        """
        if given is None or given is False:
            return None
        if given is True:
            return Halving()
        if not isinstance(given, dict) or not set(given) <= set(Halving._fields):
            raise ValueError(
                f"halving must be True, False or a dict with keys among {', '.join(Halving._fields)}; got "
                f"{_check.shown(given)}"
            )
        found = Halving(**given)
        if not found.factor > 1:
            raise ValueError(f"halving's factor must be above 1; got {_check.shown(found.factor)}")
        for name, words in (("min_resources", ("exhaust", "smallest")), ("max_resources", ("auto",))):
            value = getattr(found, name)
            if value not in words and not (isinstance(value, int | np.integer) and value > 0):
                options = " or ".join(map(repr, words))
                raise ValueError(f"halving's {name} must be {options}, or a positive int; got {_check.shown(value)}")
        return found


class Plan(NamedTuple):
    """The resources of each round of halving, and how many rounds there might have been."""

    resources: list[int]
    required: int
    possible: int
    least: int
    most: int


class Subsample:
    """A splitter that keeps a fraction of the rows of each side, drawn as scikit-learn's halving draws them."""

    def __init__(self, splitter: Any, fraction: float, random_state: Any):
        self._splitter, self._fraction, self._random_state = splitter, fraction, random_state

    def split(self, X: Any, y: Any, **groups: Any) -> Any:
        """Yield rows to fit on and rows to score on."""
        for sides in self._splitter.split(X, y, **groups):
            yield tuple(self._some(side) for side in sides)

    def _some(self, rows: Any) -> Any:
        count = int(self._fraction * len(rows))
        return resample(rows, replace=False, random_state=self._random_state, n_samples=count)


def candidates(search: Any, most: int | None) -> list[dict[str, Any]]:
    """Return the settings of a search; `most` is how many there may be where `n_iter` leaves that open.

    Raises:
      ValueError: unless one of grid and distributions is given.
    """
    grid, distributions = search.param_grid, search.param_distributions
    if (grid is None) == (distributions is None):
        given = "neither" if grid is None else "both"
        raise ValueError(
            f"SearchCV must have one of param_grid, which is tried whole, and param_distributions, of which n_iter are "
            f"drawn; got {given}"
        )
    if grid is not None:
        return list(ParameterGrid(grid))
    count = search.n_iter if search.n_iter is not None else DRAWS if most is None else most
    return list(ParameterSampler(distributions, count, random_state=search.random_state))


def bounds(search: Any, halving: Halving, X: Any, y: Any) -> tuple[int, int]:
    """Return the least and the most of the resource, by scikit-learn's rules.

    Raises:
      ValueError: for a resource that the estimator does not have, or bounds that leave nothing between them.
    """
    rows = halving.resource == "n_samples"
    if not rows and halving.resource not in search.estimator.get_params():
        raise ValueError(
            f"Cannot use resource={halving.resource} which is not supported by estimator "
            f"{search.estimator.__class__.__name__}"
        )
    least, most = halving.min_resources, halving.max_resources
    if least in ("smallest", "exhaust"):
        least = 1
        if rows:
            least = 2 * search.n_splits_ * (len(np.unique(y)) if is_classifier(search.estimator) else 1)
    if most == "auto":
        if not rows:
            raise ValueError("resource can only be 'n_samples' when max_resources='auto'")
        most = _num_samples(X)
    if least > most:
        raise ValueError(f"min_resources_={least} is greater than max_resources_={most}.")
    return int(least), int(most)


def plan(halving: Halving, count: int, least: int, most: int) -> Plan:
    """Return the rounds of halving for so many settings, each with `factor` times the resources of the one before.

    Karnin, Koren and Somekh 2013; Jamieson and Talwalkar 2016 (arXiv 1502.07943).
    """
    factor = halving.factor
    required = 1 + floor(log(count, factor))
    if halving.min_resources == "exhaust":
        least = max(least, int(most // factor ** (required - 1)))
    possible = 1 + floor(log(most // least, factor))
    rounds = required if halving.aggressive_elimination else min(possible, required)
    late = required - possible if halving.aggressive_elimination else 0
    each = [min(int(factor ** max(0, i - late) * least), most) for i in range(rounds)]
    return Plan(each, required, possible, least, most)


def halve(search: Any, halving: Halving, evaluate: Callable[..., Any], X: Any, y: Any) -> None:
    """Try all settings on little, and the best of them on more, round by round."""
    if not _yields_constant_splits(search._checked_cv_orig):
        raise ValueError(
            "The cv parameter must yield consistent folds across calls to split(). Set its random_state to an int, or "
            "set shuffle=False."
        )
    least, most = bounds(search, halving, X, y)
    settings = candidates(search, most // least)
    if halving.resource != "n_samples" and any(halving.resource in setting for setting in settings):
        raise ValueError(
            f"Cannot use parameter {halving.resource} as the resource since it is part of the searched parameters."
        )
    found = plan(halving, len(settings), least, most)
    search.min_resources_, search.max_resources_ = found.least, found.most
    search.n_required_iterations_, search.n_possible_iterations_ = found.required, found.possible
    search.n_resources_, search.n_candidates_, search.n_iterations_ = found.resources, [], len(found.resources)
    for i, amount in enumerate(found.resources):
        search.n_candidates_.append(len(settings))
        splitter = search._checked_cv_orig
        if halving.resource == "n_samples":
            splitter = Subsample(splitter, amount / _num_samples(X), search.random_state)
        else:
            settings = [{**setting, halving.resource: amount} for setting in settings]
        told = {"iter": [i] * len(settings), "n_resources": [amount] * len(settings)}
        results = evaluate(settings, splitter, more_results=told)
        settings = _best(results, i, ceil(len(settings) / halving.factor), search.refit)
    search.n_remaining_candidates_ = len(settings)


def _best(results: dict[str, Any], turn: int, keep: int, refit: Any) -> list[dict[str, Any]]:
    """Return the best settings of a round, the best last; those without a score come first.

    Raises:
      ValueError: for several metrics of which `refit` names none.
    """
    metric = "score" if "mean_test_score" in results else refit
    if not isinstance(metric, str):
        raise ValueError(
            f"with halving and several metrics, refit must name the one that decides; got {_check.shown(refit)}"
        )
    which = np.flatnonzero(np.asarray(results["iter"]) == turn)
    scores = results[f"mean_test_{metric}"][which]
    order = np.roll(np.argsort(scores), np.count_nonzero(np.isnan(scores)))
    return [results["params"][which[i]] for i in order[-keep:]]
