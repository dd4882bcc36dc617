"""The arrays of a tree by name, as a checkpoint and a digest know them."""

from typing import Any

import jax
import numpy as np

from jaxmlp._engine.executor import without_keys
from jaxmlp._known import is_apart
from jaxmlp.types import PyTree


def flat(tree: PyTree, prefix: str) -> dict[str, Any]:
    """Return the arrays of a tree by name, typed keys as the integers behind them.

    They are of NumPy, but for those that no process alone has, which stay as they lie.

    >>> list(flat({"w": np.zeros(2), "layers": (np.ones(3),)}, "run"))
    ['run.layers.0', 'run.w']
    """
    leaves = jax.tree_util.tree_leaves_with_path(without_keys(tree))
    return {path_name(prefix, path): leaf if is_apart(leaf) else np.asarray(leaf) for path, leaf in leaves}


def path_name(prefix: str, path: Any) -> str:
    """Return the name of a leaf of a tree in a checkpoint."""
    return ".".join([prefix, *([jax.tree_util.keystr(path, simple=True, separator=".")] if path else [])])
