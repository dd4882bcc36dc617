"""What a compiled program sends between devices: its collectives and their bytes, read from the text of its HLO.

    counted = collectives.of(jax.jit(step).lower(...).compile().as_text())
    collectives.total(counted)  # {"all-reduce": (1, 8452)}: how many, and bytes of their results
    sum(each.moved for each in counted)  # bytes that a device sends

XLA may merge several collectives into one with a tuple for its result, which counts once here, with the bytes of all. A
collective within a loop counts once, however often the loop runs. One that runs beside other operations counts once:
the two lines -start and -done of it, and the pieces into which a TPU's compiler cuts it. That compiler also writes a
sum of which each device keeps its part as a function `all-reduce-scatter` around an all-reduce, and what goes between
pods of TPUs as a transfer by the hosts: both are counted as the collectives that they are.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_TYPE = r"(?P<type>\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\S+)"  # a tuple may hold tuples, and a layout T(8,128)
_LINE = re.compile(rf"^\s*(?:ROOT )?(?P<name>\S+) = {_TYPE} (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_SEND = re.compile(
    rf"^\s*\S+ = {_TYPE} send\(.*_megascale_target=\"\{{(?P<pods>[\d,]+)\}}.*_megascale_transfer_type=\"(?P<kind>\w+)\""
)
_HEADER = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.-]+) .*\{$")  # of a function, whose lines stand further in
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One collective of a program, as each device sees it."""

    kind: str  # one of `KINDS`
    bytes: int  # of its result on one device
    devices: int  # that take part in it together, 0 where the text does not say

    @property
    def moved(self) -> float:
        """Bytes that a device sends in a ring of k, of a result of S bytes.

        2 (k - 1) / k S of an all-reduce; (k - 1) / k S of what is gathered, exchanged or broadcast; (k - 1) S of a
        reduce-scatter, whose result is a k-th of what is summed; S of a permutation.

        Raises:
          ValueError: where the devices are not known.
        """
        k = self.devices
        if k == 0:
            raise ValueError(f"devices must be known for the bytes moved; this {self.kind} does not say its groups")
        shares = {"all-reduce": 2 * (k - 1) / k, "reduce-scatter": k - 1.0, "collective-permute": float(k > 1)}
        return self.bytes * shares.get(self.kind, (k - 1) / k)


def of(text: str) -> list[Collective]:
    """Return the collectives of a compiled program, in the order of its text.

    >>> of("%a = (f32[16,4]{1,0}, f32[]) all-reduce(%b, %c), replica_groups={{0,1},{2,3}}, to_apply=%add")
    [Collective(kind='all-reduce', bytes=260, devices=2)]
    >>> of("%a = (f32[2], f32[8]) all-gather-start(%b), replica_groups=[2,4]<=[8], dimensions={0}")
    [Collective(kind='all-gather', bytes=32, devices=4)]

    Raises:
      ValueError: for a transfer between pods of another kind.
    """
    found = []
    for function, lines in _functions(text):
        # A TPU's compiler cuts a collective: a function starts it, others go on with it, and one waits for its end.
        marks = [line for line in lines if '"AsyncCollective' in line]
        started = {name for line in marks if 'Start"' in line for name in re.findall(r"[%\w.-]+", line)}
        piece = marks or function.startswith("async_collective_fusion")
        for line in lines:
            match = _LINE.match(line)
            if match is None:
                found += _between_pods(line)
            elif not piece or match["name"] in started:
                one = Collective(match["kind"], sum(map(_bytes, _results(match))), _devices(line))
                if function.startswith("all-reduce-scatter") and one.kind == "all-reduce" and one.devices:
                    one = Collective("reduce-scatter", one.bytes // one.devices, one.devices)
                found.append(one)
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


def _functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines of each function of a program."""
    name, lines = "", []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            yield name, lines
            name, lines = header["name"], []
        else:
            lines.append(line)
    yield name, lines


def _results(match: re.Match[str]) -> Iterator[tuple[str, str]]:
    """Return the arrays of a collective's result; of one that is started: of (operands, results, signals...)."""
    parts = _parts(match["type"])
    # An all-reduce that is started has the type of one that is not, unless XLA has wrapped it.
    if match["start"] and (match["kind"] != "all-reduce" or parts[0].startswith("(")):
        parts = parts[1:2]
    return (array for part in parts for array in _ARRAY.findall(part))


def _parts(type_: str) -> list[str]:
    """Return the elements of a tuple's type, which may be tuples, or the type itself."""
    if not type_.startswith("("):
        return [type_]
    found, depth = [""], 0
    for letter in type_[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]


def _between_pods(line: str) -> Iterator[Collective]:
    """Yield what a line sends to other pods, of which each device answers for its own part."""
    if match := _SEND.match(line):
        kind, pods = match["kind"].lower().replace("_", "-"), len(match["pods"].split(","))
        size = sum(map(_bytes, _ARRAY.findall(_parts(match["type"])[0])))  # of what is sent, not of the result
        results = {"all-reduce": size, "all-gather": size * pods, "reduce-scatter": size // pods, "all-to-all": size}
        if kind not in results:
            raise ValueError(f"a transfer between pods must be one of {list(results)}; got {match['kind']}")
        yield Collective(kind, results[kind], pods)


def _bytes(array: tuple[str, str]) -> int:
    """Return the bytes of an array of a type, which says its bits: f32, bf16, s4, f8e4m3fn; but for pred."""
    dtype, shape = array
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])  # type: ignore[index]
    return -(-bits * math.prod(map(int, filter(None, shape.split(",")))) // 8)


def _devices(line: str) -> int:
    """Return the size of a group: {{0,1},{2,3}}, [groups,size]<=[devices], or a mesh and those of its axes.

    An axis may be there in part, 'axis':(before)size. Of a permutation: how many devices send to another, or get from
    one; 1 where each sends to itself.
    """
    if match := re.search(r"source_target_pairs=\{(.*?)\}\}", line):
        pairs = re.findall(r"(\d+),(\d+)", match[1])
        return len({device for pair in pairs if pair[0] != pair[1] for device in pair}) or 1
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[(.*?)\]\s*\{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return 0
