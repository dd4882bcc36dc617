"""One network over many devices: rules of where its parameters lie, and what puts them there.

A mesh names its axes by what they are for. "data" carries the examples: each device has some rows of every batch, and
the gradients are summed over the axis. "model" splits the weights (Shoeybi et al. 2019, arXiv 1909.08053): a layer by
its columns, the next by its rows, so that a pair of layers needs one sum over the axis, h = phi(x W1) W2.
"""

import jax
from jax.sharding import AbstractMesh, Mesh

from jaxmlp import _check
from jaxmlp._layout import layout
from jaxmlp.types import Model, PyTree

AnyMesh = Mesh | AbstractMesh


def rules(model: Model, mesh: AnyMesh, *, fsdp: bool = False) -> PyTree:
    """Return a pytree of `PartitionSpec` like the parameters of a model: over which axes each of them is split.

    Over "model" the layers of an MLP alternate (Shoeybi et al. 2019, arXiv 1909.08053): the first is split by its
    columns, w P(None, "model") and b P("model"), the next by its rows, w P("model", None) and b P(), and so on; the
    numbers of a norm go with the width of their layer. A width that the axis does not divide stays whole, and the next
    layer begins anew. All layers of a stack (`scan=True`) are split alike, by columns, and so need a gather of h each.
    Parameters of other models than an MLP, and all where the mesh has no axis "model", are whole: P().

    With `fsdp` (Rajbhandari et al. 2020, arXiv 1910.02054; Zhao et al. 2023, arXiv 2304.11277) each is split over
    "data" too, along the longest dimension that is still whole and that the axis divides.

    Args:
      model: an `MLP`, or any model with `init(key)`; its parameters are never made.
      mesh: a `jax.sharding.Mesh`, or an `AbstractMesh` of devices that need not be there.
      fsdp: whether parameters, and the optimizer's state with them, are split over the examples' axis.

    Raises:
      ValueError: for a mesh with neither axis, and for `fsdp` without "data".

    >>> from jax.sharding import PartitionSpec as P
    >>> from jaxmlp import MLP
    >>> mesh = AbstractMesh((4, 2), ("data", "model"))
    >>> first, second, third = rules(MLP((3, 8, 8, 1)), mesh)
    >>> first.w == P(None, "model"), second.w == P("model", None), third.w == P()
    (True, True, True)
    """
    if isinstance(model, type) or not callable(getattr(model, "init", None)):
        raise ValueError(f"model must have init(key), as an MLP; got {_check.describe(model)}")
    return layout(jax.eval_shape(model.init, jax.random.key(0)), mesh, fsdp)
