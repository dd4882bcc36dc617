"""Grids and random designs: the order they promise, the ranges they keep, the table they print."""

import itertools

import jax
import numpy as np
import optax
import pytest

from jaxmlp import MLP, Recipe, losses, metrics, population
from jaxmlp.population import LogUniform, Uniform

KEY = jax.random.key(0)
X, Y = np.ones((6, 3), "f"), np.ones((6, 1), "f")
RECIPE = Recipe(MLP((3, 1)), losses.squared_error, optax.sgd, epochs=1)


def test_a_grid_is_row_major_with_the_seeds_last():
    keys, found = population.grid(seeds=3, a=[1.0, 2.0], b=[5.0, 6.0, 7.0, 8.0])
    assert keys.shape == (24,) and list(found) == ["a", "b"]
    a, b = (np.asarray(found[name]).reshape(2, 4, 3) for name in "ab")
    assert (a == np.array([1.0, 2.0])[:, None, None]).all() and (b == np.arange(5.0, 9.0)[None, :, None]).all()
    data = np.asarray(jax.random.key_data(keys)).reshape(2, 4, 3, -1)
    for seed in range(3):
        assert (data[:, :, seed] == np.asarray(jax.random.key_data(jax.random.key(seed)))).all()
    other, _ = population.grid(seeds=2, key=jax.random.key(9), a=[1.0])
    assert (jax.random.key_data(other[1]) == jax.random.key_data(jax.random.fold_in(jax.random.key(9), 1))).all()


def test_vectors_are_values_too():
    _, found = population.grid(level=[[0.1, 0.9], [0.25, 0.75]])
    assert found["level"].shape == (2, 2) and "0.25 0.75" in str(found)


def test_random_designs_keep_their_ranges_and_their_laws():
    keys, found = population.sample(
        jax.random.key(1), 500, seeds=2, a=Uniform(-1, 3), b=LogUniform(1e-4, 1.0), c=[1.0, 2.0, 4.0]
    )
    assert keys.shape == (1000,) and all(value.shape == (1000,) for value in found.values())
    a, b, c = (np.asarray(found[name])[::2] for name in "abc")
    assert -1 <= a.min() and a.max() < 3 and 1e-4 <= b.min() and b.max() < 1
    assert abs(a.mean() - 1) < 0.2 and abs(np.log10(b).mean() + 2) < 0.2
    assert set(c) == {1.0, 2.0, 4.0} and (np.asarray(found["a"])[1::2] == a).all()


def test_settings_are_a_pytree_that_prints_as_a_table():
    _, found = population.grid(seeds=20, rate=[1e-3, 1e-2], decay=[0.0])
    lines = str(found).splitlines()
    assert lines[0].split() == ["member", "rate", "decay"] and len(lines) == 17 and "..." in lines[11]
    twice = jax.tree.map(lambda a: 2 * a, found)
    assert type(twice) is type(found) and twice["rate"][0] == 2e-3
    assert jax.vmap(lambda s: s["rate"] + s["decay"])(found).shape == (40,)
    assert str(population.Settings()) == "no hyperparams" and repr(population.Settings()) == "Settings()"
    assert repr((found,)) == "(Settings(rate=(40,), decay=(40,)),)"


def test_a_grid_takes_columns_of_any_library():
    polars = pytest.importorskip("polars")
    assert population.grid(rate=polars.Series([0.5, 0.25]))[1]["rate"].tolist() == [0.5, 0.25]
    for values, words in ((polars.Series(["a"]), "rate must hold numbers; got String"), (list, "must list its values")):
        with pytest.raises(ValueError, match=words):
            population.grid(rate=values)


@pytest.mark.parametrize(
    ("design", "words"),
    [
        (lambda: population.grid(learning_rate=[0.1], seeds=10**9), "got 1 settings of 1,000,000,000 seeds each"),
        (lambda: population.grid(a=range(2000), b=range(2000)), "got 4,000,000 settings of 1 seeds each"),
        (lambda: population.sample(KEY, 10**9, a=population.Uniform(0, 1)), "got 1,000,000,000 settings"),
        (lambda: population.settings({"a": i} for i in itertools.count()), "got 1,000,001 settings of 1 seeds"),
        (lambda: population.grid(a=itertools.count()), "got 1,000,001 settings of 1 seeds each"),
        (lambda: population.cross_validate(KEY, (X, Y), RECIPE, seeds=10**8, folds=2), "got 2 settings of 100,000,000"),
    ],
)
def test_a_design_is_bounded_before_its_first_member_is_made(design, words):
    with pytest.raises(ValueError, match="a design must have at most 1,000,000 members; got ") as error:
        design()
    assert words in str(error.value)


def test_counts_that_cost_time_or_memory_are_bounded():
    outputs = np.ones((4, 2), "f")
    with pytest.raises(ValueError, match="bins must be at most 1048576; got 1099511627776"):
        metrics.expected_calibration_error(outputs, np.zeros(4, int), bins=2**40)
    with pytest.raises(ValueError, match="rounds must be at most 1000000; got 1000000000"):
        population.greedy(outputs, lambda p: p.sum(), rounds=10**9)


def test_wide_ranges_stay_within_themselves():
    with jax.enable_x64(True):
        key = jax.random.key(0)
        _, found = population.sample(key, 50, a=Uniform(-1.7e308, 1.7e308), b=LogUniform(1e-300, 1e300))
        a, b = np.asarray(found["a"]), np.asarray(found["b"])
    assert np.isfinite(a).all() and a.min() < -1e307 and a.max() > 1e307
    assert (b >= 1e-300).all() and (b <= 1e300).all() and b.min() < 1e-100 and b.max() > 1e100


def test_a_design_without_numbers_has_as_many_members_as_it_says():
    keys, found = population.sample(KEY, 5, seeds=2)
    assert keys.shape == (10,) and not found and len({tuple(k) for k in jax.random.key_data(keys).tolist()}) == 10
