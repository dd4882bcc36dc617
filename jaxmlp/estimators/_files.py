"""A fitted estimator as one safetensors file: its arrays, and all else as JSON in the header; no pickle, no code."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp import _check, _header, _tensors
from jaxmlp.estimators._checks import check_same_loss, loss_of
from jaxmlp.estimators._units import Columns, Units
from jaxmlp.types import StrPath

KIND = "jaxmlp_estimator"  # of what the description is, in the header
FORMAT = 1
TOLD = ("n_features_in_", "n_iter_", "n_layers_", "n_outputs_", "out_activation_", "t_", "loss_", "_batch")
CURVES = ("loss_curve_", "validation_scores_", "validation_loss_curve_", "best_loss_", "best_validation_score_")


def save(estimator: Any, path: StrPath) -> None:
    """Write a fitted estimator to a file that `load` reads.

    Raises:
      ValueError: for an estimator that is not fitted, whose parameters or labels JSON cannot hold, such as functions
        and generators, or a path that cannot be written.
    """
    name = type(estimator).__name__
    if not hasattr(estimator, "coefs_"):
        raise ValueError(f"estimator must be fitted to be saved; got {estimator!r:.200}; call fit(X, y) first")
    check_same_loss(estimator)
    told = {
        "format": FORMAT,
        "estimator": name,
        "params": estimator.get_params(deep=False) | _class_weight(estimator),
        "fitted": {key: getattr(estimator, key) for key in (*TOLD, *CURVES) if hasattr(estimator, key)},
        "form": estimator._form,
        **estimator._told(),
    }
    if hasattr(estimator, "feature_names_in_"):
        told["features"] = estimator.feature_names_in_.tolist()
    try:
        text = json.dumps(told, sort_keys=True, default=_of_numpy)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"the parameters of an estimator must be what JSON can hold to be saved: {error}; use names for functions, "
            f"and an int for random_state; got {estimator!r:.400}"
        ) from error
    _tensors.write(path, KIND, text, {key: np.ascontiguousarray(a) for key, a in arrays_of(estimator).items()})


def load(path: StrPath) -> Any:
    """Return the fitted estimator in a file that `save` wrote: it predicts, and goes on training, to the same numbers.

    Raises:
      ValueError: for whatever is not such a file: of another kind, cut short, with tensors missing or of other shapes,
        not finite, or other than they were saved.

    >>> import tempfile
    >>> X, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    >>> from jaxmlp.estimators import MLPClassifier
    >>> fitted = MLPClassifier((4,), solver="lbfgs", max_iter=5, tol=1.0, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fitted.save(f"{folder}/net.safetensors")
    ...     again = load(f"{folder}/net.safetensors")
    >>> bool((again.predict_proba(X) == fitted.predict_proba(X)).all())
    True
    """

    def accept(path: Path, header: _header.Header) -> Any:
        text = header.metadata.get(KIND)
        if text is None:
            raise ValueError(f"{path} must have been written by an estimator's save; its header describes none")
        try:
            told = json.loads(text)
            estimator = _made(told)
            _check_shapes(estimator, told["form"], header.tensors)
        except Exception as error:  # whatever a description of another kind makes it raise
            raise ValueError(f"{path} must describe a fitted estimator: {str(error)[:400]}") from error
        return estimator

    estimator, arrays = _tensors.read(path, KIND, accept)
    layers = estimator.n_layers_ - 1
    estimator.coefs_ = [arrays[f"coefs/{i}"].copy() for i in range(layers)]
    estimator.intercepts_ = [arrays[f"intercepts/{i}"].copy() for i in range(layers)]
    estimator._norms = [
        tuple(arrays[key].copy() if key in arrays else None for key in (f"norms/{i}/scale", f"norms/{i}/shift"))
        for i in range(layers - 1)
    ]
    columns = {
        side: Columns(arrays[f"units/{side}/shift"].copy(), arrays[f"units/{side}/scale"].copy())
        for side in ("x", "y")
        if f"units/{side}/shift" in arrays
    }
    estimator._units = Units(columns.get("x"), columns.get("y"))
    estimator._best, estimator._no_improvement_count = arrays["best"].copy(), arrays["waited"].astype(np.int32)
    if "solver/rate" in arrays:
        leaves = [arrays[f"solver/{i}"].copy() for i in range(sum(key.startswith("solver/") for key in arrays) - 2)]
        estimator._solver = leaves, arrays["solver/step"].astype(np.int32), arrays["solver/rate"].copy()
    else:
        estimator._solver = None
    return estimator


def arrays_of(estimator: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a fitted estimator by name, integers as floats, which hold them."""
    named: dict[str, Any] = {f"coefs/{i}": w for i, w in enumerate(estimator.coefs_)}
    named |= {f"intercepts/{i}": b for i, b in enumerate(estimator.intercepts_)}
    for i, norm in enumerate(estimator._norms):
        named |= {f"norms/{i}/{key}": a for key, a in zip(("scale", "shift"), norm, strict=True) if a is not None}
    for side, columns in zip(("x", "y"), estimator._units, strict=True):
        if columns is not None:
            named |= {f"units/{side}/shift": columns.shift, f"units/{side}/scale": columns.scale}
    named |= {"waited": estimator._no_improvement_count}
    # Infinite before the first epoch, and a file of ours holds what is finite.
    named |= {"best": np.clip(estimator._best, *np.finfo(np.float64).min * np.array([1, -1]))}
    if estimator._solver is not None:
        leaves, step, rate = estimator._solver
        named |= {f"solver/{i}": a for i, a in enumerate(leaves)} | {"solver/step": step, "solver/rate": rate}
    return {key: np.asarray(a, None if np.asarray(a).dtype.kind == "f" else np.float64) for key, a in named.items()}


def _made(told: dict[str, Any]) -> Any:
    """Return an estimator without its arrays."""
    from jaxmlp import estimators

    if told["format"] != FORMAT:
        raise ValueError(f"it must be of format {FORMAT}; got {told['format']!r:.80}; a newer jaxmlp may read it")
    _check.one_of("estimator", told["estimator"], ("MLPClassifier", "MLPRegressor"))
    params = {key: tuple(value) if isinstance(value, list) else value for key, value in told["params"].items()}
    if isinstance(params.get("class_weight"), tuple):
        params["class_weight"] = dict(params["class_weight"])
    estimator = getattr(estimators, told["estimator"])(**params)
    estimator._validate_params()
    for key, value in told["fitted"].items():
        if key not in (*TOLD, *CURVES):
            raise ValueError(f"nothing of an estimator is named {key!r:.80}")
        setattr(estimator, key, value)
    estimator._hear(told)
    estimator._skips, estimator._curve = bool(told["form"]["residual"]), str(told["form"]["activation"])
    estimator._loss_fitted = loss_of(estimator)
    if "features" in told:
        estimator.feature_names_in_ = np.array(told["features"], dtype=object)
    return estimator


def _check_shapes(estimator: Any, form: dict[str, Any], tensors: dict[str, _header.Tensor]) -> None:
    """Raise unless the layers in a header are those that are told of, one after the other."""
    sizes = (estimator.n_features_in_, *form["hidden_layer_sizes"], estimator.n_outputs_)
    members = form["n_members"]
    lead = () if members == 1 else (members,)
    wanted = {f"coefs/{i}": (*lead, m, n) for i, (m, n) in enumerate(zip(sizes, sizes[1:], strict=False))}
    wanted |= {f"intercepts/{i}": (*lead, n) for i, n in enumerate(sizes[1:])}
    wanted |= {"best": (members,), "waited": (members,)}
    if form["norm"] is not None:
        wanted |= {f"norms/{i}/scale": (*lead, n) for i, n in enumerate(sizes[1:-1])}
    for key, shape in wanted.items():
        if key not in tensors or tensors[key].shape != shape:
            got = tensors[key].shape if key in tensors else None
            raise ValueError(f"{key} must have shape {shape}; got {got}")
    if any(tensor.dtype not in ("F32", "F64") for tensor in tensors.values()):
        raise ValueError("all tensors must be of float32 or float64")


def _class_weight(estimator: Any) -> dict[str, Any]:
    """Return weights of classes as pairs, since JSON makes a text of a label that is a key."""
    weights = getattr(estimator, "class_weight", None)
    return {"class_weight": list(weights.items())} if isinstance(weights, dict) else {}


def _of_numpy(value: Any) -> Any:
    """Return NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not what JSON can hold")
