"""One network over many devices: rules of where its parameters lie, and what puts them there.

A mesh names its axes by what they are for. "data" carries the examples: each device has some rows of every batch, and
the gradients are summed over the axis. "model" splits the weights (Shoeybi et al. 2019, arXiv 1909.08053): a layer by
its columns, the next by its rows, so that a pair of layers needs one sum over the axis, h = phi(x W1) W2.

`start` makes a state that lies so from the beginning. `fit`, `step`, `epoch` and `evaluate` then take state and data as
they lie, keep them there, and give the numbers of one device to rounding: the order of the rows is the same.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from jaxmlp import _check, training
from jaxmlp._freezing import Path, path_of
from jaxmlp._layout import check_mesh, check_specs, follow, layout, warn_of_whole
from jaxmlp._placement import Placement, automatic, moved, placement, spread
from jaxmlp._verbs import check_recipe
from jaxmlp.recipe import Bound
from jaxmlp.training import Recipe, State
from jaxmlp.types import Data, Hyperparams, Model, Params, PyTree

AnyMesh = Mesh | AbstractMesh
Rules = Callable[[Path], P] | PyTree


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

    >>> from jaxmlp import MLP
    >>> mesh = AbstractMesh((4, 2), ("data", "model"))
    >>> first, second, third = rules(MLP((3, 8, 8, 1)), mesh)
    >>> first.w == P(None, "model"), second.w == P("model", None), third.w == P()
    (True, True, True)
    """
    if isinstance(model, type) or not callable(getattr(model, "init", None)):
        raise ValueError(f"model must have init(key), as an MLP; got {_check.describe(model)}")
    return layout(jax.eval_shape(model.init, jax.random.key(0)), mesh, fsdp)


def place(state_or_params: State | Params, mesh: Mesh, *, fsdp: bool = False, rules: Rules | None = None) -> Any:
    """Return parameters, or a whole `State`, on a mesh: as `rules` splits them, known by their places and shapes.

    Leaves of the optimizer's state with the place and the shape of a parameter lie as that does; counts and keys lie
    whole on every device. Where nothing divides, a `UserWarning` says that all stays whole.

    Args:
      state_or_params: a `State`, or parameters.
      mesh: of devices, with an axis "data" or "model", or with any axes where rules are given.
      fsdp: see `rules`.
      rules: other ones: a pytree of `PartitionSpec` like the parameters, or a function of a path, as (0, "w"), to one.

    Raises:
      ValueError: for a mesh that is none of devices or has neither axis, and for rules that do not fit the parameters.

    >>> from jaxmlp import MLP
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> place(MLP((3, 8, 1)).init(jax.random.key(0)), mesh)[0].w.sharding.spec == P()
    True
    """
    _check_devices(mesh)
    whole = isinstance(state_or_params, State)
    params = state_or_params.params if whole else state_or_params
    specs = _specs(params, mesh, fsdp, rules)
    if not whole:
        return _put(params, specs, mesh)
    return State(
        _put(params, specs, mesh),
        _put(state_or_params.opt_state, follow(params, specs, state_or_params.opt_state), mesh),
        *(spread(a, mesh, P()) for a in (state_or_params.step, state_or_params.key)),
    )


def start(
    key: Array,
    recipe: Recipe | Bound,
    hyperparams: Hyperparams = None,
    *,
    mesh: Mesh,
    fsdp: bool = False,
    rules: Rules | None = None,
) -> State:
    """Return the state of `jaxmlp.start`, drawn where it lies: no device ever holds the whole of what is split.

    Where nothing divides, a `UserWarning` says that all stays whole.

    Args:
      key: one typed key.
      recipe: what is trained.
      hyperparams: its numbers.
      mesh: of devices, with an axis "data" or "model", or with any axes where rules are given.
      fsdp: see `rules`.
      rules: see `place`.

    Raises:
      ValueError: for what `jaxmlp.start` refuses, and for a mesh or rules that do not fit.

    >>> from jaxmlp import MLP, losses
    >>> import optax
    >>> recipe = Recipe(MLP((3, 8, 1)), losses.squared_error, optax.adam, epochs=1)
    >>> state = start(jax.random.key(0), recipe, {"learning_rate": 0.1}, mesh=jax.make_mesh((1,), ("data",)))
    >>> state.params[0].w.shape
    (3, 8)
    """
    check_recipe(recipe)
    _check.typed_key(key)
    _check_devices(mesh)
    bound = recipe.bind(hyperparams)
    specs = _specs(jax.eval_shape(bound.init, key), mesh, fsdp, rules)
    inside = automatic(mesh)
    leaves = tuple(jax.tree.leaves(specs, is_leaf=_is_spec))
    placed = bound._replace(placement=Placement(inside, (), leaves))
    with jax.set_mesh(inside):
        return moved(training.start(spread(key, inside, P()), placed), mesh)


def bind(recipe: Recipe, hyperparams: Hyperparams, state: State | Params, data: Data) -> Bound:
    """Return the recipe bound to its numbers, and to how a state and data lie, for programs of your own.

    `jaxmlp.fit`, `step`, `epoch` and `evaluate` read that off arrays by themselves; within a caller's `jax.jit` no
    array says where it lies. Shapes will do: `jax.ShapeDtypeStruct(..., sharding=...)`. What goes into such a program
    lies on automatic axes, of `jax.make_mesh(..., axis_types=(jax.sharding.AxisType.Auto,))`, an axis each.

    Raises:
      ValueError: for numbers that do not fit, and where nothing lies on a mesh.

    >>> from jaxmlp import MLP, losses, step
    >>> import optax
    >>> recipe, mesh = Recipe(MLP((3, 1)), losses.squared_error, optax.sgd, epochs=1), jax.make_mesh((1,), ("data",))
    >>> state = start(jax.random.key(0), recipe, {"learning_rate": 0.1}, mesh=mesh)
    >>> bound = bind(recipe, {"learning_rate": 0.1}, state, (jax.numpy.ones((2, 3)), jax.numpy.ones((2, 1))))
    >>> bound.placement.rows
    ('data',)
    """
    check_recipe(recipe)
    leaves = jax.tree.leaves((state, data))
    meshes = [a.sharding.mesh for a in leaves if isinstance(getattr(a, "sharding", None), jax.sharding.NamedSharding)]
    if not meshes:
        raise ValueError(
            "state or data must lie on a mesh; got neither; place(state, mesh) puts a state there, start(..., mesh=) "
            "begins one there"
        )
    return recipe.bind(hyperparams)._replace(placement=placement(meshes[0], state, data))


def _is_spec(node: Any) -> bool:
    return isinstance(node, P)


def _check_devices(mesh: Any) -> None:
    if not isinstance(mesh, Mesh):
        check_mesh(mesh)
        raise ValueError(f"mesh must be of devices that are there; got {mesh}; make one with jax.make_mesh")


def _specs(params: Params, mesh: Mesh, fsdp: bool, given: Rules | None) -> PyTree:
    if given is None:
        specs = layout(params, mesh, fsdp)
        warn_of_whole(params, specs, mesh, fsdp)
        return specs
    if fsdp:
        raise ValueError("fsdp must be False with rules of your own, which say themselves what is split")
    rule: Any = given
    specs = jax.tree_util.tree_map_with_path(lambda path, _: rule(path_of(path)), params) if callable(rule) else rule
    check_specs(params, specs, mesh)
    return specs


def _put(tree: PyTree, specs: PyTree, mesh: Mesh) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    each = jax.tree.leaves(specs, is_leaf=_is_spec)
    return jax.tree.unflatten(structure, [spread(a, mesh, spec) for a, spec in zip(leaves, each, strict=True)])
