"""What a population takes in memory and work, as a model of a few terms that is held against XLA's own count."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp._engine.inputs import Each, Shared, plain
from jaxmlp._trees import first, is_tree
from jaxmlp.recipe import Recipe
from jaxmlp.training import start
from jaxmlp.types import Data, Hyperparams

FLOPS = 6  # of a parameter and an example: a product and a sum, in forward, in dL/dx and in dL/dw
STEP_COPIES = 3  # of a state, beside itself, while a block trains: gradients, updates, the state before the epoch
UNIT_BYTES = 12  # of a unit and an example: sum, activation and gradient, float32 each, which backward remembers
PLACES = 2  # of each member: where it trains, and where its result is copied to


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a population takes: bytes in memory, and the work of one member's step.

    With m members of which w are in memory at a time, in blocks of b on all devices together, it takes

        total = data + b (STEP_COPIES state + activations) + PLACES w (state + best) + waiting,

    where waiting = m (state + best) if w < m and the results wait in the memory that the devices use, and else 0. The
    terms in b and w are an estimate of what XLA's own `memory_analysis` says, from above for small networks.
    """

    state: int  # bytes of one member's parameters, optimizer's state, key and step
    best: int  # bytes of the copy of its best parameters, 0 where none is kept
    activations: int  # bytes that one member's backward pass remembers of a batch
    data: int  # bytes of the tables, of which each device holds a copy, all copies together
    flops: int  # operations of one member's step
    shares_memory: bool  # whether results on the host lie in the memory that the devices use, as on a CPU

    @property
    def member(self) -> int:
        """Bytes of one member that stay from epoch to epoch."""
        return self.state + self.best

    @property
    def held(self) -> int:
        """Bytes of one member in memory, with the place that its result is copied to."""
        return PLACES * self.member

    def working(self, block: int) -> int:
        """Bytes that only members that train at this moment need."""
        return block * (STEP_COPIES * self.state + self.activations)

    def waiting(self, members: int) -> int:
        """Bytes, of the same memory, of the results of all waves."""
        return members * self.member if self.shares_memory else 0

    def total(self, members: int, wave: int, block: int) -> int:
        """Bytes of everything."""
        waiting = self.waiting(members) if wave < members else 0
        return self.data + self.working(block) + wave * self.held + waiting


def estimate(
    data: Data, recipe: Recipe, hyperparams: Hyperparams, *, devices: tuple[Any, ...], keep_best: bool = False
) -> Cost:
    """Return what members of this recipe take; the shapes tell it, nothing is computed."""
    like = jax.eval_shape(lambda key: start(key, recipe.bind(one(hyperparams), steps=1)), jax.random.key(0))
    state = sum(map(_bytes, jax.tree.leaves(like)))
    leaves = jax.tree.leaves(like.params)
    parameters = sum(math.prod(a.shape) for a in leaves)
    x = jax.tree.leaves(data[0])[0]
    batch = recipe.batch_size or len(x)
    units = parameters // max(1, x.shape[-1])  # about: exact for one layer, and below for layers wider than their input
    return Cost(
        state=state,
        best=sum(map(_bytes, leaves)) if keep_best else 0,
        activations=UNIT_BYTES * batch * units,
        data=sum(map(_bytes, jax.tree.leaves(data))) * len(devices),
        flops=FLOPS * parameters * batch,
        shares_memory=devices[0].platform == "cpu",
    )


def one(hyperparams: Mapping[str, Any] | None, i: int = 0) -> dict[str, Any]:
    """Return the numbers of member i: numbers with a leading axis give their i-th, the others are everyone's."""
    return {name: _of_one(value, i) for name, value in (hyperparams or {}).items()}


def _of_one(value: Any, i: int) -> Any:
    if isinstance(value, Each):
        return first(value.data, i)
    if isinstance(value, Shared) or is_tree(value):
        return plain(value)
    return value[i] if np.ndim(value) else value


def _bytes(array: Any) -> int:
    key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)  # two words of 32 bits, whose dtype tells no size
    return math.prod(array.shape) * (8 if key else array.dtype.itemsize)
