"""What an estimator holds and how it travels: clones, copies, pickles, maps of the disk, threads and seeds."""

import copy
import io
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import optax
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

from jaxmlp.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.RandomState(0)
X = RNG.randn(40, 3)
LABELS = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
VALUES = X[:, 0] + 0.1 * RNG.randn(40)
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}
KINDS = {
    "classifier": MLPClassifier(**SMALL),
    "regressor": MLPRegressor(**SMALL),
    "early": MLPClassifier(early_stopping=True, **SMALL),
    "lbfgs": MLPRegressor(solver="lbfgs", **SMALL),
    "ensemble": MLPRegressor(loss="gaussian", n_members=3, norm="layer", **SMALL),
    "optax": MLPRegressor(optimizer=optax.adamw, schedule="cosine", **SMALL),
}


@pytest.fixture(scope="module")
def fitted():
    """Return the function that gives a fitted estimator of a kind; each is trained once."""
    known = {}

    def of(kind):
        if kind not in known:
            known[kind] = clone(KINDS[kind]).fit(X, targets_of(KINDS[kind]))
        return known[kind]

    return of


def targets_of(estimator):
    return LABELS if is_classifier(estimator) else VALUES


def weights(estimator):
    return [*estimator.coefs_, *estimator.intercepts_]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_clone_has_the_parameters_and_nothing_that_was_learnt(kind, fitted):
    estimator = fitted(kind)
    twin = clone(estimator)
    assert twin.get_params() == estimator.get_params()
    assert not hasattr(twin, "coefs_")
    with pytest.raises(NotFittedError):
        twin.predict(X)


def test_parameters_are_set_by_name_and_an_unknown_one_is_refused():
    estimator = MLPClassifier().set_params(alpha=0.5, n_members=2)
    assert (estimator.alpha, estimator.n_members) == (0.5, 2)
    with pytest.raises(ValueError, match="Invalid parameter 'alhpa'"):
        estimator.set_params(alhpa=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_and_a_line_show_an_estimator(kind, fitted):
    estimator = fitted(kind)
    assert type(estimator).__name__ in estimator_html_repr(estimator)
    assert "hidden_layer_sizes=(4,)" in repr(estimator)


def test_a_pipeline_is_of_the_kind_of_its_last_step():
    assert is_classifier(make_pipeline(StandardScaler(), MLPClassifier()))
    assert is_regressor(make_pipeline(StandardScaler(), MLPRegressor()))
    assert not is_regressor(MLPClassifier()) and not is_classifier(MLPRegressor())


class Named(pickle.Unpickler):
    """An unpickler that remembers which modules a pickle names."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.modules = set()

    def find_class(self, module, name):
        self.modules.add(module.split(".")[0])
        return super().find_class(module, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_holds_arrays_of_numpy_and_plain_values(kind, fitted):
    estimator = copy.deepcopy(fitted(kind))
    if kind not in ("lbfgs", "early"):
        estimator.partial_fit(X, targets_of(estimator))  # holds a state of the solver as well
    named = Named(pickle.dumps(estimator))
    back = named.load()
    own = {"optax"} if kind == "optax" else set()  # the caller's function, by its name
    assert named.modules <= {"jaxmlp", "numpy", "sklearn"} | own
    assert same(back, estimator)
    assert np.array_equal(back.predict(X), estimator.predict(X))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_on_alone(kind, fitted):
    estimator = fitted(kind)
    before = [a.copy() for a in weights(estimator)]
    twin = copy.deepcopy(estimator).fit(X[::-1], targets_of(estimator))
    assert all(np.array_equal(a, b) for a, b in zip(weights(estimator), before, strict=True))
    assert not same(twin, estimator)


def test_weights_lie_mapped_on_the_disk(fitted, tmp_path):
    joblib.dump(fitted("classifier"), tmp_path / "net.joblib")
    mapped = joblib.load(tmp_path / "net.joblib", mmap_mode="r")
    assert isinstance(mapped.coefs_[0], np.memmap) and not mapped.coefs_[0].flags.writeable
    assert np.array_equal(mapped.predict_proba(X), fitted("classifier").predict_proba(X))
    mapped.partial_fit(X, LABELS)  # new arrays take their places
    assert not same(mapped, fitted("classifier"))


def test_a_net_answers_where_jax_has_no_device(fitted, tmp_path):
    for kind in KINDS:
        (tmp_path / f"{kind}.pkl").write_bytes(pickle.dumps(fitted(kind)))
    np.save(tmp_path / "x.npy", X)
    code = """
import pathlib, pickle, sys
import numpy as np
folder = pathlib.Path(sys.argv[1])
x = np.load(folder / "x.npy")
found = {}
for file in folder.glob("*.pkl"):
    net = pickle.loads(file.read_bytes())
    found[file.stem] = (net.predict_proba if hasattr(net, "predict_proba") else net.predict)(x)
np.savez(folder / "found.npz", **found)
import jax
try:
    jax.devices()
except RuntimeError:
    print("no device")
"""
    environment = {**os.environ, "JAX_PLATFORMS": "nonsense"}
    run = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert "no device" in done.stdout
    with np.load(tmp_path / "found.npz") as found:
        for kind in KINDS:
            net = fitted(kind)
            expected = net.predict_proba(X) if is_classifier(net) else net.predict(X)
            np.testing.assert_allclose(found[kind], expected, rtol=1e-12)


def test_threads_predict_what_one_predicts(fitted):
    net = fitted("ensemble")
    parts = [X[i : i + 5] + i for i in range(30)]
    alone = [net.predict(part, return_std=True) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda part: net.predict(part, return_std=True), parts))
    pairs = [pair for one, two in zip(alone, together, strict=True) for pair in zip(one, two, strict=True)]
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_threads_fit_nets_of_two_dtypes_at_once_as_alone():
    jobs = [(dtype, seed) for seed in range(4) for dtype in (np.float32, np.float64)]

    def fit(job):
        dtype, seed = job
        return MLPRegressor(**{**SMALL, "random_state": seed}).fit(X.astype(dtype), VALUES)

    alone = [fit(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fit, jobs))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert [net.coefs_[0].dtype for net in together] == [np.dtype(dtype) for dtype, _ in jobs]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_a_net(kind, fitted):
    again = clone(KINDS[kind]).fit(X, targets_of(KINDS[kind]))
    assert same(again, fitted(kind))
    other = clone(KINDS[kind]).set_params(random_state=1).fit(X, targets_of(KINDS[kind]))
    assert not same(other, again)


def test_a_generator_goes_on_from_one_fit_to_the_next():
    generator = np.random.RandomState(0)
    first = MLPRegressor(**{**SMALL, "random_state": generator}).fit(X, VALUES)
    second = MLPRegressor(**{**SMALL, "random_state": generator}).fit(X, VALUES)
    assert same(first, MLPRegressor(**SMALL).fit(X, VALUES))
    assert not same(first, second)


def test_a_device_is_named_and_goes_with_a_clone():
    net = clone(MLPRegressor(device="cpu:1", **SMALL)).fit(X, VALUES)
    assert same(net, MLPRegressor(device="cpu", **SMALL).fit(X, VALUES))


def test_a_fit_leaves_what_it_is_given_as_it_was():
    x, y, weight = X.copy(), VALUES.copy(), np.ones(40)
    for array in (x, y, weight):
        array.flags.writeable = False
    MLPRegressor(**SMALL).fit(x, y, sample_weight=weight)
    assert np.array_equal(x, X) and np.array_equal(y, VALUES)
