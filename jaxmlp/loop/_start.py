"""What a run begins with, keys and hyperparameters: as a checkpoint holds them, and read from there."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp._engine.inputs import Each, Shared
from jaxmlp._engine.names import flat
from jaxmlp._engine.portion import Portion, as_part
from jaxmlp._trees import is_tree
from jaxmlp.layer import Layer
from jaxmlp.loop._digest import of_array, of_data
from jaxmlp.types import Hyperparams, Json, Number, PyTree

OWN, ALL = "members.hyperparams", "shared.hyperparams"  # names of arrays (members, ...), and of those that all share


class Start(NamedTuple):
    """What a run begins with.

    Args:
      key: one typed key for one network, (members,) of them for a population.
      hyperparams: of one network as they were given, of a population arrays (members, ...).
      shared: those of a population that all members share.
      unknown: the names of trees that a checkpoint cannot make again.
      part: which part of a whole population it is, where it is one.
    """

    key: Array
    hyperparams: Mapping[str, Any]
    shared: Mapping[str, Any] = {}
    unknown: tuple[str, ...] = ()
    part: Portion | None = None

    @property
    def single(self) -> bool:
        """Whether this is one network, and not a population."""
        return self.key.ndim == 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Return keys and numbers by name, (members, ...) each but for what is shared, as a checkpoint holds them."""
        numbers = jax.tree.map(jnp.asarray, dict(self.hyperparams))
        tree = {"key": self.key, "hyperparams": numbers}
        own = flat(jax.tree.map(lambda a: a[None], tree) if self.single else tree, "members")
        return own | flat({"hyperparams": dict(self.shared)}, "shared")

    def told(self) -> Json:
        """Return what a manifest says of the hyperparameters: plain numbers, and digests of all else."""
        own = {name: _told(value) for name, value in self.hyperparams.items()}
        return own | {name: _told_tree(value, shared=True) for name, value in self.shared.items()}

    def given(self) -> Hyperparams:
        """Return the hyperparameters as a caller gives them.

        Raises:
          ValueError: for trees that a checkpoint cannot make again.
        """
        if self.unknown:
            raise ValueError(
                f"hyperparams must be given to resume: a checkpoint cannot make the tree of {', '.join(self.unknown)} "
                f"again, which is of a class of its own; pass all of them, hyperparams={{{self.unknown[0]!r}: ...}}"
            )
        if self.single:
            return dict(self.hyperparams)
        own = {name: Each(value) if is_tree(value) else value for name, value in self.hyperparams.items()}
        return as_part(own | {name: Shared(value) for name, value in self.shared.items()}, self.part)


def read(key: Array, told: Json, arrays: Mapping[str, np.ndarray], *, single: bool) -> Start:
    """Return what a run began with, of keys (members,), what its manifest says, and the arrays of a checkpoint.

    Raises:
      ValueError: for arrays that are not there, or not as the manifest says.
    """
    numbers, shared, unknown = {}, {}, []
    for name, value in told.items():
        if isinstance(value, dict) and "form" in value:
            of_all = value["shared"]
            found = _read_tree(f"{ALL if of_all else OWN}.{name}", value["form"], arrays, 0 if of_all else len(key))
            if value["form"] is None:
                unknown.append(name)
            elif of_all:
                shared[name] = found
            else:
                numbers[name] = jax.tree.map(lambda a: a[0], found) if single else found
            continue
        array = arrays.get(f"{OWN}.{name}")
        if array is None or array.shape[:1] != key.shape or array.dtype.kind not in "biufV":
            raise ValueError(f"{OWN}.{name:.80} of the checkpoint must hold a number a member")
        # A Python number mixes with any dtype, an array does not: what it was decides about bits.
        one = not isinstance(value, dict) or "value" in value
        numbers[name] = _number_of(name, value) if single and one else jnp.asarray(array[0] if single else array)
    return Start(key[0] if single else key, numbers, shared, tuple(unknown))


def _told(value: Any) -> Any:
    if is_tree(value):
        return _told_tree(value, shared=False)
    if type(value) in (int, float):
        return value
    array = np.asarray(value)
    return {"value": array.item(), "dtype": str(array.dtype)} if array.ndim == 0 else of_array(array)


def _told_tree(value: PyTree, *, shared: bool) -> Json:
    return {"form": form_of(value), "arrays": of_data(value), "shared": shared}


def form_of(tree: PyTree) -> Any:
    """Return a tree's containers as JSON, or None for those of other classes than the few that are written here.

    >>> form_of({"net": (Layer(np.ones((2, 1)), np.zeros(1)),), "scale": np.ones(2)})
    {'dict': {'net': {'tuple': [{'Layer': ['array', 'array', 'none', 'none']}]}, 'scale': 'array'}}
    """
    if tree is None:
        return "none"
    if type(tree) is dict:
        inside = {name: form_of(value) for name, value in tree.items()}
        plain = all(isinstance(name, str) for name in tree) and None not in inside.values()
        return {"dict": inside} if plain else None
    if type(tree) in (list, tuple, Layer):
        items = [form_of(item) for item in tree]
        return None if None in items else {type(tree).__name__: items}
    return "array" if isinstance(tree, jax.Array | np.ndarray | np.generic | int | float) else None


def _read_tree(name: str, form: Any, arrays: Mapping[str, np.ndarray], members: int) -> PyTree:
    """Return a tree of this form whose leaves are the arrays of its name, each of so many members unless that is 0."""
    if form is None or form == "none":
        return None
    if form == "array":
        array = arrays.get(name)
        if array is None or members and array.shape[:1] != (members,):
            raise ValueError(f"{name:.80} of the checkpoint must hold the arrays that run.hyperparams names")
        return jnp.asarray(array)
    kind, inside = next(iter(form.items()))
    if kind == "dict":
        return {key: _read_tree(f"{name}.{key}", value, arrays, members) for key, value in inside.items()}
    names = Layer._fields if kind == "Layer" else range(len(inside))
    items = [_read_tree(f"{name}.{key}", value, arrays, members) for key, value in zip(names, inside, strict=True)]
    return Layer(*items) if kind == "Layer" else items if kind == "list" else tuple(items)


def _number_of(name: str, told: Number | Json) -> Number:
    """Return the number of one network that `_told` wrote down, in its own dtype: also NumPy's float64."""
    if not isinstance(told, dict):
        return told
    try:
        return np.asarray(told["value"]).astype(jnp.dtype(told["dtype"]))[()]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"hyperparams.{name:.80} of the checkpoint"
        raise ValueError(f"{what} must be a number with a dtype; {error}") from error
