"""scikit-learn's callbacks on the estimators: their tasks, what is fetched for them, and who may end what."""

import pickle

import jax
import numpy as np
import pytest
from sklearn import neural_network
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxmlp
from jaxmlp.estimators import MLPClassifier, MLPRegressor

callback = pytest.importorskip("sklearn.callback")  # since scikit-learn 1.9
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.RandomState(0)
X = RNG.randn(24, 3)
VALUES = X[:, 0] + 0.1 * RNG.randn(24)
LABELS = VALUES > 0
EPOCHS = 4
SMALL = {"hidden_layer_sizes": (4,), "max_iter": EPOCHS, "random_state": 0}
SOLVERS = ("adam", "lbfgs")


class Tasks:
    """A callback that asks for nothing, and writes down the tasks."""

    def __init__(self, ends=lambda path: False):
        self.begun, self.ended, self.hooks, self.ends = [], [], [], ends

    def setup(self, estimator, context):
        self.hooks.append("setup")

    def teardown(self, estimator, context):
        self.hooks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(path_of(context))

    def on_fit_task_end(self, estimator, context):
        self.ended.append(path_of(context))
        return self.ends(path_of(context))


class Nets(Tasks):
    """A callback that asks for the fitted estimator of each task."""

    def __init__(self):
        super().__init__()
        self.nets, self.told = {}, []

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.nets[path_of(context)] = fitted_estimator
        self.told.append((X, y, metadata))


def path_of(context):
    names = []
    while context is not None:
        names.append((context.task_name, context.task_id))
        context = context.parent
    return tuple(names[::-1])


ROOT = (("fit", 0),)


def epoch(number, *, member=None):
    return (*ROOT, *([] if member is None else [("member", member)]), ("epoch", number))


def same(one, other):
    pairs = zip([*one.coefs_, *one.intercepts_], [*other.coefs_, *other.intercepts_], strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_epoch_is_a_task_of_a_fit(solver):
    tasks = Tasks()
    net = MLPRegressor(solver=solver, **SMALL).set_callbacks(tasks).fit(X, VALUES)
    assert net.n_iter_ == EPOCHS
    assert tasks.begun == [ROOT, *(epoch(i) for i in range(EPOCHS))]
    assert tasks.ended == [*(epoch(i) for i in range(EPOCHS)), ROOT]
    assert tasks.hooks == ["setup", "teardown"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_member_is_a_task_of_an_ensemble(solver):
    tasks = Tasks()
    MLPRegressor(solver=solver, n_members=2, **SMALL).set_callbacks(tasks).fit(X, VALUES)
    epochs = [epoch(i, member=member) for member in range(2) for i in range(EPOCHS)]
    expected = sorted([ROOT, (*ROOT, ("member", 0)), (*ROOT, ("member", 1)), *epochs])
    assert sorted(tasks.begun) == sorted(tasks.ended) == expected


@pytest.mark.parametrize("kind", [{}, {"solver": "lbfgs"}, {"early_stopping": True}, {"n_members": 2}])
def test_a_net_after_an_epoch_is_that_of_a_fit_that_ends_there(kind):
    nets = Nets()
    whole = MLPRegressor(**kind, **SMALL).set_callbacks(nets).fit(X, VALUES)
    shorter = MLPRegressor(**{**SMALL, **kind, "max_iter": 2}).fit(X, VALUES)
    if "n_members" not in kind:
        assert same(nets.nets[epoch(1)], shorter) and same(nets.nets[epoch(EPOCHS - 1)], whole)
        assert nets.nets[epoch(1)].loss_ == pytest.approx(shorter.loss_)
    else:
        each = [nets.nets[epoch(1, member=member)].predict(X) for member in range(2)]
        np.testing.assert_allclose(np.mean(each, axis=0), shorter.predict(X), rtol=1e-12)
        assert not np.allclose(each[0], each[1])
        nets.nets[epoch(1, member=0)].partial_fit(X, VALUES)  # a net of its own
    np.testing.assert_array_equal(nets.nets[ROOT].predict(X), whole.predict(X))


def test_a_callback_is_told_of_the_data_and_of_weights_but_not_of_validation_data():
    nets, weight = Nets(), np.linspace(1, 2, 24)
    MLPRegressor(**SMALL).set_callbacks(nets).fit(X, VALUES, sample_weight=weight, X_val=X, y_val=VALUES)
    assert len(nets.told) == EPOCHS + 1
    for x, y, metadata in nets.told:
        assert x is X and y is VALUES and list(metadata) == ["sample_weight"] and metadata["sample_weight"] is weight
    nets = Nets()
    MLPRegressor(**SMALL).set_callbacks(nets).fit(X, VALUES)
    assert nets.told[0][2] == {}


@pytest.mark.parametrize("members", [1, 2])
def test_weights_are_fetched_only_for_who_asks(members, monkeypatch):
    fetches, get = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda a: fetches.append(a) or get(a))
    for callbacks, count in (((), 1), ((Tasks(),), 1), ((Nets(),), EPOCHS + 1), ((Nets(), Nets()), EPOCHS + 1)):
        fetches.clear()
        MLPRegressor(n_members=members, **SMALL).set_callbacks(*callbacks).fit(X, VALUES)
        assert len(fetches) == count


def test_one_program_is_traced_with_a_callback_as_without():
    x, y = RNG.randn(29, 5), RNG.randn(29)  # of a shape that no other test has
    before = jaxmlp.training.trace_count()
    for callbacks in ((), (Tasks(),)):
        net = MLPRegressor(**{**SMALL, "max_iter": 7}).set_callbacks(*callbacks).fit(x, y)
        assert net.n_iter_ == 7
        assert jaxmlp.training.trace_count() == before + 1  # which both share, since seven epochs are few


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_true_answer_ends_a_fit_without_a_warning(solver):
    net = MLPRegressor(solver=solver, **SMALL).set_callbacks(Tasks(lambda path: path == epoch(1))).fit(X, VALUES)
    assert net.n_iter_ == 2
    with pytest.warns(match="(?i)iterations"):
        assert same(net, MLPRegressor(solver=solver, **{**SMALL, "max_iter": 2}).fit(X, VALUES))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_true_answer_ends_a_member_alone(solver):
    tasks = Tasks(lambda path: path == epoch(1, member=0))
    net = MLPRegressor(solver=solver, n_members=2, **SMALL).set_callbacks(tasks).fit(X, VALUES)
    long, short = (
        MLPRegressor(solver=solver, n_members=2, **{**SMALL, "max_iter": epochs}).fit(X, VALUES)
        for epochs in (EPOCHS, 2)
    )
    for w, ended, whole in zip(net.coefs_, short.coefs_, long.coefs_, strict=True):
        np.testing.assert_allclose(w[0], ended[0], rtol=1e-12)
        np.testing.assert_allclose(w[1], whole[1], rtol=1e-12)
    assert epoch(2, member=0) not in tasks.begun and epoch(EPOCHS - 1, member=1) in tasks.ended


def test_a_callback_that_breaks_is_torn_down():
    def breaks(path):
        raise RuntimeError("broken")

    tasks = Tasks(breaks)
    with pytest.raises(RuntimeError, match="broken"):
        MLPRegressor(**SMALL).set_callbacks(tasks).fit(X, VALUES)
    assert tasks.hooks == ["setup", "teardown"]


def test_callbacks_see_fit_alone_and_go_with_a_clone():
    tasks = Tasks()
    net = MLPRegressor(**SMALL).set_callbacks(tasks)
    net.partial_fit(X, VALUES)
    assert not tasks.hooks
    clone(net).fit(X, VALUES)
    assert tasks.hooks == ["setup", "teardown"]


@pytest.mark.parametrize(("Estimator", "name"), [(MLPClassifier, "accuracy"), (MLPRegressor, "r2")])
def test_scoring_monitor_writes_the_score_of_each_epoch(Estimator, name):
    y = LABELS if name == "accuracy" else VALUES
    monitor = callback.ScoringMonitor(scoring=name)
    net = Estimator(**SMALL).set_callbacks(monitor).fit(X, y, sample_weight=np.linspace(1, 2, 24))
    log = monitor.get_logs().data
    assert [row["task_id_path"] for row in log] == [(0,), *((0, i) for i in range(EPOCHS))]
    assert log[0][name] == log[-1][name] == net.score(X, y, sample_weight=np.linspace(1, 2, 24))


def test_callbacks_work_in_a_pipeline_and_in_a_search(capsys):
    pytest.importorskip("rich")
    monitor = callback.ScoringMonitor(scoring="r2")
    pipe = make_pipeline(StandardScaler(), MLPRegressor(**SMALL).set_callbacks(monitor))
    pipe.set_callbacks(callback.ProgressBar()).fit(X, VALUES)
    assert "MLPRegressor" in capsys.readouterr().out
    assert len(monitor.get_logs().data) == EPOCHS + 1
    monitor = callback.ScoringMonitor(scoring="r2")
    search = GridSearchCV(MLPRegressor(**SMALL).set_callbacks(monitor), {"alpha": [0.1, 1.0]}, cv=2)
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(X, VALUES)
    assert "MLPRegressor" in capsys.readouterr().out
    assert len(monitor.get_logs().data) == (2 * 2 + 1) * (EPOCHS + 1)
    assert search.best_estimator_.n_iter_ == EPOCHS


def test_an_estimator_with_callbacks_is_pickled_after_its_fit():
    net = MLPRegressor(**SMALL).set_callbacks(callback.ScoringMonitor(scoring="r2")).fit(X, VALUES)
    back = pickle.loads(pickle.dumps(net))
    assert same(back, net) and len(back._skl_callbacks) == 1


def test_verbose_prints_the_loss_of_each_epoch_and_the_score(capsys):
    net = MLPClassifier(verbose=True, early_stopping=True, **SMALL).fit(X, LABELS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Iteration 1, loss = {net.loss_curve_[0]:.8f}"
    assert lines[1] == f"Validation score: {net.validation_scores_[0]:f}"
    assert len(lines) == 2 * EPOCHS


@pytest.mark.parametrize("options", [{}, {"solver": "sgd", "learning_rate": "adaptive"}, {"early_stopping": True}])
def test_verbose_ends_with_why_training_ended_in_scikit_learns_words(options, capsys):
    options = SMALL | {"max_iter": 50, "n_iter_no_change": 2, "tol": 9.0, "verbose": True} | options
    found = []
    for Estimator, scaling in ((MLPClassifier, {"scale": False}), (neural_network.MLPClassifier, {})):
        Estimator(**options, **scaling).fit(X, LABELS)
        lines = capsys.readouterr().out.splitlines()
        found.append([line for line in lines if not line.startswith(("Iteration", "Validation score:"))])
    assert found[0] == found[1] and found[0][-1].endswith("Stopping.")
