"""Training as pure functions: `state, metrics = step(state, batch, recipe, hyperparams)`, and a whole run of it.

A `Recipe` is static: what changes the program. `hyperparams` are numbers: what a sweep changes without compiling anew.
Randomness comes from `state.key` alone, so equal arguments give equal runs.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxmlp import _check, _compile, _weights
from jaxmlp._averaging import point
from jaxmlp._compile import trace_count as trace_count
from jaxmlp._dry_run import check_optimizer, loose, ready, update
from jaxmlp._evaluating import evaluate as evaluate
from jaxmlp._evaluating import evaluated, observe
from jaxmlp._preflight import check_data, check_once, entered, unpack, warn_of_not_finite
from jaxmlp._requests import Moment, examples
from jaxmlp._state import State as State
from jaxmlp._state import empty_mean as empty_mean
from jaxmlp._state import form_of_start, settled
from jaxmlp._state import where as where
from jaxmlp._structure import check_like
from jaxmlp._varying import vary_as
from jaxmlp._verbs import verb
from jaxmlp.data import Order, Rows, epoch_order, pick, steps_per_epoch, take
from jaxmlp.metrics import Mean, average_near
from jaxmlp.optimizers import ClippedCosineAdamW as ClippedCosineAdamW
from jaxmlp.optimizers import CosineAdamW as CosineAdamW
from jaxmlp.recipe import Bound
from jaxmlp.recipe import Recipe as Recipe
from jaxmlp.types import Data, History, Hyperparams, Params


@verb
def start(
    key: Array, recipe: Recipe | Bound, hyperparams: Hyperparams = None, *, params: Params | State | None = None
) -> State:
    """Return the state before the first step: of parameters that the model draws, or of those that are given.

    A `State` in their place comes back as it is, a copy: a run goes on from where it stands, by its own key.

    Raises:
      ValueError: for a key that is not one typed key; for numbers that no part takes or that two take; for an optimizer
        that cannot train these parameters; for given ones of another form than those that the model draws.
    """
    _check.typed_key(key)
    bound = recipe.bind(hyperparams)
    if _compile.outermost():
        check_optimizer(key, bound)
        if bound.placement.mesh is not None:
            return _start(key, bound, params=params)
    init_key, loop_key = jax.random.split(key)
    if params is not None:
        check_like("params", params, form_of_start(bound, key, params))
    # A copy: the caller keeps those that were given, whatever is donated later.
    begun: Any = bound.init(init_key) if params is None else jax.tree.map(jnp.copy, params)
    if isinstance(begun, State):
        return bound.placement.settled(begun)
    with loose():
        opt_state = bound.optimizer().init(begun)
    return bound.placement.settled(vary_as(State(begun, opt_state, jnp.zeros((), jnp.int32), loop_key)))


@verb
def step(
    state: State, batch: Data, recipe: Recipe | Bound, hyperparams: Hyperparams = None
) -> tuple[State, dict[str, Array]]:
    """Take one step down the gradient of the batch's mean loss, sum_i weight_i loss_i / sum_i weight_i.

    Args:
      state: of `start`, or of the step before.
      batch: (x, y) or (x, y, weight), leading axes (batch,).
      recipe: model, loss and optimizer.
      hyperparams: their numbers.

    Returns the next state, and {"loss": the mean loss before the step, "weight": the batch's weight}.

    Raises:
      ValueError: for shapes, dtypes and numbers that do not fit each other.
    """
    (x, y, weight), bound = unpack(batch), recipe.bind(hyperparams)
    x, y = bound.placement.lay((x, y))
    # On a mesh at once: each operation on its own would gather all weights before the first product.
    taken = _step_at_once if bound.placement.mesh is not None and _compile.outermost() else near_step
    if weight is None:
        return taken(state, (x, y, None), bound)
    weight, unit = _weights.near(weight, examples(x))
    state, metrics = taken(state, (x, y, bound.placement.lay(weight)), bound, unit)
    return state, metrics | {"weight": metrics["weight"] * unit.astype(metrics["weight"].dtype)}


def near_step(state: State, batch: Data, bound: Bound, unit: Any = 1) -> tuple[State, dict[str, Array]]:
    """Take a step on weights that are near one, which an epoch brings there once for all steps: unit times as large."""
    x, y, weight = bound.placement.batch(batch)
    _, step_key = jax.random.split(jax.random.clone(state.key))  # each step takes its part of the same key
    key = jax.random.fold_in(step_key, state.step)
    given = None if weight is None else weight * jnp.asarray(unit, weight.dtype)
    told = bound.told(state.params, (x, y, given), key, state.step, training=True)
    trained, whole = bound.split(state.params)
    trained = point(state.opt_state, trained)

    def objective(trained: Params) -> tuple[Array, dict[str, Array]]:
        params = bound.placement.gathered(whole(trained))
        losses, extras = bound.per_example(told.apply(params, x), y, told._replace(params=params))
        return average_near(losses, weight), {name: average_near(values, weight) for name, values in extras.items()}

    (loss, extras), grads = jax.value_and_grad(objective, has_aux=True)(trained)
    trained, opt_state = update(bound, grads, state.opt_state, trained, loss, lambda p: objective(p)[0])
    params, opt_state = settled(state, trained, opt_state, bound, extras, told)
    total = jnp.asarray(examples(x), loss.dtype) if weight is None else jnp.sum(weight, dtype=loss.dtype)
    after = bound.placement.settled(State(params, opt_state, state.step + 1, state.key))
    return after, {"loss": loss, "weight": total, **extras}


_step_at_once = _compile.jit(near_step)


@verb
def epoch(
    state: State, data: Data, recipe: Recipe | Bound, hyperparams: Hyperparams = None, *, rows: Rows | None = None
) -> tuple[State, dict[str, Array]]:
    """Take the steps of one epoch: each example once, in an order that state.key and the epoch's number give.

    With `rows`, the examples are those rows of the data: the run is that on `take(data, rows)`, without the copy.
    Returns the next state, and the metrics of `step` over all examples of the epoch.

    Raises:
      ValueError: for shapes, dtypes and numbers that do not fit each other, and for a batch larger than the data.
    """
    bound = recipe.bind(hyperparams)
    data = bound.placement.lay(entered(data))
    check_once(state.params, data, bound)
    # JAX knows a loop by the function inside, which each call makes anew: outermost it must be a program of its own.
    loops = bound.recipe.batch_size is not None and _compile.outermost()
    return (_epoch_at_once if loops else _epoch)(state, data, bound, rows)


def _epoch(state: State, data: Data, bound: Bound, rows: Rows | None) -> tuple[State, dict[str, Array]]:
    (x, y, weight), batch_size = unpack(data), bound.recipe.batch_size
    if batch_size is None:
        return step(state, data if rows is None else take(data, rows), bound)
    rows = Rows(None) if rows is None else rows
    n = len(jax.tree.leaves(x)[0]) if rows.index is None else len(rows.index)
    count = n if rows.count is None else rows.count
    order_key, _ = jax.random.split(jax.random.clone(state.key))
    number = state.step // steps_per_epoch(count, batch_size)
    weight, unit = (None, 1) if weight is None else _weights.scaled(jnp.asarray(weight))  # so that no sum overflows
    order = bound.placement.padded(epoch_order(order_key, number, n, batch_size, count=rows.count))

    def take_step(carry: tuple[State, Mean], order: Order) -> tuple[tuple[State, Mean], None]:
        state, mean = carry
        # Gathered inside the step: a shuffled copy of the data would cost its size again.
        places = order.rows if rows.index is None else pick(rows.index, order.rows)
        batch = bound.placement.batch(jax.tree.map(lambda a: pick(a, places), (x, y, weight)))
        present = order.weight if batch[2] is None else order.weight.astype(batch[2].dtype) * batch[2]
        after, metrics = near_step(state, (*batch[:2], present), bound, unit)
        if rows.count is not None:  # fewer rows may mean fewer steps: one without an example is none
            after = where(order.weight[0] > 0, after, state)
        return (after, mean.add(metrics)), None

    begun = vary_as((state, empty_mean(state, (x, y, weight), bound)), data, bound, rows)
    (state, mean), _ = jax.lax.scan(take_step, begun, order)
    return bound.placement.settled(state), mean.values | {"weight": mean.weight * jnp.asarray(unit, mean.weight.dtype)}


_epoch_at_once = _compile.jit(_epoch)


@verb
def fit(
    key: Array,
    data: Data,
    recipe: Recipe | Bound,
    hyperparams: Hyperparams = None,
    *,
    validation: Data | None = None,
    params: Params | State | None = None,
) -> tuple[State, History]:
    """Train from start to end in one compiled program; called as it is, return once the result is there.

    Composes with `jit`, with `vmap` over keys, hyperparams, data or weights, and with `grad`. Adam's square root has no
    derivative at zero: to differentiate through it, give its own number eps_root=1e-8, say.

    Args:
      key: one typed key; equal keys give equal runs.
      data: (x, y) or (x, y, weight): x (N, ...), y (N, ...), weight (N,) counts an example more or less.
      recipe: what is trained, by what, how long.
      hyperparams: a dict of numbers; each goes to the one of model, loss and optimizer whose signature names it.
      validation: data of the same form, evaluated after each epoch.
      params: to begin with, instead of those that the model draws; or a whole `State` to go on from, by its own key.

    Returns:
      The last state, and the history, arrays of shape (epochs,): "loss", the mean over the epoch's steps; with
      validation "validation_loss" and "validation_<metric>", else "<metric>" on the training data. A `RuntimeWarning`
      says where a loss of it or a parameter is NaN or infinite.

    Raises:
      ValueError: for data that is empty, not finite or does not fit; labels outside the classes; numbers that
        nobody takes; a batch larger than the data; a key that is not one typed key.

    >>> from jaxmlp import MLP, losses
    >>> import optax
    >>> x = jnp.linspace(-1, 1, 32)[:, None]
    >>> recipe = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=100, batch_size=8)
    >>> state, history = fit(jax.random.key(0), (x, 2 * x + 1), recipe, {"learning_rate": 0.1})
    >>> state.params[0].w.round(3), state.params[0].b.round(3), history["loss"].shape
    (Array([[2.]], dtype=float32), Array([1.], dtype=float32), (100,))
    """
    _check.typed_key(key)
    bound = recipe.bind(hyperparams)
    data = check_data("data", key, data, bound, measured=validation is None)
    if validation is not None:
        validation = check_data("validation", key, validation, bound, measured=True)
    data, validation = bound.placement.lay((data, validation))
    bound = ready(key, bound, len(jax.tree.leaves(data[0])[0]))
    # Two programs, of which the first only draws: it compiles in a third of the time. The state is not copied.
    begun = _start(key, bound) if params is None else _start(key, bound, params=params)
    state, history = _run(begun, data, bound, validation)
    warn_of_not_finite(state.params, history)
    return state, history


_start = _compile.jit(quick=True)(start)


@_compile.jit(donate_argnums=0)
def _run(state: State, data: Data, bound: Bound, validation: Data | None) -> tuple[State, History]:
    _compile.count_trace()

    def one_epoch(state: State, _: None) -> tuple[State, dict[str, Array]]:
        return observed_epoch(state, data, bound, validation)

    state = vary_as(state, data, bound, validation)  # inside a caller's `shard_map` each device trains its own
    state, history = jax.lax.scan(one_epoch, state, length=bound.recipe.epochs)
    return bound.placement.settled(state), History(history)


def observed_epoch(
    state: State, data: Data, bound: Bound, validation: Data | None, rows: Rows | None = None
) -> tuple[State, dict[str, Array]]:
    """Return the state after an epoch, and its line of the history."""
    state, metrics = epoch(state, data, bound, rows=rows)
    means = {name: value for name, value in metrics.items() if name != "weight"}
    if validation is None and bound.recipe.metrics:
        seen = data if rows is None else take(data, rows)
        return state, evaluated(state.params, seen, bound, Moment(state.key, state.step)) | means
    return state, observe(state, means, validation, bound)
