"""What an array is: one answer for every door, and the words for what is none.

NumPy's arrays in the machine's byte order, JAX's arrays and what JAX traces pass untouched. Other arrays are converted:
any byte order, long double, subclasses, PyTorch's tensors, columns of pandas and polars, whatever has `__array__` or
`__dlpack__`. What would lose its meaning on the way is refused with the fix: masked, sparse, text, objects, dates,
missing values.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxmlp import _check, _libraries, _mesh
from jaxmlp._libraries import in_code, is_number_dtype, is_plain, of_numpy
from jaxmlp.types import Numeric, PyTree

Function = TypeVar("Function", bound=Callable[..., Any])


def array(what: str, value: Any, *, narrowed: bool = True) -> Numeric:
    """Return `value` as an array of numbers or truth values that JAX takes; NumPy's and JAX's own as they are.

    Raises:
      ValueError: for what is no array, and for arrays that hold no numbers or hide some; `what` names it.

    >>> array("x", np.array([1.0, 2.0], ">f4")).dtype.isnative
    True
    """
    if isinstance(value, jax.Array):
        return _of_jax(what, value)
    if type(value) is np.ndarray and is_plain(value.dtype):
        return fitting(what, value) if narrowed else value
    found = _converted(what, value)
    return fitting(what, found) if narrowed else found


def _converted(what: str, value: Any) -> Numeric:
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{what} must not be masked: what is under the mask would be trained on; got {_check.describe(value)}; "
            f"fill it, {in_code(what)}.filled(...), or drop the masked rows and pass the .data"
        )
    if isinstance(value, np.ndarray | np.generic):
        return of_numpy(what, np.asarray(value))
    if hasattr(value, "todense"):
        raise ValueError(f"{what} must be dense; got a sparse {type(value).__name__}; pass {in_code(what)}.todense()")
    if (found := _libraries.of_library(what, value)) is not None:
        return found
    if not is_like_array(value):
        raise ValueError(f"{what} must be an array; got {_check.describe(value)}; pass jnp.asarray({in_code(what)})")
    return _of_protocol(what, value)


def taking(*names: str, narrowed: bool = True) -> Callable[[Function], Function]:
    """Decorate a function of arrays, so that the arguments of these names are arrays as `array` gives them; None stays.

    What is not `narrowed` is computed in float64 on the host, and may be larger than JAX's own float holds; so are
    weights, of any scale.

    >>> @taking("x")
    ... def total(x):
    ...     return x.sum()
    >>> bool(total(np.array([1.0, 2.0], ">f4")) == 3)
    True
    """

    def decorate(function: Function) -> Function:
        order = list(inspect.signature(function).parameters)
        places = [(order.index(name), name) for name in names]

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            given = list(args)
            for place, name in places:
                if place < len(given) and given[place] is not None:
                    given[place] = array(name, given[place], narrowed=narrowed and name != "weight")
                elif options.get(name) is not None:
                    options[name] = array(name, options[name], narrowed=narrowed and name != "weight")
            return _mesh.over_automatic_axes(function, tuple(given), options)

        return call  # type: ignore[return-value]

    return decorate


def fitting(what: str, value: Numeric) -> Numeric:
    """Return the array; raise for numbers that JAX would make infinite, or others, as it narrows 64 bits to 32.

    >>> fitting("x", np.array([1.0, 1e39]))
    Traceback (most recent call last):
    ValueError: x must fit float32, in which JAX computes; got 1e+39 at x[1]; rescale it, or enable jax_enable_x64
    """
    if not isinstance(value, np.ndarray) or value.dtype.itemsize < 8 or value.size == 0:
        return value
    narrow = jax.dtypes.canonicalize_dtype(value.dtype)
    if narrow == value.dtype:
        return value
    floats = value.dtype.kind == "f"
    limits = jnp.finfo(narrow) if floats else jnp.iinfo(narrow)
    low, high = value.dtype.type(limits.min), value.dtype.type(limits.max)
    if low <= value.min() and value.max() <= high:
        return value
    outside = (value < low) | (value > high)
    if floats:  # an infinity stays one, and a NaN too: they are for the check of finite values
        outside &= np.isfinite(value)
    if outside.any():
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        place = f" at {in_code(what)}[{', '.join(map(str, where))}]" if where else ""
        fix = "rescale it" if floats else "renumber it"
        raise ValueError(
            f"{what} must fit {narrow}, in which JAX computes; got {value[where]}{place}; {fix}, or enable "
            f"jax_enable_x64"
        )
    return value


def number(what: str, value: Any, must: str = "must be a number", ndim: int | None = None) -> Any:
    """Return a number, or an array of them, that JAX takes; Python's, NumPy's and JAX's own as they are.

    With `ndim` it must have so many axes. An array has the dtype that it says, also where JAX has noted that it came
    from Python's numbers: a run that goes on from its files has no such note.

    Raises:
      ValueError: for what is no number, and for one that becomes infinite or another in the 32 bits of JAX.
    """
    if isinstance(value, bool | np.bool_):
        raise ValueError(
            f"{what} {must}; got {value!r}; a flag chooses the program and is no number: put it into the "
            f"function, as functools.partial(optax.sgd, nesterov=True)"
        )
    if isinstance(value, int | float):
        fitting(what, np.asarray(value) if isinstance(value, float) or -(2**63) <= value < 2**63 else np.asarray(2**63))
        return value
    if callable(value) and not is_like_array(value):
        raise ValueError(
            f"{what} {must}; got {_check.describe(value)}; a schedule is a part of the program: write a "
            f"factory, lambda learning_rate: optax.adam(optax.cosine_decay_schedule(learning_rate, 1000))"
        )
    if not is_like_array(value):
        raise ValueError(f"{what} {must}; got {_check.describe(value)}")
    found = array(what, value)
    if found.dtype == bool:
        raise ValueError(f"{what} {must}; got {_check.describe(value)}; a flag chooses the program")
    if ndim not in (None, found.ndim):
        raise ValueError(f"{what} must be one number; got {_check.describe(value)}; map over many with jax.vmap")
    if isinstance(found, jax.Array) and not isinstance(found, Tracer) and found.weak_type:
        return jax.lax.convert_element_type(found, found.dtype)
    return value if isinstance(value, np.generic) and found.dtype == value.dtype else found


def tree(what: str, value: PyTree) -> PyTree:
    """Return a pytree with each leaf as `array` gives it; a table of pandas or a sparse one is one leaf.

    Leaves that are no arrays at all stay as they are: the check of the examples, or the model, names them.
    """
    if isinstance(value, jax.Array) or type(value) is np.ndarray:  # most often, and without a walk
        return array(what, value)
    if value is None:
        return None

    def convert(path: Any, leaf: Any) -> Any:
        if not is_like_array(leaf):
            return leaf
        inside = jax.tree_util.keystr(path, simple=True, separator=".")
        return array(f"{what}.{inside}" if inside else what, leaf)

    try:
        return jax.tree_util.tree_map_with_path(convert, value, is_leaf=lambda node: hasattr(node, "todense"))
    except ValueError as error:
        if "Comparator" in str(error):  # of JAX, which sorts the keys of a dict
            raise ValueError(f"{what} must be a dict whose keys can be sorted; got {list(value)!r:.200}") from error
        raise


def leaves_of_numpy(what: str, tree: PyTree) -> PyTree:
    """Return a tree whose leaves of NumPy are such as JAX takes: `jit` takes any byte order for its own, 1e39 for inf.

    Raises:
      ValueError: for a leaf of NumPy that JAX does not take.
    """
    try:
        if not any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree)):
            return tree
    except ValueError:  # a dict whose keys cannot be sorted: what takes the tree says so
        return tree

    def enter(path: Any, leaf: Any) -> Any:
        named = f"{what}.{jax.tree_util.keystr(path, simple=True, separator='.')}"
        if not isinstance(leaf, np.ndarray):
            return leaf
        found = array(named, leaf)
        return found.astype(jax.dtypes.canonicalize_dtype(found.dtype), copy=False)

    return jax.tree_util.tree_map_with_path(enter, tree)


def listed(what: str, value: Any) -> Numeric:
    """Return an array, or numbers in nested lists of equal lengths, as an array.

    >>> listed("rows", [[0, 1], [2, 3]]).shape
    (2, 2)
    """
    if isinstance(value, bool | int | float | list | tuple | range):
        try:
            value = np.asarray(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{what} must be numbers in lists of equal lengths; got {value!r:.200}") from error
    return array(what, value)


def is_like_array(value: Any) -> bool:
    """Tell whether `value` says that it is an array, or a table, of some library."""
    if isinstance(value, type):
        return False
    names = ("__array__", "__dlpack__", "__array_interface__", "todense", "collect_schema")
    return any(hasattr(value, name) for name in names)


def _of_jax(what: str, value: Array) -> Array:
    if not is_number_dtype(value.dtype):
        kind = "complex numbers" if jnp.issubdtype(value.dtype, jnp.complexfloating) else "no numbers"
        fix = f"; pass {in_code(what)}.real and {in_code(what)}.imag as columns" if kind == "complex numbers" else ""
        raise ValueError(f"{what} must hold real numbers; got {kind}, {_check.describe(value)}{fix}")
    if not isinstance(value, Tracer) and value.is_deleted():
        raise ValueError(f"{what} must still be there; its buffer was donated or deleted; pass a copy of it before")
    return value


def _of_protocol(what: str, value: Any) -> Numeric:
    """Return what an object of another library gives by `__array__`, else by `__dlpack__`."""
    try:
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return of_numpy(what, np.asarray(np.asarray(value)))
        try:
            return of_numpy(what, np.from_dlpack(value))
        except (BufferError, RuntimeError, TypeError):  # on a device that NumPy cannot read
            return _of_jax(what, jnp.from_dlpack(value))
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(what):
            raise
        raise ValueError(
            f"{what} must be an array that NumPy or JAX can read; the {type(value).__name__} could not be: "
            f"{type(error).__name__}: {str(error)[:200]}"
        ) from error
