"""The fits of a search: every setting on every fold, together where they are ours, and what they scored."""

from collections import defaultdict
from typing import Any, NamedTuple

from sklearn.base import clone
from sklearn.model_selection._validation import (
    _fit_and_score,
    _insert_error_scores,
    _warn_or_raise_about_fit_failures,
)
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

from jaxmlp.estimators._population import Outcome, Task, fit_together, fits_together


class Fold(NamedTuple):
    """Rows to fit on and rows to score on, and what a fit on them is given."""

    train: Any
    test: Any
    X: Any
    y: Any
    given: dict[str, Any]


class Done:
    """The `fit` of an estimator that is fitted: it returns it, or raises what went wrong."""

    def __init__(self, estimator: Any, outcome: Outcome):
        self._estimator, self._error = estimator, outcome.error

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return the estimator."""
        if self._error is not None:
            raise self._error
        return self._estimator


class Trials:
    """What a search has tried so far."""

    def __init__(self, search: Any, X: Any, y: Any, routed: Any, scorers: Any):
        self._search, self.X, self.y, self._routed, self._scorers = search, X, y, routed, scorers
        self._params: list[dict[str, Any]] = []
        self.out: list[dict[str, Any]] = []
        self._more: dict[str, list[Any]] = defaultdict(list)
        self.folds: list[Fold] = []  # of the last call
        self.models: list[list[Any]] = []  # of each setting of the last call, a model a fold
        self.results: dict[str, Any] = {}

    def evaluate(
        self, settings: list[dict[str, Any]], splitter: Any = None, more_results: dict[str, list[Any]] | None = None
    ) -> dict[str, Any]:
        """Fit and score all settings, and return `cv_results_` of all that was tried so far.

        Raises:
          ValueError: for no settings, or another number of folds than the splitter promised.
        """
        search, settings = self._search, list(settings)
        splitter = search._checked_cv_orig if splitter is None else splitter
        splits = list(splitter.split(self.X, self.y, **self._routed.splitter.split))
        if len(splits) != search.n_splits_:
            raise ValueError(
                f"cv.split and cv.get_n_splits return inconsistent results. Expected {search.n_splits_} splits, got "
                f"{len(splits)}"
            )
        if search.verbose > 0:
            count, folds = len(settings), len(splits)
            print(f"Fitting {folds} folds for each of {count} candidates, totalling {folds * count} fits")
        self.folds = [self._fold(*split) for split in splits]
        out = self._fit(settings)
        if not out:
            raise ValueError("No fits were performed. Was the CV iterator empty? Were there no candidates?")
        _warn_or_raise_about_fit_failures(out, search.error_score)
        if callable(search.scoring):
            _insert_error_scores(out, search.error_score)
        self._params += settings
        self.out += out
        for name, values in (more_results or {}).items():
            self._more[name] += values
        self.results = search._format_results(self._params, search.n_splits_, self.out, self._more)
        return self.results

    def _fold(self, train: Any, test: Any) -> Fold:
        X, y = _safe_split(self._search.estimator, self.X, self.y, train)
        given = _check_method_params(self.X, params=self._routed.estimator.fit, indices=train)
        return Fold(train, test, X, y, dict(given))

    def _fit(self, settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what scikit-learn's own search has of each fit; those that go together are fitted before."""
        search = self._search
        base, tasks = search.seeded(), []
        for setting in settings:
            for fold in self.folds:
                estimator: Any = clone(base)
                own: Any = clone(setting, safe=False)
                tasks.append(Task(estimator.set_params(**own), fold.X, fold.y, fold.given))
        ours = [i for i, task in enumerate(tasks) if fits_together(task)]
        outcomes = fit_together([tasks[i] for i in ours], strict=search.error_score == "raise")
        told = {
            "scorer": self._scorers,
            "fit_params": self._routed.estimator.fit,
            "score_params": self._routed.scorer.score,
            "return_train_score": search.return_train_score,
            "return_n_test_samples": True,
            "return_times": True,
            "return_estimator": search.ensemble is not None,
            "error_score": search.error_score,
            "verbose": search.verbose,
        }

        def of(i: int) -> dict[str, Any]:
            setting, fold = divmod(i, len(self.folds))
            return told | {
                "train": self.folds[fold].train,
                "test": self.folds[fold].test,
                "parameters": settings[setting],
                "split_progress": (fold, len(self.folds)),
                "candidate_progress": (setting, len(settings)),
            }

        out: list[Any] = [None] * len(tasks)
        for i, outcome in zip(ours, outcomes, strict=True):
            estimator = tasks[i].estimator
            estimator.fit = Done(estimator, outcome)
            out[i] = _fit_and_score(estimator, self.X, self.y, **of(i)) | {"fit_time": outcome.seconds}
            del estimator.fit
        alone = sorted(set(range(len(tasks))) - set(ours))
        if alone:
            run = Parallel(n_jobs=search.n_jobs, pre_dispatch=search.pre_dispatch)
            calls = (delayed(_fit_and_score)(tasks[i].estimator, self.X, self.y, **of(i)) for i in alone)
            for i, each in zip(alone, run(calls), strict=True):
                out[i] = each
        if search.ensemble is not None:
            fitted = [each.pop("estimator") for each in out]
            models = [net if each["fit_error"] is None else None for net, each in zip(fitted, out, strict=True)]
            size = len(self.folds)
            self.models = [models[i : i + size] for i in range(0, len(models), size)]
        return out
