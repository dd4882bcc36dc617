"""Strict JAX for every test, and two virtual devices, set before JAX starts."""

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


OPTIMISED = (  # modules, and tests of others
    "test_loop",
    "test_training",
    "test_experiments",
    "test_counts",
    "test_width_one_is_the_solo_run_bit_for_bit",
    "test_bits_depend_on_neither_number_nor_order_nor_neighbours",
)


@pytest.fixture(autouse=True)
def quick_compiler(request):
    """Let XLA optimise only where bits, counts or whole programs are the promise: compiling is most of the suite."""
    before = jax.config.read("jax_disable_most_optimizations")
    names = {request.module.__name__.split(".")[-1], request.node.name}
    jax.config.update("jax_disable_most_optimizations", names.isdisjoint(OPTIMISED))
    yield
    jax.config.update("jax_disable_most_optimizations", before)


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
