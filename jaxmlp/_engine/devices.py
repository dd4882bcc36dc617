"""The devices that a population runs on: on a CPU, one a core."""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, get_abstract_mesh

from jaxmlp import _check
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


def chosen_devices(given: Any, members: int) -> tuple[tuple[Any, ...], list[str]]:
    """Return the devices that so many members train on, and what there is to say about the choice.

    Raises:
      ValueError: for what names no devices, or more than there are.
    """
    every = jax.devices()
    if given is None:  # all, and not fewer for a few members: bits would change with the members' number
        if every[0].platform == "cpu" and len(every) == 1 < min(cores(), members):
            reason = (
                f"one device for {cores()} cores: jaxmlp.use_all_cores(), called first in the script, makes each core "
                f"a device; two devices were measured at about twice the speed of one"
            )
            return tuple(every), [reason]
        return tuple(every), []
    if isinstance(given, list | tuple):
        if not given:
            raise ValueError("devices must name at least one device; got none")
        if not all(isinstance(device, jax.Device) for device in given):
            raise ValueError(f"devices must be JAX devices, as jax.devices() lists them; got {_check.shown(given)}")
        if len(set(given)) < len(given):
            raise ValueError(f"devices must name each device once; got {_check.shown(given)}")
        return tuple(given), ["the devices were given"]
    count, processes = _check.positive_int("devices", given), jax.process_count()
    if count > len(every):
        which = "local ones" if processes == 1 else f"of all {processes} processes"
        raise ValueError(
            f"devices must be at most the {len(every)} {which}; got {count}; on a CPU jaxmlp.use_all_cores(), "
            f"called first, makes one of each core"
        )
    if count % processes:
        raise ValueError(
            f"devices must be as many of each of {processes} processes; got {count}; pass a multiple, or a list"
        )
    here = [[device for device in every if device.process_index == i][: count // processes] for i in range(processes)]
    chosen = tuple(device for devices in here for device in devices)
    if len(chosen) < count:
        raise ValueError(f"devices must be there on each process alike; got {count} of {len(every)}; pass a list")
    return chosen, [f"{count} devices were given"]
