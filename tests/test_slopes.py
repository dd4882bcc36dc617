"""Values and gradients together: as by hand, and better from few points than values alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NET = MLP((3, 5, 2), "tanh", dropout=True)
X = RNG.normal(size=(10, 3)).astype("f")
TARGETS = {"value": RNG.normal(size=(10, 2)).astype("f"), "slope": RNG.normal(size=(10, 2, 3)).astype("f")}
PARAMS = NET.init(KEY)
RATE = {"learning_rate": 0.02, "slope_weight": 0.3, "dropout_rate": 0.0}


def by_hand(outputs, targets, *, params, x, apply, slope_weight):
    slope = jax.vmap(jax.jacfwd(lambda point: apply(params, point[None])[0]))(x)
    value = jnp.sum((outputs - targets["value"]) ** 2, axis=1)
    steep = jnp.sum((slope - targets["slope"]) ** 2, axis=(1, 2))
    return value + slope_weight * steep, {"value": value, "slope": steep}


def test_it_is_that_by_hand_and_so_is_its_gradient():
    def both(loss, params):
        outputs = NET.apply(params, X)
        values, told = loss(outputs, TARGETS, params=params, x=jnp.asarray(X), apply=NET.apply, slope_weight=0.3)
        return values.sum(), told

    found, expected = (jax.value_and_grad(lambda p, f=f: both(f, p), has_aux=True)(PARAMS) for f in
                       (losses.sobolev, by_hand))  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected)


def test_under_dropout_the_slope_is_of_the_net_that_made_the_value():
    """By one mask for both: the difference quotient of the pass that drops the same units."""

    def apply(params, x):
        return NET.apply(params, x, key=KEY, dropout_rate=0.5)

    outputs, step = apply(PARAMS, X), 1e-2
    slope = np.stack([(apply(PARAMS, X + step * e) - apply(PARAMS, X - step * e)) / (2 * step)
                      for e in np.eye(3, dtype="f")[:, None]], axis=-1)  # fmt: skip
    _, told = losses.sobolev(outputs, {"value": outputs, "slope": slope}, params=PARAMS, x=X, apply=apply)
    assert np.abs(slope).max() > 0.1 and told["slope"].max() < 1e-5 and (told["value"] == 0).all()


def test_slopes_teach_what_few_points_do_not():
    """Of sin(6 x) at six points: 0.36 to 0.39 off with values alone, 0.01 to 0.06 with slopes, over five seeds."""
    x, new = np.linspace(-1, 1, 6, dtype="f")[:, None], np.linspace(-1, 1, 101, dtype="f")[:, None]
    y = {"value": np.sin(6 * x), "slope": 6 * np.cos(6 * x)[:, None]}
    recipe = Recipe(MLP((1, 16, 1), "tanh"), losses.sobolev, optax.adam, epochs=800)
    keys, numbers = population.grid(learning_rate=[0.03], slope_weight=[0.0, 0.1], seeds=5)
    states, history = population.fit(keys, (x, y), recipe, numbers)
    found = np.asarray(population.predict(recipe.model, states.params, new))
    off = np.sqrt(np.mean((found - np.sin(6 * new)) ** 2, axis=(1, 2)))
    assert off[5:].max() < 0.5 * off[:5].min(), off
    np.testing.assert_allclose(history["loss"][5], (history["value"] + 0.1 * history["slope"])[5], rtol=1e-4)


class Stop(Exception):
    pass


def stopping(state, history):
    raise Stop


def test_a_run_of_it_is_resumed_by_its_words(tmp_path):
    recipe = Recipe(NET, losses.sobolev, optax.adam, epochs=4, batch_size=4)
    straight = loop.train(KEY, (X, TARGETS), recipe, RATE, progress=False)
    with pytest.raises(Stop):
        loop.train(KEY, (X, TARGETS), recipe, RATE, progress=False, directory=tmp_path, every=2, callbacks=[stopping])
    resumed = loop.resume(tmp_path, (X, TARGETS), progress=False)
    jax.tree.map(np.testing.assert_array_equal, resumed[0].params, straight[0].params)
    state, _ = jaxmlp.fit(KEY, (X, TARGETS), recipe, RATE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params, straight[0].params)


def call(targets=TARGETS, x=X, **options):
    return losses.sobolev(NET.apply(PARAMS, X), targets, params=PARAMS, x=x, apply=NET.apply, **options)


BAD = {
    "no dict": (lambda: call(TARGETS["value"]), "targets must be {'value': (batch, d), 'slope': (batch, d, n)}; got"),
    "a part": (lambda: call({"value": TARGETS["value"]}), "got ['value']"),
    "a slope": (
        lambda: call({**TARGETS, "slope": TARGETS["slope"][:, 0]}),
        "targets['slope'] must have shape (10, 2, 3), a gradient for each output; got float32 of shape (10, 3)",
    ),
    "a value": (lambda: call({**TARGETS, "value": TARGETS["value"][:, :1]}), "must have one shape"),
    "x": (lambda: call(x=X[0]), "outputs and x must have shapes (batch, d) and (batch, n)"),
    "a weight": (lambda: call(slope_weight=-1.0), "slope_weight must not be negative"),
    "weights": (lambda: call(slope_weight=np.ones(2)), "slope_weight must be one number"),
    "no function": (
        lambda: losses.sobolev(X, TARGETS, params=(), x=X, apply=3),
        "apply must be callable, with (params, x); got 3",
    ),
    "a model": (
        lambda: losses.sobolev(X, {"value": X, "slope": X[:, :, None]}, params=(), x=X[:, :1], apply=lambda p, x: x[0]),
        "apply must return outputs (batch, d)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_in_64_bits_inputs_may_be_of_32(x64):
    params = NET.init(KEY)
    values, _ = losses.sobolev(NET.apply(params, X), TARGETS, params=params, x=X, apply=NET.apply)
    assert values.dtype == jnp.float64
