"""A model as one file: its parameters as safetensors, its description as JSON in the header.

Any reader of safetensors opens it. `load` builds only what the description of an `MLP` can say, so no code is run, and
checks every shape against the description before it reads a number.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _arguments, _check, _stacking
from jaxmlp.layer import Layer
from jaxmlp.mlp import MLP
from jaxmlp.types import Model, StrPath

FORMAT = 1
HEADER = 2**21  # bytes: a thousand layers take a fifth of it
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def save(path: StrPath, model: Model, params: tuple[Layer, ...], *, metadata: object = None) -> None:
    """Write a model to one safetensors file, there whole or not at all.

    Tensors are named layer/leaf, "0/w", "0/b"; of a population they have its leading axes. Needs the extra `files`.

    Args:
      path: the file.
      model: an `MLP` whose activation and initializer are known by name.
      params: its parameters, or those of a population of it.
      metadata: anything that JSON holds, such as the metrics or the units of the outputs.

    Raises:
      ValueError: for a model that is no such `MLP`, parameters that do not fit it or are not finite, or metadata that
        JSON cannot hold.

    >>> import tempfile
    >>> mlp = MLP((2, 3, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/model.safetensors", mlp, mlp.init(jax.random.key(0)))
    ...     model, params = load(f"{folder}/model.safetensors")
    >>> model, params[0].w.shape
    (MLP(sizes=(2, 3, 1)), (2, 3))
    """
    safetensors = _check.extra("safetensors.numpy", "files")
    path = _arguments.path("path", path)
    if not isinstance(model, MLP):
        raise ValueError(f"model must be an MLP, whose description is data; got {model!r}")
    tensors = _tensors(model, params)
    for name, array in tensors.items():
        _check.finite(name, array)
    description = {"format": FORMAT, "model": model.to_dict(), "metadata": metadata}
    try:
        told = json.dumps(description, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata must be what JSON can hold; got {_check.shown(metadata)}: {error}") from error
    data = safetensors.save(tensors, metadata={"jaxmlp": told})
    if int.from_bytes(data[:8], "little") > HEADER:
        raise ValueError(f"metadata must leave the header below {HEADER:,} bytes; got {len(told):,} of description")
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_bytes(data)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def load(path: StrPath) -> tuple[MLP, tuple[Layer, ...]]:
    """Return the model and the parameters in a file that `save` wrote.

    Raises:
      ValueError: for whatever is not such a file: of another format, cut short, with tensors missing, left over, of
        other shapes, or not finite.
    """
    safetensors = _check.extra("safetensors", "files")
    path = _arguments.path("path", path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise ValueError(f"{path} must be a file that can be read: {error}") from error
    if size < 8 or header > min(HEADER, size - 8):
        raise ValueError(
            f"{path} must be a safetensors file with a header of at most {HEADER:,} bytes; got {size:,} bytes, "
            f"of which the header is said to take {header:,}"
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return _read(path, file)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file; it could not be read: {error}") from error


def read_metadata(path: StrPath) -> Any:
    """Return the metadata that `save` was given."""
    safetensors = _check.extra("safetensors", "files")
    path = _arguments.path("path", path)
    load(path)  # everything that must hold for the file
    with safetensors.safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["jaxmlp"])["metadata"]


def _read(path: Path, file: Any) -> tuple[MLP, tuple[Layer, ...]]:
    model = _description(path, file.metadata())
    wanted = {f"{i}/{name}": shape for i, leaves in enumerate(model.structure.leaves) for name, shape in leaves.items()}
    found = set(file.keys())
    for word, names in (("hold", wanted.keys() - found), ("not hold", found - wanted.keys())):
        if names:
            shown = ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")
            raise ValueError(f"{path} must {word} the tensors {shown}, for {_short(model)}")
    lead: tuple[int, ...] | None = None
    for name, shape in wanted.items():
        part = file.get_slice(name)
        got, dtype = tuple(part.get_shape()), part.get_dtype()
        if dtype not in DTYPES:
            raise ValueError(f"{path}: {name} must be of {', '.join(DTYPES.values())}; got {dtype}")
        _check.usable_dtype(f"{name} of {path.name}, param_dtype", DTYPES[dtype])
        axes = got[: len(got) - len(shape)]
        lead = axes if lead is None else lead
        if got != lead + shape or 0 in got:
            raise ValueError(f"{path}: {name} must have shape {(*lead, *shape)} for {_short(model)}; got {got}")
    arrays = {}
    for name in wanted:
        arrays[name] = file.get_tensor(name)
        _check.finite(f"{name} of {path.name}", arrays[name])
    layers = [
        {name: jnp.asarray(arrays[f"{i}/{name}"]) for name in leaves} for i, leaves in enumerate(model.structure.leaves)
    ]
    return model, _stacking.stack(tuple(Layer(**leaves) for leaves in layers), model.structure.parts)


def _description(path: Path, metadata: dict[str, str] | None) -> MLP:
    if not metadata or "jaxmlp" not in metadata:
        raise ValueError(f"{path} must have been written by jaxmlp.save; its header has no description of a model")
    try:
        told = json.loads(metadata["jaxmlp"], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must have a description in JSON; it cannot be read: {error}") from error
    if not isinstance(told, dict) or set(told) != {"format", "model", "metadata"}:
        names = ", ".join(sorted(map(str, told))[:8]) if isinstance(told, dict) else type(told).__name__
        raise ValueError(f"{path} must be described by format, model and metadata; got {names[:200]}")
    if told["format"] != FORMAT or isinstance(told["format"], bool):
        raise ValueError(
            f"{path} must be of format {FORMAT}; got {str(told['format'])[:80]}; a newer jaxmlp may read it"
        )
    if not isinstance(told["model"], dict):
        raise ValueError(f"{path} must describe a model by a dict; got {type(told['model']).__name__}")
    try:
        return MLP.from_dict(told["model"])
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} must describe an MLP: {str(error)[:400]}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _tensors(model: MLP, params: tuple[Layer, ...]) -> dict[str, np.ndarray]:
    """Return the parameters by name, checked against the description."""
    layers = model.layers(params)
    tensors: dict[str, np.ndarray] = {}
    lead = layers[0].w.shape[:-2]
    for i, (layer, leaves) in enumerate(zip(layers, model.structure.leaves, strict=True)):
        for name, array in layer._asdict().items():
            wanted = (*lead, *leaves[name]) if name in leaves else None
            got = None if array is None else np.shape(array)
            if got != wanted:
                raise ValueError(f"{i}/{name} must have shape {wanted} for {_short(model)}; got {got}")
            if array is not None:
                _check.floating(f"{i}/{name}", array)
                tensors[f"{i}/{name}"] = np.ascontiguousarray(np.asarray(jax.device_get(array)))
    return tensors


def _short(model: MLP) -> str:
    text = repr(model)
    return text if len(text) <= 200 else text[:197] + "..."
