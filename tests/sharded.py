"""A child of tests/test_sharding.py, on eight virtual devices: answers all its questions as one line of JSON."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import dataclasses
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmlp
from benchmarks import collectives
from jaxmlp import MLP, Recipe, losses, metrics, sharding, training
from jaxmlp._layout import follow

KEY = jax.random.key(0)
DEVICES = np.array(jax.devices())
MESHES = {
    "data": Mesh(DEVICES, ("data",)),
    "model": Mesh(DEVICES, ("model",)),
    "both": Mesh(DEVICES.reshape(4, 2), ("data", "model")),
    "fsdp": Mesh(DEVICES, ("data",)),
    "explicit": Mesh(DEVICES, ("data",), axis_types=(AxisType.Explicit,)),
}
X = np.random.default_rng(0).normal(size=(64, 16)).astype("f")
DATA = X, np.sin(X[:, :8]), np.linspace(0.1, 2, 64, dtype="f")
NET = MLP((16, 32, 32, 8), "tanh", dropout=True, norm="layer")
RECIPE = Recipe(NET, losses.squared_error, optax.adam, epochs=20, batch_size=13, metrics=(metrics.rmse,))
CASES = {
    "batches": RECIPE,
    "at once": dataclasses.replace(RECIPE, epochs=100, batch_size=None),
    "stack": dataclasses.replace(RECIPE, model=MLP((16, 32, 32, 32, 8), "tanh", dropout=True, scan=True)),
}
SEEN = {"batches": list(MESHES), "at once": ["both"], "stack": ["fsdp", "both"]}
NUMBERS = {"learning_rate": 1e-2, "dropout_rate": 0.1}
RATE = {"learning_rate": 1e-2}


def lying(mesh):
    return jax.device_put(DATA, NamedSharding(mesh, P("data" if "data" in mesh.axis_names else None)))


def apart(found, expected):
    both = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in both)


def places(state):
    return [a.sharding.devices_indices_map(a.shape) for a in jax.tree.leaves(state)]


def equal_runs(every):
    """How far a run on each mesh is from that on one device, and whether its state lies as it began."""
    validation = tuple(a[:30] for a in DATA)
    for case, recipe in CASES.items() if every else [("batches", RECIPE)]:
        alone, line = jaxmlp.fit(KEY, DATA, recipe, NUMBERS, validation=validation)
        drawn = jaxmlp.start(KEY, recipe, NUMBERS)
        for name in SEEN[case] if every else ("both", "fsdp"):
            mesh = MESHES[name]
            begun = sharding.start(KEY, recipe, NUMBERS, mesh=mesh, fsdp=name == "fsdp")
            placed = sharding.place(drawn, mesh, fsdp=name == "fsdp")
            where = places(begun)
            state, history = jaxmlp.fit(KEY, lying(mesh), recipe, NUMBERS, validation=validation, params=begun)
            scores = [jaxmlp.evaluate(state.params, lying(mesh), recipe, NUMBERS)]
            yield (
                f"{case}, {name}",
                {
                    "drawn": apart(begun.params, drawn.params),
                    "placed": places(placed) == where,
                    "apart": max(apart(state.params, alone.params), apart(dict(history), dict(line))),
                    "evaluated": apart(scores, [jaxmlp.evaluate(alone.params, DATA, recipe, NUMBERS)]),
                    "kept": places(state) == where,
                },
            )


def verbs():
    """Steps and epochs, of parameters that were on one device, or of data that were on the host."""
    recipe, mesh = RECIPE, MESHES["data"]
    begun = jaxmlp.start(KEY, recipe, NUMBERS)
    for name, verb in (("step", jaxmlp.step), ("epoch", jaxmlp.epoch)):
        alone = verb(begun, DATA, recipe, NUMBERS)[0]
        for what, state, data in (
            ("rows", begun, lying(mesh)),
            ("state", sharding.place(begun, MESHES["both"]), DATA),
        ):
            found = verb(state, data, recipe, NUMBERS)[0]
            kept = found.params[0].w.sharding.mesh.size == 8
            yield f"{name}, {what}", [apart(found.params, alone.params), kept]


def forms(tree, specs, mesh):
    return jax.tree.map(
        lambda a, spec: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, spec)), tree, specs
    )


def programs(net, batch=32):
    """A step of each kind, compiled from shapes alone: collectives, products, and bytes of arguments on a device."""
    recipe = Recipe(net, losses.squared_error, optax.adam, epochs=1)
    like = jax.eval_shape(lambda key: jaxmlp.start(key, recipe, RATE), KEY)
    for name in ("data", "model", "both", "fsdp"):
        mesh = MESHES[name]
        specs = sharding.rules(net, mesh, fsdp=name == "fsdp")
        spread = jaxmlp.State(specs, follow(like.params, specs, like.opt_state), P(), P())
        state, rows = forms(like, spread, mesh), P("data") if "data" in mesh.axis_names else P()
        data = [jax.ShapeDtypeStruct((batch, n), jnp.float32, sharding=NamedSharding(mesh, rows)) for n in net.sizes]
        data = data[0], data[-1]
        bound = sharding.bind(recipe, RATE, state, data)
        program = jax.jit(jaxmlp.step).lower(state, data, bound).compile()
        yield name, {**told(program), "arguments": program.memory_analysis().argument_size_in_bytes}


def told(program):
    text = program.as_text()
    dots = sorted(set(re.findall(r"= f32\[(\d+,\d+)\]\S* dot\(", text)))
    return {"total": collectives.total(collectives.of(text)), "dots": dots}


def whole_run():
    """A run in batches on rows that are dealt out."""
    recipe, data = Recipe(MLP((16, 24, 8)), losses.squared_error, optax.adam, epochs=1, batch_size=32), DATA[:2]
    state = sharding.start(KEY, recipe, RATE, mesh=MESHES["data"])
    data = lying(MESHES["data"])[:2]
    return told(training._run.lower(state, data, sharding.bind(recipe, RATE, state, data), None).compile())


if __name__ == "__main__":
    every = sys.argv[1:] == ["every"]
    answers = {"runs": dict(equal_runs(every)), "run": whole_run()}
    answers["small"] = dict(programs(MLP((16, 32, 32, 32, 8), "tanh")))
    if every:
        answers |= {"verbs": dict(verbs()), "wide": dict(programs(MLP((8192,) * 9)))}
    print(json.dumps(answers))
