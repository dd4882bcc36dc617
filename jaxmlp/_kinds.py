"""What is a number, what only looks like one because it chooses the program, and in which range a number must lie."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.core import Tracer

from jaxmlp import _check

EACH = "it needs the gradient of each example, and a step has that of their mean"
NEVER = {  # of Optax, and why
    "lookahead": "it trains wrapped parameters, optax.LookaheadParams, which no model takes; use its fast optimizer",
    "dpsgd": EACH,
    "differentially_private_aggregate": EACH,
}


def check_kind(name: str, value: object, taker: object = optax.adam) -> None:
    """Raise for a hyperparameter that is no number because it chooses the program; also for a list of such.

    The `taker` is whose number it is, for the words.

    Raises:
      ValueError: for a flag, a text, a dtype, None or a function.
    """
    some = value[0] if isinstance(value, list | tuple) and len(value) else value
    if callable(some) and not isinstance(some, type):
        raise ValueError(
            f"hyperparams[{name!r}] must be a number; got the function {_check.name_of(some)}; a schedule is made by a "
            f"factory of numbers: def scheduled({name}): return optax.adam(optax.cosine_decay_schedule({name}, 1000)), "
            f"and then optimizer=scheduled"
        )
    flag = isinstance(some, bool | np.bool_) or (_check.is_array(some) and some.dtype == bool)
    if flag or some is None or isinstance(some, str | bytes | type | np.dtype):
        raise ValueError(
            f"hyperparams[{name!r}] must be a number; got {_check.describe(some)}; {fix(name, some, taker)}"
        )


def fix(name: str, value: Any, taker: object) -> str:
    """Say what to do with a value that chooses the program."""
    shown = np.ravel(np.asarray(value))[0].item() if _check.is_array(value) else value
    shown = shown.__name__ if isinstance(shown, type) else repr(shown)
    return f"this chooses the program: set it beforehand, by functools.partial({spoken(taker)}, {name}={shown})"


def missing_number(factory: Callable[..., object], name: str) -> str:
    """Say that a factory needs what was not given."""
    who = spoken(factory)
    annotation = inspect.signature(factory).parameters[name].annotation
    told = str(annotation)
    if annotation is inspect.Parameter.empty or any(word in told for word in ("float", "int", "Array", "Number")):
        return f"optimizer {_check.name_of(factory)} needs {name}: pass hyperparams={{{name!r}: ...}}"
    if _check.name_of(factory) in NEVER:
        return f"optimizer {who} cannot train a model here: {NEVER[_check.name_of(factory)]}"
    return (
        f"optimizer {who} needs {name}, which is no number; write a factory of numbers: "
        f"def mine(learning_rate): return {who}({name}=...)"
    )


def spoken(function: object) -> str:
    """Return the name of a function as a user writes it.

    >>> spoken(optax.adam), spoken(optax.contrib.muon)
    ('optax.adam', 'optax.contrib.muon')
    """
    name, inner = _check.name_of(function), getattr(function, "func", function)
    if root(inner) != "optax":
        return name
    # Not by getattr: a name that Optax has moved would warn.
    return f"optax.{name}" if vars(optax).get(name) is inner else f"optax.contrib.{name}"


def root(function: object) -> str:
    """Return the package that a function is of."""
    return (getattr(function, "__module__", None) or "").split(".")[0]


class Range(NamedTuple):
    """The numbers from `low` to `high`, both among them unless open."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __str__(self) -> str:
        if self.high == math.inf:
            return "positive and finite" if self.open_low else "finite and not negative"
        return f"in {'(' if self.open_low else '['}{self.low}, {self.high}{')' if self.open_high else ']'}"

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Return where the values lie in it; an infinity and NaN never do."""
        low = values > self.low if self.open_low else values >= self.low
        high = values < self.high if self.open_high else values <= self.high
        return low & high & np.isfinite(values)


# What these names mean in every factory of Optax's and of `optimizers`.
RANGES = {
    **dict.fromkeys(("learning_rate", "weight_decay", "weight_decay_rate", "eps", "eps_root"), Range(0)),
    **dict.fromkeys(("b1", "b2", "b3"), Range(0, 1, open_high=True)),
    **dict.fromkeys(("momentum", "decay", "average_decay"), Range(0, 1)),
    "average_start": Range(0),
    **dict.fromkeys(("clip_norm", "max_norm"), Range(0, open_low=True)),
}


def check_ranges(numbers: Mapping[str, Any]) -> None:
    """Raise where a number that is known now, or one of an array of them, cannot be meant by its name.

    >>> check_ranges({"learning_rate": 0.1, "b1": 0.9})
    """
    for name, value in numbers.items():
        number = isinstance(value, int | float | np.generic | np.ndarray | jax.Array)
        if name not in RANGES or not number or isinstance(value, Tracer):
            continue
        values = np.asarray(value)
        if values.dtype.kind not in "iuf":
            values = np.asarray(value, np.float64)  # bfloat16
        inside = RANGES[name].holds(values)
        if not inside.all():
            got = values[~inside].flat[0]
            hint = "; to climb, negate the loss" if name == "learning_rate" and got < 0 else ""
            raise ValueError(f"{name} must be {RANGES[name]}; got {got}{hint}")


def aval(value: Any) -> jax.ShapeDtypeStruct:
    """Return the form of a number or an array as a program takes it: what two values share that share a program."""
    dtype = jax.dtypes.canonicalize_dtype(value.dtype if _check.is_array(value) else jnp.result_type(value))
    weak = type(value) in (int, float) or getattr(value, "weak_type", False)
    return jax.ShapeDtypeStruct(np.shape(value), dtype, weak_type=weak)
