"""Checks at the door of a fitted estimator."""

from typing import Any

import jax
import numpy as np
from sklearn.utils.validation import validate_data

from jaxmlp import _check
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


def check_same_loss(estimator: Any) -> None:
    """Refuse to read outputs by another loss than the one that they were trained with.

    Raises:
      ValueError: for a loss, or parameters of it, that were set after the fit.
    """
    given = loss_of(estimator)
    if getattr(estimator, "_loss_fitted", given) != given:  # of coefficients that were set nothing is known
        loss, options = estimator._loss_fitted
        raise ValueError(
            f"loss and loss_params must be those that were fitted, {_check.shown(loss)} and {options}; got "
            f"{_check.shown(given[0])} and {given[1]} since; call fit again"
        )


def loss_of(estimator: Any) -> tuple[Any, str]:
    """Return what is compared of a loss: itself, and its parameters as text, since arrays have no one answer."""
    return estimator.loss, repr(estimator.loss_params)


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


def check_numbers(estimator: Any, objective: Any) -> None:
    """Refuse numbers that the loss does not take.

    Raises:
      ValueError: for unknown names in `loss_params`, for `label_smoothing` of a loss without it, for a loss with a
        parameter "penalty".
    """
    takes = sorted({p.name for p in objective.takes} - {"params", "weight"})
    shown = f"loss={_check.shown(estimator.loss)}"
    if "penalty" in takes:
        raise ValueError(f"loss must have no parameter 'penalty', which is that of the weights; got {shown}; rename it")
    for name in estimator.loss_params or {}:
        if name not in takes:
            raise ValueError(
                f"loss_params must hold what the loss takes by keyword; {shown} takes {', '.join(takes) or 'nothing'}; "
                f"got {name!r}{_check.did_you_mean(name, takes)}"
            )
    if "label_smoothing" in estimator.numbers_of_loss() and "label_smoothing" not in takes:
        raise ValueError(f"label_smoothing must be 0 with {shown}, which has none; got {estimator.label_smoothing}")


def check_functions(estimator: Any) -> None:
    """Let JAX trace functions that are a caller's, one by one, so that it is known which of them it cannot trace.

    Raises:
      ValueError: for an activation or a schedule that JAX cannot trace, or that takes other arguments.
    """
    numbers = jax.ShapeDtypeStruct((2, 3), np.float32)
    count = jax.ShapeDtypeStruct((), np.int32)
    forms = {"activation": (numbers,), "schedule": (count, count)}
    for name, arguments in forms.items():
        function = getattr(estimator, name)
        if callable(function):
            traced(name, function, *arguments)


def traced(name: str, function: Any, *forms: Any) -> Any:
    """Return the form of what a function returns.

    Raises:
      ValueError: for one that JAX cannot trace, or that takes other arguments.
    """
    try:
        return jax.eval_shape(function, *forms)
    except TypeError as error:  # JAX's own errors of tracing are of this kind
        raise ValueError(
            f"{name} must be a function of {len(forms)} argument{'s' * (len(forms) > 1)} that is written in JAX, with "
            f"jnp.sin, say, and not np.sin; got {error}"
        ) from error


def check_loss(estimator: Any, recipe: Recipe, layers: Any, y: np.ndarray) -> None:
    """Let a loss see its numbers and the targets while their values are known, so that it can refuse them.

    Raises:
      ValueError: for numbers that the loss cannot take, and for a loss that does not give one value an example.
    """
    check_numbers(estimator, recipe.loss)
    check_functions(estimator)
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

    shape = traced("loss", found, first, jax.ShapeDtypeStruct((len(y), first[0].w.shape[0]), first[0].w.dtype)).shape
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
