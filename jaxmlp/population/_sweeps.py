"""Which settings a population tries: grids, random designs and plain lists, as keys and stacked hyperparams."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arguments, _arrays, _check
from jaxmlp._engine.columns import stacked
from jaxmlp._mesh import here

MEMBERS = 10**6  # of a design, at most: keys and numbers are made on the host


class Settings(dict[str, Array]):
    """Hyperparams of many members, {name: (members, ...)}: a dict and a pytree that `print` shows as a table.

    Its `repr`, which stands in whatever holds it, is one line with the shapes.

    >>> _, hyperparams = grid(learning_rate=[0.1, 0.01])
    >>> hyperparams
    Settings(learning_rate=(2,))
    """

    def __str__(self) -> str:
        columns = {name: np.asarray(value) for name, value in self.items()}
        if not columns:
            return "no hyperparams"
        count = len(next(iter(columns.values())))
        shown = range(count) if count <= 20 else [*range(10), *range(count - 5, count)]
        rows = [["member", *columns]]
        rows += [[str(i), *(_cell(column[i]) for column in columns.values())] for i in shown]
        if count > 20:
            rows.insert(11, ["..."] * len(rows[0]))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={np.shape(value)}' for name, value in self.items())})"


jax.tree_util.register_pytree_with_keys(
    Settings,
    lambda s: ([(jax.tree_util.DictKey(name), s[name]) for name in sorted(s)], tuple(sorted(s))),
    lambda names, values: Settings(zip(names, values, strict=True)),
)


class Uniform(NamedTuple):
    """A number drawn evenly from [low, high)."""

    low: float
    high: float


class LogUniform(NamedTuple):
    """A number whose logarithm is drawn evenly, from [low, high), low > 0."""

    low: float
    high: float


def grid(seeds: int = 1, *, key: Array | None = None, **values: Any) -> tuple[Array, Settings]:
    """Return keys and hyperparams of every combination of the values with every seed.

    The members stand in row-major order of the arguments, seeds last: `a.reshape(len(rates), len(decays), seeds)`
    brings a result (members,) back to the grid. Equal seeds have equal keys, `jax.random.key(seed)`, so settings are
    compared on the same initial weights and batches.

    Args:
      seeds: how many runs of each setting.
      key: where given, seed s has the key fold_in(key, s).
      values: a list of values for each name; an entry may itself be a vector (quantile levels).

    Raises:
      ValueError: for a name without values, seeds below 1, and more than a million members.

    >>> keys, hyperparams = grid(seeds=2, learning_rate=[0.1, 0.01], weight_decay=[0.0])
    >>> print(hyperparams)
    member  learning_rate  weight_decay
         0            0.1             0
         1            0.1             0
         2           0.01             0
         3           0.01             0
    """
    lists = {name: _list(name, value) for name, value in values.items()}
    check_members(math.prod(map(len, lists.values())), _check.positive_int("seeds", seeds))
    combinations = list(itertools.product(*lists.values()))
    return settings([dict(zip(lists, combination, strict=True)) for combination in combinations], seeds, key=key)


def settings(rows: Iterable[Mapping[str, Any]], seeds: int = 1, *, key: Array | None = None) -> tuple[Array, Settings]:
    """Return keys and hyperparams of each dict of `rows` with every seed, seeds last.

    Raises:
      ValueError: for no rows, rows that do not name the same numbers, and more than a million members.

    >>> keys, hyperparams = settings([{"learning_rate": 0.1}, {"learning_rate": 0.2}])
    >>> hyperparams["learning_rate"]
    Array([0.1, 0.2], dtype=float32)
    """
    if isinstance(rows, list | tuple) or hasattr(rows, "__next__"):
        rows = list(itertools.islice(rows, MEMBERS + 1))  # of an iterator without an end too
    seeds = _check.positive_int("seeds", seeds)
    check_members(len(rows) if isinstance(rows, list) else 1, seeds)
    columns = stacked(rows)
    if key is None:
        one_key = [jax.random.key(seed) for seed in range(seeds)]
    else:
        _check.typed_key(key)
        one_key = [jax.random.fold_in(key, seed) for seed in range(seeds)]
    # Repeated by NumPy: on the device each shape would be a handful of small programs to compile.
    count = len(next(iter(columns.values()))) if columns else 1
    data = np.tile(np.stack([jax.random.key_data(k) for k in one_key]), (count, 1))
    keys = jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(one_key[0]))
    return keys, Settings({name: jax.device_put(np.repeat(column, seeds, axis=0)) for name, column in columns.items()})


def sample(key: Array, count: int, seeds: int = 1, **ranges: Any) -> tuple[Array, Settings]:
    """Return keys and hyperparams of `count` random settings with every seed, seeds last.

    Bergstra and Bengio 2012 (jmlr.org/papers/v13/bergstra12a.html): random beats a grid where few numbers
    matter.

    Args:
      key: draws the settings; the members' keys are fold_in of a part of it.
      count: how many settings.
      seeds: how many runs of each.
      ranges: for each name `Uniform(low, high)`, `LogUniform(low, high)`, or a list to choose from.

    Raises:
      ValueError: for ranges that are empty, or not positive under a logarithm, and for more than a million members.

    >>> keys, hyperparams = sample(jax.random.key(0), 3, learning_rate=LogUniform(1e-4, 1e-1))
    >>> keys.shape, hyperparams["learning_rate"].shape
    ((3,), (3,))
    """
    _check.typed_key(key)
    count = _check.positive_int("count", count)
    check_members(count, _check.positive_int("seeds", seeds))
    design_key, member_key = jax.random.split(key)
    columns = {}
    for i, (name, span) in enumerate(ranges.items()):
        draw = jax.random.fold_in(design_key, i)
        if isinstance(span, Uniform | LogUniform):
            low, high = _arguments.scalar(f"low of {name}", span.low), _arguments.scalar(f"high of {name}", span.high)
            if not -np.inf < low < high < np.inf or (isinstance(span, LogUniform) and low <= 0):
                raise ValueError(
                    f"{name} must have a range low < high{', low > 0' * isinstance(span, LogUniform)}; got {span}"
                )
            u = np.asarray(jax.random.uniform(draw, (count,)), np.float64)
            columns[name] = _even(low, high, u) if isinstance(span, Uniform) else _even_logarithm(low, high, u)
        else:
            choices = _list(name, span)
            stacked([{name: choice} for choice in choices])  # each of them, drawn or not
            columns[name] = [choices[i] for i in np.asarray(jax.random.randint(draw, (count,), 0, len(choices)))]
    if not ranges:  # the members differ by their keys alone
        return settings([{}], count * seeds, key=member_key)
    rows = [{name: column[i] for name, column in columns.items()} for i in range(count)]
    return settings(rows, seeds, key=member_key)


def _even(low: float, high: float, u: np.ndarray) -> np.ndarray:
    far = not np.isfinite(high - low)  # also where the difference overflows
    return low * (1 - u) + high * u if far else low + u * (high - low)


def _even_logarithm(low: float, high: float, u: np.ndarray) -> np.ndarray:
    far = not np.isfinite(high / low)
    return np.exp(_even(np.log(low), np.log(high), u)) if far else low * (high / low) ** u


def check_members(count: int, seeds: int) -> None:
    """Raise for more members than a design is made of on the host, before the first is made."""
    if count * seeds > MEMBERS:
        raise ValueError(
            f"a design must have at most {MEMBERS:,} members; got {count:,} settings of {seeds:,} seeds each; "
            f"train them in several calls"
        )


def _list(name: str, values: Any) -> list[Any]:
    if _arrays.is_like_array(values) and not isinstance(values, np.ndarray):  # of NumPy also objects: vectors, say
        values = here(name, _arrays.array(name, values))
    if isinstance(values, str) or not isinstance(values, Iterable) or (_check.is_array(values) and values.ndim == 0):
        raise ValueError(f"{name} must list its values; got {values!r}; one value is [{values!r}]")
    if isinstance(values, bytes | set | Mapping):
        raise ValueError(f"{name} must list its values in their order; got {_check.describe(values)}")
    values = list(itertools.islice(values, MEMBERS + 1))  # of an iterator without an end too
    if not values:
        raise ValueError(f"{name} must list at least one value; got none")
    return values


def _cell(value: Any) -> str:
    return f"{value:.4g}" if np.ndim(value) == 0 else " ".join(f"{v:.4g}" for v in np.ravel(value))
