"""The regressor: values, rates, Gaussians, Student's t and quantiles."""

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d, validate_data

from jaxmlp.estimators._checks import check_solver
from jaxmlp.estimators._heads import LEVELS, Head, PointR2, head_of
from jaxmlp.estimators._inputs import Rows
from jaxmlp.estimators._parameters import OURS, THEIRS, keep
from jaxmlp.estimators._predictor import Predictor
from jaxmlp.estimators._watching import CallbackSupport


class MLPRegressor(CallbackSupport, RegressorMixin, Predictor):
    """A multi-layer perceptron that tells numbers."""

    _parameter_constraints: dict[str, Any] = {**THEIRS, **OURS, "loss": [str, callable]}

    def __init__(
        self,
        loss: Any = "squared_error",
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
        loss_params: Any = None,
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
    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None) -> "MLPRegressor":
        """Fit."""
        return self._fit(X, y, {"sample_weight": sample_weight, "X_val": X_val, "y_val": y_val})

    @available_if(check_solver)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPRegressor":
        """Take one epoch."""
        return self._fit(X, y, {"sample_weight": sample_weight}, incremental=True)

    def _validate(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> Any:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        targets = y.reshape(len(y), -1).astype(np.float64)
        if self.loss == "poisson" and (targets < 0).any():
            raise ValueError("Some value(s) of y are negative, which is not allowed for the poisson loss.")
        if reset:
            self._outputs_given = targets.shape[1]
        self.out_activation_ = "exp" if self._head().kind == "rate" else "identity"
        return X, targets, y

    def _weighted(self, weight: Any, labels: np.ndarray) -> Any:
        return weight

    def _told(self) -> dict[str, Any]:
        return {"targets": self._outputs_given}

    def _hear(self, told: dict[str, Any]) -> None:
        self._outputs_given = int(told["targets"])

    def _strata(self, rows: Rows) -> Any:
        return None

    def _head(self) -> Head:
        return head_of(self.loss)

    def _width(self) -> int:
        return self._head().width(self._outputs_given, self.numbers_of_loss())

    def _targets(self) -> int:
        return self._outputs_given if self._head() == head_of("squared_error") else 1

    def _scales_targets(self) -> bool:
        return self._head().scales

    def _folds_targets(self) -> bool:
        return self._head().folds

    def _head_of_scaled(self) -> str:
        head = self._head()
        return "gaussian" if head.spreads else "quantiles" if head.kind == "quantiles" else "values"

    def _loss(self) -> Any:
        return self._head().loss

    def numbers_of_loss(self) -> dict[str, Any]:
        """Return the numbers of the loss."""
        numbers = dict(self.loss_params or {})
        if self._head().kind == "quantiles":
            numbers.setdefault("level", LEVELS)
        return numbers

    def score_of_outputs(self) -> Any:
        """Return the metric of early stopping."""
        levels = self.numbers_of_loss().get("level")
        return PointR2(self._head().kind, None if levels is None else tuple(np.atleast_1d(levels).tolist()))
