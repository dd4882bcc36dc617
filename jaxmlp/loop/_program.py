"""What a recipe computes: the traced programs of its parts, digested. Two recipes are one where these are equal.

A trace is the exact answer for any code: a default, a global, a helper's constant or an object's field that changes the
numbers changes it, and a docstring, a moved line, a new name or `jax.jit` around a function does not. Each value is
told by the operation that makes it and by the digests of what goes into that, so the order of independent lines and
what nothing reads do not count either. Constants count by value.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxmlp import training
from jaxmlp._engine.executor import Job
from jaxmlp._freezing import Path, frozen_paths, split
from jaxmlp._requests import asked
from jaxmlp.loop._hidden import version
from jaxmlp.loop._trace import Trace, hashed
from jaxmlp.recipe import Bound
from jaxmlp.types import Data, Json, Params, PyTree

# Options of JAX that change numbers and stand in no trace, or not in each.
OPTIONS = (
    *("jax_threefry_partitionable", "jax_default_matmul_precision", "jax_enable_x64", "jax_random_seed_offset"),
    "jax_disable_most_optimizations",
)


def of_program(bound: Bound, key: Any, batch: Data, evaluated: Data) -> Json:
    """Return a digest of each part of a recipe, with the versions that traced it and the options of JAX that hold.

    Each part is traced within the step as it is, beside stand-ins for the other parts. Nothing is computed: all
    arguments may be `jax.ShapeDtypeStruct`s.

    Args:
      bound: the recipe and the numbers of one member.
      key: one typed key.
      batch: (x, y, weight or None) of one step.
      evaluated: (x, y, weight or None) on which the metrics are read.

    >>> from jaxmlp import MLP, Recipe, losses
    >>> data = jnp.zeros((4, 2)), jnp.zeros((4, 1)), None
    >>> def told(loss):
    ...     bound = Recipe(MLP((2, 1)), loss, optax.sgd, epochs=1).bind({"learning_rate": 0.1})
    ...     return of_program(bound, jax.random.key(0), data, data)["parts"]
    >>> one, same, other = map(told, (losses.squared_error, jax.jit(losses.squared_error), losses.huber))
    >>> one == same, one["model"] == other["model"], one["loss"] == other["loss"]
    (True, True, False)
    """
    data = [(*data, None)[:3] for data in (batch, evaluated)]
    bound, key, batch, evaluated = jax.tree.map(_like, (bound, key, *data))
    params = jax.eval_shape(Bound.init, bound, key)
    outputs = jax.eval_shape(Bound.apply, bound, params, batch[0], key)
    seen = jax.eval_shape(Bound.apply, bound, params, evaluated[0])
    held = dataclasses.replace(bound.recipe, loss=_sum, optimizer=_descent, metrics=(), after=None)
    recipe = bound.recipe
    paths = frozen_paths(recipe.frozen, recipe.model, params)

    def alone(takers: Sequence[str], **parts: Any) -> Bound:
        """Return the recipe with these parts, and with stand-ins for the others, which take no number."""
        numbers = {name: getattr(bound.numbers, name, {}) if name in takers else {} for name in bound.numbers._fields}
        steps = bound.steps if "optimizer" in takers else None
        recipe = dataclasses.replace(held, **parts)
        return bound._replace(recipe=recipe, numbers=type(bound.numbers)(**numbers), steps=steps)

    def judged(taker: str, like: PyTree, functions: Sequence[Any], **parts: Any) -> Bound:
        """Return the recipe with a loss or metrics, on outputs as they are; one that asks for the model gets it."""
        if any(name in ("params", "apply") for function in functions for name in asked(function)):
            return alone(("init", "apply", taker), **parts)
        return alone((taker,), model=_Held.of(like, whole=True), frozen=None, **parts)

    model = alone(("init", "apply"))
    loss = judged("loss", outputs, [recipe.loss], loss=recipe.loss)
    optimizer = alone(("optimizer",), model=_Held.of(params, paths), frozen=None, optimizer=recipe.optimizer)
    metrics = judged("metrics", seen, recipe.metrics, metrics=recipe.metrics)
    measured = params if metrics.recipe.model is recipe.model else seen
    parts = {
        "model": [*_training(model, key, batch), _traced(_evaluated, params, evaluated, model)[0]],
        "loss": _training(loss, key, batch),
        "optimizer": _training(optimizer, key, jax.tree.map(lambda a: _form(a, (1, *a.shape[1:])), batch)),
        "metrics": [_traced(_evaluated, measured, evaluated, metrics)[0]],
    }
    if recipe.after is not None:
        parts["after"] = _training(
            alone(("init", "apply", "loss", "after"), loss=recipe.loss, after=recipe.after), key, batch
        )
    if paths:
        parts["frozen"] = sorted(map(str, paths))
    return {
        "versions": {name: version(name) for name in ("jax", "optax", "jaxmlp")},
        "forms": [str(leaf) for leaf in jax.tree.leaves((batch, evaluated))],
        "options": {name: getattr(jax.config, name, None) for name in OPTIONS},
        "parts": {name: hashed(*digests) for name, digests in parts.items()},
    }


def of_job(job: Job) -> Json:
    """Return the digests of what a job's recipe computes, of its first member."""
    members, (data, validation) = job.members, job.tables
    own: Any = jax.tree.map(
        lambda a: _form(a, a.shape[1:]), members._replace(key=None, rows=None, validation_rows=None)
    )
    x, y, weight = (*((own.data if data is None else data) if job.batch is None else job.batch), None)[:3]
    data = x, y, weight
    if own.weight is not None:
        data = *data[:2], own.weight
    validation = own.validation if validation is None else validation
    size = job.recipe.batch_size if job.batch is None else None
    batch = jax.tree.map(lambda a: _form(a, a.shape if size is None else (size, *a.shape[1:])), data)
    key = jax.ShapeDtypeStruct((), members.key.dtype)
    bound = Bound(job.recipe, own.numbers, own.steps)
    return of_program(bound, key, batch, data if validation is None else validation)


def _form(value: Any, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    like = _like(value)
    return jax.ShapeDtypeStruct(shape, like.dtype, weak_type=like.weak_type)


def _training(bound: Bound, key: Any, batch: Data) -> list[str]:
    """Return the digests of a start and of a step from there."""
    first, state = _traced(training.start, key, bound)
    return [first, _traced(training.step, state, batch, bound)[0]]


def _evaluated(params: Params, data: Data, bound: Bound) -> dict[str, Array]:
    """Evaluate with a key and a step in the places of those that a run has."""
    return training.evaluate(params, data, bound, key=jax.random.key(0), step=jnp.zeros((), jnp.int32))


def _sum(outputs: PyTree, targets: PyTree) -> Array:
    parts = [leaf.reshape(len(leaf), -1).sum(1) for leaf in jax.tree.leaves(outputs)]
    return functools.reduce(lambda a, b: a + b.astype(a.dtype), parts)


def _descent() -> optax.GradientTransformation:
    return optax.sgd(1.0)


@dataclasses.dataclass(frozen=True)
class _Held:
    """A model whose parameters have a given form, and whose outputs are these, or without `whole` hang on each."""

    structure: Any
    leaves: tuple[Any, ...]
    whole: bool = False
    paths: frozenset[Path] = frozenset()  # of what is frozen

    @classmethod
    def of(cls, params: PyTree, paths: frozenset[Path] = frozenset(), *, whole: bool = False) -> "_Held":
        leaves, structure = jax.tree.flatten(params)
        return cls(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), whole, paths)

    def frozen(self, path: Path) -> bool:
        return path in self.paths

    def init(self, key: Array) -> Params:
        return jax.tree.unflatten(self.structure, [jnp.zeros(*leaf) for leaf in self.leaves])

    def apply(self, params: Params, x: PyTree) -> PyTree:
        if self.whole:
            return params
        total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(split(None, self, params)[0]))
        return jnp.broadcast_to(jnp.asarray(total), (len(jax.tree.leaves(x)[0]), 1))


def _like(value: Any) -> jax.ShapeDtypeStruct:
    if isinstance(value, jax.ShapeDtypeStruct):
        return value
    kind = jax.typeof(value)
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=kind.weak_type)


def _traced(function: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """Return the digest of a function's trace, and the form of its result."""

    def fresh(*args: Any) -> Any:  # JAX remembers traces by the function: what a global is now, is asked anew
        return function(*args)

    traced, result = jax.make_jaxpr(fresh, return_shape=True)(*args)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(result)]
    return hashed(*names, Trace().function(traced)), result
