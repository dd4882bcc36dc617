"""One answer to what an array is: whatever holds numbers is converted, whatever hides or lacks them is refused."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, _arrays, data, linear, loop, losses, population

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 3)).astype("f")
Y = X[:, :1] * 2
LABELS = np.array([0, 1, 1, 0, 1, 0])
RECIPE = Recipe(MLP((3, 2, 1)), losses.squared_error, optax.sgd, epochs=1, batch_size=3)
RATE = {"learning_rate": 0.1}


class ByProtocol:
    """An array of a library that JAX has never heard of."""

    def __init__(self, values, *names):
        for name in names:
            setattr(self, name, getattr(values, name))


class Own(np.ndarray):
    pass


def of_library(name):
    return pytest.importorskip(name)


SAME = {
    "other byte order": lambda: X.astype(">f4"),
    "long double": lambda: X.astype(np.longdouble),
    "float64": lambda: X.astype(np.float64),
    "matrix": lambda: X.view(np.matrix),
    "subclass": lambda: X.view(Own),
    "read-only": lambda: np.broadcast_to(X, X.shape),
    "not contiguous": lambda: np.asfortranarray(X),
    "reversed": lambda: X[::-1][::-1],
    "jax": lambda: jnp.asarray(X),
    "__array__": lambda: type("A", (), {"__array__": lambda self, dtype=None, copy=None: X})(),
    "__dlpack__": lambda: ByProtocol(X, "__dlpack__", "__dlpack_device__"),
    "__array_interface__": lambda: ByProtocol(X, "__array_interface__"),
    "torch": lambda: of_library("torch").tensor(X),
    "torch with a gradient": lambda: of_library("torch").tensor(X, requires_grad=True),
    "torch, transposed": lambda: of_library("torch").tensor(X.T.copy()).T,
    "pandas": lambda: of_library("pandas").DataFrame(X, columns=list("abc")),
    "pandas, nullable": lambda: of_library("pandas").DataFrame(X, columns=list("abc")).astype("Float32"),
    "pandas, other index": lambda: of_library("pandas").DataFrame(X, index=range(9, 3, -1)),
    "polars": lambda: of_library("polars").DataFrame(X, schema=list("abc")),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_holds_numbers_is_an_array(kind):
    given = SAME[kind]()
    found = _arrays.array("x", given)
    assert isinstance(found, jax.Array) or type(found) is np.ndarray and found.dtype.isnative
    np.testing.assert_array_equal(found, X)


def test_columns_and_scalars_of_other_libraries():
    pandas, polars, torch = map(of_library, ("pandas", "polars", "torch"))
    for column in (pandas.Series(LABELS), pandas.array(LABELS, "Int64"), polars.Series(LABELS), torch.tensor(LABELS)):
        found = _arrays.array("y", column)
        assert found.shape == (6,) and found.dtype == np.int64
    mixed = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    np.testing.assert_array_equal(_arrays.array("x", mixed), [[1, 0.5, 1], [2, 1.5, 0]])
    twice = pandas.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    np.testing.assert_array_equal(_arrays.array("x", twice), [[1, 2]])
    half = _arrays.array("x", torch.ones(2, dtype=torch.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert _arrays.number("rate", torch.tensor(0.5)) == 0.5


def test_what_is_an_array_already_is_left_alone():
    for value in (X, jnp.asarray(X), LABELS, X > 0, X.astype(jnp.bfloat16), np.zeros((), "f")):
        assert _arrays.array("x", value) is value
    table = {"a": X, "b": [X, None]}
    assert jax.tree.leaves(_arrays.tree("x", table))[0] is X
    jax.jit(lambda x: _arrays.array("x", x))(X)  # a tracer


def sparse():
    return of_library("scipy.sparse").csr_array(X)


REFUSED = {
    "masked": (lambda: np.ma.masked_greater(X, 0), "x must not be masked: what is under the mask would be trained on"),
    "masked nowhere": (lambda: np.ma.masked_array(X), "fill it, x.filled(...), or drop the masked rows"),
    "scipy sparse": (sparse, "x must be dense; got a sparse csr_array; pass x.todense()"),
    "jax sparse": (lambda: sparse_of_jax(), "x must be dense; got a sparse BCOO; pass x.todense()"),
    "text": (lambda: X.astype(str), "x must hold numbers; got text"),
    "bytes": (lambda: X.astype("S"), "x must hold numbers; got bytes"),
    "objects": (lambda: X.astype(object), "x must hold numbers; got Python objects, object of shape (6, 3); x.astype("),
    "dates": (lambda: np.zeros(6, "M8[s]"), "got dates, datetime64[s] of shape (6,); count from one of them: (x - x.m"),
    "durations": (lambda: np.zeros(6, "m8[s]"), "say in which unit: x / numpy.timedelta64(1, 's')"),
    "complex": (lambda: X * 1j, "got complex numbers, complex64 of shape (6, 3); pass x.real and x.imag as columns"),
    "complex of jax": (lambda: jnp.asarray(X * 1j), "x must hold real numbers; got complex numbers"),
    "keys": (lambda: jax.random.split(KEY, 6), "x must hold real numbers; got no numbers, key<fry> of shape (6,)"),
    "records": (lambda: np.zeros(6, [("a", "f4")]), "numpy.lib.recfunctions.structured_to_unstructured(x)"),
    "list": (lambda: [1.0, 2.0], "x must be an array; got list [1.0, 2.0]; pass jnp.asarray(x)"),
    "a number beyond float32": (lambda: X.astype(float) * 1e39, "x must fit float32, in which JAX computes; got "),
    "a number beyond float64": (
        lambda: np.full(2, np.finfo(np.longdouble).max),
        "x must fit float64, the widest that JAX has; got 1.18973",
    ),
    "an integer beyond int32": (
        lambda: np.array([[1, 2**32 + 1]]),
        "x must fit int32, in which JAX computes; got 4294967297 at x[0, 1]; renumber it, or enable jax_enable_x64",
    ),
    "an unsigned one": (lambda: np.array([2**63], "u8"), "x must fit uint32, in which JAX computes; got 92233720368"),
    "a broken one": (lambda: type("A", (), {"__array__": lambda *_, **__: 1 / 0})(), "could not be: ZeroDivisionError"),
    "torch, sparse": (lambda: of_library("torch").tensor(X).to_sparse(), "x must be a dense tensor of plain numbers"),
    "torch, complex": (lambda: of_library("torch").tensor(X * 1j), "x must hold numbers; got complex numbers"),
    "pandas, objects": (
        lambda: of_library("pandas").DataFrame({"a": [1, "b"]}, dtype=object),
        "column 'a' of x must hold numbers; got Python objects",
    ),
    "pandas, text": (lambda: of_library("pandas").DataFrame({"a": ["b"]}), "column 'a' of x must hold numbers; got "),
    "pandas, categories": (
        lambda: of_library("pandas").Series([1, 2], dtype="category"),
        "x must hold numbers; got categories; pass its .cat.codes",
    ),
    "pandas, missing": (
        lambda: of_library("pandas").DataFrame({"a": [1, None]}, dtype="Int64"),
        "column 'a' of x must not have missing values; got 1 of them; fillna(...) or dropna() first",
    ),
    "polars, missing": (
        lambda: of_library("polars").DataFrame({"a": [1, None]}),
        "column 'a' of x must not have missing values; got 1 of them; fill_null(...) or drop_nulls() first",
    ),
    "torch, nested": (lambda: nested(), "x must have rows of one length; got a nested tensor; pad it"),
    "polars, text": (
        lambda: of_library("polars").Series(["a"]),
        "x must hold numbers; got String; pass its .cast(polars.Categorical).to_physical() as labels",
    ),
    "polars, categories": (
        lambda: of_library("polars").Series(["a"], dtype=of_library("polars").Categorical),
        "x must hold numbers; got Categorical; pass its .cast(",
    ),
    "polars, lazy": (
        lambda: of_library("polars").DataFrame({"a": [1]}).lazy(),
        "x must be a table in memory; got a LazyFrame; pass x.collect()",
    ),
}


def nested():
    torch = of_library("torch")
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


def sparse_of_jax():
    from jax.experimental.sparse import BCOO

    return BCOO.fromdense(jnp.asarray(X))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_hides_or_lacks_numbers_is_refused(kind):
    make, words = REFUSED[kind]
    given = make()
    with pytest.raises(ValueError, match=re.escape(words)):
        _arrays.array("x", given)


def test_infinities_and_small_numbers_pass_to_their_own_checks():
    for value in ([np.inf, np.nan, 1.0], [1e-60, 0.0]):
        _arrays.array("x", np.array(value))
    with jax.enable_x64(True):
        _arrays.array("x", np.array([1e39, 2.0**40]))


def test_numbers():
    assert _arrays.number("rate", 0.1) == 0.1 and _arrays.number("rate", 3) == 3
    for value, words in {
        True: "rate must be a number; got True; a flag chooses the program",
        1e39: "rate must fit float32, in which JAX computes; got 1e+39; rescale it",
        2**40: "rate must fit int32",
        10**30: "rate must fit uint32",
        "0.1": "rate must be a number; got str '0.1'",
        None: "rate must be a number; got NoneType None",
        optax.constant_schedule: "a schedule is a part of the program: write a factory",
    }.items():
        with pytest.raises(ValueError, match=re.escape(words)):
            _arrays.number("rate", value)


@pytest.mark.parametrize("kind", ["other byte order", "__array__", "torch with a gradient", "pandas", "polars"])
def test_every_door_takes_them(kind):
    """To the bits of a run on the same numbers in NumPy."""
    x = SAME[kind]()
    y = _arrays.array("y", SAME[kind]())[:, :1] * 2
    state, history = jaxmlp.fit(KEY, (X, Y), RECIPE, RATE)
    for verb in (
        lambda data: jaxmlp.fit(KEY, data, RECIPE, RATE, validation=data)[0].params,
        lambda data: population.fit(KEY[None], data, RECIPE, RATE)[0].params,
        lambda data: jaxmlp.loop.train(KEY, data, RECIPE, RATE, progress=False, validation=data)[0].params,
        lambda data: jaxmlp.step(state, data, RECIPE, RATE)[0].params,
        lambda data: jaxmlp.epoch(state, data, RECIPE, RATE)[0].params,
        lambda data: jaxmlp.evaluate(state.params, data, RECIPE, RATE),
    ):
        jax.tree.map(np.testing.assert_array_equal, verb((x, y)), verb((X, Y)))


def test_a_table_in_a_dict_is_one_leaf():
    class Summed:
        def init(self, key):
            return MLP((3, 1)).init(key)

        def apply(self, params, x):
            return MLP((3, 1)).apply(params, x["table"]) + x["bias"]

    pandas = of_library("pandas")
    data = {"table": pandas.DataFrame(X), "bias": jnp.asarray(Y)}, pandas.DataFrame(Y)
    recipe = Recipe(Summed(), losses.squared_error, optax.sgd, epochs=1)
    state, _ = jaxmlp.fit(KEY, data, recipe, RATE)
    same, _ = jaxmlp.fit(KEY, ({"table": X, "bias": Y}, Y), recipe, RATE)
    jax.tree.map(np.testing.assert_array_equal, state.params, same.params)


def test_the_door_says_what_is_wrong_and_where():
    for given, words in {
        "masked": ((X, np.ma.masked_array(Y)), "y must not be masked"),
        "beyond": ((X.astype(float) * 1e39, Y), "x must fit float32"),
        "weight": ((X, Y, np.full(6, 1e39)), "weight must fit float32"),
        "vanishing": ((X, Y, np.full(6, 1e-60)), "weight of data must not be zero for every example"),
        "weights of two kinds": ((X, Y, {"a": X[:, 0]}), "weight of data must be one array"),
        "weights in a list": ((X, Y, [1.0] * 6), r"\[1.0, 1.0, 1.0, 1.0, 1.0, 1.0\]; pass numpy.asarray\(weight\)"),
        "a list": ((X.tolist(), Y), r"x of data must be an array .* got float -?\d.*; pass numpy.asarray\(x\)"),
    }.values():
        with pytest.raises(ValueError, match=words):
            jaxmlp.fit(KEY, given, RECIPE, RATE)
        with pytest.raises(ValueError, match=words):
            population.fit(KEY[None], given, RECIPE, RATE)
    with pytest.raises(ValueError, match="validation x must fit float32"):
        jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, validation=(X.astype(float) * 1e39, Y))
    for rate in (1e39, np.array([0.1, 1e39])):
        with pytest.raises(ValueError, match=r"hyperparams\['learning_rate'\] must fit float32"):
            population.fit(jax.random.split(KEY, 2), (X, Y), RECIPE, {"learning_rate": rate})
    with pytest.raises(ValueError, match="weights must fit float32"):
        population.fit(KEY[None], (X, Y), RECIPE, RATE, weights=np.full((1, 6), 1e39))
    with pytest.raises(ValueError, match="for member 0"):
        population.fit(KEY[None], (X, Y), RECIPE, RATE, weights=np.full((1, 6), 1e-60))


def test_numbers_beyond_the_dtype_are_refused_wherever_parameters_and_data_come_in(tmp_path):
    """1e39 of float64, which JAX without 64 bits would take for infinite."""
    mlp = RECIPE.model
    state = jaxmlp.start(KEY, RECIPE, RATE)
    huge = jax.tree.map(lambda a: np.full(a.shape, 1e39), state.params)
    layer = huge[0]
    for name, table in (("x", np.full((6, 3), 1e39)), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", table)
    files = dataclasses.replace(RECIPE, batch_size=3)
    doors = {
        "apply": lambda: mlp.apply(huge, X),
        "affine": lambda: linear.affine(layer, X),
        "compose": lambda: linear.compose(huge[:1]),
        "gradients": lambda: linear.gradients(layer, X, X[:, :1]),
        "step": lambda: jaxmlp.step(state._replace(params=huge), (X, Y), RECIPE, RATE),
        "epoch": lambda: jaxmlp.epoch(state._replace(params=huge), (X, Y), RECIPE, RATE),
        "evaluate": lambda: jaxmlp.evaluate(huge, (X, Y), RECIPE, RATE),
        "save": lambda: jaxmlp.save(tmp_path / "model", mlp, huge),
        "loader": lambda: loop.train(KEY, [(np.full((6, 3), 1e39), Y)], RECIPE, RATE, progress=False),
        "files": lambda: loop.train(KEY, tmp_path, files, RATE, progress=False),
    }
    for name, call in doors.items():
        with pytest.raises(ValueError, match=r"must fit float32, in which JAX computes; got 1e\+39") as error:
            call()
        assert "rescale it" in str(error.value), name
    assert not (tmp_path / "model").exists()
    narrow = data.statistics(np.array([[1e-3], [2e-3]]))
    for far in (np.array([[4e38]]), np.array([[3e38]], "f")):
        with pytest.raises(
            ValueError, match="x must be as near to the mean as float32 can tell; got .*e[+]41 standard"
        ):
            data.standardise(far, narrow)
    np.testing.assert_array_equal(
        data.standardise(np.array([[np.inf, np.nan]]), data.statistics(np.eye(2))), np.array([[np.inf, np.nan]])
    )


def test_a_state_of_numpy_in_another_byte_order_makes_the_same_step():
    state = jaxmlp.start(KEY, RECIPE, RATE)
    other = state._replace(params=jax.tree.map(lambda a: np.asarray(a).astype(">f4"), state.params))
    np.testing.assert_array_equal(RECIPE.model.apply(other.params, X), RECIPE.model.apply(state.params, X))
    long = jax.tree.map(lambda a: np.asarray(a).astype(np.longdouble), state.params)
    np.testing.assert_array_equal(RECIPE.model.apply(long, X), RECIPE.model.apply(state.params, X))
    with pytest.raises(ValueError, match="state.params must hold floats, which have gradients; got int32"):
        jaxmlp.step(state._replace(params=jax.tree.map(lambda a: a.astype("i4"), state.params)), (X, Y), RECIPE, RATE)
    for verb in (jaxmlp.step, jaxmlp.epoch):
        one, two = (verb(given, (X, Y), RECIPE, RATE)[0].params for given in (state, other))
        jax.tree.map(np.testing.assert_array_equal, one, two)
