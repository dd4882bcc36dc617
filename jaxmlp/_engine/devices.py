"""The devices that a population runs on: on a CPU, one a core."""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, get_abstract_mesh

from jaxmlp._engine import limits

Function = TypeVar("Function", bound=Callable[..., Any])


def cores() -> int:
    """Return how many cores this process may use: those it is bound to, as far as its container gives it their time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, limits.container_cores() or bound))


def by_itself(function: Function) -> Function:
    """Decorate what leaves aside the mesh that a caller has set around: members lie in one of their own."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if get_abstract_mesh().empty:
            return function(*args, **options)
        with jax.set_mesh(Mesh(np.empty((), object), ())):
            return function(*args, **options)

    return call  # type: ignore[return-value]


def use_all_cores() -> int:
    """Make each core of the CPU a JAX device, so that a population trains on all of them; return their number.

    Call it first in a script, before anything of JAX runs: JAX fixes its devices when it starts. It changes
    nothing for a single network, which trains on the first device, nor on an accelerator.

    Raises:
      RuntimeError: where JAX has started with another number of devices.
    """
    wanted = cores()
    if jax.config.jax_num_cpu_devices != wanted:  # type: ignore[attr-defined]
        try:
            jax.config.update("jax_num_cpu_devices", wanted)
        except RuntimeError as error:
            got = len(jax.local_devices(backend="cpu"))
            if got == wanted:  # the user set as many by another way
                return wanted
            raise RuntimeError(
                f"use_all_cores must come before JAX starts, to make {wanted} devices of {wanted} cores; JAX has "
                f"started with {got}; call jaxmlp.use_all_cores() at the top of the script, before any array is made"
            ) from error
    return wanted
