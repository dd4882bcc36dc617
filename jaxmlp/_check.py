"""Checks at the door: what must hold, what was given, how to fix it.

Every mistake of a caller is a `ValueError`. Shapes and dtypes are static, so those checks also work
while JAX traces; a check of values looks only at arrays that are known on the host.
"""

import difflib
import importlib
import operator
import sys
from collections.abc import Iterable, Sized
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmlp._known import is_far, known
from jaxmlp._known import on_host as on_host
from jaxmlp.types import Numeric as Numeric
from jaxmlp.types import PyTree


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ' (did you mean ...?)' for a near miss, else ''."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def one_of(what: str, name: object, known: Iterable[str], fix: str | None = None) -> None:
    """Raise unless `name` is one of the `known` names; without another `fix` the nearest of them is named."""
    known = list(known)
    if not (name is None or isinstance(name, str)) or name not in known:
        fix = did_you_mean(name, known) if fix is None else fix
        raise ValueError(f"{what} must be one of {', '.join(map(str, known))}; got {shown(name)}{fix}")


def positive_int(what: str, value: Any, most: int = 2**31 - 1) -> int:
    """Return `value` as an int of at least 1, and at most what 32 bits count unless another limit is given."""
    try:
        number = 0 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:  # a number with a fraction, a traced one, or none at all
        number = 0
    if number < 1:
        raise ValueError(f"{what} must be a positive int; got {shown(value)}")
    if number > most:
        raise ValueError(f"{what} must be at most {most}; got {shown(value)}")
    return number


def is_number(value: object) -> bool:
    """Tell whether `value` is a number, or an array of them, of Python, NumPy or JAX."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return not isinstance(value, np.ma.MaskedArray) and any(
            jnp.issubdtype(value.dtype, kind) for kind in (np.floating, np.integer, np.bool_)
        )
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**1023)


def shown(value: object) -> str:
    """Return a value's repr, cut short; that of an object may be as long as a table."""
    told = repr(value)
    return told if len(told) <= 200 else told[:197] + "..."


def extra(module: str, name: str) -> Any:
    """Return a module that is an optional extra.

    Raises:
      ImportError: with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{error}; this needs: pip install 'jaxmlp[{name}]'") from error


def describe(value: object) -> str:
    """Return 'float32 of shape (3, 2)' for an array, else its type and value."""
    if is_array(value):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {shown(value)}"


def name_of(function: object) -> str:
    """Return the name of a function, of what a `partial` wraps, or of a callable object's type."""
    function = getattr(function, "func", function)
    return getattr(function, "__name__", None) or type(function).__name__


def typed_key(key: Any) -> None:
    """Raise unless `key` is one typed key, as `jax.random.key` makes it."""
    fix = "make one with jax.random.key(0)"
    dtype = key.dtype if isinstance(key, np.ndarray | jax.Array | jax.ShapeDtypeStruct) else None
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if dtype == jnp.uint32:
            fix = "jax.random.PRNGKey is the old form: use jax.random.key, or jax.random.wrap_key_data(key)"
        raise ValueError(f"key must be a typed JAX key; got {describe(key)}; {fix}")
    if key.shape != ():
        raise ValueError(f"key must be a single key; got keys of shape {key.shape}; map over them with jax.vmap")


def is_array(value: object) -> TypeGuard[Numeric]:
    """Tell whether `value` has a shape and a dtype, and is no module that has functions of these names."""
    return isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype")


def floating(what: str, value: object) -> None:
    """Raise unless `value` is an array of floating-point numbers."""
    if not isinstance(value, np.ndarray | np.generic | jax.Array | jax.ShapeDtypeStruct):
        raise ValueError(f"{what} must be an array of floats; got {describe(value)}; pass jnp.asarray({what})")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        whole = what == "targets" and jnp.issubdtype(value.dtype, jnp.integer)
        fix = (
            "labels of classes are for losses.cross_entropy and metrics.accuracy; numbers: "
            if whole
            else "scale it or "
        )
        raise ValueError(f"{what} must hold floats; got {describe(value)}; {fix}pass {what}.astype('float32')")
    if isinstance(value, np.ma.MaskedArray) or not value.dtype.isnative:
        raise ValueError(
            f"{what} must be a plain array in the machine's byte order; got {type(value).__name__} of "
            f"{value.dtype.str}; pass a filled copy, .astype('float32')"
        )


def counts(weights: Numeric) -> np.ndarray:
    """Tell which known weights count: those that are not zero in JAX's own float.

    >>> counts(np.array([1.0, 0.0, 1e-60, 1e-40])).tolist()
    [True, False, False, True]
    """
    return known(weights).astype(jax.dtypes.canonicalize_dtype(weights.dtype)) != 0


def finite(what: str, value: Numeric) -> None:
    """Raise if `value` is known and holds a NaN or an infinity."""
    if not jnp.issubdtype(value.dtype, jnp.floating) or isinstance(value, Tracer):
        return
    # One reduction on the value's own device; only a bad array is brought to the host to say where.
    # Under a trace of the caller's a known array stays known only within `ensure_compile_time_eval`.
    with np.errstate(over="ignore", invalid="ignore"), jax.ensure_compile_time_eval():
        total = value.sum() if isinstance(value, np.ndarray) else jnp.sum(value)
    if np.isfinite(np.asarray(total, np.float64)):
        return
    if is_far(value):
        count = int(jnp.sum(~jnp.isfinite(value)))
        if count:
            raise ValueError(
                f"{what} must be finite; got {count} bad of {value.size} values, in rows of all processes together; "
                f"drop or impute those rows"
            )
        return
    values = np.asarray(value, np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{what} must be finite; got {len(bad)} bad of {values.size} values, the first {values[where]} at "
            f"{what}[{', '.join(map(str, where))}]; drop or impute those rows"
        )


def within(what: str, value: object, low: float, high: float, *, open_high: bool = False) -> None:
    """Raise if `value` is known and lies outside [low, high], or [low, high) with `open_high`."""
    if isinstance(value, Tracer):
        return
    if not (all(map(is_number, value)) if isinstance(value, list | tuple) and value else is_number(value)):
        raise ValueError(f"{what} must be a number; got {describe(value)}")
    values = known(value)
    inside = (values >= low) & ((values < high) if open_high else (values <= high))
    if not np.all(inside):
        got = values if values.ndim == 0 else values[~inside].flat[0]
        if low == 0 and high == np.inf:
            raise ValueError(f"{what} must not be negative{' or NaN' if np.isnan(got) else ''}; got {got}")
        raise ValueError(f"{what} must lie in [{low}, {high}{')' if open_high else ']'}; got {got}")


def labels(what: str, value: Numeric, classes: int) -> None:
    """Raise unless labels are integers, and where they are known, name a class.

    JAX itself clamps or drops an index that is out of range without a word.
    """
    if not is_array(value) or not jnp.issubdtype(value.dtype, jnp.integer):
        raise ValueError(f"{what} must be integers; got {describe(value)}; pass targets.astype('int32')")
    values = None if isinstance(value, Tracer) else known(value)
    if values is None or values.size == 0 or (values.min() >= 0 and values.max() < classes):
        return
    bad = values[(values < 0) | (values >= classes)]
    told = "of all processes" if is_far(value) else f"{bad.size} of {values.size} labels are outside"
    raise ValueError(
        f"{what} must be integers in 0 ... {classes - 1}, one for each of the {classes} outputs; got {bad.flat[0]} "
        f"({told}); renumber the labels or widen the last layer"
    )


def length(value: Any) -> str:
    """Return 'of length 3' where `value` has one."""
    return f"of length {len(value)}" if isinstance(value, Sized) and getattr(value, "ndim", 1) == 1 else ""


def examples(what: str, x: PyTree, y: PyTree, weight: Any) -> int:
    """Check the data (x, y, weight or None) and return its number of examples."""
    leaves = jax.tree_util.tree_leaves_with_path({"x": x, "y": y} | ({} if weight is None else {"weight": weight}))
    count = None
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if not isinstance(leaf, np.ndarray | jax.Array) or leaf.ndim < 1:
            raise ValueError(
                f"{name} of {what} must be an array with the examples on its first axis; got {describe(leaf)}"
            )
        if 0 in leaf.shape:
            raise ValueError(f"{name} of {what} must not be empty; got {describe(leaf)}")
        count = len(leaf) if count is None else count
        if len(leaf) != count:
            raise ValueError(
                f"x, y and weight of {what} must have as many examples; got {count} and {len(leaf)} in {name}"
            )
        finite(name if what == "data" else f"{what} {name}", leaf)
    if count is None:
        raise ValueError(f"{what} must hold arrays; got none")
    if weight is not None:
        weights(f"weight of {what}", weight, count)
        if not isinstance(weight, Tracer) and not counts(weight).any():
            raise ValueError(f"weight of {what} must not be zero for every example{vanished(weight)}")
    return count


def vanished(weight: Numeric) -> str:
    """Return what is said of weights that are zero only once JAX has narrowed them, else ''."""
    if not np.any(known(weight)):
        return ""
    return f"; they vanish in {jax.dtypes.canonicalize_dtype(weight.dtype)}: multiply them all by one number"


def weights(what: str, weight: Any, count: int) -> None:
    """Raise unless there is a float for each of `count` examples, none of them negative where they are known."""
    if weight.shape != (count,):
        raise ValueError(f"{what} must have shape ({count},), one an example; got {describe(weight)}")
    floating("weight", weight)
    within("weight", weight, 0, float("inf"))


def level_of_caller() -> int:
    """Return the `stacklevel` at which a warning names the first line that is not of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "jaxmlp":
        frame, level = frame.f_back, level + 1
    return level
