"""The classifier: labels of any kind to logits, and logits to labels and probabilities."""

from numbers import Real
from typing import Any

import numpy as np
from scipy import special
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target

from jaxmlp.estimators._checks import check_solver
from jaxmlp.estimators._labelled import Labelled
from jaxmlp.estimators._parameters import OURS, THEIRS, keep
from jaxmlp.estimators._watching import CallbackSupport


class MLPClassifier(CallbackSupport, ClassifierMixin, Labelled):
    """A multi-layer perceptron that tells classes: change the import of `sklearn.neural_network.MLPClassifier`.

    p(class | x) = softmax(net(x)), or sigmoid(net(x)) of two classes and of many labels a row; `alpha` sum |W|^2 / 2
    is added to the sum of the cross entropies.

    Of scikit-learn's, under their names, defaults and meanings: hidden_layer_sizes, activation, solver, alpha
    (divided by the samples of a batch), batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle,
    random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1,
    beta_2, epsilon, n_iter_no_change and max_fun. First weights, splits and the order of the rows are drawn from
    `random_state` as scikit-learn draws them, so that with `scale=False` its numbers come out, to rounding.
    `activation` also takes every name in `layer.ACTIVATIONS` and functions of JAX.

    Args:
      loss: "log_loss", "focal" (Lin 2017, arXiv 1708.02002), or a function (outputs, targets) -> (batch,) of logits.
      loss_params: parameters of the loss by name, as {"gamma": 2.0} of "focal".
      label_smoothing: a in [0, 1]: labels are trained as (1 - a) y + a / classes (Szegedy 2016, arXiv 1512.00567).
      class_weight: "balanced", or {label: weight}: what each class counts, times `sample_weight`.
      norm: None, "layer" or "rms", before each hidden activation.
      residual: whether a hidden layer as wide as its input adds that input; the first one its scaled input.
      dropout: the share of hidden units that are dropped in training.
      optimizer: in place of `solver`: a name of Optax's, "adamw", or a factory, `optax.lion` or a partial of one.
        Its further numbers are Optax's own: momentum, beta_1 and the like, and `learning_rate`, are of the solvers.
      schedule: "cosine" or "linear" lets the rate fall to zero over `max_iter` epochs; or a function of (steps done,
        steps in all) to a factor of the rate.
      n_members: networks that are trained as one program, each with weights and an order of its own. Predictions are
        their mean; `coefs_` then have a leading axis (members,).
      scale: whether inputs are scaled to mean 0 and deviation 1 for training. It is undone in `coefs_`, which take
        raw inputs; `partial_fit` and warm starts keep the scaling of the first call.
      dtype: of the training: "float32", "float64", or half precision in the products. None is float32, and float64
        where X has it and all rows are one batch, so that neither their order nor repeated rows matter.
      device: "cpu", "gpu", "tpu", "gpu:1" to train on, or a device of JAX's, which neither a clone nor a pickle can
        hold; predictions are NumPy's, on the host.

    Attributes:
      classes_: the labels in order.
      coefs_, intercepts_: the layers, in the units of the data, of the dtype of X.
      loss_curve_, loss_, best_loss_: the loss that is minimised, of the scaled targets; means over the members.
      validation_scores_, validation_loss_curve_, best_validation_score_: of `early_stopping`, or of X_val and y_val.
      n_iter_, t_, n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_: as in scikit-learn.
      recipe_, hyperparams_, params_: the same to all of this library, as `jaxmlp.fit(key, data, recipe_,
        hyperparams_)`.

    Raises:
      ValueError: in `fit`, for parameters, data and weights that do not fit, in scikit-learn's words where it has
        them.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> net = MLPClassifier(solver="lbfgs", max_iter=20, tol=0.01, random_state=0).fit(X, y)
    >>> net.predict(X[:2]), net.score(X, y) > 0.95
    (array([0, 0]), True)
    """

    _parameter_constraints: dict[str, Any] = {
        **THEIRS,
        **OURS,
        "loss": [str, callable],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
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
        loss: Any = "log_loss",
        loss_params: Any = None,
        label_smoothing: float = 0.0,
        class_weight: Any = None,
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
    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None) -> "MLPClassifier":
        """Train from first weights, or, with `warm_start`, from where the last fit ended, and return the estimator.

        Args:
          X: (rows, features): an array, a table of pandas or polars, or sparse, of which a few batches are dense at
            a time.
          y: labels, (rows,), or (rows, labels) of zeros and ones where a row has many.
          sample_weight: (rows,), what each row counts; a row of weight zero is as if it were not there.
          X_val: validation data, in place of a share of the rows; their loss and score are told after each epoch, and
            `early_stopping` watches them.
          y_val: their labels.

        Raises:
          ValueError: for data, weights and parameters that do not fit, and for a result that is not finite.
        """
        return self._fit(X, y, {"sample_weight": sample_weight, "X_val": X_val, "y_val": y_val})

    @available_if(check_solver)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> "MLPClassifier":
        """Take one epoch on these rows, the solver going on from the call before, and return the estimator.

        Raises:
          AttributeError: for the solver "lbfgs", which takes all rows at once.
          ValueError: for what `fit` refuses, and for `early_stopping`.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit, which sees some of the rows; use "
                "compute_class_weight('balanced', classes=classes, y=y) and pass the weights as {label: weight}"
            )
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer().fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, {"sample_weight": sample_weight}, incremental=True)

    def predict(self, X: Any) -> Any:
        """Return the likeliest label of each row, (rows,); of many labels a row (rows, labels)."""
        probabilities = self._probabilities(X)
        return self._label_binarizer.inverse_transform(probabilities)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, or of each of many labels, (rows, classes): the members' mean."""
        found = self._probabilities(X)
        if found.ndim == 1:
            return np.vstack([1 - found, found]).T
        return found

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the probabilities, (rows, classes), also of those that are zero in floats."""
        logs = self._log_probabilities(X)
        logs = special.logsumexp(logs, axis=0) - np.log(len(logs)).astype(logs.dtype)
        likely = self.predict_proba(X)
        # Of those near one the logarithm of what predict_proba says, so that both agree on which is the largest.
        return np.where(likely > 0.5, np.log(np.maximum(likely, 0.5)), logs)

    def predict_uncertainty(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return what is uncertain of each row, in nats: (aleatoric, epistemic), (rows,) each.

        The mean entropy of the members' distributions, the noise that they see; and the entropy of their mean less
        that, what they disagree about, which is zero of a single net (Depeweg 2018, arXiv 1710.07283). Of many labels a
        row the sums over the labels.
        """
        logs = self._log_probabilities(X)  # (members, rows, classes), or of yes and no (members, rows, labels, 2)
        many = logs.ndim == 3 and self.out_activation_ == "logistic" and self.n_outputs_ > 1
        if many:
            with np.errstate(divide="ignore"):  # of a probability of one, whose other is zero
                logs = np.stack([logs, np.log1p(-np.exp(np.minimum(logs, -1e-300)))], axis=-1)
        mean = special.logsumexp(logs, axis=0) - np.log(len(logs))
        noise, whole = (special.entr(np.exp(a)).sum(-1) for a in (logs, mean))
        noise = noise.mean(0)
        if many:
            noise, whole = noise.sum(-1), whole.sum(-1)
        return noise, np.maximum(whole - noise, 0)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return logits, (N,) for two classes, else (N, classes), and (N, labels) where a row has many labels.

        log p / (1 - p) of what `predict_proba` returns, or log p of one of many classes but for a number that a row's
        classes share; so an ensemble's are those of the mean of its members' probabilities.
        """
        outputs = self._outputs(X)
        if len(outputs) == 1:
            outputs = outputs[0]
        else:
            mean = np.logaddexp.reduce
            if self.out_activation_ == "softmax":
                outputs = mean(outputs - mean(outputs, axis=-1, keepdims=True), axis=0)
            else:
                outputs = mean(-np.logaddexp(0, -outputs), axis=0) - mean(-np.logaddexp(0, outputs), axis=0)
        return outputs.ravel() if self.n_outputs_ == 1 else outputs

    def _log_probabilities(self, X: Any) -> np.ndarray:
        """Return the members' own, (members, rows, classes), or (members, rows, labels) of many labels a row."""
        outputs = self._outputs(X)
        if self.out_activation_ == "softmax":
            return special.log_softmax(outputs, axis=-1)
        if self.n_outputs_ == 1:
            return -np.logaddexp(0, np.concatenate([outputs, -outputs], axis=-1))
        return -np.logaddexp(0, -outputs)

    def _probabilities(self, X: Any) -> np.ndarray:
        outputs = self._outputs(X)
        found = special.softmax(outputs, axis=-1) if self.out_activation_ == "softmax" else special.expit(outputs)
        found = found[0] if len(found) == 1 else found.mean(0)
        return found.ravel() if self.n_outputs_ == 1 else found

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: many labels a row are taken."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
