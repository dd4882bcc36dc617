"""Several processes train one population: to the bits of one process, or to one error on all of them."""

import random
import re
import time
from types import SimpleNamespace

import jax
import numpy as np
import processes
import pytest

from jaxmlp._engine import hosts
from jaxmlp._engine.devices import chosen_devices
from jaxmlp._engine.exchange import forget, is_told, told
from jaxmlp.loop._changes import _same_bits

# What all children know: twelve members, of which one diverges, and digests of every bit of a result.
BASE = """
import contextlib, hashlib, io, shutil, signal
x = np.random.default_rng(0).normal(size=(64, 3)).astype("f")
y = np.sin(x[:, :1])
recipe = Recipe(MLP((3, 8, 1), "tanh"), losses.squared_error, optax.adam, epochs=8, batch_size=16)
keys = jax.random.split(jax.random.key(0), 12)
rates = {"learning_rate": np.geomspace(1e-3, 1e-1, 12).astype("f")}
rates["learning_rate"][5] = 1e30
validation = x[:20], y[:20]

def digest(states, history):
    states = states._replace(key=jax.random.key_data(states.key))
    read = jaxmlp._engine.hosts.fetch((states, dict(history)))
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in jax.tree.leaves(read))).hexdigest()[:12]

def planned(members=12, width=2, **options):
    return population.plan(members, (x, y), recipe, rates, width=width, **options)

def fit(stop=None, table=(x, y), check=validation, **options):
    return population.fit(keys, table, recipe, rates, validation=check, stop=stop, plan=planned(**options))

def train(directory=None, stop=loop.Patience(3), **options):
    options = {"progress": False, "every": 2, "plan": planned(keep_best=True), **options}
    return loop.train(keys, (x, y), recipe, rates, validation=validation, stop=stop, directory=directory, **options)

def raised(call, *args, **options):
    try:
        call(*args, **options)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"
"""
# Each with another way of results, and of stops: on any number of processes the same figures are told.
FITS = """
fitted, shapes = {}, {}
def keep(name, states, history):
    fitted[name] = digest(states, history)
    shapes[name] = [len(states.params[0].w), *history["loss"].shape, *np.asarray(history.status).tolist()]
keep("patience", *fit(population.Patience(2), keep_best=True))
keep("halving", *fit(population.Halving(2, 1), results="sharded"))
tables = population.each(np.stack([x * (1 + i) for i in range(12)]), np.stack([y] * 12))
keep("tables", *fit(table=tables, check=None, results="first"))
least = int(raised(planned, width=1, memory=1).split(": ")[2].split(" bytes")[0].replace(",", ""))
waved = planned(width=1, memory=least)
keep("waves", *fit(width=1, memory=least))
"""
PAIR = """
printed = io.StringIO()
with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
    straight = digest(*train("{folder}/straight", progress=None))
def cut(states, history):
    if WHO == 1 and history["loss"].shape[1] == 4:
        os.kill(os.getpid(), signal.SIGTERM)
try:
    train("{folder}/cut", callbacks=[cut])
except loop.Interrupted as error:
    ended = [list(error.history["loss"].shape), str(error)]
tell(fitted=fitted, shapes=shapes, waves=str(waved), straight=straight, printed=printed.getvalue(), ended=ended)
"""
ALONE = """
warnings.simplefilter("error")
for devices in (2, 4):
    shutil.copytree("{folder}/cut", f"{folder}/cut{{devices}}")
resumed = [digest(*train(f"{folder}/cut{{n}}", plan=planned(keep_best=True, devices=n))) for n in (2, 4)]
again = digest(*loop.resume("{folder}/cut4", (x, y), validation=validation, progress=False))
tell(fitted=fitted, shapes=shapes, straight=digest(*train()), resumed=resumed, again=again)
"""


def test_two_processes_of_two_devices_have_the_bits_of_one_of_four(tmp_path):
    first, other = processes.run(BASE + FITS + PAIR.format(folder=tmp_path))
    (alone,) = processes.run(BASE + FITS + ALONE.format(folder=tmp_path), 1, 4)
    assert first["fitted"] == alone["fitted"] and first["shapes"] == alone["shapes"]
    none = {"tables": ([0, 0, 8], other["fitted"]["tables"])}  # whose results went to the first alone
    for name, digest in alone["fitted"].items():
        wanted = none.get(name, (alone["shapes"][name], digest))
        assert (other["shapes"][name], other["fitted"][name]) == wanted, name
    for name in ("patience", "halving", "waves"):
        status = alone["shapes"][name][3:]
        assert status[5] == 2 and status.count(2) == 1, name
    assert "4 CPU devices of 2 processes" in first["waves"] and "3 waves of 4 members" in first["waves"]
    # The loop: saved and shown by the first alone, ended together by a signal to one, resumed by anyone.
    straight = {first["straight"], other["straight"], alone["straight"], *alone["resumed"], alone["again"]}
    assert len(straight) == 1
    assert "epoch 8/8" in first["printed"].replace(" ", "").replace("epoch", "epoch ") and other["printed"] == ""
    assert first["ended"] == other["ended"] and first["ended"][0] == [12, 8]
    assert "interrupted after epoch 4 of 8; saved in" in first["ended"][1]


# On each line one process of two asks for another thing than the other, or raises.
REFUSED = """
other = WHO == 1
refused = {}
def ask(name, call, *args, **options):
    refused[name] = raised(call, *args, **options)

def strange(prediction, y):
    return ((prediction - y) ** 2).sum(-1) * 0.5

def loss(prediction, y):
    return strange(prediction, y) if other else losses.squared_error(prediction, y)

given = {"keys": keys, "data": (x, y), "recipe": recipe, "hyperparams": rates}
ask("data", population.fit, **given | {"data": (x + other, y)})
ask("hyperparams", population.fit, **given | {"hyperparams": {"learning_rate": 0.1 + 0.1 * other}})
ask("keys", population.fit, **given | {"keys": jax.random.split(jax.random.key(WHO), 12)})
import dataclasses
ask("code", population.fit, **given | {"recipe": dataclasses.replace(recipe, loss=loss)})
ask("code of a loop", loop.train, keys, (x, y), dataclasses.replace(recipe, loss=loss), rates, progress=False)
ask("door", population.fit, **given | {"data": (np.where(other, np.nan, x), y)})
ask("results", planned, results="nowhere")
ask("divide", planned, 11, results="sharded")
ask("devices", planned, devices=3)
ask("own devices", planned, devices=jax.devices()[:2])  # those of the first process
ask("plans", population.fit, **given | {"plan": planned(results="first" if other else "everywhere")})
ask("order", population.fit, **given | {"plan": planned(devices=jax.devices()[:: -1 if other else 1])})
everywhere = planned()
ask("one plan", population.fit, **given | {"plan": everywhere if other else None})
ask("another line", (population.fit if other else loop.train), *given.values())
ask("directory", train, "{folder}/one" if other else None)
ask("accept", train, "{folder}/one", accept="data" if other else ())
ask("rules", train, stop=loop.Patience(2 + other))

def raising(error):
    def call(states, history):
        if other and history["loss"].shape[1] >= 4:
            raise error
    return [call]

ask("callback", train, "{folder}/callback", callbacks=raising(KeyError("of one")), every=None)
again = OSError("of one")
for _ in range(2):  # the same error in two calls
    ask("callback of a fit", population.fit, **given | {"callbacks": raising(again)})
ask("exit", train, callbacks=raising(SystemExit(3)))

class Batches:
    def __init__(self, ends, error=None):
        self.ends, self.error = ends, error
    def __iter__(self):
        for i in range(self.ends):
            yield x[i * 16 :][:16], y[i * 16 :][:16]
        if self.error:
            raise self.error

def stream(batches):
    return loop.train(keys, batches, recipe, rates, progress=False, every=1)

ask("stream", stream, Batches(4, OSError("no more") if other else None))
ask("short stream", stream, Batches(3 if other else 4))
if other:  # each by itself, and nobody waits for the other
    raised(fit, devices=jax.local_devices())
tell(refused=refused, saved=sorted(os.listdir("{folder}")), together=digest(*train()))
"""
DIFFERS = {"data": "data", "hyperparams": "hyperparams", "keys": "key", "code": "program", "code of a loop": "program"}
DIFFERS |= {"plans": "plan", "order": "plan", "directory": "directory", "accept": "accept", "rules": "stop"}
ALIKE = {  # what both say
    "results": "ValueError: results must be one of",
    "divide": "ValueError: results='sharded' must have all members in memory at once and as many on each of 4 devices",
    "devices": "ValueError: devices must be as many of each of 2 processes; got 3",
}
TOLD = {  # what the second says, and how the first says it
    "door": ("ValueError: x must be finite", "ValueError: process 1 of 2 could not go on"),
    "callback": ("KeyError: 'of one'", "RuntimeError: process 1 of 2 could not go on, and so none can: KeyError"),
    "exit": ("SystemExit: 3", "RuntimeError: process 1 of 2 could not go on, and so none can: SystemExit: 3"),
    "callback of a fit": ("OSError: of one", "RuntimeError: process 1 of 2 could not go on, and so none can: OSError"),
    "stream": ("no more", "process 1 of 2 could not go on, and so none can"),
    "short stream": ("how far the data goes: process 1 of 2 differs", "how far the data goes: process 1 of 2 differs"),
    "own devices": ("ValueError: devices must be of this process alone or of all 2", "nothing"),
    "one plan": ("RuntimeError: all processes must run the same lines", "process 0 is at a comparison"),
    "another line": ("RuntimeError: all processes must run the same lines", "process 1 is at the end of a part"),
}


def test_what_one_process_is_refused_all_are(tmp_path):
    first, other = processes.run(BASE + REFUSED.replace("{folder}", str(tmp_path)), shutdown=20, timeout=100)
    assert first["together"] == other["together"]  # they are still together after all of it
    one, two = first["refused"], other["refused"]
    for name, what in DIFFERS.items():
        assert one[name] == two[name] and one[name].startswith("ValueError: all processes must train the same"), name
        assert re.search(rf"\n  {what}\b[^\n]*: process 1 of 2 differs from process 0\n", one[name]), one[name]
    for name, words in ALIKE.items():
        assert one[name] == two[name] and one[name].startswith(words), name
    for name, (words, told_first) in TOLD.items():
        assert words in two[name] and told_first in one[name], name


def test_one_process_by_itself_asks_nobody():
    alone = hosts.ALONE
    assert not alone.many and alone.leads and alone.either(True, False) == (True, False)
    assert alone.of_first(0.3) == 0.3 and alone.texts("a", "letters") == ["a"] and alone.from_first([1]) == [1]
    alone.ready()
    alone.check_same({"data": "a"}, "")
    with pytest.raises(KeyError), alone.alike():
        raise KeyError
    assert hosts.everyone() == hosts.hosts_of(jax.devices()) == hosts.hosts_of_call(None) == alone
    here = jax.numpy.ones(3)
    assert hosts.fetch({"a": here})["a"] is here


def of_processes(*owners):
    return [SimpleNamespace(process_index=owner) for owner in owners]


def test_devices_are_those_of_one_process_or_of_all(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert hosts.hosts_of(of_processes(1, 1)) == hosts.ALONE
    assert hosts.hosts_of(of_processes(0, 1, 1, 2)) == hosts.everyone() == hosts.Hosts(3, 1)
    assert not hosts.everyone().leads
    for owners in ((0,), (0, 1), (1, 2), (0, 2)):
        with pytest.raises(ValueError, match=r"of this process alone or of all 3, .*got those of \[.*pass jax.devices"):
            hosts.hosts_of(of_processes(*owners))
    monkeypatch.setattr(jax, "devices", lambda: of_processes(0, 0, 1, 1, 2))
    with pytest.raises(ValueError, match=r"as many of each of 3 processes; got 4; pass a multiple"):
        chosen_devices(4, 8)
    with pytest.raises(ValueError, match=r"at most the 5 of all 3 processes; got 6"):
        chosen_devices(6, 8)
    assert [device.process_index for device in chosen_devices(3, 8)[0]] == [0, 1, 2]
    monkeypatch.setattr(jax, "devices", lambda: of_processes(0, 0, 0, 0, 1, 2))
    with pytest.raises(ValueError, match=r"on each process alike; got 6 of 6; pass a list"):
        chosen_devices(6, 8)


def test_the_same_bits_are_those_of_one_width_on_some_devices():
    def layout(width, devices):
        return {"width": width, "devices": devices}

    assert _same_bits(layout(2, 2), layout(2, 8)) and _same_bits(layout(1, 1), layout(1, 4))
    assert not _same_bits(layout(2, 1), layout(2, 4)) and not _same_bits(layout(2, 4), layout(4, 4))


def test_an_error_that_all_know_is_told_once():
    error = told(ValueError("known"))
    try:
        raise RuntimeError("of it") from error
    except RuntimeError as other:
        assert is_told(error) and is_told(other) and not is_told(ValueError("new")) and not is_told(None)
        forget(other)
        assert not is_told(other) and not is_told(error)


LONG = """
import dataclasses
recipe = dataclasses.replace(recipe, epochs=300)
tell(done=digest(*train({directory!r}, every=1, keep=2)))
"""
HEARTBEAT = 10
WORDS = ("all processes of a run must live to its end", "JAX distributed service detected fatal errors")


def epochs_in(directory):
    """Return how many lines the history on the disk has."""
    path = directory / "history.csv"
    return len(path.read_text().splitlines()) if path.exists() else 0


# One network that lies on both processes: each writes its own parts, and the run waits for them.
WIDE = """
import dataclasses
from jaxmlp import sharding
wide = Recipe(MLP((3, 16, 16, 1)), losses.squared_error, optax.adam, epochs=300, batch_size=12)
mesh = jax.make_mesh((2, 2), ("data", "model"))
begun = sharding.start(jax.random.key(1), wide, {{"learning_rate": 0.01}}, mesh=mesh, fsdp=True)
options = {{"params": begun, "directory": {directory!r}, "every": 1, "keep": 2, "progress": False}}
state, history = loop.train(jax.random.key(1), (x, y), wide, {{"learning_rate": 0.01}}, **options)
tell(done=digest(state, history))
"""


def kill_one(directory, chance, script=LONG):
    """Start two processes, kill one after a few epochs more, and return how long the other lived, and what it said."""
    begun, more, who = epochs_in(directory), chance.randint(1, 40), chance.randint(0, 1)
    with processes.Processes(BASE + script.format(directory=str(directory)), heartbeat=HEARTBEAT) as pair:
        end = time.monotonic() + 200
        while epochs_in(directory) < begun + more:
            assert time.monotonic() < end and all(c.poll() is None for c in pair.children), pair.output(0)[-2000:]
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))  # anywhere in an epoch or in the saving of it
        pair.children[who].kill()
        killed, other = time.monotonic(), pair.children[1 - who]
        saving = any(path.name.endswith(".saving") for path in directory.iterdir())
        code = other.wait(HEARTBEAT + 60)
        return who, code, time.monotonic() - killed, saving, pair.output(1 - who)


@pytest.mark.long
@pytest.mark.parametrize("seed,script", [(0, LONG), (1, LONG), (2, WIDE)])
def test_where_one_of_two_is_killed_the_other_ends_and_the_run_goes_on_to_its_bits(tmp_path, seed, script):
    """Ten kills of one run each: twenty of a population, and ten of one network that lies on both."""
    chance, lived = random.Random(seed), []
    for _ in range(10):
        who, code, seconds, saving, output = kill_one(tmp_path / "run", chance, script)
        words = [word for word in WORDS if word in output]
        lived.append((who, code, round(seconds, 1), saving, [WORDS.index(word) for word in words]))
        print(lived[-1], epochs_in(tmp_path / "run"), flush=True)
        assert code not in (0, None) and words, output[-3000:]
        assert seconds < HEARTBEAT + 15, lived
    first, other = processes.run(BASE + script.format(directory=str(tmp_path / "run")))
    # A population has the bits of one process; the sums of one network over two have an order of their own.
    alone, *_ = processes.run(BASE + script.format(directory=None), *((1, 4) if script == LONG else (2, 2)))
    assert first == other == alone


# What takes longer: the same on two processes of two devices as on one of four.
MORE = """
rate = {{"learning_rate": 0.01}}
crossed = jax.random.key(1), (x, y), recipe, {{"learning_rate": np.array([1e-3, 1e-2])}}
told, apart = {{}}, {{}}
recipes = [dataclasses.replace(recipe, epochs=4, batch_size=size) for size in (16, 32)] * 4
states, history = population.fit(keys[:8], (x, y), recipes, rate)
told["lists"] = [np.asarray(history["loss"]).tolist(), np.asarray(states[3].params[0].w).tolist()]
saved = {{"directory": "{folder}/lists{{}}".format(COUNT), "progress": False}}
states, history = loop.train(keys[:8], (x, y), recipes, rate, **saved)
told["lists of a loop"] = np.asarray(history["loss"]).tolist()
scores = population.cross_validate(*crossed, folds=4)
told["cross-validation"] = [np.asarray(scores.scores["loss"]).tolist(), scores.best()]
told["mapped"] = digest(*loop.train(keys, "{folder}/files", recipe, rates, every=2, progress=False))
spans = []
def part():
    result = train("{folder}/budget{{}}".format(COUNT), stop=[loop.Patience(3), loop.Budget(1e-6)], every=None)
    spans.append(result[1]["loss"].shape[1] - int(np.isnan(np.asarray(result[1]["loss"])[0]).sum()))
    return result
for _ in range(8):
    result = part()
told["budget"] = digest(*result)
assert len(set(spans)) > 2, spans
if COUNT > 1:
    plan = planned(8, results="first")
    apart["first"] = raised(population.cross_validate, *crossed, folds=4, plan=plan)
    if WHO == 0:
        open("{folder}/file", "w").close()
    apart["no folder"] = raised(train, "{folder}/file")
    from jaxmlp.loop import _saving
    save, count = _saving.Checkpoints.save, []
    def full(*args, **options):
        count.append(0)
        if len(count) == 3:
            raise loop.NotSaved("the disk is full")
        return save(*args, **options)
    _saving.Checkpoints.save = full  # which the first alone calls
    try:
        train("{folder}/full")
    except loop.NotSaved as error:
        apart["full"] = [str(error), digest(error.state, error.history), len(count)]
    _saving.Checkpoints.save = save
    told["after"] = digest(*train("{folder}/full"))
    def warn(states, history):
        if WHO == 1:
            warnings.warn("of one")
    with warnings.catch_warnings():
        if WHO == 1:
            warnings.simplefilter("error")
        apart["warning"] = raised(train, callbacks=[warn])
    def end(states, history):
        if WHO == 1:
            raise KeyboardInterrupt
    apart["Ctrl-C"] = raised(population.fit, keys, (x, y), recipe, rates, callbacks=[end])
    states, history = fit(results="sharded")
    apart["sharded"] = [str(states.params[0].w.sharding.spec), states.params[0].w.is_fully_addressable]
else:
    told["after"] = digest(*train())
tell(told=told, apart=apart)
"""


@pytest.mark.long
def test_all_else_is_that_of_one_process(tmp_path):
    (tmp_path / "files").mkdir()
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("f")
    np.save(tmp_path / "files" / "x.npy", x)
    np.save(tmp_path / "files" / "y.npy", np.sin(x[:, :1]))
    script = "import dataclasses\n" + BASE + MORE.format(folder=tmp_path)
    first, other = processes.run(script)
    (alone,) = processes.run(script, 1, 4)
    assert first["told"] == other["told"] == alone["told"]
    one, two = first["apart"], other["apart"]
    assert one["first"] == two["first"] and "plan must bring the results to all processes" in one["first"]
    assert "is a file; pass another" in one["no folder"] and one["no folder"] in two["no folder"]
    assert "the disk is full" in two["full"][0] and one["full"][1] == two["full"][1] and two["full"][2] == 0
    assert "UserWarning: of one" in two["warning"] and "could not go on" in one["warning"]
    assert two["Ctrl-C"].startswith("KeyboardInterrupt") and "process 1 of 2 could not go on" in one["Ctrl-C"]
    assert one["sharded"] == two["sharded"] and "members" in one["sharded"][0] and not one["sharded"][1]


# A loader that all members share, one network, a callback of one process alone, and devices that differ in number.
SHARED = """
class Batches:
    def set_epoch(self, epoch):
        self.epoch = epoch
    def __iter__(self):
        order = np.random.default_rng(self.epoch).permutation(64)
        for i in range(0, 64, 16):
            yield x[order[i : i + 16]], y[order[i : i + 16]]

def stream(**options):
    return loop.train(keys, Batches(), recipe, rates, validation=validation, progress=False, every=3, **options)

def cut(states, history):
    if WHO == COUNT - 1 and history["loss"].shape[1] == 3:
        os.kill(os.getpid(), signal.SIGTERM)

where = "{folder}/{{}}".format(COUNT)
told = {{"stream": digest(*stream())}}
told["cut"] = raised(stream, directory=where, callbacks=[cut] if WHO == COUNT - 1 else []).split(";")[0]
told["resumed"] = digest(*stream(directory=where))
one = jax.random.key(3), (x, y), recipe, {{"learning_rate": 0.01}}
state, history = loop.train(*one, directory=f"{{where}}-one", progress=False)
told["one"] = digest(state, history)
told["some"] = digest(*fit(devices=jax.devices()[:3]))
seen = []
population.fit(keys, (x, y), recipe, rates, callbacks=[lambda s, h: seen.append(digest(s, h))] if WHO == 0 else [])
tell(told=told, seen=seen)
"""


@pytest.mark.long
def test_streams_and_odd_calls_are_those_of_one_process(tmp_path):
    script = BASE + SHARED.format(folder=tmp_path)
    first, other = processes.run(script)
    (alone,) = processes.run(script, 1, 4)
    assert first["told"] == other["told"] == alone["told"]
    assert alone["told"]["resumed"] == alone["told"]["stream"] and "interrupted after step" in alone["told"]["cut"]
    assert first["seen"] == alone["seen"] and len(alone["seen"]) == 8 and not other["seen"]
