"""One network over many devices: rules of where its parameters lie, and what puts them there.

A mesh names its axes by what they are for. "data" carries the examples: each device has some rows of every batch, and
the gradients are summed over the axis. "model" splits the weights (Shoeybi et al. 2019, arXiv 1909.08053): a layer by
its columns, the next by its rows, so that a pair of layers needs one sum over the axis, h = phi(x W1) W2.

`start` and `place` put a state there, `jax.device_put` the data; `jaxmlp.fit`, `step`, `epoch`, `evaluate` and
`loop.train` take both as they lie and keep them so. The numbers are those of one device, up to the order of sums.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from jaxmlp import _check, training
from jaxmlp._layout import DATA, check_mesh, follow, layout, leaves_of
from jaxmlp._placement import Placement, automatic, moved, spread
from jaxmlp.recipe import Recipe
from jaxmlp.training import State
from jaxmlp.types import Hyperparams, Model, Params, PyTree

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


def place(state_or_params: Any, mesh: Mesh, *, fsdp: bool = False, specs: PyTree | None = None) -> Any:
    """Return parameters, or a whole state, on a mesh, split over its axes by `rules`.

    The optimizer's state lies as the parameters that it belongs to; steps, counters and the key are on every device.
    Of several processes each gives the same arrays, and keeps its own part.

    Args:
      state_or_params: parameters of a model, or a `State`.
      mesh: of devices, with an axis "data", "model" or both.
      fsdp: whether they are split over "data" too; see `rules`.
      specs: a pytree of `PartitionSpec` like the parameters, in the place of those of `rules`.

    Raises:
      ValueError: for a mesh without such an axis or without devices, and for specs that do not fit the parameters.

    >>> from jaxmlp import MLP
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> params = place(MLP((3, 8, 1)).init(jax.random.key(0)), mesh)
    >>> params[0].w.sharding.mesh == mesh, params[0].w.shape
    (True, (3, 8))
    """
    _check_devices(mesh)
    whole = isinstance(state_or_params, State)
    params = state_or_params.params if whole else state_or_params
    found = _specs(params, mesh, fsdp, specs)
    if not whole:
        return _put(params, mesh, leaves_of(found))
    opt_state = _put(state_or_params.opt_state, mesh, leaves_of(follow(params, found, state_or_params.opt_state)))
    step, key = _put((state_or_params.step, state_or_params.key), mesh, [P(), P()])
    return State(_put(params, mesh, leaves_of(found)), opt_state, step, key)


def start(
    key: Array,
    recipe: Recipe,
    hyperparams: Hyperparams = None,
    *,
    mesh: Mesh,
    fsdp: bool = False,
    specs: PyTree | None = None,
) -> State:
    """Return the state before the first step, born on a mesh: no device ever holds more than its part.

    The numbers are those of `jaxmlp.start`. To be passed on: `fit(key, data, recipe, hyperparams, params=state)`.

    Args:
      key: one typed key.
      recipe: model, loss and optimizer.
      hyperparams: their numbers.
      mesh: of devices, with an axis "data", "model" or both.
      fsdp: whether parameters and optimizer are split over "data" too; see `rules`.
      specs: a pytree of `PartitionSpec` like the parameters, in the place of those of `rules`.

    Raises:
      ValueError: for whatever `jaxmlp.start` refuses; for meshes and specs as `place` does.

    >>> from jaxmlp import MLP, losses
    >>> import optax
    >>> recipe = Recipe(MLP((3, 8, 1)), losses.squared_error, optax.adam, epochs=1)
    >>> mesh = jax.make_mesh((1, 1), ("data", "model"))
    >>> start(jax.random.key(0), recipe, {"learning_rate": 1e-3}, mesh=mesh).params[0].w.sharding.mesh.axis_names
    ('data', 'model')
    """
    _check_devices(mesh)
    _check.typed_key(key)
    bound = recipe.bind(hyperparams)
    found = _specs(jax.eval_shape(bound.init, key), mesh, fsdp, specs)
    rows = (DATA,) if DATA in mesh.axis_names else ()
    placed = bound._replace(placement=Placement(automatic(mesh), rows, tuple(leaves_of(found))))
    return moved(training.start(spread(key, automatic(mesh), P()), placed), mesh)


def _check_devices(mesh: Any) -> None:
    check_mesh(mesh)
    if not isinstance(mesh, Mesh):
        raise ValueError(f"mesh must be one of devices, to put arrays there; got {mesh}; rules() takes an AbstractMesh")


def _specs(params: Params, mesh: Mesh, fsdp: bool, given: PyTree | None) -> PyTree:
    """Return the specs of `rules`, or those that are given, once they fit.

    Raises:
      ValueError: for another number of specs than of parameters, or one that its array's shape does not divide by.
    """
    if given is None:
        return layout(params, mesh, fsdp)
    leaves, specs = jax.tree_util.tree_leaves_with_path(params), leaves_of(given)
    if len(leaves) != len(specs) or not all(isinstance(spec, P) for spec in specs):
        raise ValueError(
            f"specs must be a PartitionSpec for each of {len(leaves)} parameters; got {len(specs)} leaves; begin with "
            f"sharding.rules(model, mesh)"
        )
    for (path, a), spec in zip(leaves, specs, strict=True):
        try:
            jax.sharding.NamedSharding(mesh, spec).shard_shape(jnp.shape(a))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"specs must split each parameter evenly over axes of the mesh; got {spec} for "
                f"{jax.tree_util.keystr(path)} of shape {jnp.shape(a)} on {dict(mesh.shape)}"
            ) from error
    return jax.tree.unflatten(jax.tree.structure(params), specs)


def _put(tree: PyTree, mesh: Mesh, specs: list[P]) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [spread(a, mesh, spec) for a, spec in zip(leaves, specs, strict=True)])
