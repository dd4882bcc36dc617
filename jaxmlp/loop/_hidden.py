"""What of an object stands in no attribute: the state of what is written in C, handles of the machine, installed code.

`_code` walks through attributes and code. A random generator, a pattern or a queue has neither; pickle's protocol says
what such an object is made of. A lock or an open file is nothing but its kind, and what can be told in no way is never
taken for equal.
"""

import copyreg
import io
import logging
import os
import site
import sys
import sysconfig
import threading
import uuid
import warnings
import weakref
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

# Told by their type alone: what they are at the moment is of the process, and changes no number.
HANDLES: tuple[type, ...] = (
    *(logging.Logger, logging.Handler, logging.Filter, logging.LoggerAdapter, io.IOBase, threading.Thread),
    *(type(threading.Lock()), type(threading.RLock()), threading.Event, threading.Condition, threading.Semaphore),
    *(threading.local, type(os.environ), weakref.ref, weakref.WeakKeyDictionary, weakref.WeakValueDictionary),
)
HEAP = 1 << 9  # the flag of a type that a `class` statement has made
# What lies in these is told by its name: their versions are saved beside a run.
KNOWN = {"jaxmlp", "jax", "jaxlib", "optax", "numpy", *sys.stdlib_module_names} - {"__main__"}
BUILT_IN = {*sys.stdlib_module_names, "__main__"}
HOUSE = {"jax", "jaxlib", "optax", "jaxmlp"}  # whose objects print as what they are


def unknown(why: str) -> str:
    """Return what stands for what cannot be told: a text that is equal to no other, also of the same object.

    >>> unknown("too deep") == unknown("too deep")
    False
    """
    return f"unknown, {why} ({uuid.uuid4().hex[:8]})"


def state_of(value: Any) -> Any:
    """Return what an object of a type written in C is made of, as pickle would have it; None where pickle has no word.

    >>> import collections
    >>> state_of(collections.deque([1, 2], 5))
    [[(), 5], None, [1, 2], []]
    """
    parts: Any
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        with warnings.catch_warnings(action="ignore"):  # iterators lose pickle's words in Python 3.14
            parts = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception:  # whatever its own code raises: there is no telling
        return None
    if isinstance(parts, str):  # a name, where it leads to the object
        home = sys.modules.get(peek(value, "__module__") or "numpy")
        return parts if peek(home, parts) is value else None
    padded: list[Any] = [*parts, None, None, None, None]
    make, args, state, items, pairs = padded[:5]
    named = make.__name__ in ("__newobj__", "__reduce_ex__", "_reconstructor") or make is type(value)
    given = args[1:] if named and args and args[0] is type(value) else args
    return [list(given), state, list(items or ()), list(pairs or ())]


def peek(value: Any, name: str, default: Any = None) -> Any:
    """Return an attribute, or the default where there is none, also of an object whose own lookup raises anything."""
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def place_of(value: Any) -> str | None:
    """Return where an installed package keeps an object that does not tell its own name, as `scipy.special.expit`."""
    name, home = peek(value, "__name__"), str(peek(type(value), "__module__"))
    if isinstance(name, str):
        loaded = [m for m in list(sys.modules) if m.partition(".")[0] not in BUILT_IN]
        places = [(m, name) for m in loaded if peek(sys.modules[m], "__dict__", {}).get(name) is value]
    elif installed(home) is not None:
        places = [(home, one) for one, other in list(vars(sys.modules[home]).items()) if other is value]
    else:
        places = []
    for module, found in sorted(places):
        if (package := installed(module)) is not None:
            return f"{module}:{found} {package}"
    return None


def has_words(kind: type) -> bool:
    """Tell whether a type says itself what its objects are made of, beside or instead of attributes.

    >>> import random
    >>> has_words(random.Random), has_words(type("Own", (), {}))
    (True, False)
    """
    names = ("__reduce__", "__reduce_ex__", "__getstate__")
    own = any(getattr(kind, name) is not getattr(object, name) for name in names if hasattr(object, name))
    return own or kind in copyreg.dispatch_table


@cache
def _sites() -> tuple[str, ...]:
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return tuple({str(Path(path).resolve()) for path in [*paths, site.getusersitepackages()]})


def installed(module: str) -> str | None:
    """Return the name and version of the installed package that a module is of; None for one of the caller's own.

    >>> installed("pytest._code").split()[0], installed("__main__")
    ('pytest', None)
    """
    root = module.partition(".")[0]
    found = sys.modules.get(root)
    file = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", [])), None)
    if file is None or not str(Path(file).resolve()).startswith(_sites()):
        return None
    return f"{root} {version(root)}"


def version(root: str) -> str:
    """Return the version of a package: of its distribution, or as it says itself.

    >>> version("jaxmlp") == version("jaxmlp")
    True
    """
    try:
        return metadata.version(root)
    except (
        metadata.PackageNotFoundError
    ):  # of another name, as scikit-learn of sklearn, or a checkout that lies on the path
        return str(peek(sys.modules.get(root), "__version__") or unknown("a package without a version"))


def source_of(module: str) -> bytes | None:
    """Return the source of a module that is not imported yet, as an import within a function finds it."""
    try:
        spec = util.find_spec(module)
        return Path(spec.origin).read_bytes() if spec is not None and spec.origin is not None else None
    except (ImportError, OSError, ValueError, AttributeError):
        return None


def house_of(module: str) -> str | None:
    """Return what tells a module of a library that is known, or installed, by name and version; None of one's own."""
    root = module.split(".")[0]
    return root if root in KNOWN else installed(module)
