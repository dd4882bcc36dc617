"""What a run is made of, written down, compared, read back and upgraded. Nothing is trained here."""

import copy
import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlp import MLP, Recipe, losses, metrics
from jaxmlp._engine.plan import Layout
from jaxmlp._engine.program import Run
from jaxmlp._engine.stops import Budget, Halving, Patience, Stops, Target
from jaxmlp.loop import _checkpoints, _description, _digest, _saved, _table
from jaxmlp.loop._description import describe, rebuild
from jaxmlp.loop._manifest import Manifest, Seen
from jaxmlp.loop._saving import Place, RunDirectory
from jaxmlp.loop._start import Start
from jaxmlp.optimizers import ClippedCosineAdamW, CosineAdamW, PerLayer

X = np.arange(12, dtype="f").reshape(4, 3)
RECIPE = Recipe(MLP((3, 8, 1)), losses.squared_error, optax.adam, epochs=6, batch_size=2)
RULES = [Patience(3), Halving(2), Target("loss", at_most=0.5), Budget(9.0)]


def manifest(recipe=RECIPE, *, key=None, numbers=None, stop=RULES, width=16, devices=2, data=X, steps=None, **options):
    key = jax.random.split(jax.random.key(0), 4) if key is None else key
    start = Start(key, {"learning_rate": jnp.arange(4.0)} if numbers is None else numbers)
    rules = Stops.of(stop, validation=True, members=True)
    layout = Layout(width, tuple(jax.local_devices()[:devices]))
    return Manifest.of(recipe, start, Seen(_digest.of_data((data, data[:, :1])), options, steps), rules, layout)


def on_disk(value):
    return json.loads(json.dumps(value))


def test_a_manifest_comes_back_from_json():
    for made in (
        manifest(),
        manifest(stop=None, steps=3, validation=(X, X)),
        manifest(key=jax.random.key(1), numbers={}),
    ):
        back = Manifest.from_json(on_disk(made.to_json()))
        assert back == made and back.diff(made) == []
        back.check_same(made, "run")


OTHER_LOSS = dataclasses.replace(RECIPE, loss=losses.huber)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"recipe": dataclasses.replace(RECIPE, epochs=7)}, "recipe.epochs: saved 6, given 7"),
        ({"recipe": dataclasses.replace(RECIPE, model=MLP((3, 9, 1)))}, "recipe.model.sizes: saved [3, 8, 1], given"),
        ({"recipe": OTHER_LOSS}, "recipe.loss.function: saved jaxmlp.losses:squared_error, given jaxmlp.losses:huber"),
        ({"key": jax.random.split(jax.random.key(1), 4)}, "key.sha256: saved "),
        ({"numbers": {"learning_rate": jnp.ones(4)}}, "hyperparams.learning_rate.sha256: saved "),
        ({"numbers": {}}, "hyperparams.learning_rate: saved {'shape': [4]"),
        ({"data": X + 1}, "data.0.sha256: saved "),
        ({"weights": np.ones((4, 4), "f")}, "weights: saved nothing, given "),
        ({"steps": 5}, "steps: saved nothing, given 5"),
        ({"width": 8}, "layout.width: saved 16, given 8"),
        ({"devices": 1}, "layout.devices: saved 2, given 1"),
    ],
)
def test_each_difference_is_a_line(changes, line):
    found = manifest().diff(manifest(**changes))
    assert any(one.startswith(line) for one in found) and len(found) <= 2
    with pytest.raises(
        ValueError, match=re.escape("a run must be resumed with what it began with; here holds another:")
    ):
        manifest().check_same(manifest(**changes), "here")


def test_a_budget_is_a_calls_own():
    assert manifest(stop=[*RULES[:-1], Budget(1.0)]) == manifest() == manifest(stop=RULES[:-1])
    assert manifest().diff(manifest(stop=RULES[1:])) == []  # and other rules are none of another run


def test_another_layout_is_refused_with_the_ways_that_help():
    """A member's bits depend on the width of its block, and on whether there are several devices."""
    several = r"go on with two devices or more, .*use_all_cores\(\) first.*plan=population.plan\(..., width=16\)"
    rounding = r"accept=\('layout',\), after which the numbers are equal up to rounding"
    with pytest.raises(ValueError, match=rf"one device, by loop.resume, .*width=16, devices=1\).*{rounding}"):
        manifest(devices=1).check_same(manifest(), "here")
    for changes in ({"width": 8}, {"devices": 1}):
        with pytest.raises(ValueError, match=f"{several}.*{rounding}"):
            manifest().check_same(manifest(**changes), "here")
        lines = manifest().diff(manifest(**changes))
        assert manifest().check_same(manifest(**changes), "here", frozenset(["layout"])) == lines  # to be warned of
    kind = dataclasses.replace(manifest(), layout={**manifest().layout, "kind": "TPU v4"})
    assert kind.check_same(manifest(), "here") == ["layout.kind: saved TPU v4, given cpu"]
    assert manifest().plan_options() == {"width": 16, "devices": 2}
    more = dataclasses.replace(manifest(), layout={"width": 4, "devices": 1 + len(jax.devices()), "kind": "cpu"})
    assert more.plan_options() == {"width": 4}  # on the devices that are here: the comparison names the layout


def test_more_epochs_are_said_and_nothing_is_changed_in_place():
    made = manifest()
    before = copy.deepcopy(made.to_json())
    longer = made.with_epochs(9)
    assert made.to_json() == before and longer.diff(manifest(dataclasses.replace(RECIPE, epochs=9))) == []
    assert longer.rebuild_recipe().epochs == 9 and made.rebuild_recipe().epochs == 6
    with pytest.raises(ValueError, match="epochs must be at least the 6 of the run; got 5; leave it out for 6"):
        made.with_epochs(5)


# The ways back.


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        dataclasses.replace(RECIPE, optimizer=CosineAdamW(36), metrics=(metrics.rmse,), batch_size=None),
        dataclasses.replace(RECIPE, optimizer=PerLayer(optax.lamb)),
        dataclasses.replace(RECIPE, optimizer=ClippedCosineAdamW(9), loss=functools.partial(losses.huber, delta=0.5)),
        dataclasses.replace(RECIPE, model=MLP((3, 8, 8, 1), "tanh", False, "orthogonal", norm="rms", dropout=True)),
        dataclasses.replace(RECIPE, model=MLP((3, 1), jnp.sin, dtype="bfloat16")),
    ],
)
def test_a_recipe_of_the_houses_parts_comes_back(recipe):
    made = Manifest.from_json(on_disk(manifest(recipe).to_json()))
    back = made.rebuild_recipe()
    assert describe(back) == describe(recipe)
    # Two partials of the same are never equal: jax caches by identity there.
    assert back == recipe or isinstance(recipe.loss, functools.partial)


def test_rules_keys_and_numbers_come_back():
    made = Manifest.from_json(on_disk(manifest().to_json()))
    assert made.rebuild_stop() == [Patience(3, 0.0), Halving(2), Target("loss", None, 0.5)]
    one = {"a": 0.1, "b": 3, "c": np.float32(0.5), "d": jnp.arange(3.0)}
    for start in (
        Start(jax.random.split(jax.random.key(3, impl="rbg"), 4), {"learning_rate": jnp.arange(4.0)}),
        Start(jax.random.key(3), one),
    ):
        made = manifest(key=start.key, numbers=start.hyperparams)
        back = Manifest.from_json(on_disk(made.to_json())).rebuild_start(start.arrays())
        assert back.key.dtype == start.key.dtype and (back.key == start.key).all()
        assert manifest(key=back.key, numbers=back.hyperparams) == made
    # A Python number mixes with any dtype, and stays one.
    assert {name: type(value) for name, value in back.hyperparams.items() if name in "ab"} == {"a": float, "b": int}


# Who is the caller's, and who the house's.


def wrapped(momentum):
    @functools.wraps(optax.sgd)
    def factory(learning_rate):
        return optax.sgd(learning_rate, momentum)

    return factory


def test_a_wrapper_under_anothers_name_is_the_callers():
    """functools.wraps copies __module__ and __qualname__: by these alone it would be optax.sgd."""
    mine = describe(wrapped(0.9))
    assert mine["function"] == "optax._src.alias:sgd" and "code" in mine
    assert describe(optax.sgd) == {"function": "optax:sgd"}
    assert mine != describe(wrapped(0.8)) and mine == describe(wrapped(0.9))
    lines = manifest(dataclasses.replace(RECIPE, optimizer=optax.sgd)).diff(
        manifest(dataclasses.replace(RECIPE, optimizer=wrapped(0.9)))
    )
    assert lines == ["recipe.optimizer.function: saved optax:sgd, given optax._src.alias:sgd"]
    with pytest.raises(ValueError, match="optimizer must be given again: it calls itself optax._src.alias:sgd, and no"):
        rebuild("optimizer", mine)

    @functools.wraps(losses.squared_error)
    def twice(outputs, targets):
        return 2 * losses.squared_error(outputs, targets)

    assert describe(twice)["function"] == describe(losses.squared_error)["function"] and "code" in describe(twice)
    assert "code" in describe(jax.jit(twice))


@pytest.mark.parametrize("module", [losses, metrics, jax.nn, jax.nn.initializers, optax], ids=lambda m: m.__name__)
def test_functions_of_the_house_are_found_by_name(module):
    """All that are listed: an alias or a wrapper of their own making must not look like the caller's."""
    listed = {name: getattr(module, name) for name in dict(_table.MODULES)[module].split() if hasattr(module, name)}
    assert len(listed) >= 9
    told = {name: describe(function) for name, function in listed.items()}
    strange = {name: value for name, value in told.items() if set(value) != {"function"}}
    assert all(rebuild(name, value) is listed[name] for name, value in told.items() if name not in strange)
    assert not [name for name, value in strange.items() if "<locals>" not in value["function"]]


def test_a_function_that_jax_makes_is_told_by_its_code_and_an_older_checkpoint_does_not_mind():
    he, lecun = jax.nn.initializers.he_normal(), jax.nn.initializers.lecun_normal()
    assert describe(he)["function"] == describe(lecun)["function"] and describe(he) != describe(lecun)
    old = {"function": describe(he)["function"]}  # what was written before
    assert _description.differences(old, describe(he), "init") == []
    assert _description.differences(describe(lecun), describe(he), "init") != []


@pytest.mark.parametrize(
    "name", ["os:system", "jaxmlp._engine.devices:os.system", "jaxmlp._check:importlib.import_module"]
)
def test_a_name_from_a_file_leads_nowhere_else(name):
    with pytest.raises(ValueError, match="is not of jaxmlp, Optax or JAX, and is not looked for; pass recipe="):
        rebuild("loss", {"function": name})


def test_digests_are_of_bytes_and_of_mapped_files_by_samples(tmp_path):
    assert _digest.of_array(X)["sha256"] == _digest.of_array(np.asfortranarray(X))["sha256"]
    assert _digest.of_array(X) != _digest.of_array(X.astype("f8")) and _digest.of_data(None) is None
    np.save(tmp_path / "x.npy", np.zeros(_digest.SAMPLES * _digest.BLOCK + 1, np.uint8))
    large = np.load(tmp_path / "x.npy", mmap_mode="r+")
    before = _digest.of_array(large)
    large[0] = 1
    assert before != _digest.of_array(large)


# Checkpoints of an earlier version, by the letter.

OLD = """{"recipe": {"type": "jaxmlp:Recipe", "model": {"type": "jaxmlp:MLP", "sizes": [3, 8, 3], "activation": "tanh",
"bias": false, "init": "orthogonal", "dropout": false, "norm": null, "residual": false, "dtype": null,
"param_dtype": null, "scan": false}, "loss": {"function": "jaxmlp.losses:cross_entropy"}, "optimizer": {"type":
"jaxmlp.optimizers:CosineAdamW", "steps": 30, "warmup": 0.05}, "epochs": 6, "batch_size": 20, "metrics": []}, "key":
{"impl": "threefry2x32", "single": true, "shape": [2], "dtype": "uint32", "sha256":
"4e65285e650a360f443a4924e7caee49"}, "hyperparams": {"learning_rate": 0.01}, "data": {"0": {"shape": [90, 3], "dtype":
"float32", "sha256": "6e8459f42076e1aefc42fa5143d3b121"}}, "validation": null, "weights": null, "rows": null,
"validation_rows": null, "stop": {"patience": {"epochs": 3, "min_improvement": 0.0}, "halving": {"factor": 3, "first":
2, "by": "validation_loss"}, "loss": {"at_least": null, "at_most": 0.5}}, "steps": null, "layout": {"width": 1,
"devices": 1, "kind": "cpu"}}"""


def test_an_old_manifest_is_read_in_the_words_of_today():
    """The initializer of an MLP was called "init"."""
    old = Manifest.from_json(json.loads(OLD))
    recipe = Recipe(
        MLP((3, 8, 3), "tanh", False, "orthogonal"), losses.cross_entropy, CosineAdamW(30), epochs=6, batch_size=20
    )
    assert old.rebuild_recipe() == recipe and old.recipe == on_disk(describe(recipe))
    assert old.rebuild_stop() == [Patience(3, 0.0), Halving(3, 2), Target("loss", None, 0.5)]
    now = Manifest.of(
        recipe,
        Start(jax.random.key(7), {"learning_rate": 1e-2}),
        Seen(old.data, {}),
        Stops.of(old.rebuild_stop(), validation=True, members=True),
        Layout(1, (jax.local_devices()[0],)),
    )
    assert old.diff(now) == []
    assert Manifest.from_json(on_disk(old.to_json())) == old


def test_an_upgrade_leaves_others_alone_and_fills_in_what_was_added():
    assert _description.upgrade({"type": "mine:Net", "init": "zeros"}) == {"type": "mine:Net", "init": "zeros"}
    shorter = {name: value for name, value in describe(RECIPE).items() if name not in ("batch_size", "metrics")}
    assert _description.upgrade(shorter) == {**describe(RECIPE), "batch_size": None, "metrics": []}


# The directory. Runs are trees of arrays here.


def runs(epochs, done, value=1.0):
    history = np.full((4, epochs), np.nan, "f")
    history[:, :done] = np.arange(done) + value
    return Run(
        {"params": [{"w": np.full((4, *shape), value, "f")} for shape in ((3, 8), (8, 1))]},
        *(np.zeros(4, "i"), np.full(4, done, "i"), {"loss": history}, None, None),
    )


def shapes(tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def test_a_run_directory_gives_back_what_was_saved(tmp_path):
    made, start = manifest(), Start(jax.random.split(jax.random.key(0), 4), {"learning_rate": jnp.arange(4.0)})
    with RunDirectory(tmp_path) as directory:
        assert directory.recover() is None
        directory.begin(made, start)
        for done in (2, 4):
            directory.save(runs(6, done), Place(done, done, {"epoch": done}), 2)
        directory.wait()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with RunDirectory(tmp_path) as directory:
        saved = directory.recover()
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before  # whoever reads writes nothing
    assert (saved.where, saved.every, saved.manifest) == ({"epoch": 4}, 2, made)
    saved.check(made)
    assert (saved.start().key == start.key).all()
    for found, wanted in zip(
        jax.tree.leaves(saved.restore(shapes(runs(6, 4)))), jax.tree.leaves(runs(6, 4)), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    longer = saved.with_epochs(9)
    longer.check(manifest(dataclasses.replace(RECIPE, epochs=9)))
    np.testing.assert_array_equal(longer.restore(shapes(runs(9, 4))).history["loss"], runs(9, 4).history["loss"])
    other = shapes(runs(6, 4))._replace(
        state={"params": [{"w": jax.ShapeDtypeStruct((4, 3, 5), "f")}], "m": jax.ShapeDtypeStruct((4,), "f")}
    )
    with pytest.raises(
        ValueError, match=r"holds others:\n  run.state.m: saved nothing, given float32\(\)\n  run.state.params.0.w"
    ):
        saved.restore(other)


def test_two_directories_at_once_share_nothing(tmp_path):
    start = Start(jax.random.split(jax.random.key(0), 4), {"learning_rate": jnp.arange(4.0)})
    with RunDirectory(tmp_path / "0") as one, RunDirectory(tmp_path / "1") as other:
        one.begin(manifest(), start)
        other.begin(manifest(OTHER_LOSS), start)
        one.save(runs(6, 2), Place(2, 2, {}), None)
        other.save(runs(6, 3, 5.0), Place(3, 3, {}), None)
    for name, made, count in (("0", manifest(), 2), ("1", manifest(OTHER_LOSS), 3)):
        with RunDirectory(tmp_path / name) as directory:
            assert directory.recover().manifest == made
        assert len((tmp_path / name / "history.jsonl").read_text().splitlines()) == 4 * count


def test_the_store_keeps_the_newest_and_the_lowest_score(tmp_path):
    store = _checkpoints.Checkpoints(tmp_path, keep=2)
    done = []
    for number, score in enumerate([3.0, 1.0, None, 2.0, 5.0]):
        store.save(number, {"a": np.arange(3)}, {"mine": number}, score=score, first=lambda n=number: done.append(n))
    store.wait()
    assert store.numbers() == [1, 3, 4] and done == [0, 1, 2, 3, 4]
    assert store.meta(4) == {"format": 1, "mine": 4, "score": 5.0}
    np.testing.assert_array_equal(store.recover().arrays["a"], np.arange(3))
    store.close()


def test_other_versions_are_named(tmp_path):
    made = manifest()
    saved = _saved.SavedRun(tmp_path, made, {}, {}, None, {**_saved.versions(), "jax": "0.1"})
    with pytest.warns(UserWarning, match=r"version.jax: saved 0.1, given .*: the run goes on, but only equal versions"):
        saved.check(made)
