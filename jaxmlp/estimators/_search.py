"""The search for settings: scikit-learn's GridSearchCV, RandomizedSearchCV and halving, computed as one population."""

import time
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.model_selection._search import BaseSearchCV, _search_estimator_has
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_method_params, check_is_fitted, indexable

from jaxmlp.estimators._greedy import ensemble_of
from jaxmlp.estimators._settings import Halving, candidates, halve
from jaxmlp.estimators._trials import Trials


class SearchCV(BaseSearchCV):
    """A search for the best settings of an estimator by cross-validation, its fits computed as one population.

    It stands in place of scikit-learn's GridSearchCV, RandomizedSearchCV and their halving forms, and tells what they
    tell: `cv_results_`, `best_estimator_`, `best_params_`, `best_score_`, `best_index_`, `scorer_`, `n_splits_`,
    `refit_time_`, `multimetric_`, and of halving `n_resources_`, `n_candidates_`, `n_remaining_candidates_`,
    `n_iterations_`, `n_required_iterations_`, `n_possible_iterations_`, `min_resources_` and `max_resources_`.

    Each setting on each fold is what `clone(estimator).set_params(**setting).fit(...)` on the rows of that fold gives,
    to rounding: it is checked alone, scaled by its own rows and draws from its own seed. Fits that share a program
    (sizes, activation, solver, batches, epochs) then train together; rates, penalties and all other numbers are each
    one's own. On a processor each core trains members one after the other; on an accelerator 64 train at once, and
    one that has ended leaves its seat to the next. `mean_fit_time` is a fit's share of the time of all, by its epochs.

    What does not train in steps, L-BFGS, and sparse rows, other estimators, a Pipeline around ours, and an estimator
    that is watched (`verbose`, callbacks) is fitted one after the other, in `n_jobs` processes, with the same results.

    Args:
      estimator: an `MLPClassifier` or `MLPRegressor`, or any other estimator of scikit-learn's.
      param_grid: lists of values by name, or a list of such dicts; all combinations are tried.
      param_distributions: lists or distributions (with `rvs`) by name; `n_iter` settings are drawn.
      cv, scoring, refit, return_train_score, error_score, verbose, n_jobs, pre_dispatch: as in GridSearchCV. `scoring`
        may name several metrics, also with halving, where `refit` names the one that decides.
      n_iter: settings that are drawn. None is 10, and with halving as many as leave the last round all resources.
      random_state: of the draws; an int also seeds an estimator that has no seed.
      halving: True, or a dict with some of resource ("n_samples", or a parameter as "max_iter"), factor,
        min_resources, max_resources and aggressive_elimination, as in HalvingGridSearchCV: all settings on little, the
        best 1 / factor of them on factor times as much, and so on (Jamieson and Talwalkar 2016, arXiv 1502.07943).
      ensemble: "greedy" makes `best_estimator_` the weighted mean of the models of the folds, of settings chosen with
        repetition by the log loss or squared error of their average out of fold (Caruana 2004, doi
        10.1145/1015330.1015432); nothing is fitted again. `ensemble_weights_` is what each setting counts; of
        halving, those of the last round. `best_score_` stays that of the best single setting.

    Raises:
      ValueError: in `fit`, unless one of param_grid and param_distributions is given; for what halving does not take;
        for settings that all fail; and in scikit-learn's words for all else that it refuses.

    >>> from sklearn.datasets import load_iris
    >>> from jaxmlp.estimators import MLPClassifier
    >>> net = MLPClassifier((8,), max_iter=99, tol=0.01, n_iter_no_change=3, batch_size=25, random_state=0)
    >>> search = SearchCV(net, {"learning_rate_init": [1e-4, 1e-1]}, cv=3).fit(*load_iris(return_X_y=True))
    >>> search.best_params_
    {'learning_rate_init': 0.1}
    """

    _parameter_constraints: dict[str, Any] = {
        **BaseSearchCV._parameter_constraints,
        "param_grid": [dict, list, None],
        "param_distributions": [dict, list, None],
        "n_iter": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "halving": ["boolean", dict, None],
        "ensemble": [StrOptions({"greedy"}), None],
    }
    best_estimator_: Any
    best_index_: Any
    best_params_: dict[str, Any]
    best_score_: Any
    cv_results_: dict[str, Any]
    ensemble_weights_: np.ndarray
    multimetric_: bool
    n_splits_: Any
    refit_time_: float
    scorer_: Any

    def __init__(
        self,
        estimator: Any,
        param_grid: Any = None,
        param_distributions: Any = None,
        *,
        cv: Any = None,
        scoring: Any = None,
        refit: Any = True,
        n_iter: int | None = None,
        random_state: Any = None,
        halving: Any = None,
        ensemble: str | None = None,
        return_train_score: bool = False,
        error_score: Any = np.nan,
        verbose: int = 0,
        n_jobs: int | None = None,
        pre_dispatch: Any = "2*n_jobs",
    ):
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_grid = param_grid
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.random_state = random_state
        self.halving = halving
        self.ensemble = ensemble

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None, **params: Any) -> "SearchCV":
        """Try all settings on all folds, and fit the best on all rows."""
        if getattr(self, "_skl_callbacks", None):
            raise ValueError(
                "callbacks must be set on the estimator of a search, whose fits they see; got some on the search "
                "itself; call SearchCV(estimator.set_callbacks(...), ...)"
            )
        halving = Halving.of(self.halving)
        scorers, _ = self._get_scorers()
        X, y = indexable(X, y)
        routed = self._get_routed_params_for_fit(_check_method_params(X, params=params))
        checked: Any = check_cv
        self._checked_cv_orig = checked(self.cv, y, classifier=is_classifier(self.estimator))
        self.n_splits_ = self._checked_cv_orig.get_n_splits(X, y, **routed.splitter.split)
        trials = Trials(self, X, y, routed, scorers)
        if halving is None:
            self._run_search(trials.evaluate)
        else:
            halve(self, halving, trials.evaluate, X, y)
        self._choose(trials)
        if self.refit:
            self._refit(trials, routed.estimator.fit)
        self.scorer_ = getattr(scorers, "_scorers", scorers)
        self.cv_results_ = trials.results
        return self

    @available_if(_search_estimator_has("predict"))
    def predict(self, X: Any, **options: Any) -> Any:
        """Return what the best estimator predicts; with options of its own, as `return_std=True`."""
        check_is_fitted(self)
        return self.best_estimator_.predict(X, **options)

    def seeded(self) -> Any:
        """Return a clone of the estimator; where it has no seed and the search has one, it is given one by that."""
        found: Any = clone(self.estimator)
        if isinstance(self.random_state, Integral):
            names = sorted(
                name for name, a in found.get_params().items() if a is None and name.endswith("random_state")
            )
            rng = check_random_state(self.random_state)
            found.set_params(**{name: int(rng.randint(2**31 - 1)) for name in names})
        return found

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any = None) -> None:
        evaluate_candidates(candidates(self, None))

    def _choose(self, trials: Trials) -> None:
        """Hold which setting is the best, by scikit-learn's rules; with halving, the best of the last round."""
        first, results = trials.out[0]["test_scores"], trials.results
        self.multimetric_ = isinstance(first, dict)
        metric = "score"
        if self.multimetric_:
            self._check_refit_for_multimetric(first)
            metric = self.refit
        if not self.refit and self.multimetric_:
            return
        if "iter" in results and not callable(self.refit):
            last = np.flatnonzero(results["iter"] == np.max(results["iter"]))
            scores = results[f"mean_test_{metric}"][last]
            self.best_index_ = last[0 if np.isnan(scores).all() else np.nanargmax(scores)]
        else:
            self.best_index_ = self._select_best_index(self.refit, metric, results)
        if not callable(self.refit):
            self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
        self.best_params_ = results["params"][self.best_index_]

    def _refit(self, trials: Trials, given: dict[str, Any]) -> None:
        """Fit the best setting on all rows, or choose the ensemble."""
        begun = time.time()
        if self.ensemble is not None:
            self.best_estimator_, self.ensemble_weights_ = ensemble_of(trials, given.get("sample_weight"))
        else:
            own: Any = clone(self.best_params_, safe=False)  # a parameter may itself be an estimator
            self.best_estimator_ = self.seeded().set_params(**own)
            self.best_estimator_.fit(*((trials.X,) if trials.y is None else (trials.X, trials.y)), **given)
        self.refit_time_ = time.time() - begun
        names = getattr(self.best_estimator_, "feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = names
