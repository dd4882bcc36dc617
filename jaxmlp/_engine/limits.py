"""What devices, the system, and a container around this process, allow it: memory and processor time."""

import ctypes
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import jax

from jaxmlp._engine.hosts import Hosts

GROUPS = Path("/proc/self/cgroup")  # a line for each control group of this process
CONTROL = Path("/sys/fs/cgroup")  # where the control groups' files are
UNKNOWN_MEMORY = 2**32  # bytes that are assumed where neither the device nor the system tells
USABLE = 3, 4  # of what is there, a fraction: the rest is for compiled programs and for everyone else


def usable(devices: tuple[Any, ...], hosts: Hosts) -> tuple[int, list[str]]:
    """Return the memory to plan with, and a sentence where it had to be assumed; of several processes, the same."""
    part, whole = USABLE
    mine = [device for device in devices if device.process_index == jax.process_index()]
    stats = [device.memory_stats() for device in mine]
    if stats[0] and "bytes_limit" in stats[0]:
        least = min(part * each["bytes_limit"] // whole for each in stats)
        if hosts.many:  # a plan must be one on all of them
            return min(map(int, hosts.texts(str(least), "memory"))) * len(devices), []
        return sum(part * each["bytes_limit"] // whole for each in stats), []
    there = memory()
    if hosts.many:
        # Processes of one machine share its memory.
        told = hosts.texts(f"{platform.node()} {'?' if there is None else there}", "memory")
        known = {name: amount for name, amount in (line.rsplit(" ", 1) for line in sorted(told, reverse=True))}
        there = None if "?" in known.values() else min(map(int, known.values())) * len(known)
    if there is not None:
        return part * there // whole, []
    reason = f"this system does not tell its memory: {UNKNOWN_MEMORY // 2**30} GiB assumed; memory= says how much"
    return part * UNKNOWN_MEMORY // whole, [reason]


def memory() -> int | None:
    """Return the bytes that this process may use: the machine's or its container's; None where neither is known."""
    known = [size for size in (machine_memory(), container_memory()) if size is not None]
    return min(known, default=None)


def machine_memory() -> int | None:
    """Return the bytes of memory that the machine has; None where the system does not tell."""
    if hasattr(os, "sysconf"):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError):  # a name that this system does not know
            return None
    windows = getattr(ctypes, "windll", None)
    if windows is not None:
        status = _WindowsMemory(dwLength=ctypes.sizeof(_WindowsMemory))
        if windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return int(status.ullTotalPhys)
    return None


def container_memory(groups: Path = GROUPS, control: Path = CONTROL) -> int | None:
    """Return the bytes that the control groups (v1 or v2) of this process allow; None without a limit.

    Version 1 says "no limit" by a number near 2^63, which the machine's own memory then undercuts.
    """
    found = [
        int(text)
        for folder, version in _levels("memory", groups, control)
        if (text := _read(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))).isdecimal()
    ]
    return min(found, default=None)


def container_cores(groups: Path = GROUPS, control: Path = CONTROL) -> int | None:
    """Return how many cores' time the control groups of this process allow, rounded up; None without a limit."""
    found = []
    for folder, version in _levels("cpu", groups, control):
        if version == 2:
            words = _read(folder / "cpu.max").split()  # "200000 100000": microseconds in each period, or "max 100000"
        else:
            words = [_read(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]  # -1: no limit
        if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
            found.append(math.ceil(int(words[0]) / int(words[1])))
    return min(found, default=None)


def _levels(controller: str, groups: Path, control: Path) -> Iterator[tuple[Path, int]]:
    """Yield the folders of the process's group and of those around it, each with its version of control groups.

    The limit of an outer group holds for the inner ones. Inside a container the path in /proc may be the host's, of
    which nothing is to be seen but the root: hence the walk up to there, past what is missing.
    """
    for line in _read(groups).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root, version = control, 2
        elif controller in controllers.split(","):
            root, version = control / controller, 1
        else:
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for depth in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:depth]), version


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class _WindowsMemory(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("dwLength", ctypes.c_uint32),
        ("dwMemoryLoad", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("ullTotalPhys", "ullAvailPhys", "ullTotalPageFile", "ullAvailPageFile")),
        *((name, ctypes.c_uint64) for name in ("ullTotalVirtual", "ullAvailVirtual", "ullAvailExtendedVirtual")),
    )
