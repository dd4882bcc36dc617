"""By which figure something is chosen: a column of the history by its name, and which way of it is better.

A name is that of the column as the history has it: with validation data the metrics and the extras of the loss are
those of it, "validation_accuracy", and without it those of the training data, "accuracy". One is never taken for the
other, and nothing is chosen by the loss where another name was meant.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _arguments, _check

HIGHER = (
    *("accuracy", "top_k_accuracy", "binary_accuracy", "multilabel_accuracy", "exact_match", "r2"),
    *("precision", "recall", "f1", "roc_auc", "average_precision"),
)
LOWER = ("loss", "rmse", "mae", "nll", "expected_calibration_error")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Figure:
    """A column of the history, and whether its largest value is the best; static, so that a program knows it.

    >>> figure = Figure("validation_accuracy")
    >>> figure.largest, figure.less(np.array([0.5, 0.75])).tolist()
    (True, [-0.5, -0.75])
    """

    name: str
    largest: bool | None = None  # None where only the caller can know

    def __post_init__(self) -> None:
        _arguments.text("by", self.name)
        if self.largest is not None or _base(self.name) in HIGHER + LOWER:
            object.__setattr__(self, "largest", largest_is_best(self.name, self.largest))

    def check(self, history: Mapping[str, Any], fix: str = "") -> None:
        """Raise unless a history, or the forms of one, has the column, and it is known which way of it is better.

        Raises:
          ValueError: with the columns that there are, or with what says which way is better.
        """
        check_column("by", self.name, history, fix)
        largest_is_best(self.name, self.largest)

    def less(self, values: Any) -> Any:
        """Return values of NumPy or JAX as floats of which the least is the best; NaN stays NaN."""
        if not jnp.issubdtype(values.dtype, jnp.floating):
            values = values.astype(float)  # the opposite of a count without a sign is none
        return -values if largest_is_best(self.name, self.largest) else values


def largest_is_best(name: str, largest: bool | None, what: str = "by") -> bool:
    """Return whether the best of a column of the history, or of a metric, is its largest value.

    Raises:
      ValueError: where only the caller can know, and does not say.

    >>> largest_is_best("validation_accuracy", None), largest_is_best("loss", None)
    (True, False)
    """
    if largest is not None:
        if not isinstance(largest, bool):
            raise ValueError(f"largest must be True, False or None; got {largest!r}")
        return largest
    if _base(name) not in HIGHER + LOWER:
        raise ValueError(
            f"{what}={name!r} does not tell which way is better; pass largest=True where the largest value is the "
            f"best, else largest=False"
        )
    return _base(name) in HIGHER


def _base(name: str) -> str:
    return name.removeprefix("validation_").split("(")[0]


def check_column(what: str, name: object, history: Mapping[str, Any], fix: str = "") -> None:
    """Raise unless a history, or the forms of one, has a column of this name with one number an epoch.

    Raises:
      ValueError: with the columns that there are.
    """
    known = [column for column, values in history.items() if np.ndim(values) == np.ndim(history["loss"])]
    if name in history and name not in known:
        fix = f"; {name} has more than one number an epoch{fix}"
    bare = str(name).removeprefix("validation_")
    twin = next((other for other in (f"validation_{bare}", bare) if other in known and other != name), None)
    near = _check.did_you_mean(name, known) if twin is None else f" (did you mean {twin!r}?)"
    _check.one_of(what, name, known, near + fix)
