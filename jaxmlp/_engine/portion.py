"""Which part of a whole population some members are, where machines that never talk train a part each."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp._engine.columns import columns_of
from jaxmlp._engine.names import flat
from jaxmlp._engine.stops import Stops
from jaxmlp.types import Hyperparams, Json


class Portion(NamedTuple):
    """The members number, number + of, number + 2 of ... of a whole, which is told by its digests.

    Args:
      of: how many parts there are.
      number: which of them this is, from 0.
      count: members of the whole.
      first: the integers behind the first key of the whole, by which the order of mapped files is drawn for all.
      keys: the digest of the keys of the whole.
      hyperparams: the digest of all hyperparameters.
    """

    of: int
    number: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    first: tuple[int, ...]
    keys: str
    hyperparams: str

    @classmethod
    def cut(cls, keys: Array, hyperparams: Hyperparams, *, of: int, number: int) -> "Portion":
        """Return a part of members with these keys and hyperparameters."""
        columns, shared = columns_of(hyperparams, len(keys))
        numbers = flat({"hyperparams": jax.tree.map(jnp.asarray, columns)}, "members")
        impl, data = str(jax.random.key_impl(keys)), np.asarray(jax.random.key_data(keys))
        told = digest_of(numbers | flat({"hyperparams": shared}, "shared"))
        return cls(of, number, len(keys), tuple(data[0].ravel().tolist()), digest_of({impl: data}), told)

    @classmethod
    def from_json(cls, told: Json) -> "Portion":
        """Return what `to_json` wrote."""
        return cls(**{**told, "first": tuple(told["first"])})

    def to_json(self) -> Json:
        """Return the fields as JSON."""
        return {**self._asdict(), "first": list(self.first)}

    @property
    def size(self) -> int:
        """How many members the part has."""
        return len(range(self.number, self.count, self.of))

    @property
    def members(self) -> np.ndarray:
        """The numbers of the members in the whole.

        >>> Portion(3, 1, 8, (), "", "").members
        array([1, 4, 7])
        """
        return np.arange(self.number, self.count, self.of)


class PartNumbers(dict[str, Any]):
    """The hyperparams of a part: a dict and a pytree that remembers the part, and so cannot be changed."""

    portion: Portion | None

    def __init__(self, values: Any = (), portion: Portion | None = None):
        """Hold the values."""
        super().__init__(values)
        self.portion = portion

    def copy(self) -> "PartNumbers":
        """Return a copy, of the same part."""
        return PartNumbers(self, self.portion)

    def __reduce__(self) -> Any:
        return PartNumbers, (dict(self), self.portion)

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        raise ValueError(
            "hyperparams of a part must stay as they were cut, with which all parts are compared; change those of all "
            "members, and pass them to population.part"
        )

    __setitem__ = __delitem__ = __or__ = __ror__ = __ior__ = _refuse  # pyright: ignore[reportAssignmentType]
    update = setdefault = pop = popitem = clear = _refuse  # pyright: ignore[reportAssignmentType]


jax.tree_util.register_pytree_with_keys(
    PartNumbers,
    lambda p: ([(jax.tree_util.DictKey(name), p[name]) for name in sorted(p)], (tuple(sorted(p)), p.portion)),
    lambda told, values: PartNumbers(zip(told[0], values, strict=True), told[1]),
)


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a digest of arrays and their names.

    >>> digest_of({"a": np.zeros(2), "b": np.ones(1)}) == digest_of({"b": np.ones(1), "a": np.zeros(2)})
    True
    """
    told = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        told.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return told.hexdigest()[:32]


def portion_of(hyperparams: Hyperparams) -> Portion | None:
    """Return which part of a whole these hyperparams are of, if they are of one."""
    return hyperparams.portion if isinstance(hyperparams, PartNumbers) else None


def as_part(hyperparams: Mapping[str, Any], portion: Portion | None) -> Mapping[str, Any]:
    """Return hyperparams that remember the part, if there is one."""
    return hyperparams if portion is None else PartNumbers(hyperparams, portion)


def first_key(keys: Array, hyperparams: Hyperparams) -> Array:
    """Return the key of the first member of all, also where these are a part of them."""
    portion = portion_of(hyperparams)
    if portion is None:
        return keys[0]
    data = np.array(portion.first, np.uint32).reshape(np.shape(jax.random.key_data(keys))[1:])
    return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(keys))


def check_part(hyperparams: Hyperparams, stops: Stops, keys: Any = None) -> None:
    """Raise where what is asked for cannot be had of a part of the members.

    Raises:
      ValueError: for halving, and for other keys than those of the part.
    """
    portion = portion_of(hyperparams)
    if portion is None:
        return
    if stops.halving is not None:
        raise ValueError(
            f"Halving must compare all members; part {portion.number} of {portion.of} has {portion.size} of "
            f"{portion.count}; stop the members of parts by Patience or Target, or halve all in one call"
        )
    if keys is not None and getattr(keys, "shape", None) != (portion.size,):
        raise ValueError(
            f"keys must be the {portion.size} of part {portion.number} of {portion.of}, whose hyperparams "
            f"these are; got {_check.describe(keys)}; pass both as population.part returns them"
        )
