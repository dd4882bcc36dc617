"""A population on machines that never talk: `part` cuts the members of one, `gather` joins what all of them saved."""

import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from jaxmlp import _check
from jaxmlp._engine.columns import stacked
from jaxmlp._engine.entry import check_keys
from jaxmlp._engine.parts import numbers_of
from jaxmlp._engine.portion import PartNumbers, Portion, portion_of
from jaxmlp._mesh import here
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import History, Hyperparams, StrPath


class Part(NamedTuple):
    """The keys and hyperparams of a part of a population; made by `part`."""

    keys: Array
    hyperparams: PartNumbers

    @property
    def members(self) -> np.ndarray:
        """The numbers of these members in the whole, by which a caller cuts what else is each member's own."""
        return self._portion.members

    @property
    def of(self) -> int:
        """How many parts there are."""
        return self._portion.of

    @property
    def number(self) -> int:
        """Which of them this is, from 0."""
        return self._portion.number

    @property
    def _portion(self) -> Portion:
        portion = portion_of(self.hyperparams)
        if portion is None:
            raise ValueError("hyperparams of a Part must be those that population.part cut; got others")
        return portion


def part(keys: Array, hyperparams: Hyperparams = None, *, of: int, number: int) -> Part:
    """Return the members number, number + of, number + 2 of ... of a population, for one machine of `of`.

    Each machine makes the keys and hyperparams of all members, cuts its own, and trains them by an ordinary call into
    a directory of its own; nothing passes between them, and the loss of one loses no other's work:

        keys, hyperparams = population.part(keys, hyperparams, of=3, number=r)
        loop.train(keys, data, recipe, hyperparams, directory=f"runs/part-{r}")

    `gather` joins them. A member's bits depend on the width of the plan and the number of devices, and so are those
    that it has where one machine of these devices trains all; but where `rows` are padded for members of other parts
    alone, it is equal up to rounding, since without padding nothing is weighted. Halving, which compares all members,
    is refused.

    Args:
      keys: (members,) typed keys, of all members.
      hyperparams: of all members, in each form that `population.fit` takes.
      of: how many parts there are, at most as many as members; they differ by a member at most.
      number: which of them, 0 ... of - 1, as job arrays count their tasks.

    Returns:
      A `Part`, the pair (keys, hyperparams): `part.members` has the members' numbers, for what else is each one's own:
      `population.each(x[part.members], y[part.members])`, `rows=rows[part.members]`. The hyperparams are a dict that
      remembers the part; a checkpoint holds it, and a directory takes no other.

    Raises:
      ValueError: for more parts than members, a number outside them, and hyperparams that `population.fit` refuses.

    >>> import jax
    >>> from jaxmlp import population
    >>> keys, hyperparams = population.grid(learning_rate=[0.1, 0.2, 0.3, 0.4, 0.5])
    >>> mine = population.part(keys, hyperparams, of=2, number=1)
    >>> mine.members, mine.hyperparams["learning_rate"].tolist() == hyperparams["learning_rate"][1::2].tolist()
    (array([1, 3]), True)
    """
    keys, hyperparams = here("keys", keys), here("hyperparams", hyperparams)
    count, of = check_keys(keys), _check.positive_int("of", of)
    if of > count:
        raise ValueError(
            f"of must be at most the {count} members, since a part of none trains nothing; got {of}; start {count} "
            f"machines, or make more members"
        )
    number = _number(number, of)
    if (before := portion_of(hyperparams)) is not None:
        raise ValueError(
            f"hyperparams must be those of all members; these are of part {before.number} of {before.of}; cut the "
            f"whole once, with of={before.of * of} for more parts"
        )
    if isinstance(hyperparams, list | tuple):
        hyperparams = stacked(hyperparams)
    portion = Portion.cut(keys, hyperparams, of=of, number=number)
    mine = numbers_of({} if hyperparams is None else hyperparams, portion.members, count)
    return Part(keys[portion.members], PartNumbers(mine, portion))


def _number(number: Any, of: int) -> int:
    try:
        found = -1 if isinstance(number, bool | np.bool_) else operator.index(number)
    except TypeError:
        found = -1
    if not 0 <= found < of:
        hint = f"; pass int({number!r:.20})" if isinstance(number, str) and number.isdecimal() else ""
        raise ValueError(
            f"number must be an int in 0 ... {of - 1}, which of {of} parts; got {_check.shown(number)}{hint}"
        )
    return found


def gather(directories: StrPath | Iterable[StrPath], recipe: Recipe | None = None) -> tuple[State, History]:
    """Return the states and history of all members, from the directories in which their parts were trained.

    They are those that `loop.train` returns on one machine, bit for bit where all had its devices and versions, with
    NumPy's arrays, as after waves. The directories are only read. A part that is missing, or that was cut short, is
    named: any machine trains it anew, or takes a copy of its directory over, by the same call of `loop.train`.

    Args:
      directories: those of all parts, in any order; or one folder in which they lie.
      recipe: needed only where it has parts that are not of jaxmlp, Optax or JAX; these are not looked for by name. It
        gives the states their form.

    Returns:
      States with a leading axis (members,), with patience those of the best epochs, and the `History`, in the order
      of the whole. Parts that ran on other devices or versions come with a warning.

    Raises:
      ValueError: for parts that are missing, unfinished or there twice, with the way out; for those of another
        population, or not trained alike, with what differs; for damaged checkpoints; for several recipes in one part.
      ImportError: without the extra `checkpoint`.

    >>> from jaxmlp import MLP, loop, losses, population
    >>> import jax.numpy as jnp, optax, tempfile
    >>> x = jnp.linspace(-1, 1, 32)[:, None]
    >>> recipe = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=2)
    >>> keys, hyperparams = population.grid(learning_rate=[0.1, 0.2, 0.3])
    >>> with tempfile.TemporaryDirectory() as runs:
    ...     for r in range(2):
    ...         mine, numbers = population.part(keys, hyperparams, of=2, number=r)
    ...         _ = loop.train(mine, (x, 2 * x), recipe, numbers, directory=f"{runs}/part-{r}", progress=False)
    ...     states, history = population.gather(runs)
    >>> history["loss"].shape, history.status.tolist()
    ((3, 2), [0, 0, 0])
    """
    from jaxmlp.loop._gathering import gathered  # here: a population without checkpoints does not wait for the loop

    return gathered(directories, recipe)
