"""A model as one file: its parameters as safetensors, its description as JSON in the header.

Any reader of safetensors opens it. `load` builds only what the description of an `MLP` can say, so no code is run, and
checks every shape against the description before it reads a number. A digest in the header shows later damage.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmlp import _arguments, _check, _disk, _header, _tensors
from jaxmlp._described import Described
from jaxmlp._mesh import here
from jaxmlp.mlp import MLP
from jaxmlp.types import Json, Model, Params, StrPath

FORMAT = 2  # since 2, `losses.gaussian` reads raw scales by asinh; before, by softplus
READABLE = (1, 2)
KIND = "jaxmlp"  # of what the description is, in the header


def save(path: StrPath, model: Model, params: Params, *, metadata: object = None) -> None:
    """Write a model to one safetensors file, there whole or not at all.

    Tensors are named layer/leaf, "0/w", "0/b"; of a population they have its leading axes. Those of a
    `transforms.Scaled` are "model/0/w", and "x/shift" and so on of what was fitted. Needs the extra `files`.

    Args:
      path: the file.
      model: an `MLP` whose activation and initializer are known by name, or `transforms.Scaled` around one.
      params: its parameters, or those of a population of it.
      metadata: anything that JSON holds, such as the metrics or the units of the outputs.

    Raises:
      ValueError: for a model that is no such `MLP`, parameters that do not fit it, are not finite or lie on several
        processes, metadata that JSON cannot hold, or a path that cannot be written.

    >>> import tempfile
    >>> mlp = MLP((2, 3, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/model.safetensors", mlp, mlp.init(jax.random.key(0)))
    ...     model, params = load(f"{folder}/model.safetensors")
    >>> model, params[0].w.shape
    (MLP(sizes=(2, 3, 1)), (2, 3))
    """
    path = _disk.path_of("path", path)
    params = here("params", params)
    described = Described.of(model, params)
    tensors = _named(described, params)
    for name, array in tensors.items():
        _check.finite(name, array)
    description = {"format": FORMAT, "model": described.to_json(), "metadata": metadata}
    try:
        told = json.dumps(description, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata must be what JSON can hold; got {_shown(metadata)}: {error}") from error
    _tensors.write(path, KIND, told, tensors)


def load(path: StrPath) -> tuple[Any, Any]:
    """Return the model and the parameters in a file that `save` wrote.

    Outputs are to the bit what they were. What `losses.gaussian` reads in them is not, for files of format 1, written
    before jaxmlp 0.2: a `UserWarning` says so where there may be a raw scale among them.

    Raises:
      ValueError: for whatever is not such a file: of another format, cut short, with tensors missing, left over, of
        other shapes, not finite, or other than they were saved; for what is no regular file.
    """
    model, params, told = _load(path)
    # A net of an odd width has no pairs of a mean and a raw scale.
    if told["format"] < 2 and isinstance(model, MLP) and model.sizes[-1] % 2 == 0:
        warnings.warn(
            f"{path} is of format 1: if its outputs are means and raw scales, pass them through losses.from_softplus "
            f"before losses.gaussian or what else reads them, since they were trained as softplus(raw)^2; if they are "
            f"not, save it anew to end this warning",
            stacklevel=_check.level_of_caller(),
        )
    return model, params


def read_metadata(path: StrPath) -> Any:
    """Return the metadata that `save` was given.

    Raises:
      ValueError: for a file that `load` refuses.
    """
    return _load(path)[2]["metadata"]


def _load(path: StrPath) -> tuple[Any, Params, Json]:
    """Return model, parameters and description; everything that must hold for the file is checked.

    The file is read and not mapped, since one that is cut short while it is mapped ends the process. No more is read
    than the header, before the header is known to be that of the model it describes.
    """

    def accept(path: Path, header: _header.Header) -> tuple[Json, Described]:
        told = _description(path, header.metadata.get(KIND))
        described = _model(path, told["model"], header.tensors)
        _check_tensors(path, described, header.tensors)
        return told, described

    (told, described), arrays = _tensors.read(path, KIND, accept)
    return described.model, described.params(arrays), told


def _check_tensors(path: Path, described: Described, tensors: Mapping[str, _header.Tensor]) -> None:
    """Raise unless the tensors that a header names are those of the model, in names, shapes and dtypes."""
    wanted = described.shapes()
    for word, names in (("hold", wanted.keys() - tensors.keys()), ("not hold", tensors.keys() - wanted.keys())):
        if names:
            shown = ", ".join(sorted(names)[:4])[:400] + (", ..." if len(names) > 4 else "")
            raise ValueError(f"{path} must {word} the tensors {shown}, for {described}")
    lead: tuple[int, ...] | None = None
    for name, shape in wanted.items():
        dtype, got, _, _ = tensors[name]
        if dtype not in _tensors.DTYPES:
            raise ValueError(f"{path}: {name} must be of {', '.join(_tensors.DTYPES.values())}; got {dtype[:80]}")
        _arguments.usable_dtype(f"{name} of {path.name}, param_dtype", _tensors.DTYPES[dtype])
        axes = got[: len(got) - len(shape)]
        lead = axes if lead is None else lead
        if got != lead + shape or 0 in got:
            raise ValueError(f"{path}: {name} must have shape {(*lead, *shape)} for {described}; got {got}")


def _description(path: Path, text: str | None) -> Json:
    """Return the description in a header, whose model is a dict."""
    if text is None:
        raise ValueError(f"{path} must have been written by jaxmlp.save; its header has no description of a model")
    try:
        told = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must have a description in JSON; it cannot be read: {error}") from error
    if not isinstance(told, dict) or set(told) != {"format", "model", "metadata"}:
        names = ", ".join(sorted(map(str, told))[:8]) if isinstance(told, dict) else type(told).__name__
        raise ValueError(f"{path} must be described by format, model and metadata; got {names[:200]}")
    if told["format"] not in READABLE or isinstance(told["format"], bool):
        raise ValueError(
            f"{path} must be of format {' or '.join(map(str, READABLE))}; got {str(told['format'])[:80]}; a newer "
            f"jaxmlp may read it"
        )
    if not isinstance(told["model"], dict):
        raise ValueError(f"{path} must describe a model by a dict; got {type(told['model']).__name__}")
    return told


def _model(path: Path, told: Json, tensors: Mapping[str, _header.Tensor]) -> Described:
    scaled = told.get("scaled")
    net = scaled.get("model") if isinstance(scaled, dict) else told
    sizes = net.get("sizes") if isinstance(net, dict) else None
    if isinstance(sizes, list) and len(sizes) - 1 > len(tensors):  # before time is spent on layers that are not there
        raise ValueError(f"{path} must hold a tensor for each of {len(sizes) - 1:,} layers; got {len(tensors):,}")
    try:
        return Described.from_json(told)
    except Exception as error:  # whatever an option of another kind makes it raise
        raise ValueError(f"{path} must describe an MLP: {str(error)[:400]}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _named(described: Described, params: Params) -> dict[str, np.ndarray]:
    """Return the parameters by name, checked against the description."""
    wanted, found = described.shapes(), described.tensors(params)
    first = next(iter(wanted))
    lead = getattr(found.get(first), "shape", ())[: -len(wanted[first])] if first in found else ()
    tensors: dict[str, np.ndarray] = {}
    for name in dict.fromkeys([*wanted, *found]):
        shape = (*lead, *wanted[name]) if name in wanted else None
        if name in found:
            _check.floating(name, found[name])
        got = found[name].shape if name in found else None
        if got != shape:
            raise ValueError(f"{name} must have shape {shape} for {described}; got {got}")
        tensors[name] = np.ascontiguousarray(np.asarray(jax.device_get(found[name])))
    return tensors


def _shown(metadata: object) -> str:
    try:
        return repr(metadata)[:400]
    except (RecursionError, ValueError):  # of lists without end, and of ints with too many digits
        return type(metadata).__name__
