"""Several processes train what one process with as many devices trains, and end together, whatever ends one of them.

Each test asks all that it has to ask in one pair of processes, for starting them is what takes the time.
"""

import json
import signal
import time
from types import SimpleNamespace

import jax
import numpy as np
import optax
import processes
import pytest

from jaxmlp import MLP, Recipe, losses, population
from jaxmlp._engine import devices as chooser
from jaxmlp._engine.hosts import ALONE, hosts_of
from jaxmlp.loop._changes import _same_bits

COMMON = """
import hashlib, pathlib, shutil, signal
from jax.experimental import multihost_utils
from jaxmlp.loop import Interrupted, NotSaved
DIRECTORY = pathlib.Path({directory!r})
x = np.random.default_rng(0).normal(size=(60, 3)).astype("f")
y = np.sin(x[:, :1])
recipe = Recipe(MLP((3, 8, 1), "tanh"), losses.squared_error, optax.adam, epochs=6, batch_size=20)
keys = jax.random.split(jax.random.key(0), 8)
hyperparams = {{"learning_rate": np.geomspace(1e-3, 1e-1, 8).astype("f")}}
hyperparams["learning_rate"][5] = 1e30  # it diverges
validation = x[:20], y[:20]

def digest(found):
    told = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        told.update(f"{{path}} {{leaf.dtype}} {{leaf.shape}}".encode() + np.asarray(leaf).tobytes())
    return told.hexdigest()[:16]

def plan(**options):
    return population.plan(keys, (x, y), recipe, hyperparams, **{{"width": 2, **options}})

def fit(keys=keys, data=(x, y), recipe=recipe, hyperparams=hyperparams, validation=validation, **options):
    if isinstance(recipe, Recipe):
        options = {{"plan": plan(), **options}}
    return population.fit(keys, data, recipe, hyperparams, validation=validation, **options)

def train(keys=keys, data=(x, y), recipe=recipe, hyperparams=hyperparams, **options):
    options = {{"progress": False, "validation": validation, "plan": plan(), "every": 2, **options}}
    return loop.train(keys, data, recipe, hyperparams, **options)

def kill(number, who=1, epochs=2):
    def callback(state, history):
        if history["loss"].shape[-1] == epochs and WHO == who:
            os.kill(os.getpid(), number)
    return callback

class Loader:
    def set_epoch(self, epoch):
        self.epoch = epoch
    def __iter__(self):
        order = np.random.default_rng(self.epoch).permutation(60)
        for rows in order.reshape(3, 20):
            yield x[rows], y[rows]
"""

# What has the same bits on two processes of two devices as on one of four.
SAME = """
found = {}
found["patience"] = digest(fit(stop=population.Patience(2), plan=plan(keep_best=True)))
found["halving"] = digest(fit(stop=population.Halving(2, 1)))
plain = fit()
found["status"] = np.asarray(plain[1].status).tolist()
found["plain"] = digest(plain)
states, history = fit(plan=plan(results="sharded"))
found["sharded"] = digest((states, history))
found["where"] = [jax.tree.leaves(states)[1].sharding.num_devices, jax.tree.leaves(plain[0])[1].sharding.num_devices]
first = fit(plan=plan(results="first"))
found["first"] = digest(first) if WHO == 0 else digest(plain)
found["others"] = [len(leaf) for leaf in jax.tree.leaves(first) if COUNT > 1 and WHO == 1 and len(leaf)]
seen = []
fit(callbacks=[lambda s, h: seen.append(digest((s, h)))] if WHO == 0 else [])
found["seen"] = seen if WHO == 0 else None
found["budget"] = np.asarray(fit(stop=population.Budget(1e-9) if WHO == COUNT - 1 else None)[1].epochs).tolist()
others = Recipe(MLP((3, 4, 1), "tanh"), losses.squared_error, optax.adam, epochs=3, batch_size=20)
found["recipes"] = digest(fit(keys[:4], recipe=[recipe, others, recipe, others], hyperparams={"learning_rate": 0.01}))
tables = np.stack([x + i for i in range(8)]), np.stack([y] * 8)
found["each"] = digest(fit(data=population.each(*tables)))
waves = plan(memory=90_000)
found["waves"], found["all at once"] = [waves.wave, digest(fit(plan=waves))], found["plain"]
scores = population.cross_validate(jax.random.key(1), (x, y), others, {"learning_rate": [0.1, 0.01]}, folds=3)
found["folds"] = [digest(scores.scores), digest(scores.states), scores.best()]
found["alone"] = digest(fit(plan=plan(devices=jax.local_devices()[:1], width=1)))
found["one"] = digest(loop.train(jax.random.key(0), (x, y), recipe, {"learning_rate": 0.01}, progress=False))
np.save(DIRECTORY / f"x{WHO}.npy", x)
np.save(DIRECTORY / f"y{WHO}.npy", y)
mapped = tuple(np.load(DIRECTORY / f"{name}{WHO}.npy", mmap_mode="r") for name in "xy")
found["mapped"] = digest(train(data=mapped))
found["loader"] = digest(train(data=Loader(), directory=DIRECTORY / f"loader-{COUNT}", every=4))
"""

SAVED = """
found["straight"] = digest(train())
found["saved"] = digest(train(directory=DIRECTORY / "whole", stop=population.Patience(9), progress=True))
try:
    train(directory=DIRECTORY / "cut", callbacks=[kill(signal.SIGTERM)] if WHO == 1 else [])
except Interrupted as error:
    found["interrupted"] = [str(error), digest((error.state, error.history))]
try:
    train(directory=DIRECTORY / "halved", stop=population.Halving(2, 1), callbacks=[kill(signal.SIGINT, who=0)])
except Interrupted as error:
    found["halved"] = str(error)
found["again"] = digest(train(directory=DIRECTORY / "halved", stop=population.Halving(2, 1)))
tell(**found)
"""

RESUMED = """
warnings.simplefilter("error")
found["straight"] = digest(train())
found["saved"] = digest(train(stop=population.Patience(9)))
found["again"] = digest(train(stop=population.Halving(2, 1)))
shutil.copytree(DIRECTORY / "cut", DIRECTORY / "copy")
found["four"] = digest(loop.resume(DIRECTORY / "cut", (x, y), validation=validation, progress=False))
found["two"] = digest(train(directory=DIRECTORY / "copy", plan=plan(devices=2)))
tell(**found)
"""


def test_two_processes_have_the_bits_of_one(tmp_path):
    common = COMMON.format(directory=str(tmp_path))
    with processes.Processes(common + SAME + SAVED) as pair:
        assert pair.wait() == [0, 0], "\n".join(pair.output(who)[-3000:] for who in range(2))
        two, printed = [pair.told(who) for who in range(2)], [pair.output(who) for who in range(2)]
    (one,) = processes.run(common + SAME + RESUMED, 1, 4)
    where = [told.pop("where") for told in two]
    seen, cut, halved = two[0].pop("seen"), [told.pop("interrupted") for told in two], two[0].pop("halved")
    assert two[1].pop("seen") is None and seen == one.pop("seen") and len(seen) == 6
    assert two[1].pop("halved") == halved and "interrupted after epoch 2 of 6" in halved
    assert two[0] == two[1]
    assert {name: one[name] for name in two[0]} == two[0]
    assert one["status"] == [0, 0, 0, 0, 0, 2, 0, 0] and one["waves"][0] < 8 and one["budget"] == [1] * 5 + [0, 1, 1]
    assert one["sharded"] == one["first"] == one["plain"] == one["all at once"] == one["waves"][1]
    assert where == [[4, 1]] * 2
    # Ended by a signal to one of them, and resumed on other devices without a word about it.
    assert cut[0] == cut[1] and "interrupted after epoch 2 of 6; saved in" in cut[0][0]
    assert one["four"] == one["two"] == one["straight"]
    # The first alone prints and writes.
    told = ["\n".join(line for line in text.splitlines() if "Gloo" not in line) for text in printed]
    assert "epoch 6/6" in told[0] and "ending after this chunk" not in told[0].split("epoch 6/6")[0] and not told[1]
    assert len((tmp_path / "whole" / "history.csv").read_text().splitlines()) == 1 + 8 * 6
