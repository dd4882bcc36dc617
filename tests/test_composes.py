"""As a part of a larger program: inside a caller's mesh, exported with its parameters, differentiated in its inputs."""

import contextlib
import dataclasses
import importlib.metadata
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.jet import jet
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population
from jaxmlp._matmul import matmul
from jaxmlp.loop import _hidden

KEY = jax.random.key(0)
X = np.linspace(-1, 1, 30, dtype="f")[:, None]
Y = np.sin(3 * X)
RECIPE = Recipe(MLP((1, 4, 1), "tanh"), losses.squared_error, optax.adam, epochs=2, batch_size=16)
RATE = {"learning_rate": 0.05}


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("devices", [None, 1])
def test_a_mesh_of_the_callers_is_left_aside(kind, devices):
    keys = jax.random.split(KEY, 4)

    def everything():
        plan = population.plan(keys, (X, Y), RECIPE, RATE, devices=devices)
        yield dict(jaxmlp.fit(KEY, (X, Y), RECIPE, RATE)[1])
        yield dict(population.fit(keys, (X, Y), RECIPE, RATE, plan=plan)[1])
        yield dict(loop.train(KEY, (X, Y), RECIPE, RATE, progress=False)[1])

    expected = list(everything())
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        found = list(everything())
        assert jax.sharding.get_abstract_mesh().axis_names == ("data",)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("spec", [P("rows"), P()])
def test_rows_that_are_dealt_out_train_as_those_that_lie_whole(inside, spec):
    """With explicit axes JAX would ask at each gather and each sum where its result shall lie."""

    def everything(x, y):
        yield dict(jaxmlp.fit(KEY, (x, y), RECIPE, RATE, validation=(x, y))[1])
        yield jaxmlp.evaluate(RECIPE.model.init(KEY), (x, y), RECIPE, RATE)
        yield dict(loop.train(KEY, (x, y), RECIPE, RATE, progress=False)[1])
        yield jaxmlp.step(jaxmlp.start(KEY, RECIPE, RATE), (x, y), RECIPE, RATE)[1]
        yield jaxmlp.data.take((x, y), jaxmlp.data.Rows(np.array([2, 0])))
        if inside or spec:  # else JAX has no mesh for the caller's own program
            yield dict(jax.jit(lambda x, y: jaxmlp.fit(KEY, (x, y), RECIPE, RATE))(x, y)[1])

    expected = list(everything(X, Y))
    mesh = jax.make_mesh((len(jax.devices()),), ("rows",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh) if inside else contextlib.nullcontext():
        found = list(everything(*jax.device_put((X, Y), NamedSharding(mesh, spec))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def test_a_program_that_takes_parameters_is_written_and_read():
    params = RECIPE.model.init(KEY)
    program = jax.export.export(jax.jit(RECIPE.model.apply))(params, X)
    again = jax.export.deserialize(program.serialize())
    np.testing.assert_array_equal(again.call(params, X), jax.jit(RECIPE.model.apply)(params, X))


def test_a_derivative_in_the_inputs_multiplies_nothing_by_zero():
    """A forward derivative in x of x w is one product more, in w one more, and in both two."""
    x, w = jnp.ones((5, 3)), jnp.ones((3, 2))

    def products(which):
        def through(tangent):
            primals, tangents = zip(
                *[(p, t) for p, t in zip((x, w), tangent, strict=True) if t is not None], strict=True
            )

            def moved(*given):
                parts = iter(given)
                return matmul(*(next(parts) if t is not None else p for p, t in zip((x, w), tangent, strict=True)))

            return jax.jvp(moved, primals, tangents)

        text = str(jax.make_jaxpr(through)(which))
        return text.count("dot_general")

    assert [products((x, None)), products((None, w)), products((x, w))] == [2, 2, 3]


def test_derivatives_in_both_are_those_of_a_product():
    keys = jax.random.split(KEY, 4)
    x, w, dx, dw = (jax.random.normal(k, s) for k, s in zip(keys, [(5, 3), (3, 2)] * 2, strict=True))
    y, dy = jax.jvp(matmul, (x, w), (dx, dw))
    np.testing.assert_allclose(y, x @ w, rtol=1e-6)
    np.testing.assert_allclose(dy, dx @ w + x @ dw, rtol=1e-5)
    _, only = jax.jvp(lambda x: matmul(x, w), (x,), (dx,))
    np.testing.assert_allclose(only, dx @ w, rtol=1e-6)
    constant, none = jax.jvp(lambda t: matmul(x, w) + 0 * t, (1.0,), (1.0,))
    np.testing.assert_array_equal(none, jnp.zeros_like(constant))


def test_a_checkout_that_is_not_installed_saves_too(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(_hidden.metadata, "version", missing)
    loop.train(KEY, (X, Y), RECIPE, RATE, directory=tmp_path, progress=False)
    _, history = loop.resume(tmp_path, (X, Y), epochs=3, progress=False)
    assert history["loss"].shape == (3,) and _hidden.version("jaxmlp") == jaxmlp.__version__


@pytest.mark.parametrize(("activation", "dtype"), [("tanh", None), ("gelu", None), ("tanh", "float16")])
def test_taylor_series_are_nested_derivatives(activation, dtype):
    net = MLP((3, 5, 5, 2), activation, dtype=dtype)
    params, x, along = net.init(KEY), jnp.asarray([[0.3, -0.2, 0.5], [1.0, 0.0, -1.0]]), jnp.ones((2, 3))
    _, series = jet(lambda x: net.apply(params, x), (x,), ((along, 0 * along, 0 * along),))

    def nested(order, t):
        return jax.jvp(partial(nested, order - 1), (t,), (1.0,))[1] if order else net.apply(params, x + t * along)

    for order, found in enumerate(series, 1):
        np.testing.assert_allclose(found, nested(order, 0.0), atol=1e-4 if dtype is None else 2e-2)


def on_two_devices(function, arguments):
    """Return `vmap(function)` in a `shard_map` over two devices, its checks on, and without."""
    mesh = jax.make_mesh((2,), ("members",), axis_types=(AxisType.Auto,))
    mapped = jax.vmap(function)
    spread = jax.shard_map(mapped, mesh=mesh, in_specs=P("members"), out_specs=P("members"))
    return jax.jit(spread)(arguments), jax.jit(mapped)(arguments)


@pytest.mark.parametrize(
    ("own", "batch_size"), [("key", 16), ("key", None), ("rate", 16), ("data", None), ("key, params given", None)]
)
def test_members_train_in_a_shard_map_of_the_callers(own, batch_size):
    """Parameters that begin alike everywhere have each device's own gradient, not the sum of all."""
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size)
    params = RECIPE.model.init(KEY) if "params" in own else None

    def member(i):
        key = jax.random.fold_in(KEY, i.astype(jnp.int32)) if "key" in own else KEY
        rate = {"learning_rate": 0.01 * i if own == "rate" else 0.05}
        state, history = jaxmlp.fit(key, (X * i if own == "data" else X, Y), recipe, rate, params=params)
        return state.params, dict(history)

    found, expected = on_two_devices(member, jnp.arange(1.0, 3.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected)


def test_gradients_in_a_shard_map_of_the_callers():
    """Of parameters whose biases begin as the same zeros, and of a stack that the same x goes through."""
    net = MLP((1, 4, 4, 4, 1), "tanh", scan=True)

    def member(i):
        params = net.init(jax.random.fold_in(KEY, i))

        return jax.grad(lambda p: jnp.sin(net.apply(p, X)).mean())(params)

    found, expected = on_two_devices(member, jnp.arange(2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_parallel_over_the_data(dtype):
    """Parameters that all devices share have the sum of the devices' gradients, in any order of derivatives."""
    net, mesh = MLP((1, 4, 1), "tanh", dtype=dtype), jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    params = net.init(KEY)

    def derivatives(params, x):
        def energy(params):
            return jnp.sin(net.apply(params, x)).sum()

        return jax.grad(energy)(params), jax.jvp(jax.grad(energy), (params,), (params,))[1]

    spread = jax.shard_map(derivatives, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    found, expected = jax.jit(spread)(params, X), jax.jit(derivatives)(params, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3), found, expected)
