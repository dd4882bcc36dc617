"""Folds x settings x seeds as one population."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arrays, _check
from jaxmlp import data as tables
from jaxmlp._choice import Figure
from jaxmlp._engine.columns import as_number
from jaxmlp._engine.hosts import hosts_of, together
from jaxmlp._engine.inputs import Each, Inputs, Request, Shared, at_hand, plain, shared
from jaxmlp._engine.options import checked_plan
from jaxmlp._engine.plan import FIRST, Plan
from jaxmlp._preflight import entered
from jaxmlp._trees import is_tree
from jaxmlp.population._fit import Options, train
from jaxmlp.population._selection import ranked
from jaxmlp.population._sweeps import check_members
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import Data, History, Hyperparams, Numeric, Status


class CrossValidation(NamedTuple):
    """What `cross_validate` found."""

    scores: dict[str, Array]  # "loss" and the recipe's metrics on the held-out fold, (members, folds), or (folds,)
    states: State  # leading axis members x folds, folds last
    history: History
    splits: list[tables.Split]
    statistics: list[dict[str, tables.Statistics]]  # of x, and of y where it was standardised, a fold
    seeds: int = 1  # runs of each setting, beside each other in scores

    def ranking(self, *, by: str = "loss", largest: bool | None = None) -> np.ndarray:
        """Return the settings from best to worst by the mean of a score over folds and seeds.

        Args:
          by: a name of `scores`. Each fold counts alike. The losses of settings that differ in a number of the loss
            itself are different quantities: rank those by a metric.
          largest: whether the largest value is the best. It is known of losses and of this library's metrics.

        Returns:
          The numbers of the settings, 0 ... settings - 1, without those of which a run diverged or a score is not
          finite, which a warning counts.

        Raises:
          ValueError: for a score that is not there, one of which it is not known which way is better, or where no
            setting is left.

        >>> rates = np.array([[0.5, 0.75, 0.7], [0.75, 0.5, 1.0]])  # of two settings in three folds
        >>> scores, history = {"loss": rates, "accuracy": rates}, History(status=np.zeros(6, int))
        >>> found = CrossValidation(scores, None, history, [], [])
        >>> found.ranking(by="accuracy").tolist(), found.ranking().tolist()
        ([1, 0], [0, 1])
        """
        figure = Figure(by, largest)
        figure.check(self.scores)
        shape = (-1, self.seeds * np.shape(self.scores["loss"])[-1])  # a setting's runs are beside each other
        means = np.asarray(self.scores[by], np.float64).reshape(shape).mean(1)
        diverged = (np.asarray(self.history["status"]) == Status.DIVERGED).reshape(shape).any(1)
        return ranked(figure.less(means), ~diverged, by, "settings")

    def best(self, *, by: str = "loss", largest: bool | None = None) -> int:
        """Return the number of the best setting by the mean of a score over folds and seeds, the first of `ranking`.

        Args:
          by: a name of `scores`.
          largest: whether the largest value is the best. It is known of losses and of this library's metrics.

        Raises:
          ValueError: for a score that is not there, one of which it is not known which way is better, or where no
            setting is left.

        >>> scores, history = {"loss": np.array([[0.5, 0.7], [0.4, 0.6]])}, History(status=np.zeros(4, int))
        >>> CrossValidation(scores, None, history, [], []).best()
        1
        """
        return int(self.ranking(by=by, largest=largest)[0])


@together
def cross_validate(
    key: Array,
    data: Data,
    recipe: Recipe,
    hyperparams: Hyperparams = None,
    *,
    folds: int = 5,
    stratify: Numeric | None = None,
    seeds: int = 1,
    standardise: str = "x",
    plan: Plan | None = None,
) -> CrossValidation:
    """Train and score all folds x settings x seeds at once, standardised by each fold's training rows.

    The same as a loop over `data.k_folds(fold_key, N, folds)` with `fit` on the standardised rows, where
    fold_key, run_key = split(key) and the run of a setting's seed s has the key fold_in(run_key, s) in every fold.

    Args:
      key: for the folds and the members.
      data: (x, y), tables of N rows.
      recipe: what is trained, by what, how long; one for all.
      hyperparams: numbers of one setting, or {name: (settings,)}.
      folds: how many.
      stratify: labels (N,) whose shares each fold keeps; True takes y.
      seeds: runs of each setting.
      standardise: "x", "xy" (the scores are then in standard deviations of y), or "" for neither.
      plan: how to run.

    Returns:
      scores {name: (settings x seeds, folds)}, seeds last, or (folds,) for one setting and one seed; all that made
      them; and `ranking` and `best`, which choose a setting by a score.

    Raises:
      ValueError: for data, numbers and keys that `population.fit` refuses; for fewer than 2 folds or more than rows.
    """
    key, data, hyperparams, stratify = at_hand((key, data, hyperparams, stratify))
    _check.typed_key(key)
    if not isinstance(standardise, str) or standardise not in ("", "x", "xy"):
        raise ValueError(f"standardise must be 'x', 'xy', or '' for neither; got {standardise!r}")
    if not isinstance(data, tuple | list) or len(data) != 2 or not all(map(_arrays.is_like_array, data)):
        raise ValueError(f"data must be two arrays, (x, y); got {type(data).__name__} {_check.length(data)}")
    x, y = entered(data)
    n = _check.examples("data", x, y, None)
    seeds = _check.positive_int("seeds", seeds)
    fold_key, run_key = jax.random.split(key)
    found, xs, ys = [], [], []
    for split in (splits := tables.k_folds(fold_key, n, folds, stratify=y if stratify is True else stratify)):
        one, scaled = {}, {"x": x, "y": y}  # as they are: float64 must be centred before it is narrowed
        for name in standardise:
            one[name] = tables.statistics(scaled[name][np.asarray(split.train)])
            scaled[name] = tables.standardise(scaled[name], one[name])
        found.append(one)
        xs.append(jnp.asarray(scaled["x"]))
        ys.append(jnp.asarray(scaled["y"]))
    # One table of all folds' rows, each standardised its own way: members own rows of it, and none is copied a member.
    table = jnp.concatenate(xs), jnp.concatenate(ys)
    own = _padded([np.asarray(split.train) + i * n for i, split in enumerate(splits)])
    held_out = _padded([np.asarray(split.test) + i * n for i, split in enumerate(splits)])

    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be one Recipe for all; got {_check.describe(recipe)}")
    if not isinstance(hyperparams, Mapping | None):
        raise ValueError(f"hyperparams must be a dict of numbers; got {_check.describe(hyperparams)}")
    hyperparams = {name: _numbers(name, value) for name, value in (hyperparams or {}).items()}
    stacked = {name: not is_tree(value) and np.ndim(value) > 0 for name, value in hyperparams.items()}
    lengths = {len(value) for name, value in hyperparams.items() if stacked[name]}
    if len(lengths) > 1:
        raise ValueError(f"hyperparams must have one entry for each setting; got lengths {sorted(lengths)}")
    check_members((settings_ := max(lengths, default=1)) * folds, seeds)
    member = np.arange(settings_ * seeds * folds)
    setting, seed, fold = np.unravel_index(member, (settings_, seeds, folds))
    keys = jnp.stack([jax.random.fold_in(run_key, s) for s in range(seeds)])[seed]
    numbers = {name: jnp.asarray(value)[setting] if stacked[name] else value for name, value in hyperparams.items()}
    inputs = Inputs(shared(*table), rows=own[fold], validation_rows=held_out[fold])
    states, history = train(Request(keys, inputs, recipe, numbers), options=Options(_checked(plan)))
    shape = (settings_ * seeds, folds) if any(stacked.values()) or seeds > 1 else (folds,)
    scores = {
        name.removeprefix("validation_"): jnp.asarray(values[:, -1]).reshape(*shape, *values.shape[2:])
        for name, values in history.items()
        if name.startswith("validation_")
    }
    return CrossValidation(scores, states, history, splits, found, seeds)


def _checked(plan: Any) -> Plan | None:
    plan = checked_plan(plan)
    if plan is not None and plan.results == FIRST and hosts_of(plan.devices).many:
        raise ValueError(
            "plan must bring the results to all processes, each of which chooses by the scores; got results='first'; "
            "pass 'everywhere', or 'sharded' for states that stay on their devices"
        )
    return plan


def _numbers(name: str, value: Any) -> Any:
    """Return one number, or those of all settings (settings,); of arrays that are not trained, those of all members."""
    what = f"hyperparams[{name!r}]"
    if isinstance(value, Each):
        raise ValueError(f"{what} must be shared by all folds and seeds; got population.each; pass shared(tree)")
    if isinstance(value, Shared) or is_tree(value):
        return Shared(plain(value))
    return as_number(what, value) if isinstance(value, list | tuple) else _arrays.number(what, value)


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    """Stack index rows of unequal length, -1 where there is none."""
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row)), constant_values=-1) for row in rows])
