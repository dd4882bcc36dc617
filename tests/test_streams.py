"""Streams without training: the walk through a loader's passes, its stacks, and what it says of a bad batch."""

import itertools
import json
import re

import jax
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, data, loop, losses
from jaxmlp.loop.streams import Position, Stream, Taken, is_stream, open_stream, stacks_of
from jaxmlp.loop.streams._loader import Batches
from jaxmlp.loop.streams._passes import Passes
from jaxmlp.loop.streams._prefetch import ahead
from jaxmlp.loop.streams._replay import resume
from jaxmlp.loop.streams._walk import Phase, Walk

ROWS = np.arange(10, dtype=np.float32)


def batch(*rows):
    """Examples that are their own number, so that a test reads which were given."""
    x = np.array(rows, np.float32)[:, None]
    return x, -x


PAIRS = [batch(2 * i, 2 * i + 1) for i in range(5)]


START = Position()


class Numbered:
    """Five batches a pass, of which each pass has its own, in an order of its number."""

    def __init__(self, lengths=None):
        self.epoch, self.lengths, self.begun = None, lengths, []

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.begun.append(self.epoch)
        turned = PAIRS[self.epoch % 5 :] + PAIRS[: self.epoch % 5]
        return iter(turned if self.lengths is None else turned[: self.lengths[self.epoch]])


class Counter:
    """An endless iterator with a state of its own, of bytes as Grain's or of JSON; it counts what it reads."""

    def __init__(self, as_bytes):
        self.at, self.read, self.as_bytes = 0, 0, as_bytes

    def __iter__(self):
        return self

    def __next__(self):
        self.at, self.read = self.at + 1, self.read + 1
        return batch(2 * self.at - 2, 2 * self.at - 1)

    def get_state(self):
        return str(self.at).encode() if self.as_bytes else {"at": self.at}

    def set_state(self, state):
        self.at = int(state) if self.as_bytes else state["at"]


class Counted:
    """A loader whose iterators are counters, as a Grain loader's are."""

    def __init__(self, as_bytes=True):
        self.as_bytes, self.last = as_bytes, None

    def __iter__(self):
        self.last = Counter(self.as_bytes)
        return self.last


def rows_of(stacks):
    """Return the examples of the stacks in their order, those without weight left out."""
    found = []
    for stack in stacks:
        x, _, weight = (a[: stack.taken] for a in stack.batches)
        found += x[weight > 0].ravel().astype(int).tolist()
    return found


def stacks(source, epochs, every=None, steps=None, start=START, state=None):
    return list(Batches(source, None, steps).stacks(start, epochs, every, state or {}))


# The walk.


def walk(source, steps=None, start=START, state=None):
    passes = Passes(source, steps, lambda found, position: (*found, np.ones(len(found[0]), np.float32)))
    return Walk(passes, start, resume(passes, start, state or {}), state or {})


def test_a_pass_without_a_known_end_is_read_one_batch_ahead():
    steps = walk(PAIRS[:2])
    phases = [steps.phase]
    ends = []
    for _ in range(4):
        ends.append(steps.take(lambda position: False).ends)
        phases.append(steps.phase)
    turned = [Phase.READING, Phase.HOLDING, Phase.TURNING, Phase.HOLDING, Phase.TURNING]
    assert phases == turned and ends == [False, True, False, True]
    assert steps.position == Position(2, 0, 4)


def test_steps_end_an_epoch_by_count_and_nothing_is_read_ahead():
    source = Counter(True)
    steps = walk(source, steps=3)
    for number in range(1, 8):
        assert steps.take(lambda position: False).ends == (number % 3 == 0)
        assert steps.phase is Phase.READING and source.read == number
    assert steps.position == Position(2, 1, 7)


def test_the_loader_tells_its_state_from_before_the_look_ahead_and_only_where_it_is_wanted():
    class Three(Counted):
        def __iter__(self):
            self.last = self.Limited(False)
            return self.last

        class Limited(Counter):
            def __next__(self):
                if self.at == 3:
                    raise StopIteration
                return super().__next__()

    steps = walk(Three())
    states = [steps.take(lambda position: position.step == 2).state["iterator"] for _ in range(3)]
    assert states == [None, {"at": 2}, None]


# Passes and epochs.


def test_each_pass_is_told_its_number():
    source = Numbered()
    assert rows_of(stacks(source, 2)) == [*range(10), *range(2, 10), 0, 1]
    assert source.begun == [0, 0, 1]  # the first once more: a look at one batch gives the shapes


def test_an_iterator_serves_one_epoch_its_first_batch_included():
    assert rows_of(stacks(iter(PAIRS), 1)) == [*range(10)]
    with pytest.raises(ValueError, match="list_iterator is used up after one; pass what makes a new iterator"):
        stacks(iter(PAIRS), 2)


class Kept:
    """Gives one iterator each time: of Python's own, which goes on, or one that begins anew as those of PyTorch."""

    def __init__(self, anew):
        self.anew, self.kept = anew, self if anew else zip(*zip(*PAIRS, strict=True), strict=True)

    def __iter__(self):
        self.at = 0
        return self.kept

    def __next__(self):
        self.at += 1
        if self.at > 5:
            raise StopIteration
        return PAIRS[self.at - 1]


def test_an_iterator_that_a_loader_keeps_serves_one_epoch_or_begins_anew():
    assert rows_of(stacks(Kept(False), 1)) == [*range(10)]
    with pytest.raises(ValueError, match="this Kept is used up after one"):
        stacks(Kept(False), 2)
    kept = Kept(True)
    loader = type("Loader", (), {"__iter__": lambda self: iter(kept)})()
    assert rows_of(stacks(loader, 2)) == [*range(10), *range(10)]


def test_an_endless_stream_is_cut_into_epochs_by_steps():
    found = stacks((batch(2 * i, 2 * i + 1) for i in itertools.count()), 3, steps=4)
    assert rows_of(found) == [*range(24)]
    assert [stack.after for stack in found if stack.ends] == [Position(1, 0, 4), Position(2, 0, 8), Position(3, 0, 12)]


def test_a_short_last_batch_is_filled_up_at_weight_zero():
    (stack,) = stacks([*PAIRS[:2], batch(8)], 1)
    assert rows_of([stack]) == [0, 1, 2, 3, 8] and stack.taken == 3
    x, y, weight = (a[2] for a in stack.batches)
    assert x.ravel().tolist() == [8, 8] and y.ravel().tolist() == [-8, -8] and weight.tolist() == [1, 0]


@pytest.mark.parametrize("every", [None, 1, 2, 3, 7])
def test_a_stack_ends_at_each_epoch_and_at_each_multiple_of_every(every):
    found = stacks(Numbered(), 3, every)
    assert rows_of(found) == rows_of(stacks(Numbered(), 3))
    ends = {stack.after.total for stack in found}
    assert ends >= {5, 10, 15} and ends >= set(range(every or 15, 16, every or 15))
    assert all(a.after == b.first for a, b in itertools.pairwise(found))
    assert len({stack.batches[0].shape for stack in found}) == 1  # one compiled program takes them all


# Going on.


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize(
    ("make", "steps"),
    [(Numbered, None), (lambda: PAIRS, None), (Counted, 4), (lambda: Counted(False), 4), (lambda: Counter(True), 4)],
    ids=["numbered", "list", "state of bytes", "state of JSON", "one iterator"],
)
def test_a_stream_goes_on_from_each_of_its_stacks(make, steps, every):
    straight = stacks(make(), 3, every, steps)
    for i, stack in enumerate(straight[:-1]):
        state = json.loads(json.dumps(stack.state))
        rest = stacks(make(), 3, every, steps, stack.after, state)
        assert rows_of(rest) == rows_of(straight[i + 1 :])
        assert [s.after for s in rest] == [s.after for s in straight[i + 1 :]]
        assert [s.state for s in rest] == [s.state for s in straight[i + 1 :]]


def test_a_loader_with_a_state_is_put_back_without_reading():
    straight = stacks(Counted(), 2, 2, 4)
    source = Counted()
    batches = Batches(source, None, 4)
    next(batches.stacks(straight[2].after, 2, 2, straight[2].state))
    assert source.last.read == 2


def test_a_state_that_is_refused_is_replaced_by_counting():
    class Refusing(Counter):
        def set_state(self, state):
            raise ValueError("another source")

    class Loader(Counted):
        def __iter__(self):
            return Refusing(True)

    straight = stacks(Counted(), 2, 2, 4)
    assert rows_of(stacks(Loader(), 2, 2, 4, straight[1].after, straight[1].state)) == rows_of(straight[2:])


def test_the_state_on_disk_keeps_its_form():
    """Checkpoints hold it: position as (epoch, step, total), state with these names."""
    first = stacks(Counted(), 2, 3, 4)[0]
    assert list(first.after) == [0, 3, 3] and set(first.state) == {"iterator", "length", "first", "digests"}
    assert first.state["iterator"] == {"bytes": "Mw=="} and first.state["length"] is None
    assert stacks(Numbered(), 1)[-1].state["length"] == 5


# Errors.

BAD = {
    "a short pass": (
        lambda: stacks(Numbered([5, 3]), 2),
        "batch 3 of epoch 1 must be there, as in the first pass of 5",
    ),
    "its way out": (lambda: stacks(Numbered([5, 3]), 2), "say how many steps an epoch has: steps=3"),
    "too few for steps": (lambda: stacks(PAIRS, 1, steps=6), "batch 5 of epoch 0 must be there; the stream ended"),
    "short inside": (
        lambda: stacks([batch(1, 2), batch(3), batch(4, 5)], 1),
        "batch 1 of epoch 0 must have 2 examples",
    ),
    "longer": (lambda: stacks([batch(1), batch(2, 3)], 1), "batch 1 of epoch 0 must be as the first, of 1 examples"),
    "gone on resuming": (
        lambda: stacks(PAIRS[:2], 1, start=Position(0, 3, 3)),
        "batch 2 of epoch 0 must be there, as it was before",
    ),
    "another order": (
        lambda: stacks(PAIRS[::-1], 1, start=Position(0, 2, 2), state=stacks(PAIRS, 1, every=2)[0].state),
        "batch 0 of epoch 0 must be what it was before the run was saved",
    ),
    "no iterable": (lambda: Batches(7, None, None), "data must be arrays, files or an iterable of batches; got int"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_is_named(name):
    mistake, words = BAD[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        mistake()


def test_what_reading_raises_comes_after_the_stacks_before_it():
    def broken():
        yield from PAIRS[:2]
        raise OSError("the disk is gone")

    found = ahead(Batches(broken(), None, None).stacks(Position(), 1, 1, {}), lambda batch: None)
    assert rows_of([next(found)]) == [0, 1]
    with pytest.raises(ValueError, match="batch 2 of epoch 0 could not be read: OSError: the disk is gone"):
        next(found)


# A stream of the user's own.

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
Y = X[:, :1]
RECIPE = Recipe(MLP((3, 4, 1)), losses.squared_error, optax.adam, epochs=3, batch_size=5)
KEY = jax.random.key(0)


class Ordered:
    """The rows of two arrays in the order of `fit`, as a database would be asked for them."""

    batch_size, steps, fingerprint = 5, 4, ["twenty rows"]

    def __init__(self):
        self.example = X[:5], Y[:5], np.ones(5, np.float32)
        self.key = jax.random.split(jax.random.split(KEY)[1])[0]

    def stacks(self, start, epochs, every, state):
        return stacks_of(self.taken(start, epochs), self.example, self.steps, start, every)

    def taken(self, position, epochs):
        while position.epoch < epochs:
            order, weight = map(np.asarray, data.epoch_order(self.key, position.epoch, 20, 5))
            rows, ends = order[position.step], position.step + 1 == self.steps
            batch = X[rows], Y[rows], weight[position.step]
            position = position.after(1, ends)
            yield Taken(batch, ends, position, {})


def test_a_stream_of_ones_own_trains_to_the_bits_of_the_arrays_and_resumes(tmp_path):
    def train(source, **options):
        return loop.train(KEY, source, RECIPE, {"learning_rate": 0.1}, progress=False, **options)

    def same(a, b):
        jax.tree.map(np.testing.assert_array_equal, (a[0].params, dict(a[1])), (b[0].params, dict(b[1])))

    assert isinstance(Ordered(), Stream) and is_stream(Ordered()) and not is_stream((X, Y))
    straight = jaxmlp.fit(KEY, (X, Y), RECIPE, {"learning_rate": 0.1})
    same(train(Ordered(), every=3), straight)

    class Enough(Exception):
        pass

    def stop(state, history):
        if state.step >= 6:
            raise Enough

    with pytest.raises(Enough):
        train(Ordered(), every=3, directory=tmp_path / "run", callbacks=[stop])
    seen = []
    same(
        train(Ordered(), every=3, directory=tmp_path / "run", callbacks=[lambda s, h: seen.append(int(s.step))]),
        straight,
    )
    assert seen[0] > 3 and seen[-1] == 12  # it did not begin anew


def test_a_stream_of_ones_own_is_checked_at_the_door():
    with pytest.raises(ValueError, match="steps must be None or that of the stream, 4"):
        open_stream(Ordered(), KEY, None, 3)
    with pytest.raises(ValueError, match="batch_size must be None or that of the stream, 5; got 6"):
        open_stream(Ordered(), KEY, 6, None)


class Broken(Ordered):
    """Changes what it yields, as a mistake would."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def stacks(self, start, epochs, every, state):
        return self.change(super().stacks, start, epochs, every, state)


def from_the_start(stacks, start, epochs, every, state):
    return stacks(Position(), epochs, every, state)


def too_few(stacks, start, epochs, every, state):
    return stacks(start, epochs - 1, every, state)


def as_tuples(stacks, *place):
    return map(tuple, stacks(*place))


def another_end(stacks, start, *place):
    yield from (s._replace(ends=not s.ends, after=s.first.after(s.taken, not s.ends)) for s in stacks(start, *place))


def longer(stacks, start, epochs, every, state):
    return stacks(start, epochs, None, state)


def of_another_form(stacks, *place):
    yield from (s._replace(batches=(s.batches[0][:, :, :2], *s.batches[1:])) for s in stacks(*place))


def with_objects(stacks, *place):
    yield from (s._replace(state={"set": {1}}) for s in stacks(*place))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (from_the_start, "must follow one another from where they are asked for; at epoch 1, step 0 (4 in all) got 2"),
        (too_few, "must go on to the end of epoch 2; they ended at epoch 2, step 0 (8 in all)"),
        (as_tuples, "a stream must yield stacks; got tuple; make them by stacks_of"),
        (another_end, "an epoch of the stream must have 4 batches, as it says; the stack at epoch 1, step 0"),
        (longer, "a stack must end where the steps done in all are a multiple of every=2; got 4 batches at epoch 1"),
        (of_another_form, "must be of one form, that of its example with a first axis of steps"),
        (with_objects, "the state of a stack must be JSON; at epoch 1, step 0 (4 in all) it is not"),
    ],
)
def test_a_stream_of_ones_own_is_held_to_what_it_promises(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        list(open_stream(Broken(change), KEY, None, None).stacks(Position(1, 0, 4), 3, 2, {}))


def test_the_batches_of_a_stream_of_ones_own_are_of_one_form():
    parts = [X[:5], X[:4], X[:5, :2], X[:5].astype(int)]
    for other in parts[1:]:
        batches = [
            Taken((x, Y[:5], ROWS[:5]), i == 1, START.after(i + 1, i == 1), {}) for i, x in enumerate((X[:5], other))
        ]
        with pytest.raises(ValueError, match="the batches of a stack must be of one form"):
            list(stacks_of(batches, (X[:5], Y[:5], ROWS[:5]), 2, START, None))


# What is an array, and what breaks.


class Tensor:
    """An array of another library."""

    dtype, shape = "torch.float32", (2, 1)

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        if self.values is None:
            raise RuntimeError("not on this device")
        return self.values


def test_batches_of_other_libraries_are_read_as_arrays():
    whole = [*PAIRS[:2], batch(8)]
    for change in (Tensor, jax.numpy.asarray, lambda a: a.astype(">f8"), lambda a: a.astype(np.longdouble)):
        found = [[change(x), change(y)] for x, y in whole]
        assert rows_of(stacks(found, 1)) == [0, 1, 2, 3, 8]
    assert rows_of(stacks([(x, y, None) for x, y in whole], 1)) == [0, 1, 2, 3, 8]


class Raising:
    def __init__(self, error, where):
        self.error, self.where = error, where

    def __iter__(self):
        if self.where == "begin":
            raise self.error
        return self

    def __next__(self):
        raise self.error

    def set_epoch(self, epoch):
        if self.where == "set_epoch":
            raise self.error


X2, Y2 = PAIRS[0]
ODD = {
    "text": ((["a", "b"], Y2), "x of batch 0 of epoch 0 must"),
    "objects": ((np.array([[1], ["a"]], object), Y2), "x of batch 0 of epoch 0 must hold numbers; got"),
    "dates": ((X2, np.zeros(2, "M8[s]")), "y of batch 0 of epoch 0 must hold numbers; got"),
    "masked": ((np.ma.masked_less(X2, 1), Y2), "x of batch 0 of epoch 0 must not be masked"),
    "wide": ((X2, Y2.astype(int) + 2**40), "y of batch 0 of epoch 0 must fit int32, in which JAX computes; got 1099"),
    "unreadable": ((Tensor(None), Y2), "x of batch 0 of epoch 0 must"),
    "lengths": (
        (X2, Y2[:1]),
        "must have arrays of as many examples each; got float32 of shape (2, 1), float32 of",
    ),
    "weights of another length": ((X2, Y2, np.ones(3, "f")), "must have arrays of as many examples each"),
    "weights by name": ((X2, Y2, {"a": np.ones(2), "b": np.ones(2)}), "weight of batch 0 of epoch 0 must be one array"),
    "nothing": ((None, Y2), "must have arrays of as many examples each"),
    "a dict": ({"x": X2, "y": Y2}, "batch 0 of epoch 0 must be (x, y) or (x, y, weight); got dict of length 2"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_batch_is_named(name):
    given, words = ODD[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        Batches([given], None, None)


@pytest.mark.parametrize("error", [OSError("gone"), TypeError("gone"), KeyError("gone"), RuntimeError("gone")])
def test_whatever_a_loader_raises_is_told_with_its_place(error):
    for where, words in {
        "begin": "pass 0 of data could not begin: ",
        "set_epoch": "pass 0 of data could not begin: ",
        "read": "batch 0 of epoch 0 could not be read: ",
    }.items():
        with pytest.raises(ValueError, match=words + type(error).__name__):
            Batches(Raising(error, where), None, None)


@pytest.mark.parametrize("state", [{1: "a"}, (1, 2), np.arange(2), {1, 2}, float("nan"), 7, b"7", "7", None])
def test_a_state_that_json_would_change_is_replaced_by_counting(state):
    class Odd(Counter):
        def get_state(self):
            return state

        def set_state(self, given):
            assert given == state, given
            self.at = 2

    class Loader(Counted):
        def __iter__(self):
            return Odd(True)

    straight = stacks(Loader(), 2, 2, 4)
    saved = json.loads(json.dumps(straight[0].state))
    assert (saved["iterator"] is None) == (state not in (7, b"7", "7") if np.ndim(state) == 0 else True)
    assert rows_of(stacks(Loader(), 2, 2, 4, straight[0].after, saved)) == rows_of(straight[1:])


def test_a_later_pass_may_be_longer_and_not_empty():
    assert rows_of(stacks(Numbered([3, 5]), 2)) == [*range(6), *range(2, 10), 0, 1]
    with pytest.raises(ValueError, match="this pass gave no batch, where the first gave 3; pass what makes a new iter"):
        stacks(Numbered([3, 0]), 2)


def test_mapped_arrays_must_not_be_masked():
    with pytest.raises(ValueError, match="source must not be masked"):
        loop.npy((np.ma.masked_array(np.ones((4, 3), "f")), np.ones((4, 1), "f")))
