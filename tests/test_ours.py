"""What is in a run's directory and no run wrote: it is not touched, and stops a run only before its training."""

import errno
import json
import os
import shutil

import crash
import jax
import numpy as np
import pytest

from jaxmlp import _disk, loop
from jaxmlp.loop import _bounds, _fields
from jaxmlp.loop._checkpoints import Checkpoints, NotSaved
from jaxmlp.loop._folder import Form
from jaxmlp.loop._manifest import Manifest

DATA = {"data": (crash.X, crash.Y), "validation": (crash.X[:50], crash.Y[:50]), "progress": False}


def train(directory, **options):
    return crash.run("one", directory, epochs=4, **options)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run's directory, to be copied."""
    directory = tmp_path_factory.mktemp("ours") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        train(directory)
    return directory


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_folders_of_a_user_stay_whatever_their_names(run, tmp_path):
    own = tmp_path / "run"
    for name in ("20240101.saving/.git", "20240102.saving", "20240103/arrays", "00000007.damaged"):
        (own / name).mkdir(parents=True)
    (own / "20240101.saving" / "arrays.csv").write_text("1")
    (own / "20240103" / "run.json").write_text('{"loss": 1}')
    before = contents(own)
    train(own)
    found = contents(own)
    assert {name: found.get(name, "gone") for name in before} == before and (own / "00000004").is_dir()


def test_what_was_put_into_a_checkpoint_outlives_it(run, tmp_path):
    """It is not removed with those that are older than `keep`, nor by one that takes its name; junk of systems is."""
    own = tmp_path / "run"
    shutil.copytree(run, own)
    (own / "00000002" / "notes.txt").write_text("mine")
    (own / "00000004" / ".DS_Store").write_text("junk")
    shutil.move(own / "00000004", own / "moved")
    (own / "00000004").symlink_to("moved")
    assert train(own)[1]["loss"].shape == (4,)
    store = Checkpoints(own, keep=1)
    for number in (2, 5, 6):
        store.save(number, {"w": np.zeros(1)}, {})
    store.wait()
    store.close()
    assert (own / "00000002.before" / "notes.txt").read_text() == "mine" and (own / "moved" / "run.json").is_file()
    assert sorted(p.name for p in own.glob("0*")) == ["00000002.before", "00000004.superseded", "00000006"]
    store = Checkpoints(own, keep=1)
    for number in (4, 7):
        store.save(number, {"w": np.zeros(1)}, {})
    store.wait()
    store.close()
    assert (own / "00000004.superseded").is_symlink() and (own / "moved" / ".DS_Store").read_text() == "junk"
    assert sorted(p.name for p in own.glob("0*")) == [
        *("00000002.before", "00000004.superseded", "00000006.superseded", "00000007"),
    ]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: path.write_text("mine"), "00000004 (a file)"),
        (lambda path: (path / "notes").mkdir(parents=True) or (path / "notes" / "a").touch(), "of something else)"),
        (lambda path: path.symlink_to("nowhere"), "00000004 (a link)"),
        (lambda path: path.mkdir(), "00000004: all files are missing"),
    ],
    ids=["file", "folder", "link", "emptied"],
)
def test_a_name_that_is_taken_stops_a_run_before_its_training(make, words, tmp_path):
    make(tmp_path / "00000004")
    _refused(tmp_path, words)


def test_a_history_that_is_no_file_stops_a_run_before_its_training(tmp_path):
    (tmp_path / "history.csv").mkdir()
    _refused(tmp_path, "history.csv (an empty folder)")


def test_a_folder_that_cannot_be_written_stops_a_run_before_its_training(run, tmp_path, monkeypatch):
    """One that has ended comes back from there all the same."""

    def refuse(folder):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    monkeypatch.setattr(_disk, "check_writable", refuse)
    _refused(tmp_path, "Read-only file system")
    assert train(run)[1]["loss"].shape == (4,)


def _refused(tmp_path, words):
    before, seen = contents(tmp_path), []
    with pytest.raises(ValueError) as caught:
        train(tmp_path, callbacks=[lambda state, history: seen.append(1)])
    assert words in str(caught.value) and not seen
    assert {name: told for name, told in contents(tmp_path).items() if name in before} == before


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_kill_while_a_checkpoint_takes_the_place_of_another_leaves_one_of_them(cut, tmp_path, monkeypatch):
    store = Checkpoints(tmp_path, keep=1)
    store.save(5, {"a": np.zeros(2)}, {"from": "old"})
    store.wait()
    replace, done = os.replace, []

    class Killed(BaseException):
        pass

    def killed(source, target):
        if "saving" in str(source) and str(target).endswith("00000005"):
            if cut == "after":
                replace(source, target)
            done.append(target)
        if done:
            raise Killed
        replace(source, target)

    # A process that dies does nothing more: neither its own clearing up.
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr(shutil, "rmtree", lambda path, **options: None)
        store.save(5, {"a": np.ones(2)}, {"from": "new"})
        with pytest.raises(NotSaved):
            store.wait()
    store.close()
    store = Checkpoints(tmp_path, keep=1)
    assert store.recover().meta["from"] == {"before": "old", "after": "new"}[cut]
    store.close()
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["00000005"]


def test_what_the_rules_of_before_saved_later_is_not_taken_for_the_newest(tmp_path):
    first = {"every": 20, "stop": loop.Target("loss", at_most=1e9)}
    how = {**DATA, "recipe": crash.RECIPE, "hyperparams": crash.NUMBERS, "epochs": 20, "directory": tmp_path}
    loop.train(jax.random.key(0), **how, **first)
    assert (tmp_path / "00000020").is_dir()

    def stop(state, history):
        raise KeyError

    with pytest.raises(KeyError):
        loop.resume(tmp_path, **DATA, stop=[], every=2, callbacks=[stop])
    assert (tmp_path / "00000020.superseded").is_dir() and not (tmp_path / "00000020").exists()
    _, history = loop.resume(tmp_path, **DATA)
    assert len(history["loss"]) == 20


def test_a_file_that_another_process_is_writing_is_no_left_over(tmp_path):
    mine, gone = (tmp_path / f".jaxmlp-{process}-0123456789abcdef.new" for process in (os.getpid(), 2**22 + 1))
    mine.touch()
    gone.touch()
    Checkpoints(tmp_path, keep=1).close()
    assert mine.exists() and not gone.exists()


def test_a_directory_that_cannot_be_locked_is_used_with_a_warning(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(file, how):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="cannot be locked .* let one process alone write there"):
        Checkpoints(tmp_path, keep=1).close()


def test_words_bound_the_arrays_before_they_are_read(run, tmp_path):
    """A width, sizes or an array out of proportion: refused by its words and its form, with no array read."""
    told = json.loads((run / "00000004" / "run.json").read_text())
    manifest = Manifest.from_json(told["run"])
    assert _bounds.last_number(manifest) == 4
    key = Form((1, 2), np.dtype("uint32"), (1, 2))
    forms = {"members.key": key, "run.state.params.0.w": Form((1, 8, 64), np.dtype("f"), (1, 8, 64))}
    forms["run.state.params.1.w"] = Form((1, 64, 1), np.dtype("f"), (1, 64, 1))
    _bounds.check_forms(manifest, forms)
    huge = forms | {"run.state.opt_state.0": Form((1, 2**34), np.dtype("f"), (1, 2**34))}
    long = forms | {"run.history.loss": Form((1, 10**6), np.dtype("f"), (1, 10**6))}
    many = forms | {"run.epochs": Form((10**6,), np.dtype("i"), (10**6,))}
    wide = Manifest.from_json({**told["run"], "layout": {**told["run"]["layout"], "width": 2**24}})
    for given, arrays, words in (
        (manifest, huge, "must be those of 1 models of 576 weights"),
        (manifest, long, "must have an entry for each of 4 epochs"),
        (manifest, many, "must hold something for each of 1 members"),
        (manifest, {"members.key": key}, "must be those of its 0 weights"),
        (wide, huge | forms | {"run.state.opt_state.0": Form((1, 2**20), np.dtype("f"), (1,))}, "layout.width"),
    ):
        with pytest.raises(ValueError, match=words):
            _bounds.check_forms(given, arrays)


def test_what_is_looked_at_beside_all_others_is_bounded(run):
    told = json.loads((run / "00000004" / "run.json").read_text())["run"]
    many = [{"function": "jaxmlp.metrics:rmse"}] * 1001
    for name, value, words in (
        ("stop", {str(i): {} for i in range(1001)}, "run.stop of the checkpoint must be at most 1,000 entries long"),
        ("recipe", {**told["recipe"], "metrics": many}, "run.recipe.metrics of the checkpoint must be at most 1,000"),
    ):
        with pytest.raises(ValueError, match=words):
            Manifest.from_json({**told, name: value})
    for args, keywords in ([1] * 1001, {}), ([], {str(i): i for i in range(1001)}):
        partial = {"partial": {"function": "optax:sgd"}, "args": args, "keywords": keywords}
        made = Manifest.from_json({**told, "recipe": {**told["recipe"], "optimizer": partial}})
        with pytest.raises(ValueError, match="arguments of recipe.optimizer of the checkpoint must be at most 1,000"):
            made.rebuild_recipe()


def test_a_width_out_of_proportion_stops_a_resume(run, tmp_path):
    own = tmp_path / "run"
    shutil.copytree(run, own)
    for folder in own.glob("0000000?"):
        if folder.name != "00000004":
            shutil.rmtree(folder)
    path = own / "00000004" / "run.json"
    path.write_text(path.read_text().replace('"width": 1,', '"width": 16777216,'))
    with pytest.raises(ValueError, match=r"run.json has changed|layout.width of the checkpoint"):
        loop.resume(own, (crash.X, crash.Y), validation=(crash.X[:50], crash.Y[:50]), progress=False)


def test_a_dtype_that_is_no_name_of_numbers_is_refused():
    """NumPy reads arrays within arrays, records and text of any size in such a name."""
    for name in ("float32", "bfloat16", "bool", "int64"):
        assert _fields.dtype("it", name) == name
    for name in ("(1000000000,)f8", "f8,f8", "V1000000000", "U1000000000", "O", "complex64", "\ud800", "((", "", 7):
        with pytest.raises(ValueError, match=r"it of the checkpoint must be (the name of a dtype|a string)") as error:
            _fields.dtype("it", name)
        assert type(error.value) is ValueError
