"""What members train on, checked at the door and sorted: what is each member's own, and what all of them share."""

from typing import Any, NamedTuple

import jax
from jax import Array
from jax.core import Tracer
from jax.sharding import NamedSharding

from jaxmlp import _arrays, _check
from jaxmlp._engine.hosts import fetch
from jaxmlp._factories import RunLength
from jaxmlp._mesh import here, relaxed
from jaxmlp._preflight import entered
from jaxmlp._trees import first, on_host
from jaxmlp.data import Rows
from jaxmlp.recipe import Numbers, Recipe
from jaxmlp.types import Data, Hyperparams, Numeric


class Each(NamedTuple):
    """Data, parameters or arrays of which each member has its own; made by `each`."""

    data: Data


class Shared(NamedTuple):
    """Data, parameters or arrays that all members share; made by `shared`."""

    data: Data


def each(*data: Data) -> Each:
    """Say that every member has a table of its own: x (members, N, ...), y (members, N, ...), weight (members, N).

    To be passed as `data` or `validation` to the verbs of a population; and of one tree, as `params` or as an entry of
    `hyperparams`, whose leaves are (members, ...).

    >>> import numpy as np
    >>> each(np.zeros((4, 10, 3)), np.zeros((4, 10, 1))).data[0].shape
    (4, 10, 3)
    """
    return Each(data[0] if len(data) == 1 else data)


def shared(*data: Data) -> Shared:
    """Say that all members share this table, also where its first axis is as long as there are members.

    Data is shared unless `each` says otherwise; the word is needed only where its shape could mean both. An entry of
    `hyperparams` that is a tree, or an array that no column of members is, asks for it: `shared(tree)`, one copy.

    >>> import numpy as np
    >>> shared(np.zeros((4, 10, 3)), np.zeros((4, 10, 1))).data[0].shape
    (4, 10, 3)
    """
    return Shared(data[0] if len(data) == 1 else data)


def plain(data: Data | Each | Shared) -> Data:
    """Return the data without the word that says whose it is."""
    return data.data if isinstance(data, Each | Shared) else data


def at_hand(given: Any) -> Any:
    """Return keys and numbers of members as arrays of this process, of which each member's can be cut out.

    Those that lie on a mesh are brought to the host; those on several processes by all of them, as `hosts.fetch` does.
    """
    try:
        leaves = jax.tree.leaves(given)
    except ValueError:  # a dict whose keys cannot be sorted: the check of the numbers says so
        return given
    laid = (a.sharding for a in leaves if isinstance(a, jax.Array) and not isinstance(a, Tracer))
    return here("these", fetch(given)) if any(isinstance(one, NamedSharding) for one in laid) else given


def checked_table(data: Any) -> Any:
    """Return data (x, y) or (x, y, weight) as arrays; only their shapes are asked for.

    Raises:
      ValueError: for anything else.
    """
    if not isinstance(data, tuple | list) or len(data) not in (1, 2, 3):
        raise ValueError(f"data must be (x, y) or (x, y, weight); got {_check.describe(data)}")
    data = _arrays.tree("data", data)
    for leaf in jax.tree.leaves(data):
        if not _check.is_array(leaf) or not leaf.shape:
            raise ValueError(f"data must hold arrays, the examples on their first axis; got {_check.describe(leaf)}")
    if not jax.tree.leaves(data[0]):
        raise ValueError("x of data must hold an array; got none")
    return data


class Inputs(NamedTuple):
    """The data of a call as the caller gave it; see `population.fit`."""

    data: Data
    validation: Data = None
    weights: Numeric | None = None
    rows: Numeric | None = None
    validation_rows: Numeric | None = None
    params: Any = None  # to begin with, or states to go on from

    def of(self, who: Any) -> "Inputs":
        """Return the inputs of the members `who`, an index array or a slice: what is each one's own is cut."""
        cut: dict[str, Any] = {}
        for name, given in self._asdict().items():
            if isinstance(given, Each):
                cut[name] = Each(jax.tree.map(lambda a: a[who], given.data))
            elif name not in ("data", "validation", "params") and given is not None:
                cut[name] = _rows_of(given, who)
        return self._replace(**cut)

    def shared_whole(self) -> "Inputs":
        """Return the inputs as members can cut and share them: brought from several processes, on automatic axes."""
        return Inputs(*map(relaxed, fetch(self)))

    def entered(self, *, streamed: bool = False) -> "Inputs":
        """Return the inputs as arrays that JAX takes; a stream's data as it is, and rows as they are until checked.

        Raises:
          ValueError: for leaves that are no arrays of numbers.
        """
        data = self.data if streamed else _entered("data", self.data)
        weights = None if self.weights is None else _arrays.array("weights", self.weights)
        validation = None if self.validation is None else _entered("validation", self.validation)
        return self._replace(data=data, validation=validation, weights=weights)

    @property
    def watched(self) -> bool:
        """Whether there is a validation loss to watch."""
        return self.validation is not None or self.validation_rows is not None


def _entered(what: str, given: Any) -> Any:
    """Return a table as arrays, under the word that says whose it is; what is no table stays, for its own check."""
    table = plain(given)
    if isinstance(given, Each):  # whose axes are others, for a check of their own
        found = _arrays.tree(what, table)
        return Each((*found, None) if isinstance(found, tuple | list) and len(found) == 1 else found)
    if isinstance(table, tuple | list) and len(table) in (1, 2, 3):
        table = type(table)(entered(table, what)) if type(table) in (tuple, list) else entered(table, what)
    return Shared(table) if isinstance(given, Shared) else table


def _rows_of(values: Any, who: Any) -> Any:
    """Return the entries of an array, or of a list whose entries may differ in length."""
    if isinstance(values, list | tuple):
        return values[who] if isinstance(who, slice) else [values[i] for i in who]
    return values[who]


class Request(NamedTuple):
    """What a call asks to be trained."""

    key: Array  # one typed key for one network, (members,) of them for a population
    inputs: Inputs
    recipe: Recipe
    hyperparams: Hyperparams

    def entered(self, *, streamed: bool = False) -> "Request":
        """Return the request with its inputs as arrays that JAX takes; see `Inputs.entered`."""
        return self._replace(inputs=self.inputs.entered(streamed=streamed))

    @property
    def single(self) -> bool:
        """Whether it is one network."""
        return getattr(self.key, "ndim", 0) == 0


class Member(NamedTuple):
    """What is one member's own; None where it is shared by all. With a leading axis (members,) it is all members."""

    key: Array
    numbers: Numbers
    data: Data  # (x, y) or (x, y, weight)
    validation: Data
    weight: Numeric | None  # (N,)
    rows: Rows | None
    validation_rows: Rows | None
    steps: RunLength | Numeric | None = None  # of the run, where the optimizer asks; an array where members differ
    params: Any = None  # to begin with, or a state to go on from; gone once the member has begun


class Tables(NamedTuple):
    """What all members share; None where it is each member's own."""

    data: Data
    validation: Data
    numbers: Numbers = Numbers({}, {}, {}, {})  # the trees among the hyperparameters that are not each member's own


def first_numbers(members: Member, tables: Tables) -> dict[str, Any]:
    """Return the hyperparameters of the first of all members, its own on the host."""
    return first(on_host(members.numbers.by_name)) | tables.numbers.by_name
