"""Weights of rows and validation data on their way to an estimator: by hand, through pipelines and through searches."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from jaxmlp.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.RandomState(0)
X = RNG.randn(40, 3) + 2
VALUES = X[:, 0] + 0.1 * RNG.randn(40)
LABELS = (VALUES > 2).astype(int)
WEIGHT = RNG.rand(40) + 0.5
HELD, SEEN = X[:16] + 0.1, VALUES[:16]
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}


@pytest.fixture
def routed():
    with sklearn.config_context(enable_metadata_routing=True):
        yield MLPRegressor(**SMALL).set_fit_request(sample_weight=True, X_val=True, y_val=True)


def same(one, other, rtol=0.0):
    for a, b in zip(one.coefs_, other.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol)
    np.testing.assert_allclose(one.validation_scores_, other.validation_scores_, rtol=rtol)


def test_own_validation_data_are_scored_after_each_epoch():
    net = MLPRegressor(**SMALL).fit(X, VALUES, X_val=HELD, y_val=SEEN)
    assert len(net.validation_scores_) == len(net.validation_loss_curve_) == 3
    assert net.validation_scores_[-1] == pytest.approx(net.score(HELD, SEEN))
    scaled = (SEEN - net.predict(HELD)) / VALUES.std()
    assert net.validation_loss_curve_[-1] == pytest.approx(0.5 * np.mean(scaled**2))
    same_net = MLPRegressor(**SMALL).fit(X, VALUES)
    assert all(np.array_equal(a, b) for a, b in zip(net.coefs_, same_net.coefs_, strict=True))


def test_own_validation_data_end_a_fit_early():
    net = MLPClassifier(**{**SMALL, "max_iter": 100}, early_stopping=True, n_iter_no_change=2, tol=0.5)
    net.fit(X, LABELS, X_val=X[:16], y_val=LABELS[:16])
    assert net.n_iter_ == 4  # the first better than nothing, and three that are not better by a half
    assert net.best_validation_score_ == max(net.validation_scores_) == net.score(X[:16], LABELS[:16])


def test_a_pipeline_transforms_validation_data(routed):
    scaler = StandardScaler().set_fit_request(sample_weight=True)
    pipe = Pipeline([("scale", scaler), ("net", routed)], transform_input=["X_val"])
    pipe.fit(X, VALUES, sample_weight=WEIGHT, X_val=HELD, y_val=SEEN)
    scaler = StandardScaler().fit(X, sample_weight=WEIGHT)
    by_hand = clone(routed).fit(
        scaler.transform(X), VALUES, sample_weight=WEIGHT, X_val=scaler.transform(HELD), y_val=SEEN
    )
    same(pipe[-1], by_hand)


def test_a_cross_validation_divides_weights_and_leaves_validation_data_whole(routed):
    net = routed.set_score_request(sample_weight=True)
    given = {"sample_weight": WEIGHT, "X_val": HELD, "y_val": SEEN}
    found = cross_validate(net, X, VALUES, cv=2, params=given, return_estimator=True)
    for first, score, fitted in zip((20, 0), found["test_score"], found["estimator"], strict=True):
        train, test = slice(first, first + 20), slice(20 - first, 40 - first)
        by_hand = clone(net).fit(X[train], VALUES[train], sample_weight=WEIGHT[train], X_val=HELD, y_val=SEEN)
        same(fitted, by_hand)
        assert score == by_hand.score(X[test], VALUES[test], sample_weight=WEIGHT[test])


def test_a_search_hands_them_on(routed):
    routed.set_score_request(sample_weight=False)
    search = GridSearchCV(routed, {"alpha": [0.1, 1.0]}, cv=2)
    search.fit(X, VALUES, sample_weight=WEIGHT, X_val=HELD, y_val=SEEN)
    by_hand = clone(routed).set_params(**search.best_params_)
    same(search.best_estimator_, by_hand.fit(X, VALUES, sample_weight=WEIGHT, X_val=HELD, y_val=SEEN))


def test_what_nobody_asked_for_is_refused(routed):
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight.*not explicitly set"):
        GridSearchCV(MLPRegressor(**SMALL), {"alpha": [0.1]}, cv=2).fit(X, VALUES, sample_weight=WEIGHT)


def test_weights_count_rows():
    counts = RNG.randint(0, 3, 40)
    repeated = np.repeat(np.arange(40), counts)
    full = {**SMALL, "solver": "lbfgs", "max_iter": 20}
    weighed = MLPRegressor(**full).fit(X, VALUES, sample_weight=counts)
    np.testing.assert_allclose(
        weighed.predict(X), MLPRegressor(**full).fit(X[repeated], VALUES[repeated]).predict(X), rtol=1e-5
    )


@pytest.mark.parametrize("given", [{"X_val": HELD}, {"y_val": SEEN}])
def test_half_of_validation_data_is_refused(given):
    with pytest.raises(ValueError, match="X_val and y_val must be given together"):
        MLPRegressor(**SMALL).fit(X, VALUES, **given)


@pytest.mark.parametrize(
    ("estimator", "given", "words"),
    [
        (
            MLPRegressor(**SMALL),
            {"X_val": HELD[:, :2], "y_val": SEEN},
            "X has 2 features, but MLPRegressor is expecting 3",
        ),
        (MLPRegressor(**SMALL), {"X_val": HELD, "y_val": SEEN[:3]}, "inconsistent numbers of samples"),
        (MLPRegressor(**SMALL), {"X_val": HELD, "y_val": np.c_[SEEN, SEEN]}, "y must have the 1 outputs .* got 2"),
        (MLPClassifier(**SMALL), {"X_val": HELD, "y_val": np.full(16, 7)}, "`y` has classes not in `self.classes_`"),
        (MLPRegressor(**SMALL), {"sample_weight": np.ones(3)}, r"sample_weight.shape == \(3,\), expected \(40,\)"),
        (MLPRegressor(**SMALL), {"sample_weight": -WEIGHT}, "Negative values in data passed to `sample_weight`"),
        (MLPRegressor(**SMALL), {"sample_weight": 0 * WEIGHT}, "(?i)sample.?weight.*(zero|0)"),
    ],
)
def test_what_does_not_fit_is_refused(estimator, given, words):
    with pytest.raises(ValueError, match=words):
        estimator.fit(X, LABELS, **given)


def test_validation_data_of_a_warm_start_may_lack_a_class():
    net = MLPClassifier(warm_start=True, **SMALL).fit(X, LABELS, X_val=X[:4], y_val=np.ones(4, int))
    net.fit(X, LABELS, X_val=X[:4], y_val=np.ones(4, int))
    assert len(net.validation_scores_) == 6
