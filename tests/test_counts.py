"""The regression guard: what the compiled run is made of, counted. No time is taken, so none can flake."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

import jaxmlp
from benchmarks import peaks, scaling
from jaxmlp import MLP, Layer, Recipe, losses, training
from jaxmlp.layer import affine

pytestmark = pytest.mark.bits
RATE = {"learning_rate": jnp.float32(1e-3)}
CASES = {"small": ((8, 50, 1), 32, 1000), "single": ((784, 256, 256, 10), 128, 2000)}


def case(name, dtype=None):
    sizes, batch, rows = CASES[name]
    loss = losses.squared_error if sizes[-1] == 1 else losses.cross_entropy
    recipe = Recipe(MLP(sizes, dtype=dtype), loss, optax.adam, epochs=5, batch_size=batch)
    y = jnp.zeros((rows, 1)) if sizes[-1] == 1 else jnp.zeros(rows, jnp.int32)
    return recipe, (jnp.ones((rows, sizes[0])), y)


@pytest.fixture(scope="module")
def programs():
    compiled = {}
    for name in CASES:
        recipe, data = case(name)
        compiled[name] = training._fit.lower(jax.random.key(0), data, recipe, RATE, None).compile()
    return compiled


def loops(program):
    """Return the operations of each loop's body, without those that only name a value."""
    bodies = dict(re.findall(r"\n(%[\w.-]+) \([^\n]*\{\n(.*?)\n\}", "\n" + program.as_text(), re.DOTALL))
    names = set(re.findall(r"body=(%[\w.-]+)", program.as_text()))
    free = {"get-tuple-element", "parameter", "constant", "tuple", "bitcast"}
    found = []
    for name in names:
        operations = re.findall(r"= (?:\([^)]*\)|[^\s(]+) ([\w-]+)\(", bodies[name])
        found.append([operation for operation in operations if operation not in free])
    return found


def step_of(program):
    """The loop with the products."""
    return max(loops(program), key=lambda operations: sum("dot" in o or "fusion" in o for o in operations))


@pytest.mark.parametrize("name", CASES)
def test_no_sort_and_no_call_to_the_host(name, programs):
    text = programs[name].as_text()
    assert not re.search(r"\b(sort|infeed|outfeed|send|recv)\(", text)
    assert "callback" not in text


@pytest.mark.parametrize(("name", "most"), [("small", 40), ("single", 70)])
def test_a_step_is_few_operations(name, most, programs):
    """Each is a call at run time: on the smallest nets they are the time."""
    operations = step_of(programs[name])
    assert 15 < len(operations) <= most, operations
    assert operations.count("copy") <= 6 and operations.count("transpose") <= 2


def test_a_whole_run_is_four_loops_that_matter(programs):
    """Epochs, steps, the shuffle's rounds; the others draw random bits."""
    sizes = sorted(len(operations) for operations in loops(programs["small"]))
    assert sum(size > 20 for size in sizes) <= 2, sizes


@pytest.mark.parametrize("name", CASES)
def test_the_products_are_those_of_the_equation(name):
    """XLA counts the FLOPs of a step: the three products of each layer, and little else."""
    recipe, (x, y) = case(name)
    batch = recipe.batch_size
    state = jaxmlp.start(jax.random.key(0), recipe, RATE)
    cost = jax.jit(jaxmlp.step).lower(state, (x[:batch], y[:batch]), recipe, RATE).compile().cost_analysis()
    products = batch * peaks.training_flops(recipe.model.sizes)
    around = 40 * recipe.model.parameter_count + 40 * batch * sum(recipe.model.sizes)
    assert products <= cost["flops"] <= products + around
    touched = 4 * (8 * recipe.model.parameter_count + 12 * batch * sum(recipe.model.sizes))
    assert cost["bytes accessed"] <= 4 * touched


def test_a_run_plans_for_no_more_memory_than_is_counted():
    planned, counted = scaling.memory_of(*scaling.problem(width=64, depth=2, batch=64, rows=4096))
    assert planned <= 1.3 * counted


def test_ten_rates_compile_once():
    recipe, data = case("small")
    traces = training.trace_count()
    sizes = training._fit._cache_size()
    for rate in np.logspace(-4, -2, 10):
        jaxmlp.fit(jax.random.key(0), data, recipe, {"learning_rate": rate})
    assert training.trace_count() - traces <= 1 and training._fit._cache_size() - sizes <= 1


def test_narrow_operands_stay_narrow():
    """A bfloat16 net has eight products, none of them with a float32 operand."""
    recipe, (x, y) = case("single", dtype="bfloat16")
    state = jaxmlp.start(jax.random.key(0), recipe, RATE)
    text = jax.jit(jaxmlp.step).lower(state, (x[:128], y[:128]), recipe, RATE).as_text()
    products = re.findall(r"dot_general.*?: \((tensor<\S+>), (tensor<\S+>)\) -> (tensor<\S+>)", text)
    assert len(products) == 8
    assert all("bf16" in one and "bf16" in two and "f32" in out for one, two, out in products)


def test_a_deep_net_draws_its_equal_layers_in_one_loop():
    """Depth must not multiply generators of random numbers: they were most of a cold start."""

    def size(depth):
        program = jax.jit(MLP((8,) * (depth + 1) + (1,)).init).lower(jax.random.key(0)).as_text()
        return program.count("while")

    assert size(64) == size(2)


@pytest.mark.parametrize(("rows", "held"), [(32, True), (32 * 1024, False)])
def test_a_short_batch_is_transposed_once_for_its_product(rows, held):
    """What a small step costs most was a product that reads x by columns; a long batch is not worth the copy."""
    x, dy, w = jnp.ones((rows, 64)), jnp.ones((rows, 50)), jnp.ones((64, 50))
    text = jax.jit(lambda x, dy, w: jax.vjp(lambda w: affine(Layer(w), x), w)[1](dy)).lower(x, dy, w).as_text()
    assert ("optimization_barrier" in text) == held


def test_a_short_product_has_the_derivatives_of_a_product(x64):
    x, w = (np.random.default_rng(i).normal(size=shape) for i, shape in enumerate([(7, 5), (5, 3)]))

    def energy(x, w):
        return jnp.sin(affine(Layer(w), x)).sum()

    dx, dw = jax.grad(energy, argnums=(0, 1))(jnp.asarray(x), jnp.asarray(w))
    np.testing.assert_allclose(dx, np.cos(x @ w) @ w.T, rtol=1e-12)
    np.testing.assert_allclose(dw, x.T @ np.cos(x @ w), rtol=1e-12)
    check_grads(energy, (jnp.asarray(x), jnp.asarray(w)), order=2)
