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
    """A multi-layer perceptron that tells numbers: change the import of `sklearn.neural_network.MLPRegressor`.

    The loss is that of scikit-learn, half the squared error or half the Poisson deviance, or one that tells a spread
    or quantiles; `alpha` sum |W|^2 / 2 is added to its sum.

    Of scikit-learn's, under their names, defaults and meanings: hidden_layer_sizes, activation, solver, alpha
    (divided by the samples of a batch), batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle,
    random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1,
    beta_2, epsilon, n_iter_no_change and max_fun. First weights, splits and the order of the rows are drawn from
    `random_state` as scikit-learn draws them, so that with `scale=False` its numbers come out, to rounding.
    `activation` also takes every name in `layer.ACTIVATIONS` and functions of JAX.

    Args:
      loss: "squared_error", "poisson", "absolute_error", "huber", "quantile"; with a mean and a spread for each
        target "gaussian" (Nix and Weigend 1994, doi 10.1109/ICNN.1994.374138), "beta_gaussian" (Seitzer 2022, arXiv
        2203.09168), "student_t" (Lange 1989, doi 10.1080/01621459.1989.10478852) and "crps" (Gneiting and Raftery
        2007, doi 10.1198/016214506000001437); or a function (outputs, targets) -> (batch,).
      loss_params: parameters of the loss by name, as {"level": (0.05, 0.5, 0.95)} of "quantile", {"delta": 1.0} of
        "huber".
      norm: None, "layer" or "rms", before each hidden activation.
      residual: whether a hidden layer as wide as its input adds that input; the first one its scaled input.
      dropout: the share of hidden units that are dropped in training.
      optimizer: in place of `solver`: a name of Optax's, "adamw", or a factory, `optax.lion` or a partial of one.
        Its further numbers are Optax's own: momentum, beta_1 and the like, and `learning_rate`, are of the solvers.
      schedule: "cosine" or "linear" lets the rate fall to zero over `max_iter` epochs; or a function of (steps done,
        steps in all) to a factor of the rate.
      n_members: networks that are trained as one program, each with weights and an order of its own. Predictions are
        their mean; `coefs_` then have a leading axis (members,).
      scale: whether inputs and targets (but for counts) are scaled to mean 0 and deviation 1 for training. It is
        undone in `coefs_`, which take raw inputs. Losses, a function of yours and numbers such as "delta" see scaled
        targets; `partial_fit` and warm starts keep the scaling of the first call.
      dtype: of the training: "float32", "float64", or half precision in the products. None is float32, and float64
        where X has it and all rows are one batch, so that neither their order nor repeated rows matter.
      device: "cpu", "gpu", "tpu", "gpu:1" to train on, or a device of JAX's, which neither a clone nor a pickle can
        hold; predictions are NumPy's, on the host.

    Attributes:
      coefs_, intercepts_: the layers, in the units of the data, of the dtype of X.
      loss_curve_, loss_, best_loss_: the loss that is minimised, of the scaled targets; means over the members.
      validation_scores_, validation_loss_curve_, best_validation_score_: of `early_stopping`, or of X_val and y_val.
      n_iter_, t_, n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_: as in scikit-learn.
      recipe_, hyperparams_, params_: the same to all of this library, as `jaxmlp.fit(key, data, recipe_,
        hyperparams_)`.

    Raises:
      ValueError: in `fit`, for parameters, data and weights that do not fit, in scikit-learn's words where it has
        them.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = MLPRegressor("gaussian", solver="lbfgs", max_iter=9, tol=0.1, random_state=0).fit(X, y)
    >>> mean, spread = net.predict(X, return_std=True)
    >>> net.predict_quantiles(X, [0.1, 0.9]).shape, bool(abs((y - mean) / spread).mean() < 1)
    ((442, 2), True)
    """

    _parameter_constraints: dict[str, Any] = {**THEIRS, **OURS, "loss": [str, callable]}
    out_activation_: str

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
        """Train from first weights, or, with `warm_start`, from where the last fit ended, and return the estimator.

        Args:
          X: (rows, features): an array, a table of pandas or polars, or sparse, of which a few batches are dense at
            a time.
          y: targets, (rows,) or (rows, outputs).
          sample_weight: (rows,), what each row counts; a row of weight zero is as if it were not there.
          X_val: validation data, in place of a share of the rows; their loss and score are told after each epoch, and
            `early_stopping` watches them.
          y_val: their targets.

        Raises:
          ValueError: for data, weights and parameters that do not fit, and for a result that is not finite.
        """
        return self._fit(X, y, {"sample_weight": sample_weight, "X_val": X_val, "y_val": y_val})

    @available_if(check_solver)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPRegressor":
        """Take one epoch on these rows, the solver going on from the call before, and return the estimator.

        Raises:
          AttributeError: for the solver "lbfgs", which takes all rows at once.
          ValueError: for what `fit` refuses, and for `early_stopping`.
        """
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
        if self._head().kind == "rate" and (targets < 0).any():
            raise ValueError("Some value(s) of y are negative, which is not allowed for the poisson loss.")
        if reset or not hasattr(self, "_outputs_given"):
            self._outputs_given = targets.shape[1]
        elif targets.shape[1] != self._outputs_given:
            raise ValueError(
                f"y must have the {self._outputs_given} outputs of the y that was fitted first; got {targets.shape[1]}"
            )
        if not reset and self._head().link != self.out_activation_:
            raise ValueError(
                f"loss must stay one of values, or one of counts, to go on with the nets that are fitted; got "
                f"loss={self.loss!r}; set warm_start=False and call fit to begin anew"
            )
        self.out_activation_ = self._head().link
        return X, targets, y

    def _weighted(self, weight: Any, labels: np.ndarray, seen: Any = None) -> Any:
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
            if not np.size(numbers["level"]):
                raise ValueError("loss_params must have one level or more of the loss 'quantile'; got none")
        return numbers

    def score_of_outputs(self) -> Any:
        """Return the metric of early stopping."""
        levels = self.numbers_of_loss().get("level")
        return PointR2(self._head().kind, None if levels is None else tuple(np.atleast_1d(levels).tolist()))
