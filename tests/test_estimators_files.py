"""Estimators that travel: files without pickles, scikit-learn's own perceptrons, and the rest of this library."""

import json

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
import safetensors.numpy
from sklearn import neural_network
from sklearn.datasets import load_diabetes, load_iris

import jaxmlp
from jaxmlp import estimators, interop
from jaxmlp.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
TABLE, TARGET = load_diabetes(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
FAST = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}


def travelled(net, folder):
    net.save(folder / "net.safetensors")
    return estimators.load(folder / "net.safetensors")


@pytest.mark.parametrize("labels", [Y, Y > 0, Y.astype(float), NAMES, NAMES.astype(object), np.eye(3, dtype=int)[Y]])
def test_a_classifier_comes_back_with_its_labels(labels, tmp_path):
    net = MLPClassifier(**FAST).fit(X, labels)
    again = travelled(net, tmp_path)
    np.testing.assert_array_equal(again.predict_proba(X), net.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), net.predict(X))
    assert again.predict(X).dtype == net.predict(X).dtype and again.classes_.dtype == net.classes_.dtype


@pytest.mark.parametrize(
    "options",
    [
        {"n_members": 3},
        {"norm": "layer", "residual": True, "hidden_layer_sizes": (10, 10)},
        {"norm": "rms"},
        {"early_stopping": True},
        {"solver": "lbfgs"},
        {"loss": "gaussian"},
        {"scale": False},
        {"optimizer": "adamw", "schedule": "cosine", "dropout": 0.1},
    ],
)
def test_all_that_is_known_after_a_fit_comes_back(options, tmp_path):
    net = MLPRegressor(**FAST | options).fit(TABLE, TARGET)
    again = travelled(net, tmp_path)
    np.testing.assert_array_equal(again.predict(TABLE), net.predict(TABLE))
    assert again.get_params() == net.get_params() and vars(again).keys() == vars(net).keys()
    for name, value in vars(net).items():
        if name.endswith("_") and name not in ("coefs_", "intercepts_"):
            np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)


def test_training_goes_on_where_it_was_saved(tmp_path):
    net = MLPClassifier(**FAST).partial_fit(X, Y, classes=[0, 1, 2])
    again = travelled(net, tmp_path)
    for each in (net, again):
        each.partial_fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), net.predict_proba(X))
    assert again.loss_curve_ == net.loss_curve_ and again.t_ == net.t_ == 300


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be fitted to be saved.*call fit\(X, y\) first"):
        MLPClassifier().save(tmp_path / "net")
    with pytest.raises(ValueError, match="must be what JSON can hold to be saved.*use names for functions"):
        MLPClassifier(**FAST | {"activation": jax.nn.relu}).fit(X, Y).save(tmp_path / "net")
    with pytest.raises(ValueError, match="an int for random_state"):
        MLPClassifier(**FAST | {"random_state": np.random.RandomState(0)}).fit(X, Y).save(tmp_path / "net")


def changed(path, change):
    """Rewrite a file with another description or other arrays, without its digest."""
    with safetensors.safe_open(path, "np") as file:
        told, arrays = json.loads(file.metadata()["jaxmlp_estimator"]), {k: file.get_tensor(k) for k in file.keys()}
    change(told, arrays)
    safetensors.numpy.save_file(arrays, path, metadata={"jaxmlp_estimator": json.dumps(told)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told, arrays: told.update(format=9), "format 1; got 9; a newer jaxmlp"),
        (lambda told, arrays: told.update(estimator="Popen"), "estimator must be one of MLPClassifier, MLPRegressor"),
        (lambda told, arrays: told["params"].update(alpha=-1), "'alpha' parameter"),
        (lambda told, arrays: told["params"].update(shell=1), "shell"),
        (lambda told, arrays: told["fitted"].update(fit=1), "nothing of an estimator is named 'fit'"),
        (lambda told, arrays: told.pop("classes"), "classes"),
        (lambda told, arrays: told["form"].update(hidden_layer_sizes=[9]), r"coefs/0 must have shape \(4, 9\)"),
        (lambda told, arrays: arrays.pop("coefs/1"), "coefs/1 must have shape"),
        (lambda told, arrays: arrays.update({"coefs/0": arrays["coefs/0"].astype("f2")}), "float32 or float64"),
        (lambda told, arrays: arrays["coefs/0"].fill(np.nan), "finite"),
    ],
)
def test_a_file_of_unknown_origin_is_checked(change, words, tmp_path):
    MLPClassifier(**FAST).fit(X, Y).save(tmp_path / "net")
    changed(tmp_path / "net", change)
    with pytest.raises(ValueError, match=words):
        estimators.load(tmp_path / "net")


def test_files_of_other_kinds_are_told_apart(tmp_path):
    mlp = jaxmlp.MLP((2, 1))
    jaxmlp.save(tmp_path / "model", mlp, mlp.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="must have been written by an estimator's save"):
        estimators.load(tmp_path / "model")
    MLPClassifier(**FAST).fit(X, Y).save(tmp_path / "net")
    with pytest.raises(ValueError, match="must have been written by jaxmlp.save"):
        jaxmlp.load(tmp_path / "net")
    damaged = bytearray((tmp_path / "net").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "net").write_bytes(damaged)
    with pytest.raises(ValueError, match="must hold what was saved"):
        estimators.load(tmp_path / "net")


@pytest.mark.filterwarnings("ignore:Got `batch_size`")  # where a share of the rows is set aside
@pytest.mark.parametrize("early", [False, True])
def test_a_perceptron_of_scikit_learn_becomes_ours_and_goes_on(early):
    options = FAST | {"early_stopping": early, "batch_size": 150}
    theirs = neural_network.MLPClassifier(**options).fit(X, NAMES)
    ours = MLPClassifier.from_sklearn(theirs)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-12)
    for each in (ours, theirs):
        each.set_params(warm_start=True).fit(X, NAMES)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_)
    assert ours.n_iter_ == theirs.n_iter_ and ours.t_ == theirs.t_
    if early:
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-6)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_one_of_ours_becomes_scikit_learns_with_its_scaling_in_the_weights(loss):
    ours = MLPRegressor(loss, **FAST).fit(TABLE, TARGET)
    theirs = ours.to_sklearn()
    assert type(theirs) is neural_network.MLPRegressor
    np.testing.assert_allclose(theirs.predict(TABLE), ours.predict(TABLE), rtol=1e-10)
    theirs.partial_fit(TABLE, TARGET)
    assert theirs.t_ == ours.t_ + len(TABLE)


@pytest.mark.parametrize("since", [{"n_members": 3}, {"hidden_layer_sizes": ()}, {"residual": False}, {"norm": "rms"}])
def test_what_is_fitted_does_not_change_with_parameters_that_are_set_later(since, tmp_path):
    options = FAST | {"hidden_layer_sizes": (4, 4), "residual": True, "norm": "layer"}
    net = MLPClassifier(**options).fit(X, Y)
    before, model = net.predict_proba(X), net.recipe_.model
    net.set_params(**since)
    np.testing.assert_array_equal(net.predict_proba(X), before)
    again = travelled(net, tmp_path)
    np.testing.assert_array_equal(again.predict_proba(X), before)
    assert again.get_params() == net.get_params() and net.recipe_.model == model
    with pytest.raises(ValueError, match=f"{next(iter(since))} must stay"):
        net.partial_fit(X, Y)


def test_what_the_other_has_not_is_refused():
    net = MLPRegressor(n_members=2, norm="layer", **FAST).fit(TABLE, TARGET)
    with pytest.raises(ValueError, match=r"one that scikit-learn has; got \{'n_members': 2, 'norm': 'layer'\}"):
        net.to_sklearn()
    with pytest.raises(ValueError, match=r"must be a fitted sklearn.neural_network.MLPRegressor; got MLPClassifier"):
        MLPRegressor.from_sklearn(neural_network.MLPClassifier())


def test_interop_gives_either_and_takes_either():
    mlp = jaxmlp.MLP((4, 8, 3), "tanh")
    params = mlp.init(jax.random.key(0))
    ours = interop.to_sklearn(mlp, params, classes=["a", "b", "c"], kind=MLPClassifier)
    theirs = interop.to_sklearn(mlp, params, classes=["a", "b", "c"])
    assert type(ours) is MLPClassifier
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6)
    model, back = interop.from_sklearn(ours)
    assert model.sizes == (4, 8, 3) and model.activation == "tanh"
    np.testing.assert_array_equal(back[0].w, params[0].w)


@pytest.mark.parametrize("members", [1, 2])
def test_what_is_learnt_is_a_recipe_and_a_tree_of_parameters(members):
    net = MLPRegressor(n_members=members, **FAST).fit(TABLE, TARGET)
    params = net.params_
    outputs = (
        jax.vmap(net.recipe_.model.predict, (0, None))(params, TABLE.astype("f"))
        if members > 1
        else (net.recipe_.model.predict(params, TABLE.astype("f"))[None])
    )
    np.testing.assert_allclose(np.mean(outputs, axis=0)[:, 0], net.predict(TABLE), rtol=1e-3)
    assert net.recipe_.batch_size == 200 and net.recipe_.epochs == 5
    data = TABLE.astype("f"), TARGET[:, None].astype("f")
    state, history = jaxmlp.fit(jax.random.key(0), data, net.recipe_, net.hyperparams_)
    assert history["loss"].shape == (5,) and jax.tree.structure(state.params) == jax.tree.structure(params)
