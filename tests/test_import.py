"""Importing touches no device, no configuration and no extra: seen from a fresh process."""

import subprocess
import sys

PROGRAM = """
import sys
import jax, optax
from jax._src import xla_bridge
before = {name: jax.config._read(name) for name in jax.config.values}
loaded = set(sys.modules)
import jaxmlp
assert not xla_bridge.backends_are_initialized(), "a backend was started"
assert before == {name: jax.config._read(name) for name in jax.config.values}, "a JAX option was changed"
new = {name.split(".")[0] for name in set(sys.modules) - loaded} - set(sys.stdlib_module_names)
print(sorted(new))
"""


def test_import_does_nothing_else():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['jaxmlp']"
