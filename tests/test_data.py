"""Splits, folds and orders are what they say: each row once, uniform, a function of the key."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from jaxmlp import data


def test_standardise_is_scikit_learns_and_comes_back():
    x = np.random.default_rng(0).normal(5, [1, 20, 0.1], size=(40, 3)).astype("f")
    by = data.statistics(x)
    np.testing.assert_allclose(data.standardise(x, by), StandardScaler().fit_transform(x), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(data.unstandardise(data.standardise(x, by), by), x, rtol=1e-5)


@pytest.mark.parametrize("column", [1.7e18 + 1024 * np.arange(5.0), 1.7e15 + np.arange(5.0), 1e15 + np.arange(4.0)])
def test_whole_numbers_far_from_zero_are_no_constants(column):
    """Nanoseconds since 1970: each is exact in float64, and so is each difference."""
    by = data.statistics(column[:, None])
    exact = (column - column[0]).std()
    np.testing.assert_allclose(by.std, exact, rtol=1e-9)
    found = data.standardise(column[:, None], by).ravel()
    np.testing.assert_allclose(found, (column - column.mean()) / exact, rtol=1e-6, atol=1e-6)


def test_rounding_is_no_deviation():
    by = data.statistics(np.array([[0.1 + 0.2], [0.3]]))
    assert by.std[0] == 1


@pytest.mark.parametrize(
    ("name", "bad"), [("std", 0.0), ("std", -1.0), ("std", np.nan), ("std", np.inf), ("mean", np.nan)]
)
def test_statistics_that_none_can_have_are_refused(name, bad):
    by = data.statistics(np.eye(3, 2))._replace(**{name: np.array([1.0, bad])})
    for call in (data.standardise, data.unstandardise):
        with pytest.raises(ValueError, match=f"{name} of the statistics must be finite"):
            call(np.ones((1, 2), "f"), by)


@given(value=st.floats(-1e6, 1e6, width=32), n=st.integers(1, 50))
def test_constant_columns_survive(value, n):
    x = np.full((n, 1), value, "f")
    by = data.statistics(x)
    assert by.std[0] == 1
    np.testing.assert_allclose(data.standardise(x, by), np.zeros((n, 1)), atol=abs(value) * 1e-5)


def test_weighted_statistics_are_those_of_the_repeated_rows():
    x = np.random.default_rng(0).normal(size=(4, 2)).astype("f")
    repeated = data.statistics(x[[0, 1, 1, 3, 3, 3]])
    weighted = data.statistics(x, jnp.array([1.0, 2.0, 0.0, 3.0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), repeated, weighted)


def hard_table(n=40):
    """Seconds since 1970, ends of the range of 32 bits, a constant."""
    rng = np.random.default_rng(1)
    columns = [1.7e9 + 300.0 * np.arange(n), 1e20 * rng.normal(size=n), 1e-25 * (1 + rng.random(n)), np.full(n, 0.1)]
    return np.stack(columns, 1)


WEIGHT = np.random.default_rng(2).integers(0, 4, 40)
WEIGHTS = [
    None,
    WEIGHT,
    WEIGHT.astype(np.float16) * 2e4,
    (WEIGHT * 2.0**126).astype("f"),
    (WEIGHT * 2.0**-140).astype("f"),
]


@pytest.mark.parametrize("weight", WEIGHTS, ids=["plain", "integers", "half", "huge", "subnormal"])
@pytest.mark.parametrize("wide", [False, True])
def test_statistics_neither_round_nor_overflow_nor_vanish(weight, wide):
    """A float64 table is centred before it is narrowed; scikit-learn's float64 numbers."""
    x = hard_table()
    repeated = x if weight is None else np.repeat(x, WEIGHT, axis=0)
    std = np.where(np.ptp(x, 0) > 0, np.sqrt(np.square((repeated - repeated.mean(0)) / x[0]).mean(0)) * np.abs(x[0]), 1)
    right = (x - repeated.mean(0)) / std
    with jax.enable_x64(wide):
        by = data.statistics(x, None if weight is None else np.asarray(weight, "f8" if weight.dtype == int else None))
        assert by.mean.dtype == by.std.dtype == np.float64 and isinstance(by.mean, np.ndarray) != wide
        np.testing.assert_allclose(by.std, std, rtol=1e-9)
        z = data.standardise(x, by)
        assert isinstance(z, jax.Array) and z.dtype == (jnp.float64 if wide else jnp.float32)
        np.testing.assert_allclose(z, right, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(data.unstandardise(z, by), x, rtol=1e-9 if wide else 1e-6)
        assert np.abs(np.asarray(data.unstandardise(z, by))[:, 0] - x[:, 0]).max() < 0.01  # of 12000 seconds
        narrow = x[:, 1:].astype("f")
        for statistics in (data.statistics, jax.jit(data.statistics)):
            by = statistics(narrow, weight if weight is None or weight.dtype != int else weight.astype("f"))
            assert by.mean.dtype == by.std.dtype == jnp.float32
            np.testing.assert_allclose(by.std, std[1:], rtol=1e-5)
            np.testing.assert_allclose(data.standardise(narrow, by), right[:, 1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_statistics_of_half_precision_are_those_of_its_values(dtype):
    x = np.array([[6e4, 2000, 1e-4], [-6e4, 2010, 2e-4], [5e4, 2003, 3e-4]]).astype(dtype)
    values = x.astype(np.float64)
    for statistics in (data.statistics, jax.jit(data.statistics)):
        by = statistics(jnp.asarray(x))
        assert by.std.dtype == by.mean.dtype == data.standardise(x, by).dtype == dtype
        np.testing.assert_allclose(by.std.astype("f"), values.std(0), rtol=1e-2)
        z = (values - np.float64(by.mean.astype("f"))) / np.float64(by.std.astype("f"))
        np.testing.assert_allclose(data.standardise(x, by).astype("f"), z, rtol=1e-2, atol=1e-2)


def test_statistics_at_the_ends_of_the_range():
    x = np.array([[3e38], [3e38], [-3e38]], "f")
    by = data.statistics(x)
    for table in (x, jnp.asarray(x)):
        np.testing.assert_allclose(data.standardise(table, by), [[0.5**0.5], [0.5**0.5], [-(2**0.5)]], rtol=1e-6)
    lost = data.statistics(np.array([[1e-40], [2e-40]], "f"))  # zero to the processor, so constant
    assert lost.std[0] == 1
    for odd in (np.longdouble, ">f8"):
        table = hard_table().astype(odd)
        np.testing.assert_allclose(data.standardise(table, data.statistics(table))[:, 2].std(), 1, rtol=1e-5)


@given(n=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_a_split_holds_each_row_once(n, share, seed):
    train, test = data.split(jax.random.key(seed), n, share)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
    assert len(train) >= 1 and len(test) == min(max(round(share * n), 1), n - 1)


@given(n=st.integers(2, 40), k=st.integers(2, 10))
def test_folds_test_each_row_once(n, k):
    folds = data.k_folds(jax.random.key(n), n, min(k, n))
    assert sorted(row for fold in folds for row in fold.test.tolist()) == list(range(n))
    for train, test in folds:
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_stratified_folds_share_the_labels_evenly(key):
    labels = np.array([0] * 50 + [1] * 23 + [2] * 7)
    for fold in data.k_folds(key, 80, 5, stratify=labels):
        counts = np.bincount(labels[fold.test], minlength=3)
        assert np.all(np.abs(counts - np.array([10, 4.6, 1.4])) <= 1)


@given(n=st.integers(1, 70), batch_size=st.integers(1, 70), epoch=st.integers(0, 5))
def test_an_epoch_holds_each_row_once(n, batch_size, epoch):
    batch_size = min(n, batch_size)
    order = data.epoch_order(jax.random.key(1), epoch, n, batch_size)
    assert order.rows.shape == order.weight.shape == (math.ceil(n / batch_size), batch_size)
    index, weight = np.ravel(order.rows), np.ravel(order.weight)
    assert sorted(index[weight == 1].tolist()) == list(range(n))
    assert weight.sum() == n and not index[weight == 0].any()


def test_an_order_is_a_function_of_key_and_epoch(key):
    order = jax.jit(data.epoch_order, static_argnums=(2, 3))
    assert (order(key, 3, 50, 7).rows == data.epoch_order(key, 3, 50, 7).rows).all()
    assert (order(key, 3, 50, 7).rows != order(key, 4, 50, 7).rows).any()
    assert (order(key, 3, 50, 7).rows != order(jax.random.key(1), 3, 50, 7).rows).any()


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**31))
def test_the_shuffle_is_a_bijection_asked_anywhere(n, seed):
    places = jnp.arange(n, dtype=jnp.uint32)
    rows = SHUFFLE(jax.random.key(seed), places, n)
    assert (np.sort(rows) == np.arange(n)).all()


SHUFFLE = jax.jit(data.shuffle, static_argnums=2)


def test_a_table_may_have_two_to_the_31_rows_and_no_more(key):
    """Row numbers are of 32 bits: the largest table whose rows they can name, and one row more."""
    places, most = jnp.array([0, 5, 2**30, 2**31 - 1], jnp.uint32), 2**31
    rows = np.asarray(data.shuffle(key, places, most))
    assert len(set(rows.tolist())) == 4 and (rows < most).all()
    np.testing.assert_array_equal(rows, data.shuffle(key, places, jnp.uint32(most)))
    order = jax.eval_shape(lambda key: data.epoch_order(key, 0, most, 2**20), key)
    assert order.rows.shape == (2**11, 2**20)
    for n in (most + 1, 2**32, 2**40):
        with pytest.raises(ValueError, match=r"n must be at most 2\^31"):
            data.epoch_order(key, 0, n, 4)


def orders(n, keys):
    """Return (keys, n) permutations."""
    shuffle = jax.vmap(lambda key: data.shuffle(key, jnp.arange(n, dtype=jnp.uint32), n))
    return np.asarray(jax.jit(shuffle)(jax.random.split(jax.random.key(7), keys))).astype(np.int64)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_small_shuffles_take_every_permutation_alike(n):
    codes = orders(n, 24_000) @ n ** np.arange(n)
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == math.factorial(n)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def cycles(rows):
    """Return the number of cycles of each permutation: its rows that are the least of theirs, found by doubling."""
    start = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    least, ahead = start, rows
    for _ in range(rows.shape[1].bit_length()):
        least = np.minimum(least, np.take_along_axis(least, ahead, 1))
        ahead = np.take_along_axis(ahead, ahead, 1)
    return (least == start).sum(1)


def test_cycles_are_counted_by_hand():
    assert cycles(np.array([[0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 3, 0], [1, 0, 3, 2]])).tolist() == [4, 3, 1, 2]


@pytest.mark.parametrize(("n", "keys"), [(7, 4000), (64, 4000), (100, 4000), (1437, 4000), (60_000, 100)])
def test_shuffles_are_uniform_in_positions_pairs_inversions_and_cycles(n, keys):
    rows = orders(n, keys)
    bins = min(n, 16)
    p_values = {}
    for place in (0, n // 2, n - 1):
        binned = np.bincount(rows[:, place] * bins // n, minlength=bins)
        size = np.bincount(np.arange(n) * bins // n, minlength=bins)
        p_values[f"row at place {place}"] = scipy.stats.chisquare(binned, keys * size / n).pvalue
    # The distance between two neighbours: n - d ways of each |d| = 1 ... n - 1.
    distance = np.abs(rows[:, 1] - rows[:, 0])
    ways = 2 * (n - np.arange(1, n)) / (n * (n - 1))
    groups = np.arange(n - 1) * min(n - 1, 16) // (n - 1)
    p_values["pairs"] = scipy.stats.chisquare(
        np.bincount(groups[distance - 1], minlength=groups.max() + 1), keys * np.bincount(groups, ways)
    ).pvalue
    # Rises between neighbours (Eulerian), inversions of a sample of places, and fixed points have known moments.
    first = rows[:, : min(n, 64)]
    m = first.shape[1]
    inversions = (first[:, :, None] > first[:, None, :])[:, *np.triu_indices(m, 1)].sum(1)
    for name, values, mean, variance in (
        ("rises", (rows[:, 1:] > rows[:, :-1]).sum(1), (n - 1) / 2, (n + 1) / 12),
        ("inversions", inversions, m * (m - 1) / 4, m * (m - 1) * (2 * m + 5) / 72),
        ("fixed points", (rows == np.arange(n)).sum(1), 1, 1),
    ):
        z = (values.mean() - mean) / np.sqrt(variance / keys)
        p_values[name] = 2 * scipy.stats.norm.sf(abs(z))
        spread = (values.var() / variance - 1) / np.sqrt(2 / keys + (2 / keys if name == "fixed points" else 0))
        p_values[f"{name}, spread"] = 2 * scipy.stats.norm.sf(abs(spread))
    found, harmonic = cycles(rows), 1 / np.arange(1, n + 1)
    z = (found.mean() - harmonic.sum()) / np.sqrt((harmonic - harmonic**2).sum() / keys)
    p_values["cycles"] = 2 * scipy.stats.norm.sf(abs(z))
    p_values["sign"] = scipy.stats.chisquare(np.bincount((n - found) % 2, minlength=2)).pvalue
    assert min(p_values.values()) > 1e-4, p_values
