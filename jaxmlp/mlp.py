"""The multi-layer perceptron: affine maps and nonlinear ones, in turn, from an input to an output.

    h_0 = x,    h_l = phi(h_{l-1} W_l + b_l),    y = h_{L-1} W_L + b_L

An `MLP` is a description: static, hashable, without arrays. `init` makes the parameters, a tuple of
`Layer(w, b)`; `apply` is the equation above, a pure function of them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check, _stacking
from jaxmlp._check import Numeric
from jaxmlp.layer import ACTIVATIONS, INITIALIZERS, NORMS, Layer, affine, default_init, dropout


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, init=False, repr=False)
class MLP:
    """A multi-layer perceptron, described.

    Args:
      sizes: widths (input, hidden..., output), at least two; `MLP((1, 1))` is the line y = wx + b.
      activation: a name in `ACTIVATIONS`, or any elementwise callable.
      bias: whether the affine maps have a b.
      init: a name in `INITIALIZERS`, or a callable (key, shape, dtype) -> w. None chooses by the activation: He
        for the ReLU family, Glorot for tanh and sigmoid, LeCun for the rest. Biases start at zero.
      dropout: whether hidden units are dropped in training. The rate is a number: `apply(..., dropout_rate=)`.
      norm: None, "layer" or "rms", before each hidden activation.
      residual: whether a hidden layer as wide as its input adds that input, h + phi(h W + b).
      dtype: of the operands of the products, forward and backward, whose sums stay in the parameters' own; None is the
        parameters' own. With it there is no forward mode: `jax.jvp` asks for `replace(dtype=None)`.
      param_dtype: of the parameters; None is JAX's default float.
      scan: whether each run of equal hidden layers is held as one stacked `Layer`, w (layers, width, width), that a
        scan goes through: the same numbers, and a time to the first step that does not grow with depth. Pays from about
        32 layers on; `layers(params)` takes the stack apart.

    Raises:
      ValueError: for sizes that are not positive ints, and for unknown names.

    >>> mlp = MLP((64, 128, 10))
    >>> mlp
    MLP(sizes=(64, 128, 10))
    >>> params = mlp.init(jax.random.key(0))
    >>> jax.tree.map(jnp.shape, params[1])
    Layer(w=(128, 10), b=(10,), scale=None, shift=None)
    >>> mlp.apply(params, jnp.ones((5, 64))).shape
    (5, 10)
    """

    sizes: tuple[int, ...]
    activation: str | Callable[[Array], Array]
    bias: bool
    initializer: str | Callable[..., Array]
    dropout: bool
    norm: str | None
    residual: bool
    dtype: str | None
    param_dtype: str | None
    scan: bool

    # Written out, since the option is called `init` and so is the method.
    def __init__(
        self,
        sizes: Iterable[int],
        activation: str | Callable[[Array], Array] = "relu",
        bias: bool = True,
        init: str | Callable[..., Array] | None = None,
        dropout: bool = False,
        norm: str | None = None,
        residual: bool = False,
        dtype: Any = None,
        param_dtype: Any = None,
        scan: bool = False,
    ):
        if callable(activation):  # jax.nn.relu is "relu", so that equal nets are equal values
            activation = next((name for name, phi in ACTIVATIONS.items() if phi is activation), activation)
        else:
            _check.one_of("activation", activation, ACTIVATIONS)
        if init is None:
            init = default_init(activation)
        if not callable(init):
            _check.one_of("init", init, INITIALIZERS)
        if norm not in NORMS:
            _check.one_of("norm", norm, [str(name) for name in NORMS])
        for name, flag in (("bias", bias), ("dropout", dropout), ("residual", residual), ("scan", scan)):
            if not isinstance(flag, bool):
                hint = "; the rate is a number: hyperparams={'dropout_rate': ...}" if name == "dropout" else ""
                raise ValueError(f"{name} must be True or False; got {flag!r}{hint}")
        values = (_sizes(sizes), activation, bias, init, dropout, norm, residual)
        values += (_check.float_name("dtype", dtype), _check.float_name("param_dtype", param_dtype), scan)
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    def init(self, key: Array, *, init_scale: Any = 1.0) -> tuple[Layer, ...]:
        """Draw the parameters: w from the initializer times `init_scale`, b zero, scale one, shift zero.

        Raises:
          ValueError: for a key that is not one typed key, or an initializer that returns another shape.
        """
        _check.typed_key(key)
        dtype = _check.usable_dtype("param_dtype", self.param_dtype) or jax.dtypes.canonicalize_dtype(float)
        initializer = self.initializer if callable(self.initializer) else INITIALIZERS[self.initializer]
        keys = jax.random.split(key, len(self.sizes) - 1)

        def draw(shape: tuple[int, int], key: Array) -> Array:
            w = initializer(key, shape, dtype)
            if getattr(w, "shape", None) != shape:
                raise ValueError(
                    f"init must be an initializer (key, shape, dtype) -> array; a layer of {self!r} asked for {shape} "
                    f"and got {_check.describe(w)}; jax.nn.initializers.he_normal is a factory: pass he_normal()"
                )
            return jnp.asarray(init_scale, dtype) * w

        # Equal layers are drawn by one loop: compiling a random number generator for each is most of a cold start.
        drawn: dict[tuple[int, int], Array] = {}
        for shape in dict.fromkeys(self._shapes):
            which = np.array([i for i, other in enumerate(self._shapes) if other == shape])
            drawn[shape] = jax.lax.map(partial(draw, shape), keys[which])
        parts, layers, used = self._parts, [], dict.fromkeys(drawn, 0)
        for i, (count, shape) in enumerate(parts):
            width = shape[1:] if count == 1 else (count, *shape[1:])
            first, used[shape] = used[shape], used[shape] + count
            normed = self.norm if i < len(parts) - 1 else None
            layers.append(
                Layer(
                    drawn[shape][first if count == 1 else slice(first, first + count)],
                    jnp.zeros(width, dtype) if self.bias else None,
                    jnp.ones(width, dtype) if normed else None,
                    jnp.zeros(width, dtype) if normed == "layer" else None,
                )
            )
        return tuple(layers)

    def apply(
        self, params: tuple[Layer, ...], x: Numeric, *, key: Array | None = None, dropout_rate: Any = None
    ) -> Array:
        """Return the outputs: x (..., in) -> (..., out), one example and a batch alike.

        With a `key` the pass is one of training and drops hidden units at `dropout_rate` in [0, 1), if the net
        has dropout; without a key it is deterministic.

        Raises:
          ValueError: for x or parameters that do not fit the sizes, and for a rate that is missing or not wanted.
        """
        self._check(params, x, key, dropout_rate)
        dtype = _check.usable_dtype("dtype", self.dtype)
        activation = self.activation if callable(self.activation) else ACTIVATIONS[self.activation]
        normalise = NORMS[self.norm]
        skip = _add_if_equal if self.residual else _forget
        parts = self._parts
        keys: list[Any] = [None] * len(parts)
        if self.dropout and key is not None:
            keys = _stacking.cut(jax.random.split(key, len(self._shapes)), parts)

        def hidden(h: Any, part: tuple[Layer, Array | None]) -> tuple[Array, None]:
            layer, drop_key = part
            phi = activation(normalise(layer, affine(layer, h, dtype)))
            return skip(h, dropout(drop_key, dropout_rate, phi)), None

        h = jnp.asarray(x, params[0].w.dtype)
        for layers, drop_keys, (count, _) in zip(params[:-1], keys, parts, strict=False):
            h = _stacking.through(hidden, h, (layers, drop_keys), count)
        return affine(params[-1], h, dtype)

    def layers(self, params: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """Return the parameters with each layer on its own, as they are but for the stacks that `scan` makes.

        Raises:
          ValueError: for parameters that are not of this net.

        >>> mlp = MLP((3, 8, 8, 8, 2), scan=True)
        >>> params = mlp.init(jax.random.key(0))
        >>> [part.w.shape for part in params], len(mlp.layers(params))
        ([(3, 8), (2, 8, 8), (8, 2)], 4)
        """
        self._check_layers(params)
        return _stacking.unstack(params, self._parts)

    def _check(self, params: tuple[Layer, ...], x: Numeric, key: Array | None, dropout_rate: Any) -> None:
        _check.floating("x", x)
        if x.ndim < 1 or x.shape[-1] != self.sizes[0]:
            hint = "; one feature needs a last axis of 1: x[:, None]" if self.sizes[0] == 1 else ""
            raise ValueError(
                f"x must have shape (..., {self.sizes[0]}) for layer 0 of {self!r}; got {_check.describe(x)}{hint}"
            )
        self._check_layers(params)
        for i, (layer, (count, shape)) in enumerate(zip(params, self._parts, strict=True)):
            shape = shape if count == 1 else (count, *shape)
            if layer.w.shape != shape:
                hint = "; map over members with jax.vmap" if layer.w.ndim > len(shape) else ""
                raise ValueError(f"layer {i} of {self!r} must have w of shape {shape}; got {layer.w.shape}{hint}")
        if dropout_rate is not None:
            if not self.dropout:
                raise ValueError(f"dropout_rate was given to {self!r}; it takes one with MLP(..., dropout=True)")
            _check.within("dropout_rate", dropout_rate, 0, 1, open_high=True)
        elif self.dropout and key is not None:
            raise ValueError(f"dropout_rate must be given with a key to {self!r}; add it to hyperparams")

    def _check_layers(self, params: tuple[Layer, ...]) -> None:
        if not isinstance(params, tuple) or not all(isinstance(layer, Layer) for layer in params):
            raise ValueError(f"params must be a tuple of Layer, as init makes it; got {type(params).__name__}")
        parts = self._parts
        if len(params) != len(parts):
            what = "parts, a run of equal hidden layers each," if self.scan else "layers"
            raise ValueError(f"params must have {len(parts)} {what} for {self!r}; got {len(params)}")

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def _parts(self) -> _stacking.Parts:
        return _stacking.parts_of(self._shapes, self.scan)

    @property
    def _leaves(self) -> list[dict[str, tuple[int, ...]]]:
        bias, norm = ["b"] * self.bias, {None: [], "layer": ["scale", "shift"], "rms": ["scale"]}[self.norm]
        *hidden, last = self._shapes
        leaves = [{"w": shape} | dict.fromkeys(bias + norm, shape[1:]) for shape in hidden]
        return [*leaves, {"w": last} | dict.fromkeys(bias, last[1:])]

    @property
    def parameter_count(self) -> int:
        """Number of trained numbers."""
        return sum(math.prod(shape) for leaves in self._leaves for shape in leaves.values())

    @property
    def parameter_bytes(self) -> int:
        """Bytes that the parameters take."""
        dtype = self.param_dtype or jax.dtypes.canonicalize_dtype(float)
        return self.parameter_count * jnp.dtype(dtype).itemsize

    @property
    def forward_flops(self) -> int:
        """Additions and multiplications of the affine maps for one example: 2 in out, and out more for b."""
        return sum(2 * m * n + (n if self.bias else 0) for m, n in self._shapes)

    def replace(self, **changes: Any) -> "MLP":
        """Return this description with other options; an initializer that suited the activation goes on doing so.

        >>> MLP((4, 8, 2)).replace(activation="tanh").initializer
        'glorot_uniform'
        """
        options = self._options()
        if options["init"] == default_init(self.activation):
            del options["init"]
        return MLP(**{**options, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a dict that JSON can hold; `from_dict` reads it back.

        Raises:
          ValueError: where the activation or the initializer is a callable, which JSON cannot hold.
        """
        options = self._options()
        for name in ("activation", "init"):
            if callable(options[name]):
                raise ValueError(
                    f"to_dict needs {name} by name; got {options[name]!r}; known names print in MLP's errors"
                )
        return {**options, "sizes": list(self.sizes)}

    @staticmethod
    def from_dict(options: dict[str, Any]) -> "MLP":
        """Return the MLP that `to_dict` wrote.

        Raises:
          ValueError: for an unknown option, or where sizes are missing.

        >>> MLP.from_dict(MLP((4, 8, 2), "tanh").to_dict())
        MLP(sizes=(4, 8, 2), activation='tanh')
        """
        for name in options:
            _check.one_of("an option of MLP", name, MLP((1, 1))._options())
        if "sizes" not in options:
            raise ValueError(f"an MLP needs sizes; got only {', '.join(options) or 'an empty dict'}")
        return MLP(**options)

    def _options(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {("init" if name == "initializer" else name): value for name, value in values.items()}

    def __repr__(self) -> str:
        default = MLP(self.sizes, self.activation)._options() | {"activation": "relu"}
        changed = {k: v for k, v in self._options().items() if k == "sizes" or v != default[k]}
        named = {k: getattr(v, "__name__", repr(v)) if callable(v) else repr(v) for k, v in changed.items()}
        return f"MLP({', '.join(f'{k}={v}' for k, v in named.items())})"

    def __str__(self) -> str:
        lines = [
            f"{self!r}",
            f"{self.parameter_count:,} parameters, {self.parameter_bytes:,} bytes, "
            f"{self.forward_flops:,} FLOPs an example",
            "layer  shapes",
        ]
        for i, leaves in enumerate(self._leaves):
            lines.append(f"{i:<6} {'  '.join(f'{name} {shape}' for name, shape in leaves.items())}")
        return "\n".join(lines)


def _sizes(sizes: Iterable[int]) -> tuple[int, ...]:
    if not isinstance(sizes, Iterable) or isinstance(sizes, str):
        raise ValueError(f"sizes must list the widths (input, hidden..., output); got {sizes!r}")
    sizes = tuple(_check.positive_int("every size", size) for size in sizes)
    if len(sizes) < 2:
        raise ValueError(f"sizes must name at least an input and an output width; got {sizes}")
    return sizes


def _add_if_equal(x: Numeric, h: Array) -> Array:
    return jnp.asarray(x, h.dtype) + h if x.shape == h.shape else h


def _forget(x: Numeric, h: Array) -> Array:
    return h
