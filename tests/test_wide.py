"""One network on a mesh of devices in the loop: it trains as `fit` does there, its state stays, and its run goes on.

What needs more devices than this process has is asked in children; a run is killed in one and goes on in another.
"""

import shutil
import signal

import jax
import numpy as np
import pytest
from processes import Processes, run

from jaxmlp import loop
from jaxmlp.loop import _lying
from jaxmlp.loop._fields import LAYOUT

# As in this process: equal bits need equal compilers.
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
# What a child begins with, for the questions that this process answers itself.
HERE = """
import jax, jax.numpy as jnp, numpy as np, optax
import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses
"""
COMMON = """
import os, signal, tempfile, warnings
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from jaxmlp import sharding
from jaxmlp._placement import spread
X = np.random.default_rng(0).normal(size=(64, 3)).astype("f")
Y = np.sin(X.sum(1, keepdims=True))
KEY, RATE, QUIET = jax.random.key(1), {"learning_rate": 0.01}, {"progress": False}
NET = MLP((3, 16, 16, 1))
RECIPE = Recipe(NET, losses.squared_error, optax.adam, epochs=6, batch_size=12)
BEGUN = NET.init(jax.random.split(KEY)[0])

def mesh_of(shape, kind=AxisType.Auto):
    devices = np.array(jax.devices()[: int(np.prod(list(shape.values())))]).reshape(list(shape.values()))
    return Mesh(devices, tuple(shape), axis_types=(kind,) * len(shape))

def placed(mesh, fsdp=False):
    specs = sharding.rules(NET, mesh, fsdp=fsdp)
    return jax.tree.map(lambda a, spec: spread(a, mesh, spec), BEGUN, specs)

def table(mesh, x=X, y=Y):
    return tuple(spread(a, mesh, P("data" if "data" in mesh.axis_names else None)) for a in (x, y))

def words(tree):  # keys as integers, which NumPy can hold
    kinds = jax.tree.map(lambda a: jnp.issubdtype(a.dtype, jax.dtypes.prng_key), tree)
    return jax.tree.leaves(jax.tree.map(lambda a, is_key: jax.random.key_data(a) if is_key else a, tree, kinds))

def far(one, other):
    return max(float(np.abs(np.asarray(a, "f8") - np.asarray(b, "f8")).max()) for a, b in zip(words(one), words(other)))

def same(one, other):
    return all(bool((np.asarray(a) == np.asarray(b)).all()) for a, b in zip(words(one), words(other), strict=True))

def lies_as(one, other):
    return all(a.sharding.is_equivalent_to(b.sharding, a.ndim) for a, b in zip(words(one), words(other), strict=True))

def train(mesh, fsdp=False, recipe=RECIPE, rate=RATE, **options):
    if mesh is None:
        return loop.train(KEY, (X, Y), recipe, rate, params=BEGUN, **QUIET, **options)
    return loop.train(KEY, table(mesh), recipe, rate, params=placed(mesh, fsdp), **QUIET, **options)

class Ended(Exception):
    pass

def ending(epochs):
    def end(state, history):
        if len(history["loss"]) == epochs:
            raise Ended
    return [end]

def begun(mesh, directory, fsdp=False, **options):
    try:
        train(mesh, fsdp, directory=directory, every=1, callbacks=ending(3), **options)
    except Ended:
        pass

def on(shape):
    return shape and mesh_of(shape)

DP, TP, BOTH, FEW = {"data": 8}, {"model": 8}, {"data": 4, "model": 2}, {"data": 2}
MESHES = {"dp": (DP, False), "tp": (TP, False), "both": (BOTH, False), "fsdp": (DP, True)}
"""
# Saves after every epoch and is killed after the third, before anything can be tidied up.
KILLED = """
def kill(state, history):
    if len(history["loss"]) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
train(on({shape}), directory={directory!r}, every=1, callbacks=[kill])
"""
ONE_CHILD = """
told = {}
reference, losses_of_one = jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, params=BEGUN)
for name, (shape, fsdp) in MESHES.items():
    mesh, seen = mesh_of(shape), []
    fitted, fit_history = jaxmlp.fit(KEY, table(mesh), RECIPE, RATE, params=placed(mesh, fsdp))
    state, history = train(mesh, fsdp, every=2, callbacks=[lambda s, h: seen.append((s, h))])
    told[name] = {
        "far from one device": far((state.params, history["loss"]), (reference.params, losses_of_one["loss"])),
        "far from fit": far((state.params, history["loss"]), (fitted.params, fit_history["loss"])),
        "lies as in fit": lies_as(state.params, fitted.params) and lies_as(state.opt_state, fitted.opt_state),
        "seen": [len(h["loss"]) for _, h in seen],
        "seen lies": all(lies_as(s.params, fitted.params) for s, _ in seen),
        "split": not state.params[1].w.sharding.is_fully_replicated,
    }

mesh = mesh_of(BOTH)
check = {"validation": (X[:10], Y[:10])}
wide = train(mesh, every=1, stop=loop.Patience(1), **check)
alone = train(None, every=1, stop=loop.Patience(1), **check)
told["patience"] = [far(wide[0].params, alone[0].params), list(wide[1]) == list(alone[1]),
                    wide[0].params[1].w.sharding.is_equivalent_to(placed(mesh)[1].w.sharding, 2)]
level = float(losses_of_one["loss"][2])
told["target"] = len(train(mesh, stop=loop.Target("loss", at_most=level * 1.001))[1]["loss"])
told["budget"] = len(train(mesh, every=1, stop=loop.Budget(1e-6))[1]["loss"])
try:
    train(mesh, rate={"learning_rate": 1e38})
except loop.NonFinite as error:
    told["non-finite"] = lies_as(error.state.params, placed(mesh))
def interrupt(state, history):
    os.kill(os.getpid(), signal.SIGINT)
try:
    train(mesh, every=1, callbacks=[interrupt])
except loop.Interrupted as error:
    told["interrupted"] = [len(error.history["loss"]), lies_as(error.state.params, placed(mesh))]

told["moved"] = []
for one, two in ((BOTH, FEW), (BOTH, None), (None, BOTH), (TP, DP), (BOTH, BOTH)):
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begun(on(one), directory)
        state, history = train(on(two), directory=directory, every=1)
    lies = two is None or lies_as(state.params, placed(mesh_of(two)))
    told["moved"].append([far((state.params, history["loss"]), (reference.params, losses_of_one["loss"])), lies,
                          [str(w.message) for w in caught if "layout" in str(w.message)]])
with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
    warnings.simplefilter("error")
    begun(mesh, directory)
    state, _ = loop.resume(directory, (X, Y), progress=False)
    told["resumed"] = same(state, train(mesh, every=1)[0]) and lies_as(state.params, placed(mesh))
with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    begun(mesh, directory)
    other = sharding.place(MLP((3, 16, 1)).init(KEY), mesh)
    try:
        loop.resume(directory, (X, Y), like=other, progress=False)
    except ValueError as error:
        told["other net"] = str(error)
    plain = Recipe(NET, losses.squared_error, optax.sgd, epochs=6, batch_size=12)
    state, history = loop.resume(directory, (X, Y), plain, accept="optimizer", progress=False)
    told["other optimizer"] = [len(history["loss"]), lies_as(state.params, placed(mesh))]
told["data alone"] = []  # rows lie on a mesh, and nothing says where parameters are to
for again in (lambda where: loop.train(KEY, table(mesh), RECIPE, RATE, directory=where, **QUIET),
              lambda where: loop.resume(where, table(mesh), progress=False),
              lambda where: loop.resume(where, (X, Y), progress=False)):
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            loop.train(KEY, table(mesh), RECIPE, RATE, directory=directory, every=1, callbacks=ending(3), **QUIET)
        except Ended:
            pass
        state, _ = again(directory)
        told["data alone"].append([far(state.params, reference.params), len(state.params[0].w.sharding.device_set)])
told["killed"] = same(train(mesh, directory=KILLED, every=1), train(mesh, every=1))

with tempfile.TemporaryDirectory() as folder:
    np.save(f"{folder}/x.npy", X), np.save(f"{folder}/y.npy", Y)
    state, history = loop.train(KEY, folder, RECIPE, RATE, params=placed(mesh), **QUIET)
told["stream"] = [far(state.params, reference.params), lies_as(state.params, placed(mesh))]
tell(**told)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return the directory of a run on 4 x 2 devices whose process was killed."""
    directory = tmp_path_factory.mktemp("killed") / "run"
    shape = {"data": 4, "model": 2}
    with Processes(COMMON + KILLED.format(shape=shape, directory=str(directory)), 1, 8, env=QUICK) as processes:
        assert processes.wait() == [-signal.SIGKILL], processes.output(0)[:3000]
    return directory


@pytest.fixture(scope="module")
def told(killed, tmp_path_factory):
    """Return what one child with eight devices found."""
    mine = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(killed, mine)
    return run(COMMON + f"KILLED = {str(mine)!r}" + ONE_CHILD, 1, 8, env=QUICK)[0]


@pytest.mark.parametrize("name", ["dp", "tp", "both", "fsdp"])
def test_a_network_trains_on_a_mesh_as_on_one_device_and_as_fit_does_there(told, name):
    found = told[name]
    assert found["far from one device"] < 1e-6
    assert found["far from fit"] == 0
    assert found["lies as in fit"] and found["seen lies"]
    assert found["seen"] == [2, 4, 6]
    assert found["split"] == (name != "dp")


def test_rules_end_a_run_on_a_mesh_as_one_on_one_device(told):
    far, names, lies = told["patience"]
    assert far < 1e-6 and names and lies
    assert told["target"] == 3 and told["budget"] == 1


def test_errors_of_a_run_on_a_mesh_have_the_state_as_it_lies(told):
    assert told["non-finite"]
    assert told["interrupted"] == [1, True]


def test_a_run_goes_on_over_other_devices_and_says_so(told):
    *others, again = told["moved"]
    for far, lies, warned in others:
        assert far < 1e-6 and lies
        assert warned and "only equal devices promise equal bits" in warned[0]
    assert again[1:] == [True, []]


def test_a_run_goes_on_where_it_lay_also_where_only_the_checkpoint_says_where(told):
    assert told["resumed"]


def test_a_run_whose_rows_alone_lie_on_a_mesh_goes_on_there(told):
    assert all(far < 1e-6 and devices == 8 for far, devices in told["data alone"])


def test_another_net_is_no_like_and_another_optimizer_follows_the_parameters(told):
    assert "like must be as the parameters of the run, of shapes [(3, 16), (16,), (16, 16)," in told["other net"]
    assert told["other optimizer"] == [6, True]


@pytest.mark.parametrize(
    "axes,params,data,lies",
    [
        ({"data": 2}, [[["data"]], []], None, [("data",), ()]),
        ({"data": 2}, None, None, None),  # all whole
        ({"data": 4}, [[["data"]], []], None, [("data",), ()]),  # over the two that are here
        ({"data": 4, "model": 2}, [[["model"]], []], None, [("model",), ()]),
        ({"model": 4}, [[["model"]], []], None, "one device"),
        ({"data": 3, "model": 3}, [[["model"]], []], None, "one device"),
        ({"a": 4}, [[["a"]], []], "data", [(), ()]),  # the mesh of the data has other axes
        ({"data": 4}, [[[], ["data"]], [["data"]]], "data", [(), ()]),  # no such dimension, and 3 is not divided
        ({"data": 2}, [[["data"]]], None, None),  # of another network
    ],
)
def test_a_checkpoint_says_where_parameters_lay(axes, params, data, lies):
    if data is not None:
        data = (jax.device_put(np.ones(2), jax.NamedSharding(jax.make_mesh((2,), (data,)), jax.P(data))),)
    told = {"axes": axes, "rows": ["data"], "params": params}
    found = _lying.laid_so(told, [np.ones(4), np.ones(3)], data, None)
    assert (found is None) == (lies == "one device")
    if found is not None:
        assert found.params == (lies and tuple(jax.P(*spec) for spec in lies))
        assert found.mesh.size == 2 and found.rows == (("data",) if "data" in found.mesh.axis_names else ())
    assert _lying.laid_so(None, [np.ones(4)], data, None) is None


def test_words_of_a_checkpoint_that_lay_nothing_are_refused():
    many = {"axes": {f"a{i}": 1 for i in range(99)}, "rows": [], "params": [[[]]]}
    for told in (
        {"axes": {"data": 2}, "rows": [], "params": [[["data"], ["data"]]]},
        {"axes": {"data": 2}, "rows": [], "params": [[["other"]]]},
        many,
    ):
        with pytest.raises(
            ValueError, match="layout.mesh of the checkpoint must split a parameter over its axes, each"
        ):
            _lying.laid_so(told, [np.ones((2, 2))], None, None)
    with pytest.raises(ValueError, match="layout.mesh.axes.data"):
        LAYOUT(
            "layout",
            {"width": 1, "devices": 1, "kind": "cpu", "mesh": {"axes": {"data": 0}, "rows": [], "params": None}},
        )


def test_a_run_on_a_mesh_that_is_killed_ends_with_the_bits_of_one_that_was_not(told):
    assert told["killed"]


def test_a_run_that_is_killed_goes_on_in_a_process_with_fewer_devices(killed, told, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    names: dict = {}
    exec(HERE + COMMON, names)
    with pytest.warns(UserWarning, match="only equal devices promise equal bits"):
        state, history = names["train"](names["mesh_of"]({"data": 2}), directory=tmp_path / "run", every=1)
    assert len(state.params[1].w.sharding.device_set) == len(jax.devices()) == 2
    straight, losses = names["train"](None)
    assert names["far"]((state.params, history["loss"]), (straight.params, losses["loss"])) < 1e-6


def test_files_are_read_by_a_mesh_in_the_order_of_one_device(told):
    far, lies = told["stream"]
    assert far < 1e-6 and lies


# Each process says which rows of the files it has read after the first batch, which tells shapes.
READING = """
from jaxmlp.loop.streams import Files
rows, gather = [], Files._gather
def spy(self, which):
    rows.append(np.array(which).tolist())
    return gather(self, which)
Files._gather = spy
mesh, told = mesh_of({"data": 4}), {}
for size in (16, 14):  # the devices do not divide the second
    rows.clear()
    recipe = Recipe(NET, losses.squared_error, optax.adam, epochs=2, batch_size=size)
    state, history = loop.train(KEY, FOLDER, recipe, RATE, params=placed(mesh), **QUIET)
    alone, losses_of_one = jaxmlp.fit(KEY, (X, Y), recipe, RATE, params=BEGUN)
    weights = [np.asarray(a.addressable_data(0)) for a in jax.tree.leaves(state.params)]
    told[str(size)] = {"rows": rows[1:], "far": [far(weights, jax.tree.leaves(alone.params)),
                                                 far(history["loss"], losses_of_one["loss"])]}
tell(**told)
"""


def test_each_process_reads_its_own_rows_of_files(tmp_path):
    names: dict = {}
    exec(HERE + COMMON, names)
    np = names["np"]
    np.save(tmp_path / "x.npy", names["X"]), np.save(tmp_path / "y.npy", names["Y"])
    found = run(COMMON + f"FOLDER = {str(tmp_path)!r}" + READING, 2, 2, env=QUICK)
    for told in found:
        assert max(told["16"]["far"] + told["14"]["far"]) < 1e-6
    one, other = (told["16"]["rows"] for told in found)
    for mine, others in zip(one, other, strict=True):  # an epoch each
        assert len(mine) == len(others) == 32 and sorted(mine + others) == list(range(64))
    one, other = (told["14"]["rows"] for told in found)
    for mine, others in zip(one, other, strict=True):  # 5 batches, of 8 places on each process
        assert len(mine) == len(others) == 40 and set(mine + others) == set(range(64))


# On two processes of two devices: a run is ended and goes on; one that began elsewhere comes; all must see the disk.
JOINT = """
from jaxmlp._engine.hosts import fetch
MESH = mesh_of({"model": 4})  # each process has a half of the weights
straight, losses_of_it = train(MESH, every=1)
watched = {"validation": (X[:10], Y[:10]), "stop": loop.Patience(9)}
best, _ = train(MESH, every=1, **watched)
begun(MESH, FOLDER + "/run")
again, losses_again = train(MESH, every=1, directory=FOLDER + "/run")
begun(MESH, FOLDER + "/best", **watched)
best_again, _ = train(MESH, every=1, directory=FOLDER + "/best", **watched)
begun(MESH, FOLDER + "/late", validation=watched["validation"])
late, _ = train(MESH, every=1, directory=FOLDER + "/late", **watched)
resumed, _ = loop.resume(FOLDER + "/run", (X, Y), progress=False)
begun(MESH, FOLDER + "/left")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    moved, _ = loop.resume(FOLDER + "/came", (X, Y), like=placed(MESH), progress=False)
with warnings.catch_warnings(record=True) as others:
    warnings.simplefilter("always")
    alone, _ = loop.resume(FOLDER + "/alone", (X, Y), progress=False)
    _, other = loop.resume(FOLDER + "/other", (X, Y), FEWER, accept="optimizer", progress=False)
whole = lambda state: fetch(jax.tree.leaves(state.params))
said = []
for options in ({"directory": FOLDER + f"/own-{WHO}/run"}, {"recipe": FEWER, "directory": FOLDER + "/left"}):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(MESH, every=1, accept="optimizer", **options)
    except ValueError as error:
        said.append(str(error))
# What lies on several processes, at the doors of one.
from jax.experimental.multihost_utils import process_allgather
from jaxmlp import interop, metrics, population, records, serving, transforms
explicit = mesh_of({"model": 4}, AxisType.Explicit)
split, (many, rates) = placed(explicit), (
    jax.jit(lambda: (jax.random.split(KEY, 4), jnp.arange(4.0)), out_shardings=NamedSharding(explicit, P("model")))()
)
refused = []
for door in (
    lambda: serving.in_numpy(NET, split), lambda: jaxmlp.save(FOLDER + f"/{WHO}", NET, split),
    lambda: interop.export(NET, split), lambda: population.part(many, of=2, number=0),
    lambda: population.part(KEY[None], {"learning_rate": rates}, of=1, number=0),
    lambda: population.grid(learning_rate=rates), lambda: list(records.rows({"loss": rates})),
    lambda: population.ranking({"loss": rates, "status": rates, "epochs": rates}),
    lambda: transforms.Scaled(NET, x=transforms.Standard()).fitted(split[1].w),
):
    try:
        door()
    except ValueError as error:
        refused.append(str(error))
ALONE = NET.apply(BEGUN, X)
outputs, gathered = serving.predict(NET, split, X, chunk=20), process_allgather(split, tiled=True)
tell(
    refused=refused,
    used=[far(outputs, ALONE), far(NET.apply(split, X), ALONE), far(serving.in_numpy(NET, gathered)(X), ALONE),
          far(gathered, BEGUN), float(metrics.rmse(outputs, np.asarray(outputs)))],
    planned=population.plan(many, (X, Y), RECIPE, {"learning_rate": rates}).share,
    same=same(whole(straight), whole(again)) and same(losses_of_it["loss"], losses_again["loss"]),
    resumed=same(whole(straight), whole(resumed)),
    best=same(whole(best), whole(best_again)) and far(whole(late), whole(straight)) < 1,
    lies=[lies_as(a.params, straight.params) and lies_as(a.opt_state, straight.opt_state) for a in (again, resumed)],
    moved=[far(whole(moved), whole(straight)), lies_as(moved.params, straight.params)],
    alone=[far(whole(alone), whole(straight)), len(other["loss"])],
    warned=[str(w.message) for w in (*caught, *others) if "layout" in str(w.message)],
    said=said,
)
"""


def test_a_network_over_processes_is_saved_by_all_and_goes_on_over_others(tmp_path):
    names: dict = {}
    exec(HERE + COMMON, names)
    names["begun"](names["mesh_of"]({"data": 2}), tmp_path / "came")
    names["begun"](None, tmp_path / "alone"), names["begun"](None, tmp_path / "other")
    fewer = "FEWER = Recipe(NET, losses.squared_error, optax.sgd, epochs=6, batch_size=12)"
    found = run(COMMON + f"FOLDER = {str(tmp_path)!r}\n{fewer}" + JOINT, 2, 2, env=QUICK)
    for told in found:
        assert told["same"] and told["resumed"] and told["best"] and told["lies"] == [True, True]
        assert told["moved"][0] < 1e-6 and told["moved"][1] and told["alone"][0] < 1e-6
        assert told["alone"][1] == 6
        assert max(told["used"]) < 1e-6 and told["planned"] == 1
        refused = [*["params"] * 3, "keys", "hyperparams", "learning_rate", "history", "history", "x"]
        assert [message.split(" must be on this process")[0] for message in told["refused"]] == refused
        for message, what in zip(
            told["refused"][2:5], ("params", "jax.random.key_data(keys)", refused[4]), strict=True
        ):
            assert f"multihost_utils.process_allgather({what}, tiled=True)" in message
        assert len(told["warned"]) == 1 and "layout.mesh: saved data 2; examples over data;" in told["warned"][0]
        assert "directory must be one that all processes see" in told["said"][0]
        assert "optimizer must have a state of the saved form, for one network that lies on several" in told["said"][1]
    # What two processes of two devices saved goes on here: on a mesh of two devices, whole, and read as it was written.
    straight, losses = names["train"](None)
    for like in (names["placed"](names["mesh_of"]({"data": 2}), fsdp=True), None):  # None: whole on one device
        shutil.copytree(tmp_path / "left", tmp_path / "copy", dirs_exist_ok=True)
        with pytest.warns(UserWarning, match="layout.mesh: saved model 4; examples over none; parameters None"):
            state, history = loop.resume(tmp_path / "copy", (names["X"], names["Y"]), like=like, progress=False)
        assert names["far"]((state.params, history["loss"]), (straight.params, losses["loss"])) < 1e-6
        assert like is None or names["lies_as"](state.params, like)
        shutil.rmtree(tmp_path / "copy")


@pytest.mark.parametrize("like", [3.0, (), np.ones(3), {"w": [1.0]}])
def test_what_lies_nowhere_is_refused_as_a_like(tmp_path, like):
    with pytest.raises(ValueError, match="like must be parameters or a state, arrays that lie as those of the run are"):
        loop.resume(tmp_path, (np.ones((4, 3)), np.ones((4, 1))), like=like)


# Arrays that lie on the devices of all processes, on a mesh as JAX makes it, at each door.
FAR = """
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxmlp import population, sharding
x = np.random.default_rng(0).normal(size=(96, 16)).astype("f")
recipe = Recipe(MLP((16, 32, 32, 1), "tanh"), losses.squared_error, optax.adam, epochs=2, batch_size=32)
key, rate, mesh, quiet = jax.random.key(0), {"learning_rate": 0.01}, jax.make_mesh((4,), ("data",)), {"progress": False}
there = NamedSharding(mesh, P("data"))
d = tuple(jax.make_array_from_callback(a.shape, there, lambda i, a=a: a[i]) for a in (x, np.sin(x[:, :1])))
born = sharding.start(key, recipe, rate, mesh=mesh)
one = jax.device_put(np.float32(0.01), jax.local_devices()[0])
found = {
    "fit": jaxmlp.fit(key, d, recipe, rate, params=born)[1]["loss"],
    "number": jaxmlp.fit(key, d, recipe, {"learning_rate": one})[1]["loss"],
    "loop": loop.train(key, d, recipe, rate, validation=d, params=born, **quiet)[1]["validation_loss"],
    "members": population.fit(jax.random.split(key, 4), d, recipe, rate)[1]["loss"],
    "members of a loop": loop.train(jax.random.split(key, 4), d, recipe, rate, **quiet)[1]["loss"],
}
tell(**{name: np.asarray(values, float).tolist() for name, values in found.items()})
"""


@pytest.mark.long
def test_arrays_over_processes_on_a_mesh_of_explicit_axes_are_those_of_one_process():
    one, *two = run(FAR, 1, 4)[0], *run(FAR, 2, 2)
    assert two[0] == two[1] and one.keys() == two[0].keys()
    for name, values in one.items():
        np.testing.assert_allclose(two[0][name], values, rtol=1e-5, err_msg=name)
