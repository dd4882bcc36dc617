"""An average of the iterates is what is validated, returned and saved: as a loop by hand with Optax makes it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population
from jaxmlp.optimizers import Averaged, CosineAdamW, PerLayer, schedule_length

KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), 3)
X = np.random.default_rng(0).normal(size=(24, 3)).astype("f")
Y = np.sin(X[:, :2])
NET = MLP((3, 4, 2), "tanh")
RECIPE = Recipe(NET, losses.squared_error, Averaged(optax.adam), epochs=8)  # an epoch is one step
NUMBERS = {"learning_rate": 0.05, "average_decay": 0.7}
FREE = dataclasses.replace(RECIPE, optimizer=optax.contrib.schedule_free_adamw)
RATE = {"learning_rate": 0.05}
close = partial(jax.tree.map, partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def words(state):
    """Return a state whose key is integers, so that NumPy compares it."""
    return state._replace(key=jax.random.key_data(state.key))


def objective(params):
    return jnp.mean(losses.squared_error(NET.apply(params, X), Y))


def by_hand(optimizer, steps, params, project=lambda params: params):
    """Return the iterates after each step, the losses before it, and the last state, of a loop with Optax alone."""
    state, iterates, seen = optimizer.init(params), [], []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for _ in range(steps):
            value, grads = jax.value_and_grad(objective)(params)
            updates, state = optimizer.update(grads, state, params)
            params = project(optax.apply_updates(params, updates))
            iterates.append(params)
            seen.append(float(value))
    return iterates, seen, state


def drawn():
    return NET.init(jax.random.split(KEY)[0])


@pytest.mark.parametrize(("decay", "start"), [(0.7, 0), (1.0, 5), (0.0, 0)])
def test_the_average_is_that_of_a_loop_by_hand(decay, start):
    numbers = RATE | {"average_decay": decay, "average_start": start}
    state, history = jaxmlp.fit(KEY, (X, Y), RECIPE, numbers, validation=(X, Y))
    iterates, seen, _ = by_hand(optax.adam(0.05), 8, drawn())
    weights = [decay ** (len(iterates) - 1 - i) for i in range(start, len(iterates))]
    average = jax.tree.map(lambda *p: np.average(p, axis=0, weights=weights), *iterates[start:])
    close(state.params, average)
    close(state.opt_state.params, iterates[-1])
    np.testing.assert_allclose(history["loss"], seen, rtol=1e-4)  # where the gradient was taken
    np.testing.assert_allclose(history["validation_loss"][-1], float(objective(average)), rtol=1e-4)
    if start == 0 and decay < 1:
        ema = optax.ema(decay, debias=True)
        kept = ema.init(iterates[0])
        with jax.numpy_dtype_promotion("standard"):
            for iterate in iterates:
                found, kept = ema.update(iterate, kept)
        close(state.params, found)


@pytest.mark.parametrize(
    "factory",
    [
        optax.contrib.schedule_free_adamw,
        lambda learning_rate: optax.chain(
            optax.clip_by_global_norm(0.5), optax.contrib.schedule_free_sgd(learning_rate, warmup_steps=3)
        ),
        lambda learning_rate: optax.MultiSteps(optax.contrib.schedule_free_adamw(learning_rate), 2),
    ],
)
def test_of_schedule_free_the_parameters_are_x_and_not_y(factory):
    recipe = dataclasses.replace(RECIPE, optimizer=factory)
    state, history = jaxmlp.fit(KEY, (X, Y), recipe, RATE, validation=(X, Y))
    made = factory(0.05)
    made = made.gradient_transformation() if isinstance(made, optax.MultiSteps) else made
    iterates, seen, last = by_hand(made, 8, drawn())
    free = jax.tree.leaves(last, is_leaf=lambda node: hasattr(node, "z"))
    free = next(node for node in free if hasattr(node, "z"))
    with jax.numpy_dtype_promotion("standard"):
        x = optax.contrib.schedule_free_eval_params(free, iterates[-1])
    close(state.opt_state.params, iterates[-1])
    close(state.params, x)
    np.testing.assert_allclose(history["loss"], seen, rtol=1e-4)
    np.testing.assert_allclose(history["validation_loss"][-1], float(objective(x)), rtol=1e-4)
    assert abs(float(objective(x)) - float(objective(iterates[-1]))) > 1e-4


@pytest.mark.parametrize("recipe", [RECIPE, FREE])
def test_after_acts_on_the_iterate_before_it_is_averaged(recipe):
    """A mask holds for an average of what is masked."""

    def masked(params, previous, told):
        assert jax.tree.structure(params) == jax.tree.structure(previous)
        return (params[0]._replace(w=params[0].w.at[0].set(0.0)), *params[1:])

    numbers = NUMBERS if recipe is RECIPE else RATE
    given = masked(drawn(), drawn(), {})
    run = partial(jaxmlp.fit, KEY, (X, Y), params=given)
    state, _ = run(dataclasses.replace(recipe, after=masked), numbers)
    assert not state.params[0].w[0].any() and state.params[0].w[1:].all()
    assert not state.opt_state.params[0].w[0].any()
    plain, _ = run(recipe, numbers)
    assert plain.params[0].w[0].all()
    idle, _ = run(dataclasses.replace(recipe, after=lambda params, previous, told: params), numbers)
    close(words(idle), words(plain))
    if recipe is RECIPE:
        iterates, _, _ = by_hand(optax.adam(0.05), 8, given, lambda params: masked(params, params, {}))
        weights = [0.7 ** (7 - i) for i in range(8)]
        close(state.params, jax.tree.map(lambda *p: np.average(p, axis=0, weights=weights), *iterates))


class Stop(Exception):
    pass


def stop(state, history):
    if state.step >= 5:
        raise Stop


@pytest.mark.parametrize(("recipe", "numbers"), [(RECIPE, NUMBERS), (FREE, RATE)])
def test_a_member_a_loop_and_a_resumed_run_are_the_solo_run(recipe, numbers, tmp_path):
    data = {"validation": (X, Y)}
    straight = jaxmlp.fit(KEYS[1], (X, Y), recipe, numbers, **data)
    plan = population.plan(KEYS, (X, Y), recipe, numbers, width=1)
    states, history = population.fit(KEYS, (X, Y), recipe, numbers, plan=plan, **data)
    same([leaf[1] for leaf in jax.tree.leaves(words(states))], jax.tree.leaves(words(straight[0])))
    same(history["validation_loss"][1], straight[1]["validation_loss"])
    options = {"progress": False, "every": 1, "directory": tmp_path, **data}
    with pytest.raises(Stop):
        loop.train(KEYS[1], (X, Y), recipe, numbers, callbacks=[stop], **options)
    found = loop.resume(tmp_path, (X, Y), recipe, progress=False, **data)
    same(words(found[0]), words(straight[0]))
    same(dict(found[1]), dict(straight[1]))


def test_a_state_goes_on_and_the_best_is_an_average():
    longer = jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS)
    half = dataclasses.replace(RECIPE, epochs=4)
    first, _ = jaxmlp.fit(KEY, (X, Y), half, NUMBERS)
    second, _ = jaxmlp.fit(KEY, (X, Y), half, NUMBERS, params=first)
    same(words(second), words(longer[0]))
    wild = dataclasses.replace(RECIPE, epochs=12)
    states, history = population.fit(
        KEYS, (X, Y), wild, NUMBERS | {"learning_rate": 0.8}, validation=(X, Y), patience=3
    )
    for i, best in enumerate(history.best_epoch):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], states.params)
        expected = history["validation_loss"][i, int(best)]
        np.testing.assert_allclose(jaxmlp.evaluate(mine, (X, Y), RECIPE, NUMBERS)["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(("recipe", "numbers"), [(RECIPE, NUMBERS), (FREE, RATE)])
def test_a_run_step_by_step_is_that_of_fit(recipe, numbers):
    state = jaxmlp.start(KEY, recipe, numbers)
    for _ in range(8):
        state, _ = jaxmlp.step(state, (X, Y), recipe, numbers)
    close(words(state), words(jaxmlp.fit(KEY, (X, Y), recipe, numbers)[0]))
    plain = dataclasses.replace(RECIPE, optimizer=optax.adam)
    with pytest.raises(ValueError, match="state.opt_state must be as start makes it for this recipe; it lacks"):
        jaxmlp.step(jaxmlp.start(KEY, plain, RATE), (X, Y), recipe, numbers)


def test_a_decay_is_swept_in_one_program():
    before = jaxmlp.training.trace_count()
    decays = np.array([0.0, 0.5, 1.0], "f")
    states, _ = population.fit(KEYS, (X, Y), RECIPE, NUMBERS | {"average_decay": decays})
    assert jaxmlp.training.trace_count() == before + 1
    alone, _ = jaxmlp.fit(KEYS[2], (X, Y), RECIPE, NUMBERS | {"average_decay": 1.0})
    close([leaf[2] for leaf in jax.tree.leaves(states.params)], jax.tree.leaves(alone.params))


@pytest.mark.parametrize(("recipe", "numbers"), [(RECIPE, NUMBERS), (FREE, RATE)])
def test_what_is_frozen_is_neither_averaged_nor_kept_twice(recipe, numbers):
    frozen = dataclasses.replace(recipe, frozen=lambda path: path[0] == 0)
    state, _ = jaxmlp.fit(KEY, (X, Y), frozen, numbers)
    same(state.params[0], drawn()[0])
    assert state.opt_state.params[0].w is None and (state.params[1].w != state.opt_state.params[1].w).any()

    def count(params, previous, told):  # a statistic that lies among the parameters
        return (params[0]._replace(b=previous[0].b + 1.0), params[1])

    state, _ = jaxmlp.fit(KEY, (X, Y), dataclasses.replace(frozen, after=count), numbers)
    same(state.params[0].b, drawn()[0].b + 8)


@pytest.mark.parametrize(
    ("factory", "numbers"),
    [
        (PerLayer(Averaged(optax.lamb)), NUMBERS),
        (lambda learning_rate: optax.contrib.schedule_free(optax.lamb(learning_rate, b1=0.0), learning_rate), RATE),
    ],
)
@pytest.mark.parametrize("after", [None, lambda params, previous, told: params])
def test_layers_in_a_stack_train_as_layers_apart(factory, numbers, after):
    found = []
    for scan in (False, True):
        net = MLP((3, 4, 4, 4, 2), "tanh", scan=scan)
        recipe = dataclasses.replace(RECIPE, model=net, optimizer=factory, after=after, epochs=3)
        state, _ = jaxmlp.fit(KEY, (X, Y), recipe, numbers)
        found.append((net.layers(state.params), net.layers(state.opt_state.params)))
    close(*found)


def test_a_line_search_and_a_schedule_of_the_run_are_averaged():
    state, history = jaxmlp.fit(
        KEY, (X, Y), dataclasses.replace(RECIPE, optimizer=Averaged(optax.lbfgs)), {"average_decay": 0.5}
    )
    assert history["loss"][-1] < history["loss"][0]
    factory = Averaged(CosineAdamW())
    assert schedule_length(factory) == "run" and schedule_length(Averaged(CosineAdamW(9))) == 9
    state, _ = jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, optimizer=factory), NUMBERS)
    iterates, _, _ = by_hand(CosineAdamW()(0.05, run_steps=8), 8, drawn())
    close(state.opt_state.params, iterates[-1])


def test_it_is_a_value_that_a_checkpoint_rebuilds(tmp_path):
    assert Averaged(optax.adam) == Averaged(optax.adam) and hash(Averaged(optax.adam)) == hash(Averaged(optax.adam))
    loop.train(KEY, (X, Y), RECIPE, NUMBERS, directory=tmp_path, progress=False)
    _, history = loop.resume(tmp_path, (X, Y), epochs=10, progress=False)
    np.testing.assert_allclose(
        history["loss"], jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, epochs=10), NUMBERS)[1]["loss"], rtol=1e-5
    )


def both(learning_rate):
    return Averaged(optax.contrib.schedule_free_adamw)(learning_rate, average_decay=0.9)


def chained(learning_rate):
    return optax.chain(optax.clip(1.0), Averaged(optax.adam)(learning_rate, average_decay=0.9))


def partly(learning_rate):
    return optax.masked(
        optax.contrib.schedule_free_adamw(learning_rate), lambda p: jax.tree.map(lambda a: a.ndim > 1, p)
    )


@pytest.mark.parametrize(
    ("part", "numbers", "told"),
    [
        ({"optimizer": both}, RATE, "an optimizer must keep one average; it keeps 2"),
        ({"optimizer": chained}, RATE, "Averaged must be outermost; got it within another transformation"),
        ({"optimizer": partly}, RATE, "schedule_free must see all that is trained; got it on a part"),
        ({"model": MLP((3, 2), param_dtype="bfloat16")}, NUMBERS, "must be float32 or wider .* dtype='bfloat16'"),
        ({}, RATE, "optimizer Averaged needs average_decay: pass hyperparams={'average_decay': ...}"),
        ({}, NUMBERS | {"average_decay": 1.1}, r"average_decay must be in \[0, 1\]; got 1.1"),
        ({}, NUMBERS | {"average_start": -1}, "average_start must be finite and not negative; got -1"),
    ],
)
def test_what_has_no_average_is_refused_at_the_door(part, numbers, told):
    recipe = dataclasses.replace(RECIPE, **part)
    for call in (jaxmlp.fit, partial(loop.train, progress=False)):
        with pytest.raises(ValueError, match=told):
            call(KEY, (X, Y), recipe, numbers)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (optax.adam(0.1), "factory must be one of numbers, as optax.lamb; got GradientTransformation"),
        (3, "factory must be one of numbers"),
        (optax.scale_by_adam, "optimizer must descend"),
        (Averaged(optax.adam), "factory must not name average_decay, a number of Averaged itself"),
    ],
)
def test_it_wraps_a_factory(factory, told):
    with pytest.raises(ValueError, match=told):
        Averaged(factory)
