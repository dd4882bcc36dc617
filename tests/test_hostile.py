"""A checkpoint of unknown origin: whatever its words are, one ValueError says what must hold, and nothing is called."""

import copy
import functools
import inspect
import itertools
import json
import shutil
import warnings

import hostile
import jax
import numpy as np
import optax
import pytest

from jaxmlp import MLP, Recipe, loop, losses, metrics
from jaxmlp.loop import _fields, _table
from jaxmlp.optimizers import CosineAdamW

X = np.random.default_rng(0).normal(size=(40, 3)).astype("f")
Y = np.sin(X[:, :1])
HELD_OUT = X[:20], Y[:20]
SHORT = 30  # changes of a run in the ordinary tests; all of them behind the marker


class Loader:
    def __iter__(self):
        return iter([(X[:20], Y[:20]), (X[20:], Y[20:])])

    def set_epoch(self, number):
        pass


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of one network on a table, with all kinds of fields."""
    folder = tmp_path_factory.mktemp("one")
    loss = functools.partial(losses.huber, delta=0.5)
    recipe = Recipe(MLP((3, 4, 1)), loss, CosineAdamW(4), epochs=2, batch_size=20, metrics=(metrics.rmse,))
    numbers = {"learning_rate": 0.01, "weight_decay": np.float32(0.1)}
    rules = [loop.Patience(3), loop.Target("loss", at_most=1e-9)]
    options = {"validation": HELD_OUT, "stop": rules, "directory": folder, "progress": False}
    loop.train(jax.random.key(0), (X, Y), recipe, numbers, **options)
    return folder, lambda: loop.resume(folder, (X, Y), validation=HELD_OUT, progress=False)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A population on a stream."""
    folder = tmp_path_factory.mktemp("many")
    recipe = Recipe(MLP((3, 4, 1), jax.numpy.sin), losses.squared_error, optax.adam, epochs=1)
    numbers = {"learning_rate": np.array([0.1, 0.2, 0.3], "f")}
    keys = jax.random.split(jax.random.key(0), 3)
    loop.train(keys, Loader(), recipe, numbers, directory=folder, progress=False)
    return folder, lambda: loop.resume(folder, Loader(), progress=False)


def refusals(run, step):
    """Yield the name of each change, and what a resume raises; the checkpoint is as it was afterwards."""
    folder, resume = run
    newest = max(folder.glob("0*"))
    before = (newest / "run.json").read_text()
    try:
        for name, told in itertools.islice(hostile.mutants(json.loads(before)), 0, None, step):
            hostile.tell(newest, told)
            error = None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other versions
                try:
                    resume()
                except BaseException as raised:
                    error = raised
            yield name, error
            for path in folder.glob("0*"):  # a change that let the run go on has saved it: not what is tried here
                if path != newest:
                    shutil.rmtree(path)
    finally:
        hostile.tell(newest, before)


def check(run, step, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.save("spy.npy", np.array([None]), allow_pickle=True)
    for name, error in refusals(run, step):
        assert error is None or type(error) is ValueError, f"{name}: {error!r:.300}"
        assert error is None or " must " in str(error) or "pass " in str(error), f"{name}: {error}"
    assert [path.name for path in tmp_path.iterdir()] == ["spy.npy"]


@pytest.mark.parametrize("kind", ["one", "many"])
def test_other_words_are_one_error_of_ours(kind, request, monkeypatch, tmp_path):
    run = request.getfixturevalue(kind)
    count = sum(1 for _ in hostile.mutants(json.loads((max(run[0].glob("0*")) / "run.json").read_text())))
    check(run, count // SHORT, monkeypatch, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["one", "many"])
def test_any_other_words_are_one_error_of_ours(kind, request, monkeypatch, tmp_path):
    check(request.getfixturevalue(kind), 1, monkeypatch, tmp_path)


CALLS = [
    {"type": "jax.numpy:load", "file": "spy.npy", "allow_pickle": True},
    {"type": "jaxmlp.loop._saving:RunDirectory", "path": "made"},
    {"partial": {"function": "jax.numpy:load"}, "args": ["spy.npy"], "keywords": {"allow_pickle": True}},
    {"partial": {"partial": {"function": "optax:adam"}, "args": [], "keywords": {}}, "args": [], "keywords": {}},
    {"function": "jax.numpy:save"},
    {"function": "jax:clear_caches"},
    {"function": "jaxmlp._check:extra"},
    {"function": "jaxmlp.losses:jax.numpy.load"},
    {"function": "optax._src.base:jax.numpy.load"},
    {"function": ["optax:adam"]},
]


@pytest.mark.parametrize("words", CALLS, ids=str)
@pytest.mark.parametrize("part", ["model", "loss", "optimizer"])
def test_nothing_but_what_is_listed_is_looked_for_or_called(words, part, one, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder, resume = one
    newest = max(folder.glob("0*"))
    before = (newest / "run.json").read_text()
    told = json.loads(before)
    told["run"]["recipe"][part] = copy.deepcopy(words)
    try:
        hostile.tell(newest, told)
        with pytest.raises(ValueError, match=rf"^recipe\.{part}.* must "):
            resume()
    finally:
        hostile.tell(newest, before)
    assert not list(tmp_path.iterdir())


def test_what_is_listed_only_computes():
    """No name of the table leads to what reads, writes or imports."""
    homes = {str(function.__module__).split(".")[0] for function in _table.functions().values()}
    assert homes <= set(_table.OWN)
    assert not [name for name in _table.functions() if name.split(":")[1] in ("load", "save", "extra", "eval", "jit")]


@pytest.mark.parametrize("room", [losses, metrics])
def test_each_loss_and_metric_is_listed(room):
    """The names stand there one by one: a new loss is added to them, and a helper is not."""
    listed = dict(_table.MODULES)[room].split()
    public = {
        name
        for name, value in vars(room).items()
        if inspect.isfunction(value)
        and value.__module__ == room.__name__
        and not name.startswith("_")
        and list(inspect.signature(value).parameters)[0] == "outputs"
    }
    assert sorted(listed) == listed and set(listed) == public


def test_each_optimizer_of_optax_is_listed():
    taken = "learning_rate"
    makers = [
        name
        for name, value in vars(optax).items()
        if inspect.isfunction(value)
        and not name.startswith(("_", "scale_by", "inject"))
        and taken in inspect.signature(value).parameters
    ]
    assert len(makers) > 25 and not set(makers) - set(_table.OPTAX.split())


@pytest.mark.parametrize("where", [{"epoch": 0}, {"epoch": 1}, {"epoch": 99}])
def test_a_place_that_is_not_that_of_the_members_is_refused(where, one):
    folder, resume = one
    newest = max(folder.glob("0*"))
    before = (newest / "run.json").read_text()
    try:
        hostile.tell(newest, json.loads(before) | {"where": where})
        with pytest.raises(
            ValueError, match="where of the checkpoint must be the place of its members, run.epochs 2; got"
        ):
            resume()
    finally:
        hostile.tell(newest, before)


@pytest.mark.parametrize("place", [[], [0, 1, 1], [1, 0, 3], [9, 0, 18]])
def test_a_place_of_a_stream_that_is_not_that_of_the_members_is_refused(place, many):
    folder, resume = many
    newest = max(folder.glob("0*"))
    before = (newest / "run.json").read_text()
    told = json.loads(before)
    try:
        hostile.tell(newest, told | {"where": told["where"] | {"position": place}})
        with pytest.raises(ValueError, match="where of the checkpoint must be the place of its members, run"):
            resume()
    finally:
        hostile.tell(newest, before)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "must hold a dict; got [1]"),
        ('{"a": 1, "a": 2}', "'a' stands twice in one dict"),
        ("[" * 10000, "RecursionError"),
        (r'{"a": "\ud800"}', "must hold text; UnicodeEncodeError"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "must be nested no deeper than 64"),
        ("{", "must hold JSON; it could not be read: JSONDecodeError"),
        (b"\xff\xfe{", "must hold JSON"),
    ],
)
def test_what_is_no_json_is_named(text, words):
    with pytest.raises(ValueError) as error:
        _fields.read_json(text, "run.json")
    assert str(error.value).startswith("run.json") and words in str(error.value)
