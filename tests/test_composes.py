"""As a part of a larger program: inside a caller's mesh, exported with its parameters, differentiated in its inputs."""

import contextlib
import importlib.metadata

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

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
def test_rows_that_are_dealt_out_train_as_those_that_lie_whole(inside):
    """With explicit axes JAX would ask at each gather and each sum where its result shall lie."""

    def everything(x, y):
        yield dict(jaxmlp.fit(KEY, (x, y), RECIPE, RATE, validation=(x, y))[1])
        yield jaxmlp.evaluate(RECIPE.model.init(KEY), (x, y), RECIPE, RATE)
        yield dict(loop.train(KEY, (x, y), RECIPE, RATE, progress=False)[1])
        yield dict(jax.jit(lambda x, y: jaxmlp.fit(KEY, (x, y), RECIPE, RATE))(x, y)[1])

    expected = list(everything(X, Y))
    mesh = jax.make_mesh((len(jax.devices()),), ("rows",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh) if inside else contextlib.nullcontext():
        found = list(everything(*jax.device_put((X, Y), NamedSharding(mesh, PartitionSpec("rows")))))
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
