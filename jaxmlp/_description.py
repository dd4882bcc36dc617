"""An `MLP` as text, and as a dict that JSON can hold."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from jaxmlp import _check

Kind = TypeVar("Kind", bound=type)


def also_init(kind: Kind) -> Kind:
    """Let `MLP(..., init=)` mean `initializer=`: the option's first name, which no field can have beside the method."""
    fields = kind.__init__

    @functools.wraps(fields)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        if "init" in options:
            if "initializer" in options:
                raise ValueError("initializer must be given once; got init= as well, its older name; leave init= out")
            options["initializer"] = options.pop("init")
        fields(self, *args, **options)

    kind.__init__ = __init__
    return kind


def options(mlp: Any) -> dict[str, Any]:
    """Return the options of a description by name."""
    return {field.name: getattr(mlp, field.name) for field in dataclasses.fields(mlp)}


def to_dict(mlp: Any) -> dict[str, Any]:
    """Return the options as JSON can hold them."""
    told = options(mlp)
    for name in ("activation", "initializer"):
        if callable(told[name]):
            raise ValueError(f"to_dict needs {name} by name; got {told[name]!r}; known names print in MLP's errors")
    return {**told, "sizes": list(mlp.sizes)}


def from_dict(kind: type, told: Mapping[str, Any]) -> Any:
    """Return the description whose options were told."""
    if not isinstance(told, Mapping):
        raise ValueError(f"options of an {kind.__name__} must be a dict; got {_check.describe(told)}")
    for name in told:
        if name != "init":  # as files of before call the initializer
            _check.one_of(f"an option of {kind.__name__}", name, [field.name for field in dataclasses.fields(kind)])
    if "sizes" not in told:
        raise ValueError(f"an {kind.__name__} needs sizes; got only {', '.join(told) or 'an empty dict'}")
    return kind(**told)


def in_one_line(mlp: Any) -> str:
    """Return the call that makes the description, with the options that are not by default."""
    default = options(type(mlp)(mlp.sizes, mlp.activation)) | {"activation": "relu"}
    changed = {k: v for k, v in options(mlp).items() if k == "sizes" or v != default[k]}
    named = {k: getattr(v, "__name__", repr(v)) if callable(v) else repr(v) for k, v in changed.items()}
    return f"{type(mlp).__name__}({', '.join(f'{k}={v}' for k, v in named.items())})"


def as_table(mlp: Any) -> str:
    """Return the description, what it costs, and the shapes of each layer."""
    lines = [
        f"{mlp!r}",
        f"{mlp.parameter_count:,} parameters, {mlp.parameter_bytes:,} bytes, {mlp.forward_flops:,} FLOPs an example",
        "layer  shapes",
    ]
    for i, leaves in enumerate(mlp.structure.leaves):
        lines.append(f"{i:<6} {'  '.join(f'{name} {shape}' for name, shape in leaves.items())}")
    return "\n".join(lines)
