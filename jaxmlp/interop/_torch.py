"""Nets of PyTorch, whose weights are (out, in) where ours are (in, out)."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp.interop._plain import FLOATS, Activation, layers_of, model_of
from jaxmlp.layer import ACTIVATIONS, Layer
from jaxmlp.mlp import MLP

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
    "Softplus": ("softplus", {"beta": 1.0, "threshold": 20.0}),
    "Mish": ("mish", {}),
    "Hardtanh": ("hard_tanh", {"min_val": -1.0, "max_val": 1.0}),
}
Pairs = tuple[list[np.ndarray], list[np.ndarray | None]]  # weights (in, out) and biases (out,)


def to_torch(model: MLP, params: tuple[Layer, ...]) -> dict[str, Any]:
    """Return the state dict of `nn.Sequential(nn.Linear(...), activation, nn.Linear(...), ...)`.

    A state dict knows no activation: ours is theirs as `TORCH` has it, for "gelu" `nn.GELU("tanh")`.

    Raises:
      ValueError: for a model that is more than affine maps and activations, for parameters that are not its own, or of
        a population.
    """
    torch = _check.extra("torch", "torch")
    layers = layers_of(model, params)

    def tensor(array: Array) -> Any:
        # By way of float32, which holds every bfloat16, since NumPy's is not PyTorch's.
        exact = np.array(array, np.float64 if array.dtype == np.float64 else np.float32)
        return torch.from_numpy(exact).to(getattr(torch, array.dtype.name))

    state = {}
    for i, layer in enumerate(layers):
        state[f"{2 * i}.weight"] = tensor(layer.w.T)
        if layer.b is not None:
            state[f"{2 * i}.bias"] = tensor(layer.b)
    return state


def from_torch(source: Any, activation: Activation | None = None) -> tuple[MLP, tuple[Layer, ...]]:
    """Return model and parameters of an `nn.Sequential` of Linear and activations, or of its state dict.

    Of a module everything is read: `apply` computes what the module does after `eval()`, or a ValueError names the part
    that an `MLP` has not. A Sequential within another, Identity, and in `eval` mode Dropout, are passed through.
    Weights of float64 become float32 unless JAX has 64 bits.

    Args:
      source: the module, or its state dict, whose weights are taken in the order of their numbers. A state dict does
        not tell of modules without weights: whoever passes one says that there are activations and nothing else.
      activation: for a state dict, which does not know it; "relu" unless given.

    Raises:
      ValueError: for modules that an `MLP` does not have, hooks, methods that were replaced and subclasses, and for
        weights that do not chain.
    """
    if not (activation is None or callable(activation)):
        _check.one_of("activation", activation, ACTIVATIONS)
    if isinstance(source, Mapping):
        pairs = _of_state(source, activation)
        return model_of(*pairs, "relu" if activation is None else activation)
    linear, found = _chain(source)
    if activation not in (None, found):
        raise ValueError(f"activation must be that of the module, {found!r}, which is read from it; got {activation!r}")
    weights = [_numpy("weight", layer.weight).T for layer in linear]
    return model_of(weights, [None if a.bias is None else _numpy("bias", a.bias) for a in linear], found)


def _of_state(state: Mapping[str, Any], activation: Activation | None) -> Pairs:
    """Return weights and biases of a state dict."""
    first = [str(name).split(".")[0] for name in state]
    numbers = sorted({int(name) for name in first if name.isascii() and name.isdigit()})
    names = {f"{n}.{leaf}" for n in numbers for leaf in ("weight", "bias")}
    strange = [name for name in state if name not in names]
    if strange or not numbers:
        raise ValueError(
            f"a state dict must hold 0.weight, 0.bias, 2.weight and so on, as of nn.Sequential; got "
            f"{', '.join(map(str, strange[:4])) or 'nothing'}"
        )
    missing = [f"{n}.weight" for n in numbers if f"{n}.weight" not in state]
    if missing:
        raise ValueError(f"a state dict must hold a weight for every bias, and weights must chain; {missing[0]} misses")
    gaps = [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
    between = 1 if activation in ("identity", ACTIVATIONS["identity"]) else 2
    if numbers[0] != 0 or min(gaps, default=between) < between:
        raise ValueError(
            f"a state dict must begin with 0.weight and leave a number for the activation after each layer but the "
            f"last, as of nn.Sequential(Linear, activation, Linear ...); got weights numbered "
            f"{', '.join(map(str, numbers))}; pass the module itself"
        )
    weights = [_numpy(f"{n}.weight", state[f"{n}.weight"]).T for n in numbers]
    biases = [_numpy(f"{n}.bias", state[f"{n}.bias"]) if f"{n}.bias" in state else None for n in numbers]
    return weights, biases


def _numpy(name: str, tensor: Any) -> np.ndarray:
    """Return a tensor of PyTorch or an array; NumPy has no bfloat16 of PyTorch's, so by way of float32."""
    dtype = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
    layout = str(getattr(tensor, "layout", "torch.strided"))
    if dtype not in FLOATS or getattr(tensor, "is_meta", False) or layout != "torch.strided":
        raise ValueError(
            f"{name} must be a dense tensor of floats, one of {', '.join(FLOATS)}; got {_check.describe(tensor):.200}"
        )
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    tensor = tensor.detach().cpu()
    return np.asarray((tensor if dtype == "float64" else tensor.float()).numpy()).astype(jnp.dtype(dtype))


def _chain(source: Any) -> tuple[list[Any], str]:
    """Return the Linear modules of a net, and the one activation that stands between any two of them."""
    nn = getattr(sys.modules.get("torch"), "nn", None)
    if nn is None or not isinstance(source, nn.Module):
        raise ValueError(f"source must be an nn.Sequential of PyTorch, or its state dict; got {source!r:.200}")
    modules = [module for module in _leaves(source, nn) if not _passes(module, nn)]
    linear = [i for i, module in enumerate(modules) if type(module) is nn.Linear]
    names = [None if i in linear else _activation(module, nn) for i, module in enumerate(modules)]
    words = f"an nn.Sequential must be Linear, activation, Linear ..., with one activation; got {source!r:.1000}"
    if not linear:
        raise ValueError(words)
    before, after = names[: linear[0]], names[linear[-1] + 1 :]
    if before or after:
        where, other = ("before the first", before) if before else ("after the last", after)
        raise ValueError(f"{words}; {where} Linear stands {', '.join(map(str, other))}: convert a slice without it")
    gaps = [names[a + 1 : b] or ["identity"] for a, b in zip(linear, linear[1:], strict=False)]
    found = {name for gap in gaps for name in gap}
    if len(found) > 1 or any(len(gap) > 1 for gap in gaps):
        raise ValueError(words)
    return [modules[i] for i in linear], str(found.pop()) if found else "identity"


def _leaves(module: Any, nn: Any) -> Iterable[Any]:
    """Yield the modules of a Sequential in order, those of a Sequential within it in its place."""
    _untouched(module)
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child, nn)
    else:
        yield module


def _untouched(module: Any) -> None:
    """Raise unless a module computes what its type does."""
    hooks = {
        name.strip("_"): found
        for holder, prefix in ((module, "_"), (sys.modules.get("torch.nn.modules.module"), "_global_"))
        for name in (f"{prefix}forward_pre_hooks", f"{prefix}forward_hooks")
        if (found := getattr(holder, name, None))
    }
    if hooks:
        raise ValueError(
            f"{type(module).__name__} must have no {' and no '.join(hooks)}, which an MLP would not run; got "
            f"{[hook for found in hooks.values() for hook in found.values()]!r:.200}; remove them, as "
            f"torch.nn.utils.remove_weight_norm, remove_spectral_norm and prune.remove do with theirs"
        )
    replaced = [name for name in vars(module) if callable(getattr(type(module), name, None))]
    if replaced:
        raise ValueError(
            f"{type(module).__name__} must have the methods of its type; got one with {', '.join(replaced)} of its own"
        )


def _passes(module: Any, nn: Any) -> bool:
    """Return whether a module gives what it gets, in prediction."""
    if type(module) is not nn.Dropout:
        return type(module) is nn.Identity
    if module.training and module.p > 0:
        raise ValueError(f"Dropout must be in eval mode, where it does nothing; got {module} in training; call eval()")
    return True


def _activation(module: Any, nn: Any) -> str:
    """Return our name of an activation."""
    kind = type(module).__name__
    ours, needs = TORCH.get(kind, (None, {})) if type(module) is getattr(nn, kind, None) else (None, {})
    if ours is None or any(getattr(module, name) != value for name, value in needs.items()):
        hint = "; of a subclass with the forward of its parent, pass nn.Sequential(*source)"
        raise ValueError(
            f"an nn.Sequential must hold Linear and one of {', '.join(TORCH)}, as jaxmlp has them "
            f"({', '.join(f'{n}={v}' for n, v in needs.items()) or 'by their defaults'}); got {module!r:.200}"
            f"{hint if isinstance(module, nn.Sequential) else ''}"
        )
    return ours
