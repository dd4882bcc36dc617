"""Streams resumed: the same batches again from any place, or a refusal that names the first that differs."""

import dataclasses
import itertools
import json
import re
import shutil

import jax
import numpy as np
import optax
import pytest

from jaxmlp import MLP, Recipe, loop, losses
from jaxmlp.loop.streams import Position, accepting
from jaxmlp.loop.streams._loader import Batches
from jaxmlp.loop.streams._trail import MARKS, Trail

ROWS = np.arange(20, dtype=np.float32)[:, None]


def pairs(rows, size=3):
    return [(rows[i : i + size], -rows[i : i + size]) for i in range(0, len(rows), size)]


class Shuffling:
    """As PyTorch's DataLoader(shuffle=True, generator=torch.Generator().manual_seed(seed)): one order after another."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def __iter__(self):
        return iter(pairs(ROWS[self.rng.permutation(len(ROWS))]))


class Noisy(Shuffling):
    """Draws for each batch, as augmentation does."""

    def __iter__(self):
        for x, y in pairs(ROWS):
            yield x + self.rng.normal(size=x.shape).astype("f"), y


class Sampler:
    """As PyTorch's DistributedSampler: an order for each number that `set_epoch` tells."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(np.random.default_rng(self.epoch).permutation(len(ROWS)))


class Sampled:
    """As PyTorch's DataLoader(sampler=...), or of a `batch_sampler` or data that are told the number."""

    def __init__(self, part):
        self.order = Sampler()
        outer = type("BatchSampler", (), {"sampler": self.order})() if part == "batch_sampler" else self.order
        setattr(self, part, outer)

    def __iter__(self):
        return iter(pairs(ROWS[list(self.order)]))


class Same:
    """Gives equal passes, and says nothing of it; counts what is read."""

    def __init__(self):
        self.read = 0

    def __iter__(self):
        for batch in pairs(ROWS):
            self.read += 1
            yield batch


class EqualAtFirst(Same):
    """The first three passes are equal, and no other."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter(pairs(np.roll(ROWS, max(0, self.passes - 3))))


class Growing(Same):
    """Each pass is longer than the one before."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter(pairs(ROWS[: min(20, 6 * self.passes)]))


class Stored(Same):
    """Keeps the state of its iterators to itself: passes differ, and so the states alone do not tell them."""

    def __iter__(self):
        self.number = getattr(self, "number", 0) + 1
        return Stateful(self.number)


class Stateful:
    def __init__(self, number):
        self.order, self.at = np.random.default_rng(number).permutation(len(ROWS)), 0

    def __iter__(self):
        return self

    def __next__(self):
        self.at += 1
        if self.at > 6:
            raise StopIteration
        rows = ROWS[self.order[3 * self.at - 3 : 3 * self.at]]
        return rows, -rows

    def get_state(self):
        return {"at": self.at}

    def set_state(self, state):
        self.at = state["at"]


def reusing():
    """Gives its batches in one piece of memory."""
    x, y = np.empty((3, 1), "f"), np.empty((3, 1), "f")

    class Reusing:
        def __iter__(self):
            for a, b in pairs(ROWS[:18]):
                x[...], y[...] = a, b
                yield x, y

    return Reusing()


MADE_ANEW = {
    "shuffling": Shuffling,
    "noisy": Noisy,
    "sampler": lambda: Sampled("sampler"),
    "batch sampler": lambda: Sampled("batch_sampler"),
    "data told": lambda: Sampled("dataset"),
    "equal": Same,
    "equal at first": EqualAtFirst,
    "growing": Growing,
    "states of a part": Stored,
    "a list": lambda: pairs(ROWS),
    "reused memory": reusing,
}


def stacks(source, epochs=4, every=2, steps=None, after=None):
    """Return stacks from the beginning, or after one of an earlier call, whose state went through a file."""
    start, state = (Position(), {}) if after is None else (after.after, json.loads(json.dumps(after.state)))
    return list(Batches(source, None, steps).stacks(start, epochs, every, state))


def told(found):
    return [(s.first, s.taken, s.after, s.state, [a[: s.taken].tobytes() for a in s.batches]) for s in found]


@pytest.mark.parametrize("name", MADE_ANEW)
def test_a_loader_made_anew_gives_the_same_from_each_place(name):
    make = MADE_ANEW[name]
    straight = stacks(make())
    assert {s.after.step for s in straight} > {0}
    for i, stack in enumerate(straight):
        assert told(stacks(make(), after=stack)) == told(straight[i + 1 :])
    longer = stacks(make(), epochs=6)  # a run that is made longer goes on where the shorter one ended
    assert told(stacks(make(), epochs=6, after=straight[-1])) == told(longer[len(straight) :])


@pytest.mark.parametrize("make", [Shuffling, Noisy, Same, lambda: iter(pairs(ROWS))])
def test_one_pass_for_all_epochs_is_read_again_from_its_beginning(make):
    straight = stacks(make(), 3, steps=2)
    for i, stack in enumerate(straight):
        assert told(stacks(make(), 3, steps=2, after=stack)) == told(straight[i + 1 :])


def test_memory_that_is_used_again_is_copied_in_time():
    (first, *_) = stacks(reusing(), every=None)
    np.testing.assert_array_equal(first.batches[0][: first.taken].reshape(-1, 1), ROWS[:18])


def test_passes_that_nobody_numbers_are_read_again_all():
    """That they were equal so far says nothing of the next; of a list and a numbered pass that pass alone is read."""
    straight = stacks(Same(), 5)
    for stack in (straight[1], straight[3], straight[-3], straight[-5]):
        source = Same()
        batches = Batches(source, None, None).stacks(stack.after, 5, 2, stack.state)
        next(batches)
        read = source.read - stack.after.total
        assert 1 <= read <= 4  # the stack itself, the batch after it, and one to know the form
    source = Same()
    assert stacks(source, 5, after=straight[-1]) == [] and source.read == 1  # the end: nothing but the look


class Unseeded(Shuffling):
    """Equal in its first batch, and in no other."""

    def __init__(self):
        self.rng = np.random.default_rng()

    def __iter__(self):
        return iter(pairs(np.concatenate([ROWS[:3], ROWS[3 + self.rng.permutation(17)]])))


class Altered(Sampled):
    """In each pass another second batch."""

    def __iter__(self):
        first, (x, y), *rest = super().__iter__()
        return iter([first, (x + 1, y), *rest])


class Drifting(Same):
    """Gives its first passes to all alike, and then none."""

    def __init__(self):
        self.epoch, self.passes = 0, 0

    def set_epoch(self, epoch):
        self.epoch, self.passes = epoch, self.passes + (epoch > 0)

    def __iter__(self):
        return iter(pairs(ROWS + (self.passes if self.epoch else 0)))


class Told(Unseeded):
    def set_epoch(self, epoch):
        pass


def changed(batch):
    found = pairs(ROWS)
    found[batch] = (found[batch][0] + 1, found[batch][1])
    return found


class Turning(Shuffling):
    """Goes on without an end, each turn in another order."""

    def __iter__(self):
        while True:
            yield from pairs(ROWS[self.rng.permutation(18)])


class Short:
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(pairs(ROWS[: self.count]))


class Endless:
    def __iter__(self):
        return ((ROWS[:3], -ROWS[:3]) for _ in itertools.count())


@pytest.mark.parametrize(
    ("begun", "again", "at", "words"),
    [
        (Unseeded, Unseeded, (1, 0), "batch 1 of epoch 0 must be what it was before the run was saved"),
        (Unseeded, Unseeded, (1, 3), "batch 1 of epoch 0 must be what it was before the run was saved"),
        (Told, Told, (1, 0), "batch 1 of epoch 0 must be"),
        (Told, Told, (1, 2), "batch 1 of epoch 0 must be"),
        (Told, Told, (2, 0), "batch 1 of epoch 1 must be"),
        (Shuffling, lambda: Shuffling(1), (2, 3), "batch 0 of epoch 0 must be"),
        (lambda: pairs(ROWS), lambda: changed(5), (1, 0), "batch 5 of epoch 0 must be"),
        (lambda: pairs(ROWS), lambda: changed(3), (1, 4), "batch 3 of epoch 0 must be"),
        (lambda: pairs(ROWS), lambda: changed(5), (2, 4), "batch 5 of epoch 1 must be"),
        (lambda: pairs(ROWS), lambda: pairs(ROWS)[:5], (1, 4), "batch 5 of epoch 0 must be there, as it was before"),
        (lambda: pairs(ROWS[:18]), lambda: pairs(ROWS), (1, 4), "epoch 0 must end after 6 batches, as before"),
        (Same, lambda: changed(6), (3, 0), "batch 6 of epoch 2 must be"),
        (lambda: pairs(ROWS), lambda: pairs(ROWS)[:6], (2, 0), "batch 6 of epoch 1 must be there, as it was before"),
        (lambda: pairs(ROWS[:18]), lambda: pairs(ROWS), (1, 0), "epoch 0 must end after 6 batches, as before"),
        (Same, Shuffling, (1, 0), "batch 0 of epoch 0 must be"),
        (Same, Shuffling, (3, 1), "batch 0 of epoch 0 must be"),
        (Growing, Same, (2, 0), "batch 4 of epoch 0 must be"),
        (lambda: Short(9), lambda: Short(20), (1, 0), "epoch 0 must end after 3 batches, as before"),
        (lambda: Short(20), lambda: Short(9), (1, 0), "batch 3 of epoch 0 is not as it was"),
        (lambda: Short(9), Endless, (1, 0), "batch 1 of epoch 0 must be"),
        (lambda: Short(9), Endless, (2, 2), "batch 1 of epoch 0 must be"),
    ],
)
def test_what_cannot_be_given_again_is_refused_with_the_first_difference_and_the_fix(begun, again, at, words):
    (stack,) = (s for s in stacks(begun(), every=1) if s.after[:2] == at)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        stacks(again(), every=1, after=stack)
    fixes = ("set_epoch(number)", "get_state", "same seed", "pass the stream that the run was begun with")
    assert any(fix in str(error.value) for fix in fixes)


def test_a_loader_that_has_gone_on_is_not_taken_for_a_new_one():
    source = Shuffling()
    stack = stacks(source)[3]
    with pytest.raises(ValueError, match=r"made anew with the same seed"):
        stacks(source, after=stack)


def without_trails(stack):
    """Return a stack as it was saved by a version that compared the first batch alone."""
    return stack._replace(state={name: value for name, value in stack.state.items() if name != "digests"})


def without_the_pass_before(stack):
    """Return a stack as it was saved by a version that kept no trail of the last whole pass."""
    digests = {name: value for name, value in stack.state["digests"].items() if name != "before"}
    return stack._replace(state={**stack.state, "digests": digests})


@pytest.mark.parametrize("name", MADE_ANEW)
def test_what_an_earlier_version_saved_goes_on(name):
    make = MADE_ANEW[name]
    straight = stacks(make())
    for i, stack in enumerate(straight[:-1]):
        rest = stacks(make(), after=without_trails(stack))
        assert [t[4] for t in told(rest)] == [t[4] for t in told(straight[i + 1 :])]
        rest = stacks(make(), after=without_the_pass_before(stack))
        assert [t[4] for t in told(rest)] == [t[4] for t in told(straight[i + 1 :])]
    second = stacks(make(), after=without_trails(straight[2]))  # and what it saves itself goes on as well
    for i, stack in enumerate(second[:-1]):
        assert [t[4] for t in told(stacks(make(), after=stack))] == [t[4] for t in told(second[i + 1 :])]
    with pytest.raises(ValueError, match=r"batch 0 of epoch 1 must be what it was|must have 7 batches together"):
        stacks(Unseeded(), after=without_trails(stacks(Sampled("sampler"))[5]))


def accepted(stack):
    """Return a stack whose place is that of a run that the caller goes on with, with other data."""
    return stack._replace(state=accepting(Batches(Same(), None, None), stack.state, others=True))


def test_other_data_that_are_accepted_begin_at_the_place_of_the_run():
    straight = [s for s in stacks(Same(), every=1) if s.after[:2] in ((1, 0), (2, 3))]
    for stack in straight:
        for make in (Shuffling, lambda: Sampled("sampler")):
            rest = stacks(make(), every=1, after=accepted(stack))
            passes = stacks(make(), every=1)
            at = 7 * stack.after.epoch * isinstance(make(), Sampled) + stack.after.step
            expected = passes[at : at + len(rest)]
            assert [t[4] for t in told(rest)] == [t[4] for t in told(expected)]
            for i, later in enumerate(rest[:-1]):
                if isinstance(make(), Sampled):
                    again = stacks(make(), every=1, after=later)
                    assert [t[4] for t in told(again)] == [t[4] for t in told(rest[i + 1 :])]
                else:
                    with pytest.raises(ValueError, match="to be resumed a second time after other data were accepted"):
                        stacks(make(), every=1, after=later)
    (inside,) = (s for s in stacks(Turning(1), 3, 1, steps=4) if s.after.total == 6)
    rest = stacks(Turning(), 3, 1, 4, after=accepted(inside))
    assert [t[4] for t in told(rest)] == [t[4] for t in told(stacks(Turning(), 3, 1, 4)[:6])]
    with pytest.raises(ValueError, match="to be resumed a second time"):
        stacks(Turning(), 3, 1, 4, after=rest[0])


def test_data_that_may_be_others_go_on_exactly_where_they_are_not():
    for make in (Shuffling, Same, lambda: pairs(ROWS), Unseeded):
        straight = stacks(make(), every=1)
        for stack in straight[4:20]:
            may = stack._replace(state=accepting(Batches(make(), None, None), stack.state, others=False))
            rest = stacks(make(), every=1, after=may)
            if make is Unseeded:
                assert rest[0].state["other"] == "before" and len(rest) == 28 - stack.after.total
            else:
                (index,) = (i for i, s in enumerate(straight) if s.after == stack.after)
                assert told(rest) == told(straight[index + 1 :])
    broken = type("Broken", (), {"__iter__": lambda self: itertools.chain(pairs(ROWS)[:2], raising())})()
    with pytest.raises(ValueError, match="could not be read: OSError"):
        stacks(broken, after=may)


def raising():
    raise OSError("gone")
    yield


@pytest.mark.parametrize(
    "change",
    [
        {"digests": 7},
        {"digests": {}},
        {"digests": {"run": {"count": 10**9}, "pass": None}},
        {"digests": {"run": None, "pass": {"count": 1, "value": "", "stride": 0, "marks": []}}},
        {"digests": {"run": None, "pass": {"count": 9, "value": "", "stride": 1, "marks": []}}},
        {"digests": {"run": None, "pass": {"count": 1, "value": "", "stride": 1, "marks": [[]]}}},
        {"digests": {"run": None}},
        {"digests": {"run": Trail().to_json() | {"count": 0}, "pass": None}},
        {"length": "many"},
        {"length": -1},
        {"first": 7},
        {"more": 7},
    ],
)
def test_words_that_no_walk_has_saved_are_refused(change):
    stack = stacks(Same())[4]
    with pytest.raises(ValueError, match="of the checkpoint must|must be what it was"):
        stacks(Same(), after=stack._replace(state={**stack.state, **change}))


@pytest.mark.parametrize("place", [(0, 9, 3), (-1, 0, 3), (0, 2, 2**60), (1, 4, 8), (0, 4, 4)])
def test_places_that_no_walk_has_stood_at_are_refused(place):
    stack = stacks(Turning(), 3, 1, 4)[1]
    with pytest.raises(ValueError, match="of the checkpoint must"):
        stacks(Turning(), 3, 1, 4, after=stack._replace(after=Position(*place)))


def test_a_long_pass_is_compared_all_the_way_by_few_marks():
    count = 5 * MARKS
    many = [(np.full((2, 1), i, "f"), np.zeros((2, 1), "f")) for i in range(count)]
    stack = stacks(many, 2, every=2 * count - 1)[-2]
    assert stack.after.step == count - 1 and len(json.dumps(stack.state)) < 8000
    for i in (0, 1, 300, count - 2):
        other = [*many]
        other[i] = (other[i][0] + 1, other[i][1])
        with pytest.raises(ValueError, match="of epoch 0, or one after it up to batch") as error:
            stacks(other, 2, every=2 * count - 1, after=stack)
        first, last = map(int, re.findall(r"batch (\d+)", str(error.value)))
        assert first <= i <= last < first + 16
    assert stacks(many, 2, every=2 * count - 1, after=stack)


def test_a_trail_knows_each_difference_of_up_to_127_batches():
    before = Trail()
    for i in range(MARKS - 1):
        before.add(str(i))
    for i in range(MARKS - 1):
        again = Trail()
        for j in range(i + 1):
            assert again.agrees(again)
            again.add(str(j + 1000 * (j == i)))
            assert before.agrees(again) is (j < i)


# Through `train`, where the order decides the result.

RECIPE = Recipe(MLP((1, 3, 1)), losses.squared_error, optax.sgd, epochs=4)
RECIPE2 = Recipe(MLP((1, 2, 1)), losses.squared_error, optax.sgd, epochs=4)


@pytest.mark.parametrize("name", ["shuffling", "sampler", "equal"])
@pytest.mark.parametrize("after", [7, 14, 10], ids=["after an epoch", "after two", "inside"])
def test_a_run_ends_with_the_bits_of_one_that_was_not_stopped(tmp_path, name, after):
    class Stop(Exception):
        pass

    def stop(state, history):
        if state.step >= after:
            raise Stop

    def run(source, **options):
        options = {"every": after, "progress": False, **options}
        return loop.train(jax.random.key(0), source, RECIPE, {"learning_rate": 0.003}, **options)

    straight = run(MADE_ANEW[name]())
    with pytest.raises(Stop):
        run(MADE_ANEW[name](), directory=tmp_path, callbacks=[stop])
    seen = []
    found = run(MADE_ANEW[name](), directory=tmp_path, callbacks=[lambda state, history: seen.append(int(state.step))])
    assert seen[0] > after
    jax.tree.map(
        np.testing.assert_array_equal, (found[0].params, dict(found[1])), (straight[0].params, dict(straight[1]))
    )


def test_several_recipes_are_trained_on_the_same_batches_or_not_at_all():
    keys = jax.random.split(jax.random.key(0), 2)

    def run(source):
        return loop.train(keys, source, [RECIPE, RECIPE2], {"learning_rate": 0.003}, epochs=1, progress=False)

    run(Sampled("sampler"))
    run(pairs(ROWS))
    same = "data must give the same batches to each recipe; batch"
    with pytest.raises(ValueError, match=f"{same} 0 of epoch 0, or one shortly before it, is another"):
        run(Shuffling())
    with pytest.raises(ValueError, match=f"{same} 1 of epoch 0, or one shortly before it, is another"):
        run(Unseeded())


def test_a_later_recipe_is_held_to_batches_that_an_earlier_call_trained_the_first_on(tmp_path):
    keys = jax.random.split(jax.random.key(0), 2)
    ends = [dataclasses.replace(RECIPE, epochs=1), dataclasses.replace(RECIPE2, epochs=3)]

    class Stop(Exception):
        pass

    def stop(state, history):
        if state.step.shape == (1,) and len(state.params[0].w[0, 0]) == 2 and state.step[0] >= 14:
            raise Stop

    def run(source, recipes=ends, **options):
        options = {"progress": False, "every": 7, **options}
        return loop.train(keys, source, recipes, {"learning_rate": 0.003}, **options)

    straight = run(Sampled("sampler"))
    with pytest.raises(Stop):
        run(Sampled("sampler"), directory=tmp_path, callbacks=[stop])
    assert [(tmp_path / f"recipe-00{i}").is_dir() for i in range(2)] == [True, True]
    found = run(Sampled("sampler"), directory=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, dict(found[1]), dict(straight[1]))
    # Of the first recipe what was read is known from its checkpoint; the second begins anew with other batches.
    shutil.rmtree(tmp_path / "recipe-001")
    with pytest.raises(ValueError, match="data must give the same batches to each recipe; batch 1 of epoch 0"):
        run(Altered("sampler"), directory=tmp_path)
    # A third is held to the longer one of those before.
    third = dataclasses.replace(RECIPE, epochs=3)
    with pytest.raises(ValueError, match="data must give the same batches to each recipe; batch 0 of epoch 1"):
        loop.train(jax.random.split(keys[0], 3), Drifting(), [*ends, third], {"learning_rate": 0.003}, progress=False)


def test_other_batches_are_refused_with_the_ways_out_and_go_on_where_they_are_accepted(tmp_path):
    class Stop(Exception):
        pass

    def stop(state, history):
        if state.step >= 14:
            raise Stop

    def run(source, **options):
        options = {"every": 14, "progress": False, "directory": tmp_path, **options}
        return loop.train(jax.random.key(0), source, RECIPE, {"learning_rate": 0.003}, **options)

    with pytest.raises(Stop):
        run(Unseeded(), callbacks=[stop])
    with pytest.raises(ValueError, match=r"give its generator a seed, or the loader set_epoch\(number\)"):
        run(Shuffling())
    with pytest.raises(ValueError, match="batch 1 of epoch 0 must be what it was .* accept='data' goes on"):
        run(Unseeded())
    assert run(Unseeded(), accept="data")[0].step == 28
