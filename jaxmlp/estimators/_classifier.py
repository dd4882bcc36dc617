"""The classifier: labels of any kind to logits, and logits to labels and probabilities."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from jaxmlp import losses, metrics
from jaxmlp.estimators._base import BaseMLP
from jaxmlp.estimators._checks import check_solver, rows_of
from jaxmlp.estimators._inputs import Rows, by_class
from jaxmlp.estimators._parameters import OURS, THEIRS, keep
from jaxmlp.estimators._watching import CallbackSupport

FEW = 32  # classes whose labels are trained on as rows of zeros and a one


class MLPClassifier(CallbackSupport, ClassifierMixin, BaseMLP):
    """A multi-layer perceptron that tells classes."""

    _parameter_constraints: dict[str, Any] = {
        **THEIRS,
        **OURS,
        "loss": [str, callable],
        "label_smoothing": [float, int],
        "class_weight": [dict, str, None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        loss: Any = "log_loss",
        loss_params: Any = None,
        label_smoothing: float = 0.0,
        class_weight: Any = None,
        norm: Any = None,
        residual: bool = False,
        dropout: float = 0.0,
        optimizer: Any = None,
        schedule: Any = None,
        n_members: int = 1,
        scale: bool = True,
        dtype: Any = None,
        device: Any = None,
    ):
        keep(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None) -> "MLPClassifier":
        """Fit."""
        return self._fit(X, y, {"sample_weight": sample_weight, "X_val": X_val, "y_val": y_val})

    @available_if(check_solver)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> "MLPClassifier":
        """Take one epoch."""
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer().fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, {"sample_weight": sample_weight}, incremental=True)

    def predict(self, X: Any) -> Any:
        """Return labels."""
        probabilities = self._probabilities(X)
        return self._label_binarizer.inverse_transform(probabilities)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities."""
        found = self._probabilities(X)
        if found.ndim == 1:
            return np.vstack([1 - found, found]).T
        return found

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return log probabilities."""
        found = self.predict_proba(X)
        return np.log(found, out=found)

    def _probabilities(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        outputs = self._net(rows_of(self, X))
        found = _softmax(outputs) if self.out_activation_ == "softmax" else _logistic(outputs)
        found = found.mean(0) if found.ndim == 3 else found
        return found.ravel() if self.n_outputs_ == 1 else found

    def _validate(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> Any:
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, dtype=(np.float64, np.float32), reset=reset
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            self._check_classes(unique_labels(y))
        return X, self._encoded(y), y

    def _check_classes(self, classes: np.ndarray) -> None:
        if self.warm_start:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    f"warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        rows = self._label_binarizer.transform(y)
        multiclass = self._label_binarizer.y_type_ == "multiclass"
        self.out_activation_ = "softmax" if multiclass and rows.shape[1] > 1 else "logistic"
        return rows.argmax(1) if self.out_activation_ == "softmax" else rows.astype(np.float64)

    def _weighted(self, weight: Any, labels: np.ndarray) -> Any:
        return by_class(weight, self.class_weight, self.classes_, labels)

    def _coded(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        # Of few classes a product with rows of zeros and a one is faster than the gather, whose gradient is a scatter.
        few = y.ndim == 1 and self.loss == "log_loss" and len(self.classes_) <= FEW
        return np.eye(len(self.classes_), dtype=dtype)[y] if few else y

    def _told(self) -> dict[str, Any]:
        kind = self._label_binarizer.y_type_
        return {"classes": self.classes_.tolist(), "labels": self.classes_.dtype.str, "targets": kind}

    def _hear(self, told: dict[str, Any]) -> None:
        classes = np.array(told["classes"], dtype=np.dtype(told["labels"]))
        many = told["targets"].startswith("multilabel")
        self._label_binarizer = LabelBinarizer().fit(np.eye(len(classes), dtype=int) if many else classes)
        self.classes_ = self._label_binarizer.classes_

    def _strata(self, rows: Rows) -> Any:
        if rows.y.ndim == 1:
            return None
        return rows.y if rows.y.shape[1] == 1 else None

    def _width(self) -> int:
        count = len(self.classes_)
        return 1 if self._label_binarizer.y_type_ == "binary" or count == 1 else count

    def _targets(self) -> int:
        return 1

    def _scales_targets(self) -> bool:
        return False

    def _folds_targets(self) -> bool:
        return False

    def _head_of_scaled(self) -> str:
        return "values"

    def _loss(self) -> Any:
        if callable(self.loss):
            return self.loss
        multiclass = self.out_activation_ == "softmax"
        if self.loss == "log_loss":
            return losses.cross_entropy if multiclass else losses.binary_cross_entropy
        if self.loss == "focal":
            return losses.focal
        raise ValueError(f"loss must be 'log_loss', 'focal' or a function; got {self.loss!r}")

    def numbers_of_loss(self) -> dict[str, Any]:
        """Return the numbers of the loss."""
        numbers = dict(self.loss_params or {})
        return numbers | ({"label_smoothing": self.label_smoothing} if self.label_smoothing else {})

    def score_of_outputs(self) -> Any:
        """Return the metric of early stopping."""
        if self.out_activation_ == "softmax":
            return metrics.accuracy
        return metrics.binary_accuracy if self._width() == 1 else metrics.exact_match

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: many labels a row are taken."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _softmax(outputs: np.ndarray) -> np.ndarray:
    moved = np.exp(outputs - outputs.max(-1, keepdims=True))
    return moved / moved.sum(-1, keepdims=True)


def _logistic(outputs: np.ndarray) -> np.ndarray:
    return 0.5 * (np.tanh(0.5 * outputs) + 1)
