"""A loss, metrics and `after` are given what they name, in every way to train, and as a loop by hand would give it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, data, loop, losses, metrics, population
from jaxmlp._requests import DRAWS, asked

KEY = jax.random.key(0)
X = np.linspace(-1, 1, 50, dtype="f")[:, None]
Y = np.sin(3 * X)
MODEL = MLP((1, 8, 1), "tanh", dropout=True)
NUMBERS = {"learning_rate": 0.05, "beta": 0.5, "dropout_rate": 0.1}


def loss(outputs, targets, *, params, x, apply, key, weight, step, beta=1.0):
    """Ask for everything: a penalty, a slope in x, a draw, the padding, the steps done."""
    fit = losses.squared_error(outputs, targets)
    size = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
    slope = jax.vmap(jax.grad(lambda point: apply(params, point[None])[0, 0]))(x)[:, 0]
    noise = jax.random.normal(key, fit.shape)
    ramp = jnp.minimum(1.0, jnp.asarray(step, jnp.float32) / 4)
    total = fit + ramp * beta * 0.01 * jnp.broadcast_to(size, fit.shape) + 1e-3 * noise * jnp.square(slope)
    return total, {"slope": jnp.square(slope), "noise": noise, "counts": weight, "ramp": jnp.full(fit.shape, ramp)}


RECIPE = Recipe(MODEL, loss, optax.adam, epochs=3, batch_size=20)
EXTRAS = ("slope", "noise", "counts", "ramp")


def by_hand(recipe, numbers, key=KEY, x=X, y=Y):
    """Return parameters and the epochs' means, from a loop that uses nothing of `training`."""
    init_key, loop_key = jax.random.split(key)
    order_key, step_key = jax.random.split(loop_key)
    params = recipe.model.init(init_key)
    optimizer = optax.adam(numbers["learning_rate"])
    state, step, lines = optimizer.init(params), 0, []
    for epoch in range(recipe.epochs):
        order = data.epoch_order(order_key, epoch, len(x), recipe.batch_size)
        total, means = 0.0, {}
        for rows, weight in zip(order.rows, order.weight, strict=True):
            key = jax.random.fold_in(step_key, step)
            bx, by = jnp.asarray(x)[rows], jnp.asarray(y)[rows]

            def apply(params, x, key=key):
                return recipe.model.apply(params, x, key=key, dropout_rate=numbers["dropout_rate"])

            def objective(params, apply=apply, bx=bx, by=by, weight=weight, key=key, step=step):
                told = {"params": params, "x": bx, "apply": apply, "weight": weight, "step": step}
                told["key"] = jax.random.fold_in(key, DRAWS)
                values, extras = recipe.loss(apply(params, bx), by, **told, beta=numbers["beta"])
                share = weight / weight.sum()
                return (share * values).sum(), {name: (share * each).sum() for name, each in extras.items()}

            (value, extras), grads = jax.value_and_grad(objective, has_aux=True)(params)
            updates, state = optimizer.update(grads, state, params)
            params, step, count = optax.apply_updates(params, updates), step + 1, float(weight.sum())
            for name, found in {"loss": value, **extras}.items():
                means[name] = means.get(name, 0.0) + float(found) * count
            total += count
        lines.append({name: found / total for name, found in means.items()})
    return params, {name: np.array([line[name] for line in lines]) for name in lines[0]}


def close(one, other, rtol=2e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=2e-5), one, other)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_is_that_of_a_loop_by_hand():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # which Optax needs
        params, means = by_hand(RECIPE, NUMBERS)
    state, history = jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS)
    close(state.params, params)
    close({name: history[name] for name in ("loss", *EXTRAS)}, means, rtol=2e-3)
    assert history["counts"][0] == pytest.approx(1) and history["ramp"].tolist() == sorted(history["ramp"].tolist())


def test_evaluation_draws_with_a_key_of_the_run_and_is_the_same_each_time():
    state, history = jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS, validation=(X, Y))
    assert set(history) == {"loss", "validation_loss", *EXTRAS, *(f"validation_{name}" for name in EXTRAS)}
    noise = np.asarray(history["validation_noise"])
    assert (noise == noise[0]).all() and (np.asarray(history["noise"]) != noise[0]).all()
    found = jaxmlp.evaluate(state.params, (X, Y), RECIPE, NUMBERS, key=state.key, step=state.step)
    assert list(found) == ["loss", *sorted(EXTRAS)]
    close(
        {f"validation_{name}": value for name, value in found.items()},
        {name: values[-1] for name, values in history.items() if name.startswith("validation_")},
    )
    with pytest.raises(ValueError, match="step must be given: the loss or a metric asks for it; pass step=state.step"):
        jaxmlp.evaluate(state.params, (X, Y), RECIPE, NUMBERS)


def test_a_member_is_its_solo_run_and_the_loop_both(tmp_path):
    keys, swept = jax.random.split(KEY, 3), NUMBERS | {"beta": np.array([0.1, 0.5, 2.0], "f")}
    states, history = population.fit(keys, (X, Y), RECIPE, swept, validation=(X, Y), plan=one_wide(keys))
    for i in (0, 2):
        alone = jaxmlp.fit(keys[i], (X, Y), RECIPE, NUMBERS | {"beta": swept["beta"][i]}, validation=(X, Y))
        same([leaf[i] for leaf in jax.tree.leaves(states.params)], jax.tree.leaves(alone[0].params))
        same({name: history[name][i] for name in alone[1]}, dict(alone[1]))
    options = {"validation": (X, Y), "progress": False, "plan": one_wide(keys)}
    looped = loop.train(keys, (X, Y), RECIPE, swept, directory=tmp_path, every=1, **options)
    same((states.params, dict(history)), (looped[0].params, dict(looped[1])))


def one_wide(keys):
    return population.plan(keys, (X, Y), RECIPE, NUMBERS, width=1)


class Stop(Exception):
    pass


def stop_at(step):
    def stop(state, history):
        if state.step >= step:
            raise Stop

    return stop


def batches():
    return [(X[i : i + 20], Y[i : i + 20]) for i in range(0, 50, 20)]


@pytest.mark.parametrize("source", [lambda: (X, Y), batches], ids=["a table", "a stream"])
def test_a_run_that_is_killed_ends_with_the_bits_of_the_straight_one(source, tmp_path):
    recipe = RECIPE if isinstance(source(), tuple) else dataclasses.replace(RECIPE, batch_size=None)
    recipe = dataclasses.replace(recipe, after=averaged)
    options = {"validation": (X, Y), "progress": False, "every": 1}
    numbers = NUMBERS | {"decay": 0.5}
    straight = loop.train(KEY, source(), recipe, numbers, **options)
    with pytest.raises(Stop):
        loop.train(KEY, source(), recipe, numbers, directory=tmp_path, callbacks=[stop_at(4)], **options)
    resumed = loop.train(KEY, source(), recipe, numbers, directory=tmp_path, **options)
    same((straight[0].params, dict(straight[1])), (resumed[0].params, dict(resumed[1])))


def test_what_is_named_is_watched_and_chosen_by():
    keys, rates = jax.random.split(KEY, 3), NUMBERS | {"learning_rate": np.array([0.0, 0.01, 0.05], "f")}
    _, history = population.fit(keys, (X, Y), RECIPE, rates, stop=population.Target("slope", at_least=1e-6))
    assert (history.epochs == 1).all()
    recipe = dataclasses.replace(RECIPE, epochs=4)
    states, history = population.fit(keys, (X, Y), recipe, rates, stop=population.Halving(3, by="slope", largest=True))
    i = int(population.ranking(history, by="slope", largest=True)[0])
    assert history["slope"][i, -1] == np.nanmax(np.asarray(history["slope"])[:, -1])
    with pytest.raises(ValueError, match="does not tell which way is better"):
        population.best(states, history, by="slope")


def averaged(params, previous, told, *, step, decay=0.9):
    """Go only a part of the way, from the second step on."""
    mixed = jax.tree.map(lambda new, old: decay * old + (1 - decay) * new, params, previous)
    return jax.tree.map(partial(jnp.where, step > 0), mixed, params)


def test_after_follows_each_update():
    plain = dataclasses.replace(RECIPE, loss=losses.squared_error, model=MLP((1, 8, 1)), batch_size=None)
    numbers = {"learning_rate": 0.05}
    state = jaxmlp.start(KEY, plain, numbers)
    recipe = dataclasses.replace(plain, after=averaged)
    found, expected = state, state
    for number in range(3):
        found, _ = jaxmlp.step(found, (X, Y), recipe, numbers | {"decay": 0.25})
        updated, _ = jaxmlp.step(expected, (X, Y), plain, numbers)
        mixed = jax.tree.map(lambda new, old: 0.25 * old + 0.75 * new, updated.params, expected.params)
        expected = updated._replace(params=mixed if number else updated.params)
    close(found.params, expected.params)


def test_after_is_told_the_means_of_the_extras():
    def scaled(outputs, targets):
        return losses.squared_error(outputs, targets), {"twos": jnp.full(len(targets), 2.0)}

    def shrink(params, previous, told):
        return jax.tree.map(lambda leaf: leaf * 0 + told["twos"].astype(leaf.dtype), params)

    recipe = Recipe(MLP((1, 1)), scaled, optax.sgd, epochs=1, batch_size=20, after=shrink)
    state, _ = jaxmlp.fit(KEY, (X, Y), recipe, {"learning_rate": 0.1})
    np.testing.assert_allclose(state.params[0].w, [[2.0]], rtol=1e-6)


def test_the_padding_of_a_short_batch_can_be_left_out():
    """Of 128 rows in batches of 100, the second has 72 copies of a row at weight zero."""

    def copies(outputs, targets, *, x, weight):
        alike = (jnp.abs(x - x.T) < 1e-6) & (weight[None, :] > 0)
        return jnp.sum(alike, axis=1).astype(jnp.float32) * 1.0

    x = np.linspace(-1, 1, 128, dtype="f")[:, None]
    recipe = Recipe(MLP((1, 1)), copies, optax.sgd, epochs=2, batch_size=100)
    with jax.numpy_rank_promotion("allow"):
        _, history = jaxmlp.fit(KEY, (x, x), recipe, {"learning_rate": 0.0})
    np.testing.assert_allclose(history["loss"], 1.0, rtol=1e-5)


def test_the_weight_that_is_asked_for_is_as_it_was_given():
    given = np.array([0.0, 3.0e30, 1e30, 2e30] * 5, "f")

    def weighed(outputs, targets, *, weight):
        return losses.squared_error(outputs, targets), {"weights": weight}

    recipe = Recipe(MLP((1, 1)), weighed, optax.sgd, epochs=1, batch_size=10)
    _, history = jaxmlp.fit(KEY, (X[:20], Y[:20], given), recipe, {"learning_rate": 0.0})
    np.testing.assert_allclose(history["weights"], (given.astype(float) ** 2).sum() / given.sum(dtype=float), rtol=1e-5)


def test_metrics_ask_as_losses_do():
    def largest_slope(outputs, targets, *, params, x, apply, weight):
        slopes = jax.vmap(jax.grad(lambda point: apply(params, point[None])[0, 0]))(x)
        return jnp.max(jnp.abs(slopes[:, 0]) * weight)

    recipe = Recipe(MLP((1, 8, 1)), losses.squared_error, optax.adam, epochs=2, metrics=(largest_slope, metrics.rmse))
    state, history = jaxmlp.fit(KEY, (X, Y), recipe, {"learning_rate": 0.05}, validation=(X, Y))
    values = jax.vmap(jax.grad(lambda point: recipe.model.apply(state.params, point[None])[0, 0]))(jnp.asarray(X))
    assert history["validation_largest_slope"][-1] == pytest.approx(float(jnp.abs(values).max()), rel=1e-5)


def test_a_request_that_a_partial_gives_is_none():
    assert asked(partial(loss, step=3, key=None)) == ("params", "x", "apply", "weight")
    assert asked(losses.squared_error) == () and asked(max) == ()


def returns(value):
    return lambda outputs, targets: value


BAD = {
    "a name that is given": (
        loss,
        {"weight": 2.0},
        r"hyperparams\['weight'\] .* taken by nobody; a function that names it",
    ),
    "a mean": (
        returns(jnp.zeros(())),
        {},
        r"loss must return one value an example, shape \(20,\); got float32 of shape",
    ),
    "no dict": (returns((jnp.zeros(20), [1])), {}, r"loss must return values or \(values, {name: values}\); got list"),
    "a number beside": (
        *(returns((jnp.zeros(20), {"kl": jnp.zeros(())})), {}),
        r"kl of the loss must have one value an example, shape \(20,\); got float32 of shape \(\)",
    ),
    "a column of the history": (
        *(returns((jnp.zeros(20), {"loss": jnp.zeros(20)})), {}),
        "extras of the loss must not be called as another column of the history; got 'loss'",
    ),
    "a column of validation": (
        *(returns((jnp.zeros(20), {"validation_kl": jnp.zeros(20)})), {}),
        "extras of the loss must not be called as another column",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_loss_must_not_do_is_said_before_the_run(name):
    function, numbers, words = BAD[name]
    recipe = Recipe(MLP((1, 1)), function, optax.sgd, epochs=1)
    with pytest.raises(ValueError, match=words):
        jaxmlp.fit(KEY, (X[:20], Y[:20]), recipe, {"learning_rate": 0.1, **numbers})


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (lambda params, previous, told: params[0], "must have the leaves"),
        (lambda params, previous, told: jax.tree.map(lambda a: a[0], params), "must have float32 of shape"),
        (lambda params, previous, told: jax.tree.map(lambda a: a.astype("f2"), params), "must have float32 of shape"),
    ],
)
def test_after_keeps_the_form_of_the_parameters(after, words):
    recipe = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=1, after=after)
    with pytest.raises(ValueError, match=f"what after, <lambda>, returns {words}"):
        jaxmlp.fit(KEY, (X, Y), recipe, {"learning_rate": 0.1})
    with pytest.raises(ValueError, match=r"after must take \(params, previous, told\); got"):
        dataclasses.replace(recipe, after=lambda params: params)


def test_numbers_of_after_are_routed_and_named_where_they_are_missing():
    def clipped(params, previous, told, *, most):
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -most, most), params)

    recipe = Recipe(MLP((1, 8, 1)), losses.squared_error, optax.adam, epochs=2, after=clipped)
    with pytest.raises(ValueError, match="after clipped needs most: pass hyperparams={'most': ...}"):
        jaxmlp.fit(KEY, (X, Y), recipe, {"learning_rate": 0.1})
    swept = {"learning_rate": 0.1, "most": np.array([0.1, 0.2], "f")}
    states, _ = population.fit(jax.random.split(KEY), (X, Y), recipe, swept)
    largest = jnp.max(jnp.abs(states.params[0].w), axis=(1, 2))
    np.testing.assert_allclose(largest, [0.1, 0.2], rtol=1e-6)


# Outputs and targets are any trees; targets may be none.


def reconstruction(outputs, targets, *, x):
    assert targets is None
    return losses.squared_error(outputs, x)


TABLE = np.linspace(-1, 1, 48, dtype="f").reshape(24, 2)
CODER = Recipe(MLP((2, 1, 2)), reconstruction, optax.adam, epochs=2, batch_size=10)
RATE = {"learning_rate": 0.01}


@pytest.mark.parametrize("given", [(TABLE,), (TABLE, None), (TABLE, None, np.ones(24, "f"))])
def test_a_run_without_targets(given, tmp_path):
    with_targets = Recipe(CODER.model, losses.squared_error, optax.adam, epochs=2, batch_size=10)
    expected = jaxmlp.fit(KEY, (TABLE, TABLE), with_targets, RATE, validation=(TABLE, TABLE))
    state, history = jaxmlp.fit(KEY, given, CODER, RATE, validation=given)
    close((state.params, dict(history)), (expected[0].params, dict(expected[1])))
    assert jaxmlp.evaluate(state.params, given, CODER, RATE)["loss"] == pytest.approx(
        float(history["validation_loss"][-1])
    )
    looped = loop.train(KEY, given, CODER, RATE, validation=given, directory=tmp_path, progress=False)
    same(dict(looped[1]), dict(history))
    longer = loop.resume(tmp_path, given, CODER, validation=given, epochs=3, progress=False)
    assert longer[1]["loss"].shape == (3,)


def test_members_without_targets_share_a_table_or_have_their_own():
    keys = jax.random.split(KEY, 3)
    expected = population.fit(keys, (TABLE, None), CODER, RATE)[1]["loss"]
    own = np.stack([TABLE] * 3)
    for given in ((TABLE,), population.shared((TABLE,)), population.each(own, None), population.each((own,))):
        np.testing.assert_allclose(population.fit(keys, given, CODER, RATE)[1]["loss"], expected, rtol=1e-5)


def test_a_stream_without_targets():
    recipe = dataclasses.replace(CODER, batch_size=None)
    one, two = ([(TABLE[i : i + 12], *rest) for i in (0, 12)] for rest in ((), (None,)))
    same(*(dict(loop.train(KEY, given, recipe, RATE, progress=False)[1]) for given in (one, two)))


class Heads:
    """Two nets on one input, by name."""

    def init(self, key):
        keys = jax.random.split(key)
        return {"image": MLP((2, 3)).init(keys[0]), "text": MLP((2, 1)).init(keys[1])}

    def apply(self, params, x):
        return {
            "image": MLP((2, 3)).apply(params["image"], x["table"]),
            "text": MLP((2, 1)).apply(params["text"], x["table"]),
        }


def of_heads(outputs, targets, *, image=1.0, text=1.0):
    parts = {name: losses.squared_error(outputs[name], targets[name]) for name in ("image", "text")}
    return image * parts["image"] + text * parts["text"], {f"{name}_loss": part for name, part in parts.items()}


def test_heads_by_name_train_sweep_and_resume(tmp_path):
    recipe = Recipe(Heads(), of_heads, optax.sgd, epochs=3, batch_size=10)
    given = {"table": TABLE}, {"image": np.ones((24, 3), "f"), "text": -np.ones((24, 1), "f")}
    options = {"validation": given, "progress": False, "every": 1}
    straight = loop.train(KEY, given, recipe, RATE, **options)
    same(dict(jaxmlp.fit(KEY, given, recipe, RATE, validation=given)[1]), dict(straight[1]))
    total = np.asarray(straight[1]["image_loss"]) + np.asarray(straight[1]["text_loss"])
    np.testing.assert_allclose(total, straight[1]["loss"], rtol=1e-5)
    with pytest.raises(Stop):
        loop.train(KEY, given, recipe, RATE, directory=tmp_path, callbacks=[stop_at(4)], **options)
    same(dict(loop.train(KEY, given, recipe, RATE, directory=tmp_path, **options)[1]), dict(straight[1]))
    keys, swept = jax.random.split(KEY, 2), RATE | {"text": np.array([0.0, 1.0], "f")}
    states, history = population.fit(keys, given, recipe, swept)
    untrained = jax.vmap(recipe.model.init)(jax.vmap(lambda key: jax.random.split(key)[0])(keys))
    same(states.params["text"][0].w[0], untrained["text"][0].w[0])  # of a head whose loss counts nothing
    assert (np.asarray(states.params["text"][0].w[1]) != np.asarray(untrained["text"][0].w[1])).any()
