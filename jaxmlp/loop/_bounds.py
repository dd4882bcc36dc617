"""What the words of a checkpoint allow its arrays to be, asked before a byte of them is read.

Equal numbers are stored in next to nothing, so a file of kilobytes may ask for gigabytes. What a run of these words
never had is refused, and what is left costs about what the files take or what the machine has.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from jaxmlp._engine import limits
from jaxmlp._engine.limits import USABLE
from jaxmlp._engine.plan import ACCELERATOR_BLOCK
from jaxmlp.loop import _fields as fields
from jaxmlp.loop._folder import Form
from jaxmlp.loop._manifest import Manifest

SMALL = 2**26  # bytes that any checkpoint may take
STATE = 2**12  # bytes that a run may hold for a weight, beside SMALL: L-BFGS keeps hundreds of copies
PARAMS, HISTORY = "run.state.params.", "run.history."
NUMBERS = 10**7 - 1  # checkpoints whose names of eight digits begin with a zero: those above look like dates


def last_number(manifest: Manifest) -> int:
    """Return the highest number that a checkpoint of a run will have: of its epochs, or of a stream's steps."""
    epochs = manifest.recipe["epochs"]
    if isinstance(manifest.data, dict):
        return epochs
    return epochs * manifest.steps if manifest.steps else max(epochs, NUMBERS)  # not each stream tells its length


def check_forms(manifest: Manifest, forms: Mapping[str, Form], later: Collection[str] = ()) -> None:
    """Raise unless a run of a manifest may have arrays of these forms, of which some are not read now.

    Raises:
      ValueError: with the array, or the word that does not fit.
    """
    keys = forms.get("members.key")
    members = keys.shape[0] if keys is not None and keys.shape else 0
    for name, form in forms.items():
        if form.shape[:1] != (members,) and not name.startswith("shared."):
            raise ValueError(
                f"{name:.80} of the checkpoint must hold something for each of {members} members; got {form.shape}"
            )
    epochs, parameters = manifest.recipe["epochs"], _parameters(manifest.recipe.get("model"))
    saved = sum(math.prod(f.shape[1:]) for n, f in forms.items() if n.startswith(PARAMS) and n.endswith(".w"))
    if parameters is not None and parameters != saved:
        raise ValueError(
            f"recipe.model.sizes of the checkpoint must be those of its {saved:,} weights; got sizes of {parameters:,}"
        )
    metrics = bool(manifest.recipe.get("metrics"))  # which may be arrays, of any shape
    for name, form in forms.items():
        shape = form.shape[: 2 if metrics else None]
        if name.startswith(HISTORY) and shape != (members, epochs):
            raise ValueError(
                f"{name:.80} of the checkpoint must have an entry for each of {epochs:,} epochs; got {form.shape}"
            )
    trees = [n for n, told in manifest.hyperparams.items() if isinstance(told, dict) and "form" in told]  # of any size
    aside = (HISTORY, "shared.", *(f"members.hyperparams.{name}." for name in trees))
    state = sum(form.bytes for name, form in forms.items() if not name.startswith(aside))
    if parameters is not None and state > SMALL + STATE * members * parameters:
        raise ValueError(
            f"arrays of the checkpoint must be those of {members:,} models of {parameters:,} weights; they take "
            f"{state:,} bytes"
        )
    (part, whole), there = USABLE, limits.memory()
    total = sum(form.bytes for name, form in forms.items() if name not in later)
    if there is not None and total > part * there // whole:
        raise ValueError(f"arrays of the checkpoint must fit in memory, of {there:,} bytes; they take {total:,}")
    width = manifest.layout["width"]
    if width > max(ACCELERATOR_BLOCK, members) and width * total > SMALL * members:
        raise ValueError(
            f"layout.width of the checkpoint must be about that of its {members:,} members, and at most "
            f"{ACCELERATOR_BLOCK:,} for fewer; got {width:,}"
        )


def _parameters(model: Any) -> int | None:
    """Return how many weights a model has by its sizes, if it is an `MLP`, or one around an `MLP`."""
    while isinstance(model, dict) and model.get("type") == "jaxmlp.transforms:Scaled":
        model = model.get("model")
    if not isinstance(model, dict) or model.get("type") != "jaxmlp:MLP":
        return None
    sizes = fields.listed(fields.whole(1))("recipe.model.sizes", model.get("sizes"))
    return sum(m * n for m, n in zip(sizes, sizes[1:], strict=False))
