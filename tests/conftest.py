"""Strict JAX for every test, and two virtual devices, set before JAX starts."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=12)
settings.load_profile("suite")


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
