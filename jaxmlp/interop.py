"""Models that go elsewhere and come back: StableHLO, PyTorch, scikit-learn.

Weights of PyTorch are (out, in), ours and scikit-learn's are (in, out).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp.layer import Layer
from jaxmlp.mlp import MLP
from jaxmlp.types import Params, PyTree

Activation: TypeAlias = str | Callable[[Array], Array]
PLATFORMS = ("cpu", "cuda", "tpu")
SKLEARN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}  # theirs: ours
# Theirs: ours, and what of theirs must have which value for the two to be the same function.
TORCH: dict[str, tuple[str, dict[str, object]]] = {
    "Identity": ("identity", {}),
    "ReLU": ("relu", {}),
    "Sigmoid": ("sigmoid", {}),
    "Tanh": ("tanh", {}),
    "LeakyReLU": ("leaky_relu", {"negative_slope": 0.01}),
    "ELU": ("elu", {"alpha": 1.0}),
    "SELU": ("selu", {}),
    "GELU": ("gelu", {"approximate": "tanh"}),
    "SiLU": ("silu", {}),
    "Softplus": ("softplus", {"beta": 1.0}),
    "Mish": ("mish", {}),
    "Hardtanh": ("hard_tanh", {"min_val": -1.0, "max_val": 1.0}),
}


def export(model: Any, params: Params, *, x: PyTree = None) -> bytes:
    """Return the model with its parameters as one serialised StableHLO program, for CPU, CUDA and TPU at once.

    `jax.export.deserialize(data).call(x)` runs it, for any number of examples, without jaxmlp.

    Args:
      model: an `MLP`, or any object with `apply(params, x)`.
      params: its parameters; of a population of an `MLP` the outputs get the leading axes of its members.
      x: for a model that is no `MLP`, inputs (batch, ...) to take the shape of an example from.

    Raises:
      ValueError: for a model that does not say what goes in, and for parameters that do not fit.

    >>> mlp = MLP((3, 4, 2))
    >>> data = export(mlp, mlp.init(jax.random.key(0)))
    >>> jax.export.deserialize(data).call(jnp.ones((5, 3))).shape
    (5, 2)
    """
    import jax.export as jax_export  # not loaded by `import jax`

    _check.extra("flatbuffers", "files")
    if isinstance(model, MLP):
        x = jax.ShapeDtypeStruct((1, model.sizes[0]), jax.dtypes.canonicalize_dtype(float))
    elif x is None:
        raise ValueError(f"x must be given for a model that is no MLP, inputs (batch, ...) of it; got {model!r}")
    (batch,) = jax_export.symbolic_shape("batch")
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), x)

    def apply(params: Params, x: PyTree) -> PyTree:
        return model.apply(params, x)

    if isinstance(model, MLP):
        model.structure.check(params, model, members=True)
        for _ in range(params[-1].w.ndim - 2):  # the last layer is in no stack: what stands before it are members
            apply = jax.vmap(apply, (0, None))
    program = jax.jit(lambda x: apply(params, x))
    return bytes(jax_export.export(program, platforms=PLATFORMS)(like).serialize())


def to_torch(model: MLP, params: tuple[Layer, ...]) -> dict[str, Any]:
    """Return the state dict of `nn.Sequential(nn.Linear(...), activation, nn.Linear(...), ...)`.

    Raises:
      ValueError: for a model that is more than affine maps and activations, or for a population.
    """
    torch = _check.extra("torch", "torch")
    params = _plain(model, params)

    def tensor(array: Array) -> Any:
        # By way of float32, which holds every bfloat16, since NumPy's is not PyTorch's.
        exact = np.array(array, np.float64 if array.dtype == np.float64 else np.float32)
        return torch.from_numpy(exact).to(getattr(torch, array.dtype.name))

    state = {}
    for i, layer in enumerate(params):
        state[f"{2 * i}.weight"] = tensor(layer.w.T)
        if layer.b is not None:
            state[f"{2 * i}.bias"] = tensor(layer.b)
    return state


def from_torch(source: Any, activation: Activation | None = None) -> tuple[MLP, tuple[Layer, ...]]:
    """Return model and parameters of an `nn.Sequential` of Linear and activations, or of its state dict.

    Args:
      source: the module, or its state dict, whose weights are taken in the order of their numbers.
      activation: for a state dict, which does not know it; "relu" unless given.

    Raises:
      ValueError: for modules that an `MLP` does not have, and for weights that do not chain.
    """
    if isinstance(source, Mapping):
        state = source
    else:
        activation = _torch_activation(source)
        state = source.state_dict()
    numbers = sorted({int(name.split(".")[0]) for name in state if name.split(".")[0].isdigit()})
    names = {f"{n}.{leaf}" for n in numbers for leaf in ("weight", "bias")}
    strange = [name for name in state if name not in names]
    if strange or not numbers:
        raise ValueError(
            f"a state dict must hold 0.weight, 0.bias, 2.weight and so on, as of nn.Sequential; got "
            f"{', '.join(map(str, strange[:4])) or 'nothing'}"
        )
    values = {name: _numpy(value) for name, value in state.items()}
    weights = [values[f"{n}.weight"].T if f"{n}.weight" in values else None for n in numbers]
    return _model(weights, [values.get(f"{n}.bias") for n in numbers], activation or "relu")


def _numpy(tensor: Any) -> np.ndarray:
    """Return a PyTorch tensor as an array; NumPy has no bfloat16 of PyTorch's, so by way of float32."""
    name = str(tensor.dtype).removeprefix("torch.")
    tensor = tensor.detach().cpu()
    return np.asarray((tensor if name == "float64" else tensor.float()).numpy()).astype(jnp.dtype(name))


def to_sklearn(model: MLP, params: tuple[Layer, ...], *, classes: Sequence[object] | np.ndarray | None = None) -> Any:
    """Return a fitted scikit-learn estimator with these weights: an MLPRegressor, or with `classes` an MLPClassifier.

    Args:
      model: affine maps and an activation that scikit-learn has: identity, sigmoid, tanh or relu.
      params: its parameters.
      classes: the labels, one for each output, or two for a single output, whose logit is the second's.

    Raises:
      ValueError: for a model that scikit-learn cannot be.
    """
    neural = _check.extra("sklearn.neural_network", "experiments")
    preprocessing = _check.extra("sklearn.preprocessing", "experiments")
    params = _plain(model, params)
    theirs = {ours: name for name, ours in SKLEARN.items()}
    if model.activation not in theirs or not model.bias:
        raise ValueError(f"model must have biases and one of {', '.join(theirs)}, for scikit-learn; got {model!r}")
    kind = neural.MLPRegressor if classes is None else neural.MLPClassifier
    estimator = kind(hidden_layer_sizes=model.sizes[1:-1], activation=theirs[str(model.activation)])
    estimator.coefs_ = [np.asarray(layer.w) for layer in params]
    estimator.intercepts_ = [np.asarray(layer.b) for layer in params]
    estimator.n_layers_, estimator.n_outputs_ = len(model.sizes), model.sizes[-1]
    estimator.n_features_in_ = model.sizes[0]
    estimator.out_activation_ = "identity"
    if classes is not None:
        classes = np.asarray(classes)
        if len(classes) != max(2, model.sizes[-1]):
            raise ValueError(f"classes must name {max(2, model.sizes[-1])} labels; got {len(classes)}")
        estimator.classes_ = np.sort(classes)
        if (estimator.classes_ != classes).any():
            raise ValueError(f"classes must be sorted, as scikit-learn has them; got {classes}")
        estimator._label_binarizer = preprocessing.LabelBinarizer().fit(classes)
        estimator.out_activation_ = "logistic" if model.sizes[-1] == 1 else "softmax"
    return estimator


def from_sklearn(estimator: Any) -> tuple[MLP, tuple[Layer, ...]]:
    """Return model and parameters of a fitted MLPRegressor or MLPClassifier.

    The outputs of a regressor are its predictions; those of a classifier are logits, whose softmax, or for one output
    sigmoid, are its probabilities.

    Raises:
      ValueError: for an estimator that is not fitted, or is no perceptron.
    """
    if not hasattr(estimator, "coefs_"):
        raise ValueError(f"estimator must be a fitted MLPRegressor or MLPClassifier; got {estimator!r}")
    _check.one_of("activation of the estimator", estimator.activation, SKLEARN)
    return _model(estimator.coefs_, estimator.intercepts_, SKLEARN[estimator.activation])


def _plain(model: MLP, params: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the layers of a net that other libraries have too."""
    if not isinstance(model, MLP) or model.norm or model.residual or callable(model.activation):
        raise ValueError(f"model must be an MLP of affine maps and a named activation; got {model!r}")
    layers = model.layers(params)
    if layers[0].w.ndim != 2:
        raise ValueError(f"params must be of one network; got w of shape {layers[0].w.shape}; population.member picks")
    return layers


def _model(
    weights: Sequence[Any], biases: Sequence[np.ndarray | None], activation: Activation
) -> tuple[MLP, tuple[Layer, ...]]:
    """Return the MLP of these weights (in, out) and biases (out,) or None."""
    shapes = [None if w is None else w.shape for w in weights]
    chained = all(s is not None and len(s) == 2 for s in shapes)
    if not chained or any(a[1] != b[0] for a, b in zip(shapes, shapes[1:], strict=False)):  # type: ignore[index]
        raise ValueError(f"weights must chain, (in, out) each; got {shapes}")
    if len({b is None for b in biases}) != 1 or any(
        b is not None and b.shape != w.shape[1:] for w, b in zip(weights, biases, strict=True)
    ):
        raise ValueError(f"biases must be there for all layers or none, (out,) each; got {biases!r:.200}")
    dtype = jax.dtypes.canonicalize_dtype(np.result_type(*weights))
    model = MLP((len(weights[0]), *(w.shape[1] for w in weights)), activation, bias=biases[0] is not None)
    if dtype != jax.dtypes.canonicalize_dtype(float):
        model = model.replace(param_dtype=dtype)
    layers = [
        Layer(jnp.asarray(w, dtype), None if b is None else jnp.asarray(b, dtype))
        for w, b in zip(weights, biases, strict=True)
    ]
    return model, tuple(layers)


def _torch_activation(module: Any) -> str:
    found = set()
    children = list(module) if hasattr(module, "__iter__") else []
    kinds = [type(child).__name__ for child in children]
    between = [child for child, kind in zip(children, kinds, strict=True) if kind not in ("Linear", "Dropout")]
    for child in between:
        ours, needs = TORCH.get(type(child).__name__, (None, {}))
        if ours is None or any(getattr(child, name) != value for name, value in needs.items()):
            raise ValueError(
                f"an nn.Sequential must hold Linear and one of {', '.join(TORCH)}, as jaxmlp has them "
                f"({', '.join(f'{n}={v}' for n, v in needs.items()) or 'by their defaults'}); got {child}"
            )
        found.add(ours)
    linear = [i for i, kind in enumerate(kinds) if kind == "Linear"]
    gaps = [[c for c in children[a + 1 : b] if c in between] for a, b in zip(linear, linear[1:], strict=False)]
    last = [c for c in children[linear[-1] + 1 :] if c in between] if linear else between
    if not linear or len(found) > 1 or last or any(len(gap) != (1 if found else 0) for gap in gaps):
        raise ValueError(f"an nn.Sequential must be Linear, activation, Linear ..., with one activation; got {module}")
    return found.pop() if found else "identity"
