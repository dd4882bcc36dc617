"""The plan of a population: what it counts, what the system allows, and what it says."""

import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from jaxmlp import MLP, Recipe, losses, population
from jaxmlp._engine import devices, limits, program
from jaxmlp._engine.cost import estimate
from jaxmlp._engine.entry import enter
from jaxmlp._engine.executor import Executor, Job
from jaxmlp._engine.inputs import Inputs, Request, shared
from jaxmlp._engine.program import EpochSpan
from jaxmlp._engine.stops import Stops

RECIPE = Recipe(MLP((8, 50, 1)), losses.squared_error, optax.adam, epochs=1, batch_size=32)
DATA = np.zeros((100, 8), np.float32), np.zeros((100, 1), np.float32)
RATE = {"learning_rate": 0.1}


def groups(folder, lines, files):
    """Write a tree of control groups and return its (groups, control) paths."""
    (folder / "cgroup").write_text("\n".join(lines) + "\n")
    for name, text in files.items():
        path = folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder / "cgroup", folder / "fs"


V1 = ["4:memory:/a/b", "3:cpu,cpuacct:/a/b", "0::/"]
MEMORY = {
    "no files": (["0::/"], {}, None),
    "v2": (["0::/a/b"], {"a/b/memory.max": "1000"}, 1000),
    "v2 of an outer group": (["0::/a/b"], {"a/b/memory.max": "max", "a/memory.max": "2000"}, 2000),
    "v2, the tighter one": (["0::/a/b"], {"a/b/memory.max": "3000", "a/memory.max": "2000"}, 2000),
    "v2, path of the host": (["0::/../../x"], {"memory.max": "500"}, 500),
    "v2 without a limit": (["0::/"], {"memory.max": "max"}, None),
    "v1": (V1, {"memory/a/b/memory.limit_in_bytes": "4000"}, 4000),
    "v1, only the root is seen": (V1, {"memory/memory.limit_in_bytes": "6000"}, 6000),
}
CORES = {
    "no files": (["0::/"], {}, None),
    "v2": (["0::/a"], {"a/cpu.max": "200000 100000"}, 2),
    "v2, rounded up": (["0::/a"], {"a/cpu.max": "150000 100000"}, 2),
    "v2 without a limit": (["0::/a"], {"a/cpu.max": "max 100000"}, None),
    "v1": (V1, {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
    "v1 without a limit": (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
}


@pytest.mark.parametrize("name", MEMORY)
def test_the_memory_of_a_container(tmp_path, name):
    lines, files, expected = MEMORY[name]
    assert limits.container_memory(*groups(tmp_path, lines, files)) == expected


@pytest.mark.parametrize("name", CORES)
def test_the_cores_of_a_container(tmp_path, name):
    lines, files, expected = CORES[name]
    assert limits.container_cores(*groups(tmp_path, lines, files)) == expected


def test_the_plan_takes_three_quarters_of_the_tighter_limit(monkeypatch):
    monkeypatch.setattr(limits, "container_memory", lambda: 400_000_000)
    assert population.plan(4, DATA, RECIPE, RATE).memory == 300_000_000
    monkeypatch.setattr(limits, "container_memory", lambda: 2**63 - 4096)  # as version 1 says that there is none
    assert population.plan(4, DATA, RECIPE, RATE).memory == 3 * limits.machine_memory() // 4
    monkeypatch.setattr(limits, "container_cores", lambda: 1)
    assert devices.cores() == 1


def test_a_system_that_does_not_tell_its_memory_gets_a_default_and_a_way_out(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(limits, "container_memory", lambda: None)
    assert limits.memory() is None
    unknown = population.plan(4, DATA, RECIPE, RATE)
    assert unknown.memory == 3 * 2**30 and "4 GiB assumed; memory= says how much" in str(unknown)


def test_waves_are_whole_blocks_and_their_cost_is_within_the_budget():
    cost = estimate(DATA, RECIPE, RATE, devices=tuple(jax.local_devices()[:1]))
    for memory in range(500_000, 4_000_000, 100_000):
        try:
            chosen = population.plan(100, DATA, RECIPE, RATE, devices=1, width=2, memory=memory)
        except ValueError:
            continue
        assert chosen.wave == 100 or chosen.wave % 2 == 0
        assert cost.total(100, chosen.wave, 2) <= memory


def test_a_plan_says_how_many_train_on_each_device_and_which_slots_are_empty():
    def lines(members, **options):
        return str(population.plan(members, DATA, RECIPE, RATE, memory=10**9, **options)).splitlines()

    assert lines(64)[0] == "64 members on 2 CPU devices, 16 at a time on each"
    assert lines(64, width=1)[0] == "64 members on 2 CPU devices, one after the other on each"
    assert lines(32, devices=1)[0] == "32 members on 1 CPU device, 16 at a time"
    few = lines(6)
    assert few[0] == "6 members on 2 CPU devices, 3 together on each, in a block of width 16"
    assert few[2].strip().startswith("at least 13 of 16 slots of each device are empty, and are computed all the same")
    assert "width=3 leaves fewest, with other bits" in few[2]
    assert lines(5)[0] == "5 members on 2 CPU devices, at most 3 together on each, in a block of width 16"
    assert not any("slots" in line for members in (18, 64) for line in lines(members))
    chosen = population.plan(6, DATA, RECIPE, RATE)
    assert (chosen.share, chosen.width, chosen.slots) == (3, 16, 16)


def test_one_device_for_many_cores_is_told_the_way_to_all(monkeypatch):
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one)
    monkeypatch.setattr(devices, "cores", lambda: 2)
    assert "jaxmlp.use_all_cores(), called first" in str(population.plan(5, DATA, RECIPE, RATE))


def test_all_cores_become_devices_unless_jax_has_started():
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    program = (
        "import jaxmlp; from jaxmlp._engine import devices; devices.cores = lambda: 3; {}"
        "n = jaxmlp.use_all_cores(); import jax; print(n, len(jax.devices())); jaxmlp.use_all_cores()"
    )
    run = subprocess.run([sys.executable, "-c", program.format("")], capture_output=True, text=True, env=env)
    assert run.stdout.split() == ["3", "3"], run.stderr
    late = program.format("import jax; jax.devices(); ")
    run = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, env=env)
    assert run.returncode == 1 and "at the top of the script" in run.stderr


@pytest.mark.parametrize("members", [16, 64])
def test_the_cost_is_what_xla_counts(members):
    """Between it and a quarter more: data, members where they train, and what a block needs while it trains."""
    jax.config.update("jax_disable_most_optimizations", False)  # the program as users get it
    keys, data = jax.random.split(jax.random.key(0), members), (np.zeros((1024, 8), "f"), np.zeros((1024, 1), "f"))
    entered, tables = enter(Request(keys, Inputs(shared(*data)), RECIPE, RATE))
    chosen = population.plan(keys, data, RECIPE, RATE, devices=1)
    executor = Executor(Job(entered, tables, RECIPE, Stops()), chosen.layout, chosen.slots)
    args = executor.runs, executor._work, RECIPE, EpochSpan(np.int32(0), np.int32(1)), executor._order
    count = program.train_epochs.lower(*args, layout=chosen.layout).compile().memory_analysis()
    seen = count.argument_size_in_bytes + count.temp_size_in_bytes
    seen += count.output_size_in_bytes - count.alias_size_in_bytes
    cost = estimate(data, RECIPE, RATE, devices=chosen.devices)
    assert seen <= cost.data + cost.working(chosen.width) + members * cost.state <= 1.25 * seen
