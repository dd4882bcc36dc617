"""Checks at the door of a fitted estimator."""

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from jaxmlp.estimators._parameters import SOLVERS


def check_solver(estimator: Any) -> bool:
    """Return true where an estimator has `partial_fit`.

    Raises:
      AttributeError: for a solver that takes all rows at once, in scikit-learn's words.
    """
    if estimator.optimizer is None and estimator.solver not in SOLVERS:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


def rows_of(estimator: Any, X: Any) -> Any:
    """Return rows to predict, dense or sparse; plain arrays that fit go by scikit-learn's longer checks."""
    plain = type(X) is np.ndarray and X.ndim == 2 and X.dtype in (np.float64, np.float32)
    if plain and X.shape[1] == estimator.n_features_in_ and len(X) and not hasattr(estimator, "feature_names_in_"):
        if np.isfinite(X.sum()) or np.isfinite(X).all():
            return X
    check: Any = validate_data
    return check(estimator, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
