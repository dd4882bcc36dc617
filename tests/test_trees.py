"""Hyperparameters may be trees of arrays that are not trained: traced, shared or each member's own, and saved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population
from jaxmlp._engine.entry import enter
from jaxmlp._engine.inputs import Inputs, Request
from jaxmlp.layer import Layer
from jaxmlp.loop._start import Start, form_of, read

KEYS = jax.random.split(jax.random.key(1), 3)
X = np.linspace(-1, 1, 24, dtype="f")[:, None]
Y = np.sin(3 * X)
RATE = {"learning_rate": 0.05}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Correction:
    """What a network adds to another one, which is not trained."""

    net: MLP

    def init(self, key):
        return self.net.init(key)

    def apply(self, params, x, *, base):
        return self.net.apply(params, x) + self.net.apply(base, x)


def scaled_error(outputs, targets, *, scale, power=2.0):
    return jnp.sum(jnp.abs((outputs - targets) / scale["y"][None]) ** power, axis=-1)


NET = MLP((1, 4, 1), "tanh")
RECIPE = Recipe(Correction(NET), scaled_error, optax.adam, epochs=3, batch_size=10)
BASE = NET.init(jax.random.key(7))
SCALES = np.array([[2.0], [0.5], [1.0]], "f")
ONE = {**RATE, "base": BASE, "scale": {"y": SCALES[0]}}
ALL = {**RATE, "base": population.shared(BASE), "scale": population.each({"y": SCALES})}


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


def test_a_run_with_trees_is_that_of_functions_that_hold_them():
    class Held(Correction):
        def apply(self, params, x):
            return self.net.apply(params, x) + self.net.apply(BASE, x)

    def held(outputs, targets):
        return scaled_error(outputs, targets, scale={"y": SCALES[0]})

    state, history = jaxmlp.fit(KEYS[0], (X, Y), RECIPE, ONE)
    other, told = jaxmlp.fit(KEYS[0], (X, Y), dataclasses.replace(RECIPE, model=Held(NET), loss=held), RATE)
    np.testing.assert_allclose(history["loss"], told["loss"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.params, other.params)


@pytest.mark.bits
def test_another_tree_of_the_same_form_compiles_nothing():
    jaxmlp.fit(KEYS[0], (X, Y), RECIPE, ONE)
    before = jaxmlp.training.trace_count()
    jaxmlp.fit(KEYS[0], (X, Y), RECIPE, {**ONE, "base": jax.tree.map(lambda a: a + 1, BASE), "scale": {"y": SCALES[1]}})
    assert jaxmlp.training.trace_count() == before


@pytest.mark.bits
def test_a_member_with_trees_is_its_solo_run():
    plan = population.plan(3, (X, Y), RECIPE, ALL, width=1)
    _, history = population.fit(KEYS, (X, Y), RECIPE, ALL, plan=plan)
    for i, key in enumerate(KEYS):
        _, alone = jaxmlp.fit(key, (X, Y), RECIPE, {**ONE, "scale": {"y": SCALES[i]}})
        same(history["loss"][i], alone["loss"])
    _, lists = population.fit(KEYS, (X, Y), [RECIPE] * 3, ALL)
    np.testing.assert_allclose(lists["loss"], history["loss"], rtol=1e-5)


def test_what_members_share_is_there_once():
    members, tables = enter(Request(KEYS, Inputs((X, Y)), RECIPE, ALL))
    assert members.numbers.by_name.keys() == {"learning_rate", "scale"}
    same(tables.numbers.apply["base"], BASE)


def test_an_array_that_all_share_may_be_as_long_as_there_are_members():
    recipe = Recipe(NET.replace(sizes=(1, 4, 3)), losses.quantile, optax.adam, epochs=2)
    levels = np.array([0.1, 0.5, 0.9], "f")
    _, history = population.fit(KEYS, (X, Y), recipe, {**RATE, "level": population.shared(levels)})
    _, alone = jaxmlp.fit(KEYS[1], (X, Y), recipe, {**RATE, "level": levels})
    np.testing.assert_allclose(history["loss"][1], alone["loss"], rtol=1e-5)


def test_folds_share_the_tree():
    numbers = {**RATE, "base": population.shared(BASE), "scale": {"y": SCALES[0]}}
    found = population.cross_validate(KEYS[0], (X, Y), RECIPE, numbers, folds=3)
    assert np.isfinite(found.scores["loss"]).all()
    with pytest.raises(ValueError, match="scale'\\] must be shared by all folds and seeds"):
        population.cross_validate(KEYS[0], (X, Y), RECIPE, ALL, folds=3)


@pytest.mark.bits
@pytest.mark.parametrize(("keys", "numbers"), [(KEYS[0], ONE), (KEYS, ALL)])
def test_a_checkpoint_holds_the_trees_and_knows_others(tmp_path, keys, numbers):
    longer = dataclasses.replace(RECIPE, epochs=5)
    straight, whole = loop.train(keys, (X, Y), longer, numbers, progress=False)
    loop.train(keys, (X, Y), RECIPE, numbers, directory=tmp_path, progress=False)
    _, told = loop.resume(tmp_path, (X, Y), recipe=longer, epochs=5, progress=False)
    same(told["loss"], whole["loss"])
    state, told = loop.train(keys, (X, Y), longer, numbers, directory=tmp_path, progress=False)  # it has ended
    same(state.params, straight.params)
    other = jax.tree.map(lambda a: a + 1, BASE)
    others = {**numbers, "base": other if keys.ndim == 0 else population.shared(other)}
    with pytest.raises(ValueError, match="hyperparams.base.arrays"):
        loop.train(keys, (X, Y), longer, others, directory=tmp_path, progress=False)


@pytest.mark.parametrize("scale", [np.float64([2.0]), np.array([2]), 2.0], ids=["float64", "int64", "a number"])
def test_a_run_goes_on_with_leaves_of_any_dtype(tmp_path, scale):
    def error(outputs, targets, *, scale):
        return jnp.sum(jnp.square(outputs - targets), axis=-1) / jnp.sum(jnp.asarray(scale["y"], jnp.float32))

    recipe, longer = (Recipe(NET, error, optax.adam, epochs=n, batch_size=10) for n in (2, 3))
    numbers = {**RATE, "scale": {"y": scale}}
    loop.train(KEYS[0], (X, Y), recipe, numbers, directory=tmp_path, progress=False)
    _, told = loop.resume(tmp_path, (X, Y), recipe=longer, epochs=3, progress=False)
    np.testing.assert_allclose(told["loss"], jaxmlp.fit(KEYS[0], (X, Y), longer, numbers)[1]["loss"], rtol=1e-6)


def test_two_arrays_of_one_name_are_refused():
    with pytest.raises(ValueError, match="must have a name of its own for each array; 'y.z' stands for two"):
        jaxmlp.fit(KEYS[0], (X, Y), RECIPE, {**ONE, "scale": {"y.z": SCALES[0], "y": {"z": SCALES[0]}}})


class Pair(tuple):
    pass


jax.tree_util.register_pytree_node(Pair, lambda pair: (tuple(pair), None), lambda _, items: Pair(items))


def test_trees_of_other_classes_are_asked_for_again(tmp_path):
    class Own(Correction):
        def apply(self, params, x, *, base):
            return super().apply(params, x, base=base[0])

    recipe = dataclasses.replace(RECIPE, model=Own(NET), loss=losses.squared_error)
    numbers = {**RATE, "base": Pair((BASE,))}
    loop.train(KEYS[0], (X, Y), recipe, numbers, directory=tmp_path, progress=False)
    longer = dataclasses.replace(recipe, epochs=4)
    with pytest.raises(ValueError, match="hyperparams must be given to resume: .* the tree of base"):
        loop.resume(tmp_path, (X, Y), recipe=longer, epochs=4, progress=False)
    _, told = loop.resume(tmp_path, (X, Y), recipe=longer, epochs=4, hyperparams=numbers, progress=False)
    assert told["loss"].shape == (4,)


def test_a_start_is_read_as_it_was_written():
    trees = {"net": (Layer(np.ones((2, 1), "f"), np.zeros(1, "f")), [np.ones(3, "f")]), "none": None}
    of_each = jax.tree.map(lambda a: np.stack([a, a + 1]), trees)
    alone = Start(KEYS[0], {"rate": 0.1, "of": trees})
    together = Start(KEYS[:2], {"rate": jnp.ones(2), "of": of_each}, {"all": trees})
    for start in (alone, together):
        keys = KEYS[: 1 if start.single else 2]
        found = read(keys, start.told(), start.arrays(), single=start.single)
        same((found.hyperparams, found.shared), (start.hyperparams, start.shared))
    assert form_of({"a": object()}) is None and form_of({1: np.ones(1)}) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base": population.shared(BASE)}, r"hyperparams\['base'\] must be the tree itself for one network"),
        ({"power": {"a": SCALES}}, r"hyperparams\['power'\] must be a number, as scaled_error takes it"),
        ({"learning_rate": {"a": SCALES}}, r"hyperparams\['learning_rate'\] must be a number, as adam takes it"),
        ({"scale": {"y": "two"}}, r"hyperparams\['scale'\]\['y'\] must be an array or a number; got str 'two'"),
    ],
)
def test_a_tree_where_none_is_taken_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        jaxmlp.fit(KEYS[0], (X, Y), RECIPE, {**ONE, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base": BASE}, r"hyperparams\['base'\] must say whose it is .* population.shared\(tree\)"),
        ({"base": population.each(BASE)}, r"hyperparams\['base'\] of each member must have leaves \(3, ...\)"),
        ({"power": np.ones(2)}, r"one entry for each of 3 keys.*; population.shared\(array\) gives all of them"),
    ],
)
def test_members_are_told_whose_a_tree_is(changed, message):
    with pytest.raises(ValueError, match=message):
        population.fit(KEYS, (X, Y), RECIPE, {**ALL, **changed})


@pytest.mark.parametrize("value", [0.05, np.float32(0.05), jnp.float32(0.05)])
def test_one_number_may_be_said_to_be_shared(value):
    recipe = Recipe(MLP((1, 4, 1)), losses.squared_error, optax.adam, epochs=2)
    _, history = population.fit(KEYS, (X, Y), recipe, {"learning_rate": population.shared(value)})
    _, expected = population.fit(KEYS, (X, Y), recipe, {"learning_rate": value})
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-6)
    with pytest.raises(ValueError, match="learning_rate must"):
        population.fit(KEYS, (X, Y), recipe, {"learning_rate": population.shared(-value)})
