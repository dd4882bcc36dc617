"""What the contenders train: one net on one table, from the same first weights, in the same order, by the same Adam."""

import dataclasses
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax

import jaxmlp
from jaxmlp import MLP, Recipe, data, losses

RATE = {"learning_rate": 1e-3}
Weights = list[tuple[np.ndarray, np.ndarray]]  # (in, out) and (out,), a layer each


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Train a ReLU net by Adam: cross entropy where y holds labels, squared error of one output where floats."""

    sizes: tuple[int, ...]
    x: np.ndarray  # (N, in) float32
    y: np.ndarray  # (N,) int32, or (N, 1) float32
    batch: int
    epochs: int

    def recipe(self, dtype: str | None = None) -> Recipe:
        """Return it as jaxmlp's recipe."""
        loss = losses.cross_entropy if self.labels else losses.squared_error
        return Recipe(MLP(self.sizes, dtype=dtype), loss, optax.adam, epochs=self.epochs, batch_size=self.batch)

    def with_epochs(self, epochs: int) -> "Task":
        """Return the same task, shorter or longer."""
        return dataclasses.replace(self, epochs=epochs)

    @property
    def labels(self) -> bool:
        """Whether this is classification."""
        return self.y.ndim == 1

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * data.steps_per_epoch(len(self.x), self.batch)

    @property
    def key(self) -> jax.Array:
        """The key from which jaxmlp makes weights and orders."""
        return jax.random.key(0)

    @cached_property
    def state(self) -> jaxmlp.State:
        """Where every contender starts."""
        return jax.jit(jaxmlp.start)(self.key, self.recipe(), RATE)

    @property
    def weights(self) -> Weights:
        """The first weights, as NumPy arrays."""
        return [(np.array(layer.w), np.array(layer.b)) for layer in self.state.params]

    @cached_property
    def padded(self) -> data.Order:
        """The order of all steps, (steps, batch), the last batch of an epoch filled up at weight zero."""
        order_key, _ = jax.random.split(self.state.key)
        order = jax.jit(data.epoch_order, static_argnums=(2, 3))
        epochs: list[Any] = [order(order_key, epoch, len(self.x), self.batch) for epoch in range(self.epochs)]
        parts: Any = (np.concatenate([np.asarray(epoch[i]) for epoch in epochs]) for i in range(2))
        return data.Order(*parts)

    @cached_property
    def batches(self) -> list[np.ndarray]:
        """The same as the rows of each step, the last batch of an epoch short."""
        return [rows[present == 1] for rows, present in zip(self.padded.rows, self.padded.weight, strict=True)]


def table(sizes: tuple[int, ...], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a made-up table (x, y): labels by the largest of some sums where the net has outputs for them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, sizes[0])).astype("f")
    if sizes[-1] == 1:
        return x, np.sin(x[:, :1]) + 0.1 * x[:, 1:2]
    return x, (x @ rng.normal(size=(sizes[0], sizes[-1])).astype("f")).argmax(1).astype("i4")
