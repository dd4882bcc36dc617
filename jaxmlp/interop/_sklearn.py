"""The multi-layer perceptrons of scikit-learn, whose weights are (in, out) as ours are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmlp import _check
from jaxmlp.interop._plain import layers_of, model_of
from jaxmlp.layer import Layer
from jaxmlp.mlp import MLP

SKLEARN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}  # theirs: ours
# What stands after the last layer there: what it makes of outputs here.
LINKS = {
    "identity": "the outputs themselves",
    "exp": "jnp.exp of the outputs",
    "logistic": "jax.nn.sigmoid of the outputs",
    "softmax": "jax.nn.softmax of the outputs",
}


def to_sklearn(
    model: MLP,
    params: tuple[Layer, ...],
    *,
    classes: Sequence[object] | np.ndarray | None = None,
    out_activation: str | None = None,
    kind: Any = None,
) -> Any:
    """Return a fitted scikit-learn estimator with these weights: an MLPRegressor, or with `classes` an MLPClassifier.

    It predicts, and goes on training with `partial_fit`, or with `fit` after `set_params(warm_start=True)`; there the
    solver begins anew, with its own defaults.

    Args:
      model: affine maps and an activation that scikit-learn has: identity, sigmoid, tanh or relu.
      params: its parameters. Half precision becomes float32, since scikit-learn has none.
      classes: the labels in order, one for each output, or two for a single output, whose logit is the second's. Two
        outputs for two labels become the one logit z1 - z0, with which scikit-learn has the same probabilities.
      out_activation: what is applied to the outputs. "identity" for a regressor, where "exp" makes predictions of
        outputs that are logarithms, as of its loss "poisson". "softmax" for a classifier, where "logistic", with the
        classes 0 ... out - 1, makes each output the logit of a label of its own (multi-label).
      kind: None for scikit-learn's own; `jaxmlp.estimators.MLPRegressor` or `MLPClassifier` for one of ours.

    Raises:
      ValueError: for a model that scikit-learn cannot be, labels that do not fit, or another `out_activation`.

    >>> import jax
    >>> mlp = MLP((3, 8, 2))
    >>> to_sklearn(mlp, mlp.init(jax.random.key(0))).predict(np.ones((5, 3))).shape
    (5, 2)
    """
    neural = _check.extra("sklearn.neural_network", "sklearn")
    layers = layers_of(model, params)
    theirs = {ours: name for name, ours in SKLEARN.items()}
    if model.activation not in theirs or not model.bias:
        raise ValueError(f"model must have biases and one of {', '.join(theirs)}, for scikit-learn; got {model!r}")
    if out_activation is not None:
        known = ("identity", "exp") if classes is None else ("softmax", "logistic")
        _check.one_of(f"out_activation {'without' if classes is None else 'with'} classes", out_activation, known)
    whose = neural.MLPRegressor if classes is None else neural.MLPClassifier
    options = {"loss": "poisson"} if out_activation == "exp" else {}
    estimator = whose(hidden_layer_sizes=model.sizes[1:-1], activation=theirs[str(model.activation)], **options)
    coefs = [_wide(layer.w) for layer in layers]
    intercepts = [_wide(layer.b) for layer in layers]
    estimator.out_activation_ = out_activation or "identity"
    if classes is not None:
        labels = _labels(classes, model.sizes[-1], out_activation)
        estimator._label_binarizer, estimator.classes_ = labels, labels.classes_
        multilabel = labels.y_type_.startswith("multilabel")
        if coefs[-1].shape[1] == 2 and not multilabel:
            coefs[-1], intercepts[-1] = coefs[-1][:, 1:] - coefs[-1][:, :1], intercepts[-1][1:] - intercepts[-1][:1]
        estimator.out_activation_ = "logistic" if multilabel or coefs[-1].shape[1] == 1 else "softmax"
    fitted = {
        "coefs_": coefs,
        "intercepts_": intercepts,
        "n_layers_": len(model.sizes),
        "n_outputs_": coefs[-1].shape[1],
        "n_features_in_": model.sizes[0],
        # Where a first `fit` begins, for the next one to go on from.
        "n_iter_": 0,
        "t_": 0,
        "loss_curve_": [],
        "best_loss_": np.inf,
        "validation_scores_": None,
        "best_validation_score_": None,
        "_no_improvement_count": 0,
        "_best_coefs": [c.copy() for c in coefs],
        "_best_intercepts": [b.copy() for b in intercepts],
    }
    for name, value in fitted.items():
        setattr(estimator, name, value)
    return estimator if kind is None else kind.from_sklearn(estimator)


def _wide(array: Any) -> np.ndarray:
    """Return a copy, since scikit-learn updates its weights in place, in a dtype that it knows."""
    return np.array(array, np.float64 if array.dtype == np.float64 else np.float32)


def _labels(classes: Sequence[object] | np.ndarray, outputs: int, out_activation: str | None) -> Any:
    """Return the LabelBinarizer of the classes."""
    try:
        classes = np.asarray(classes)
    except (TypeError, ValueError):  # lists of unequal length, keys
        raise ValueError(f"classes must list the labels; got {_check.shown(classes)}") from None
    binarizer = _check.extra("sklearn.preprocessing", "sklearn").LabelBinarizer()
    if out_activation == "logistic" and outputs > 1:
        if not np.array_equal(classes, np.arange(outputs)):
            raise ValueError(f"classes must be 0 ... {outputs - 1} for many labels a row; got {classes}")
        return binarizer.fit(np.eye(outputs, dtype=int))
    if out_activation == "softmax" and outputs == 1:
        raise ValueError("out_activation must be 'logistic' for one output: a softmax makes it 1; got 'softmax'")
    if classes.shape != (max(2, outputs),):
        raise ValueError(f"classes must name {max(2, outputs)} labels; got {len(np.atleast_1d(classes))}")
    try:
        ordered = np.array_equal(np.unique(classes), classes)
    except TypeError:  # labels of several kinds
        ordered = False
    if not ordered:
        raise ValueError(f"classes must be sorted, as scikit-learn has them, and distinct; got {classes}")
    return binarizer.fit(classes)


def from_sklearn(estimator: Any, *, out_activation: str | None = None) -> tuple[MLP, tuple[Layer, ...]]:
    """Return model and parameters of a fitted MLPRegressor or MLPClassifier.

    The outputs of a regressor are its predictions; those of a classifier are logits, whose softmax, or for one output
    sigmoid, are its probabilities. Where the estimator makes something else of them, `out_activation` must say so, and
    whoever calls `apply` applies it: for a regressor of loss "poisson" predictions are exp(outputs), and for many
    labels a row probabilities are sigmoid(outputs). Weights of float64 become float32 unless JAX has 64 bits.

    Args:
      estimator: of exactly one of these two types.
      out_activation: the estimator's `out_activation_`: "identity", "exp", "logistic" or "softmax".

    Raises:
      ValueError: for an estimator that is not fitted, is no perceptron, or has a part that an `MLP` has not.
    """
    neural = _check.extra("sklearn.neural_network", "sklearn")
    if hasattr(estimator, "to_sklearn") and hasattr(estimator, "coefs_"):  # one of jaxmlp.estimators
        estimator = estimator.to_sklearn()
    kinds = (neural.MLPRegressor, neural.MLPClassifier)
    if type(estimator) not in kinds or not hasattr(estimator, "coefs_"):
        raise ValueError(
            f"estimator must be a fitted MLPRegressor or MLPClassifier, and no subclass, pipeline or search of "
            f"one, whose further steps would be lost; got {estimator!r:.200}"
        )
    replaced = [name for name in vars(estimator) if callable(getattr(type(estimator), name, None))]
    if replaced:
        raise ValueError(f"estimator must have the methods of its type; got one with {', '.join(replaced)} of its own")
    _check.one_of("activation of the estimator", estimator.activation, SKLEARN)
    link = estimator.out_activation_
    outputs = len(estimator.intercepts_[-1])
    usual = {kinds[0]: "identity", kinds[1]: "softmax" if outputs > 1 else "logistic"}[type(estimator)]
    if out_activation is not None:
        _check.one_of("out_activation", out_activation, LINKS)
    if link != (out_activation or usual):
        raise ValueError(
            f"out_activation must be {link!r} for this {type(estimator).__name__}: what it predicts with is "
            f"{LINKS.get(link, link)}, which an MLP does not compute; got {out_activation!r}; pass "
            f"out_activation={link!r} and apply it to what model.apply returns"
        )
    return model_of(estimator.coefs_, estimator.intercepts_, SKLEARN[estimator.activation])
