"""Whether an optimizer sees a leaf as one thing: a norm of a layer's own, a product of matrices, a mean over an axis.

Such an optimizer takes a stack of layers for one layer. One that works element by element, or with a norm of all
parameters at once, does not, unless it chooses what to do with a leaf by its rank. Which it is stands in its program,
so any transformation is known, also the caller's own.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Literal

from jaxmlp.types import Params, PyTree

Leaves = frozenset[int]
Optimizer = optax.GradientTransformationExtraArgs
NONE: Leaves = frozenset()
# Operations whose result at a place depends on that place of their operands alone; of all others nothing is known.
ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh broadcast_in_dim cbrt ceil clamp clz complex conj "
    "convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expand_dims expm1 floor ge gt "
    "igamma igammac imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not "
    "optimization_barrier or polygamma population_count pow pvary real reduce_precision rem reshape round rsqrt "
    "select_and_gather_add select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square "
    "squeeze stop_gradient sub tan tanh xor".split()
)
KEEPING, LOOKING = ("scatter", "dynamic_update_slice"), ("gather", "dynamic_slice")  # into a memory of steps, and there
MOVING = frozenset("concatenate dynamic_slice slice split".split())  # by which leaves are laid side by side, and apart


class Of(NamedTuple):
    """On what a value depends, on leaves place by place and on leaves as wholes, and which operations make it."""

    places: Leaves = NONE
    wholes: Leaves = NONE
    made: int = 0  # a hash of the operations and of the numbers in them
    memory: bool = False  # has an axis more, of the steps that are remembered


class _Coupled(Exception):
    """A leaf meets a number that was made of a part of the leaves as wholes."""


def made(build: Callable[..., Optimizer], numbers: Mapping[str, Any], params: Params) -> PyTree | None:
    """Return for each leaf a hash of the operations that make its update, the same for one of another shape.

    None where an update depends on its leaf as a whole, but not on all leaves alike.

    Args:
      build: numbers by name -> the transformation.
      numbers: these, or their shapes; they are traced, so that the answer does not hang on their values.
      params: the parameters, or their shapes.

    >>> def seen(factory):
    ...     build = lambda: optax.with_extra_args_support(factory())
    ...     return made(build, {}, {"w": jnp.ones((2, 2)), "b": jnp.ones(2)})
    >>> each, mean = seen(optax.scale_by_sign), seen(optax.centralize)
    >>> each["w"] == each["b"], mean
    (True, None)
    """
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params)
    state = jax.eval_shape(lambda numbers, params: build(**numbers).init(params), dict(numbers), like)
    leaves, structure = jax.tree.flatten(like)
    count = len(leaves)

    def update(grads: PyTree, params: Params, numbers: dict[str, Any], state: PyTree) -> PyTree:
        optimizer = build(**numbers)
        return optimizer.update(grads, state, params, **stand_ins(optimizer.update, grads))

    program = jax.make_jaxpr(update)(like, like, dict(numbers), state)
    given = [Of(frozenset({i}), made=hash(which)) for which in ("gradient", "parameter") for i in range(count)]
    given += [Of(made=hash(("number", i))) for i in range(len(numbers))]
    given += [Of()] * (len(program.jaxpr.invars) - len(given))
    all_ = frozenset(range(max(2, count)))  # of a single leaf, its own norm and that of all cannot be told apart
    try:
        results = _through(program.jaxpr, given, all_)  # updates, and the state by which the next are made
    except _Coupled:
        return None
    if any(of.wholes and of.wholes != all_ for of in results):
        return None
    return jax.tree.unflatten(structure, [of.made for of in results[:count]])


def stand_ins(update: Callable[..., Any], grads: PyTree) -> dict[str, Any]:
    """Return what a step gives an update besides gradients, made of a paraboloid instead of the loss."""

    def paraboloid(params: Params) -> Any:
        return sum(jnp.sum(jnp.square(a)) for a in jax.tree.leaves(params))

    return extra_arguments(update, paraboloid(grads), grads, paraboloid)


def extra_arguments(
    update: Callable[..., Any], value: Any, grads: PyTree, objective: Callable[[Params], Any]
) -> dict[str, Any]:
    """Return what a step gives an update besides gradients, by the names that Optax has for it.

    Line searches and Polyak's step ask for the loss and for how to compute it anew, Hessians for the function, and
    sharpness-aware steps for its gradient. An update that lists its arguments gets those that it lists.
    """

    # A line search passes on to the function what it does not know itself, and refuses what that does not name.
    def value_fn(params: Params, *, obj_fn: object = None, grad_fn: object = None) -> Any:
        return objective(params)

    offered = {
        "value": value,
        "grad": grads,
        "value_fn": value_fn,
        "obj_fn": objective,
        "grad_fn": lambda params, *_: jax.grad(objective)(params),
    }
    named = inspect.signature(update).parameters
    if any(p.kind is p.VAR_KEYWORD for p in named.values()):
        return offered
    return {name: given for name, given in offered.items() if name in named}


def _through(jaxpr: Any, given: Sequence[Of], all_: Leaves) -> list[Of]:
    """Return on what the results of a program depend."""
    known: dict[Any, Of] = dict(zip(jaxpr.invars, given, strict=True))

    def of(var: Any) -> Of:
        return Of(made=hash(repr(var.val))) if isinstance(var, Literal) else known.get(var, Of())

    for eqn in jaxpr.eqns:
        operands, name = [of(var) for var in eqn.invars], eqn.primitive.name
        inner = _inner(eqn)
        if inner and name not in ("scan", "while"):
            found = [_through(one, operands[len(operands) - len(one.invars) :], all_) for one in inner]
            results = [functools.reduce(_joined, branches) for branches in zip(*found, strict=True)]
        else:
            results = [_result(name, operands, all_)] * len(eqn.outvars)
        known.update(zip(eqn.outvars, results, strict=True))
    return [of(var) for var in jaxpr.outvars]


def _inner(eqn: Any) -> list[Any]:
    """Return the programs that an operation runs: of a call its one, of a `cond` each of its branches."""
    values = [v for value in eqn.params.values() for v in (value if isinstance(value, tuple | list) else [value])]
    return [getattr(v, "jaxpr", v) for v in values if hasattr(getattr(v, "jaxpr", v), "eqns")][
        : None if eqn.primitive.name == "cond" else 1
    ]


def _result(name: str, operands: Sequence[Of], all_: Leaves) -> Of:
    joined = functools.reduce(_joined, operands, Of())
    first = operands[0] if operands else Of()
    kept = name in KEEPING and (first.memory or not first.places | first.wholes)  # a leaf becomes an entry of a memory
    looked = name in LOOKING and first.memory
    alone = name in ELEMENTWISE or kept or looked or name in MOVING and len(joined.places) > 1
    joined = joined._replace(memory=kept or joined.memory and not looked)
    if not alone and joined.places | joined.wholes:
        return Of(NONE, joined.places or joined.wholes, hash("whole"))
    if len(joined.places) > 1:  # leaves laid side by side
        return Of(joined.places, NONE, hash("leaves"), joined.memory)
    how = hash((name, *[one.made for one in operands]))
    if joined.places:
        for one in operands:
            if one.wholes and not one.places and one.wholes != all_:
                raise _Coupled
        return Of(joined.places, NONE, how, joined.memory)
    return Of(NONE, joined.wholes, hash("whole") if joined.wholes else how, joined.memory)


def _joined(a: Of, b: Of) -> Of:
    made = a.made if a.made == b.made else hash((a.made, b.made))
    return Of(a.places | b.places, a.wholes | b.wholes, made, a.memory or b.memory)
