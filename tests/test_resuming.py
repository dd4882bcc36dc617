"""A run goes on with what is given now where that was accepted, and under the rules of now."""

import dataclasses
import shutil
from contextlib import nullcontext

import jax
import numpy as np
import optax
import pytest

from jaxmlp import MLP, Recipe, loop, losses, metrics
from jaxmlp.loop import _changes
from jaxmlp.optimizers import CosineAdamW

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("f")
Y = np.sin(X[:, :1])
HELD_OUT = X[:20], Y[:20]
KEY = jax.random.key(0)
RECIPE = Recipe(MLP((3, 8, 1), "tanh"), losses.squared_error, optax.adam, epochs=4, batch_size=20)
RATE = {"learning_rate": 0.1}


def train(directory, recipe=RECIPE, numbers=RATE, data=(X, Y), **options):
    return loop.train(KEY, data, recipe, numbers, directory=directory, progress=False, **options)


def resume(directory, **options):
    return loop.resume(directory, (X, Y), progress=False, **options)


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_words_are_known():
    assert _changes.accepted("recipe") > {"model", "loss", "optimizer", "metrics", "batch_size"}
    with pytest.raises(
        ValueError, match=r"accept must be one of recipe, model, .*'optimiser' \(did you mean 'optimizer'"
    ):
        train("nowhere", accept="optimiser")
    for other in (3, object()):
        with pytest.raises(ValueError, match="accept must be a word or several, of recipe, model"):
            train("nowhere", accept=other)
    assert _changes.accepted(None) == frozenset()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"accept": 5}, "accept must be a word or several"),
        ({"accept": [1]}, "accept must be one of recipe, model, .*; got 1"),
        ({"epochs": True}, "epochs must be a positive int; got True"),
        ({"epochs": 0}, "epochs must be a positive int; got 0"),
        ({"epochs": "5"}, "epochs must be a positive int; got '5'"),
        ({"progress": "x"}, "progress must be None, True or False; got str 'x'"),
    ],
)
def test_options_of_a_resume_are_refused_before_anything_is_read(given, words):
    with pytest.raises(ValueError, match=words):
        loop.resume("nowhere", (X, Y), **given)


def test_more_patience_is_the_run_that_had_it_from_the_start(tmp_path):
    longer = {"epochs": 40, "validation": HELD_OUT}
    straight = train(tmp_path / "straight", stop=loop.Patience(8), **longer)
    _, history = train(tmp_path / "run", stop=loop.Patience(1), **longer)
    assert len(history["loss"]) < len(straight[1]["loss"])
    same(resume(tmp_path / "run", stop=loop.Patience(8), validation=HELD_OUT), straight)


def test_a_harder_target_is_the_run_that_had_it_from_the_start(tmp_path):
    straight = train(tmp_path / "straight", epochs=40, stop=loop.Target("loss", at_most=0.05))
    _, history = train(tmp_path / "run", epochs=40, stop=loop.Target("loss", at_most=0.3))
    assert len(history["loss"]) < len(straight[1]["loss"])
    same(train(tmp_path / "run", epochs=40, stop=loop.Target("loss", at_most=0.05)), straight)


def test_rules_come_and_go(tmp_path):
    """Patience that is new counts from here, [] leaves none, and a budget stands beside the rules of the run."""
    train(tmp_path, validation=HELD_OUT)
    _, history = resume(tmp_path, validation=HELD_OUT, stop=loop.Patience(2), epochs=8)
    assert len(history["loss"]) in (6, 7, 8)
    _, again = resume(tmp_path, validation=HELD_OUT, stop=[loop.Budget(100.0)])
    same(again, history)
    _, free = resume(tmp_path, validation=HELD_OUT, stop=[], epochs=9)
    assert len(free["loss"]) == 9


def test_members_that_stopped_before_the_others_stay_so_with_a_warning(tmp_path):
    keys = jax.random.split(KEY, 4)
    options = {"directory": tmp_path, "progress": False, "every": 1}
    loop.train(keys, (X, Y), RECIPE, RATE, stop=loop.Halving(2, first=1, by="loss"), **options)
    with pytest.warns(UserWarning, match="the rules of now would not have stopped 3 members, .* and stay as they are"):
        _, history = loop.resume(tmp_path, (X, Y), stop=[], progress=False)
    assert sorted(history.epochs.tolist()) == [1, 1, 2, 4]


CHANGED = {
    "loss": {"recipe": dataclasses.replace(RECIPE, loss=losses.absolute_error)},
    "metrics": {"recipe": dataclasses.replace(RECIPE, metrics=(metrics.rmse,))},
    "model": {"recipe": dataclasses.replace(RECIPE, model=MLP((3, 8, 1), "relu"))},
    "batch_size": {"recipe": dataclasses.replace(RECIPE, batch_size=30)},
    "hyperparams": {"numbers": {"learning_rate": 0.01}},
    "data": {"data": (X[:40], Y[:40])},
    "validation": {"validation": (X, Y)},
    "epochs": {"epochs": 5},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(folder, validation=HELD_OUT)
    return folder


@pytest.mark.parametrize("word", CHANGED)
def test_what_is_accepted_is_named_by_the_refusal_and_goes_on(word, run, tmp_path):
    given = {"validation": HELD_OUT, **CHANGED[word]}
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(ValueError, match=rf"to go on with what is given now, pass accept=\('{word}',\)$"):
        train(tmp_path / "run", **given)
    judges = word in ("loss", "model", "validation")  # by which what is best is judged
    says = pytest.warns(UserWarning, match=f"the {word} that is given was accepted") if judges else nullcontext()
    with says:
        _, history = train(tmp_path / "run", **given, accept=word)
    assert len(history["loss"]) == given.get("epochs", 4)


def test_another_optimizer_begins_anew_or_goes_on_with_its_state(run, tmp_path):
    for name in ("new", "same"):
        shutil.copytree(run, tmp_path / name)
    given = {"validation": HELD_OUT, "accept": "optimizer"}
    with pytest.warns(UserWarning, match="its state begins anew, at the parameters that were saved"):
        state, _ = train(tmp_path / "new", dataclasses.replace(RECIPE, optimizer=optax.adagrad), **given)
    assert "sum_of_squares" in str(state.opt_state)
    before, _ = train(run, validation=HELD_OUT)
    same(state.params, before.params)
    state, _ = train(tmp_path / "same", dataclasses.replace(RECIPE, optimizer=optax.adamw), **given)
    same(state, before)


def test_a_longer_run_asks_what_becomes_of_a_schedule_that_follows_it(tmp_path):
    train(tmp_path, dataclasses.replace(RECIPE, optimizer=CosineAdamW()))
    with pytest.raises(
        ValueError, match=r"its schedule follows the length of the run, .*\n.*\('epochs', 'schedule'\)$"
    ):
        resume(tmp_path, epochs=6)
    _, history = resume(tmp_path, epochs=6, accept="schedule")
    assert len(history["loss"]) == 6


def test_numbers_are_others_from_now_on(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match="hyperparams.learning_rate: saved 0.1, given 0.0"):
        resume(tmp_path, epochs=6, hyperparams={"learning_rate": 0.0})
    before, _ = resume(tmp_path)
    after, _ = resume(tmp_path, epochs=6, hyperparams={"learning_rate": 0.0}, accept="hyperparams")
    same(after.params, before.params)
    resume(tmp_path, epochs=6)  # it is the run of the new number now


@pytest.mark.parametrize(
    "number", [np.float64(0.1), jax.numpy.asarray(0.1), np.float16(0.1)], ids=lambda n: str(n.dtype)
)
def test_a_number_of_any_kind_is_the_same_when_the_run_goes_on(number, tmp_path):
    """JAX notes that it made an array from Python's number, and narrows NumPy's: no file of a checkpoint says so."""
    straight = train(tmp_path, numbers={"learning_rate": number})
    same(resume(tmp_path), straight)
    same(train(tmp_path, numbers={"learning_rate": number}), straight)


def doing(sign):
    """Return a model of the caller's own type, whose method is another by another sign."""

    @dataclasses.dataclass(frozen=True)
    class Line:
        width: int = 3

        def init(self, key):
            return {"w": jax.numpy.ones((self.width, 1))}

        def apply(self, params, x):
            return sign * x @ params["w"]

    return Line()


def test_what_a_type_of_the_callers_does_is_a_part_of_the_run(tmp_path):
    """Also where the programs cannot be compared: with other data, or by another version."""
    mine = dataclasses.replace(RECIPE, model=doing(1.0))
    train(tmp_path, recipe=mine)
    other, more = dataclasses.replace(RECIPE, model=doing(-1.0)), (np.r_[X, X[:1]], np.r_[Y, Y[:1]])
    with pytest.raises(ValueError, match=r"recipe.model.does: saved"):
        train(tmp_path, recipe=other, data=more, accept="data")
    train(tmp_path, recipe=dataclasses.replace(RECIPE, model=doing(1.0)), data=more, accept="data")


def test_another_kind_of_device_is_only_named():
    kinds = [_changes.Change("layout", "layout.kind: saved TPU v4, given TPU v5")]
    assert _changes.check(kinds, frozenset(), None, "here") == ["layout.kind: saved TPU v4, given TPU v5"]


def test_an_accepted_loss_has_a_best_checkpoint_of_its_own(tmp_path):
    """Of another loss the figures are on another scale: the smaller one from before is none of its."""

    def larger(outputs, targets):
        return 100 * losses.squared_error(outputs, targets)

    train(tmp_path / "run", every=1, keep=1)
    recipe = dataclasses.replace(RECIPE, loss=larger, epochs=8)
    with pytest.warns(UserWarning, match="the loss that is given was accepted .* what is best is chosen anew"):
        _, history = train(tmp_path / "run", recipe, every=1, keep=1, accept=("loss", "epochs"))
    values = np.asarray(history["loss"])
    best = 4 + int(np.argmin(values[4:])) + 1
    assert values[4:].min() > values[:4].min()
    assert {int(p.name) for p in (tmp_path / "run").glob("0*")} == {8, best}
