"""What a compiled program sends between devices: its collectives and their bytes, read from the text of its HLO.

    counted = collectives.of(jax.jit(step).lower(...).compile().as_text())
    collectives.total(counted)  # {"all-reduce": (1, 8452)}: how many, and bytes of their results

XLA may merge several collectives into one with a tuple for its result, which counts once here, with the bytes of all. A
collective within a loop counts once, however often the loop runs.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16}  # all others say theirs in their name: f32, s64, f8e4m3fn
_LINE = re.compile(rf"= (?P<type>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One collective of a program, as each device sees it."""

    kind: str  # one of `KINDS`
    bytes: int  # of its result on one device
    devices: int  # that take part in it together, 0 where the text does not say

    @property
    def moved(self) -> float:
        """Bytes that a device sends in a ring of k: 2 (k - 1) / k of an all-reduce, (k - 1) / k of the whole else."""
        k = self.devices
        if k == 0:
            raise ValueError(f"devices must be known for the bytes moved; this {self.kind} does not say its groups")
        shares = {"all-reduce": 2 * (k - 1) / k, "reduce-scatter": k - 1.0, "collective-permute": 1.0}
        return self.bytes * shares.get(self.kind, (k - 1) / k)


def of(text: str) -> list[Collective]:
    """Return the collectives of a compiled program, in the order of its text.

    >>> of("%a = (f32[16,4]{1,0}, f32[]) all-reduce(%b, %c), replica_groups={{0,1},{2,3}}, to_apply=%add")
    [Collective(kind='all-reduce', bytes=260, devices=2)]
    """
    found = []
    for line in text.splitlines():
        if match := _LINE.search(line):
            sizes = [_bytes(*array) for array in _ARRAY.findall(match["type"])]
            if match["start"] and match["kind"] in ("all-gather", "collective-permute"):  # operands, results, signals
                half = line.split("(", 1)[0].count("[") and len(sizes) // 2
                sizes = sizes[half : 2 * half] if match["kind"] == "all-gather" else sizes[1:2]
            found.append(Collective(match["kind"], sum(sizes), _devices(line)))
    return found


def total(collectives: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """Return for each kind how many there are, and the bytes of their results on one device.

    >>> total([Collective("all-reduce", 8, 2), Collective("all-reduce", 4, 2)])
    {'all-reduce': (2, 12)}
    """
    sums: dict[str, tuple[int, int]] = {}
    for one in collectives:
        count, size = sums.get(one.kind, (0, 0))
        sums[one.kind] = (count + 1, size + one.bytes)
    return sums


def _bytes(dtype: str, shape: str) -> int:
    bits = BITS.get(dtype) or int(re.search(r"\d+", dtype)[0])  # type: ignore[index]
    return -(-bits * math.prod(map(int, filter(None, shape.split(",")))) // 8)


def _devices(line: str) -> int:
    """Return the size of a group: {{0,1},{2,3}}, [groups,size]<=[devices], or a mesh and those of its axes."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[(.*?)\]\s*\{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    return 0
