"""Checks at the door of a fitted estimator."""

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from jaxmlp.estimators._parameters import SOLVERS, sizes_of


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


def check_same_net(estimator: Any) -> None:
    """Refuse to go on with nets of another form than the parameters of an estimator ask for by now.

    Raises:
      ValueError: for another number of members, other widths or another norm than those that are fitted.
    """
    first = estimator.coefs_[0]
    norms = estimator._norms or [(None, None)]
    fitted = {
        "n_members": first.shape[0] if first.ndim == 3 else 1,
        "hidden_layer_sizes": tuple(int(w.shape[-1]) for w in estimator.coefs_[:-1]),
        "norm": None if norms[0][0] is None else "rms" if norms[0][1] is None else "layer",
    }
    given = {
        "n_members": estimator.n_members,
        "hidden_layer_sizes": sizes_of(estimator.hidden_layer_sizes),
        "norm": estimator.norm if fitted["hidden_layer_sizes"] else None,
    }
    for name, value in given.items():
        if value != fitted[name]:
            raise ValueError(
                f"warm_start and partial_fit go on with the nets that are fitted, so {name} must stay "
                f"{fitted[name]!r}; got {value!r}; set warm_start=False and call fit to begin anew"
            )


def rows_of(estimator: Any, X: Any) -> Any:
    """Return rows to predict, dense or sparse; plain arrays that fit go by scikit-learn's longer checks."""
    plain = type(X) is np.ndarray and X.ndim == 2 and X.dtype in (np.float64, np.float32)
    if plain and X.shape[1] == estimator.n_features_in_ and len(X) and not hasattr(estimator, "feature_names_in_"):
        if np.isfinite(X.sum()) or np.isfinite(X).all():
            return X
    check: Any = validate_data
    return check(estimator, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
