"""The ensemble of a search: the models of its folds, of the settings whose average predicts best out of fold."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.metaestimators import available_if

from jaxmlp.estimators._units import fit_columns
from jaxmlp.population import greedy

ROUNDS = 50  # the most choices; the best prefix of them is kept
SMALLEST = 1e-7  # probability that is told from zero, in float32


def _classifies(ensemble: Any) -> bool:
    """Return whether probabilities are averaged."""
    return is_classifier(ensemble.estimators[0])


class GreedyEnsemble(BaseEstimator):
    """The weighted mean of fitted models, of probabilities or of predictions.

    Args:
      estimators: fitted classifiers with `predict_proba`, or regressors.
      weights: what each counts, (estimators,), of sum one.
      classes: labels of the columns of the mean; None for a regressor, and for many labels a row.
    """

    classes_: Any

    def __init__(self, estimators: list[Any], weights: Any, classes: Any = None):
        self.estimators = estimators
        self.weights = weights
        self.classes = classes
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(estimators[0], name):
                setattr(self, name, getattr(estimators[0], name))
        if _classifies(self):
            self.classes_ = estimators[0].classes_ if classes is None else classes

    def __sklearn_is_fitted__(self) -> bool:
        """Return true: it is made of fitted models."""
        return True

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return labels, or the mean of the predictions; with `return_std` the standard deviation of regressors too.

        Its variance is that of the noise that the models tell, in the mean, and that between the models.

        Raises:
          ValueError: for `return_std` of classifiers.
        """
        if not _classifies(self):
            return self._moments(X) if return_std else self._mean(X)
        if return_std:
            raise ValueError("return_std must be left out of a classifier's predict; use predict_proba(X)")
        mean = self._mean(X)
        return (mean > 0.5).astype(int) if self.classes is None else self.classes_[mean.argmax(1)]

    @available_if(_classifies)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the mean of the probabilities, (rows, classes)."""
        return self._mean(X)

    @available_if(_classifies)
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of the mean of the probabilities."""
        return np.log(self._mean(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return accuracy, or R^2."""
        score: Any = accuracy_score if _classifies(self) else r2_score
        return float(score(y, self.predict(X), sample_weight=sample_weight))

    def _mean(self, X: Any) -> np.ndarray:
        return self._weighted(told(model, X, self.classes) for model in self.estimators)

    def _moments(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation; each model predicts once."""
        each = []
        for model in self.estimators:
            tells = getattr(model, "tells_spread", False)
            each.append(model.predict(X, return_std=True) if tells else (model.predict(X), 0.0))
        mean = self._weighted(own for own, _ in each)
        return mean, np.sqrt(self._weighted(np.square(noise) + np.square(own - mean) for own, noise in each))

    def _weighted(self, values: Iterable[np.ndarray]) -> np.ndarray:
        return np.asarray(sum(weight * value for weight, value in zip(self.weights, values, strict=True)))

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags, those of its models."""
        return get_tags(self.estimators[0])


def told(model: Any, X: Any, classes: Any) -> np.ndarray:
    """Return probabilities of these classes, zero of those that a model has not seen; or predictions."""
    if not is_classifier(model):
        return np.asarray(model.predict(X))
    found = model.predict_proba(X)
    if isinstance(found, list):
        raise ValueError(
            f"ensemble='greedy' must have probabilities as one array; of many labels a row {type(model).__name__} "
            f"gives a list of arrays; use ensemble=None, or one of jaxmlp.estimators"
        )
    if classes is None or len(model.classes_) == len(classes):
        return found
    whole = np.zeros((len(found), len(classes)))
    whole[:, np.searchsorted(classes, model.classes_)] = found
    return whole


def ensemble_of(trials: Any, weight: Any) -> tuple[GreedyEnsemble, np.ndarray]:
    """Return the ensemble, and what each setting counts in it, (settings of the last call,).

    A setting predicts a row by the models of the folds that did not see it. Settings are chosen with repetition by the
    log loss, or the squared error, of their average (Caruana, Niculescu-Mizil, Crew and Ksikes 2004, doi
    10.1145/1015330.1015432); the models of all folds of those chosen make up the ensemble.

    Raises:
      ValueError: for classifiers without probabilities, and where no setting was fitted on every fold.
    """
    y = np.asarray(trials.y)
    y = y.ravel() if y.ndim == 2 and y.shape[1] == 1 else y  # as every fit takes it
    whole = [i for i, models in enumerate(trials.models) if all(model is not None for model in models)]
    if not whole:
        raise ValueError("ensemble='greedy' must have one setting that was fitted on every fold; got none")
    first = trials.models[whole[0]][0]
    if is_classifier(first) and not hasattr(first, "predict_proba"):
        raise ValueError(f"ensemble='greedy' must have probabilities to average; {type(first).__name__} has none")
    classes = np.unique(y) if is_classifier(first) and y.ndim == 1 else None
    seen = np.zeros(len(y))
    for fold in trials.folds:
        seen[fold.test] += 1
    rows = np.flatnonzero(seen)
    each = np.stack([_out_of_fold(trials, trials.models[i], classes) for i in whole])[:, rows]
    each /= seen[rows].reshape(-1, *[1] * (each.ndim - 2))
    counts = np.ones(len(rows)) if weight is None else np.asarray(weight, float)[rows]
    targets = np.searchsorted(classes, y[rows]) if classes is not None else y[rows].astype(float)
    if not is_classifier(first):  # in float32 below, which does not hold what is far from zero
        units = fit_columns(targets.reshape(len(targets), -1), None)
        targets = units.forward(targets.reshape(len(targets), -1), float).reshape(targets.shape)
        each = np.stack([units.forward(a.reshape(len(a), -1), float).reshape(a.shape) for a in each])
    score = jax.tree_util.Partial(_log_loss if is_classifier(first) else _squares, targets, counts / counts.sum())
    chosen = greedy(each.astype(np.float32), score, rounds=ROUNDS)
    shares = np.zeros(len(trials.models))
    np.add.at(shares, np.asarray(whole)[chosen], 1 / len(chosen))
    pairs = [(model, share) for models, share in zip(trials.models, shares, strict=True) if share for model in models]
    size = len(trials.folds)
    return GreedyEnsemble(
        [model for model, _ in pairs], np.array([share / size for _, share in pairs]), classes
    ), shares


def _out_of_fold(trials: Any, models: list[Any], classes: Any) -> np.ndarray:
    """Return the sum of what the models of a setting tell of the rows that they have not seen."""
    found = None
    for model, fold in zip(models, trials.folds, strict=True):
        part = told(model, _safe_indexing(trials.X, fold.test), classes)
        found = np.zeros((len(trials.y), *part.shape[1:])) if found is None else found
        np.add.at(found, fold.test, part)
    return np.asarray(found)


def _log_loss(targets: Any, share: Any, average: Any) -> Any:
    if targets.ndim == 2:
        right = jnp.where(targets > 0, average, 1 - average)
        return -jnp.sum(share[:, None] * jnp.log(jnp.maximum(right, SMALLEST)))
    right = jnp.take_along_axis(average, targets[:, None], 1)[:, 0]
    return -jnp.sum(share * jnp.log(jnp.maximum(right, SMALLEST)))


def _squares(targets: Any, share: Any, average: Any) -> Any:
    spread = jnp.maximum(jnp.var(targets, axis=0), jnp.finfo(targets.dtype).tiny)
    return jnp.sum(share @ (jnp.square(average - targets) / spread))
