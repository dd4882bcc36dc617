"""What is refused, or comes out right, where an estimator is asked for the unusual: no number is wrong in silence."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.neural_network import MLPRegressor as TheirRegressor

from jaxmlp import losses
from jaxmlp.estimators import MLPClassifier, MLPRegressor, _drive, load

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.RandomState(0)
X = RNG.randn(40, 3)
Y = X[:, 0] + 0.1 * RNG.randn(40)
LABELS = (X[:, 0] > 0).astype(int)
MANY = (X > 0).astype(int)
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}


def regressor(**parameters):
    return MLPRegressor(**(SMALL | parameters))


def classifier(**parameters):
    return MLPClassifier(**(SMALL | parameters))


REFUSED = {
    "level": (lambda: regressor(loss="quantile", loss_params={"level": (1.5,)}).fit(X, Y), "in \\(0"),
    "delta": (lambda: regressor(loss="huber", loss_params={"delta": -1.0}, solver="lbfgs").fit(X, Y), "delta"),
    "df": (lambda: regressor(loss="student_t", loss_params={"df": -1.0}).fit(X, Y), "df"),
    "gamma": (lambda: classifier(loss="focal", loss_params={"gamma": -3.0}).fit(X, LABELS), "gamma"),
    "smoothing": (lambda: classifier(label_smoothing=2.0).fit(X, np.arange(40) % 3), "label_smoothing"),
    "columns": (lambda: regressor(loss=lambda a, b: (a - b) ** 2, solver="lbfgs").fit(X, Y), "one value an example"),
    "mean": (lambda: regressor(loss=lambda a, b: jnp.mean(a - b), solver="lbfgs").fit(X, Y), "one value an example"),
    "counts": (lambda: regressor(loss=losses.poisson).fit(X, Y), "y are negative"),
    "dropout": (lambda: regressor(solver="lbfgs", dropout=0.5).fit(X, Y), "dropout must be left out with solver"),
    "schedule": (lambda: regressor(solver="lbfgs", schedule="cosine").fit(X, Y), "schedule must be left out"),
    "X_val": (lambda: regressor(solver="lbfgs").fit(X, Y, X_val=X, y_val=Y), "X_val must be left out"),
    "y_val": (lambda: regressor().fit(X, np.c_[Y, Y], X_val=X, y_val=Y), "y must have the 2 outputs"),
    "widths": (lambda: regressor(hidden_layer_sizes=(4.7,)).fit(X, Y), "whole numbers"),
    "class_weight": (lambda: classifier(class_weight="balance").fit(X, LABELS), "class_weight"),
    "many": (lambda: classifier(class_weight={0: 2.0}).fit(X, MANY), "many labels"),
    "negative class": (lambda: classifier(class_weight={0: -1.0}).fit(X, LABELS), "values in class_weight"),
    "balanced": (
        lambda: classifier(class_weight="balanced").partial_fit(X, LABELS, classes=[0, 1]),
        "'balanced' is not supported for partial_fit",
    ),
    "negative": (
        lambda: classifier(class_weight="balanced").fit(X, LABELS, sample_weight=2.0 * LABELS - 1),
        "Negative values in data passed to `sample_weight`",
    ),
    "device": (lambda: regressor(device="nonsense:3").fit(X, Y), "device must be one that JAX has, cpu:0"),
    "set loss": (lambda: regressor().fit(X, Y).set_params(loss="gaussian").predict(X), "the one that was fitted"),
    "set counts": (lambda: regressor().fit(X, Y).set_params(loss="poisson").predict(X), "the one that was fitted"),
    "warm counts": (
        lambda: regressor(warm_start=True).fit(X, Y).set_params(loss="poisson").fit(X, abs(Y)),
        "one of counts, to go on",
    ),
    "warm residual": (
        lambda: regressor(hidden_layer_sizes=(3,), warm_start=True).fit(X, Y).set_params(residual=True).fit(X, Y),
        "residual must stay False",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_residual_net_predicts_as_it_was_fitted_whatever_is_set_since(tmp_path):
    for residual in (True, False):
        net = regressor(hidden_layer_sizes=(3,), residual=residual, norm="rms").fit(5 * X + 3, Y)
        before = net.predict(X)
        net.set_params(residual=not residual, norm=None)
        np.testing.assert_array_equal(net.predict(X), before)
    net = regressor(hidden_layer_sizes=(3,), residual=True).fit(5 * X + 3, Y)
    net.save(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "net.safetensors").predict(X), net.predict(X))


@pytest.mark.parametrize("weight", [1e-50, 1e39, 1e308])
def test_weights_of_any_size_count_alike_in_scaling_and_in_validation(weight):
    one, other = (
        regressor(early_stopping=True, batch_size=10, alpha=0.0).fit(X, Y, sample_weight=np.full(40, w))
        for w in (1.0, weight)
    )
    np.testing.assert_allclose(other._units.x.scale, one._units.x.scale, rtol=1e-12)
    np.testing.assert_allclose(other.validation_scores_, one.validation_scores_, rtol=1e-4)


def test_a_sparse_entry_that_is_stored_twice_is_their_sum():
    twice = scipy.sparse.csr_array((np.array([1.0, 2, 5, 7]), np.array([0, 0, 1, 1]), np.array([0, 2, 3, 4])))
    one, other = (regressor().fit(table, np.arange(3.0)) for table in (twice, twice.toarray()))
    np.testing.assert_allclose(one._units.x.scale, other._units.x.scale)


def test_targets_far_from_zero_keep_their_digits_in_float32():
    net = regressor(solver="lbfgs", max_iter=100).fit(X.astype(np.float32), Y + 1e8)
    assert net.score(X.astype(np.float32), Y + 1e8) > 0.9


def test_a_warm_start_goes_on_in_another_dtype():
    net = regressor(warm_start=True)
    for table in (X.astype(np.float32), X, (X + 1e5).astype(np.float32), X):
        net.fit(table, Y)
        assert np.isfinite(net.predict(table)).all()


def test_validation_data_may_lack_a_class_in_a_warm_start():
    net = classifier(warm_start=True).fit(X, LABELS, X_val=X[LABELS > 0], y_val=LABELS[LABELS > 0])
    assert len(net.validation_scores_) == 3


def test_labels_of_two_classes_are_smoothed_too():
    """Many labels a row, and two classes: a logit whose best is at log((1 - a / 2) / (a / 2)) on both sides."""
    a, x = 0.2, np.array([[-1.0], [1.0]])
    net = classifier(label_smoothing=a, solver="lbfgs", max_iter=500, tol=1e-8, alpha=0.0).fit(x, [0, 1])
    np.testing.assert_allclose(net.predict_proba(x), [[0.9, 0.1], [0.1, 0.9]], atol=1e-4)


def test_weights_of_classes_are_in_a_file_by_their_labels(tmp_path):
    net = classifier(class_weight={0: 1.0, 1: 2.0}).fit(X, LABELS)
    net.save(tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    assert again.class_weight == {0: 1.0, 1: 2.0}
    np.testing.assert_array_equal(again.fit(X, LABELS).coefs_[0], net.coefs_[0])


def test_lists_are_not_shared_with_an_estimator_of_scikit_learn():
    net = regressor(scale=False).fit(X, Y)
    net.to_sklearn().partial_fit(X, Y)
    assert len(net.loss_curve_) == 3


def test_a_generator_stands_where_scikit_learn_leaves_it():
    parameters = {"hidden_layer_sizes": (4,), "max_iter": 50, "tol": 10.0, "n_iter_no_change": 2}
    ours, theirs = np.random.RandomState(0), np.random.RandomState(0)
    MLPRegressor(**parameters, random_state=ours).fit(X, Y)
    TheirRegressor(**parameters, random_state=theirs).fit(X, Y)
    assert ours.randint(2**31) == theirs.randint(2**31)


def test_a_limit_of_many_epochs_takes_no_room_that_is_not_used():
    net = regressor(max_iter=10**12, tol=10.0, n_iter_no_change=2).fit(X, Y)
    assert net.n_iter_ == 4


def test_curves_grow_with_the_epochs(monkeypatch):
    expected = regressor(max_iter=40, tol=0.0).fit(X, Y).loss_curve_
    monkeypatch.setattr(_drive, "CURVE", 2)
    monkeypatch.setattr(_drive, "AT_ONCE", 3)
    np.testing.assert_allclose(regressor(max_iter=40, tol=0.0).fit(X, Y).loss_curve_, expected, rtol=1e-6)


def test_rows_whose_sum_is_beyond_floats_warn_of_nothing():
    net = regressor().fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(net.predict(np.full((40, 3), 1e307))).all()
