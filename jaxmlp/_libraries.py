"""Arrays and tables of other libraries as NumPy's own: PyTorch's tensors, columns of pandas and polars, odd dtypes."""

import sys
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmlp import _check

# Of each kind of NumPy dtype that holds no numbers: what it holds, and the fix.
_NO_NUMBERS = {
    "O": ("Python objects", "{}.astype('float32') if all are numbers; rows of unequal length must be padded first"),
    "U": ("text", "code it as numbers, labels by numpy.unique({}, return_inverse=True)[1]"),
    "S": ("bytes", "code them as numbers, labels by numpy.unique({}, return_inverse=True)[1]"),
    "T": ("text", "code it as numbers, labels by numpy.unique({}, return_inverse=True)[1]"),
    "M": ("dates", "count from one of them: ({0} - {0}.min()) / numpy.timedelta64(1, 's')"),
    "m": ("durations", "say in which unit: {} / numpy.timedelta64(1, 's')"),
    "c": ("complex numbers", "pass {0}.real and {0}.imag as columns"),
    "V": ("records or raw bytes", "numpy.lib.recfunctions.structured_to_unstructured({}) makes columns of fields"),
}


def of_library(what: str, value: Any) -> np.ndarray | None:
    """Return what PyTorch, pandas or polars hold as an array of NumPy's; None for what is not theirs."""
    for library, convert in _LIBRARIES.items():
        # Whoever has an object of a library has loaded it: nothing is imported here.
        if (module := sys.modules.get(library)) is not None:
            found = convert(what, value, module)
            if found is not None:
                return found
    return None


@lru_cache(maxsize=256)
def is_number_dtype(dtype: Any) -> bool:
    found = any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
    return found and getattr(dtype, "kind", "") != "m"  # a duration is an integer to NumPy


@lru_cache(maxsize=256)
def is_plain(dtype: np.dtype[Any]) -> bool:
    return dtype.isnative and dtype.itemsize <= 8 and is_number_dtype(dtype)


def of_numpy(what: str, value: np.ndarray) -> np.ndarray:
    """Return NumPy's array, no subclass of it, in a dtype that JAX has."""
    dtype = value.dtype
    if is_plain(dtype):
        return value
    if not is_number_dtype(dtype):
        held, fix = _NO_NUMBERS.get(dtype.kind, _NO_NUMBERS["V"])
        raise ValueError(f"{what} must hold numbers; got {held}, {_check.describe(value)}; {fix.format(in_code(what))}")
    if dtype.itemsize <= 8:
        return value.astype(dtype.newbyteorder("="))
    with np.errstate(over="ignore"):
        narrow = value.astype(np.float64)
    if (np.isinf(narrow) & np.isfinite(value)).any():
        bad = value[np.isinf(narrow) & np.isfinite(value)][:1]
        raise ValueError(f"{what} must fit float64, the widest that JAX has; got {bad[0]!s}; rescale it")
    return narrow


def _of_torch(what: str, value: Any, torch: Any) -> np.ndarray | None:
    """Return a tensor's values: without its gradient, which cannot flow through JAX, and from its device."""
    if not isinstance(value, getattr(torch, "Tensor", ())):
        return None
    if getattr(value, "is_nested", False):  # it has no shape
        raise ValueError(f"{what} must have rows of one length; got a nested tensor; pad it, .to_padded_tensor(0.0)")
    if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
        raise ValueError(
            f"{what} must be a dense tensor of plain numbers; got {value.dtype} of layout {value.layout} on "
            f"{value.device}; pass {in_code(what)}.to_dense(), .dequantize(), or a tensor that holds values"
        )
    value = value.detach().cpu().resolve_conj().resolve_neg()
    if value.dtype == torch.bfloat16:  # NumPy has none of PyTorch's; float32 holds every one
        return value.float().numpy().astype(jnp.bfloat16)
    return of_numpy(what, value.numpy())


def _of_pandas(what: str, value: Any, pandas: Any) -> np.ndarray | None:
    """Return a table (N, columns), or a column (N,), of pandas."""
    if isinstance(value, pandas.DataFrame):
        names = [f"column {name!r} of {what}" for name in value.columns]
        return _table([_column(name, value.iloc[:, i], pandas) for i, name in enumerate(names)], len(value))
    if isinstance(value, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
        return _column(what, value, pandas)
    return None


def _column(what: str, column: Any, pandas: Any) -> np.ndarray:
    dtype = column.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        raise ValueError(
            f"{what} must hold numbers; got categories; pass its .cat.codes as labels, or pandas.get_dummies(...)"
        )
    if isinstance(dtype, pandas.SparseDtype):
        raise ValueError(f"{what} must be dense; got {dtype}; pass its .sparse.to_dense()")
    if isinstance(dtype, np.dtype):
        return of_numpy(what, np.asarray(column))
    if not hasattr(dtype, "numpy_dtype") or dtype.numpy_dtype.kind not in "fiub":
        raise ValueError(f"{what} must hold numbers; got {dtype}; code it as numbers, or leave the column out")
    _complete(what, int(column.isna().sum()), "fillna(...) or dropna()")
    return of_numpy(what, np.asarray(column.to_numpy(dtype=dtype.numpy_dtype)))


def _of_polars(what: str, value: Any, polars: Any) -> np.ndarray | None:
    """Return a table (N, columns), or a column (N,), of polars."""
    if isinstance(value, polars.LazyFrame):
        raise ValueError(f"{what} must be a table in memory; got a LazyFrame; pass {in_code(what)}.collect()")
    if isinstance(value, polars.DataFrame):
        return _table([_series(f"column {c.name!r} of {what}", c) for c in value.get_columns()], value.height)
    return _series(what, value) if isinstance(value, polars.Series) else None


def _series(what: str, column: Any) -> np.ndarray:
    _complete(what, column.null_count(), "fill_null(...) or drop_nulls()")
    if (kind := str(column.dtype)).startswith(("String", "Categorical", "Enum")):
        raise ValueError(
            f"{what} must hold numbers; got {kind.split('(')[0]}; pass its .cast(polars.Categorical).to_physical() as "
            f"labels, or .to_dummies()"
        )
    return of_numpy(what, column.to_numpy())


def _complete(what: str, missing: int, fix: str) -> None:
    if missing:
        raise ValueError(f"{what} must not have missing values; got {missing} of them; {fix} first")


def _table(columns: list[np.ndarray], rows: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0), np.float32)


def in_code(what: str) -> str:
    """Return what to call a value in code: 'y' of 'column a of y' and of 'y of data'."""
    return what.split(" of ")[-1 if what.startswith("column") else 0].split(" ")[-1]


_LIBRARIES = {"torch": _of_torch, "pandas": _of_pandas, "polars": _of_polars}
