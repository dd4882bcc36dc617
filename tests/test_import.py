"""Importing touches no device, no configuration and no extra: seen from a fresh process."""

import subprocess
import sys

import pytest

import jaxmlp

PROGRAM = """
import sys
import jax, optax
from jax._src import xla_bridge
before = {name: jax.config._read(name) for name in jax.config.values}
loaded = set(sys.modules)
import jaxmlp
assert not xla_bridge.backends_are_initialized(), "a backend was started"
assert before == {name: jax.config._read(name) for name in jax.config.values}, "a JAX option was changed"
new = {name.split(".")[0] for name in set(sys.modules) - loaded} - set(sys.stdlib_module_names) - {"jax"}
print(sorted(new))
rooms = {"jaxmlp." + name for name in ("conformal", "population", "loop", "files", "interop", "serving")}
assert not rooms & set(sys.modules), "a room was entered before it was named"
assert jaxmlp.population.gather and "jaxmlp.loop" not in sys.modules, "a population waits for the loop"
assert all(getattr(jaxmlp, name) is not None for name in jaxmlp.__all__) and rooms <= set(sys.modules)
assert set(jaxmlp.__all__) <= set(dir(jaxmlp))
"""


def test_import_does_nothing_else():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['jaxmlp']"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jaxmlp' has no attribute 'populations'"):
        jaxmlp.populations  # noqa: B018
