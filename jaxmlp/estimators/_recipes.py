"""From the parameters of an estimator to a recipe, its numbers, and the program that trains it."""

import dataclasses
from typing import Any

import numpy as np

from jaxmlp import losses
from jaxmlp.estimators._objective import Objective
from jaxmlp.estimators._parameters import CURVES, SCHEDULES, factory_of
from jaxmlp.estimators._program import Member, Program
from jaxmlp.estimators._solvers import SGD, Adam
from jaxmlp.mlp import MLP
from jaxmlp.recipe import Recipe
from jaxmlp.types import Loss


def model_of(estimator: Any, sizes: tuple[int, ...]) -> MLP:
    """Return the perceptron of an estimator for these widths."""
    form = estimator._form
    curve = form["activation"]
    return MLP(
        sizes,
        CURVES.get(curve, curve) if isinstance(curve, str) else curve,
        norm=form["norm"],
        residual=form["residual"],
        dropout=estimator.dropout > 0,
        dtype=estimator.dtype if estimator.dtype in ("bfloat16", "float16") else None,
    )


def recipe_of(estimator: Any, sizes: tuple[int, ...], loss: Loss, targets: int) -> Recipe:
    """Return what is trained, and by what."""
    if estimator.optimizer is not None:
        optimizer = factory_of(estimator.optimizer)
    else:
        optimizer = SGD(nesterov=estimator.nesterovs_momentum) if estimator.solver == "sgd" else Adam()
    plain = loss in (losses.cross_entropy, losses.binary_cross_entropy) and not estimator.numbers_of_loss()
    objective = Objective(loss, targets, float(np.finfo(estimator.coefs_[0].dtype).eps) if plain else None)
    return Recipe(model_of(estimator, sizes), objective, optimizer, epochs=min(estimator.max_iter, 2**31 - 1))


def numbers_of(estimator: Any) -> dict[str, Any]:
    """Return the hyperparameters but for the learning rate, by the names of who takes them."""
    numbers: dict[str, Any] = {**estimator.numbers_of_loss(), "penalty": float(estimator.alpha)}
    if estimator.optimizer is None and estimator.solver == "sgd":
        numbers["momentum"] = float(estimator.momentum)
    elif estimator.optimizer is None:
        numbers |= {name: float(getattr(estimator, name)) for name in ("beta_1", "beta_2", "epsilon")}
    if estimator.dropout > 0:
        numbers["dropout_rate"] = float(estimator.dropout)
    return numbers


def rate_rule(estimator: Any) -> str:
    """Return how the rate follows from the epochs: the parameter learning_rate is of the solver "sgd" alone."""
    sgd = estimator.optimizer is None and estimator.solver == "sgd"
    return estimator.learning_rate if sgd else "constant"


def program_of(estimator: Any, recipe: Recipe, *, validated: bool) -> Program:
    """Return what is compiled: equal ones share a compilation, whatever their numbers, epochs and batches."""
    schedule = estimator.schedule
    return Program(
        dataclasses.replace(recipe, epochs=1, batch_size=None),
        rate_rule(estimator),
        estimator.score_of_outputs() if validated else None,
        bool(estimator.early_stopping),
        SCHEDULES[schedule] if isinstance(schedule, str) else schedule,
    )


def member_of(estimator: Any, rows: int, steps: int, dtype: Any) -> Member:
    """Return the numbers of a member, without a leading axis, in the dtype of the net.

    Raises:
      ValueError: for averages that never move in the dtype of training, and an epsilon that is zero in it.
    """
    numbers = {name: np.asarray(value, dtype) for name, value in numbers_of(estimator).items()}
    for name, bad in (("beta_1", 1), ("beta_2", 1), ("epsilon", 0)):
        if numbers.get(name) == bad:
            raise ValueError(
                f"{name} must not round to {bad} in {np.dtype(dtype).name}, in which the net is trained; got "
                f"{getattr(estimator, name)!r}; pass dtype='float64'"
            )
    return Member(
        numbers,
        np.asarray(estimator.learning_rate_init, dtype),
        np.asarray(estimator.power_t, dtype),
        np.asarray(estimator.tol, dtype),
        np.asarray(min(estimator.n_iter_no_change, 2**30), np.int32),
        np.asarray(rows, np.int32),
        np.asarray(steps, np.int32),
        np.asarray(min(steps * estimator.max_iter, 2**31 - 1), np.int32),
    )
