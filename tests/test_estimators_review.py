"""What is refused, or comes out right, where an estimator is asked for the unusual: no number is wrong in silence."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.sparse
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier as TheirClassifier
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


def penalised(outputs, targets, *, penalty=1.0):
    return penalty * jnp.sum(jnp.abs(outputs - targets), axis=-1)


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
    "nan class": (lambda: classifier(class_weight={0: np.nan, 1: 1.0}).fit(X, LABELS), "values in class_weight"),
    "no such number": (
        lambda: regressor(loss_params={"delta": 1.0}).fit(X, Y),
        "squared_error' takes nothing; got 'de",
    ),
    "smoothing of focal": (
        lambda: classifier(loss="focal", label_smoothing=0.1).fit(X, LABELS),
        "label_smoothing must be 0 with loss='focal', which has none; got 0.1",
    ),
    "penalty": (lambda: regressor(loss=penalised).fit(X, Y), "must have no parameter 'penalty'.*rename it"),
    "levels": (lambda: regressor(loss="quantile", loss_params={"level": ()}).fit(X, Y), "one level or more"),
    "a curve of NumPy": (
        lambda: regressor(activation=np.sin).fit(X, Y),
        "activation must be a function of 1 argument t",
    ),
    "a schedule of NumPy": (
        lambda: regressor(schedule=lambda done, count: np.cos(done)).fit(X, Y),
        "schedule must be a function of 2 arguments that is written in JAX",
    ),
    "arguments of a schedule": (
        lambda: regressor(schedule=lambda done: 1.0).fit(X, Y),
        "schedule must be a function of",
    ),
    "arguments of a loss": (lambda: regressor(loss=lambda outputs: outputs).fit(X, Y), "loss must be a function of 2"),
    "beta_2": (lambda: regressor(beta_2=1 - 1e-9, batch_size=20).fit(X, Y), "beta_2 must not round to 1 in float32"),
    "epsilon": (lambda: regressor(epsilon=1e-60, batch_size=20).fit(X, Y), "epsilon must not round to 0 in float32"),
    "a key": (
        lambda: regressor(optimizer=partial(optax.noisy_sgd, key=jax.random.key(0))).fit(X, Y),
        "optimizer must hold numbers alone",
    ),
    "set level": (
        lambda: (
            regressor(loss="quantile").fit(X, Y).set_params(loss_params={"level": (0.2, 0.5, 0.8)}).predict_quantiles(X)
        ),
        "those that were fitted, 'quantile' and None",
    ),
    "device": (lambda: regressor(device="nonsense:3").fit(X, Y), "device must be one that JAX has, cpu:0"),
    "set loss": (lambda: regressor().fit(X, Y).set_params(loss="gaussian").predict(X), "those that were fitted"),
    "set counts": (lambda: regressor().fit(X, Y).set_params(loss="poisson").predict(X), "those that were fitted"),
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


@pytest.mark.parametrize("labels", [LABELS, np.arange(40) % 3])
def test_a_number_of_the_loss_may_be_named_like_the_penalty(labels):
    share = 0.75 if labels is LABELS else [0.5, 0.3, 0.2]
    given = classifier(loss="focal", loss_params={"alpha": share}, alpha=0.1, max_iter=20).fit(X, labels)
    fixed = classifier(loss=lambda a, b: losses.focal(a, b, alpha=jnp.asarray(share, a.dtype)), alpha=0.1, max_iter=20)
    np.testing.assert_allclose(given.predict_proba(X), fixed.fit(X, labels).predict_proba(X), rtol=1e-9)
    assert (
        np.abs(given.predict_proba(X) - classifier(loss="focal", max_iter=20).fit(X, labels).predict_proba(X)).max()
        > 0.01
    )


@pytest.mark.parametrize("factor", [2.0**-45, 2.0**45])
def test_lbfgs_weighs_its_penalty_against_weights_of_any_size(factor):
    weight, options = RNG.uniform(1, 2, 40), {"solver": "lbfgs", "max_iter": 30}
    one = regressor(alpha=1.0, **options).fit(X, Y, weight)
    other = regressor(alpha=factor, **options).fit(X, Y, factor * weight)
    np.testing.assert_allclose(other.loss_, one.loss_, rtol=1e-9)
    np.testing.assert_allclose(other.predict(X), one.predict(X), rtol=1e-6)


@pytest.mark.parametrize("labels", [LABELS, np.arange(40) % 3])
def test_the_loss_of_validation_data_is_that_of_their_classes_without_smoothing(labels):
    net = classifier(class_weight="balanced", label_smoothing=0.2, alpha=9.0).fit(
        X, labels, X_val=X[:30], y_val=labels[:30]
    )
    counts = (len(labels) / (len(np.unique(labels)) * np.bincount(labels)))[labels[:30]]
    expected = log_loss(labels[:30], net.predict_proba(X[:30]), sample_weight=counts)
    np.testing.assert_allclose(net.validation_loss_curve_[-1], expected, rtol=1e-9)


def test_the_losses_of_an_ensemble_are_the_means_over_all_members_to_the_end():
    options = {"tol": 0.01, "n_iter_no_change": 2, "max_iter": 60, "learning_rate_init": 0.1}
    net = regressor(n_members=3, **options).fit(X, Y)
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=3)
    alone = [regressor(**options | {"random_state": seed}).fit(X, Y).loss_curve_ for seed in seeds]
    assert len({len(curve) for curve in alone}) > 1
    padded = [curve + curve[-1:] * (net.n_iter_ - len(curve)) for curve in alone]
    np.testing.assert_allclose(net.loss_curve_, np.mean(padded, axis=0), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"solver": "sgd"}])
def test_one_of_scikit_learns_goes_on_with_what_its_solver_remembers(options):
    theirs = TheirClassifier(**SMALL | options).fit(X, LABELS)
    ours = MLPClassifier.from_sklearn(theirs)
    for each in (theirs, ours):
        each.partial_fit(X, LABELS)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-12)


def test_a_generator_of_another_kind_is_taken():
    def drawn():
        return np.random.RandomState(np.random.PCG64(1))

    ours = regressor(random_state=drawn(), scale=False).fit(X, Y)
    theirs = TheirRegressor(**SMALL | {"random_state": drawn()}).fit(X, Y)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-12)
    assert regressor(random_state=drawn(), dropout=0.5).fit(X, Y).loss_ > 0


def test_students_quantiles_need_no_variance():
    net = regressor(loss="student_t", loss_params={"df": 1.0}).fit(X, Y)
    low, middle, high = net.predict_quantiles(X, [0.25, 0.5, 0.75]).T
    np.testing.assert_allclose(middle, net.predict(X), rtol=1e-9)
    scale = (high - low) / 2  # of Cauchy's distribution half of what lies between its quartiles
    draws = net.sample(X, 20000, random_state=0)
    np.testing.assert_allclose(np.mean(draws < middle + scale, axis=0), 0.75, atol=0.02)


def test_predictions_stay_those_of_the_activation_that_was_fitted(tmp_path):
    net = classifier(activation="tanh").fit(X, LABELS)
    before = net.predict_proba(X)
    net.set_params(activation="relu").save(tmp_path / "net")
    for each in (net, load(tmp_path / "net")):
        np.testing.assert_array_equal(each.predict_proba(X), before)
        assert each.recipe_.model.model.activation == "tanh"
