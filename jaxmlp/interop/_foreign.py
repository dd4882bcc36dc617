"""Models of Flax, Haiku and Equinox as models for a `Recipe`: init(key), and apply(params, x, key) in training.

What such a model changes while it trains, batch statistics above all, is no parameter: it is refused by name.
"""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _arrays, _check
from jaxmlp.types import Numeric, Params, PyTree

TRAINS, RESTS = ("train", "training", "is_training"), ("deterministic",)  # what a call names that differs in training
Form = tuple[Any, tuple[Any, ...]]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Linen:
    module: Any
    form: Form

    def init(self, key: Array) -> Params:
        return dict(self._variables(key))["params"]

    def apply(self, params: Params, x: PyTree, *, key: Array | None = None) -> PyTree:
        rngs = {} if key is None else {"rngs": {"dropout": key}}
        return self.module.apply({"params": params}, x, **rngs, **_flags(type(self.module).__call__, key))

    def _variables(self, key: Array) -> Any:
        keys = jax.random.split(key)
        return self.module.init({"params": keys[0], "dropout": keys[1]}, _example(self.form), **self._still())

    def _still(self) -> dict[str, bool]:
        return _flags(type(self.module).__call__, None)


def from_flax(module: Any, example: Numeric | PyTree) -> Any:
    """Return a model of a `flax.linen` module, whose parameters are its collection "params".

    Where its call names `train`, `training` or `is_training` it is told so in training, and `deterministic` otherwise;
    dropout gets a key at each step.

    Args:
      module: of Flax's Linen.
      example: inputs (batch, ...) as the module takes them; only shapes and dtypes count.

    Raises:
      ValueError: for what is no Linen module, and for one with other collections, as batch statistics, by their names.
      ImportError: without Flax.

    >>> from flax import linen                                                                    # doctest: +SKIP
    >>> model = from_flax(linen.Dense(1), jnp.ones((1, 3)))                                       # doctest: +SKIP
    """
    linen = _check.extra("flax.linen", "compose")
    if not isinstance(module, linen.Module):
        raise ValueError(
            f"module must be one of flax.linen; got {_check.describe(module)}; from_nnx takes those of nnx"
        )
    model = _Linen(module, _form(example))
    found = jax.eval_shape(model._variables, jax.random.key(0))
    if other := sorted(set(found) - {"params"}):
        raise ValueError(_changing("the Linen module", other))
    return model


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Haiku:
    transformed: Any
    form: Form

    def init(self, key: Array) -> Params:
        return self.transformed.init(key, _example(self.form))

    def apply(self, params: Params, x: PyTree, *, key: Array | None = None) -> PyTree:
        return self.transformed.apply(params, key, x)


def from_haiku(transformed: Any, example: Numeric | PyTree) -> Any:
    """Return a model of what `haiku.transform` gives of a function of x; in evaluation it gets no key.

    Args:
      transformed: its pair of init and apply.
      example: inputs (batch, ...) as the function takes them; only shapes and dtypes count.

    Raises:
      ValueError: for anything else, `haiku.transform_with_state` among it, whose state is no parameter.
      ImportError: without Haiku.
    """
    haiku = _check.extra("haiku", "compose")
    if isinstance(transformed, haiku.TransformedWithState):
        found = jax.eval_shape(transformed.init, jax.random.key(0), _example(_form(example)))[1]
        if jax.tree.leaves(found):
            raise ValueError(_changing("the Haiku function", sorted(found)))
        transformed = haiku.without_state(transformed)
    if not isinstance(transformed, haiku.Transformed):
        raise ValueError(f"transformed must be what haiku.transform gives; got {_check.describe(transformed)}")
    return _Haiku(transformed, _form(example))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class _Equinox:
    """A module has its first parameters: it is equal to itself alone."""

    module: Any

    def init(self, key: Array) -> Params:
        equinox = _check.extra("equinox", "compose")
        return equinox.partition(self.module, equinox.is_inexact_array)[0]

    def apply(self, params: Params, x: PyTree, *, key: Array | None = None) -> PyTree:
        equinox = _check.extra("equinox", "compose")
        module = equinox.combine(params, equinox.partition(self.module, equinox.is_inexact_array)[1])
        if key is None:
            return jax.vmap(equinox.nn.inference_mode(module))(x)
        if "key" not in inspect.signature(type(module).__call__).parameters:
            return jax.vmap(module)(x)
        return jax.vmap(lambda x, key: module(x, key=key))(x, jax.random.split(key, len(jax.tree.leaves(x)[0])))


def from_equinox(module: Any) -> Any:
    """Return a model of an Equinox module of one example, mapped over the batch; in evaluation in inference mode.

    The module has its parameters: `init` gives them, whatever the key, so that members of a population begin alike;
    `population.fit(params=population.each(...))` gives each its own.

    Raises:
      ValueError: for what is no module, and for one with state, as batch statistics.
      ImportError: without Equinox.
    """
    equinox = _check.extra("equinox", "compose")
    if not isinstance(module, equinox.Module):
        raise ValueError(f"module must be an equinox.Module; got {_check.describe(module)}")
    nodes = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, equinox.nn.StateIndex))
    if any(isinstance(node, equinox.nn.StateIndex) for node in nodes):
        raise ValueError(_changing("the Equinox module", ["its State"]))
    return _Equinox(module)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class _Nnx:
    """A module has its first parameters: it is equal to itself alone."""

    module: Any

    def init(self, key: Array) -> Params:
        nnx = _check.extra("flax.nnx", "compose")
        return nnx.to_pure_dict(nnx.split(self.module, nnx.Param, ...)[1])

    def apply(self, params: Params, x: PyTree, *, key: Array | None = None) -> PyTree:
        nnx = _check.extra("flax.nnx", "compose")
        graph, state, rest = nnx.split(self.module, nnx.Param, ...)
        state, rest = jax.tree.map(lambda a: a, (state, rest))  # copies, of this trace
        nnx.replace_by_pure_dict(state, params)
        module = nnx.merge(graph, state, rest)
        if key is None:
            module.eval()
        else:
            module.train()
            nnx.reseed(module, default=key, dropout=key)
        return module(x)


def from_nnx(module: Any) -> Any:
    """Return a model of a module of `flax.nnx`; in evaluation as after `module.eval()`.

    The module has its parameters: `init` gives them, whatever the key, so that members of a population begin alike;
    `population.fit(params=population.each(...))` gives each its own.

    Raises:
      ValueError: for what is no module, and for one with batch statistics or other variables that training changes.
      ImportError: without Flax.
    """
    nnx = _check.extra("flax.nnx", "compose")
    if not isinstance(module, nnx.Module):
        raise ValueError(
            f"module must be one of flax.nnx; got {_check.describe(module)}; from_flax takes those of Linen"
        )
    rest = nnx.split(module, nnx.Param, nnx.RngState, ...)[3]
    if kinds := sorted({type(leaf).__name__ for _, leaf in nnx.to_flat_state(rest)}):
        raise ValueError(_changing("the module of nnx", kinds))
    return _Nnx(module)


def _flags(call: Any, key: Array | None) -> dict[str, bool]:
    named = inspect.signature(call).parameters
    return {name: key is not None for name in TRAINS if name in named} | {n: key is None for n in RESTS if n in named}


def _form(example: PyTree) -> Form:
    leaves, structure = jax.tree.flatten(_arrays.tree("example", example))
    if not leaves or not all(_check.is_array(leaf) and leaf.shape for leaf in leaves):
        raise ValueError(f"example must hold inputs (batch, ...); got {_check.describe(example)}")
    return structure, tuple((leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves)


def _example(form: Form) -> PyTree:
    structure, leaves = form
    return jax.tree.unflatten(structure, [jnp.zeros(shape, dtype) for shape, dtype in leaves])


def _changing(what: str, names: list[str]) -> str:
    return (
        f"{what} must have nothing but parameters; got {', '.join(names)}, which its own training would change and "
        f"ours would leave at its start; use a norm without running statistics, as LayerNorm or GroupNorm"
    )
