"""A population on machines that never talk: parts in directories of their own, gathered to the bits of one machine."""

import copy
import dataclasses
import json
import pickle
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp import MLP, Recipe, loop, losses, population
from jaxmlp.loop import _folder, _hidden
from jaxmlp.population import Halving, Patience

pytestmark = pytest.mark.bits
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype("f")
Y = np.sin(X[:, :1])
DATA, HELD_OUT = (X, Y), (X[:8], Y[:8] + 0.3)
RECIPE = Recipe(MLP((3, 4, 1), "tanh"), losses.squared_error, optax.adam, epochs=6, batch_size=8)
COUNT = 7
KEYS = jax.random.split(jax.random.key(1), COUNT)
# Member 1 diverges at once; those that learn fast lose their patience.
RATES = {"learning_rate": np.array([0.01, 1e25, 0.5, 0.02, 1.0, 0.1, 0.3], "f")}
HOW = dict(validation=HELD_OUT, stop=Patience(1))


def train(keys, hyperparams, directory=None, recipe=RECIPE, data=DATA, **options):
    return loop.train(keys, data, recipe, hyperparams, directory=directory, progress=False, **{**HOW, **options})


def parts(root, of, keys=KEYS, hyperparams=RATES, numbers=None, **options):
    """Train parts in directories below the root, and return these."""
    for number in range(of) if numbers is None else numbers:
        train(*population.part(keys, hyperparams, of=of, number=number), root / f"part-{number}", **options)
    return [root / f"part-{number}" for number in range(of)]


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def contents(root):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in sorted(root.rglob("*"))}


def rewritten(directory, **words):
    """Give words of the newest checkpoint in a directory other values."""
    folder = max(path for path in directory.iterdir() if path.name.isdecimal())
    told = json.loads((folder / "run.json").read_text())
    for name, value in words.items():
        place, *inner = told, *name.split("__")
        for step in inner[:-1]:
            place = place[step]
        place[inner[-1]] = value
    (folder / "run.json").write_text(json.dumps(told))
    (folder / "SHA256SUMS").write_text(_folder.sums(folder))


@pytest.fixture(scope="module")
def whole():
    return train(KEYS, RATES)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The directory of the three parts; tests copy what they change."""
    root = tmp_path_factory.mktemp("three")
    parts(root, 3)
    return root


# Which members.


@given(st.integers(1, 40), st.data())
def test_parts_are_disjoint_and_complete_and_differ_by_a_member_at_most(count, drawn):
    of = drawn.draw(st.integers(1, count))
    keys = jax.random.wrap_key_data(np.arange(2 * count, dtype=np.uint32).reshape(count, 2))
    rates = np.arange(count, dtype="f")
    found = [population.part(keys, {"learning_rate": rates}, of=of, number=r) for r in range(of)]
    assert sorted(np.concatenate([part.members for part in found])) == list(range(count))
    sizes = [len(part.members) for part in found]
    assert max(sizes) - min(sizes) <= 1
    for r, part in enumerate(found):
        assert (part.of, part.number, part.members[0]) == (of, r, r)
        np.testing.assert_array_equal(part.hyperparams["learning_rate"], rates[part.members])
        np.testing.assert_array_equal(jax.random.key_data(part.keys), jax.random.key_data(keys)[part.members])


def test_every_form_of_hyperparams_is_cut():
    tree = {"w": np.arange(COUNT * 2.0).reshape(COUNT, 2)}
    given = {"a": 0.5, "b": list(range(COUNT)), "c": population.each(tree), "d": population.shared(np.ones(COUNT))}
    _, found = population.part(KEYS, given, of=3, number=1)
    assert found["a"] == 0.5 and list(found["b"]) == [1, 4] and found["d"] is given["d"]
    np.testing.assert_array_equal(found["c"].data["w"], tree["w"][[1, 4]])
    rows = [{"a": i / 10} for i in range(COUNT)]
    np.testing.assert_array_equal(population.part(KEYS, rows, of=3, number=1)[1]["a"], np.array([0.1, 0.4], "f"))
    assert population.part(KEYS, of=3, number=1).hyperparams == {}
    _, design = population.grid(a=[0.1, 0.2, 0.3])
    assert population.part(KEYS[:3], design, of=3, number=2)[1]["a"].tolist() == design["a"][2:].tolist()


def test_the_hyperparams_of_a_part_stay_those_of_the_part():
    part = population.part(KEYS, RATES, of=3, number=2)
    numbers = part.hyperparams
    for copied in (copy.copy(numbers), copy.deepcopy(numbers), numbers.copy(), pickle.loads(pickle.dumps(numbers))):
        assert copied.portion == numbers.portion and list(copied) == ["learning_rate"]
    mapped = jax.tree.map(jnp.asarray, part)
    assert mapped.hyperparams.portion == numbers.portion and mapped.members.tolist() == [2, 5]
    for change in (
        lambda: numbers.update(a=1),
        lambda: numbers | {"a": 1},
        lambda: {"a": 1} | numbers,
        lambda: numbers.__setitem__("a", 1),
        lambda: numbers.pop("learning_rate"),
    ):
        with pytest.raises(ValueError, match=r"hyperparams of a part must stay as they were cut.*population\.part"):
            change()


# The bits of one machine.


def test_population_fit_takes_a_part(whole):
    part = population.part(KEYS, RATES, of=3, number=1)
    states, history = population.fit(part.keys, DATA, RECIPE, part.hyperparams, **HOW)
    same(
        [states, dict(history)],
        [population.take(whole[0], part.members), population.take(dict(whole[1]), part.members)],
    )


def test_three_parts_are_the_whole_and_their_directories_stay_as_they_are(three, whole):
    status = whole[1].status.tolist()
    assert status[1] == 2 and 1 in status and 0 in status  # diverged, stopped and finished
    before = contents(three)
    states, history = population.gather(three)
    assert contents(three) == before
    same((states, history), whole)
    assert isinstance(states.params[0].w, np.ndarray) and list(history) == list(whole[1])
    same(population.gather([three / f"part-{i}" for i in (2, 0, 1)]), whole)
    same(population.gather(iter([str(three)])), whole)
    with pytest.warns(UserWarning, match="1 of 7 members diverged"):
        same(population.best(states, history)[0], population.best(*whole)[0])


@pytest.mark.parametrize("of", [1, 2])
def test_any_number_of_parts_is_the_whole(of, whole, tmp_path):
    same(population.gather(parts(tmp_path, of)), whole)


def test_parts_in_waves_are_the_whole(tmp_path):
    how = {"recipe": dataclasses.replace(RECIPE, optimizer=optax.sgd, batch_size=None), "validation": None}
    how["stop"] = Patience(1, by="loss")
    rates = {"learning_rate": np.array([0.01, 1e30, 0.5, 0.02, 9.0, 0.1, 0.3], "f")}

    def plan(keys, wave):
        chosen = population.plan(keys, DATA, how["recipe"], {"learning_rate": 0.1}, width=2, devices=1)
        return dataclasses.replace(chosen, wave=wave)

    one = train(KEYS, rates, plan=plan(KEYS, 8), **how)
    assert sorted(set(one[1].status.tolist())) == [0, 1, 2]
    for number, wave in enumerate((2, 4)):
        part = population.part(KEYS, rates, of=2, number=number)
        train(*part, tmp_path / f"part-{number}", plan=plan(part.keys, wave), **how)
    assert (tmp_path / "part-0" / "wave-001").is_dir() and not (tmp_path / "part-1" / "wave-001").exists()
    same(population.gather(tmp_path), one)
    shutil.rmtree(tmp_path / "part-0" / "wave-001")
    with pytest.raises(ValueError, match="part 0 in .*part-0 has 2 of its 4 members"):
        population.gather(tmp_path)


class Killed(Exception):
    pass


def killed(state, history):
    if history["loss"].shape[1] >= 2:
        raise Killed


def test_a_part_that_was_cut_short_is_taken_over_and_one_that_is_lost_trained_anew(whole, tmp_path):
    directories = parts(tmp_path, 3, numbers=[0, 2])
    part = population.part(KEYS, RATES, of=3, number=1)
    with pytest.raises(Killed):
        train(*part, tmp_path / "part-1", every=1, callbacks=[killed])
    with pytest.raises(ValueError) as caught:
        population.gather(directories)
    assert f"part 1 in {tmp_path / 'part-1'} is at epoch 2 of 6" in str(caught.value)
    assert "the same call of loop.train goes on from there, on any machine that has the directory" in str(caught.value)
    other = tmp_path / "of another machine"
    shutil.copytree(tmp_path / "part-1", other)
    shutil.rmtree(tmp_path / "part-1")
    with pytest.raises(ValueError) as caught:
        population.gather(directories)
    cut = "keys, hyperparams = population.part(keys, hyperparams, of=3, number=1)"
    assert f"part 1 is not there\n    train it, by loop.train on any machine with {cut}" in str(caught.value)
    train(*part, other, every=1)
    (tmp_path / "logs" / "00000001").mkdir(parents=True)  # what else lies there is none of it
    (tmp_path / "logs" / "00000001" / "run.json").write_text("{}")
    (tmp_path / "array-1.out").write_text("epoch 2 of 6")
    same(population.gather(tmp_path), whole)  # taken over
    shutil.rmtree(other)
    train(*part, tmp_path / "part-1")
    same(population.gather(directories), whole)  # trained anew


def test_resume_goes_on_with_a_part(whole, tmp_path):
    with pytest.raises(Killed):
        train(*population.part(KEYS, RATES, of=3, number=1), tmp_path / "part-1", every=1, callbacks=[killed])
    loop.resume(tmp_path / "part-1", DATA, validation=HELD_OUT, progress=False)
    same(population.gather(parts(tmp_path, 3, numbers=[0, 2])), whole)
    with pytest.raises(ValueError, match="Halving must compare all members; part 1 of 3 has 2 of 7"):
        loop.resume(tmp_path / "part-1", DATA, validation=HELD_OUT, stop=Halving(), progress=False)


def shifted(outputs, targets, *, shift, scale):
    return losses.squared_error(outputs * scale["by"], targets + shift)


def moved(outputs, targets, *, shift):
    return losses.squared_error(outputs, targets + shift)


def test_what_is_each_members_own_is_cut_by_the_members(tmp_path):
    """Tables, weights and rows, trees of numbers, and a list of dicts; of the caller's own loss the recipe is given."""
    x, y = np.stack([X + i for i in range(COUNT)]), np.stack([Y] * COUNT)
    weights = RNG.uniform(0.5, 1, size=(COUNT, len(X))).astype("f")
    rows = np.stack([RNG.permutation(len(X))[:16] for _ in range(COUNT)])
    trees = {"learning_rate": 0.1, "scale": population.shared({"by": np.float32(2)})}
    trees["shift"] = RNG.normal(size=COUNT).astype("f")
    listed = [{"learning_rate": 0.1, "shift": i / 10} for i in range(COUNT)]
    begun = jax.tree.map(np.asarray, jax.vmap(RECIPE.model.init)(KEYS[::-1]))
    cases = [(shifted, trees, {"weights": weights}), (moved, listed, {"rows": rows, "params": begun})]
    for loss, hyperparams, own in cases:
        recipe = dataclasses.replace(RECIPE, loss=loss, epochs=1, batch_size=None)
        how = {"recipe": recipe, "stop": None, "validation": None}
        each = loss is shifted
        one = train(KEYS, hyperparams, data=population.each(x, y) if each else DATA, **how, **own)
        root = tmp_path / loss.__name__
        for number in range(2):
            part = population.part(KEYS, hyperparams, of=2, number=number)
            mine = population.each(x[part.members], y[part.members]) if each else DATA
            cut = {name: population.take(table, part.members) for name, table in own.items()}
            train(*part, root / f"{number}", data=mine, **how, **cut)
        same(population.gather(root, recipe), one)
        with pytest.raises(ValueError, match=r"recipe\.loss must be given again: .* pass recipe="):
            population.gather(root)
        with pytest.raises(ValueError, match=r"recipe must be the one that the parts were .*\n  run\.state\.params"):
            population.gather(root, dataclasses.replace(recipe, model=MLP((3, 5, 1))))


def test_parts_read_mapped_files_in_the_order_of_the_whole(tmp_path):
    for name, table in (("x", X), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", table)
    data = tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    one = train(KEYS, RATES, data=data)
    parts(tmp_path / "runs", 2, data=data)
    same(population.gather(tmp_path / "runs"), one)


# What is refused.


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (dict(of=3, number=0), "part.number: saved 1, given 0"),
        (dict(of=4, number=1), "part.of: saved 3, given 4"),
        (dict(of=3, number=1, keys=jnp.concatenate([KEYS[:6], KEYS[:1]])), "part.keys: saved"),
        (dict(of=3, number=1, hyperparams={"learning_rate": 0.1}), "part.hyperparams: saved"),
    ],
)
def test_a_directory_takes_no_other_part(three, changed, line):
    changed = {"keys": KEYS, "hyperparams": RATES, **changed}
    with pytest.raises(ValueError, match=f"must be resumed with what it began with; .*part-1(.|\n)*{line}"):
        train(*population.part(**changed), three / "part-1")


def test_a_directory_of_a_part_takes_no_plain_members_and_the_other_way_round(three, tmp_path):
    part = population.part(KEYS, RATES, of=3, number=1)
    with pytest.raises(ValueError, match="part: saved {'of': 3, .*, given nothing"):
        train(part.keys, dict(part.hyperparams), three / "part-1")
    train(part.keys, dict(part.hyperparams), tmp_path / "part-1")
    with pytest.raises(ValueError, match="part: saved nothing, given {'of': 3"):
        train(*part, tmp_path / "part-1")
    with pytest.raises(ValueError, match="must hold parts of a population; the run in .*part-1 is no part of one"):
        population.gather(tmp_path)


def test_numbers_that_were_accepted_anew_are_those_of_another_whole(three, tmp_path):
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "part-0")
    with pytest.raises(Killed):
        train(*population.part(KEYS, RATES, of=3, number=0), tmp_path / "part-0", every=1, callbacks=[killed])
    part = population.part(KEYS, {"learning_rate": np.full(COUNT, 0.1, "f")}, of=3, number=0)
    with pytest.raises(ValueError, match=r"pass accept=\('hyperparams',\)"):
        train(*part, tmp_path / "part-0")
    train(*part, tmp_path / "part-0", accept="hyperparams")
    with pytest.raises(ValueError, match="parts must be of one population(.|\n)*part.hyperparams: saved"):
        population.gather(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(of=8, number=0), r"of must be at most the 7 members, since a part of none trains nothing; got 8; start"),
        (dict(of=0, number=0), r"of must be a positive int; got 0"),
        (dict(of=3, number=3), r"number must be an int in 0 \.\.\. 2, which of 3 parts; got 3"),
        (dict(of=3, number="1"), r"number must be an int in 0 .* got '1'; pass int\('1'\)"),
        (dict(of=3, number=True), r"number must be an int in 0 .* got True"),
        (dict(of=3, number=0, keys=jax.random.key(0)), r"keys must be typed keys of shape \(members,\)"),
        (dict(of=3, number=0, hyperparams={"a": np.ones(3)}), r"hyperparams\['a'\] must have one entry for each of 7"),
        (dict(of=3, number=0, hyperparams=3), r"hyperparams must be a dict"),
        (
            dict(of=3, number=0, hyperparams={"a": 1, None: 2}),
            r"hyperparams must name their numbers by texts; got \['a'",
        ),
    ],
)
def test_what_cannot_be_cut(wrong, message):
    with pytest.raises(ValueError, match=message):
        population.part(**{"keys": KEYS, "hyperparams": RATES, **wrong})


def test_a_part_is_not_cut_again_nor_trained_as_something_else(tmp_path):
    part = population.part(KEYS, RATES, of=3, number=0)
    with pytest.raises(ValueError, match=r"these are of part 0 of 3; cut the whole once, with of=6 for more parts"):
        population.part(*part, of=2, number=0)
    with pytest.raises(ValueError, match="hyperparams of a Part must be those that population.part cut"):
        _ = part._replace(hyperparams={}).members
    for call in (
        lambda stop: train(*part, stop=stop),
        lambda stop: population.fit(part[0], DATA, RECIPE, part[1], stop=stop),
    ):
        with pytest.raises(ValueError, match=r"Halving must compare all members; part 0 of 3 has 3 of 7; stop"):
            call(Halving(2, by="loss"))
    for keys in (KEYS, KEYS[0]):
        with pytest.raises(ValueError, match="keys must be the 3 of part 0 of 3, whose hyperparams these are"):
            train(keys, part.hyperparams)
    with pytest.raises(ValueError, match="recipe must be one Recipe for a part that is saved"):
        train(*part, tmp_path, recipe=[RECIPE] * 3)
    train(*part, recipe=[RECIPE] * 3)  # what is not saved need not be gathered


def test_gathering_needs_the_extra(three, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxmlp\[checkpoint\]'"):
        population.gather(three)


def test_what_cannot_be_gathered(three, tmp_path):
    for wrong, message in [
        ([], "directories must hold what loop.train saved of a population's parts; got none were given"),
        (tmp_path / "nowhere", "saved of a population's parts; got .*nowhere; train each part"),
        (tmp_path, "saved of a population's parts; got .*; train each part in a directory"),
        (3, "directories must be a list of paths, or the path of the folder that holds them; got int 3"),
        (jax.random.key(0), "directories must be a list of paths, or the path of the folder that holds them; got key"),
        ([3], "directories must be a str or a pathlib.Path; got int 3"),
        ([three / "part-1", three], "each part must be there once; part 1 is in .*part-1 and .*part-1"),
        (
            [three / "part-1", tmp_path],
            "parts 0 and 2 are not there\n +train each, as 0, by(.|\n)*of=3, number=0(.|\n)*nothing is saved in",
        ),
        (three / "part-1", "directories must hold all 3 parts .from 0., trained to their end:\n  parts 0 and 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            population.gather(wrong)
    with pytest.raises(ValueError, match="recipe must be one Recipe, or None for the saved one"):
        population.gather(three, [RECIPE])
    train(KEYS, RATES, tmp_path / "several", recipe=[RECIPE] * COUNT)
    with pytest.raises(ValueError, match="must hold members of one recipe; .*several has several"):
        population.gather(tmp_path)
    with pytest.raises(ValueError, match="is no part of one"):
        population.gather(tmp_path / "several" / "recipe-000")


def test_parts_that_were_not_trained_alike_are_told_apart(three, tmp_path):
    other = tmp_path / "other"
    recipe = dataclasses.replace(RECIPE, loss=losses.huber, epochs=1)
    train(*population.part(KEYS, RATES, of=3, number=1), other, recipe=recipe)
    together = [three / "part-0", other, three / "part-2"]
    told = "recipe.loss.function: saved .*, given .*huber(.|\n)*recipe.epochs: saved 6, given 1"
    with pytest.raises(ValueError, match=f"parts must be trained alike; what .*part-0 saved and what .*\n  {told}"):
        population.gather(together)
    for words, line in [
        ({"run__data__0__sha256": "0"}, "data.0.sha256: saved .*, given 0"),
        ({"run__validation": None}, "validation: saved .*, given nothing"),
        ({"run__stop__patience__epochs": 2}, "stop.patience.epochs: saved 1, given 2"),
        ({"run__program__options__jax_enable_x64": True}, "options.jax_enable_x64: saved False, given True"),
    ]:
        shutil.rmtree(other)
        shutil.copytree(three / "part-1", other)
        rewritten(other, **words)
        with pytest.raises(ValueError, match=f"parts must be trained alike; what .*part-0 saved and what .*\n  {line}"):
            population.gather(together)
    rewritten(other, run__part__of=4)
    with pytest.raises(ValueError, match="parts must be of one population; (.|\n)*part.of: saved 3, given 4"):
        population.gather(together)


def test_other_machines_and_versions_are_warned_of(three, whole, tmp_path):
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    rewritten(tmp_path / "part-1", versions__jax="0.0.1")
    rewritten(tmp_path / "part-2", run__layout__kind="TPU v4")
    now = re.escape(_hidden.version("jax"))
    with (
        pytest.warns(UserWarning, match=f"version.jax: {now} in .*part-0, 0.0.1 in .*part-1: the parts are gathered"),
        pytest.warns(UserWarning, match="layout.kind: cpu in .*part-0, TPU v4 in .*part-2: .* only equal devices"),
    ):
        same(population.gather(tmp_path), whole)


def test_a_part_of_other_keys_than_it_says_is_found_out(three, tmp_path):
    """What a caller swaps between cutting and training has no place in the whole."""
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "part-1")
    part = population.part(KEYS, RATES, of=3, number=1)
    train(KEYS[:2], part.hyperparams, tmp_path / "part-1")
    with pytest.raises(ValueError, match="keys of all parts together must be those that population.part cut"):
        population.gather(tmp_path)
    shutil.rmtree(tmp_path / "part-1")
    train(part.keys, jax.tree.map(lambda a: a * 2, part.hyperparams), tmp_path / "part-1")
    with pytest.raises(ValueError, match="hyperparams of all parts together must be those that population.part cut"):
        population.gather(tmp_path)


def test_damage_is_named_and_nothing_is_changed(three, tmp_path):
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    (folder,) = [path for path in (tmp_path / "part-1").iterdir() if path.name.isdecimal()]
    shutil.copytree(folder, folder.with_name("00000009"))
    (folder.with_name("00000009") / "run.json").write_text("{}")
    before = contents(tmp_path)
    with pytest.warns(UserWarning, match="00000009 is damaged and is not used; .*run.json has changed; nothing was"):
        population.gather(tmp_path)
    (folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="must hold a whole checkpoint, or none; .*part-1 has 2, and each is damaged"):
        population.gather(tmp_path)
    (folder / "run.json").write_bytes(before[folder / "run.json"][1])
    assert contents(tmp_path).keys() == before.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"of": 0}, "run.part.of of the checkpoint must be an integer in 1"),
        ({"number": 5}, "part of the checkpoint must be one of a population"),
        ({"count": 10**15}, "of one population"),
        ({"count": -1}, "run.part.count of the checkpoint must be an integer in 1"),
        ({"first": [1, 2, 3]}, "run.part.first of the checkpoint must be a key, 2 integers"),
        ({"keys": 3}, "run.part.keys of the checkpoint must be a string"),
    ],
)
def test_words_of_a_part_that_no_run_wrote(three, tmp_path, words, message):
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    for number in (0, 1, 2) if "first" in words else (1,):
        rewritten(tmp_path / f"part-{number}", **{f"run__part__{name}": value for name, value in words.items()})
    with pytest.raises(ValueError, match=message):
        population.gather(tmp_path)


def test_a_checkpoint_of_before_there_were_parts_is_read(tmp_path):
    train(KEYS, RATES, tmp_path)
    (folder,) = [path for path in tmp_path.iterdir() if path.name.isdecimal()]
    told = json.loads((folder / "run.json").read_text())
    assert told["run"].pop("part") is None
    (folder / "run.json").write_text(json.dumps(told))
    (folder / "SHA256SUMS").write_text(_folder.sums(folder))
    same(train(KEYS, RATES, tmp_path), train(KEYS, RATES))
