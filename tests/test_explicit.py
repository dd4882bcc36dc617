"""Arrays on a mesh of explicit axes, as `jax.make_mesh` makes them: each door takes them and answers as for others.

JAX refuses gathers and sums over such axes wherever it is not told how the result shall lie.
"""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmlp
from jaxmlp import MLP, Recipe, conformal, data, interop, linear, losses, metrics, population, serving, sharding

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("f")
Y = np.sin(X[:, :1])
LABELS = RNG.integers(0, 3, 24)
LOGITS = RNG.normal(size=(24, 3)).astype("f")
KEY = jax.random.key(0)
NET = MLP((4, 8, 8, 8, 1), "tanh", scan=True, dropout=True, norm="layer")
PLAIN = MLP((4, 8, 8, 1), "tanh")
RECIPE = Recipe(PLAIN, losses.squared_error, optax.adam, epochs=2, batch_size=8)
RATE = {"learning_rate": 0.01}


def mesh_of(name, kind=AxisType.Explicit):
    return Mesh(np.array(jax.devices()[:2]), (name,), axis_types=(kind,))


def split(net, name):
    """Return parameters of a net on the host, and split over explicit axes."""
    params = jax.device_get(net.init(KEY))
    return params, sharding.place(params, mesh_of(name), fsdp=name == "data")


def on(*arrays, mesh=None, axis="data"):
    found = jax.device_put(arrays, NamedSharding(mesh_of("data") if mesh is None else mesh, P(axis)))
    return found if len(arrays) > 1 else found[0]


def near(found, expected, atol=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol), found, expected)


def through_a_file(params, x, folder):
    jaxmlp.save(folder / "net.safetensors", NET, params)
    return NET.apply(jaxmlp.load(folder / "net.safetensors")[1], np.asarray(x))


USES = {
    "apply": lambda params, x, _: NET.apply(params, x),
    "apply in a program": lambda params, x, _: jax.jit(NET.apply)(params, x),
    "dropout": lambda params, x, _: NET.apply(params, x, key=KEY, dropout_rate=0.5),
    "derivatives": lambda params, x, _: jax.jit(jax.grad(lambda p: jnp.square(NET.apply(p, x)).sum()))(params)[1].w,
    "tangents": lambda params, x, _: jax.jvp(lambda p: NET.apply(p, x), (params,), (params,))[1],
    "predict": lambda params, x, _: serving.predict(NET, params, x, chunk=7),
    "predict at once": lambda params, x, _: serving.predict(NET, params, x, chunk=None),
    "predict with a key": lambda params, x, _: serving.predict(NET, params, x, key=KEY, dropout_rate=0.5),
    "in_numpy": lambda params, x, _: serving.in_numpy(NET, params)(np.asarray(x)),
    "export": lambda params, x, _: jax.export.deserialize(interop.export(NET, params)).call(np.asarray(x)),
    "save": through_a_file,
    "layers": lambda params, x, _: NET.layers(params)[2].w,
    "transfer": lambda params, x, _: jaxmlp.transfer(KEY, params, NET, NET)[1].w,
}


@pytest.mark.parametrize("name, rows", [("data", True), ("model", False)])
def test_parameters_that_a_mesh_splits_are_used_as_those_of_the_host(name, rows, tmp_path):
    host, params = split(NET, name)
    x = on(X, mesh=params[0].w.sharding.mesh, axis="data" if name == "data" else None) if rows else X
    for use, function in USES.items():
        found, expected = function(params, x, tmp_path), function(host, X, tmp_path)
        np.testing.assert_allclose(
            np.asarray(found), expected, atol=2e-5 if use == "derivatives" else 5e-6, err_msg=use
        )


def test_outputs_lie_by_the_rows_of_x_on_the_mesh_of_the_caller():
    _, params = split(PLAIN, "data")
    assert PLAIN.apply(params, on(X)).sharding.is_equivalent_to(on(X).sharding, 2)
    assert serving.predict(PLAIN, params, on(X)).sharding.mesh == mesh_of("data")
    assert (serving.predict(PLAIN, params, on(X)) - on(Y)).shape == (24, 1)  # JAX mixes no kinds of axes
    assert jax.export.deserialize(interop.export(PLAIN, params)).nr_devices == 1


def test_scikit_learn_takes_them():
    host, params = split(MLP((4, 8, 1)), "model")
    np.testing.assert_allclose(
        interop.to_sklearn(MLP((4, 8, 1)), params).predict(X), MLP((4, 8, 1)).apply(host, X)[:, 0], atol=1e-6
    )


def test_within_a_mesh_of_the_callers_too():
    host, params = split(PLAIN, "data")
    with jax.set_mesh(mesh_of("data")):
        near(serving.predict(PLAIN, params, on(X), chunk=5), PLAIN.apply(host, X))
        near(metrics.rmse(on(Y), on(Y)), 0.0)
        found = jax.grad(lambda p: PLAIN.apply(p, X).sum())(params)
    near(found, jax.grad(lambda p: PLAIN.apply(p, X).sum())(host), 1e-5)


def test_a_program_that_is_bound_to_a_mesh_says_which_axes_it_wants():
    mesh = mesh_of("data")
    state = sharding.start(KEY, RECIPE, RATE, mesh=mesh)
    bound = sharding.bind(RECIPE, RATE, state, on(X, Y))
    with pytest.raises(ValueError, match=r"state must lie on automatic axes in a program of your own.*axis_types="):
        jax.jit(jaxmlp.step)(state, on(X, Y), bound)
    inside = mesh_of("data", AxisType.Auto)
    there = sharding.place(state, inside), on(X, Y, mesh=inside)
    near(jax.jit(jaxmlp.step)(*there, bound)[0].params, jaxmlp.step(state, on(X, Y), bound)[0].params)


FIGURES = {
    "rmse": lambda on: metrics.rmse(on(Y), on(X[:, :1]), weight=on(X[:, 0] ** 2)),
    "r2": lambda on: metrics.r2(on(Y), on(X[:, :1])),
    "mae": lambda on: metrics.mae(on(Y), on(X[:, :1])),
    "confusion_matrix": lambda on: metrics.confusion_matrix(on(LOGITS), on(LABELS)),
    "calibration": lambda on: metrics.expected_calibration_error(on(LOGITS), on(LABELS)),
    "top_k": lambda on: metrics.top_k_accuracy(on(LOGITS), on(LABELS), k=2),
    "roc_auc": lambda on: metrics.roc_auc(on(LOGITS[:, 0]), on(LABELS % 2)),
    "average_precision": lambda on: metrics.average_precision(on(LOGITS[:, 0]), on(LABELS % 2)),
    "info_nce": lambda on: losses.info_nce(on(X), on(X[::-1].copy())),
    "pairwise_ranking": lambda on: losses.pairwise_ranking(on(Y), on(X[:, :1])),
    "radius": lambda on: conformal.radius(on(np.abs(Y[:, 0])), 0.9),
    "least_squares": lambda on: linear.least_squares(on(X), on(Y)).w,
    "compose": lambda on: linear.compose(on(MLP((4, 4, 4), "identity").init(KEY))).w,
    "k_folds": lambda on: data.k_folds(KEY, 24, 3, stratify=on(LABELS))[0].train,
    "mixture": lambda on: population.mixture(on(np.stack([X] * 4)), status=on(np.zeros(4, int))).log_prob(X[:, :2]),
    "quantile": lambda on: population.mixture(on(np.stack([X] * 4))).quantile(0.2),
    "categorical": lambda on: population.categorical(on(np.stack([LOGITS] * 4))).log_prob(on(LABELS)),
    "greedy": lambda on: population.greedy(on(np.stack([X, -X])), lambda p: jnp.square(p - X).mean(), rounds=2),
    "take": lambda on: population.take(on(X), [3, 1]),
    "member": lambda on: population.member(on(X), 3),
    "predict": lambda on: population.predict(PLAIN, on(jax.vmap(PLAIN.init)(jax.random.split(KEY, 4))), on(X)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_arrays_on_a_mesh_are_those_of_the_host(name, loose):
    near(FIGURES[name](on), FIGURES[name](lambda a: a), 5e-6)


KEYS = jax.random.split(KEY, 4)
RATES = np.array([0.01, 0.02, 0.03, 0.04], "f")
POPULATIONS = {
    "fit": lambda keys, numbers, x, y: population.fit(keys, (x, y), RECIPE, numbers),
    "a list of recipes": lambda keys, numbers, x, y: population.fit(keys, (x, y), [RECIPE] * 4, numbers),
    "halving": lambda keys, numbers, x, y: population.halving(keys, (x, y), RECIPE, numbers, by="loss"),
    "loop.train": lambda keys, numbers, x, y: jaxmlp.loop.train(keys, (x, y), RECIPE, numbers, progress=False),
    "cross_validate": lambda keys, numbers, x, y: population.cross_validate(KEY, (x, y), RECIPE, numbers, folds=2)[:2],
    "part": lambda keys, numbers, x, y: tuple(population.part(keys, numbers, of=2, number=1)),
    "plan": lambda keys, numbers, x, y: population.plan(keys, (x, y), RECIPE, numbers).wave,
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_keys_and_numbers_of_members_may_lie_on_a_mesh(name):
    found = POPULATIONS[name](on(KEYS), {"learning_rate": on(RATES)}, *on(X, Y))
    expected = POPULATIONS[name](KEYS, {"learning_rate": RATES}, X, Y)
    words = [
        [jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a for a in jax.tree.leaves(tree)]
        for tree in jax.tree.map(jnp.asarray, (found, expected))
    ]
    for a, b in zip(*words, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_what_is_each_members_own_may_lie_on_a_mesh():
    x, y, weights = np.stack([X] * 4), np.stack([Y] * 4), np.tile(X[:, 0] ** 2, (4, 1))
    near(
        population.fit(KEYS, population.each(*on(x, y)), RECIPE, RATE)[1]["loss"],
        population.fit(KEYS, population.each(x, y), RECIPE, RATE)[1]["loss"],
        0,
    )
    near(
        population.fit(KEYS, (X, Y), RECIPE, RATE, weights=on(weights))[1]["loss"],
        population.fit(KEYS, (X, Y), RECIPE, RATE, weights=weights)[1]["loss"],
        0,
    )
