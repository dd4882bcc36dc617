"""The scaling inside, members of ensembles, weights beside rows, and sparse tables beside dense ones."""

import numpy as np
import pytest
import scipy.sparse
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from jaxmlp.estimators import MLPClassifier, MLPRegressor, SearchCV, _drive
from jaxmlp.training import trace_count

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:Got `batch_size`")
SMALL = {"hidden_layer_sizes": (8, 5), "random_state": 3}
HOWS = {"lbfgs": {"solver": "lbfgs", "max_iter": 10}, "full": {"batch_size": 10**6}, "batches": {"batch_size": 50}}
EVERY_WAY = pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)


@pytest.fixture(scope="module")
def wine():
    return datasets.load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def diabetes():
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return x[:200], y[:200]


def estimator(labels, **parameters):
    return (MLPClassifier if labels else MLPRegressor)(**(SMALL | {"max_iter": 8} | parameters))


@EVERY_WAY
def test_scaling_inside_is_scaling_by_hand(how, wine, diabetes):
    x, y = wine
    scaler = StandardScaler().fit(x)
    inside, by_hand = estimator(True, **how).fit(x, y), estimator(True, scale=False, **how).fit(scaler.transform(x), y)
    np.testing.assert_allclose(inside.predict_proba(x), by_hand.predict_proba(scaler.transform(x)), atol=1e-5)
    np.testing.assert_allclose(inside.coefs_[0] * scaler.scale_[:, None], by_hand.coefs_[0], atol=1e-5)
    assert inside.loss_ == pytest.approx(by_hand.loss_, rel=1e-5)

    x, y = diabetes
    targets = y[:, None] if how is HOWS["full"] else np.stack([y, y**2], 1)
    scaler, units = StandardScaler().fit(x), StandardScaler().fit(targets)
    inside = estimator(False, **how).fit(x, targets.squeeze())
    by_hand = estimator(False, scale=False, **how).fit(scaler.transform(x), units.transform(targets).squeeze())
    expected = by_hand.predict(scaler.transform(x)).reshape(len(x), -1)
    np.testing.assert_allclose(units.transform(inside.predict(x).reshape(len(x), -1)), expected, atol=1e-5)


def test_scaling_inside_early_stopping_sees_the_rows_to_train_on_alone(diabetes):
    x, y = diabetes
    fitted = estimator(False, early_stopping=True).fit(x, y)
    held_out = estimator(False, early_stopping=True, max_iter=1).fit(x, y)
    assert not np.allclose(held_out._units.x.shift, x.mean(0))
    assert len(fitted.validation_scores_) == fitted.n_iter_ == len(fitted.validation_loss_curve_)


@EVERY_WAY
@pytest.mark.parametrize("labels", [True, False], ids=["classifier", "regressor"])
def test_rows_of_weight_zero_are_as_if_removed(labels, how, wine, diabetes):
    x, y = wine if labels else diabetes
    weight = np.random.RandomState(0).randint(0, 2, len(x))
    removed = estimator(labels, **how).fit(x[weight > 0], y[weight > 0], sample_weight=weight[weight > 0])
    zero = estimator(labels, **how).fit(x, y, sample_weight=weight)
    for a, b in zip(removed.coefs_, zero.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", [HOWS["lbfgs"], HOWS["full"]], ids=["lbfgs", "full"])
@pytest.mark.parametrize("labels", [True, False], ids=["classifier", "regressor"])
def test_a_row_of_weight_two_is_two_rows(labels, how, wine, diabetes):
    x, y = wine if labels else diabetes
    weight = np.random.RandomState(0).randint(0, 4, len(x))
    repeated = estimator(labels, **how).fit(x.repeat(weight, axis=0), y.repeat(weight))
    weighted = estimator(labels, **how).fit(x, y, sample_weight=weight)
    tell = "predict_proba" if labels else "predict"
    scale = 1 if labels else y.std()
    np.testing.assert_allclose(getattr(weighted, tell)(x) / scale, getattr(repeated, tell)(x) / scale, atol=1e-9)
    assert weighted.loss_ == pytest.approx(repeated.loss_, rel=1e-9)


def test_weights_of_any_size_are_the_same_weights(wine):
    """Only their ratios matter; but for the penalty, which is divided by their sum, as in scikit-learn."""
    x, y = wine
    weight = np.random.RandomState(0).uniform(0.5, 2, len(x))
    one, other = (estimator(True, alpha=0.0).fit(x, y, sample_weight=c * weight) for c in (1.0, 1e-12))
    np.testing.assert_allclose(one.predict_proba(x), other.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("how", [*HOWS.values(), {"X_val": True}], ids=[*HOWS, "early"])
@pytest.mark.parametrize("scale", [False, True], ids=["plain", "scaled"])
def test_a_member_is_the_run_of_its_seed_alone(how, scale, wine):
    """With early stopping all members are judged on the same rows, as here by validation data of one's own."""
    x, y = wine
    given, how = {}, dict(how)
    if how.pop("X_val", False):
        given, how = {"X_val": x[::3], "y_val": y[::3]}, {"early_stopping": True, "max_iter": 30}
    crowd = estimator(True, n_members=3, scale=scale, **how | {"random_state": 7}).fit(x, y, **given)
    seeds = np.random.RandomState(7).randint(2**31 - 1, size=3)
    told = []
    for i, seed in enumerate(seeds):
        solo = estimator(True, scale=scale, **how | {"random_state": np.random.RandomState(seed)}).fit(x, y, **given)
        told.append(getattr(solo, "loss_curve_", [solo.loss_]))
        for a, b in zip(solo.coefs_ + solo.intercepts_, crowd.coefs_ + crowd.intercepts_, strict=True):
            np.testing.assert_allclose(b[i], a, rtol=1e-4, atol=1e-5)
    longest = max(map(len, told))
    padded = np.array([curve + curve[-1:] * (longest - len(curve)) for curve in told])  # who has ended stays
    np.testing.assert_allclose(getattr(crowd, "loss_curve_", [crowd.loss_]), np.mean(padded, 0), rtol=1e-5)


def sparse_table(labels):
    rng = np.random.RandomState(0)
    x = scipy.sparse.random(240, 40, 0.1, format="csr", random_state=rng)
    return x, rng.randint(0, 3, 240) if labels else np.asarray(x.sum(1)).ravel()


@EVERY_WAY
@pytest.mark.parametrize("labels", [True, False], ids=["classifier", "regressor"])
def test_sparse_rows_give_what_dense_rows_give(labels, how, monkeypatch):
    """And no more of them are dense at a time than fit the room that is set; a regressor's members have it each."""
    x, y = sparse_table(labels)
    members = 1 if labels else 2
    weight = np.random.RandomState(1).uniform(0.5, 2, len(y))
    dense = estimator(labels, n_members=members, **how).fit(x.toarray(), y, sample_weight=weight)
    tell = "predict_proba" if labels else "predict"
    expected = getattr(dense, tell)(x.toarray())
    blocks = watched(monkeypatch, 80 * 40 * members)
    kind = scipy.sparse.csr_matrix if labels else scipy.sparse.csc_array
    sparse = estimator(labels, n_members=members, **how).fit(kind(x), y, sample_weight=weight)
    for a, b in zip(dense.coefs_, sparse.coefs_, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-5 * np.abs(a).max())
    assert sparse.loss_ == pytest.approx(dense.loss_, rel=1e-5)
    np.testing.assert_allclose(getattr(sparse, tell)(x), expected, atol=1e-4)
    if how is not HOWS["full"]:
        assert max(blocks) <= 80 * 40 * members < x.shape[0] * x.shape[1]


def watched(monkeypatch, entries):
    """Let so many entries be dense at a time, and return the growing list of the sizes of blocks that were made so."""
    blocks, make = [], scipy.sparse._compressed._cs_matrix.toarray

    def toarray(self, *args, **kwargs):
        found = make(self, *args, **kwargs)
        blocks.append(found.size)
        return found

    monkeypatch.setattr(scipy.sparse._compressed._cs_matrix, "toarray", toarray)
    for module in (_drive, __import__("jaxmlp.estimators._lbfgs", fromlist=["ENTRIES"])):
        monkeypatch.setattr(module, "ENTRIES", entries)
    return blocks


def test_validation_rows_that_are_sparse_are_dense_some_at_a_time(monkeypatch):
    x, y = sparse_table(True)
    given = {"X_val": x[:120], "y_val": y[:120]}
    parameters = {"early_stopping": True, "max_iter": 6, "batch_size": 32}
    dense = estimator(True, **parameters).fit(x.toarray(), y, X_val=x[:120].toarray(), y_val=y[:120])
    blocks = watched(monkeypatch, 50 * 40)
    sparse = estimator(True, **parameters).fit(x, y, **given)
    assert max(blocks) <= 50 * 40
    np.testing.assert_allclose(sparse.validation_scores_, dense.validation_scores_, rtol=1e-6)
    mixed = estimator(True, **parameters).fit(x, y, X_val=x[:120].toarray(), y_val=y[:120])
    assert mixed.validation_scores_ == sparse.validation_scores_
    np.testing.assert_allclose(sparse.validation_loss_curve_, dense.validation_loss_curve_, rtol=1e-5)


def test_columns_far_from_zero_constant_or_huge_keep_their_digits():
    """A constant column, one at 1e9 with a spread of one, and one of 1e-9: told by their shape alone."""
    rng = np.random.RandomState(0)
    z = rng.normal(size=(200, 4))
    y = (z[:, 0] + z[:, 1] > 0).astype(int)
    x = np.stack([z[:, 0] + 1e9, 1e-9 * z[:, 1], np.full(200, 7.0), 1e12 * z[:, 3]], 1)
    near = np.stack([z[:, 0], z[:, 1], 0 * z[:, 2], z[:, 3]], 1)
    plain, moved = estimator(True, max_iter=30).fit(near, y), estimator(True, max_iter=30).fit(x, y)
    np.testing.assert_allclose(moved.loss_curve_, plain.loss_curve_, rtol=1e-4)
    np.testing.assert_array_equal(moved.predict(x), plain.predict(near))


def test_tables_of_near_lengths_share_a_program(wine):
    x, y = wine

    def traces(fits):
        before = trace_count()
        for fit in fits:
            fit()
        return trace_count() - before

    net = estimator(True, max_iter=2, early_stopping=True, batch_size=20, hidden_layer_sizes=(7,))
    assert traces([lambda n=n: net.fit(x[-n:], y[-n:]) for n in (142, 140, 136)]) == 1
    assert traces([lambda n=n: net.fit(x, y, X_val=x[:n], y_val=y[:n]) for n in (64, 60, 50)]) == 1
    whole = estimator(True, max_iter=2, hidden_layer_sizes=(7,))
    assert traces([lambda n=n: whole.fit(x[-n:], y[-n:]) for n in (143, 142, 138)]) == 1
    assert traces([lambda: SearchCV(whole, {"alpha": [0.1, 1.0]}, cv=5, refit=False).fit(x, y)]) == 1
