"""What comes in: weights, rows of weight zero, validation data set aside, and rows in the units of the net."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import compute_class_weight

from jaxmlp.estimators._units import Units, fit_columns


class Rows(NamedTuple):
    """Checked rows: X (N, in) dense or sparse, the targets of the net, and what each row counts."""

    x: Any
    y: np.ndarray
    weight: np.ndarray | None

    def take(self, which: Any) -> "Rows":
        """Return some of the rows."""
        return Rows(self.x[which], self.y[which], None if self.weight is None else self.weight[which])


class Ready(NamedTuple):
    """What a run is made of, before anything is put on a device."""

    rows: Rows
    validation: Rows | None
    rngs: list[Any]  # of each member, past its first weights
    batch_size: int
    dtype: Any


def present(rows: Rows) -> Rows:
    """Return the rows that count at all: one of weight zero is as if it were not there.

    Raises:
      ValueError: for weights that are negative, or zero for every row.
    """
    if rows.weight is None:
        return rows
    if not ((rows.weight >= 0) & np.isfinite(rows.weight)).all():
        raise ValueError(
            "Negative values in class_weight, or some that are not finite; each class counts zero or more."
        )
    counts = rows.weight > 0
    if not counts.any():
        raise ValueError("sample_weight must be above zero for one sample at least; got zeros alone")
    return rows if counts.all() else rows.take(np.flatnonzero(counts))


def near_one(weight: np.ndarray | None) -> tuple[np.ndarray | None, float]:
    """Return weights near one, and the power of two that they were divided by, so that no sum of them overflows."""
    if weight is None or 2.0**-40 < weight.max() < 2.0**40:
        return weight, 1.0
    unit = float(2.0 ** np.floor(np.log2(weight.max())))
    return weight / unit, unit


def by_class(weight: Any, class_weight: Any, classes: Any, y: np.ndarray, seen: Any = None) -> Any:
    """Return what each row counts: its weight times that of its class, balanced over the (labels, weight) of `seen`.

    Raises:
      ValueError: for classes that are not among the labels, in scikit-learn's words; for rows of many labels.
    """
    if class_weight is None:
        return weight
    if y.ndim == 2:
        raise ValueError(
            f"class_weight must be None where a row has many labels; got {class_weight!r} for {y.shape[1]} labels; "
            f"weigh rows by sample_weight"
        )
    where = np.searchsorted(classes, y)
    labels, counted = (y, weight) if seen is None else seen
    if class_weight == "balanced" and counted is not None:
        counts = np.bincount(np.searchsorted(classes, labels), counted, len(classes))
        each = np.where(counts > 0, counts.sum() / ((counts > 0).sum() * np.where(counts > 0, counts, 1)), 0)
    else:
        each = compute_class_weight(class_weight, classes=classes, y=labels)
    return each[where] if weight is None else weight * each[where]


def set_aside(rows: Rows, fraction: float, rng: Any, stratify: np.ndarray | None) -> tuple[Rows, Rows]:
    """Return rows to train on and rows to validate on, split as scikit-learn's perceptron splits them.

    Raises:
      ValueError: for a validation set of fewer than two rows.
    """
    parts = [rows.x, rows.y, *([] if rows.weight is None else [rows.weight])]
    cut: Any = train_test_split(*parts, random_state=rng, test_size=fraction, stratify=stratify)
    left, right = (Rows(*cut[i::2], *([None] if rows.weight is None else [])) for i in (0, 1))
    if right.x.shape[0] < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return left, right


def units_of(rows: Rows, *, x: bool, y: bool) -> Units:
    """Return the scaling of inputs and targets that these rows ask for."""
    return Units(
        fit_columns(rows.x, rows.weight) if x else None,
        fit_columns(rows.y, rows.weight) if y else None,
    )


def scaled_rows(units: Units, dtype: Any) -> Callable[[Any], np.ndarray]:
    """Return the function that makes rows of X, dense or sparse, dense in the units of the net."""

    def dense(x: Any) -> np.ndarray:
        values = x if isinstance(x, np.ndarray) else x.toarray()
        return np.asarray(values, dtype) if units.x is None else units.x.forward(values, dtype)

    return dense


def scaled_targets(y: np.ndarray, units: Units, dtype: Any) -> np.ndarray:
    """Return targets in the units of the net; labels stay integers."""
    if y.dtype.kind in "iu":
        return y.astype(np.int32)
    return np.asarray(y, dtype) if units.y is None else units.y.forward(y, dtype)
