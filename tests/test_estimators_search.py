"""`SearchCV` gives what scikit-learn's searches give over the same estimator, fitted as one population."""

import pickle
import zlib
from collections import Counter
from unittest import SkipTest

import numpy as np
import pytest

pytest.importorskip("sklearn")
from scipy.sparse import csr_array
from scipy.stats import loguniform
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from jaxmlp import _compile
from jaxmlp.estimators import MLPClassifier, MLPRegressor, SearchCV
from jaxmlp.estimators import _blocks as blocks
from jaxmlp.estimators._greedy import GreedyEnsemble

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Got `batch_size`"),
]
X, Y = load_iris(return_X_y=True)
X, Y = X[::2], Y[::2]
FEW = {"hidden_layer_sizes": (4,), "max_iter": 6, "random_state": 3, "batch_size": 20}
CLASSIFIER = MLPClassifier(**FEW)
GRID = {"alpha": [1e-4, 1.0], "learning_rate_init": [1e-3, 1e-1]}


def same(ours, theirs):
    """Hold all of `cv_results_` but the times to scikit-learn's."""
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    for name, values in theirs.cv_results_.items():
        found = ours.cv_results_[name]
        if name == "params":
            continue
        assert type(found) is type(values) and found.dtype == values.dtype, name
        if "time" not in name:
            assert np.array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(values)), name
            if values.dtype == object:
                assert found.tolist() == values.tolist(), name
            else:
                np.testing.assert_allclose(found, values, rtol=1e-6, err_msg=name)
    for name in ("n_splits_", "multimetric_", "best_params_", "best_index_"):
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    assert getattr(ours, "best_score_", None) == pytest.approx(getattr(theirs, "best_score_", None))


KINDS = {
    "numbers": ({}, GRID),
    "shapes": ({}, {"hidden_layer_sizes": [(4,), (3, 3)], "activation": ["relu", "tanh"], "scale": [True, False]}),
    "that end apart": ({"max_iter": 30, "tol": 0.02, "n_iter_no_change": 2}, GRID),
    "early stopping": ({"early_stopping": True, "n_iter_no_change": 2}, GRID),
    "ensembles": ({"n_members": 2}, {"alpha": [1e-4, 1.0]}),
    "weighted classes": ({"class_weight": "balanced"}, {"momentum": [0.5, 0.9], "solver": ["sgd"]}),
    "batches": ({}, [{"batch_size": [10, 20]}, {"shuffle": [False], "dropout": [0.1]}]),
    "without a step": ({"solver": "lbfgs"}, {"alpha": [1e-4, 1.0]}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 3])
def test_a_search_is_scikit_learns_over_the_same_estimator(kind, width, monkeypatch):
    monkeypatch.setattr(blocks, "_width", lambda *given, **named: width)
    given, grid = KINDS[kind]
    if width > 1 and kind in ("shapes", "batches", "without a step"):
        pytest.skip("of one width")
    estimator = clone(CLASSIFIER).set_params(**given)
    ours = SearchCV(estimator, grid, cv=3, return_train_score=True).fit(X, Y)
    theirs = GridSearchCV(estimator, grid, cv=3, return_train_score=True).fit(X, Y)
    same(ours, theirs)
    for a, b in zip(ours.best_estimator_.coefs_, theirs.best_estimator_.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_draws_are_those_of_a_randomized_search():
    draws = {"alpha": loguniform(1e-5, 1), "learning_rate_init": [1e-3, 1e-2]}
    ours = SearchCV(CLASSIFIER, param_distributions=draws, n_iter=3, cv=3, random_state=4).fit(X, Y)
    same(ours, RandomizedSearchCV(CLASSIFIER, draws, n_iter=3, cv=3, random_state=4).fit(X, Y))
    few = SearchCV(CLASSIFIER, param_distributions={"alpha": loguniform(1e-5, 1)}, cv=2, refit=False).fit(X, Y)
    assert len(few.cv_results_["params"]) == 10


@pytest.mark.parametrize("grid", [True, False])
@pytest.mark.parametrize("resource", ["n_samples", "max_iter"])
def test_halving_is_scikit_learns(grid, resource):
    given = {"resource": resource, "factor": 2}
    if resource == "max_iter":
        given |= {"min_resources": 2, "max_resources": 8, "aggressive_elimination": grid}
    else:
        given |= {"min_resources": "exhaust" if grid else "smallest"}
    common = {"cv": 3, "random_state": 1, "return_train_score": True}
    if grid:
        settings = {"alpha": [1e-5, 1e-3, 1e-1, 1.0, 10.0]}
        ours = SearchCV(CLASSIFIER, settings, halving=given, **common).fit(X, Y)
        theirs = HalvingGridSearchCV(CLASSIFIER, settings, **given, **common).fit(X, Y)
    else:
        settings = {"alpha": loguniform(1e-5, 1)}
        ours = SearchCV(CLASSIFIER, param_distributions=settings, halving=given, **common).fit(X, Y)
        theirs = HalvingRandomSearchCV(CLASSIFIER, settings, **given, **common).fit(X, Y)
    same(ours, theirs)
    for name in ("n_resources_", "n_candidates_", "n_remaining_candidates_", "min_resources_", "max_resources_"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("n_iterations_", "n_required_iterations_", "n_possible_iterations_"):
        assert getattr(ours, name) == getattr(theirs, name)


def lowest_alpha(results):
    """Return the index of the setting with the lowest alpha."""
    return int(np.argmin(results["param_alpha"].filled(np.inf)))


def two(estimator, X, y):
    """Return two scores at once."""
    return {"right": accuracy_score(y, estimator.predict(X)), "rows": float(len(X))}


@pytest.mark.parametrize(
    "how",
    [
        {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"},
        {"scoring": {"a": "accuracy"}, "refit": False},
        {"scoring": "neg_log_loss", "refit": False},
        {"scoring": two, "refit": "right"},
        {"scoring": "balanced_accuracy", "refit": lowest_alpha},
    ],
    ids=["names", "no refit of several", "no refit", "function", "choice of one's own"],
)
def test_scores_and_refit(how):
    ours = SearchCV(CLASSIFIER, GRID, cv=KFold(3, shuffle=True, random_state=0), **how).fit(X, Y)
    theirs = GridSearchCV(CLASSIFIER, GRID, cv=KFold(3, shuffle=True, random_state=0), **how).fit(X, Y)
    same(ours, theirs)
    assert hasattr(ours, "predict") == hasattr(theirs, "predict") == bool(how["refit"])
    assert type(ours.scorer_) is type(theirs.scorer_)
    if how["refit"]:
        assert ours.refit_time_ > 0 and ours.score(X, Y) == pytest.approx(theirs.score(X, Y))


def test_groups_and_weights_go_where_they_belong():
    rng = np.random.default_rng(0)
    groups, weight = rng.integers(0, 6, len(X)), rng.integers(0, 3, len(X)).astype(float)
    for given in ({"groups": groups}, {"groups": groups, "sample_weight": weight}):
        ours = SearchCV(CLASSIFIER, GRID, cv=GroupKFold(3)).fit(X, Y, **given)
        same(ours, GridSearchCV(CLASSIFIER, GRID, cv=GroupKFold(3)).fit(X, Y, **given))
    with config_context(enable_metadata_routing=True):
        estimator = clone(CLASSIFIER).set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        routed = SearchCV(estimator, GRID, cv=GroupKFold(3)).fit(X, Y, groups=groups, sample_weight=weight)
        same(routed, GridSearchCV(estimator, GRID, cv=GroupKFold(3)).fit(X, Y, groups=groups, sample_weight=weight))


def test_fits_that_fail_are_told_as_scikit_learn_tells_them():
    grid = {"alpha": [1e-4, -1.0]}
    with pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 6"), pytest.warns(UserWarning):
        ours = SearchCV(CLASSIFIER, grid, cv=3).fit(X, Y)
    assert np.isnan(ours.cv_results_["mean_test_score"]).tolist() == [False, True]
    with pytest.raises(ValueError, match="The 'alpha' parameter of MLPClassifier must be a float"):
        SearchCV(CLASSIFIER, grid, cv=3, error_score="raise").fit(X, Y)
    with pytest.raises(ValueError, match="All the 3 fits failed"):
        SearchCV(CLASSIFIER, {"alpha": [-1.0]}, cv=3).fit(X, Y)
    with pytest.raises(ValueError, match="Invalid parameter 'alpa'"):
        SearchCV(CLASSIFIER, {"alpa": [1.0]}, cv=3).fit(X, Y)
    wild = clone(CLASSIFIER).set_params(solver="sgd", activation="identity", scale=False, momentum=1.0)
    with pytest.warns(FitFailedWarning, match="non-finite parameter weights"), pytest.warns(UserWarning):
        found = SearchCV(wild, {"learning_rate_init": [1e-3, 1e30]}, cv=3).fit(X, Y)
    assert np.isnan(found.cv_results_["mean_test_score"]).tolist() == [False, True]


def test_a_regressor_a_pipeline_and_sparse_rows():
    regressor = MLPRegressor(**FEW)
    same(SearchCV(regressor, GRID, cv=3).fit(X, X[:, :2]), GridSearchCV(regressor, GRID, cv=3).fit(X, X[:, :2]))
    pipe, grid = make_pipeline(StandardScaler(), CLASSIFIER), {"mlpclassifier__alpha": [1e-4, 1.0]}
    same(SearchCV(pipe, grid, cv=3).fit(X, Y), GridSearchCV(pipe, grid, cv=3).fit(X, Y))
    sparse = csr_array(X)
    same(SearchCV(CLASSIFIER, GRID, cv=3).fit(sparse, Y), GridSearchCV(CLASSIFIER, GRID, cv=3).fit(sparse, Y))


def test_it_is_what_it_searches_for():
    search = SearchCV(CLASSIFIER, GRID, cv=3)
    assert is_classifier(search) and is_regressor(SearchCV(MLPRegressor(), GRID))
    assert is_classifier(make_pipeline(StandardScaler(), search)) and hasattr(search, "predict_proba")
    assert not hasattr(SearchCV(MLPRegressor(), GRID), "predict_proba")
    with pytest.raises(NotFittedError):
        search.predict(X)
    fitted = clone(search).fit(X, Y)
    assert fitted.classes_.tolist() == [0, 1, 2] and fitted.n_features_in_ == 4
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.best_estimator_.predict_proba(X))
    np.testing.assert_array_equal(fitted.predict(X), fitted.best_estimator_.predict(X))
    assert "fit" not in vars(fitted.best_estimator_)


def test_members_of_a_program_share_its_compilation():
    search = SearchCV(CLASSIFIER, {"alpha": [0.1, 0.2], "learning_rate_init": [1e-3, 2e-3]}, cv=3, refit=False)
    search.fit(X, Y)
    before = _compile.trace_count()
    clone(search).set_params(param_grid={"alpha": [0.3, 0.4, 0.5]}).fit(X, Y)
    assert _compile.trace_count() == before


def test_the_seed_of_a_search_is_one_for_estimators_without():
    free = clone(CLASSIFIER).set_params(random_state=None)
    one, two = (SearchCV(free, GRID, cv=3, random_state=5).fit(X, Y) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    assert one.best_estimator_.random_state is not None and free.random_state is None
    np.random.seed(0)
    one = SearchCV(free, GRID, cv=3).fit(X, Y)
    np.random.seed(0)
    np.testing.assert_array_equal(SearchCV(free, GRID, cv=3).fit(X, Y).predict_proba(X), one.predict_proba(X))


def test_the_greedy_ensemble_averages_the_models_of_the_folds():
    ours = SearchCV(CLASSIFIER, GRID, cv=3, ensemble="greedy").fit(X, Y)
    shares, made = ours.ensemble_weights_, ours.best_estimator_
    assert shares.sum() == pytest.approx(1) and len(made.estimators) == 3 * np.count_nonzero(shares)
    chosen = [ours.cv_results_["params"][i] for i in np.flatnonzero(shares)]
    expected = np.zeros((len(X), 3))
    for setting, share in zip(chosen, shares[shares > 0], strict=True):
        for train, _ in ours._checked_cv_orig.split(X, Y):
            expected += share / 3 * clone(CLASSIFIER).set_params(**setting).fit(X[train], Y[train]).predict_proba(X)
    np.testing.assert_allclose(ours.predict_proba(X), expected, atol=1e-6)
    np.testing.assert_array_equal(ours.predict(X), expected.argmax(1))
    assert is_classifier(made) and ours.classes_.tolist() == [0, 1, 2] and ours.n_features_in_ == 4
    assert ours.score(X, Y) == (expected.argmax(1) == Y).mean() and ours.predict_log_proba(X).shape == (len(X), 3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).predict_proba(X), ours.predict_proba(X))


def test_greedy_ensembles_of_numbers_of_many_labels_and_of_folds_that_lack_a_class():
    numbers = SearchCV(MLPRegressor(**FEW), GRID, cv=3, ensemble="greedy", halving=True).fit(X, X[:, 0])
    whole = numbers.best_estimator_
    each = np.array([model.predict(X) for model in whole.estimators])
    mean, spread = whole.predict(X, return_std=True)
    np.testing.assert_allclose(spread**2, np.average((each - mean) ** 2, axis=0, weights=whole.weights), rtol=1e-9)
    noisy = type(whole)([MLPRegressor("gaussian", **FEW).fit(X, X[:, 0])], [1.0])
    np.testing.assert_allclose(noisy.predict(X, True), noisy.estimators[0].predict(X, return_std=True), rtol=1e-6)
    np.testing.assert_array_equal(numbers.predict(X, return_std=True)[1], spread)
    assert numbers.predict(X).shape == (len(X),) and not hasattr(numbers, "predict_proba")
    assert is_regressor(numbers.best_estimator_)
    labels = np.stack([Y > 0, X[:, 1] > 3], 1).astype(int)
    many = SearchCV(CLASSIFIER, GRID, cv=3, ensemble="greedy").fit(X, labels)
    assert many.predict(X).shape == (len(X), 2) and set(np.unique(many.predict(X))) <= {0, 1}
    lacking = SearchCV(CLASSIFIER, GRID, cv=KFold(3), ensemble="greedy").fit(X, Y)
    np.testing.assert_allclose(lacking.predict_proba(X).sum(1), 1, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")  # which one of scikit-learn's tells too
@pytest.mark.parametrize("estimator", [CLASSIFIER, MLPRegressor(**FEW)])
def test_greedy_chooses_alike_for_targets_in_a_column_and_far_from_zero(estimator):
    y = (Y > 0).astype(int) if estimator is CLASSIFIER else X[:, 0]
    plain = SearchCV(estimator, GRID, cv=3, ensemble="greedy").fit(X, y)
    column = SearchCV(estimator, GRID, cv=3, ensemble="greedy").fit(X, y[:, None])
    np.testing.assert_array_equal(column.ensemble_weights_, plain.ensemble_weights_)
    np.testing.assert_array_equal(column.predict(X), plain.predict(X))
    if estimator is not CLASSIFIER:
        far = SearchCV(estimator, GRID, cv=3, ensemble="greedy").fit(X, y + 2.0**31)
        np.testing.assert_allclose(far.ensemble_weights_, plain.ensemble_weights_)


def test_halving_asks_for_the_same_folds_in_every_round():
    with pytest.raises(ValueError, match="must yield consistent folds across calls to split"):
        SearchCV(CLASSIFIER, GRID, halving=True, cv=KFold(3, shuffle=True)).fit(X, Y)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_an_ensemble_needs_probabilities_and_a_setting_without_failures():
    with pytest.raises(ValueError, match="must have probabilities to average; RidgeClassifier has none"):
        SearchCV(RidgeClassifier(), {"alpha": [1.0]}, cv=3, ensemble="greedy").fit(X, Y)
    labels = np.stack([Y > 0, X[:, 1] > 3], 1).astype(int)
    with pytest.raises(ValueError, match="must have probabilities as one array; of many labels a row KNeighborsC"):
        SearchCV(KNeighborsClassifier(), {"n_neighbors": [3]}, cv=3, ensemble="greedy").fit(X, labels)
    with pytest.raises(ValueError, match="return_std must be left out of a classifier's predict"):
        GreedyEnsemble([MLPClassifier(**FEW).fit(X, Y)], [1.0]).predict(X, return_std=True)
    splits = [(np.arange(60), np.arange(60, 75)), (np.arange(5, 75), np.arange(5))]
    lost = {"sample_weight": np.where(np.arange(75) < 60, 0.0, 1.0)}  # the first fold has no row that counts
    with pytest.raises(ValueError, match="must have one setting that was fitted on every fold; got none"):
        SearchCV(CLASSIFIER, GRID, cv=splits, ensemble="greedy").fit(X, Y, **lost)


WRONG = {
    "one of param_grid, which is tried whole, and param_distributions": {"param_grid": None},
    "got both": {"param_distributions": GRID},
    "halving must be True, False or a dict with keys among resource": {"halving": {"factr": 2}},
    "factor must be above 1; got 1": {"halving": {"factor": 1}},
    "min_resources must be 'exhaust' or 'smallest', or a positive int": {"halving": {"min_resources": "few"}},
    "max_resources must be 'auto', or a positive int": {"halving": {"max_resources": 0}},
    "resource can only be 'n_samples' when max_resources='auto'": {"halving": {"resource": "max_iter"}},
    "Cannot use resource=epochs which is not supported": {"halving": {"resource": "epochs", "max_resources": 9}},
    "Cannot use parameter alpha as the resource": {"halving": {"resource": "alpha", "max_resources": 9}},
    "min_resources_=900 is greater than max_resources_=75": {"halving": {"min_resources": 900}},
    "refit must name the one that decides": {"halving": True, "scoring": ["accuracy", "r2"], "refit": False},
    "cv.split and cv.get_n_splits return inconsistent results": {"cv": None},
    "No fits were performed": {"param_grid": []},
}


def test_callbacks_see_the_fits_of_the_estimator_and_not_the_search():
    told = pytest.importorskip("sklearn.callback")
    search = SearchCV(CLASSIFIER, GRID, cv=3)
    search.set_callbacks(told.ScoringMonitor(scoring="accuracy"))
    with pytest.raises(ValueError, match="callbacks must be set on the estimator of a search"):
        search.fit(X, Y)
    watched = SearchCV(clone(CLASSIFIER).set_callbacks(told.ScoringMonitor(scoring="accuracy")), GRID, cv=3)
    same(watched.fit(X, Y), GridSearchCV(CLASSIFIER, GRID, cv=3).fit(X, Y))


class Liar(ShuffleSplit):
    """A splitter that promises more than it gives."""

    def get_n_splits(self, *given, **named):
        """Return one too many."""
        return 3


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_told(message):
    given = {"param_grid": GRID, "cv": 3, **WRONG[message]}
    if given["cv"] is None:
        given["cv"] = Liar(2)
    with pytest.raises(ValueError, match=message):
        SearchCV(CLASSIFIER, **given).fit(X, Y)


LACKS = ("pandas is not installed", "SCIPY_ARRAY_API is not set")  # why a check may be skipped: this machine
FAST = {"max_iter": 60, "learning_rate_init": 1e-2}
CHECKED = [SearchCV(net(**FAST), {"alpha": [1e-4, 1e-2]}, cv=2) for net in (MLPClassifier, MLPRegressor)]


def checks():
    """Return pairs of a search and a check of it; one that both have is run on one of them, the rest are long."""
    found, seen = [], Counter()
    for turn, search in enumerate(CHECKED):
        for _, check in estimator_checks_generator(search):
            name = getattr(check, "func", check).__name__
            alone = "classif" in name or "regress" in name
            now = alone or zlib.crc32(name.encode()) % 2 == turn
            label = f"{type(search.estimator).__name__}-{name.removeprefix('check_')}-{seen[turn, name]}"
            seen[turn, name] += 1
            found.append(pytest.param(search, check, id=label, marks=() if now else pytest.mark.long))
    return found


@pytest.mark.parametrize(("estimator", "check"), checks())
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        assert any(lack in str(reason) for lack in LACKS), reason
        pytest.skip(str(reason))


def test_as_many_checks_are_made_as_of_scikit_learns_own_search():
    theirs = [GridSearchCV(net(), {"alpha": [1.0]}) for net in (TheirClassifier, TheirRegressor)]
    for search, their in zip(CHECKED, theirs, strict=True):
        mine, others = (
            Counter(getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(each))
            for each in (search, their)
        )
        assert not others - mine
