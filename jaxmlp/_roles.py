"""What a leaf of the parameters is: a matrix or a bias, known by its name and never by its rank.

A stack of equal layers gives a bias a second axis and a matrix a third; what each of them is stays the same.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp.layer import Layer
from jaxmlp.types import Params, PyTree

MATRICES = frozenset("w weight weights kernel kernels matrix embedding embeddings table u v".split())
OTHERS = frozenset("b bias biases beta gamma scale scales shift offset norm gain temperature mean var".split())


def decays(params: Params) -> PyTree:
    """Return True for each leaf that weight decay draws to zero, False for biases and what belongs to a norm.

    A leaf is known by the last word of its name: that of a field or a key, or where it stands in a list, of the nearest
    one above it. w, weight, kernel, matrix, embedding and table decay; b, bias, scale, shift, offset, gain, gamma, beta
    and norm do not. `encoder_kernel`, `W1` and `layers.0.weight` end in these words too. A leaf of another name, or of
    none, decays where it has at least two axes.

    >>> decays({"kernel_1": jnp.ones((4, 2, 2)), "fc_bias": jnp.ones((4, 2)), "alpha": jnp.ones(3)})
    {'alpha': False, 'fc_bias': False, 'kernel_1': True}
    """
    return jax.tree_util.tree_map_with_path(_decays, params)


def _decays(path: Any, leaf: Array) -> bool:
    for entry in reversed(path):
        words = re.findall(r"[a-z]+", _name(entry).lower())
        if not words:  # a place in a list: what is above it names it
            continue
        if words[-1] in MATRICES or words[-1] in OTHERS:
            return words[-1] in MATRICES
        break
    return jnp.ndim(leaf) > 1


def _name(entry: Any) -> str:
    found = getattr(entry, "name", getattr(entry, "key", ""))
    return found if isinstance(found, str) else ""


def has_stacks(params: Params) -> bool:
    """Tell whether a tree holds a stack: a `Layer` whose leaves have an axis more than a matrix and a bias."""
    return any(map(_is_stack, jax.tree.leaves(params, is_leaf=is_layer)))


def apart(tree: PyTree) -> PyTree:
    """Return a tree with each stack as a tuple of its layers.

    >>> [layer.w.shape for layer in apart((Layer(jnp.ones((3, 2, 2))),))[0]]
    [(2, 2), (2, 2), (2, 2)]
    """

    def one(part: Any) -> Any:
        if not _is_stack(part):
            return part
        return tuple(jax.tree.map(lambda a, i=i: a[i], part) for i in range(len(jax.tree.leaves(part)[0])))

    return jax.tree.map(one, tree, is_leaf=is_layer)


def together(tree: PyTree, like: PyTree) -> PyTree:
    """Return what was taken `apart`, with the stacks that `like` has."""

    def one(part: Any, layers: Any) -> Any:
        if not _is_stack(part):
            return layers
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)

    return jax.tree.map(one, like, tree, is_leaf=is_layer)


def is_layer(node: object) -> bool:
    """Tell a layer from another node of a tree, as `is_leaf` asks."""
    return isinstance(node, Layer)


def _is_stack(node: object) -> bool:
    if not isinstance(node, Layer):
        return False
    others = [leaf for leaf in node[1:] if leaf is not None]  # all that is there where w is frozen
    return jnp.ndim(node.w) > 2 if node.w is not None else any(jnp.ndim(leaf) > 1 for leaf in others)
