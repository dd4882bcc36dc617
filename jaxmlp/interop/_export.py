"""A model with its parameters as one program of StableHLO, which runs without this library."""

from typing import Any

import jax

from jaxmlp import _arrays, _check
from jaxmlp._mesh import here
from jaxmlp._scaling import outputs as in_units
from jaxmlp._verbs import verb
from jaxmlp.mlp import MLP
from jaxmlp.types import Params, PyTree

PLATFORMS = ("cpu", "cuda", "tpu")


@verb
def export(model: Any, params: Params, *, x: PyTree = None) -> bytes:
    """Return the model with its parameters as one serialised StableHLO program, for CPU, CUDA and TPU at once.

    `jax.export.deserialize(data).call(x)` runs it, for any number of examples, without jaxmlp.

    Args:
      model: an `MLP`, or any object with `apply(params, x)`.
      params: its parameters; of a population of an `MLP` the outputs get the leading axes of its members.
      x: for a model that is no `MLP`, inputs (batch, ...) to take the shape of an example from.

    Raises:
      ValueError: for a model that does not say what goes in, and for parameters that do not fit, or that lie on several
        processes.

    >>> mlp = MLP((3, 4, 2))
    >>> data = export(mlp, mlp.init(jax.random.key(0)))
    >>> jax.export.deserialize(data).call(jax.numpy.ones((5, 3))).shape
    (5, 2)
    """
    import jax.export as jax_export  # not loaded by `import jax`

    _check.extra("flatbuffers", "files")
    params, x = here("params", params), _arrays.tree("x", x)
    for leaf in jax.tree.leaves(x):
        if not _check.is_array(leaf) or not leaf.shape:
            raise ValueError(f"x must be arrays with the examples on their first axis; got {_check.describe(leaf)}")
    if isinstance(model, MLP):
        x = jax.ShapeDtypeStruct((1, model.sizes[0]), jax.dtypes.canonicalize_dtype(float))
    elif x is None:
        raise ValueError(f"x must be given for a model that is no MLP, inputs (batch, ...) of it; got {model!r}")
    (batch,) = jax_export.symbolic_shape("batch")
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), x)

    def apply(params: Params, x: PyTree) -> PyTree:
        return in_units(model, params, model.apply(params, x))

    if isinstance(model, MLP):
        model.structure.check(params, model, members=True)
        for _ in range(params[-1].w.ndim - 2):  # the last layer is in no stack: what stands before it are members
            apply = jax.vmap(apply, (0, None))
    program = jax.jit(lambda x: apply(params, x))
    return bytes(jax_export.export(program, platforms=PLATFORMS)(like).serialize())
