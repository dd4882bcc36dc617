"""What is chosen by a figure of the history is what NumPy chooses from the whole history by hand."""

import dataclasses
import functools
from functools import partial

import jax
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, metrics, population
from jaxmlp._choice import HIGHER, LOWER, Figure
from jaxmlp._engine.stops import Stops
from jaxmlp.loop import _progress

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
X = jax.random.normal(KEY, (40, 3))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype("int32")
HELD_OUT = X[:15], (Y[:15] + (np.arange(15, dtype=np.int32) % 4 == 0).astype("int32")) % 2


def told(outputs, targets):
    values = losses.cross_entropy(outputs, targets)
    return values, {"margin": jax.numpy.abs(outputs[:, 0] - outputs[:, 1])}


RECIPE = Recipe(MLP((3, 6, 2), "tanh"), told, optax.adam, epochs=8, batch_size=10, metrics=(metrics.accuracy,))
RATES = {"learning_rate": np.array([0.3, 0.05, 0.01])}
BY = [("validation_accuracy", None), ("validation_margin", True), ("loss", None), ("margin", False)]


def by_hand(values, largest):
    """The first of the best of each row, NaN nowhere."""
    scores = np.where(np.isnan(values), np.inf, -values if largest else values)
    return scores.argmin(1)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("by, largest", BY)
def test_the_best_weights_are_those_of_the_best_figure(by, largest):
    rule = population.Patience(8, by=by, largest=largest)
    states, history = population.fit(KEYS, (X, Y), RECIPE, RATES, validation=HELD_OUT, stop=rule)
    epochs = by_hand(np.asarray(history[by]), Figure(by, largest).largest)
    assert history.best_epoch.tolist() == epochs.tolist()
    for i, epoch in enumerate(epochs):
        short = dataclasses.replace(RECIPE, epochs=int(epoch) + 1)
        alone, _ = jaxmlp.fit(KEYS[i], (X, Y), short, {"learning_rate": RATES["learning_rate"][i]}, validation=HELD_OUT)
        one, _ = loop.train(
            KEYS[i],
            *((X, Y), RECIPE, {"learning_rate": RATES["learning_rate"][i]}),
            **dict(validation=HELD_OUT, stop=rule, progress=False),
        )
        same(one.params, alone.params)
        gaps = jax.tree.map(lambda a, b, i=i: abs(a[i] - b).max(), states.params, alone.params)
        assert max(jax.tree.leaves(gaps)) < 1e-5


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    options = {"validation": HELD_OUT, "progress": False, "every": 1}
    rule = loop.Patience(4, by="validation_accuracy")
    straight = loop.train(KEYS, (X, Y), RECIPE, RATES, stop=rule, **options)
    for seconds in (1e-9, 1e-9):
        stop = [rule, loop.Budget(seconds)]
        loop.train(KEYS, (X, Y), RECIPE, RATES, stop=stop, directory=tmp_path, **options)
    resumed = loop.resume(tmp_path, (X, Y), RECIPE, validation=HELD_OUT, progress=False)
    same(resumed[0].params, straight[0].params)
    same(dict(resumed[1]), dict(straight[1]))


def test_another_figure_chooses_among_the_weights_that_are_there(tmp_path):
    options = {"validation": HELD_OUT, "progress": False, "every": 1}
    loop.train(KEYS, (X, Y), RECIPE, RATES, stop=loop.Patience(8), directory=tmp_path, **options)
    with pytest.warns(UserWarning, match="watches the largest validation_accuracy now, and watched the least valid"):
        _, history = loop.resume(
            tmp_path, (X, Y), RECIPE, stop=loop.Patience(8, by="validation_accuracy"), validation=HELD_OUT
        )
    kept = by_hand(np.asarray(history["validation_loss"]), False)
    figures = np.asarray(history["validation_accuracy"])
    every = np.arange(3)
    best = np.where(figures[every, kept] >= figures[every, 7], kept, 7)
    assert history.best_epoch.tolist() == best.tolist()


def nothing(outputs, targets):
    return outputs.mean() * np.nan


def test_a_figure_that_is_nowhere_a_number_leaves_the_last_weights():
    recipe = dataclasses.replace(RECIPE, metrics=(nothing,), epochs=2)
    rule = population.Patience(2, by="validation_nothing", largest=True)
    with pytest.warns(UserWarning, match="it was at none for 3 of 3 members, 0, 1, 2, which have the parameters of"):
        states, history = population.fit(KEYS, (X, Y), recipe, RATES, validation=HELD_OUT, stop=rule)
    assert history.best_epoch.tolist() == [1, 1, 1]
    assert states.step.tolist() == [8, 8, 8]
    with pytest.raises(ValueError, match="by must name a figure that is finite for some member; 3 of 3 members have"):
        population.ranking(history, by="validation_nothing", largest=True)


@pytest.mark.parametrize(
    "rule, validation, words",
    [
        (
            population.Patience(3, by="validation_acuracy"),
            HELD_OUT,
            r"by must be one of .*validation_accuracy.*; got 'validation_acuracy' \(did you mean 'validation_accuracy'",
        ),
        (population.Patience(3, by="accuracy"), HELD_OUT, r"got 'accuracy' \(did you mean 'validation_accuracy'\?\)"),
        (
            population.Halving(by="validation_accuracy"),
            None,
            r"by must be one of accuracy, loss, margin; .*\(did you mean 'accuracy'\?\); .*: pass validation=\(x, y\)",
        ),
        (population.Halving(by="margin"), None, "by='margin' does not tell which way is better; pass largest=True"),
        (population.Patience(3, by="validation_margin"), HELD_OUT, "by='validation_margin' does not tell which way"),
        (population.Patience(3, by="validation_margin", largest=1), HELD_OUT, "largest must be True, False or None"),
        (population.Patience(3, by=3), HELD_OUT, "by must be a text; got int 3"),
        (population.Patience(3), None, "patience must have validation data to watch"),
    ],
)
def test_a_figure_that_cannot_be_chosen_by_is_refused_at_the_door(rule, validation, words):
    with pytest.raises(ValueError, match=words):
        population.fit(KEYS, (X, Y), RECIPE, RATES, validation=validation, stop=rule)


@pytest.mark.parametrize(
    "rule, figure",
    [
        (None, None),
        (loop.Budget(100.0), None),
        ([loop.Patience(8, by="margin", largest=True), loop.Halving(by="f1")], Figure("margin", True)),
        ([loop.Halving(by="margin", largest=False), loop.Target("f1", at_least=2.0)], Figure("margin", False)),
        (loop.Target("margin", at_least=2.0), Figure("margin", True)),
        (loop.Target("accuracy", at_most=0.5), Figure("accuracy", False)),
        ([loop.Target("margin", at_most=0.0), loop.Target("loss", at_most=0.0)], None),
    ],
)
def test_what_a_run_is_looked_at_for_is_what_a_rule_names(rule, figure):
    assert Stops.of(rule, validation=True, members=True).watched == figure


@pytest.mark.parametrize(
    "rule, by, best",
    [(None, "val loss", np.min), (loop.Patience(3, by="validation_accuracy"), "val accuracy", np.max)],
)
def test_the_line_of_progress_shows_what_a_rule_watches(rule, by, best, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    recipe = dataclasses.replace(RECIPE, epochs=3)
    _, history = loop.train(KEYS, (X, Y), recipe, RATES, validation=HELD_OUT, stop=rule, every=3)
    last = np.asarray(history[by.replace("val ", "validation_")])[:, -1]
    words = f"{by} best {best(last):.3g}  median {np.median(last):.3g}  3 alive"
    assert capsys.readouterr().err.startswith(f"epoch 3/3  {words}")


def test_the_line_of_one_network_and_of_members_that_have_no_figure_yet():
    nan = np.nan
    b, a, loss = (np.array([[value, nan]]) for value in (3.0, 2.0, 1.0))
    assert _progress.one({"b": b, "a": a, "loss": loss}, 2) == ["loss 1", "b 3", "a 2"]
    assert _progress.one({"b": b, "a": a, "loss": loss}, 2, Figure("a")) == ["loss 1", "a 2", "b 3"]
    rates = np.array([[0.5, nan, nan], [0.9, nan, 0.25], [nan] * 3, [nan, 0.75, nan]])
    history, status = {"loss": np.ones((4, 3)), "f1": rates}, np.array([0, 0, 0, 2])
    assert _progress.members(history, status, 3, Figure("f1"))[:2] == ["f1 best 0.75", "median 0.5"]
    assert _progress.members(history, status, 1, Figure("f1"))[:2] == ["f1 best 0.9", "median 0.7"]
    nowhere = {"loss": np.ones((4, 3)), "f1": rates * nan}
    assert _progress.members(nowhere, status, 3, Figure("f1")) == ["3 alive", "1 diverged"]


def spread(outputs, targets, *, weight=None):
    return abs(outputs).max()


def lost(outputs, targets, *, weight=None):
    return outputs.mean() * np.nan


@pytest.fixture(scope="module")
def folds():
    """Three settings, two seeds, three folds; at the rate of the second setting the arithmetic ends."""
    recipe = Recipe(
        MLP((3, 4, 2), "relu"), *(losses.cross_entropy, optax.sgd), epochs=2, batch_size=10,
        metrics=(metrics.accuracy, metrics.confusion_matrix, spread, lost),
    )  # fmt: skip
    rates = {"learning_rate": np.array([0.01, 1e38, 0.5, 0.1])}
    return population.cross_validate(KEY, (X, Y), recipe, rates, folds=3, seeds=2)


@pytest.mark.parametrize("by, largest", [("loss", None), ("accuracy", None), ("spread", True), ("spread", False)])
def test_a_setting_is_chosen_by_its_mean_over_folds_and_seeds(folds, by, largest):
    means = np.asarray(folds.scores[by], float).reshape(4, 2, 3).mean((1, 2))
    kept = [i for i in range(4) if not (folds.history.status.reshape(4, 6)[i] == 2).any()]
    assert kept == [0, 2, 3]
    order = sorted(kept, key=lambda i: -means[i] if Figure(by, largest).largest else means[i])
    with pytest.warns(UserWarning, match="^1 of 4 settings diverged and are left out$"):
        assert folds.ranking(by=by, largest=largest).tolist() == order
    with pytest.warns(UserWarning, match="1 of 4 settings diverged"):
        assert folds.best(by=by, largest=largest) == order[0]


def test_folds_without_a_choice_or_with_one_setting(folds):
    assert folds.scores["confusion_matrix"].shape == (8, 3, 2, 2)
    healthy = folds._replace(history={"status": np.zeros(24, int)})
    one = healthy._replace(scores={"loss": np.ones(3)}, history={"status": np.zeros(3, int)}, seeds=1)
    assert one.ranking().tolist() == [0]
    all_ = healthy._replace(history={"status": np.full(24, 2)})
    for found, by, words in [
        (healthy, "acuracy", r"by must be one of accuracy, .*; got 'acuracy' \(did you mean 'accuracy'\?\)"),
        (healthy, "validation_accuracy", r"got 'validation_accuracy' \(did you mean 'accuracy'\?\)"),
        (healthy, "spread", "by='spread' does not tell which way is better; pass largest=True"),
        (healthy, "confusion_matrix", "confusion_matrix has more than one number an epoch"),
        (healthy, 3, "by must be a text; got int 3"),
        (all_, "loss", "all 4 settings diverged; try smaller learning rates"),
    ]:
        with pytest.raises(ValueError, match=words):
            found.ranking(by=by)
        with pytest.raises(ValueError, match=words):
            found.best(by=by)
    with pytest.raises(ValueError, match="finite for some setting; 4 of 4 settings have a lost that is not finite"):
        healthy.best(by="lost", largest=True)
    with pytest.raises(ValueError, match="largest must be True, False or None; got 1"):
        healthy.best(by="spread", largest=1)


def greedy_by_hand(predictions, score, rounds):
    """Caruana's choice of the largest score, in NumPy."""
    chosen, scores = [], []
    for _ in range(rounds):
        of_each = [score(predictions[[*chosen, i]].mean(0)) for i in range(len(predictions))]
        chosen.append(int(np.argmax(of_each)))
        scores.append(max(of_each))
    return chosen[: int(np.argmax(scores)) + 1]


VOTES = np.random.default_rng(5).dirichlet(np.ones(4), (6, 24)).astype("f")
LABELS = np.random.default_rng(6).integers(0, 4, 24).astype("i4")


def right(p):
    return float((p.argmax(-1) == LABELS).mean())


@pytest.mark.parametrize(
    "score, largest",
    [
        (partial(metrics.accuracy, targets=LABELS), None),
        (partial(partial(metrics.accuracy, weight=None), targets=LABELS), None),
        (jax.jit(partial(jax.jit(metrics.accuracy), targets=LABELS)), None),
        (jax.tree_util.Partial(metrics.accuracy, targets=LABELS), None),
        (partial(metrics.top_k_accuracy, targets=LABELS, k=1), None),
        (lambda p: metrics.accuracy(p, LABELS), True),
        (lambda p: -metrics.accuracy(p, LABELS), None),
        (lambda p: (p.argmax(-1) != LABELS).sum(), None),  # a count: integers
        (lambda p: (p.argmax(-1) == LABELS).sum().astype("uint8"), True),
    ],
)
def test_an_ensemble_is_chosen_by_the_better_way_of_its_score(score, largest):
    chosen = population.greedy(VOTES, score, rounds=5, largest=largest)
    assert chosen.tolist() == greedy_by_hand(VOTES, right, 5)


@pytest.mark.parametrize("sign, largest", [(-1, None), (-1, False), (1, True)])
def test_a_metric_of_which_less_is_better_stays_so_unless_the_caller_says_otherwise(sign, largest):
    y = VOTES[0] - VOTES[1]
    found = population.greedy(VOTES, partial(metrics.rmse, targets=y), rounds=4, largest=largest)
    assert found.tolist() == greedy_by_hand(VOTES, lambda p: sign * np.sqrt(np.mean((p - y) ** 2)), 4)


def accuracy(average):
    return metrics.accuracy(average, LABELS)


@functools.wraps(metrics.accuracy)
def wrapped(average, targets):
    return 1 - metrics.accuracy(average, targets)


@pytest.mark.parametrize(
    "score, largest, words",
    [
        (accuracy, None, "score must say which way is better; got a function called 'accuracy' that is not this libra"),
        (partial(wrapped, targets=LABELS), None, "'accuracy' that is not this library's.*; pass largest=True"),
        (partial(metrics.interval_coverage, targets=LABELS), None, "score='interval_coverage' does not tell which way"),
        (accuracy, 1, "largest must be True, False or None; got 1"),
        (partial(losses.cross_entropy, targets=LABELS), None, r"score must return one number; got an array of shape"),
    ],
)
def test_a_score_that_may_be_meant_either_way_is_refused(score, largest, words):
    with pytest.raises(ValueError, match=words):
        population.greedy(VOTES, score, rounds=1, largest=largest)
    if score is accuracy:
        assert population.greedy(VOTES, score, rounds=5, largest=True).tolist() == greedy_by_hand(VOTES, right, 5)


def test_each_metric_of_this_library_says_which_way_is_better_or_has_none():
    public = {n for n, f in vars(metrics).items() if not n.startswith("_") and getattr(f, "__module__", "") in
              ("jaxmlp.metrics",) and callable(f) and not isinstance(f, type)}  # fmt: skip
    assert public - {"average", "average_near", "interval_coverage", "confusion_matrix"} == {*HIGHER, *LOWER} - {"loss"}
