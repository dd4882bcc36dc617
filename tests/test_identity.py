"""A recipe is what it computes: of single changes to a file of a user's, each is refused or accepted as it must be."""

import collections
import dataclasses
import datetime
import enum
import functools
import importlib
import io
import itertools
import logging
import operator
import os
import random
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmlp import Recipe
from jaxmlp._engine.plan import Layout
from jaxmlp._engine.stops import Stops
from jaxmlp.loop._code import of_behaviour, without_addresses
from jaxmlp.loop._hidden import installed
from jaxmlp.loop._manifest import Manifest, Seen
from jaxmlp.loop._program import of_program
from jaxmlp.loop._start import Start

FILE = """
import functools
import importlib
import itertools
import logging
import operator
import jax, jax.numpy as jnp, numpy as np, optax
from jax.nn import initializers
from jaxmlp import MLP

SCALE = 2.0
SETTINGS = {"power": 2, "names": ["a", "b"]}
TABLE = np.array([1.0, 2.0], "f")
UNUSED = 1

def deep(d):
    return d * 1.25

def helper(d):
    return deep(jnp.square(d)) + 0.125

class Weighted:
    OFFSET = 0.25
    def __init__(self, gain, more):
        self.gain, self.more = gain, more
    def __call__(self, d):
        return self.gain * d + self.OFFSET
    def bound(self, d):
        return d * self.more["by"] + self.static(d)
    @staticmethod
    def static(d):
        return 0.375 * d

CALL, BOUND = Weighted(3.0, {"by": 4.0}), Weighted(5.0, {"by": 6.0}).bound

def closed(c):
    def inside(d):
        return d + c
    return inside

JITTED, PARTIAL = jax.jit(closed(7.0)), functools.partial(lambda d, e: d * e, e=8.0)

@functools.wraps(closed(0.5))
def wrapped(d, held=closed(9.0)):
    return held(d)

@jax.custom_jvp
def bent(d):
    return d * 1.0

@bent.defjvp
def bent_jvp(primals, tangents):
    return primals[0], 10.0 * tangents[0]

@jax.custom_vjp
def clipped(d):
    return d

clipped.defvjp(lambda d: (d, None), lambda kept, g: (jnp.clip(g, -11.0, 11.0),))

def on_host(d):
    return jax.pure_callback(lambda a: np.float32(12.0) * a, jax.ShapeDtypeStruct(d.shape, d.dtype), d)

def loss(outputs, targets, smooth=0.1, *, tail=0.2):
    d = outputs - targets
    total = helper(d) * SCALE + smooth + tail
    for factor in (13.0, 14.0):
        total = total + factor * d
    total = total ** SETTINGS["power"] * TABLE[1]
    total = total + (lambda v: 15.0 * v)(d) + [lambda v: 16.0 * v][0](d)
    total = CALL(total) + BOUND(d) + JITTED(d) + PARTIAL(d) + wrapped(d) + bent(d) + clipped(d)
    a = jnp.sin(d)
    b = jnp.cos(d)
    return jnp.sum(total + a * b, axis=-1)

def optimizer(learning_rate, decay=0.01):
    schedule = optax.cosine_decay_schedule(1e-3, 100)
    mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    return optax.chain(
        optax.clip(17.0), optax.scale_by_adam(b1=0.8), optax.add_decayed_weights(decay, mask),
        optax.scale_by_schedule(schedule), optax.scale(-learning_rate),
    )

def metric(outputs, targets):
    far = jnp.abs(on_host(outputs) - targets)
    near = jnp.sin(outputs)
    return jnp.mean(far + near) * 18.0

class Net:
    def __init__(self, slope, first):
        self.slope, self.first = slope, first
    def init(self, key):
        w = self.first(key, (3, 1), jnp.float32)
        return {"w": w, "b": jnp.full(1, 19.0)}
    def apply(self, params, x, key=None):
        x = x if key is None else x * jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.tanh(self.slope * (x @ params["w"])) + params["b"]

MODEL = Net(20.0, initializers.normal(0.1))
"""
SPAN = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
BATCH = np.zeros((4, 3), "f"), np.zeros((4, 1), "f")


def recipe_of(text, name="user_file"):
    space = {"__name__": name}
    exec(compile(text, f"{name}.py", "exec"), space)
    return Recipe(space["MODEL"], space["loss"], space["optimizer"], epochs=3, batch_size=4, metrics=(space["metric"],))


def manifest(recipe, rate=0.1):
    start = Start(jax.random.key(0), {"learning_rate": rate})
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as a user's file has it
        program = of_program(recipe.bind({"learning_rate": 0.1}), SPAN, BATCH, BATCH)
    stops = Stops.of(None, validation=False, members=False)
    return Manifest.of(recipe, start, Seen(None, {}), stops, Layout(1, (jax.local_devices()[0],)), program)


@functools.cache
def saved():
    return manifest(recipe_of(FILE))


CHANGED = {
    "loss": [
        ("a default", "smooth=0.1", "smooth=0.3"),
        ("a keyword-only default", "tail=0.2", "tail=0.3"),
        ("a tuple of constants", "(13.0, 14.0)", "(13.0, 14.5)"),
        ("one constant less", "(13.0, 14.0)", "(13.0,)"),
        ("a lambda", "15.0 * v", "15.5 * v"),
        ("a lambda in a list", "16.0 * v", "16.5 * v"),
        ("a global number", "SCALE = 2.0", "SCALE = 2.5"),
        ("a global dict", '"power": 2', '"power": 3'),
        ("a global array", "[1.0, 2.0]", "[1.0, 3.0]"),
        ("a helper", "+ 0.125", "+ 0.5"),
        ("a helper's helper", "d * 1.25", "d * 1.5"),
        ("a class attribute", "OFFSET = 0.25", "OFFSET = 0.5"),
        ("a field of a callable object", "Weighted(3.0", "Weighted(3.5"),
        ("a field of a method's object", '{"by": 6.0}', '{"by": 6.5}'),
        ("a static method", "0.375 * d", "0.5 * d"),
        ("a method of a callable object", "self.gain * d", "self.gain / d"),
        ("a cell under jax.jit", "closed(7.0)", "closed(7.5)"),
        ("a keyword of a partial", "e=8.0", "e=8.5"),
        ("a function under a partial", "d * e", "d / e"),
        ("a cell in a default of a wrapper", "closed(9.0)", "closed(9.5)"),
        ("an inner function", "return d + c", "return d - c"),
        ("a rule of custom_jvp", "10.0 * tangents", "10.5 * tangents"),
        ("a rule of custom_vjp", "-11.0, 11.0", "-11.0, 11.5"),
        ("an order of operands", "outputs - targets", "targets - outputs"),
        ("an operation", "jnp.sin(d)", "jnp.tan(d)"),
        ("an axis", "a * b, axis=-1)", "a * b, axis=1) * 1.5"),
        ("a dtype on the way", "jnp.cos(d)", 'jnp.cos(d).astype("bfloat16")'),
        ("a sum taken apart", "jnp.sum(total + a * b, axis=-1)", "jnp.sum(total, -1) + jnp.sum(a * b, -1)"),
    ],
    "optimizer": [
        ("a schedule of Optax", "schedule(1e-3, 100)", "schedule(1.0, 3)"),
        ("a length of a schedule", "1e-3, 100", "1e-3, 101"),
        ("an option of a part", "b1=0.8", "b1=0.85"),
        ("another part", "optax.clip(17.0)", "optax.clip_by_global_norm(17.0)"),
        ("a limit", "clip(17.0)", "clip(17.5)"),
        ("a default of a factory", "decay=0.01", "decay=0.02"),
        ("a mask", "p.ndim > 1", "p.ndim > 0"),
        ("no mask", "(decay, mask)", "(decay)"),
        (
            "an order of parts",
            "optax.clip(17.0), optax.scale_by_adam(b1=0.8)",
            "optax.scale_by_adam(b1=0.8), optax.clip(17.0)",
        ),
    ],
    "metrics": [
        ("a constant of a metric", "* 18.0", "* 18.5"),
        ("code on the host", "np.float32(12.0)", "np.float32(12.5)"),
        ("a metric's name", "def metric(", "def metric2("),
    ],
    "model": [
        ("an attribute of no dataclass", "Net(20.0", "Net(20.5"),
        ("an initializer of JAX", "normal(0.1)", "normal(5)"),
        ("another initializer", "initializers.normal(0.1)", "initializers.uniform(0.1)"),
        ("a first value", "19.0", "19.5"),
        ("a rate of dropout", "key, 0.5", "key, 0.25"),
        ("a width", "(3, 1)", "(3, 2)"),
        ("a name of a parameter", '"b"', '"bias"'),
        ("an activation", "jnp.tanh(", "jnp.sin("),
        ("dropout left out", "x * jax.random.bernoulli(key, 0.5, x.shape)", "x"),
    ],
}
# The last column: whether the code alone, without a trace, tells that it is the same.
SAME = [
    ("a docstring", "tail=0.2):\n", 'tail=0.2):\n    """Return."""\n', True),
    (
        "a docstring with a None beside",
        "tail=0.2):\n",
        'tail=0.2):\n    """Return."""\n    assert tail is not None\n',
        False,
    ),
    ("a comment", "    d = outputs", "    # of all\n    d = outputs", True),
    ("moved lines", "import functools\n", "import functools\n\n\n", True),
    ("a moved line", "def loss(", "\n\n\n\ndef loss(", True),
    (
        "a new local name",
        "d = outputs - targets\n    total = helper(d)",
        "d = e = outputs - targets\n    total = helper(e)",
        False,
    ),
    ("another local name", "far", "off", True),
    ("one function more", "def helper(d):", "def helper(d):\n    return second(d)\n\ndef second(d):", False),
    (
        "an order of independent lines",
        "    far = jnp.abs(on_host(outputs) - targets)\n    near = jnp.sin(outputs)\n",
        "    near = jnp.sin(outputs)\n    far = jnp.abs(on_host(outputs) - targets)\n",
        False,
    ),
    ("what nothing reads", "    a = jnp.sin(d)", "    z = jnp.exp(d)\n    a = jnp.sin(d)", False),
    ("a global that nothing reads", "UNUSED = 1", "UNUSED = 2", True),
    ("an entry that nothing reads", '["a", "b"]', '["a", "c"]', False),
    ("jax.jit around it", "def helper", "@jax.jit\ndef helper", False),
    ("no jax.jit around it", "jax.jit(closed(7.0))", "closed(7.0)", False),
    ("annotations", "def deep(d):", "def deep(d: jax.Array) -> jax.Array:", True),
    ("a word while tracing", "    a = jnp.sin(d)", "    str(d)\n    a = jnp.sin(d)", False),
    ("jax.debug.print", "    a = jnp.sin(d)", "    jax.debug.print('{}', d)\n    a = jnp.sin(d)", False),
    ("a helper written out", "helper(d) * SCALE", "(deep(jnp.square(d)) + 0.125) * SCALE", False),
    ("a constant written out", 'total ** SETTINGS["power"]', "total ** 2", False),
    ("another name of a class", "Net", "Network", False),
    (
        "a repr with an address",
        "    def init(self, key)",
        "    def __repr__(self):\n        return hex(id(self)).upper()\n    def init(self, key)",
        True,
    ),
    ("a lambda for a function", "def deep(d):\n    return d * 1.25", "deep = lambda d: d * 1.25", True),
]


ROWS = [pytest.param(part, *row[1:], id=row[0]) for part, rows in CHANGED.items() for row in rows]


def changed(old, new):
    assert old in FILE
    return recipe_of(FILE.replace(old, new) + ("metric = metric2" if "metric2" in new else ""))


@pytest.mark.parametrize(("part", "old", "new"), ROWS)
def test_what_computes_something_else_is_refused(part, old, new):
    given = manifest(changed(old, new))
    lines = saved().diff(given)
    assert lines and {line.split(":")[0].split(".")[1] for line in lines} == {part}
    with pytest.raises(ValueError, match=rf"pass accept=\('{part}',\)$"):
        saved().check_same(given, "here")
    assert saved().check_same(given, "here", frozenset([part])) == []
    # Between two versions of JAX no trace can be compared: then the code tells it, of all that the recipe names.
    assert dataclasses.replace(saved(), program=None).diff(given)


@pytest.mark.parametrize(("old", "new", "by_code"), [pytest.param(*row[1:], id=row[0]) for row in SAME])
def test_what_computes_the_same_is_accepted(old, new, by_code):
    given = manifest(changed(old, new))
    assert saved().diff(given) == []
    lines = dataclasses.replace(saved(), program=None).diff(given)
    assert (lines == []) == by_code, lines


def test_a_file_that_moved_is_the_same():
    assert saved().diff(manifest(recipe_of(FILE, "elsewhere"))) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("jax_threefry_partitionable", False), ("jax_default_matmul_precision", "highest"), ("jax_enable_x64", True)],
)
def test_options_of_jax_that_change_numbers_are_compared(option, value):
    before = getattr(jax.config, option)
    jax.config.update(option, value)
    try:
        lines = saved().diff(manifest(recipe_of(FILE)))
    finally:
        jax.config.update(option, before)
    assert f"options.{option}: saved {'nothing' if before is None else before}, given {value}" in "\n".join(lines)


def test_other_versions_are_compared_by_words_and_code():
    program = {**saved().program, "versions": {"jax": "0.1"}}
    assert dataclasses.replace(saved(), program=program).diff(saved()) == []


def test_a_schedule_that_follows_the_run_asks_what_becomes_of_it_in_a_longer_one():
    longer = manifest(recipe_of(FILE.replace("1e-3, 100", "1e-3, 200")))
    same_words = {**saved().recipe, "epochs": 2 * saved().recipe["epochs"]}
    longer = dataclasses.replace(longer, recipe=same_words)
    words = r"its schedule follows the length of the run, .*\n.* pass accept=\('epochs', 'schedule'\)"
    with pytest.raises(ValueError, match=words):
        saved().check_same(longer, "here", frozenset(["epochs"]))
    assert saved().check_same(longer, "here", frozenset(["epochs", "schedule"])) == []


def test_a_walk_through_objects_ends():
    circle = {}
    circle["self"] = circle
    assert of_behaviour(circle) == of_behaviour(circle)
    assert without_addresses("<X object at 0xABCDEF>") == "<X object>"


def test_another_process_tells_the_same():
    """Whatever the order of its sets and the places of its objects."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_identity as t; m = t.saved()"
    told = subprocess.run(
        [sys.executable, "-c", script + "; print(m.program['parts'], m.recipe)"],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == f"{saved().program['parts']} {saved().recipe}\n"


def holding(value):
    """Return a function that has a value in a cell, as code on the host has its tools."""

    def hold(d):
        return value, d

    return hold


def with_attribute(function, value):
    function.scale = value
    return function


class Slotted:
    __slots__ = ("__hidden",)

    def __init__(self, value):
        self.__hidden = value


class Stubborn(dict):
    """Raises whatever it likes where another object has no such attribute."""

    __getattr__ = dict.__getitem__


HIDDEN = {  # pairs that differ, of what no attribute shows
    "a generator of numbers": lambda i: np.random.default_rng(i),
    "Python's generator of numbers": lambda i: random.Random(i),
    "a long pattern": lambda i: re.compile("a" * 300 + str(i)),
    "a queue": lambda i: collections.deque([holding(i)]),
    "a default of a dict": lambda i: collections.defaultdict(holding(i)),
    "a cached function": lambda i: functools.lru_cache(holding(i)),
    "an item": lambda i: operator.itemgetter(i),
    "a method's argument": lambda i: operator.methodcaller("take", i),
    "a count": lambda i: itertools.count(i),
    "a date": lambda i: datetime.date(2020, 1, 1 + i),
    "a function for every type": lambda i: functools.singledispatch(holding(i)),
    "a set of functions": lambda i: {holding(7), holding(i)},
    "bytes that change": lambda i: bytearray([i]),
    "a view of memory": lambda i: memoryview(bytes([i])),
    "a file in memory": lambda i: io.BytesIO(bytes([i])),
    "a mask": lambda i: np.ma.array([1.0, 2.0], mask=[0, i - 1]),
    "a shape of objects": lambda i: np.array(["a", "b"], object).reshape((i, -1)),
    "an order of a dict": lambda i: dict([("a", 1), ("b", 2)][:: 3 - 2 * i]),
    "an attribute of a function": lambda i: with_attribute(holding(7), i),
    "a method of a dict's kind": lambda i: type("Own", (dict,), {"__missing__": holding(i)})(),
    "a method of a float's kind": lambda i: type("Own", (float,), {"scaled": holding(i)})(3.0),
    "a method of a tuple's kind": lambda i: type("Own", (collections.namedtuple("P", "k"),), {"f": holding(i)})(1.0),
    "a value of an enumeration": lambda i: enum.Enum("Level", {"LOW": i})(i),
    "a private slot": lambda i: Slotted(i),
    "a kind of a class": lambda i: type("Meta", (type,), {"__call__": holding(i)})("Made", (), {}),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_state_that_no_attribute_shows_is_told(name):
    one, same, other = (of_behaviour(holding(HIDDEN[name](i))) for i in (1, 1, 2))
    assert one == same != other and "unknown" not in one


def test_what_was_only_computed_and_kept_does_not_count():
    used = Path("a/b")
    str(used), hash(used), used.parts  # which a path keeps
    assert of_behaviour(holding(used)) == of_behaviour(holding(Path("a/b")))
    many = [(i,) for i in range(25_000)]
    assert of_behaviour(holding(many)) == of_behaviour(holding(list(many)))
    assert of_behaviour(holding(Stubborn(k=1))) == of_behaviour(holding(Stubborn(k=1)))
    assert of_behaviour(holding(Stubborn(k=1))) != of_behaviour(holding(Stubborn(k=2)))


@pytest.mark.parametrize("name", ["scipy.special:expit", "scipy.stats:norm", "numpy:sin"])
def test_an_object_that_a_package_keeps_is_told_by_its_place(name):
    module, name = name.split(":")
    value = getattr(importlib.import_module(module), name)
    told = of_behaviour(holding(value))
    assert told == of_behaviour(holding(value)) and "unknown" not in told


@pytest.mark.parametrize(
    "make",
    [threading.Lock, threading.RLock, lambda: logging.getLogger("mine"), lambda: os.environ, lambda: sys.stdout]
    + [threading.Thread, threading.local, lambda: weakref.WeakValueDictionary(), lambda: random.random],
)
def test_handles_of_the_machine_are_no_obstacle(make):
    assert of_behaviour(holding(make())) == of_behaviour(holding(make()))


@pytest.mark.parametrize(
    "make",
    [lambda: (i for i in range(3)), lambda: np.frompyfunc(holding(1), 1, 1), lambda: eval("lambda d: eval('d')")]
    + [lambda: functools.reduce(lambda inner, _: [inner], range(5000), [])],
)
def test_what_cannot_be_told_is_equal_to_nothing(make):
    value = holding(make())
    one, again = of_behaviour(value), of_behaviour(value)
    assert one != again and "unknown, " in one


def test_what_a_function_imports_counts_as_what_it_names_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = {"own_helper": "def power(d):\n    return d ** {0}\n", "own_late": "LATE = {0}\n"}

    def told(**numbers):
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text.format(numbers.get(name, 2)))
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        space = {"__name__": "own_file"}
        exec(
            "import own_helper\ndef f(d):\n    from own_helper import power\n    import own_late\n    return power(d)\n"
            "def g(d):\n    return getattr(own_helper, 'po' + 'wer')(d)\n",
            space,
        )
        return of_behaviour(space["f"]), of_behaviour(space["g"])

    first, same, helper, late = told(), told(), told(own_helper=3), told(own_late=3)
    assert first == same
    assert first[0] != helper[0] and first[1] != helper[1]
    assert first[0] != late[0] and first[1] == late[1]


def test_an_installed_package_is_told_by_its_version():
    import hypothesis

    assert installed("hypothesis.strategies") == f"hypothesis {hypothesis.__version__}"
    assert installed("test_identity") is None and installed("nowhere") is None
    assert "unknown" not in of_behaviour(holding(hypothesis.given))


def test_host_code_that_cannot_be_told_is_refused_with_why_and_goes_on_where_it_is_accepted():
    hidden = FILE.replace("def on_host(d):", "ENDLESS = (i for i in iter(int, 1))\n\ndef on_host(d):").replace(
        "lambda a: np.float32(12.0) * a", "lambda a: np.float32(12.0 + next(ENDLESS)) * a"
    )
    before, given = manifest(recipe_of(hidden)), manifest(recipe_of(hidden))
    with pytest.raises(ValueError, match=r"unknown, the state of a generator is hidden.*\n.*accept=\('metrics',\)$"):
        before.check_same(given, "here")
    assert before.check_same(given, "here", frozenset(["metrics"])) == []
