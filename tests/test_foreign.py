"""Models of Flax, Haiku and Equinox train as they would in a loop by hand, where these libraries are at hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import Recipe, interop, loop, losses, population

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(24, 3)).astype("f")
Y = np.sin(X[:, :1])
RATE = {"learning_rate": 0.05}


@pytest.fixture(autouse=True)
def as_a_user():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def linen_model(dropout=0.0):
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        rate: float

        @linen.compact
        def __call__(self, x, train=False):
            x = linen.Dropout(self.rate, deterministic=not train)(linen.tanh(linen.Dense(8)(x)))
            return linen.Dense(1)(x)

    return interop.from_flax(Net(dropout), X[:1])


def haiku_model(dropout=0.0):
    haiku = pytest.importorskip("haiku")

    def net(x):
        x = jnp.tanh(haiku.Linear(8)(x))
        x = haiku.dropout(haiku.next_rng_key(), dropout, x) if haiku.running_init() is False and dropout else x
        return haiku.Linear(1)(x)

    return interop.from_haiku(haiku.transform(net), X[:1])


def equinox_model(dropout=0.0):
    equinox = pytest.importorskip("equinox")

    class Net(equinox.Module):
        mlp: equinox.nn.MLP
        dropout: equinox.nn.Dropout

        def __call__(self, x, key=None):
            return self.mlp(self.dropout(x, key=key))

    return interop.from_equinox(Net(equinox.nn.MLP(3, 1, 8, 1, jnp.tanh, key=KEY), equinox.nn.Dropout(dropout)))


def nnx_model(dropout=0.0):
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
            self.dropout = nnx.Dropout(dropout, rngs=rngs)

        def __call__(self, x):
            return self.last(self.dropout(nnx.tanh(self.first(x))))

    return interop.from_nnx(Net(nnx.Rngs(0)))


MODELS = {"linen": linen_model, "haiku": haiku_model, "equinox": equinox_model, "nnx": nnx_model}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_as_in_a_loop_by_hand(name, tmp_path):
    model = MODELS[name]()
    recipe = Recipe(model, losses.squared_error, optax.sgd, epochs=4)
    found, history = jaxmlp.fit(KEY, (X, Y), recipe, RATE, validation=(X, Y))
    params = jaxmlp.start(KEY, recipe, RATE).params
    for _ in range(4):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(losses.squared_error(model.apply(p, X), Y)))(params)
        params = jax.tree.map(lambda a, g: a - 0.05 * g, params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found.params, params)
    assert history["loss"][-1] < history["loss"][0]
    keys = jax.random.split(KEY, 2)
    states, _ = population.fit(keys, (X, Y), recipe, {"learning_rate": [0.05, 0.1]})
    assert jax.tree.leaves(states.params)[0].shape[0] == 2
    looped = loop.train(KEY, (X, Y), recipe, RATE, validation=(X, Y), directory=tmp_path, progress=False)
    jax.tree.map(np.testing.assert_array_equal, dict(looped[1]), dict(history))
    longer = loop.resume(tmp_path, (X, Y), recipe, validation=(X, Y), epochs=5, progress=False)
    assert longer[1]["loss"].shape == (5,)


@pytest.mark.parametrize("name", ["linen", "equinox", "nnx"])
def test_dropout_drops_in_training_alone(name):
    model = MODELS[name](0.5)
    params = model.init(KEY)
    np.testing.assert_array_equal(model.apply(params, X), model.apply(params, X))
    one, same, other = (model.apply(params, X, key=jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any()
    recipe = Recipe(model, losses.squared_error, optax.adam, epochs=3, batch_size=8)
    _, history = jaxmlp.fit(KEY, (X, Y), recipe, RATE, validation=(X, Y))
    assert np.isfinite(np.asarray(history["validation_loss"])).all()


def test_what_their_training_would_change_is_refused_by_name():
    linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
    equinox, haiku = pytest.importorskip("equinox"), pytest.importorskip("haiku")

    class Normed(linen.Module):
        @linen.compact
        def __call__(self, x, train=False):
            return linen.BatchNorm(use_running_average=not train)(linen.Dense(2)(x))

    with pytest.raises(ValueError, match="the Linen module must have nothing but parameters; got batch_stats, which"):
        interop.from_flax(Normed(), X[:1])
    with pytest.raises(ValueError, match="the module of nnx must have nothing but parameters; got BatchStat"):
        interop.from_nnx(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="the Equinox module must have nothing but parameters; got its State"):
        interop.from_equinox(equinox.nn.make_with_state(equinox.nn.BatchNorm)(3, "batch", mode="batch")[0])

    def normed(x):
        return haiku.BatchNorm(True, True, 0.9)(x, is_training=True)

    with pytest.raises(ValueError, match="the Haiku function must have nothing but parameters; got batch_norm"):
        interop.from_haiku(haiku.transform_with_state(normed), X[:1])
    for call in (lambda: interop.from_flax(3, X), lambda: interop.from_nnx(3), lambda: interop.from_equinox(3)):
        with pytest.raises(ValueError, match="module must be "):
            call()
    with pytest.raises(ValueError, match="transformed must be what haiku.transform gives; got int 3"):
        interop.from_haiku(3, X)


def test_a_model_that_is_not_brought_over_is_told_how():
    linen, haiku = pytest.importorskip("flax.linen"), pytest.importorskip("haiku")
    for model, words in (
        (linen.Dense(1), "got one of flax; pass from_flax"),
        (haiku.transform(len), "got one of haiku"),
    ):
        with pytest.raises(ValueError, match=words):
            Recipe(model, losses.squared_error, optax.sgd, epochs=1)


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch):
    for name in ("flax.linen", "flax.nnx", "haiku", "equinox"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    for call in (
        lambda: interop.from_flax(3, X),
        lambda: interop.from_nnx(3),
        lambda: interop.from_haiku(3, X),
        lambda: interop.from_equinox(3),
    ):
        with pytest.raises(ImportError, match=r"pip install 'jaxmlp\[compose\]'"):
            call()
