"""The words of a checkpoint, read as what they must be: whatever is wrong in them is a ValueError that names the field.

The file may come from anywhere, so each field is checked before it is used, and nothing is made whose size only a word
in the file tells.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmlp._header import once
from jaxmlp.types import Json

DEEP = 64  # how far JSON is nested; a recipe within partials within lists comes to ten
EPOCHS = 10**7  # of a run: each is a line of its history
MANY = 1000  # metrics, rules, or arguments of a function: each is looked at beside all others
Check = Callable[[str, Any], Any]


def read_json(text: str | bytes, path: object) -> Json:
    """Return the dict that a file holds.

    Raises:
      ValueError: for what is no JSON, a name that stands twice in a dict, nesting without end.

    >>> read_json('{"a": [1, 2]}', "run.json")
    {'a': [1, 2]}
    """
    try:
        found = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must hold JSON; it could not be read: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a dict; got {_told(found)}")
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except (UnicodeError, RecursionError) as error:  # half a character, which no terminal prints
        raise ValueError(f"{path} must hold text; {type(error).__name__}: {ascii(str(error)):.100}") from error
    if not _shallow(found):
        raise ValueError(f"{path} must be nested no deeper than {DEEP}; got more")
    return found


def _shallow(value: Any) -> bool:
    layer = [value]
    for _ in range(DEEP):
        layer = [inner for item in layer for inner in _inner(item)]
    return not layer


def _inner(item: Any) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else []


def wrong(what: str, wanted: str, value: Any) -> ValueError:
    """Return the error for a field: what must hold, and what the file has."""
    return ValueError(f"{what} of the checkpoint must be {wanted}; got {_told(value)}")


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def anything(what: str, value: Any) -> Any:
    """Return the value: it is only ever compared."""
    return value


def text(what: str, value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise wrong(what, "a string", value)
    return value


def flag(what: str, value: Any) -> bool:
    """Return a bool."""
    if not isinstance(value, bool):
        raise wrong(what, "true or false", value)
    return value


def number(what: str, value: Any) -> int | float:
    """Return a number that a float can hold; infinite or NaN it may be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or isinstance(value, int) and abs(value) > 2**1000:
        raise wrong(what, "a number", value)
    return value


def finite(what: str, value: Any) -> int | float:
    """Return a finite number."""
    if not math.isfinite(number(what, value)):
        raise wrong(what, "a finite number", value)
    return value


def whole(least: int, most: int = 2**53) -> Check:
    """Return a check for an integer between two."""

    def check(what: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise wrong(what, f"an integer in {least} ... {most}", value)
        return value

    return check


def maybe(inner: Check) -> Check:
    """Return a check for null, or what another checks."""
    return lambda what, value: None if value is None else inner(what, value)


def listed(inner: Check) -> Check:
    """Return a check for a list."""

    def check(what: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise wrong(what, "a list", value)
        return [inner(f"{what}[{i}]", item) for i, item in enumerate(value)]

    return check


def named(inner: Check = anything) -> Check:
    """Return a check for a dict of any names."""

    def check(what: str, value: Any) -> Json:
        if not isinstance(value, dict):
            raise wrong(what, "a dict", value)
        return {name: inner(f"{what}.{name[:80]}", item) for name, item in value.items()}

    return check


def few(inner: Check) -> Check:
    """Return a check for a list or dict that another checks, of no more than MANY entries."""

    def check(what: str, value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > MANY:
            raise wrong(what, f"at most {MANY:,} entries long", len(value))
        return inner(what, value)

    return check


def having(fields: Mapping[str, Check], optional: tuple[str, ...] = (), *, more: bool = False) -> Check:
    """Return a check for a dict of these fields, and with `more` of others too."""

    def check(what: str, value: Any) -> Json:
        found = named()(what, value)
        for name in found:
            if name not in fields and not more:
                raise wrong(what, f"a dict of {', '.join(fields)}", value)
        for name in fields:
            if name not in found and name not in optional:
                raise ValueError(f"{what}.{name} of the checkpoint must be there; got only {_told(list(found))}")
        return {name: fields[name](f"{what}.{name}", item) if name in fields else item for name, item in found.items()}

    return check


def dtype(what: str, value: Any) -> str:
    """Return the name of a dtype of numbers: NumPy's names may ask for arrays within arrays, of any size."""
    try:
        found = jnp.dtype(text(what, value))
    except (TypeError, ValueError, SyntaxError):
        found = None
    if (
        found is None
        or found.name != value
        or not any(jnp.issubdtype(found, kind) for kind in (np.floating, np.integer, np.bool_))
    ):
        raise wrong(what, "the name of a dtype of numbers", value)
    return value


def hyperparam(what: str, value: Any) -> Any:
    """Return a plain number, or a dict of value and dtype, or of the digest of an array."""
    if not isinstance(value, dict):
        return number(what, value)
    if "value" in value:
        return having({"value": _scalar, "dtype": dtype})(what, value)
    if "form" in value:
        return having({"form": maybe(form), "arrays": named(array), "shared": flag})(what, value)
    return array(what, value)


def form(what: str, value: Any) -> Any:
    """Return the containers of a tree of arrays, as the checkpoint's words for what is no number have them."""
    if value in ("array", "none"):
        return value
    found = few(named())(what, value)
    if len(found) != 1 or not found.keys() <= {"dict", "list", "tuple", "Layer"}:
        raise wrong(what, "array, none, or one of dict, list, tuple and Layer", value)
    for kind, inside in found.items():
        (named(form) if kind == "dict" else listed(form))(f"{what}.{kind}", inside)
        if kind == "Layer" and len(inside) != 4:
            raise wrong(what, "a Layer of four entries", value)
    return value


def _scalar(what: str, value: Any) -> Any:
    return value if isinstance(value, bool) else number(what, value)


def rule(what: str, value: Any) -> Any:
    """Return a number of a rule, or a name, or a word for yes or no."""
    return value if value is None or isinstance(value, bool | str) else finite(what, value)


DIGEST: dict[str, Check] = {"shape": listed(whole(0)), "dtype": text, "sha256": text}
array = having(DIGEST)
part = having({"type": text}, more=True)
specs = maybe(listed(listed(listed(text))))
MESH = having({"axes": few(named(whole(1, 2**24))), "rows": few(listed(text)), "params": specs})
LAYOUT = having({"width": whole(1, 2**24), "devices": whole(1, 2**24), "kind": text, "mesh": MESH}, ("mesh",))
PARTS = having(dict.fromkeys(("model", "loss", "optimizer", "metrics", "after", "frozen"), text), ("after", "frozen"))
PROGRAM = having({"versions": named(text), "forms": listed(text), "options": named(), "parts": PARTS})
WHOLE = {"of": whole(1), "count": whole(1), "first": listed(whole(0, 2**32 - 1)), "keys": text, "hyperparams": text}
PART = having({"number": whole(0), **WHOLE})
OPTIONS = ("validation", "weights", "rows", "validation_rows", "params")  # what a call may be given besides data
# The fields of a manifest; those of the checkpoint around it are in META.
RUN = having(
    {
        "recipe": having({"type": text, "epochs": whole(1), "metrics": few(anything)}, ("metrics",), more=True),
        "key": having({"impl": text, "single": flag, **DIGEST}),
        "hyperparams": named(hyperparam),
        "data": anything,
        "stop": few(named(named(rule))),
        "steps": maybe(whole(1)),
        "layout": LAYOUT,
        "each": maybe(listed(text)),
        "program": maybe(PROGRAM),
        "part": maybe(PART),
        **dict.fromkeys(OPTIONS, maybe(named())),
    },
    ("each", "program", "part", *OPTIONS),
)
META = having(
    {
        "run": named(),
        "where": named(),
        "every": maybe(whole(1)),
        "versions": named(text),
        "score": maybe(number),
        "judged": maybe(text),
    },
    ("score", "judged"),
    more=True,
)
