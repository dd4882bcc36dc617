"""Fitted perceptrons of scikit-learn as estimators of ours, and the other way."""

import copy
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from jaxmlp import _check
from jaxmlp.estimators._checks import loss_of
from jaxmlp.estimators._history import forget
from jaxmlp.estimators._parameters import THEIRS
from jaxmlp.estimators._units import Units

TOLD = ("n_iter_", "t_", "loss_", "loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_")


def taken_over(estimator: Any, theirs: Any) -> Any:
    """Return an unfitted estimator of ours as one that was fitted by scikit-learn: its weights, labels and history."""
    estimator.coefs_ = [np.array(w) for w in theirs.coefs_]
    estimator.intercepts_ = [np.array(b) for b in theirs.intercepts_]
    estimator._norms = [(None, None)] * (len(theirs.coefs_) - 1)
    estimator._units, estimator._skips = Units(), False
    estimator.n_features_in_, estimator.out_activation_ = theirs.n_features_in_, theirs.out_activation_
    if hasattr(theirs, "feature_names_in_"):
        estimator.feature_names_in_ = theirs.feature_names_in_
    if is_classifier(theirs):
        estimator._label_binarizer, estimator.classes_ = theirs._label_binarizer, theirs.classes_
    else:
        estimator._outputs_given = theirs.n_outputs_
    estimator._loss_fitted, estimator._curve = loss_of(estimator), estimator.activation
    forget(estimator)
    for name in TOLD:
        if hasattr(theirs, name):
            setattr(estimator, name, copy.copy(getattr(theirs, name)))
    early = estimator.early_stopping and estimator._steps()
    best = getattr(theirs, "best_validation_score_" if early else "best_loss_", None)
    if best is not None:
        estimator._best = np.full(1, float(best))
    estimator._no_improvement_count = np.full(1, getattr(theirs, "_no_improvement_count", 0), np.int32)
    estimator._solver = _solver_of(theirs)
    return estimator


def _solver_of(theirs: Any) -> Any:
    """Return what a solver of scikit-learn's remembers, as `going_on` takes it; None of one that remembers nothing."""
    solver: Any = getattr(theirs, "_optimizer", None)
    if solver is None:
        return None

    def by_layer(arrays: list[Any]) -> list[np.ndarray]:  # theirs are all weights, then all biases
        half = len(arrays) // 2
        return [np.array(a)[None] for layer in zip(arrays[:half], arrays[half:], strict=True) for a in layer]

    if hasattr(solver, "ms"):
        leaves, steps = [np.array([solver.t]), *by_layer(solver.ms), *by_layer(solver.vs)], solver.t
        return leaves, np.array([steps], np.int32), np.array([solver.learning_rate_init])
    return by_layer(solver.velocities), np.zeros(1, np.int32), np.array([solver.learning_rate])


def from_sklearn(kind: Any, theirs: Any) -> Any:
    """Return an estimator of ours, of class `kind`, that predicts what one of scikit-learn predicts.

    Raises:
      ValueError: for what is no fitted perceptron of scikit-learn, of the same side.
    """
    neural: Any = _check.extra("sklearn.neural_network", "sklearn")
    wanted = getattr(neural, kind.__name__)
    if type(theirs) is not wanted or not hasattr(theirs, "coefs_"):
        raise ValueError(f"estimator must be a fitted sklearn.neural_network.{kind.__name__}; got {theirs!r:.200}")
    return taken_over(kind(**theirs.get_params(), scale=False), theirs)


def to_sklearn(estimator: Any) -> Any:
    """Return an estimator of scikit-learn that predicts what one of ours predicts: the scaling lies in its weights.

    Its solver begins anew where it goes on training: what ours remembers is in other units.

    Raises:
      ValueError: for an estimator that is not fitted, or has what scikit-learn's perceptrons have not.
    """
    neural: Any = _check.extra("sklearn.neural_network", "sklearn")
    if not hasattr(estimator, "coefs_"):
        raise ValueError(f"estimator must be fitted, and one that scikit-learn has; got {estimator!r:.200}")
    form = estimator._form
    lacks = {
        "n_members": form["n_members"] == 1,
        "norm": form["norm"] is None,
        "residual": not form["residual"],
        "activation": form["activation"] in ("identity", "logistic", "sigmoid", "tanh", "relu"),
        "loss": estimator.loss in ("log_loss", "squared_error", "poisson"),
    }
    if not all(lacks.values()):
        given = {name: form.get(name, getattr(estimator, name)) for name, fits in lacks.items() if not fits}
        raise ValueError(f"estimator must be one that scikit-learn has; got {given}; it has no such perceptron")
    kind = getattr(neural, type(estimator).__name__)
    names = [name for name in kind().get_params() if name in THEIRS or name == "loss"]
    options = {name: getattr(estimator, name) for name in names}
    options["hidden_layer_sizes"] = form["hidden_layer_sizes"]
    theirs = kind(**options | {"activation": form["activation"].replace("sigmoid", "logistic")})
    theirs.coefs_ = [np.array(w) for w in estimator.coefs_]
    theirs.intercepts_ = [np.array(b) for b in estimator.intercepts_]
    theirs._best_coefs, theirs._best_intercepts = (
        [a.copy() for a in part] for part in (theirs.coefs_, theirs.intercepts_)
    )
    theirs.best_loss_, theirs.best_validation_score_, theirs.validation_scores_ = np.inf, None, None
    theirs.n_layers_, theirs.n_outputs_ = estimator.n_layers_, estimator.n_outputs_
    theirs.n_features_in_, theirs.out_activation_ = estimator.n_features_in_, estimator.out_activation_
    theirs._no_improvement_count = int(estimator._no_improvement_count[0])
    for name in (*TOLD, "feature_names_in_", "classes_", "_label_binarizer"):
        if hasattr(estimator, name):
            setattr(theirs, name, copy.copy(getattr(estimator, name)))  # their lists grow in place
    return theirs
