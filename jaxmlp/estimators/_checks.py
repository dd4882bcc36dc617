"""Checks at the door of a fitted estimator."""

from typing import Any

import jax
import numpy as np
from sklearn.utils.validation import validate_data

from jaxmlp.estimators._parameters import SOLVERS, sizes_of
from jaxmlp.estimators._recipes import numbers_of
from jaxmlp.recipe import Recipe


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
      ValueError: for another number of members, other widths, another norm or residual than those that are fitted.
    """
    fitted = estimator._form
    given = {
        "n_members": estimator.n_members,
        "hidden_layer_sizes": sizes_of(estimator.hidden_layer_sizes),
        "norm": estimator.norm if fitted["hidden_layer_sizes"] else None,
        "residual": bool(estimator.residual),
    }
    for name, value in given.items():
        if value != fitted[name]:
            raise ValueError(
                f"warm_start and partial_fit go on with the nets that are fitted, so {name} must stay "
                f"{fitted[name]!r}; got {value!r}; set warm_start=False and call fit to begin anew"
            )


def check_all_rows_at_once(estimator: Any, given: dict[str, Any]) -> None:
    """Refuse what a solver without batches would leave aside.

    Raises:
      ValueError: for dropout, a schedule and validation data beside the solver "lbfgs".
    """
    ignored = {
        "dropout": estimator.dropout > 0,
        "schedule": estimator.schedule is not None,
        "X_val": given.get("X_val") is not None,
    }
    for name, is_given in ignored.items():
        if is_given:
            raise ValueError(
                f"{name} must be left out with solver='lbfgs', which takes no steps on batches and would ignore it; "
                f"use solver='adam' or 'sgd'"
            )


def check_loss(estimator: Any, recipe: Recipe, layers: Any, y: np.ndarray) -> None:
    """Let a loss see its numbers and the targets while their values are known, so that it can refuse them.

    Raises:
      ValueError: for numbers that the loss cannot take, and for a loss that does not give one value an example.
    """
    if isinstance(estimator.loss, str) and not estimator.numbers_of_loss():
        return
    first = jax.tree.map(lambda a: a[0], layers)
    numbers = {name: np.asarray(value, first[0].b.dtype) for name, value in numbers_of(estimator).items()}
    bound = recipe.bind(numbers | {"learning_rate": 1.0})

    def found(params: Any, x: Any) -> Any:
        losses: Any = recipe.loss(
            bound.apply(params, x), y, params=params, weight=np.ones(len(y), x.dtype), **bound.numbers.loss
        )
        return losses[0] if isinstance(losses, tuple) else losses

    shape = jax.eval_shape(found, first, jax.ShapeDtypeStruct((len(y), first[0].w.shape[0]), first[0].w.dtype)).shape
    if shape != (len(y),):
        raise ValueError(f"loss must return one value an example, shape ({len(y)},); got shape {shape}")


def rows_of(estimator: Any, X: Any) -> Any:
    """Return rows to predict, dense or sparse; plain arrays that fit go by scikit-learn's longer checks."""
    plain = type(X) is np.ndarray and X.ndim == 2 and X.dtype in (np.float64, np.float32)
    if plain and X.shape[1] == estimator.n_features_in_ and len(X) and not hasattr(estimator, "feature_names_in_"):
        with np.errstate(over="ignore", invalid="ignore"):
            total = X.sum()
        if np.isfinite(total) or np.isfinite(X).all():
            return X
    check: Any = validate_data
    return check(estimator, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
