"""Several processes on one machine that run one script on JAX's distributed runtime, as hosts of a cluster do."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Timeouts for slow machines; two hosts of a cluster would call `jax.distributed.initialize()` alone.
PRELUDE = """
import json, os, sys, warnings
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", {devices})
WHO, COUNT = {who}, {count}
if COUNT > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        "127.0.0.1:{port}", COUNT, WHO, initialization_timeout=300, heartbeat_timeout_seconds={heartbeat},
        shutdown_timeout_seconds={shutdown},
    )
import jax.numpy as jnp, numpy as np, optax
import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population
def tell(**values):
    with open({told!r}, "w") as file:
        json.dump(values, file)
"""
FLAGS = "--xla_cpu_collective_timeout_seconds=600 --xla_cpu_collective_call_terminate_timeout_seconds=600"


class Processes:
    """Children that run a script: WHO is its number of COUNT, and what it passes to `tell(...)` comes back."""

    def __init__(self, script, count=2, devices=2, heartbeat=100, shutdown=120, env=None):
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.children, self._told, self._out = [], [], []
        for who in range(count):
            told, out = folder / f"{who}.json", open(folder / f"{who}.txt", "w+")
            prelude = PRELUDE.format(
                devices=devices, who=who, count=count, port=port, heartbeat=heartbeat, shutdown=shutdown, told=str(told)
            )
            command = [sys.executable, "-c", prelude + textwrap.dedent(script)]
            environment = {**os.environ, "XLA_FLAGS": FLAGS, "PYTHONPATH": str(ROOT), **(env or {})}
            self.children.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder))
            self._told.append(told)
            self._out.append(out)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for child in self.children:
            child.kill()
            child.wait()
        for out in self._out:
            out.close()
        self._folder.cleanup()

    def output(self, who):
        """Return what a child has printed so far."""
        return Path(self._out[who].name).read_text()

    def wait(self, timeout=300):
        """Wait for all and return their exit codes, None for one that has not ended in time."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and any(child.poll() is None for child in self.children):
            time.sleep(0.05)
        return [child.poll() for child in self.children]

    def told(self, who):
        """Return what a child has told."""
        return json.loads(self._told[who].read_text())


def run(script, count=2, devices=2, timeout=300, **options):
    """Run a script to its end in several processes and return what each told."""
    with Processes(script, count, devices, **options) as processes:
        codes = processes.wait(timeout)
        assert codes == [0] * count, "\n".join(f"{who}: {processes.output(who)[-3000:]}" for who in range(count))
        return [processes.told(who) for who in range(count)]
