"""The multi-layer perceptron: affine maps and nonlinear ones, in turn, from an input to an output.

    h_0 = x,    h_l = phi(h_{l-1} W_l + b_l),    y = h_{L-1} W_L + b_L

An `MLP` is a description: static, hashable, without arrays. `init` makes the parameters, a tuple of
`Layer(w, b)`; `apply` is the equation above, a pure function of them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _arguments, _arrays, _check, _description, _mesh, _stacking
from jaxmlp._structure import Structure, draw, widths
from jaxmlp.layer import ACTIVATIONS, INITIALIZERS, NORMS, Hidden, Layer, affine, default_init
from jaxmlp.types import Number, Numeric, Params

WIDEST = 2**31 - 1


@jax.tree_util.register_static
@_description.also_init
@dataclasses.dataclass(frozen=True, repr=False)
class MLP:
    """A multi-layer perceptron, described.

    Args:
      sizes: widths (input, hidden..., output), at least two; `MLP((1, 1))` is the line y = wx + b.
      activation: a name in `ACTIVATIONS`, or any elementwise callable.
      bias: whether the affine maps have a b.
      initializer: a name in `INITIALIZERS`, or a callable (key, shape, dtype) -> w. None chooses by the activation: He
        for the ReLU family, Glorot for tanh and sigmoid, LeCun for the rest. Biases start at zero. `init=`, its first
        name, is read too.
      dropout: whether hidden units are dropped in training. The rate is a number: `apply(..., dropout_rate=)`.
      norm: None, "layer" or "rms", before each hidden activation.
      residual: whether a hidden layer as wide as its input adds that input, h + phi(h W + b).
      dtype: of the operands of the products, in derivatives of any order too, whose sums stay in the parameters' own;
        None is the parameters' own.
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

    sizes: Sequence[int]  # a tuple, whatever was given
    activation: str | Callable[[Array], Array] = "relu"
    bias: bool = True
    initializer: str | Callable[..., Array] | None = None  # never None once made
    dropout: bool = False
    norm: str | None = None
    residual: bool = False
    dtype: Any = None  # a name or None, whatever was given; and so the next
    param_dtype: Any = None
    scan: bool = False

    def __post_init__(self) -> None:
        activation, initializer = self.activation, self.initializer
        sizes = widths(self.sizes)
        if callable(activation):  # jax.nn.relu is "relu", so that equal nets are equal values
            activation = next((name for name, phi in ACTIVATIONS.items() if phi is activation), activation)
        else:
            _check.one_of("activation", activation, ACTIVATIONS)
        if callable(activation):
            _arguments.takes("activation", activation, 1, "an array")
        if initializer is None:
            initializer = default_init(activation)
        if callable(initializer):
            _arguments.takes("initializer", initializer, 3, "(key, shape, dtype)")
        else:
            _check.one_of("initializer", initializer, INITIALIZERS)
        if not isinstance(self.norm, str | None) or self.norm not in NORMS:
            _check.one_of("norm", self.norm, [str(name) for name in NORMS])
        for name in ("bias", "dropout", "residual", "scan"):
            if not isinstance(getattr(self, name), bool):
                hint = "; the rate is a number: hyperparams={'dropout_rate': ...}" if name == "dropout" else ""
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}{hint}")
        normal = {
            "sizes": sizes,
            "activation": activation,
            "initializer": initializer,
            "dtype": _arguments.float_name("dtype", self.dtype),
            "param_dtype": _arguments.float_name("param_dtype", self.param_dtype),
        }
        for name, value in normal.items():
            object.__setattr__(self, name, value)  # as a frozen dataclass sets its own fields

    def init(self, key: Array, *, init_scale: Number = 1.0) -> tuple[Layer, ...]:
        """Draw the parameters: w from the initializer times `init_scale`, b zero, scale one, shift zero.

        Raises:
          ValueError: for a key that is not one typed key, a scale that is not one finite number, sizes that
            no array has, or an initializer that returns another shape.
        """
        _check.typed_key(key)
        if max(self.sizes) > WIDEST:
            raise ValueError(
                f"every size must be at most {WIDEST}, the largest index of an array; got {max(self.sizes)}"
            )
        dtype = _arguments.usable_dtype("param_dtype", self.param_dtype) or jax.dtypes.canonicalize_dtype(float)
        initializer = _named(self.initializer, INITIALIZERS)
        scale = _arrays.number("init_scale", init_scale, ndim=0)
        known = _check.on_host(scale)
        if known is not None and not abs(float(known)) <= float(jnp.finfo(dtype).max):
            raise ValueError(f"init_scale must be finite in {jnp.dtype(dtype).name}; got {init_scale}")
        scale = jnp.asarray(scale, dtype)
        return draw(key, scale, structure=self.structure, initializer=initializer, dtype=dtype)

    def apply(
        self, params: tuple[Layer, ...], x: Numeric, *, key: Array | None = None, dropout_rate: Number | None = None
    ) -> Array:
        """Return the outputs: x (..., in) -> (..., out), one example and a batch alike.

        With a `key` the pass is one of training and drops hidden units at `dropout_rate` in [0, 1), if the net
        has dropout; without a key it is deterministic.

        Derivatives of any order are nested `jax.jvp` and `jax.grad`. So are those of `jax.experimental.jet`, which goes
        through the net as it stands: not through `jax.jit` of it or a stack, nor JAX's own relu, softplus and mish.
        Where explicit axes of a mesh split the parameters, the outputs lie by the rows of x.

        Raises:
          ValueError: for x or parameters that do not fit the net, for a rate that is missing or not wanted, and for an
            activation that gives another shape.
        """
        x = _arrays.array("x", x) if _arrays.is_like_array(x) else x
        params = _arrays.leaves_of_numpy("params", params)
        parts = self._check(params, x, key, dropout_rate)
        dtype = _arguments.usable_dtype("dtype", self.dtype)
        hidden = Hidden(_named(self.activation, ACTIVATIONS), self.norm, self.residual, dtype)

        def outputs(params: tuple[Layer, ...], x: Numeric, key: Array | None, rate: Number | None) -> Array:
            keys: list[Array | None] = [None] * len(parts)
            if self.dropout and key is not None:
                keys = _stacking.cut(jax.random.split(key, len(self.sizes) - 1), parts)
            h = jnp.asarray(x, params[0].w.dtype)
            for layer, drop_key, (count, _) in zip(params[:-1], keys, parts, strict=False):
                h = _stacking.through(hidden, layer, h, drop_key, rate, count)  # phi(h W + b), or a stack of them
            return affine(params[-1], h, dtype)

        return _mesh.by_rows(outputs, params, x, key, dropout_rate)

    def layers(self, params: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """Return the parameters with each layer on its own, as they are but for the stacks that `scan` makes.

        Raises:
          ValueError: for parameters that are not of this net.

        >>> mlp = MLP((3, 8, 8, 8, 2), scan=True)
        >>> params = mlp.init(jax.random.key(0))
        >>> [part.w.shape for part in params], len(mlp.layers(params))
        ([(3, 8), (2, 8, 8), (8, 2)], 4)
        """
        return _stacking.unstack(params, self.structure.check(params, self, members=True))

    def _check(self, params: Params, x: Numeric, key: Array | None, dropout_rate: Number | None) -> _stacking.Parts:
        _check.floating("x", x)
        if x.ndim < 1 or x.shape[-1] != self.sizes[0]:
            hint = "; one feature needs a last axis of 1: x[:, None]" if self.sizes[0] == 1 else ""
            raise ValueError(
                f"x must have shape (..., {self.sizes[0]}) for layer 0 of {self!r}; got {_check.describe(x)}{hint}"
            )
        parts = self.structure.check(params, self)
        if key is not None and getattr(key, "dtype", None) != jnp.uint32:  # JAX's old form of a key goes on working
            _check.typed_key(key)
        if dropout_rate is not None:
            if not self.dropout:
                raise ValueError(f"dropout_rate was given to {self!r}; it takes one with MLP(..., dropout=True)")
            _arrays.number("dropout_rate", dropout_rate, ndim=0)
            _check.within("dropout_rate", dropout_rate, 0, 1, open_high=True)
        elif self.dropout and key is not None:
            raise ValueError(f"dropout_rate must be given with a key to {self!r}; add it to hyperparams")
        return parts

    @property
    def structure(self) -> Structure:
        """What the parameters are: the leaves of each layer, their shapes, and which layers lie in a stack."""
        return Structure(tuple(self.sizes), self.bias, self.norm, self.scan)

    @property
    def parameter_count(self) -> int:
        """Number of trained numbers."""
        return self.structure.parameter_count

    @property
    def parameter_bytes(self) -> int:
        """Bytes that the parameters take."""
        dtype = self.param_dtype or jax.dtypes.canonicalize_dtype(float)
        return self.parameter_count * jnp.dtype(dtype).itemsize

    @property
    def forward_flops(self) -> int:
        """Additions and multiplications of the affine maps for one example: 2 in out, and out more for b."""
        return sum(2 * m * n + (n if self.bias else 0) for m, n in self.structure.shapes)

    def replace(self, **changes: object) -> "MLP":
        """Return this description with other options; an initializer that suited the activation goes on doing so.

        That is the one difference to `dataclasses.replace`, which keeps the initializer that it finds.

        >>> MLP((4, 8, 2)).replace(activation="tanh").initializer
        'glorot_uniform'
        >>> dataclasses.replace(MLP((4, 8, 2)), activation="tanh").initializer
        'he_normal'
        """
        kept = _description.options(self)
        if self.initializer == default_init(self.activation) or "init" in changes:
            del kept["initializer"]
        return MLP(**{**kept, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a dict that JSON can hold; `from_dict` reads it back.

        Raises:
          ValueError: where the activation or the initializer is a callable, which JSON cannot hold.
        """
        return _description.to_dict(self)

    @staticmethod
    def from_dict(options: Mapping[str, Any]) -> "MLP":
        """Return the MLP that `to_dict` wrote.

        Raises:
          ValueError: for an unknown option, or where sizes are missing.

        >>> MLP.from_dict(MLP((4, 8, 2), "tanh").to_dict())
        MLP(sizes=(4, 8, 2), activation='tanh')
        """
        return _description.from_dict(MLP, options)

    def __repr__(self) -> str:
        return _description.in_one_line(self)

    def __str__(self) -> str:
        return _description.as_table(self)


def _named(value: Any, known: Mapping[str, Any]) -> Any:
    return value if callable(value) else known[value]
