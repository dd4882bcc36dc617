"""With scale=False the estimators give scikit-learn's numbers, from its own random states: weights, losses, ends."""

import warnings

import numpy as np
import pytest
from sklearn import datasets, neural_network
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight
from sklearn.utils.validation import has_fit_parameter

from jaxmlp import estimators

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
WEIGHTED = has_fit_parameter(neural_network.MLPClassifier, "sample_weight")
weighted = pytest.mark.skipif(not WEIGHTED, reason="scikit-learn's perceptrons take sample_weight from 1.7 on")
SMALL = {"hidden_layer_sizes": (8, 5), "random_state": 3}


def standard(x, y):
    return StandardScaler().fit_transform(x), y


def linnerud():
    x, y = datasets.load_linnerud(return_X_y=True)
    return StandardScaler().fit_transform(x), StandardScaler().fit_transform(y)


def digits():
    x, y = datasets.load_digits(return_X_y=True)
    return x[:500] / 16, y[:500]


def diabetes():
    x, y = datasets.load_diabetes(return_X_y=True)
    return 20 * x, (y - 150) / 77


SETS = {
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "wine": lambda: standard(*datasets.load_wine(return_X_y=True)),
    "breast cancer": lambda: standard(*datasets.load_breast_cancer(return_X_y=True)),
    "digits": digits,
    "classification": lambda: datasets.make_classification(200, n_informative=5, n_classes=4, random_state=0),
    "moons": lambda: datasets.make_moons(200, noise=0.2, random_state=0),
    "multilabel": lambda: datasets.make_multilabel_classification(150, random_state=0),
    "diabetes": diabetes,
    "linnerud": linnerud,
    "friedman": lambda: datasets.make_friedman1(200, noise=0.5, random_state=0),
    "regression": lambda: datasets.make_regression(200, 8, noise=5, random_state=0),
}


def is_labels(name):
    return list(SETS).index(name) < 7


def pair(labels, **parameters):
    name = "MLPClassifier" if labels else "MLPRegressor"
    parameters = SMALL | parameters
    return getattr(neural_network, name)(**parameters), getattr(estimators, name)(scale=False, **parameters)


def both(estimator_pair, method, *args, **kwargs):
    for estimator in estimator_pair:
        getattr(estimator, method)(*args, **kwargs)


def hold_equal(theirs, ours, weights=1e-6, curves=1e-5):
    """Hold everything that is told of a fit to scikit-learn's."""
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(theirs, name), getattr(ours, name), strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=weights)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    told = ["loss_"]
    if theirs.solver != "lbfgs":
        told += ["loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_"]
    for name in told:
        expected, found = getattr(theirs, name), getattr(ours, name)
        if expected is None:
            assert found is None, name
        else:
            np.testing.assert_allclose(found, expected, rtol=curves, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", SETS)
def test_all_rows_at_once_reach_the_losses_of_scikit_learn(name):
    """Ten sets and one more, by L-BFGS and by Adam; both in float64, where rounding stays small for so long."""
    x, y = SETS[name]()
    for how in ({"solver": "lbfgs", "max_iter": 40}, {"batch_size": len(x), "max_iter": 60}):
        theirs, ours = pair(is_labels(name), **how)
        both((theirs, ours), "fit", x, y)
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-4)
        assert ours.n_iter_ == theirs.n_iter_
        if how.get("solver") != "lbfgs":
            hold_equal(theirs, ours, weights=1e-12, curves=1e-12)


@pytest.mark.parametrize("name", ["digits", "diabetes"])
@pytest.mark.parametrize("how", [{"solver": "lbfgs"}, {"batch_size": 500}], ids=["lbfgs", "adam"])
def test_given_weights_are_where_a_warm_start_begins(name, how):
    x, y = SETS[name]()
    first, _ = pair(is_labels(name), random_state=8, max_iter=1, solver="lbfgs")
    first.fit(x, y)
    theirs, ours = pair(is_labels(name), warm_start=True, max_iter=20, **how)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got `batch_size`")
        both((theirs, ours), "fit", x, y)
        for estimator in (theirs, ours):
            estimator.coefs_ = [w.copy() for w in first.coefs_]
            estimator.intercepts_ = [b.copy() for b in first.intercepts_]
        both((theirs, ours), "fit", x, y)
    hold_equal(theirs, ours, weights=1e-7)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_an_epoch_of_steps_in_one_order_gives_the_same_weights(dtype, momentum, nesterov):
    x, y = SETS["digits"]()
    how = {"momentum": momentum, "nesterovs_momentum": nesterov, "learning_rate_init": 0.05, "batch_size": 64}
    theirs, ours = pair(True, solver="sgd", max_iter=1, **how)
    both((theirs, ours), "fit", x.astype(dtype), y)
    hold_equal(theirs, ours)
    assert [w.dtype for w in ours.coefs_] == [w.dtype for w in theirs.coefs_]


@pytest.mark.parametrize("learning_rate", ["constant", "invscaling", "adaptive"])
@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_the_rates_fall_and_the_runs_end_alike(name, learning_rate):
    x, y = SETS[name]()
    how = {"learning_rate": learning_rate, "learning_rate_init": 0.05, "n_iter_no_change": 2, "tol": 1e-2}
    theirs, ours = pair(is_labels(name), solver="sgd", max_iter=120, batch_size=64, **how)
    both((theirs, ours), "fit", x, y)
    assert theirs.n_iter_ < 120
    hold_equal(theirs, ours, weights=1e-5, curves=1e-4)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("name", ["moons", "diabetes", "multilabel"])
def test_batches_come_in_the_same_order(name, shuffle):
    x, y = SETS[name]()
    theirs, ours = pair(is_labels(name), max_iter=8, batch_size=32, shuffle=shuffle)
    both((theirs, ours), "fit", x, y)
    hold_equal(theirs, ours)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh"])
def test_every_activation(activation):
    theirs, ours = pair(True, max_iter=5, activation=activation)
    both((theirs, ours), "fit", *SETS["digits"]())
    hold_equal(theirs, ours)


@pytest.mark.parametrize("name", ["digits", "moons", "multilabel", "diabetes"])
@pytest.mark.parametrize("weigh", [False, pytest.param(True, marks=weighted)], ids=["plain", "weighted"])
def test_early_stopping_validates_on_the_same_rows_and_ends_alike(name, weigh):
    x, y = SETS[name]()
    given = {"sample_weight": np.random.RandomState(0).uniform(0.2, 3, len(x))} if weigh else {}
    theirs, ours = pair(is_labels(name), early_stopping=True, max_iter=40, n_iter_no_change=3)
    both((theirs, ours), "fit", x, y, **given)
    hold_equal(theirs, ours, weights=1e-5, curves=1e-4)


@pytest.mark.parametrize("how", [{"solver": "lbfgs"}, {"batch_size": 442}, {}], ids=["lbfgs", "full", "batches"])
def test_counts_under_a_poisson_loss(how):
    if "loss" not in neural_network.MLPRegressor().get_params():
        pytest.skip("scikit-learn's regressor takes a loss from 1.7 on")
    x, y = SETS["diabetes"]()
    theirs, ours = pair(False, loss="poisson", max_iter=20, **how)
    both((theirs, ours), "fit", x, np.random.RandomState(0).poisson(np.exp(y)).astype(float))
    hold_equal(theirs, ours)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-5)


@weighted
@pytest.mark.parametrize("how", [{"solver": "lbfgs"}, {"batch_size": 500}, {}], ids=["lbfgs", "full", "batches"])
def test_weights_of_samples_and_of_classes(how):
    """A weight of a class is one of each of its samples, and multiplies theirs."""
    x, y = SETS["digits"]()
    weight = np.random.RandomState(0).uniform(0.2, 3, len(x))
    theirs, ours = pair(True, max_iter=8, **how)
    both((theirs, ours), "fit", x, y, sample_weight=weight)
    hold_equal(theirs, ours)
    for class_weight in ("balanced", {i: 1 + i % 3 for i in range(10)}):
        theirs.fit(x, y, sample_weight=compute_sample_weight(class_weight, y))
        ours.set_params(class_weight=class_weight).fit(x, y)
        hold_equal(theirs, ours)
    theirs.fit(x, y, sample_weight=weight * compute_sample_weight({i: 1 + i % 3 for i in range(10)}, y))
    ours.fit(x, y, sample_weight=weight)
    hold_equal(theirs, ours)


ADAPTIVE = {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "n_iter_no_change": 1, "tol": 0.5}
INVERSE = {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1}


@pytest.mark.parametrize("how", [{}, INVERSE, ADAPTIVE], ids=["adam", "invscaling", "adaptive"])
def test_epochs_that_are_taken_one_by_one(how):
    """Rows of other sizes come in turn; the solver, its rate and the rule of stopping go on."""
    x, y = SETS["digits"]()
    theirs, ours = pair(True, **how)
    for i in range(6):
        rows = slice(60 * (i % 3), 60 * (i % 3) + 60 + 20 * (i % 2))
        both((theirs, ours), "partial_fit", x[rows], y[rows], classes=np.arange(10))
        assert ours.n_iter_ == theirs.n_iter_ == 1 and ours.t_ == theirs.t_
    hold_equal(theirs, ours)


def test_an_epoch_after_a_fit_goes_on_with_its_solver():
    x, y = SETS["digits"]()
    theirs, ours = pair(True, max_iter=3)
    both((theirs, ours), "fit", x, y)
    for _ in range(2):
        both((theirs, ours), "partial_fit", x, y)
        hold_equal(theirs, ours)


WARM = [{}, {"early_stopping": True}, ADAPTIVE, {"solver": "lbfgs"}]


@pytest.mark.parametrize("how", WARM, ids=["adam", "early", "adaptive", "lbfgs"])
def test_warm_starts_go_on(how):
    """scikit-learn trains on its best weights in place, so that without a better score it keeps the last; not we."""
    x, y = SETS["digits"]()
    theirs, ours = pair(True, warm_start=True, max_iter=4, **how)
    for weights in (1e-5, 1e9) if theirs.early_stopping else (1e-5,) * 3:
        both((theirs, ours), "fit", x, y)
        hold_equal(theirs, ours, weights=weights)


def test_one_generator_serves_fit_after_fit():
    x, y = SETS["moons"]()
    theirs, ours = pair(True, max_iter=3, batch_size=50)
    theirs.random_state, ours.random_state = np.random.RandomState(5), np.random.RandomState(5)
    for _ in range(2):
        both((theirs, ours), "fit", x, y)
        hold_equal(theirs, ours)
