"""Does a population lose anything to more devices, or to more processes?

    python -m benchmarks devices

256 nets 8-64-64-1, a seed and a rate each, batch 32, Adam, on 1,024 rows, by `population.fit`: on 1, 2, 4 and 8 virtual
devices in one process, and on two devices as two processes of one, which find each other by `jax.distributed` on
127.0.0.1, free to run on any core or bound to one each, as a cluster's scheduler binds its tasks. JAX fixes its devices
when it starts, so each is a child process, or two; they take turns, several times. A child compiles in a first run, and
then times runs of 64 epochs from the call to the last array, and runs of one epoch, which is mostly what a call costs:
two processes agree on what they train, and bring the results to both. They must end in the bits of one. Beside it
stands what the collectives of the program move: members train alone, so nothing.
"""

import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CONFIGURATIONS = {  # devices of each process, processes, whether each is bound to a core
    "1 device": (1, 1, False),
    "2 devices": (2, 1, False),
    "4 devices": (4, 1, False),
    "8 devices": (8, 1, False),
    "2 processes of 1 device": (1, 2, False),
    "2 processes, a core each": (1, 2, True),
}
TABLES = {  # what is compared with the first
    "one process": ("1 device", "2 devices", "4 devices", "8 devices"),
    "two devices": ("2 devices", "2 processes of 1 device", "2 processes, a core each"),
}
SIZES, BATCH, ROWS = (8, 64, 64, 1), 32, 1024
WORK = {"members": 256, "epochs": 64, "runs": 2}
TOY = {"members": 8, "epochs": 1, "runs": 1}
LIMIT = 900  # seconds after which a child is ended
# Neighbours share the cores: a process that is waited for is not lost.
PATIENT: Any = {"initialization_timeout": 300, "heartbeat_timeout_seconds": 100, "shutdown_timeout_seconds": 120}
PATIENT_XLA = "--xla_cpu_collective_timeout_seconds=600 --xla_cpu_collective_call_terminate_timeout_seconds=600"
Told = dict[str, Any]


def run(*, quick: bool = False) -> list[Any]:
    """Start the processes, in turn, and return members a second, seconds of compilation and bytes moved."""
    work = TOY if quick else WORK
    found: dict[str, list[Told]] = {name: [] for name in CONFIGURATIONS}
    for _ in range(1 if quick else 5):
        for name, how in CONFIGURATIONS.items():
            found[name].append(started(*how, work))
    check_bits([each for name in TABLES["two devices"] for each in found[name]])
    return rows_of(found, work["members"])


def rows_of(found: dict[str, list[Told]], members: int) -> list[Any]:
    """Return the rows of what the processes told: ratios are medians over the rounds of each round's own."""
    from benchmarks.timing import Row, measured

    rows = []
    for title, names in TABLES.items():
        for name in names:
            rates = [members / each["run"] for each in found[name]]
            both = zip(found[name], found[names[0]], strict=True)
            ratio = statistics.median(mine["run"] / first["run"] for mine, first in both)
            middle = statistics.median(rates)
            rows.append(Row(f"devices: {title}", name, middle, "members/s", ratio, min(rates), max(rates)))
    taken = {
        "devices: a run of one epoch": lambda told: told["call"],
        "devices: compilation": lambda told: told["first"] - told["run"],
    }
    for title, of in taken.items():
        seconds = {name: statistics.median(map(of, each)) for name, each in found.items()}
        first = next(iter(seconds.values()))
        rows += [measured(title, name, value, "s", value / first) for name, value in seconds.items()]
    moved = {name: each[0]["moved"] for name, each in found.items()}
    return rows + [measured("devices: moved by collectives", name, value, "bytes") for name, value in moved.items()]


def facts(rows: list[Told]) -> list[str]:
    """Return what a call costs, and what is sent, as a line of Markdown."""
    value = {(row["benchmark"], row["contender"]): row["value"] for row in rows}
    if not any(benchmark.startswith("devices: ") for benchmark, _ in value):  # it has not been run yet
        return []
    one, two, _ = (1e3 * value["devices: a run of one epoch", name] for name in TABLES["two devices"])
    moved = max(value["devices: moved by collectives", name] for name in CONFIGURATIONS)
    return [
        f"- `devices`: a run of one epoch takes {one:.0f} ms on two devices of one process, and {two:.0f} ms on two "
        f"processes, which agree on it and bring the results to both; the training program sends {moved:.0f} bytes."
    ]


def check_bits(told: list[Told]) -> None:
    """Raise where the runs did not end in the same bits.

    Raises:
      RuntimeError: it names the digests.
    """
    digests = sorted({each["digest"] for each in told})
    if len(digests) != 1:
        raise RuntimeError(f"one process of two devices and two of one must end in the same bits; got {digests}")


def started(devices: int, processes: int, bound: bool, work: Told) -> Told:
    """Return what a run on so many devices of so many processes tells; the slowest process counts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "XLA_FLAGS": PATIENT_XLA, "JAX_PLATFORMS": "cpu"}
    children = []
    try:
        for number in range(processes):
            how = {"devices": devices, "processes": processes, "number": number, "bound": bound, "port": port, **work}
            command = [sys.executable, "-m", "benchmarks.devices", json.dumps(how)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
            children.append(subprocess.Popen(command, cwd=Path(__file__).parent.parent, **pipes))
        told = [_answer(child) for child in children]
    finally:
        for child in children:
            child.kill()  # those that ended are not harmed
            child.wait()
    check_bits(told)
    slowest = {
        kind: statistics.median(map(max, zip(*(each[kind] for each in told), strict=True)))
        for kind in ("first", "run", "call")
    }
    return {**slowest, "digest": told[0]["digest"], "moved": told[0]["moved"]}


def _answer(child: subprocess.Popen[str]) -> Told:
    out, errors = child.communicate(timeout=LIMIT)
    if child.returncode:
        raise RuntimeError(f"a process of the benchmark must end well; it ended with {child.returncode}:\n{errors}")
    return json.loads(out.splitlines()[-1])


def _child(how: Told) -> Told:
    """Train the population in this process, one of several perhaps, and return what it took."""
    if how["bound"] and hasattr(os, "sched_setaffinity"):  # before JAX makes a thread for each core
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[how["number"] % len(cores)]})
    import jax

    jax.config.update("jax_num_cpu_devices", how["devices"])
    if how["processes"] > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{how['port']}", how["processes"], how["number"], **PATIENT)
    import numpy as np
    import optax

    from benchmarks.tasks import table
    from jaxmlp import MLP, Recipe, losses, population

    recipe = Recipe(MLP(SIZES), losses.squared_error, optax.adam, epochs=how["epochs"], batch_size=BATCH)
    short = dataclasses.replace(recipe, epochs=1)
    keys, data = jax.random.split(jax.random.key(0), how["members"]), table(SIZES, ROWS)
    rates = {"learning_rate": np.logspace(-4, -2, how["members"]).astype("f")}
    plan = population.plan(keys, data, recipe, rates, devices=jax.devices())

    def fit(recipe: Recipe) -> tuple[float, Any]:
        start = time.perf_counter()
        states, _ = jax.block_until_ready(population.fit(keys, data, recipe, rates, plan=plan))
        return time.perf_counter() - start, states

    first, states = fit(recipe)
    fit(short)
    times = {"run": [fit(recipe)[0] for _ in range(how["runs"])], "call": [fit(short)[0] for _ in range(how["runs"])]}
    told = {"digest": digest(states.params), "moved": moved(how["members"], plan.width)}
    return {"first": [first], **times, **told}


def digest(params: Any) -> str:
    """Return a short digest of the bits of all members' parameters."""
    import hashlib

    import jax
    import numpy as np

    summed = hashlib.sha256(usedforsecurity=False)
    for leaf in jax.tree.leaves(params):
        summed.update(np.ascontiguousarray(leaf).tobytes())
    return summed.hexdigest()[:16]


def moved(members: int, width: int) -> float:
    """Return the bytes that a device sends for the collectives of the compiled training program."""
    import jax

    from benchmarks.lowering import counted, crowd

    return counted(crowd(SIZES, BATCH, ROWS, members, width, jax.devices()).lower().compile()).sent


if __name__ == "__main__":
    print(json.dumps(_child(json.loads(sys.argv[1]))))
