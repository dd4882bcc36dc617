"""Scalings are fitted once, left alone by training, undone in predictions, known to densities, and saved."""

import dataclasses
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm
from sklearn import decomposition, preprocessing

import jaxmlp
from jaxmlp import MLP, Recipe, interop, loop, losses, metrics, population, serving, transforms
from jaxmlp.transforms import Chain, Log, Quantile, Robust, Scaled, Standard, Whiten

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = np.stack([RNG.normal(300, 20, 40), RNG.gamma(2.0, 0.01, 40)], 1).astype("f")
Y = (100 + 3 * X[:, :1] + 1e4 * X[:, 1:]).astype("f")
RATE = {"learning_rate": 0.02}
ALL = [Standard(), Robust(), Log(), Quantile(11), Whiten(), Chain(Log(), Standard()), Chain(Standard(), Whiten())]
NET = MLP((2, 4, 1), "tanh")


def fitted(transform, values=X):
    return jax.tree.map(jnp.asarray, transform.fit(np.asarray(values, np.float64), invert=True))


def recipe_of(model, loss=losses.squared_error, **options):
    return Recipe(model, loss, optax.adamw, **{"epochs": 3, "batch_size": 16} | options)


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


def test_the_maps_are_those_of_scikit_learn():
    def close(transform, theirs, tolerance=2e-4):
        np.testing.assert_allclose(transform.forward(fitted(transform), X), theirs.fit_transform(X), atol=tolerance)

    close(Standard(), preprocessing.StandardScaler())
    close(Robust(), preprocessing.RobustScaler(unit_variance=True))
    pca = decomposition.PCA(whiten=True)
    theirs = pca.fit_transform(X.astype(float)) * np.sqrt(len(X) / (len(X) - 1))  # they divide by N - 1
    ours = Whiten().forward(fitted(Whiten()), X)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-2, atol=1e-3)
    wanted = np.broadcast_to(norm.ppf((np.arange(11)[:, None] + 0.5) / 11), (11, 2))
    knots = np.quantile(X, (np.arange(11) + 0.5) / 11, axis=0).astype("f")
    np.testing.assert_allclose(
        Quantile(11).forward(fitted(Quantile(11)), knots),
        wanted,
        atol=1e-5,
    )


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_a_transform_has_its_inverse_and_its_slope(transform):
    arrays = fitted(transform)
    z = transform.forward(arrays, jnp.asarray(X))
    np.testing.assert_allclose(transform.inverse(arrays, z), X, rtol=2e-3)
    jacobian = jax.vmap(jax.jacfwd(lambda row: transform.forward(arrays, row[None])[0]))(jnp.asarray(X))
    np.testing.assert_allclose(
        transform.log_slope(arrays, jnp.asarray(X)), np.linalg.slogdet(np.asarray(jacobian))[1], rtol=1e-3, atol=1e-3
    )
    on_host = jax.tree.map(np.asarray, arrays)
    assert isinstance(transform.forward(on_host, X), np.ndarray)
    np.testing.assert_allclose(transform.forward(on_host, X), z, rtol=1e-4, atol=1e-4)
    assert pickle.loads(pickle.dumps(transform)) == transform == dataclasses.replace(transform)
    assert hash(transform) == hash(dataclasses.replace(transform))
    scale = transform.scale(arrays)
    if scale is not None:
        slopes = np.abs(np.asarray(jacobian)).sum(-1)
        np.testing.assert_allclose(1 / np.broadcast_to(scale, slopes.shape), slopes, rtol=1e-3)


@pytest.mark.parametrize("transform", [Standard(), Robust(), Quantile(11), Chain(Log(), Standard())], ids=repr)
def test_a_density_is_that_of_the_targets_in_their_units(transform):
    model = Scaled(NET, x=Standard(), y=transform)
    numbers = {**RATE, "scaling": model.fitted(X, Y)}
    recipe = recipe_of(model, losses.unit_gaussian_nll)
    state = jaxmlp.start(KEY, recipe, numbers)
    told = jaxmlp.evaluate(state.params, (X, Y), recipe, numbers)["loss"]
    mean = np.asarray(model.apply(state.params, jnp.asarray(X)))
    density = norm.logpdf(np.asarray(transform.forward(numbers["scaling"]["y"], jnp.asarray(Y))), mean)
    step = 1e-2
    up, down = (transform.forward(numbers["scaling"]["y"], jnp.asarray(Y + s)) for s in (step, -step))
    slope = np.asarray((up - down) / (2 * step))
    np.testing.assert_allclose(told, -np.mean(density + np.log(slope)), rtol=2e-3)
    plain = dataclasses.replace(recipe, loss=losses.squared_error)  # no density: it stays in the units of z
    z = transform.forward(numbers["scaling"]["y"], jnp.asarray(Y))
    np.testing.assert_allclose(
        jaxmlp.evaluate(state.params, (X, Y), plain, numbers)["loss"], np.mean((mean - z) ** 2), rtol=1e-4
    )


def test_training_is_that_on_scaled_tables_and_leaves_the_scaling_alone():
    model = Scaled(NET, x=Standard(), y=Standard())
    numbers = {**RATE, "weight_decay": 0.5, "scaling": model.fitted(X, Y)}
    recipe = recipe_of(model, metrics=metrics.rmse)
    state, history = jaxmlp.fit(KEY, (X, Y), recipe, numbers, validation=(X, Y))
    same({"x": state.params["x"], "y": state.params["y"]}, numbers["scaling"])
    x, y = (Standard().forward(numbers["scaling"][n], jnp.asarray(a)) for n, a in (("x", X), ("y", Y)))
    plain, told = jaxmlp.fit(KEY, (x, y), recipe_of(NET), {**RATE, "weight_decay": 0.5})
    np.testing.assert_allclose(history["loss"], told["loss"], rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params["model"], plain.params)
    predicted = serving.predict(model, state.params, X)
    np.testing.assert_allclose(history["validation_rmse"][-1], metrics.rmse(predicted, Y), rtol=1e-5)
    np.testing.assert_allclose(predicted, NET.apply(plain.params, x) * Y.std() + Y.mean(), rtol=1e-4)


def test_a_gaussian_and_quantiles_come_back_in_the_units_of_the_targets():
    model = Scaled(NET.replace(sizes=(2, 4, 2)), x=Standard(), y=Standard(), head="gaussian")
    numbers = {**RATE, "scaling": model.fitted(X, Y)}
    recipe = recipe_of(model, losses.gaussian_nll, metrics=(partial(metrics.nll, likelihood=losses.gaussian_nll),))
    params = jaxmlp.start(KEY, recipe, numbers).params
    mean, variance = losses.gaussian(serving.predict(model, params, X))
    z_mean, z_variance = losses.gaussian(model.apply(params, jnp.asarray(X)))
    np.testing.assert_allclose(mean, z_mean * Y.std() + Y.mean(), rtol=1e-4)
    np.testing.assert_allclose(variance, z_variance * Y.var(), rtol=1e-3)
    told = jaxmlp.evaluate(params, (X, Y), recipe, numbers)
    np.testing.assert_allclose(told["loss"], told["nll"], rtol=1e-4)
    np.testing.assert_allclose(told["loss"], -np.mean(norm.logpdf(Y, mean, np.sqrt(variance))), rtol=1e-4)
    model = Scaled(NET.replace(sizes=(2, 4, 3)), y=Quantile(11), head="quantiles")
    params = {"model": model.model.init(KEY), **model.fitted(X, Y)}
    levels = serving.predict(model, params, X)
    z = model.apply(params, jnp.asarray(X))
    for i in range(3):
        same(levels[:, i : i + 1], Quantile(11).inverse(params["y"], z[:, i : i + 1]))


@pytest.mark.bits
def test_each_fold_has_a_scaling_of_its_own(tmp_path):
    model = Scaled(NET, x=Standard(), y=Quantile(5))
    halves = [slice(0, 25), slice(15, 40)]
    each = [model.fitted(X[half], Y[half]) for half in halves]
    keys = jax.random.split(KEY, 2)
    scaling = population.each(jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
    numbers = {**RATE, "scaling": scaling}
    recipe = recipe_of(model)
    states, history = population.fit(keys, (X, Y), recipe, numbers)
    for i in range(2):
        _, alone = jaxmlp.fit(keys[i], (X, Y), recipe, {**RATE, "scaling": each[i]})
        np.testing.assert_allclose(history["loss"][i], alone["loss"], rtol=1e-5)
    same({"x": states.params["x"], "y": states.params["y"]}, scaling.data)
    predicted = population.predict(model, states.params, X)
    np.testing.assert_allclose(
        predicted[1], serving.predict(model, jax.tree.map(lambda a: a[1], states.params), X), rtol=1e-5
    )
    loop.train(keys, (X, Y), dataclasses.replace(recipe, epochs=1), numbers, directory=tmp_path, progress=False)
    resumed, told = loop.resume(tmp_path, (X, Y), epochs=3, progress=False)  # all of it from the checkpoint alone
    same(told["loss"], history["loss"])
    same(resumed.params, states.params)


@pytest.mark.parametrize("members", [None, 2])
def test_a_file_holds_the_scaling(tmp_path, members):
    chain = Chain(Log(), Quantile(5))
    for x, y, head in ((Standard(), chain, "values"), (Whiten(1), Robust(), "quantiles"), (None, None, "values")):
        net = NET.replace(sizes=(1 if x == Whiten(1) else 2, 4, 1))
        model = Scaled(net, x=x, y=y, head=head)
        params = {"model": net.init(KEY), **model.fitted(X, None if y is None else Y)}
        if members:
            params = jax.tree.map(lambda a: jnp.stack([a, a]), params)
        jaxmlp.save(tmp_path / "scaled.safetensors", model, params)
        found, loaded = jaxmlp.load(tmp_path / "scaled.safetensors")
        assert found == model
        same(loaded, params)


@pytest.mark.parametrize("y", ALL[:-1], ids=repr)
def test_numpy_and_stablehlo_predict_in_the_units_of_the_targets(y):
    y = Chain(*(link for link in y.links if link != Whiten())) if isinstance(y, Chain) else y
    model = Scaled(NET, x=Chain(Standard(), Whiten()), y=y)
    params = {"model": NET.init(KEY), **model.fitted(X, Y)}
    wanted = serving.predict(model, params, X)
    found = pickle.loads(pickle.dumps(serving.in_numpy(model, params)))(X)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    exported = jax.export.deserialize(bytearray(interop.export(model, params, x=X)))
    np.testing.assert_allclose(exported.call(jnp.asarray(X)), wanted, rtol=1e-4)


def test_what_the_model_takes_it_still_takes():
    model = Scaled(NET.replace(dropout=True), x=Standard())
    numbers = {**RATE, "dropout_rate": 0.5, "scaling": model.fitted(X)}
    _, dropped = jaxmlp.fit(KEY, (X, Y), recipe_of(model), numbers)
    _, whole = jaxmlp.fit(KEY, (X, Y), recipe_of(model), {**numbers, "dropout_rate": 0.0})
    assert not np.allclose(dropped["loss"], whole["loss"])
    assert hash(model) == hash(dataclasses.replace(model)) and model != Scaled(NET, x=Standard())
    assert model.frozen(("x", "scale")) and not model.frozen(("model", 0, "w"))


FITTED = Scaled(NET, x=Standard(), y=Standard()).fitted(X, Y)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Scaled(NET, x=Standard), "x must be a transform, as transforms.Standard"),
        (lambda: Scaled(MLP, x=Standard()), "model must have init"),
        (lambda: Scaled(Scaled(NET, y=Log()), y=Standard()), "model of Scaled must not scale its targets"),
        (lambda: losses.BoundedScales(Scaled(NET, y=Log()), 1), "model of BoundedScales must not scale its targets"),
        (lambda: Scaled(NET, y=Chain(Standard(), Whiten()), head="quantiles"), "y must scale each column by itself"),
        (
            lambda: Scaled(NET, y=Standard(), head="gaussian").fitted(X, 1e-5 * Y),
            "y must be in units in which it spreads",
        ),
        (lambda: Scaled(NET, x=Standard()).fitted(1e-44 * X), "values must spread by what float32 can hold"),
        (
            lambda: recipe_of(Scaled(NET, y=Standard(), head="gaussian"), losses.gaussian_nll).bind(
                {**RATE, "min_variance": 0.1, "scaling": FITTED}
            ),
            "min_variance must be left out where a model scales the targets of a Gaussian",
        ),
        (
            lambda: recipe_of(Scaled(NET, y=Standard()), losses.per_token(losses.gaussian_nll)).bind(
                {**RATE, "scaling": FITTED}
            ),
            "loss must be a density itself where a model scales its targets",
        ),
        (lambda: Scaled(NET, y=Standard(), head="mean"), "head must be one of values, gaussian, quantiles"),
        (lambda: Scaled(NET, x=Standard()).fitted(X, Y), "y must be left out, since the model scales none"),
        (lambda: Scaled(NET, y=Standard()).fitted(X), "y must be given, since the model scales it"),
        (lambda: Scaled(NET, x=Standard()).fitted(X[0]), r"x must be a table \(N, d\)"),
        (lambda: Scaled(NET, x=Standard()).fitted(X * np.nan), "x must be finite"),
        (lambda: jax.jit(Scaled(NET, x=Standard()).fitted)(X), "x must be known to fit a scaling"),
        (
            lambda: Scaled(NET, x=Standard()).fitted(X.astype(float) + 1e12),
            "values must spread by more than float32",
        ),
        (lambda: Scaled(NET, x=Log()).fitted(-X), "values must be above the offset 0 to have a logarithm"),
        (lambda: Scaled(NET, y=Quantile()).fitted(X, np.round(Y, -2)), "values must differ from quantile to quantile"),
        (lambda: Scaled(NET, x=Whiten(3)).fitted(X), "components must be at most the 2 directions"),
        (lambda: Scaled(NET, y=Whiten(1)).fitted(X, X), "components must be None where there is a way back"),
        (lambda: Quantile(1), "points must be at least 2"),
        (lambda: Chain(Log(), 3), "links must be one transform or several"),
        (lambda: Scaled(NET, x=Standard()).init(KEY, scaling={"x": {}}), "scaling must be what model.fitted"),
        (lambda: Scaled(NET, x=Standard()).init(KEY, scaling=FITTED), "scaling must be what model.fitted"),
        (lambda: Scaled(NET).init(KEY, scaling=3), "scaling must be what model.fitted"),
        (
            lambda: Scaled(NET, x=Standard()).apply({"model": NET.init(KEY), "x": FITTED["x"]}, jnp.ones((3, 5))),
            r"x must be of the 2 columns that the scaling was fitted to",
        ),
        (
            lambda: Scaled(NET, y=Standard()).decode(FITTED, jnp.ones((3, 2))),
            r"outputs must be of the 1 columns .*; outputs of a distribution ask for Scaled\(head=...\)",
        ),
        (
            lambda: Scaled(NET, y=Log(), head="gaussian"),
            "y must scale each column by one number to make a Gaussian of y",
        ),
        (
            lambda: jaxmlp.fit(KEY, (X, Y), recipe_of(Scaled(NET, x=Standard())), RATE),
            "model Scaled needs scaling: pass hyperparams={'scaling': ...}",
        ),
    ],
)
def test_what_cannot_be_scaled_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_file_holds_no_transform_but_ours(tmp_path):
    class Mine(Standard):
        pass

    model = Scaled(NET, x=Mine())
    params = {"model": NET.init(KEY), **model.fitted(X)}
    with pytest.raises(ValueError, match="model.x must be a transform of jaxmlp.transforms"):
        jaxmlp.save(tmp_path / "mine", model, params)
    with pytest.raises(ValueError, match="params must be those of"):
        jaxmlp.save(tmp_path / "mine", Scaled(NET, x=Standard()), NET.init(KEY))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16"])
def test_integers_and_half_precision_are_scaled_as_their_floats(dtype):
    x, y = (RNG.integers(0, 200, (30, 2)).astype(dtype) for _ in range(2))
    for transform in (Standard(), Robust(), Whiten(), Chain(Standard(), Whiten())):
        model = Scaled(NET.replace(sizes=(2, 4, 2)), x=transform, y=transform)
        floats = x.astype("f"), y.astype("f")
        numbers = {**RATE, "scaling": model.fitted(*floats)}
        params = jaxmlp.start(KEY, recipe_of(model), numbers).params
        wanted = serving.predict(model, params, floats[0])
        np.testing.assert_allclose(serving.predict(model, params, x), wanted, rtol=1e-5)
        if dtype != "float16":  # whose targets a loss takes as they are
            told, other = (jaxmlp.evaluate(params, d, recipe_of(model), numbers)["loss"] for d in ((x, y), floats))
            np.testing.assert_allclose(told, other, rtol=1e-5)
    narrow = Scaled(NET.replace(param_dtype="float16"), y=Standard())
    params = {"model": narrow.model.init(KEY), **narrow.fitted(X, 1e3 * Y)}
    assert np.isfinite(serving.predict(narrow, params, X.astype("f2"))).all()


def test_a_constant_column_is_only_moved_whatever_it_rounds_to():
    for value in (0.1, 3.3, 1e9, 0.0):
        arrays = Standard().fit(np.full((7, 1), value), invert=True)
        assert arrays["scale"] == 1
        np.testing.assert_allclose(Standard().forward(arrays, np.full((2, 1), value, "f")), 0, atol=1e-6)


def test_metrics_that_ask_for_the_model_get_its_outputs_as_they_are_given_them():
    def same_as_apply(outputs, targets, *, apply, params, x, weight=None):
        return jnp.abs(apply(params, x) - outputs).max()

    model = Scaled(NET, x=Standard(), y=Standard())
    recipe = recipe_of(model, metrics=same_as_apply)
    numbers = {**RATE, "scaling": model.fitted(X, Y)}
    params = jaxmlp.start(KEY, recipe, numbers).params
    assert jaxmlp.evaluate(params, (X, Y), recipe, numbers)["same_as_apply"] == 0


def test_bounds_of_the_variance_lie_within_the_scaling():
    bounded = losses.BoundedScales(NET.replace(sizes=(2, 4, 2)), 1)
    model = Scaled(bounded, x=Standard(), y=Standard(), head="gaussian")
    numbers = {**RATE, "scaling": model.fitted(X, Y)}
    recipe = recipe_of(model, losses.bounded(losses.gaussian_nll))
    params = jaxmlp.start(KEY, recipe, numbers).params
    told = jaxmlp.evaluate(params, (X, Y), recipe, {**numbers, "bound_weight": 0.0})
    plain = jaxmlp.evaluate(params, (X, Y), recipe_of(model, losses.gaussian_nll), numbers)
    np.testing.assert_allclose(told["loss"], plain["loss"], rtol=1e-6)  # of y in its units, as without the bounds
    np.testing.assert_allclose(told["bounds"], 10.5, rtol=1e-6)
    state, _ = jaxmlp.fit(KEY, (X, Y), recipe, numbers)
    same({"x": state.params["x"], "y": state.params["y"]}, numbers["scaling"])
    assert float(state.params["model"]["high"][0]) != 0.5


def test_losses_of_ones_own_may_be_densities():
    @losses.density
    def laplace_nll(outputs, targets):
        return jnp.sum(jnp.abs(outputs - targets), axis=-1)

    model = Scaled(NET, x=Standard(), y=Standard())
    numbers = {**RATE, "scaling": model.fitted(X, Y)}
    params = jaxmlp.start(KEY, recipe_of(model), numbers).params
    told = jaxmlp.evaluate(params, (X, Y), recipe_of(model, laplace_nll), numbers)["loss"]
    plain = jaxmlp.evaluate(params, (X, Y), recipe_of(model, losses.absolute_error), numbers)["loss"]
    np.testing.assert_allclose(told, plain + np.log(Y.std()), rtol=1e-4)
    assert transforms.Scaled is Scaled
