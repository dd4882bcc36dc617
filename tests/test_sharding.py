"""One network over eight devices: the numbers of one, each device its share, and no byte sent that theory does not."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmlp
from jaxmlp import MLP, Recipe, losses, sharding

ROOT = Path(__file__).parent.parent
BOTH = AbstractMesh((4, 2), ("data", "model"))


@pytest.fixture(scope="module", params=["few", pytest.param("every", marks=pytest.mark.long)])
def answers(request):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "sharded.py"), request.param]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_a_run_on_a_mesh_is_that_on_one_device_and_stays_where_it_lies(answers):
    for name, found in answers["runs"].items():
        assert found["drawn"] == 0, name
        assert found["placed"] and found["kept"], name
        assert found["apart"] <= 1e-6 and found["evaluated"] <= 1e-6, (name, found)


def test_steps_and_epochs_put_on_the_mesh_what_is_not_there(answers):
    for name, (apart, kept) in answers.get("verbs", {}).items():
        assert apart <= 1e-6 and kept, (name, apart)


# Layers by columns and by rows in turn: a sum a pair forward, and one backward but for the first pair.
SUMS = {"small": [(32, 32), (32, 8), (32, 32)], "wide": [(32, 8192)] * 7}
NETS = {"small": MLP((16, 32, 32, 32, 8)), "wide": MLP((8192,) * 9)}


def test_a_step_sends_what_theory_says(answers):
    for net in NETS.keys() & answers.keys():
        found, size = answers[net], NETS[net].parameter_bytes
        assert found["data"]["total"] == {"all-reduce": [1, size + 4]}  # the gradients and the loss
        sums = [4 * rows * columns for rows, columns in SUMS[net]]
        assert found["model"]["total"] == {"all-reduce": [len(sums), sum(sums)]}
        share = sum(leaf_bytes(NETS[net]))
        # An eighth of the batch's rows: a quarter of them by four.
        assert found["both"]["total"] == {"all-reduce": [len(sums) + 1, sum(sums) // 4 + share + 4]}
        gathered = 2 * (len(NETS[net].sizes) - 1)  # each w and b once, for both passes
        assert found["fsdp"]["total"]["all-gather"] == [gathered, size]
        # A compiler for accelerators makes one reduce-scatter of this sum and of the cut that follows it.
        assert found["fsdp"]["total"]["all-reduce"] == [1, size + 4]


def leaf_bytes(net):
    """Yield the bytes that each parameter has on one device of four times two."""
    for i, (rows, columns) in enumerate(net.structure.shapes):
        yield 4 * rows * columns // 2
        yield 4 * columns // (1 if i % 2 else 2)


def test_each_device_has_its_share(answers):
    for net in NETS.keys() & answers.keys():
        found, size = answers[net], NETS[net].parameter_bytes
        batch = 4 * 32 * (NETS[net].sizes[0] + NETS[net].sizes[-1])
        rest = 4 + 4 + 8 + 8  # counts, the key and the rate
        for name, share in (("data", 3 * size + batch / 8), ("fsdp", (3 * size + batch) / 8)):
            assert abs(found[name]["arguments"] - share) <= rest, name
        assert abs(found["both"]["arguments"] - 3 * sum(leaf_bytes(NETS[net])) - batch / 4) <= rest


def test_each_device_multiplies_its_rows(answers):
    """Of a batch of 32 four; the other products are those of the gradients in w."""
    assert {"4,24", "4,8"} <= set(answers["run"]["dots"])
    assert not any(dot.startswith("32,") for dot in answers["run"]["dots"])
    assert answers["run"]["total"]["all-reduce"][0] == 2  # the gradients, and the rows of a batch brought together


def test_rules_know_stacks_norms_and_what_does_not_divide():
    first, stack, last = sharding.rules(MLP((3, 8, 8, 8, 7), norm="layer", scan=True), BOTH)
    assert (first.w, first.scale, first.shift) == (P(None, "model"), P("model"), P("model"))
    assert (stack.w, stack.b) == (P(None, None, "model"), P(None, "model"))
    assert (last.w, last.b) == (P("model", None), P())
    odd, by_columns, by_rows = sharding.rules(MLP((3, 7, 8, 2)), BOTH)
    assert (odd.w, by_columns.w, by_rows.w) == (P(), P(None, "model"), P("model", None))
    first, second = sharding.rules(MLP((4, 8, 8)), BOTH, fsdp=True)
    assert (first.w, first.b) == (P("data", "model"), P(("model", "data")))
    assert (second.w, second.b) == (P("model", "data"), P("data"))


KEY = jax.random.key(0)
RECIPE = Recipe(MLP((2, 4, 1)), losses.squared_error, optax.sgd, epochs=1)
RATE = {"learning_rate": 0.1}
PARAMS = RECIPE.model.init(KEY)
X, Y = np.ones((4, 2), "f"), np.ones((4, 1), "f")


def mesh(*names, kind=AxisType.Auto):
    return Mesh(np.array(jax.devices()[:2]), names, axis_types=(kind,))


def on(mesh, *axes):
    return jax.device_put((X, Y), NamedSharding(mesh, P(*axes)))


MISTAKES = {
    'mesh must have an axis "data", for examples, or "model"': lambda: sharding.rules(RECIPE.model, mesh("x")),
    "mesh must be a jax.sharding.Mesh; got int 8": lambda: sharding.rules(RECIPE.model, 8),
    'mesh must have an axis "data" with fsdp': lambda: sharding.rules(RECIPE.model, mesh("model"), fsdp=True),
    "mesh must be of devices that are there": lambda: sharding.place(PARAMS, BOTH),
    "model must have init": lambda: sharding.rules(3, mesh("data")),
    "fsdp must be False with rules": lambda: sharding.place(PARAMS, mesh("data"), fsdp=True, rules=lambda path: P()),
    r"rules for \[0\].w must name axes": lambda: sharding.place(PARAMS, mesh("data"), rules=lambda path: P("x")),
    r"rules for \[1\].w must split what divides": lambda: sharding.place(
        PARAMS, mesh("data"), rules=lambda path: P(None, "data") if path == (1, "w") else P()
    ),
    "rules must be a PartitionSpec for each of the 4": lambda: sharding.place(PARAMS, mesh("data"), rules=P()),
    "state or data must lie on a mesh": lambda: sharding.bind(RECIPE, RATE, PARAMS, (X, Y)),
    "data must lie on one mesh with": lambda: jaxmlp.fit(
        KEY, on(mesh("rows"), "rows"), RECIPE, RATE, params=sharding.place(PARAMS, mesh("data"))
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told_with_the_way_out(message):
    with pytest.raises(ValueError, match=message):
        MISTAKES[message]()


ODD = dataclasses.replace(RECIPE, model=MLP((3, 5, 1)))
WHOLE = {
    "fsdp": ('2 devices of axis "data", and none is', mesh("data"), {"fsdp": True}),
    "model": ('2 devices of axis "model", and none is', mesh("model"), {}),
}


@pytest.mark.parametrize("asked", WHOLE)
def test_what_was_to_be_split_and_is_whole_is_told(asked):
    """Without a word a network that no device can hold would be put on each."""
    words, over, options = WHOLE[asked]
    params = ODD.model.init(KEY)
    for verb in (
        lambda: sharding.place(params, over, **options),
        lambda: sharding.start(KEY, ODD, RATE, mesh=over, **options),
    ):
        with pytest.warns(UserWarning, match=rf"{words}: .*multiple of 2 for .*\(3, 5\), \(5,\), \(5, 1\)") as found:
            verb()
        assert found[0].filename == __file__
    sharding.place(params, mesh("data"))  # where nothing was asked, or something is split, there is nothing to say
    sharding.place(MLP((3, 5, 2)).init(KEY), over, **options)
    sharding.place(params, Mesh(np.array(jax.devices()[:1]), over.axis_names), **options)


def test_rules_of_ones_own_and_a_mesh_of_explicit_axes():
    spread = sharding.place(PARAMS, mesh("x"), rules=lambda path: P("x") if path == (1, "w") else P())
    assert spread[1].w.sharding.spec == P("x") and spread[0].w.sharding.spec == P()
    explicit = mesh("data", kind=AxisType.Explicit)
    state, _ = jaxmlp.fit(KEY, on(explicit, "data"), RECIPE, RATE)
    assert state.params[0].w.sharding.mesh == explicit
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        state.params,
        jaxmlp.fit(KEY, (X, Y), RECIPE, RATE)[0].params,
    )
