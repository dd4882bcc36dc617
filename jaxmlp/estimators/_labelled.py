"""Labels of a classifier as targets of a net: classes, two of them, or many labels a row."""

from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import column_or_1d, validate_data

from jaxmlp import losses, metrics
from jaxmlp.estimators._base import BaseMLP
from jaxmlp.estimators._inputs import Rows, by_class

FEW = 32  # classes whose labels are trained on as rows of zeros and a one


class Labelled(BaseMLP):
    """The labels of a classifier."""

    class_weight: Any
    label_smoothing: float
    classes_: Any

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
            self._check_classes(unique_labels(y), whole=self.warm_start and not incremental)
        return X, self._encoded(y), y

    def _check_classes(self, classes: np.ndarray, *, whole: bool) -> None:
        if whole:
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

    def _weighted(self, weight: Any, labels: np.ndarray, seen: Any = None) -> Any:
        return by_class(weight, self.class_weight, self.classes_, labels, seen)

    def _coded(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        # Of few classes a product with rows of zeros and a one is faster than the gather, whose gradient is a scatter.
        few = y.ndim == 1 and self.loss == "log_loss" and len(self.classes_) <= FEW
        if self.out_activation_ == "logistic" and self.loss == "log_loss":
            return (y + self.label_smoothing * (0.5 - y)).astype(dtype)
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
        return rows.y > 0 if rows.y.shape[1] == 1 else None

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
        if self.label_smoothing and (self.out_activation_ == "softmax" or self.loss != "log_loss"):
            numbers["label_smoothing"] = self.label_smoothing  # of yes and no it is in the targets
        return numbers

    def score_of_outputs(self) -> Any:
        """Return the metric of early stopping."""
        if self.out_activation_ == "softmax":
            return metrics.accuracy
        return metrics.binary_accuracy if self._width() == 1 else metrics.exact_match
