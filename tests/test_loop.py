"""The host's loop changes no bit of what `fit` makes, stops when it should, and says why."""

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, metrics, population, records, training
from jaxmlp.loop import _checkpoints, _description, _progress, _saved
from jaxmlp.loop.streams import _npy

pytestmark = pytest.mark.bits
RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 3)).astype("f")
Y = np.sin(X[:, :1])
HELD_OUT = X[:30], Y[:30]
RECIPE = Recipe(MLP((3, 16, 1), "tanh"), losses.squared_error, optax.adam, epochs=9, batch_size=32)
WHOLE = dataclasses.replace(RECIPE, batch_size=None)
RATE = {"learning_rate": 0.01}
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 5)
RATES = {"learning_rate": np.geomspace(1e-3, 1e-1, 5)}


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def train(data=(X, Y), recipe=RECIPE, hyperparams=RATE, key=KEY, **options):
    return loop.train(key, data, recipe, hyperparams, progress=False, **options)


class Loader:
    """Batches anew for each pass, in an order of the pass's number."""

    def __init__(self, size=32):
        self.size, self.passes = size, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.passes += 1
        order = np.random.default_rng(self.epoch).permutation(len(X))
        for i in range(0, len(X), self.size):
            yield X[order[i : i + self.size]], Y[order[i : i + self.size]]


class Source:
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], Y[i]

    def __repr__(self):
        return "Source"


def grains(passes=1):
    rows = grain.samplers.IndexSampler(
        len(X), num_epochs=passes, shuffle=True, seed=3, shard_options=grain.sharding.NoSharding()
    )
    batch = grain.transforms.Batch(32)
    return grain.DataLoader(data_source=Source(), sampler=rows, operations=[batch], worker_count=0)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """The table in two shards, as a folder, and whole, as arrays."""
    shards, whole = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("whole")
    for i, part in enumerate((slice(0, 37), slice(37, None))):
        np.save(shards / f"x-{i}.npy", X[part])
        np.save(shards / f"y-{i}.npy", Y[part])
    np.save(whole / "x.npy", X)
    np.save(whole / "y.npy", Y)
    return shards, tuple(np.load(whole / f"{name}.npy", mmap_mode="r") for name in "xy")


# What `fit` makes, chunk by chunk.


@pytest.mark.parametrize(
    ("recipe", "hyperparams"),
    [
        (RECIPE, RATE),
        (dataclasses.replace(WHOLE, metrics=(metrics.rmse,)), RATE),
        (dataclasses.replace(RECIPE, model=MLP((3, 8, 1), norm="layer", dropout=True)), {**RATE, "dropout_rate": 0.2}),
        (dataclasses.replace(RECIPE, model=MLP((3, 8, 1), dtype="bfloat16", param_dtype="bfloat16")), RATE),
    ],
    ids=["plain", "full batch", "dropout", "bfloat16"],
)
def test_any_chunks_make_what_fit_makes(recipe, hyperparams):
    dtype = jnp.bfloat16 if recipe.model.dtype else jnp.float32
    data = jnp.asarray(X, dtype), jnp.asarray(Y, dtype)
    straight = jaxmlp.fit(KEY, data, recipe, hyperparams, validation=None if recipe.metrics else data)
    before = training.trace_count()
    for every in (1, 4, None):
        options = {} if recipe.metrics else {"validation": data}
        same(train(data, recipe, hyperparams, every=every, **options), straight)
    assert training.trace_count() - before <= 1


def test_a_population_is_that_of_population_fit():
    same(train(hyperparams=RATES, key=KEYS, every=4), population.fit(KEYS, (X, Y), RECIPE, RATES))
    straight = population.halving(KEYS, (X, Y), RECIPE, RATES, validation=HELD_OUT, factor=2, first=2)
    stop = loop.Halving(2, first=2)
    same(train(hyperparams=RATES, key=KEYS, every=3, validation=HELD_OUT, stop=stop), straight)


def test_mapped_files_train_as_the_same_arrays_in_memory(mapped):
    straight = jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, validation=HELD_OUT)
    for data, every in itertools.product(mapped, (None, 3)):
        same(train(data if isinstance(data, tuple) else str(data), every=every, validation=HELD_OUT), straight)


def test_a_file_too_large_to_map_is_read_row_by_row(tmp_path, monkeypatch):
    """Also where the array is a part of its file, or of another dtype than JAX's."""
    monkeypatch.setattr(_npy, "MAPPED_BYTES", 100)
    straight = jaxmlp.fit(KEY, (X, Y), RECIPE, RATE)
    np.save(tmp_path / "x.npy", np.concatenate([X[:7] + 1, X]).astype(np.float64))
    np.save(tmp_path / "y.npy", Y)
    x, y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    same(train((x[7:], y)), straight)
    os.truncate(tmp_path / "y.npy", 300)
    with pytest.raises(ValueError, match=r"y.npy must hold row \d+; it was cut short"):
        train((x[7:], y))


def test_a_stream_takes_the_steps_that_it_gives():
    """By hand: `step` on each batch of each pass, the short one included; the mean loss of all its examples."""
    state, history = train(Loader(), WHOLE, epochs=2)
    by_hand, step = jaxmlp.start(KEY, WHOLE, RATE), jax.jit(jaxmlp.step)
    loader, expected = Loader(), []
    for epoch in range(2):
        loader.set_epoch(epoch)
        seen = []
        for batch in loader:
            by_hand, found = step(by_hand, batch, WHOLE, RATE)
            seen.append((float(found["loss"]), len(batch[0])))
        expected.append(np.average([loss for loss, _ in seen], weights=[n for _, n in seen]))
    assert state.step == by_hand.step == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, by_hand.params)
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)


# Saved and resumed.

KINDS = {
    "one": ({}, {"stop": loop.Patience(6), "validation": HELD_OUT, "every": 2}),
    "population": (
        {"hyperparams": RATES, "key": KEYS},
        {"stop": [loop.Halving(2, first=4), loop.Patience(8)], "validation": HELD_OUT, "every": 3},
    ),
    "mapped": ({"data": "mapped"}, {"every": 5}),
    "stream": ({"data": Loader, "recipe": WHOLE}, {"every": 3, "validation": HELD_OUT}),
    "grain": ({"data": grains, "recipe": WHOLE}, {"every": 3}),
    "endless": ({"data": lambda: grains(None), "recipe": WHOLE}, {"every": 3, "steps": 5}),
    "stream for a population": ({"data": Loader, "recipe": WHOLE, "hyperparams": RATES, "key": KEYS}, {"every": 6}),
}


class Stop(Exception):
    pass


def after(calls):
    count = itertools.count(1)

    def callback(state, history):
        if next(count) == calls:
            raise Stop

    return callback


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_resumed_is_the_straight_run(kind, tmp_path, mapped):
    what, how = KINDS[kind]
    what = dict(what)

    def data():
        given = what.get("data", (X, Y))
        return mapped[0] if given == "mapped" else given() if callable(given) else given

    options = {name: value for name, value in what.items() if name != "data"}
    straight = train(data(), **options, **how)
    with pytest.raises(Stop):
        train(data(), **options, **how, directory=tmp_path / "run", callbacks=[after(3)])
    (tmp_path / "run" / f"00000099.12-{7:016x}.saving").mkdir()  # as a process leaves it that is killed while it saves
    seen = {name: value for name, value in how.items() if name in ("validation",)}
    same(loop.resume(tmp_path / "run", data(), progress=False, **seen), straight)
    same(train(data(), **options, **how, directory=tmp_path / "run"), straight)  # it has ended: nothing to do
    assert not list(tmp_path.glob("run/*.saving"))


def test_more_epochs_are_those_of_a_longer_run(tmp_path):
    train(directory=tmp_path)
    longer = jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, epochs=12), RATE)
    same(loop.resume(tmp_path, (X, Y), epochs=12, progress=False), longer)


def test_the_newest_and_the_best_checkpoint_are_kept(tmp_path):
    """With a rate at which the loss soon rises, the best is an early one."""
    _, history = train(hyperparams={"learning_rate": 0.3}, directory=tmp_path, every=1, keep=2, epochs=12)
    best = int(np.argmin(history["loss"])) + 1
    assert {int(p.name) for p in tmp_path.glob("0*")} == {best, 11, 12}


def own_loss(outputs, targets):
    return jnp.sum(jnp.square(outputs - targets), axis=-1)


def test_a_recipe_is_found_by_name_only_where_it_is_no_code_of_the_callers(tmp_path):
    recipe = dataclasses.replace(RECIPE, optimizer=training.CosineAdamW(36), metrics=(metrics.rmse,))
    assert _description.rebuild("recipe", json.loads(json.dumps(_description.describe(recipe)))) == recipe
    recipe = dataclasses.replace(RECIPE, loss=own_loss)
    train(recipe=recipe, directory=tmp_path)
    with pytest.raises(ValueError, match="must be given again: .*own_loss is not of jaxmlp, Optax or JAX"):
        loop.resume(tmp_path, (X, Y))
    same(loop.resume(tmp_path, (X, Y), recipe, progress=False), jaxmlp.fit(KEY, (X, Y), recipe, RATE))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(directory=folder, validation=HELD_OUT)
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"recipe": dataclasses.replace(RECIPE, model=MLP((3, 17, 1), "tanh"))},
            "recipe.model.sizes: saved [3, 16, 1]",
        ),
        ({"recipe": dataclasses.replace(RECIPE, loss=losses.absolute_error)}, "recipe.loss.function: saved jaxmlp"),
        ({"hyperparams": {"learning_rate": 0.02}}, "hyperparams.learning_rate: saved 0.01, given 0.02"),
        ({"data": (X + 1, Y)}, "data.0.sha256: saved "),
        ({"data": (X[:99], Y[:99])}, "data.0.shape: saved [100, 3], given [99, 3]"),
        ({"validation": None}, "validation"),
        ({"key": jax.random.key(1)}, "key.sha256: saved "),
        ({"epochs": 10}, "recipe.epochs: saved 9, given 10"),
    ],
)
def test_another_run_is_refused_with_the_difference(run, changes, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        train(**{"directory": run, "validation": HELD_OUT, **changes})
    assert "a run must be resumed with what it began with" in str(error.value)


def test_what_cannot_be_gone_on_with_is_named(run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="epochs must be at least the 9 of the run; got 3"):
        loop.resume(run, (X, Y), epochs=3)
    with pytest.raises(Stop):
        train(Loader(), WHOLE, directory=tmp_path / "stream", every=3, callbacks=[after(4)])
    other = Loader()
    other.set_epoch = lambda epoch: setattr(other, "epoch", 10 * epoch)
    with pytest.raises(ValueError, match="batch 0 of epoch 1 must be what it was before the run was saved"):
        loop.resume(tmp_path / "stream", other, progress=False)
    newest = max((tmp_path / "stream").glob("0*"))
    (newest / "run.json").write_text((newest / "run.json").read_text().replace('"format": 1', '"format": 2'))
    (newest / "SHA256SUMS").write_text(_checkpoints._sums(newest))
    with pytest.raises(ValueError, match="must be of format 1; got 2"):
        loop.resume(tmp_path / "stream", Loader(), progress=False)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxmlp\[checkpoint\]'"):
        train(directory=tmp_path / "new")


def test_another_layout_is_refused_and_the_saved_one_is_taken(tmp_path, monkeypatch):
    """A member's bits depend on the width of its block and on the number of devices."""

    def planned(width, devices):
        return population.plan(KEYS, (X, Y), RECIPE, RATES, width=width, devices=devices)

    def run(width=2, devices=2, **options):
        return train(hyperparams=RATES, key=KEYS, every=3, plan=planned(width, devices), **options)

    with pytest.raises(Stop):
        run(directory=tmp_path, callbacks=[after(1)])
    with pytest.raises(ValueError, match=r"layout.width: saved 2, given 4\n.*width=2\)"):
        run(width=4, directory=tmp_path)
    with pytest.raises(ValueError, match=r"layout.devices: saved 2, given 1\n.*go on with two devices or more"):
        run(devices=1, directory=tmp_path)
    with monkeypatch.context() as patch:  # on a machine with fewer
        one = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda: one)
        with pytest.raises(ValueError, match="layout.devices: saved 2, given 1"):
            loop.resume(tmp_path, (X, Y), progress=False)
    same(loop.resume(tmp_path, (X, Y), progress=False), run())


def test_a_folder_of_shards_that_do_not_fit_is_named(tmp_path):
    for name, array in {"x-0": X[:50], "x-1": X[50:, :2], "y-0": Y[:50], "y-1": Y[50:]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(ValueError, match="shard 1 must have as many rows in each file, and the form of the first"):
        train(tmp_path)
    (tmp_path / "x-1.npy").write_bytes(b"no numbers")
    with pytest.raises(ValueError, match="x-1.npy must be a .npy file of numbers; it could not be read"):
        train(tmp_path)
    (tmp_path / "x-1.npy").unlink()
    with pytest.raises(ValueError, match="as many of each; got 1 of x, 2 of y and 0 of weight"):
        train(tmp_path)


def test_other_versions_are_named_by_a_warning(run, monkeypatch):
    versions = {**_saved.versions(), "jax": "0.1"}
    monkeypatch.setattr(_saved, "versions", lambda: versions)
    with pytest.warns(
        UserWarning, match=r"version.jax: saved .*, given 0.1: the run goes on, but only equal versions"
    ) as seen:
        train(directory=run, validation=HELD_OUT)
    assert seen[0].filename == __file__  # the caller's line, not one of ours


# Stopped.


def test_patience_brings_the_best_weights():
    state, history = train(hyperparams={"learning_rate": 0.3}, validation=HELD_OUT, stop=loop.Patience(2), epochs=40)
    found = history["validation_loss"]
    assert len(found) < 40 and np.argmin(found) == len(found) - 3
    loss = jaxmlp.evaluate(state.params, HELD_OUT, RECIPE, RATE)["loss"]
    np.testing.assert_allclose(loss, found.min(), rtol=1e-6)


@pytest.mark.parametrize("every", [1, 5])
def test_a_target_stops_at_its_epoch_whatever_the_chunk(every):
    straight = jaxmlp.fit(KEY, (X, Y), RECIPE, RATE)[1]["loss"]
    state, history = train(stop=loop.Target("loss", at_most=float(straight[2])), every=every)
    np.testing.assert_array_equal(history["loss"], straight[:3])
    assert state.step == 3 * 4


def test_a_budget_ends_a_call_and_the_next_goes_on(tmp_path):
    budget = loop.Budget(1e-9)
    _, history = train(stop=budget, every=2, directory=tmp_path)
    assert len(history["loss"]) == 2
    same(train(every=2, directory=tmp_path), jaxmlp.fit(KEY, (X, Y), RECIPE, RATE))


@pytest.mark.parametrize("data", [(X, Y), Loader()], ids=["memory", "stream"])
def test_a_loss_that_leaves_the_finite_is_an_error_with_the_last_good_state(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, optimizer=optax.sgd, batch_size=32 if isinstance(data, tuple) else None)
    with pytest.raises(loop.NonFinite, match=r"in epoch \d \(the first is 0\), step \d+; .*learning_rate=1") as error:
        train(data, recipe, {"learning_rate": 10.0}, epochs=40, every=20, directory=tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(error.value.state.params))
    assert str(tmp_path) in str(error.value) and np.isfinite(error.value.history["loss"]).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_at_the_chunks_end(number, tmp_path, capsys, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    once = after(2)

    def callback(state, history):
        try:
            once(state, history)
        except Stop:
            os.kill(os.getpid(), number)

    with pytest.raises(
        loop.Interrupted, match="interrupted after epoch 4 of 9; saved in .*the same call goes on"
    ) as end:
        loop.train(KEY, (X, Y), RECIPE, RATE, every=2, directory=tmp_path, callbacks=[callback])
    assert len(end.value.history["loss"]) == 4
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert "ending after this chunk; once more ends at once" in capsys.readouterr().err
    same(train(every=2, directory=tmp_path), jaxmlp.fit(KEY, (X, Y), RECIPE, RATE))


def test_a_second_signal_ends_at_once():
    """A chunk of some minutes, two signals, and the process is gone by the second."""
    program = (
        "import sys; sys.path.insert(0, 'tests'); from test_loop import *\n"
        "print('ready', flush=True)\n"
        "loop.train(KEY, (X, Y), RECIPE, RATE, epochs=10**7, every=10**7)"
    )
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:  # the first may come before the loop listens
            process.send_signal(signal.SIGTERM)
            if process.stderr.readline():
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == -signal.SIGTERM


# Streams that break.


def batches(*changes):
    """Four good batches and what is changed of them."""
    good = [(X[i : i + 25], Y[i : i + 25]) for i in range(0, 100, 25)]
    for place, batch in changes:
        good[place] = batch
    return good


def raising():
    yield X[:25], Y[:25]
    raise OSError("the disk is gone")


class Shrinking:
    def set_epoch(self, epoch):
        self.count = 4 - epoch

    def __iter__(self):
        return iter(batches()[: self.count])


BROKEN = {
    "another shape": (lambda: batches((2, (X[:25, :2], Y[:25]))), "batch 2 of epoch 0 must be as the first"),
    "another dtype": (lambda: batches((2, (X[:25], Y[:25].astype(int)))), "batch 2 of epoch 0 must be as the first"),
    "a short batch inside": (lambda: batches((1, (X[:9], Y[:9]))), "batch 1 of epoch 0 must have 25 examples"),
    "a NaN": (lambda: batches((3, (X[:25] * np.nan, Y[:25]))), "batch 3 of epoch 0: x must be finite"),
    "no pair": (lambda: batches((1, X[:25])), "batch 1 of epoch 0 must be (x, y) or (x, y, weight); got ndarray"),
    "not as many": (lambda: batches((1, (X[:25], Y[:24]))), "batch 1 of epoch 0 must have arrays of as many"),
    "raises": (raising, "batch 1 of epoch 0 could not be read: OSError: the disk is gone"),
    "ends early": (Shrinking, "batch 3 of epoch 1 must be there, as in the first pass of 4 batches"),
    "one pass only": (lambda: iter(batches()), "is used up after one; pass what makes a new iterator"),
    "nothing": (lambda: [], "data must give at least one batch"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks_names_the_batch(name):
    make, words = BROKEN[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        train(make(), WHOLE, epochs=3)


def test_a_stream_that_ends_before_its_steps_is_an_error():
    with pytest.raises(ValueError, match="batch 4 of epoch 0 must be there; the stream ended after 4 batches"):
        train(iter(batches()), WHOLE, steps=9)


def test_labels_of_a_stream_are_checked():
    recipe = dataclasses.replace(WHOLE, model=MLP((3, 4, 2)), loss=losses.cross_entropy)
    labels = [(X[:10], np.full(10, int(i == 2) * 5)) for i in range(4)]
    with pytest.raises(ValueError, match="batch 2 of epoch 0: .* must be integers in 0 ... 1"):
        train(labels, recipe)


# Shown and recorded.


def test_plain_lines_go_to_a_pipe_and_nothing_where_nothing_is_asked_for(capsys, monkeypatch):

    monkeypatch.setattr(_progress, "EVERY", 0.0)
    loop.train(KEY, (X, Y), RECIPE, RATE, validation=HELD_OUT, every=3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(len(line) <= 80 for line in lines)
    assert re.fullmatch(r"epoch 6/9  loss [\d.]+  val loss [\d.]+  [\d.]+[kM]? ex/s  0:00 left", lines[1])
    loop.train(KEYS, (X, Y), RECIPE, RATES, every=9)
    assert re.match(r"epoch 9/9  loss best [\d.]+  median [\d.]+  5 alive  0 diverged", capsys.readouterr().err)
    train()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_one_live_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    loop.train(KEY, (X, Y), RECIPE, RATE, every=3)
    shown = capsys.readouterr().err
    assert "\x1b[2K" in shown and "epoch 9/9" in shown and shown.count("\n") == 1


def test_records_hold_the_history(tmp_path):
    writer = records.tensorboard(tmp_path / "board")
    seen = []
    _, history = train(
        directory=tmp_path / "run",
        validation=HELD_OUT,
        every=4,
        callbacks=[writer, lambda state, history: seen.append((int(state.step), len(history["loss"])))],
    )
    assert seen == [(16, 4), (32, 8), (36, 9)]
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal([line["validation_loss"] for line in lines], history["validation_loss"])
    table = np.genfromtxt(tmp_path / "run" / "history.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["loss"], history["loss"], rtol=1e-7)
    assert b"validation_loss" in next((tmp_path / "board").iterdir()).read_bytes()
    records.write_csv(tmp_path / "two.csv", population.fit(KEYS[:2], (X, Y), RECIPE, {"learning_rate": 0.1})[1])
    assert (tmp_path / "two.csv").read_text().splitlines()[0] == "member,epoch,loss"


def test_a_signal_in_the_last_chunk_of_a_part_ends_the_call(tmp_path):
    """A job that is asked to end must not train the parts that are still to come."""
    recipes = [dataclasses.replace(RECIPE, epochs=2), dataclasses.replace(RECIPE, epochs=3)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background may ignore it

    def interrupt(state, history):
        if history["loss"].shape[-1] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    keys = jax.random.split(jax.random.key(1), 2)
    options = {"progress": False, "every": 1, "directory": tmp_path / "run"}
    try:
        with pytest.raises(loop.Interrupted):
            loop.train(keys, (X, Y), recipes, RATE, callbacks=[interrupt], **options)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "run" / "recipe-001").exists()
    _, history = loop.train(keys, (X, Y), recipes, RATE, **options)
    assert history.epochs.tolist() == [2, 3]


def test_a_resume_takes_a_budget_beside_its_rules_and_tells_whose_tables_are(tmp_path):
    keys = jax.random.split(jax.random.key(1), 2)
    tables = np.stack([X, X + 1]), np.stack([Y, Y])
    recipe = dataclasses.replace(RECIPE, epochs=4, batch_size=None)
    options = {"progress": False, "every": 1, "directory": tmp_path / "run"}
    rules = [loop.Halving(2, first=2, by="loss"), loop.Budget(1e-9)]
    loop.train(keys, population.each(*tables), recipe, RATE, stop=rules, **options)
    with pytest.raises(ValueError, match=r"each: saved \['data'\], given \[\]"):
        loop.resume(tmp_path / "run", population.shared(*tables), progress=False)
    _, history = loop.resume(tmp_path / "run", population.each(*tables), stop=loop.Budget(1e-9), progress=False)
    assert history.epochs.tolist() == [2, 2]
    _, history = loop.resume(tmp_path / "run", population.each(*tables), progress=False)
    assert sorted(history.epochs.tolist()) == [2, 4]
    with pytest.raises(ValueError, match="epochs must not make a rung of Halving of the end of the run: at 4 epochs"):
        loop.resume(tmp_path / "run", population.each(*tables), epochs=13, progress=False)


def reference(losses_, patience, least):
    """Return after how many epochs patience ends a run, by the words of its docstring."""
    mark, since = np.inf, 0
    for epoch, loss in enumerate(losses_):
        if loss < mark - least:
            mark, since = loss, epoch
        if epoch - since >= patience:
            return epoch + 1
    return len(losses_)


@pytest.mark.parametrize("least, patience", [(0.0, 2), (0.003, 3), (0.02, 4), (1.0, 3)])
def test_enough_improvement_resets_patience_and_the_least_loss_chooses_the_weights(least, patience):
    rate, options = {"learning_rate": 0.03}, {"validation": HELD_OUT, "epochs": 30}
    _, through = train(hyperparams=rate, **options)
    state, history = train(hyperparams=rate, stop=loop.Patience(patience, least), **options)
    found = history["validation_loss"]
    np.testing.assert_array_equal(found, through["validation_loss"][: len(found)])
    assert len(found) == reference(np.asarray(through["validation_loss"]), patience, np.float32(least))
    loss = jaxmlp.evaluate(state.params, HELD_OUT, RECIPE, RATE)["loss"]
    np.testing.assert_allclose(loss, found.min(), rtol=1e-6)


def test_a_checkpoint_of_a_time_when_patience_counted_from_the_best_epoch_goes_on(tmp_path):
    from jaxmlp._engine.runs import Best, Run
    from jaxmlp.loop._saved import SavedRun

    zero = np.zeros(1, np.int32)
    best = Best((np.ones((1, 2), "f"),), np.full(1, 0.5, "f"), zero + 4, np.full(1, 0.5, "f"), zero + 4)
    run = Run(None, zero, zero, {}, best, None)
    arrays = {"run.status": zero, "run.epochs": zero, "run.best.params.0": best.params[0]}
    arrays |= {"run.best.loss": best.loss, "run.best.epoch": best.epoch}
    same(SavedRun(tmp_path, None, arrays, {}, None, {}).restore(run), run)
