"""Programs with the models, transformations and loaders of other libraries, each beside a loop by hand."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from programs import check_everywhere, close, descended, same

import jaxmlp
from jaxmlp import MLP, Layer, Recipe, interop, losses

KEY = jax.random.key(0)
RATE = {"learning_rate": 0.05}
X = jax.random.normal(KEY, (24, 8))  # eight values of a series
Y = jnp.sum(X[:, 1:] * X[:, :-1], axis=1, keepdims=True)
NET = MLP((8, 8, 1), "tanh")


@pytest.fixture
def as_a_user():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def check_by_hand(model):
    """Train a model by `fit` and by hand."""
    recipe = Recipe(model, losses.squared_error, optax.sgd, epochs=3)
    state, _ = jaxmlp.fit(KEY, (X, Y), recipe, RATE)

    def objective(params):
        return jnp.mean(losses.squared_error(model.apply(params, X), Y))

    close(state.params, descended(objective, jaxmlp.start(KEY, recipe, RATE).params, optax.sgd(0.05), 3))
    return recipe


@pytest.mark.bits
def test_a_convolution_of_linen(as_a_user, tmp_path):
    """6. Flax Linen: a convolution over a series."""
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.tanh(nn.Conv(4, (3,))(x[..., None])).mean(axis=1))

    recipe = check_by_hand(interop.from_flax(Net(), X))
    check_everywhere(KEY, (X, Y), recipe, RATE, tmp_path)


def test_attention_of_nnx(as_a_user):
    """6. Flax NNX: attention over a series."""
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.attend = nnx.MultiHeadAttention(2, in_features=4, decode=False, rngs=rngs)
            self.first, self.last = nnx.Linear(1, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(self.attend(self.first(x[..., None])).mean(axis=1))

    check_by_hand(interop.from_nnx(Net(nnx.Rngs(0))))


def test_recurrence_of_haiku(as_a_user):
    """6. Haiku: a recurrent net over a series."""
    hk = pytest.importorskip("haiku")

    def net(x):
        cell = hk.GRU(4)
        _, h = hk.dynamic_unroll(cell, x.T[..., None], cell.initial_state(len(x)))
        return hk.Linear(1)(h)

    check_by_hand(interop.from_haiku(hk.transform(net), X))


def test_a_convolution_of_equinox(as_a_user):
    """6. Equinox: a convolution, a function of one example."""
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        first: eqx.nn.Conv1d
        last: eqx.nn.Linear

        def __call__(self, x):
            return self.last(jnp.tanh(self.first(x[None])).mean(axis=1))

    keys = jax.random.split(KEY)
    net = Net(eqx.nn.Conv1d(1, 4, 3, key=keys[0]), eqx.nn.Linear(4, 1, key=keys[1]))
    check_by_hand(interop.from_equinox(net))


def test_inside_linen(as_a_user):
    """7. In Flax Linen: `self.param` with the net's own init."""
    nn = pytest.importorskip("flax.linen")

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(NET.apply(self.param("mlp", NET.init), x))

    params = Outer().init(KEY, X)["params"]
    last = {"params": params["Dense_0"]}
    same(Outer().apply({"params": params}, X), nn.Dense(1).apply(last, NET.apply(params["mlp"], X)))
    check_by_hand(interop.from_flax(Outer(), X))


def test_inside_nnx(as_a_user):
    """7. In Flax NNX: the parameters as a tree of `nnx.Param`."""
    nnx = pytest.importorskip("flax.nnx")

    class Outer(nnx.Module):
        def __init__(self, rngs):
            self.mlp = nnx.Param(NET.init(rngs.params()))

        def __call__(self, x):
            return NET.apply(self.mlp.get_value(), x)

    net = Outer(nnx.Rngs(0))
    found = nnx.grad(lambda net: jnp.mean(net(X)))(net)
    known = jax.grad(lambda params: jnp.mean(NET.apply(params, X)))(net.mlp.get_value())
    close(jax.tree.leaves(found), jax.tree.leaves(known))
    check_by_hand(interop.from_nnx(net))


def test_inside_haiku(as_a_user):
    """7. In Haiku: `hk.lift` of the net's own init."""
    hk = pytest.importorskip("haiku")

    def outer(x):
        def init(key):
            return {"net": {"layers": NET.init(key)}}  # glue: Haiku's two levels of names

        params = hk.lift(init, name="mlp")(hk.maybe_next_rng_key())
        return hk.Linear(1)(NET.apply(params["net"]["layers"], x))

    check_by_hand(interop.from_haiku(hk.transform(outer), X))


def test_inside_equinox(as_a_user):
    """7. In Equinox: parameters and description are fields."""
    eqx = pytest.importorskip("equinox")

    class Outer(eqx.Module):
        params: tuple[Layer, ...]
        net: MLP

        def __call__(self, x):
            return self.net.apply(self.params, x)

    outer = Outer(NET.init(KEY), NET)
    found = eqx.filter_grad(lambda outer: jnp.mean(jax.vmap(outer)(X)))(outer)
    close(found.params, jax.grad(lambda params: jnp.mean(NET.apply(params, X)))(outer.params))
    check_by_hand(interop.from_equinox(outer))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_data_on_a_mesh(kind):
    """16. Under `jax.set_mesh`: a fit beside the caller's own program, on rows that are dealt out to the devices."""
    recipe = Recipe(NET, losses.squared_error, optax.adam, epochs=3, batch_size=10)
    expected = jaxmlp.fit(KEY, (X, Y), recipe, RATE)[0].params
    mesh = jax.make_mesh((len(jax.devices()),), ("rows",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        x, y = jax.device_put((X, Y), NamedSharding(mesh, P("rows")))
        outputs = jax.jit(NET.apply)(expected, x)
        assert outputs.sharding.spec[0] == "rows"
        close(jaxmlp.fit(KEY, (x, y), recipe, RATE)[0].params, expected)


class Forgetful:
    """A net whose middle is computed again in the backward pass."""

    def init(self, key):
        return NET.init(key)

    def apply(self, params, x):
        return jax.checkpoint(NET.apply)(params, x)


def test_remat_in_a_recipe():
    """17. Remat: `jax.checkpoint` around the net, in a recipe."""
    kept, again = (Recipe(net, losses.squared_error, optax.adam, epochs=2) for net in (NET, Forgetful()))
    close(jaxmlp.fit(KEY, (X, Y), again, RATE)[0].params, jaxmlp.fit(KEY, (X, Y), kept, RATE)[0].params)
    assert "remat" in str(jax.make_jaxpr(jaxmlp.step)(jaxmlp.start(KEY, again, RATE), (X, Y), again, RATE))


def test_a_step_of_training_is_exported():
    """17. Export: a step of training as StableHLO, its state an argument."""
    recipe = Recipe(NET, losses.squared_error, optax.adam, epochs=1)
    state = jaxmlp.start(KEY, recipe, RATE)
    leaves, form = jax.tree.flatten(state)  # glue: the optimizer's state has no form that is written

    @jax.jit
    def step(leaves, x, y):
        state, record = jaxmlp.step(jax.tree.unflatten(form, leaves), (x, y), recipe, RATE)  # glue
        return state.params, record

    written = jax.export.export(step)(leaves, X, Y).serialize()
    same(jax.export.deserialize(written).call(leaves, X, Y), step(leaves, X, Y))


def test_shapes_of_a_run():
    """17. Shapes: `jax.eval_shape` of a whole run, on shapes alone."""
    recipe = Recipe(NET, losses.squared_error, optax.adam, epochs=5, batch_size=10)

    def shape(a):
        return jax.ShapeDtypeStruct(a.shape, a.dtype)

    run = partial(jaxmlp.fit, recipe=recipe, hyperparams=RATE)
    state, history = jax.eval_shape(run, shape(KEY), (shape(X), shape(Y)))
    found, curves = jaxmlp.fit(KEY, (X, Y), recipe, RATE)
    assert jax.tree.map(shape, found) == state and jax.tree.map(shape, curves) == history


@pytest.mark.parametrize(("optimizer", "dtype"), [(optax.adamw, "bfloat16"), (optax.contrib.muon, "float32")])
def test_strict_promotion(optimizer, dtype):
    """18. Strict promotion of dtypes and ranks: a run is the same with it and without."""
    assert jax.config.jax_numpy_dtype_promotion == "strict"
    recipe = Recipe(NET.replace(param_dtype=dtype), losses.squared_error, optimizer, epochs=2)
    found = jaxmlp.fit(KEY, (X, Y), recipe, RATE)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        same(found[0].params, jaxmlp.fit(KEY, (X, Y), recipe, RATE)[0].params)
