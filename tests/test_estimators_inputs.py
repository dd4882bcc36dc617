"""What an estimator takes, of any library, kind of label and layout in memory, and what it refuses."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.preprocessing import StandardScaler

from jaxmlp.estimators import MLPClassifier, MLPRegressor
from jaxmlp.estimators._units import fit_columns

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.RandomState(0)
X = RNG.randn(40, 3)
VALUES = X[:, 0] + 0.1 * RNG.randn(40)
LABELS = np.where(VALUES > 0, "yes", "no")
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}


@pytest.fixture(scope="module")
def plain():
    """Return what is predicted after a fit to plain arrays: values and probabilities, once they are asked for."""
    known = {}

    def of(Estimator, y):
        if Estimator not in known:
            net = Estimator(**SMALL).fit(X, y)
            known[Estimator] = net.predict_proba(X) if Estimator is MLPClassifier else net.predict(X)
        return known[Estimator]

    return of


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_with_names_is_taken_and_remembered(library, plain):
    frames = pytest.importorskip(library)
    table = frames.DataFrame({name: X[:, i] for i, name in enumerate("abc")})
    net = MLPRegressor(**SMALL).fit(table, frames.Series(VALUES))
    assert list(net.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_allclose(net.predict(table), plain(MLPRegressor, VALUES), rtol=1e-12)
    with pytest.raises(ValueError, match="Feature names must be in the same order as they were in fit"):
        net.predict(table[["b", "a", "c"]])
    with pytest.warns(UserWarning, match="X does not have valid feature names, but MLPRegressor was fitted with"):
        net.predict(X)
    classifier = MLPClassifier(**SMALL).fit(table, frames.Series(LABELS))
    assert set(classifier.predict(table)) <= {"no", "yes"}
    np.testing.assert_allclose(classifier.predict_proba(table), plain(MLPClassifier, LABELS), rtol=1e-12)


@pytest.mark.parametrize("kind", ["category", "string", object])
def test_labels_of_pandas_are_taken(kind, plain):
    labels = pytest.importorskip("pandas").Series(LABELS, dtype=kind)
    net = MLPClassifier(**SMALL).fit(X, labels)
    assert list(net.classes_) == ["no", "yes"]
    np.testing.assert_array_equal(net.predict_proba(X), plain(MLPClassifier, LABELS))


@pytest.mark.parametrize("coded", [LABELS, LABELS.astype(object), LABELS == "yes", 7 - 3 * (LABELS == "no")])
def test_labels_of_any_kind_come_back_as_they_were(coded, plain):
    net = MLPClassifier(**SMALL).fit(X, coded)
    np.testing.assert_array_equal(net.predict_proba(X), plain(MLPClassifier, LABELS))
    answers = net.predict(X)
    assert answers.dtype == net.classes_.dtype and set(answers) <= set(coded)


@pytest.mark.parametrize("form", ["csr_matrix", "csc_matrix", "csr_array", "csc_array", "coo_array"])
def test_sparse_rows_give_what_dense_ones_give(form, plain):
    table = getattr(scipy.sparse, form)(X)
    np.testing.assert_allclose(
        MLPRegressor(**SMALL).fit(table, VALUES).predict(table), plain(MLPRegressor, VALUES), rtol=1e-10
    )


def test_rows_mapped_from_the_disk_are_read_and_left_alone(tmp_path, plain):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", VALUES)
    x, y = (np.load(tmp_path / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    np.testing.assert_array_equal(MLPRegressor(**SMALL).fit(x, y).predict(x), plain(MLPRegressor, VALUES))


def test_lists_whole_numbers_and_other_orders_of_memory_are_taken(plain):
    expected = plain(MLPRegressor, VALUES)
    for x in (X.tolist(), np.asfortranarray(X), X[:, ::-1][:, ::-1]):
        np.testing.assert_allclose(MLPRegressor(**SMALL).fit(x, VALUES.tolist()).predict(x), expected, rtol=1e-12)
    whole = np.round(10 * X).astype(int)
    net = MLPRegressor(**SMALL).fit(whole, VALUES)
    np.testing.assert_array_equal(net.predict(whole), net.predict(whole.astype(float)))


@pytest.mark.parametrize(("Estimator", "y"), [(MLPRegressor, VALUES), (MLPClassifier, LABELS)])
def test_a_column_of_targets_is_a_vector_and_a_warning(Estimator, y):
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed when a 1d array was expected"):
        net = Estimator(**SMALL).fit(X, y[:, None])
    assert net.predict(X).shape == (40,)


def test_logits_go_with_probabilities_and_answers():
    many = np.stack([VALUES > 0, X[:, 1] > 0, X[:, 2] > 0], axis=1).astype(int)
    for y, shape in ((LABELS, (40,)), (np.digitize(VALUES, [-0.5, 0.5]), (40, 3)), (many, (40, 3))):
        for members in (1, 2):
            net = MLPClassifier(n_members=members, solver="lbfgs", **SMALL).fit(X, y)
            logits, probabilities = net.decision_function(X), net.predict_proba(X)
            assert logits.shape == shape
            if net.out_activation_ == "softmax":
                found = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
                np.testing.assert_array_equal(net.predict(X), net.classes_[logits.argmax(1)])
            else:
                found = 1 / (1 + np.exp(-logits))
                probabilities = probabilities[:, 1] if logits.ndim == 1 else probabilities
            np.testing.assert_allclose(found, probabilities, rtol=1e-9)


def test_smooth_labels_of_two_classes_move_towards_a_half():
    net = MLPClassifier((4,), solver="lbfgs", alpha=0.0, label_smoothing=0.2, random_state=0, tol=1e-9, max_iter=2000)
    net.fit(X, LABELS)
    # Where the slope by the last bias is zero, the mean probability is the mean target.
    assert net.predict_proba(X)[:, 1].mean() == pytest.approx(0.8 * (LABELS == "yes").mean() + 0.1, abs=1e-3)


WRONG = [
    (MLPRegressor, {}, np.where(X > 1, np.nan, X), VALUES, "Input X contains NaN"),
    (MLPRegressor, {}, np.where(X > 1, np.inf, X), VALUES, "Input X contains infinity"),
    (MLPRegressor, {}, X, np.where(VALUES > 1, np.nan, VALUES), "Input y contains NaN"),
    (MLPRegressor, {}, X[:, 0], VALUES, "Expected 2D array, got 1D array instead"),
    (MLPRegressor, {}, X, VALUES[:5], r"inconsistent numbers of samples: \[40, 5\]"),
    (MLPRegressor, {}, X[:0], VALUES[:0], r"Found array with 0 sample\(s\)"),
    (MLPRegressor, {}, X * 1j, VALUES, "Complex data not supported"),
    (MLPClassifier, {}, X, VALUES, "Unknown label type"),
    (MLPRegressor, {"loss": "poisson"}, X, VALUES, r"Some value\(s\) of y are negative"),
    (MLPRegressor, {"alpha": -1}, X, VALUES, "The 'alpha' parameter of MLPRegressor must be a float in the range"),
    (MLPRegressor, {"hidden_layer_sizes": (0,)}, X, VALUES, r"hidden_layer_sizes must be > 0, got \[0\]"),
    (MLPRegressor, {"hidden_layer_sizes": (2.5,)}, X, VALUES, r"must be whole numbers; got \[2.5\]"),
    (MLPRegressor, {"activation": "rleu"}, X, VALUES, "The 'activation' parameter of MLPRegressor must be a str"),
    (MLPRegressor, {"n_members": 0}, X, VALUES, "The 'n_members' parameter of MLPRegressor must be an int"),
    (MLPRegressor, {"loss": "l2"}, X, VALUES, "loss must be one of squared_error, .*got 'l2'"),
    (MLPClassifier, {"loss": "l2"}, X, LABELS, "loss must be 'log_loss', 'focal' or a function; got 'l2'"),
    (MLPClassifier, {"class_weight": "bal"}, X, LABELS, "The 'class_weight' parameter .*among {'balanced'}"),
    (MLPClassifier, {"class_weight": "balanced"}, X, (X > 0).astype(int), "class_weight must be None .*3 labels"),
    (MLPClassifier, {"label_smoothing": 2.0}, X, LABELS, r"The 'label_smoothing' parameter .*range \[0.0, 1.0\]"),
    (MLPRegressor, {"optimizer": "adamww"}, X, VALUES, "optimizer must be a name of Optax's"),
    (MLPRegressor, {"loss": "huber", "loss_params": {"delt": 1.0}}, X, VALUES, "did you mean 'delta'"),
]


@pytest.mark.parametrize(("Estimator", "numbers", "x", "y", "words"), WRONG)
def test_what_is_wrong_is_refused_in_words(Estimator, numbers, x, y, words):
    with pytest.raises(ValueError, match=words):
        Estimator(**{**SMALL, **numbers}).fit(x, y)


def test_what_does_not_fit_the_net_is_refused():
    net = MLPRegressor(**SMALL)
    with pytest.raises(NotFittedError, match="This MLPRegressor instance is not fitted yet"):
        net.predict(X)
    net.fit(X, VALUES)
    with pytest.raises(ValueError, match="X has 2 features, but MLPRegressor is expecting 3 features as input"):
        net.predict(X[:, :2])
    for numbers in ({"n_members": 2}, {"hidden_layer_sizes": (5,)}, {"norm": "rms"}):
        warm = MLPRegressor(warm_start=True, **SMALL).fit(X, VALUES).set_params(**numbers)
        with pytest.raises(ValueError, match=f"{next(iter(numbers))} must stay .*warm_start=False"):
            warm.fit(X, VALUES)


def test_a_solver_of_all_rows_has_no_partial_fit_and_early_stopping_none_either():
    assert not hasattr(MLPRegressor(solver="lbfgs"), "partial_fit")
    with pytest.raises(AttributeError) as caught:
        MLPRegressor(solver="lbfgs").partial_fit(X, VALUES)
    assert "partial_fit is only available for stochastic optimizers" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        MLPRegressor(early_stopping=True).partial_fit(X, VALUES)


def test_a_warm_start_goes_on_under_another_solver_and_another_rule():
    net = MLPRegressor(solver="lbfgs", warm_start=True, **SMALL).fit(X, VALUES)
    net.set_params(solver="adam").fit(X, VALUES)
    assert len(net.loss_curve_) == 3 and net.best_loss_ == min(net.loss_curve_)
    net.set_params(early_stopping=True).fit(X, VALUES)
    assert net.best_validation_score_ == max(net.validation_scores_) and net.best_loss_ is None


def test_weights_that_are_set_by_hand_are_the_net():
    net = MLPRegressor(hidden_layer_sizes=(2,), activation="tanh", solver="sgd", momentum=0, learning_rate_init=0.1)
    net.coefs_ = [np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0.0]]), np.array([[0.1], [0.2]])]
    net.intercepts_ = [np.array([0.1, 0.1]), np.array([1.0])]
    net.n_features_in_, net.n_outputs_, net.n_layers_, net.out_activation_ = 3, 1, 3, "identity"
    hidden = np.tanh(X @ net.coefs_[0] + net.intercepts_[0])
    np.testing.assert_allclose(net.predict(X), (hidden @ net.coefs_[1] + 1.0).ravel())
    slope = (net.predict(X) - VALUES).mean()  # of half the squared error, by the last bias
    net.partial_fit(X, VALUES)
    assert net.intercepts_[1][0] == pytest.approx(1.0 - 0.1 * slope)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_a_table_that_is_scaled_in_parts_is_scaled_as_a_whole(rows):
    rng = np.random.default_rng(0)
    table = rng.normal(1e3, 2.0, (rows, 300)) * np.arange(300)  # of a thousand rows in five parts; a column of zeros
    weight = rng.integers(0, 3, rows) + (np.arange(rows) == 0)
    columns = fit_columns(table, weight.astype(float))
    whole = StandardScaler().fit(np.repeat(table, weight, axis=0))
    np.testing.assert_allclose(columns.shift, whole.mean_, rtol=1e-12)
    np.testing.assert_allclose(columns.scale, whole.scale_, rtol=1e-9)
    np.testing.assert_array_equal(columns.forward(table, "f"), ((table - columns.shift) / columns.scale).astype("f"))
