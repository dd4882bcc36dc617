"""scikit-learn's order of the rows, and its first weights, drawn from the same stream of random numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np

MOST_TO_SPARE = 1024  # rows of a batch: of a larger one the eighth that is in vain takes longer than to compile


def draw_layers(rng: np.random.RandomState, sizes: tuple[int, ...], activation: str) -> list[tuple[Any, Any]]:
    """Return layers (w, b), uniform in +-sqrt(6 / (in + out)), or sqrt(2 / (in + out)) before a logistic curve.

    Glorot and Bengio 2010, with biases drawn like weights, as scikit-learn draws them.
    """
    layers = []
    for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
        bound = np.sqrt((2.0 if activation == "logistic" else 6.0) / (fan_in + fan_out))
        w = rng.uniform(-bound, bound, (fan_in, fan_out))
        layers.append((w, rng.uniform(-bound, bound, fan_out)))
    return layers


def epochs(rng: np.random.RandomState, rows: int, shuffle: bool) -> Iterator[np.ndarray]:
    """Yield the order of each epoch in turn, (rows,) int32; each is a shuffle of the one before."""
    order = np.arange(rows, dtype=np.int32)
    while True:
        if shuffle:
            places = np.arange(rows, dtype=np.int32)
            rng.shuffle(places)
            order = order[places]
        yield order


def in_batches(order: np.ndarray, batch_size: int) -> np.ndarray:
    """Return an epoch's order as (steps, batch); the last batch is filled up with -1.

    >>> in_batches(np.array([2, 0, 1]), 2)
    array([[ 2,  0],
           [ 1, -1]], dtype=int32)
    """
    steps = -(-len(order) // batch_size)
    padded = np.full(steps * batch_size, -1, np.int32)
    padded[: len(order)] = order
    return padded.reshape(steps, batch_size)


def room_of(batch_size: int, rows: int) -> int:
    """Return for how many rows a batch has room; one of all rows has some to spare, that near tables share a program.

    >>> room_of(142, 142), room_of(143, 143), room_of(142, 500), room_of(5000, 5000)
    (144, 144, 142, 5000)
    """
    return roomy(batch_size) if rows <= batch_size <= MOST_TO_SPARE else batch_size


def roomy(count: int) -> int:
    """Return a size of at least `count` that near counts share, so that they share a program: 1/8 larger, or 16 to 64.

    >>> [roomy(count) for count in (3, 17, 64, 65, 1437, 1438)]
    [16, 32, 64, 72, 1536, 1536]
    """
    if count <= 64:
        return 16 if count <= 16 else 32 if count <= 32 else 64
    unit = 1 << max(count.bit_length() - 4, 0)
    return -(-count // unit) * unit
