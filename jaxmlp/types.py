"""The interfaces of what a caller brings, and the records of what a run gives back.

A model, a loss, a metric, an optimizer factory and a callback are plain objects: any that has the form below is
trained, swept and saved as those of this library are. After the positional arguments that a Protocol names,
`*args, **numbers` stands for whatever hyperparameters the object itself names in its signature.
"""

import os
from enum import IntEnum
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np
import optax
from jax import Array

Numeric: TypeAlias = Array | np.ndarray  # what may be passed wherever an array goes in
PyTree: TypeAlias = Any  # arrays, or nested tuples, lists, dicts and other containers of them, which JAX maps over
Params: TypeAlias = PyTree  # arrays, as `Model.init` makes it
Data: TypeAlias = PyTree  # (x, y) or (x, y, weight), arrays or pytrees of them with the examples on the first axis
Number: TypeAlias = float | np.number | np.ndarray | Array  # Python's, NumPy's or JAX's, also one that is traced
Hyperparams: TypeAlias = Any  # a mapping from names to numbers, or for members to arrays (members, ...)
States: TypeAlias = Any  # a `State` of one network or of many, (members, ...); for several recipes a list of them
Json: TypeAlias = dict[str, Any]  # an object of JSON
StrPath: TypeAlias = str | os.PathLike[str]


class Model(Protocol):
    """A description of a function with parameters: static and hashable, without arrays."""

    def init(self, key: Array, /, *args: Any, **numbers: Any) -> Params:
        """Return parameters drawn with one typed key."""
        ...

    def apply(self, params: Params, x: PyTree, /, *args: Any, **numbers: Any) -> PyTree:
        """Return the outputs of x (batch, ...), a pure function of its arguments.

        Where the signature names `key`, training passes one for each step, and evaluation none.
        """
        ...


class Loss(Protocol):
    """A loss of single examples: (outputs, targets) -> (batch,), or -> ((batch,), {name: (batch,)}).

    By name, after the first two arguments, it may ask for `params`, `x`, `apply` (`apply(params, x2)` is another
    forward pass with the run's numbers and key), `key`, `weight` (batch,) and `step`; other names are hyperparameters.
    """

    def __call__(self, outputs: PyTree, targets: PyTree, /, *args: Any, **numbers: Any) -> Any:
        """Return one value for each example, and others by name, whose means the history shows."""
        ...


class Metric(Protocol):
    """A figure for people: (outputs, targets, *, weight=None) -> ()."""

    def __call__(self, outputs: PyTree, targets: PyTree, /, *args: Any, **numbers: Any) -> Array:
        """Return one number; `weight` (batch,) counts an example more or less, and zero leaves it out."""
        ...


class After(Protocol):
    """What follows each update, a pure function: (params, those before, {name: mean of an extra}) -> params."""

    def __call__(
        self, params: Params, previous: Params, told: dict[str, Array], /, *args: Any, **numbers: Any
    ) -> Params:
        """Return the parameters to go on with; it may ask by name for what a loss may ask for, and for numbers."""
        ...


class OptimizerFactory(Protocol):
    """A function of numbers that builds an Optax transformation, as `optax.adam` does of a learning rate."""

    def __call__(self, *args: Any, **numbers: Any) -> optax.GradientTransformation:
        """Return the transformation; called while JAX traces, so its numbers may be traced."""
        ...


class Callback(Protocol):
    """What is called between two chunks of a run, on the host."""

    def __call__(self, state: States, history: "History", /) -> object:
        """Look at copies of the state and of the history so far; the returned value is not used."""
        ...


class Status(IntEnum):
    """What became of a member: the entries of `history["status"]`.

    >>> Status(2), Status.DIVERGED == 2
    (<Status.DIVERGED: 2>, True)
    """

    FINISHED = 0  # it ran to the last epoch, or is still running
    STOPPED = 1  # a rule stopped it early
    DIVERGED = 2  # its loss or parameters became NaN or infinite; it keeps its state before that epoch
    RUNNING = 0


class History(dict[str, Any]):
    """What a run recorded: a dict of arrays, and a pytree.

    The entry of each metric has shape (epochs,) for one network and (members, epochs) for a population. A population's
    has besides "status" (members,), one of `Status`, "epochs" (members,), and with patience "best_epoch" (members,).

    >>> history = History(loss=np.array([[0.5, 0.2], [0.4, np.nan]]), status=np.array([0, 1]), epochs=np.array([2, 1]))
    >>> history.status.tolist(), history.epochs.tolist(), list(history.curves)
    ([0, 1], [2, 1], ['loss'])
    """

    @property
    def curves(self) -> dict[str, Array]:
        """The entries that have one value for each epoch."""
        shape = np.shape(self["loss"])
        return {name: values for name, values in self.items() if np.shape(values)[: len(shape)] == shape}

    @property
    def status(self) -> Array:
        """(members,), what became of each member, as `Status` names it."""
        return self._of_members("status")

    @property
    def epochs(self) -> Array:
        """(members,), how many epochs each member was trained for."""
        return self._of_members("epochs")

    @property
    def best_epoch(self) -> Array:
        """(members,), the epoch of the best figure that patience watched, where a run had patience."""
        return self._of_members("best_epoch")

    def copy(self) -> "History":
        """Return a copy."""
        return History(self)

    def __or__(self, other: Any) -> Any:
        return History({**self, **other}) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return History({**other, **self}) if isinstance(other, dict) else NotImplemented

    def _of_members(self, name: str) -> Array:
        if name not in self:
            raise AttributeError(f"this history has no {name!r}; it has {', '.join(self)}")
        return self[name]


jax.tree_util.register_pytree_with_keys(
    History,
    lambda h: ([(jax.tree_util.DictKey(name), h[name]) for name in sorted(h)], tuple(sorted(h))),
    lambda names, values: History(zip(names, values, strict=True)),
)
