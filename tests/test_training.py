"""A run is a pure function: the same however it is cut, mapped, weighted or compiled, and differentiable."""

import dataclasses
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, data, linear, losses, metrics, population, training
from jaxmlp._check import name_of
from jaxmlp.training import ClippedCosineAdamW, CosineAdamW

pytestmark = pytest.mark.bits
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).astype("f")
Y = np.sin(X[:, :1]) + 0.1 * X[:, 1:2]
RECIPE = Recipe(MLP((3, 8, 1), "tanh"), losses.squared_error, optax.adam, epochs=4, batch_size=16)
RATE = {"learning_rate": 1e-2}


def same(one, two):
    chex.assert_trees_all_equal(*(jax.tree.map(_bits, tree) for tree in (one, two)))


def close(one, two, rtol=1e-4):
    chex.assert_trees_all_close(*(jax.tree.map(_bits, tree) for tree in (one, two)), rtol=rtol, atol=1e-6)


def _bits(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def test_fit_is_start_and_its_epochs(key):
    """A straight run equals one that is stopped after every epoch, bit for bit."""
    state, history = jaxmlp.fit(key, (X, Y), RECIPE, RATE)
    by_epoch, epoch = jaxmlp.start(key, RECIPE, RATE), jax.jit(jaxmlp.epoch)
    losses_by_epoch = []
    for _ in range(RECIPE.epochs):
        by_epoch, record = epoch(by_epoch, (X, Y), RECIPE, RATE)
        losses_by_epoch.append(record["loss"])
    same(state, by_epoch)
    np.testing.assert_array_equal(history["loss"], losses_by_epoch)


def test_an_epoch_is_its_steps_over_its_order(key, loose):
    """By hand: the padded last batch counts its two true examples alone."""
    state = jaxmlp.start(key, RECIPE, RATE)
    after, record = jaxmlp.epoch(state, (X, Y), RECIPE, RATE)
    order = data.epoch_order(jax.random.split(state.key)[0], 0, len(X), 16)
    assert order.weight.sum(1).tolist() == [16, 16, 16, 2]
    params, optimizer, total = state.params, optax.adam(1e-2), 0.0
    opt_state = optimizer.init(params)
    for index, weight in zip(order.rows, order.weight, strict=True):
        rows = np.asarray(index)[np.asarray(weight) == 1]

        def mean_loss(params, rows=rows):
            return jnp.mean(jnp.square(RECIPE.model.apply(params, X[rows]) - Y[rows]).sum(-1))

        loss, grads = jax.value_and_grad(mean_loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params, total = optax.apply_updates(params, updates), total + float(loss) * len(rows)
    close(after.params, params)
    np.testing.assert_allclose(record["loss"], total / len(X), rtol=1e-5)
    assert after.step == 4 and record["weight"] == len(X)


def test_all_at_once_is_gradient_descent_on_the_mean(key):
    recipe = Recipe(MLP((3, 1)), losses.squared_error, optax.sgd, epochs=3)
    params = jaxmlp.start(key, recipe, {"learning_rate": 0.05}).params
    state, history = jaxmlp.fit(key, (X, Y), recipe, {"learning_rate": 0.05})
    for epoch in range(3):
        loss = np.mean((X @ params[0].w + params[0].b[None] - Y) ** 2)
        np.testing.assert_allclose(history["loss"][epoch], loss, rtol=1e-5)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, linear.gradients(params, X, Y))
    close(state.params, params)


def test_history_has_a_row_an_epoch(key):
    recipe = dataclasses.replace(RECIPE, metrics=(metrics.rmse, metrics.r2))
    _, history = jaxmlp.fit(key, (X, Y), recipe, RATE, validation=(X[:9], Y[:9]))
    assert set(history) == {"loss", "validation_loss", "validation_rmse", "validation_r2"}
    assert {value.shape for value in history.values()} == {(4,)}
    state, history = jaxmlp.fit(key, (X, Y), recipe, RATE)
    assert set(history) == {"loss", "rmse", "r2"}
    values = jaxmlp.evaluate(state.params, (X, Y), recipe, RATE)
    np.testing.assert_allclose(history["rmse"][-1], values["rmse"], rtol=1e-5)
    np.testing.assert_allclose(values["rmse"], np.sqrt(values["loss"]), rtol=1e-5)


def test_weights_are_repetition_and_zero_is_absence(key):
    recipe = dataclasses.replace(RECIPE, batch_size=None)
    counts = np.array([0, 1, 2, 3, 1] * 10)
    rows = np.repeat(np.arange(50), counts)
    weight = counts.astype("f")
    weighted = jaxmlp.fit(key, (X, Y, weight), recipe, RATE, validation=(X, Y, weight))
    repeated = jaxmlp.fit(key, (X[rows], Y[rows]), recipe, RATE, validation=(X[rows], Y[rows]))
    close(weighted[0].params, repeated[0].params)
    close(weighted[1], repeated[1])


def test_a_batch_without_weight_changes_no_parameter(key):
    recipe = dataclasses.replace(RECIPE, optimizer=optax.sgd)
    state = jaxmlp.start(key, recipe, RATE)
    after, record = jaxmlp.step(state, (X[:4], Y[:4], jnp.zeros(4)), recipe, RATE)
    same(after.params, state.params)
    assert record["loss"] == 0 and record["weight"] == 0


def test_ten_learning_rates_trace_once(key):
    before = training.trace_count()
    for rate in np.linspace(0.01, 0.02, 10):
        recipe = Recipe(MLP([3, 7, 1]), losses.squared_error, optax.adam, epochs=2, batch_size=10)
        jaxmlp.fit(key, (X, Y), recipe, {"learning_rate": float(rate)})
    assert training.trace_count() == before + 1
    wider = Recipe(MLP([3, 9, 1]), losses.squared_error, optax.adam, epochs=2, batch_size=10)
    jaxmlp.fit(key, (X, Y), wider, RATE)
    assert training.trace_count() == before + 2


def test_the_trace_under_jit_is_the_same_trace(key):
    recipe = dataclasses.replace(RECIPE, epochs=7)
    before = training.trace_count()
    inside = jax.jit(jaxmlp.fit)(key, (X, Y), recipe, RATE)
    alone = jaxmlp.fit(key, (X, Y), recipe, RATE)
    assert training.trace_count() == before + 1
    close(inside, alone)


@pytest.mark.parametrize("over", ["keys", "hyperparams", "data", "weights"])
def test_members_under_vmap_equal_their_solo_runs(key, over):
    keys = jax.random.split(key, 3)
    rates = jnp.array([0.001, 0.01, 0.05])
    ys = jnp.stack([Y, 2 * Y, -Y])
    weights = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2, (3, 50)), jnp.float32)
    arguments = {
        "keys": lambda i: (keys[i], (X, Y), RECIPE, RATE),
        "hyperparams": lambda i: (key, (X, Y), RECIPE, {"learning_rate": rates[i]}),
        "data": lambda i: (key, (X, ys[i]), RECIPE, RATE),
        "weights": lambda i: (key, (X, Y, weights[i]), RECIPE, RATE),
    }[over]
    together = jax.vmap(lambda i: jaxmlp.fit(*arguments(i)))(jnp.arange(3))
    for i in range(3):
        close(jax.tree.map(lambda a, i=i: a[i], together), jaxmlp.fit(*arguments(i)))


def test_the_sweep_of_the_readme(key):
    rates = jnp.array([0.001, 0.01])
    keys = jax.random.split(key, 2)
    states, histories = jax.vmap(jaxmlp.fit, (0, None, None, 0))(keys, (X, Y), RECIPE, {"learning_rate": rates})
    assert histories["loss"].shape == (2, 4) and states.params[0].w.shape == (2, 3, 8)


def test_the_derivative_in_the_learning_rate(x64, key):
    """d(final validation loss)/d(learning rate) through the whole run equals a finite difference."""
    recipe = dataclasses.replace(RECIPE, optimizer=optax.adamw)

    def final(rate):
        x, y = X.astype("d"), Y.astype("d")
        hyperparams = {"learning_rate": rate, "weight_decay": 0.01}
        return jaxmlp.fit(key, (x, y), recipe, hyperparams, validation=(x[:20], y[:20]))[1]["validation_loss"][-1]

    slope, eps = jax.grad(final)(0.02), 1e-5
    difference = (final(0.02 + eps) - final(0.02 - eps)) / (2 * eps)
    assert abs(float(difference)) > 1e-3
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A user's own model: one number times the sum of x, and a number of its own."""

    def init(self, key, *, first):
        return {"scale": jnp.asarray(first, jnp.float32)}

    def apply(self, params, x, *, shift):
        return params["scale"] * x["a"].sum(-1, keepdims=True) + shift


def test_a_users_own_model_is_trained_alike(key):
    inputs = {"a": X, "b": np.arange(50)}
    y = 3 * X.sum(-1, keepdims=True) + 0.5
    recipe = Recipe(Scaled(), losses.squared_error, optax.sgd, epochs=30, batch_size=10)
    hyperparams = {"learning_rate": 0.05, "first": 0.0, "shift": 0.5}
    state, history = jaxmlp.fit(key, (inputs, y), recipe, hyperparams, validation=(inputs, y))
    np.testing.assert_allclose(state.params["scale"], 3, rtol=1e-4)
    assert history["validation_loss"][-1] < 1e-6


def test_every_number_reaches_its_taker(key):
    """Each number changes the run, at one trace in all."""
    y = np.random.default_rng(2).integers(0, 3, 50)
    recipe = Recipe(MLP((3, 8, 3), dropout=True), losses.cross_entropy, optax.adamw, epochs=2, batch_size=25)
    base = {"learning_rate": 0.01, "weight_decay": 0.0, "dropout_rate": 0.0, "label_smoothing": 0.0, "init_scale": 1.0}
    before = training.trace_count()
    plain = jaxmlp.fit(key, (X, y), recipe, base)[0].params[0].w
    for name, value in {"weight_decay": 1.0, "dropout_rate": 0.5, "label_smoothing": 0.3, "init_scale": 0.5}.items():
        assert not jnp.allclose(plain, jaxmlp.fit(key, (X, y), recipe, base | {name: value})[0].params[0].w)
    assert training.trace_count() == before + 1


def test_quantile_levels_are_numbers(key):
    recipe = Recipe(MLP((1, 2)), losses.quantile, CosineAdamW(steps=500), epochs=500)
    y = np.linspace(-1, 1, 201, dtype="f")[:, None]
    hyperparams = {"learning_rate": 0.05, "level": jnp.array([0.1, 0.9])}
    state, _ = jaxmlp.fit(key, (np.zeros_like(y), y), recipe, hyperparams)
    np.testing.assert_allclose(state.params[0].b, [-0.8, 0.8], atol=0.02)


def test_dropout_is_off_in_evaluation(key):
    recipe = Recipe(MLP((3, 8, 1), dropout=True), losses.squared_error, optax.sgd, epochs=1)
    hyperparams = {"learning_rate": 0.0, "dropout_rate": 0.5}
    state, history = jaxmlp.fit(key, (X, Y), recipe, hyperparams, validation=(X, Y))
    loss = losses.squared_error(recipe.model.apply(state.params, X), Y).mean()
    np.testing.assert_allclose(history["validation_loss"], [loss], rtol=1e-5)
    assert abs(float(history["loss"][0]) - float(loss)) > 1e-3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains(key, precision):
    recipe = dataclasses.replace(RECIPE, model=MLP((3, 32, 1), dtype=precision), epochs=100)
    state, history = jaxmlp.fit(key, (X, Y), recipe, RATE)
    assert history["loss"][-1] < 0.05 * history["loss"][0]
    assert state.params[0].w.dtype == jnp.float32


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norm_and_residual_train(key, norm):
    model = MLP((3, 16, 16, 1), "gelu", norm=norm, residual=True)
    _, history = jaxmlp.fit(key, (X, Y), dataclasses.replace(RECIPE, model=model, epochs=60), RATE)
    assert history["loss"][-1] < 0.1 * history["loss"][0]


FACTORIES: list[Any] = [
    *(getattr(optax, name) for name in "adabelief adagrad adam adamax adamaxw adamw adan amsgrad lion".split()),
    *(getattr(optax, name) for name in "lamb lars nadam nadamw novograd radam rmsprop sgd yogi fromage".split()),
    *(getattr(optax, name) for name in "adadelta adafactor noisy_sgd sm3 sign_sgd optimistic_gradient_descent".split()),
    optax.lbfgs,
]


@pytest.mark.parametrize("optimizer", FACTORIES, ids=name_of)
def test_every_optimizer_of_optax_takes_a_traced_rate(key, optimizer):
    extra = {"key": key} if optimizer is optax.noisy_sgd else {}
    recipe = dataclasses.replace(RECIPE, optimizer=partial(optimizer, **extra) if extra else optimizer, epochs=2)
    state, history = jaxmlp.fit(key, (X, Y), recipe, {"learning_rate": 1e-3})
    chex.assert_tree_all_finite((state.params, history))


def test_schedules_and_clipping_through_a_factory(key):
    def clipped(learning_rate, clip_norm):
        return optax.chain(optax.clip_by_global_norm(clip_norm), optax.sgd(learning_rate))

    recipe = Recipe(MLP((3, 1)), losses.squared_error, clipped, epochs=1)
    hyperparams = {"learning_rate": 1.0, "clip_norm": 0.25}
    state = jaxmlp.start(key, recipe, hyperparams)
    after, _ = jaxmlp.step(state, (X, Y), recipe, hyperparams)
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, state.params))
    np.testing.assert_allclose(moved, 0.25, rtol=1e-5)


def test_cosine_adamw_follows_its_equation_and_spares_the_biases(loose):
    factory = CosineAdamW(steps=100, warmup=0.1)
    assert factory == CosineAdamW(100, 0.1) and hash(factory) == hash(CosineAdamW(100, 0.1))
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    optimizer = factory(learning_rate=0.5, weight_decay=0.1)
    state = optimizer.init(params)
    zero = jax.tree.map(jnp.zeros_like, params)
    for t in range(100):
        updates, state = optimizer.update(zero, state, params)
        rate = 0.5 * t / 10 if t < 10 else 0.5 * (1 + np.cos(np.pi * (t - 10) / 90)) / 2
        np.testing.assert_allclose(updates["w"], np.full((2, 2), -rate * 0.1), rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(updates["b"], jnp.zeros(2))


def test_keys_are_used_once(key):
    """The key of the first step is not that of the first epoch's order, nor of the parameters."""
    seen = []
    original = jax.random.fold_in

    def spy(k, i):
        seen.append(tuple(np.asarray(jax.random.key_data(k)).tolist()))
        return original(k, i)

    recipe = dataclasses.replace(RECIPE, model=MLP((3, 4, 1), dropout=True))
    hyperparams = RATE | {"dropout_rate": 0.5}
    state = jaxmlp.start(key, recipe, hyperparams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "fold_in", spy)
        jaxmlp.step(state, (X, Y), recipe, hyperparams)
        with jax.disable_jit():
            data.epoch_order(jax.random.split(state.key)[0], 0, 50, 16)
    step_key, order_key = seen
    assert len({step_key, order_key, tuple(np.asarray(jax.random.key_data(state.key)).tolist())}) == 3


def test_one_trace_serves_many_jitted_steps(key):
    step = jax.jit(chex.assert_max_traces(jaxmlp.step, n=1))
    state = jaxmlp.start(key, RECIPE, RATE)
    for i in range(5):
        state, _ = step(state, (X[:16], Y[:16]), RECIPE, {"learning_rate": 0.01 * (i + 1)})
    assert state.step == 5


def test_the_whole_run_has_a_shape_without_running(key):
    state, history = jax.eval_shape(jaxmlp.fit, key, (X, Y), RECIPE, RATE)
    assert history["loss"].shape == (4,) and state.params[0].w.shape == (3, 8)


def test_a_run_may_live_on_any_device(key):
    second = jax.devices()[1]
    state, _ = jaxmlp.fit(*jax.device_put((key, (X, Y)), second), RECIPE, RATE)
    assert state.params[0].w.devices() == {second}
    same(state, jax.device_put(jaxmlp.fit(key, (X, Y), RECIPE, RATE)[0], second))


def test_clipped_cosine_adamw_clips_the_global_norm(loose):
    """Adam forgets the scale of a first gradient but not of the next: large, then small, tells clipped from not."""
    params, large = {"w": jnp.zeros((2, 2))}, {"w": jnp.full((2, 2), 100.0)}
    clipped = ClippedCosineAdamW(steps=10, warmup=0.0)(0.1, 0.0, 1.0)
    plain = CosineAdamW(steps=10, warmup=0.0)(0.1, 0.0)
    state = clipped.update(large, clipped.init(params), params)[1]
    expected = plain.update({"w": large["w"] / 200.0}, plain.init(params), params)[1]
    for mine, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_metrics_that_cannot_be_compiled_are_evaluated_as_they_stand(key):
    def worst(outputs, targets, weight=None):
        return np.abs(np.asarray(outputs) - np.asarray(targets)).max()

    recipe = Recipe(MLP((2, 1)), losses.squared_error, optax.sgd, epochs=1, metrics=(worst, metrics.rmse))
    params = recipe.model.init(key)
    x = np.ones((4, 2), "f")
    values = jaxmlp.evaluate(params, (x, np.zeros((4, 1), "f")), recipe, {"learning_rate": 0.1})
    assert list(values) == ["loss", "worst", "rmse"] and values["worst"] == abs(recipe.model.apply(params, x)).max()


@pytest.mark.parametrize("rate, found", [(1e30, "loss of epoch 1 .* is inf"), (3e38, "a parameter became NaN")])
def test_a_fit_that_does_not_stay_finite_says_so_once(rate, found):
    epochs = 3 if rate == 1e30 else 1
    recipe = Recipe(MLP((2, 1)), losses.squared_error, optax.sgd, epochs=epochs)
    x = np.full((4, 2), 30.0, "f")
    with pytest.warns(RuntimeWarning, match=f"must stay finite, and did not: {found}") as caught:
        jaxmlp.fit(jax.random.key(0), (x, x[:, :1]), recipe, {"learning_rate": rate})
    assert len(caught) == 1 and caught[0].filename == __file__
    jax.jit(jaxmlp.fit, static_argnums=2)(jax.random.key(0), (x, x[:, :1]), recipe, {"learning_rate": rate})


SCALES = [2.0**100, 2.0**126, 2.0**-140, 2.0**-60, np.float16(2.0**13)]


@pytest.mark.parametrize("batch_size", [16, None])
def test_weights_times_a_power_of_two_are_the_same_weights(batch_size):
    """To the bit, also where a sum of them overflows or where they are subnormal, alone and for members."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(60, 3)).astype("f"), rng.integers(0, 4, 60).astype("f")
    options: Any = {"epochs": 2, "batch_size": batch_size, "metrics": (metrics.rmse,)}
    recipe = Recipe(MLP((3, 1)), losses.squared_error, optax.sgd, **options)
    keys, rate = jax.random.split(jax.random.key(0), 2), {"learning_rate": 0.1}

    def histories(weight):
        data = (x, x[:, :1], weight)
        together = population.fit(keys, data, recipe, rate, weights=np.stack([weight, weight[::-1]]))
        return jaxmlp.fit(keys[0], data, recipe, rate)[1], together[1]

    plain = histories(weight)
    assert np.isfinite(plain[1]["loss"]).all()
    for scale in SCALES:
        dtype = np.float16 if isinstance(scale, np.float16) else np.float32
        same(histories((weight * scale).astype(dtype)), plain)
