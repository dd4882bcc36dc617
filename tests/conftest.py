"""Strict JAX for every test, and two virtual devices, set before JAX starts."""

import itertools
import logging
import os
import re

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=12)
settings.load_profile("suite")
FORGET, TESTS = 100, itertools.count(1)  # after how many tests of a process programs are forgotten; the tests so far
collect_ignore = ["sharded.py"]  # a program of its own on eight devices; looked at for doctests, it would set them here


def pytest_collection_modifyitems(items):
    """Put the tests of each module that are marked `bits` after its others, so that the compiler changes rarely."""
    modules = {}
    for item in items:
        modules.setdefault(item.nodeid.split("::")[0], []).append(item)
    items[:] = [item for tests in modules.values() for item in sorted(tests, key=is_bits)]


def is_bits(item):
    return item.get_closest_marker("bits") is not None


# Not a fixture: those of a module compile too, and are set up before those of a test.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Let XLA optimise only where bits, counts or whole programs are the promise: compiling is most of the suite.

    JAX has no key for how a program was compiled. So the programs of the other kind are forgotten where the kind
    changes, and in any order a test meets only those compiled as it asks. All are forgotten after some tests, too: a
    program on a CPU holds eight memory maps, and where a process has the 65,530 that Linux allows, XLA crashes.
    """
    quick = not is_bits(item)
    next_one = next(TESTS)
    if jax.config.read("jax_disable_most_optimizations") != quick or next_one % FORGET == 0:
        jax.config.update("jax_disable_most_optimizations", quick)
        jax.clear_caches()


@pytest.fixture
def x64():
    """Run a test in 64-bit JAX."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def loose():
    """Let a test call Optax itself, whose Adam mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def compiled(caplog):
    """Return the growing list of the names of the programs that JAX compiles during a test."""

    class Names(logging.Handler):
        def emit(self, record):
            if found := re.match(r"Compiling (?:jit\()?(\w+)", record.getMessage()):
                names.append(found[1])

    names, handler, logger = [], Names(), logging.getLogger("jax._src.interpreters.pxla")
    logger.addHandler(handler)
    with jax.log_compiles():
        yield names
    logger.removeHandler(handler)
