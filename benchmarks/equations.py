"""What a step of training takes, in equations: operations, bytes and seconds on devices that need not be there.

Bytes are of float32 parameters, gradients and optimizer's state (4 bytes), as this library keeps them, and of operands
that `MLP(dtype="bfloat16")` rounds for the products (2 bytes); sums are float32. A time is a bound from below: what the
data sheet promises, with no time to launch a kernel, no latency of a link, and no other traffic on it.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.peaks import training_flops

WIDE, NARROW = 4, 2  # bytes of a float32 and of a bfloat16
STATE = 3 * WIDE  # of a parameter: w, m and v


class Hardware(NamedTuple):
    """A device's data sheet. `links`: from the inside out, how many devices lie together, and bytes/s each sends."""

    name: str
    narrow: float  # FLOP/s of bfloat16 products with float32 sums, dense
    wide: float  # FLOP/s of float32 products
    memory: float  # bytes/s of its memory
    capacity: float  # bytes of its memory
    links: tuple[tuple[float, float], ...]
    tile: int = 1  # numbers to which the last axis of an array is rounded up where it is worked on


# NVIDIA, "H100 Tensor Core GPU" data sheet, SXM5: 989 TFLOP/s bfloat16 without sparsity, 67 TFLOP/s float32 without
# tensor cores, 3.35 TB/s, 80 GB, NVLink 900 GB/s, both directions together. Eight in a DGX H100, each with its own
# ConnectX-7 to InfiniBand NDR, 400 Gb/s ("DGX H100" data sheet).
H100 = Hardware("H100", 989e12, 67e12, 3.35e12, 80e9, ((8, 450e9), (math.inf, 50e9)))
# Google Cloud, "TPU v5e" (system architecture): 197 TFLOP/s bfloat16, 819 GB/s, 16 GB, links of 1,600 Gb/s a chip in a
# 2D torus, pods of 256. A ring takes the two links of one axis, 800 Gb/s. Float32 products run in bfloat16 by default.
# Between pods the data-centre network: 100 Gb/s a host of four chips (machine type ct5lp-hightpu-4t). Arrays lie in
# tiles of 8 x 128.
V5E = Hardware("TPU v5e", 197e12, 197e12, 819e9, 16e9, ((256, 100e9), (math.inf, 3.125e9)), tile=128)


class Split(NamedTuple):
    """How a net lies on data x model devices: rows by "data", layers by "model", and the state by "data" if sharded."""

    data: int
    model: int
    sharded: bool = False

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.data * self.model


class Step(NamedTuple):
    """What one device has to do in a step: FLOPs, bytes of its memory and of its links, and bytes that it holds."""

    flops: float
    traffic: float
    held: float
    seconds: tuple[float, float, float]  # of the products, of the memory, of the links

    @property
    def bounds(self) -> tuple[float, float]:
        """Return seconds where everything overlaps, max(products, memory, links), and where the links wait their turn.

        The second is max(products, memory) + links: memory is read while products run in any case.
        """
        products, memory, links = self.seconds
        return max(self.seconds), max(products, memory) + links


def parameters(sizes: tuple[int, ...]) -> int:
    """Return how many numbers the layers have: sum over them of in x out + out."""
    return sum(m * n + n for m, n in zip(sizes, sizes[1:], strict=False))


def tiled(sizes: tuple[int, ...], tile: int) -> int:
    """Return the numbers that the layers take where the last axis is rounded up to whole tiles, one alone is not."""

    def up(n: int) -> int:
        return n if n == 1 else tile * math.ceil(n / tile)

    return sum((up(m) if n == 1 else m * up(n)) + up(n) for m, n in zip(sizes, sizes[1:], strict=False))


def levels(hardware: Hardware, count: int, inside: int = 1) -> Iterator[tuple[int, float]]:
    """Yield (devices, bytes/s) of each level of a group of `count`, whose members lie `inside` devices apart.

    A data axis of 128 around a model axis of 8 has no neighbour of its own within eight H100: all goes by InfiniBand.
    """
    for size, speed in hardware.links:
        here = int(max(1, min(count, size / inside)))
        if here > 1:
            yield here, speed
        count, inside = -(-count // here), 1


def all_gather(size: float, hardware: Hardware, count: int, inside: int = 1) -> float:
    """Return seconds in which `count` devices gather `size` bytes, of which each has its part; or sum and scatter them.

    A ring of c sends (c - 1) / c of the bytes through each link. Level by level, c_i devices of speed B_i:

        t = sum_i (c_i - 1) / c_i  S_i / B_i,    S_0 = size,  S_{i+1} = S_i / c_i

    so the slow outer links carry only what one device of an inner group answers for.
    """
    seconds = 0.0
    for here, speed in levels(hardware, count, inside):
        seconds += (here - 1) / here * size / speed
        size /= here
    return seconds


def all_reduce(size: float, hardware: Hardware, count: int, inside: int = 1) -> float:
    """Return seconds of a sum of `size` bytes over `count` devices: 2 (c - 1) / c S / B on a ring of one level.

    It scatters the sums and gathers them (Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002).
    """
    return 2 * all_gather(size, hardware, count, inside)


class Summed(NamedTuple):
    """Bytes of the arrays of a device that collectives sum or gather in a step."""

    model: float  # activations and their gradients, summed over "model"
    gathered: float  # weights, gathered over "data"
    data: float  # gradients, summed over "data"


def summed(sizes: tuple[int, ...], rows: int, split: Split) -> Summed:
    """Return what a step of an MLP whose layers are split by columns and by rows in turn has to sum and gather.

    Of L layers, the outputs of every second one are sums over "model", L/2 in the forward pass, and so are backward
    the gradients of the inputs of the others but the first, (L - 1)/2: rows x width float32 each, rows those of a data
    shard. Over "data" each device's share of the gradients, 4 P / model bytes, is summed. Where the state is sharded
    over it too, the weights are gathered, rounded to bfloat16, and kept for the backward pass: 2 P / model.
    """
    layers = len(sizes) - 1
    forward, backward = sizes[2::2], sizes[2:layers:2]
    held = parameters(sizes) / split.model
    return Summed(
        model=WIDE * rows * (sum(forward) + sum(backward)) * (split.model > 1),
        gathered=NARROW * held * split.sharded * (split.data > 1),
        data=WIDE * held * (split.data > 1),
    )


def sent(sizes: tuple[int, ...], rows: int, split: Split) -> float:
    """Return the bytes that a device sends in a step, by rings: 2 (c - 1) / c of what is summed, half for a gather.

    A sum of which each device keeps its part alone, of gradients of a sharded state, is the first half of a ring.
    """
    model, gathered, data = summed(sizes, rows, split)
    kept = 1 if split.sharded else 2
    return 2 * (1 - 1 / split.model) * model + (1 - 1 / split.data) * (gathered + kept * data)


def wide(sizes: tuple[int, ...], rows: int, split: Split, hardware: Hardware) -> Step:
    """Return the step of one wide net by Adam with `rows` rows a device, whatever the split: rows x model a data shard.

    FLOPs: 6 P of an example, but 4 of the first layer, which needs no gradient of its input; over all devices evenly.

    Bytes of memory of a step, of p parameters that a device holds: 40 p (products read w forward and backward, the
    gradient is written, Adam reads four arrays and writes three). Of a sharded state 36 p, and 14 P / model: gathered
    weights are written and read twice, whole gradients written and read to be summed. Besides 24 bytes of a unit and
    example: sum, activation and gradient, each written and read.

    Bytes held: 12 p of state, the rows of x and y, the operands that backward needs, 2 bytes of each unit and example,
    of the layers that are split a share; the gathered weights, 2 P / model, where the state is sharded; and while a
    layer is updated, its whole gradient and one layer's sums.
    """
    p = parameters(sizes) / split.model
    mine = p / (split.data if split.sharded else 1)
    rows *= split.model
    arrays = summed(sizes, rows, split)
    flops = rows * training_flops(sizes) / split.model
    units = sum(sizes[2::2]) + sum(sizes[1::2]) / split.model
    gathers = split.sharded and split.data > 1
    traffic = 40 * mine + (14 * p - 4 * mine) * gathers + 6 * WIDE * rows * units
    inputs = sum(sizes[0:-1:2]) + sum(sizes[1:-1:2]) / split.model
    layer = max(m * n for m, n in zip(sizes, sizes[1:], strict=False)) / split.model
    held = STATE * mine + WIDE * rows * (sizes[0] + sizes[-1]) + NARROW * rows * inputs
    held += WIDE * (layer + rows * max(sizes)) + NARROW * p * gathers
    links = all_reduce(arrays.model, hardware, split.model)
    links += all_gather(arrays.gathered, hardware, split.data, split.model)
    links += (1 if split.sharded else 2) * all_gather(arrays.data, hardware, split.data, split.model)
    return Step(flops, traffic, held, (flops / hardware.narrow, traffic / hardware.memory, links))


def enough_rows(sizes: tuple[int, ...], split: Split, hardware: Hardware) -> float:
    """Return the rows a device from which a step's products take longest; infinite where they never do.

    All times are lines a + b rows, the products' f rows: rows = max over memory and links of a / (f - b).
    """
    zero, one = (wide(sizes, rows, split, hardware).seconds for rows in (0, 1))
    slope = one[0]
    return max(a / (slope - (b - a)) if slope > b - a else math.inf for a, b in zip(zero[1:], one[1:], strict=True))


def slots(members: int, devices: int, width: int) -> int:
    """Return the places on each device, whole blocks of `width`: width ceil(members / (devices width))."""
    return width * math.ceil(members / (devices * width))


def crowd(sizes: tuple[int, ...], batch: int, rows: int, places: int, width: int, hardware: Hardware) -> Step:
    """Return the step of `places` small members on each device, `width` at a time; nothing is sent.

    FLOPs and bytes are those of a member times the places: a block that is not full takes its whole time. Float32
    throughout, 40 P bytes of memory as for a wide net, and 24 bytes of a unit and example; where a block's state stays
    in a cache, less. Held: 12 P of a place, the rows of the table, and while a block trains its working copies, 12 P
    thrice, and 12 bytes of a unit and example. Where arrays are tiled, the members lie densely between calls, and the
    loop that takes them out of their places and puts them back works on a tiled copy of all.
    """
    p, units = parameters(sizes), sum(sizes[1:])
    flops = places * batch * training_flops(sizes)
    traffic = places * (40 * p + 6 * WIDE * batch * units + WIDE * batch * (sizes[0] + sizes[-1]))
    held = STATE * p * places + WIDE * rows * (sizes[0] + sizes[-1])
    held += width * (3 * STATE * p + 3 * WIDE * batch * units)
    held += STATE * tiled(sizes, hardware.tile) * places * (hardware.tile > 1)
    return Step(flops, traffic, held, (flops / hardware.wide, traffic / hardware.memory, 0.0))
