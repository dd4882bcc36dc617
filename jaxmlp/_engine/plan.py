"""How a population runs: how many members at once, on which devices, in how much memory."""

import dataclasses
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import _check
from jaxmlp._engine.devices import cores
from jaxmlp.recipe import Recipe
from jaxmlp.training import start

# Measured on two CPU cores: a block of members pays while what a step touches stays in the second-level cache, and up
# to 16 of them; a network whose own step is above 20 MFLOP keeps a core busy alone. The accelerator's are a guess: wide
# enough to fill a card, and small enough that stopped members make room in steps.
CPU_BLOCK, CPU_CACHE, CPU_ALONE = 16, 2**20, 2e7
ACCELERATOR_BLOCK, ACCELERATOR_CACHE = 1024, 2**32


class Layout(NamedTuple):
    """What of a plan changes the program."""

    width: int
    devices: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a population runs; `str` says what was chosen, and why.

    Members are dealt to the devices in turn. Each device trains `width` members at a time: under one `vmap`, or for
    width 1 one after the other, block after block inside one compiled loop.
    """

    members: int
    width: int
    devices: tuple[Any, ...]
    wave: int  # members in memory at a time
    member_bytes: int  # parameters and optimizer's state of one member, twice where its best weights are kept
    memory: int  # the budget, in bytes
    reasons: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def slots(self) -> int:
        """Places for members on each device, a multiple of the width."""
        return self.width * math.ceil(self.wave / (self.width * len(self.devices)))

    @property
    def layout(self) -> Layout:
        """What of the plan changes the program."""
        return Layout(self.width, self.devices)

    def __str__(self) -> str:
        kind = self.devices[0].platform.upper()
        first = f"{self.members:,} members on {len(self.devices)} {kind} device{'s' * (len(self.devices) > 1)}, "
        first += f"{self.width} at a time on each" if self.width > 1 else "one after the other on each"
        return "\n  ".join([first, *self.reasons])


def plan(
    keys: Any,
    data: Any,
    recipe: Recipe,
    hyperparams: Any = None,
    *,
    width: int | None = None,
    devices: Any = None,
    memory: int | None = None,
    keep_best: bool = False,
) -> Plan:
    """Choose how a population runs; what is given by hand stays.

    Args:
      keys: the members' keys, (members,), or their number.
      data: the data of the run, for its size.
      recipe: the recipe of all members.
      hyperparams: for numbers without which `init` cannot run; of one member or of all.
      width: members at once under `vmap` on a device; 1 trains them one after the other, bit for bit as `fit` does.
      devices: a list of JAX devices, or how many of the local ones; all of them unless given.
      memory: budget in bytes for the population and the data on all devices; where the members do not fit at once
        they are trained in waves, whose results wait as NumPy arrays. Unless given, three quarters of what is there.
      keep_best: count a second copy of the parameters, as early stopping keeps one.

    Raises:
      ValueError: for a budget too small for one block of members, or options that are no positive numbers.

    >>> from jaxmlp import MLP, losses
    >>> import jax.numpy as jnp, optax
    >>> recipe = Recipe(MLP((8, 50, 1)), losses.squared_error, optax.adam, epochs=1, batch_size=32)
    >>> data = jnp.ones((100, 8)), jnp.ones((100, 1))
    >>> plan(4, data, recipe, {"learning_rate": 0.1}, width=2, devices=1).slots
    4
    """
    members = _check.positive_int("members", len(keys) if hasattr(keys, "__len__") else keys)
    reasons = []
    devices = _devices(devices, members, reasons)
    cpu = devices[0].platform == "cpu"
    like = jax.eval_shape(lambda key: start(key, recipe, one(hyperparams)), jax.random.key(0))
    state = sum(math.prod(a.shape) * _itemsize(a) for a in jax.tree.leaves(like))
    parameters = sum(math.prod(a.shape) for a in jax.tree.leaves(like.params))
    member_bytes = state + keep_best * sum(math.prod(a.shape) * _itemsize(a) for a in jax.tree.leaves(like.params))
    x = jax.tree.leaves(data[0])[0]
    batch = recipe.batch_size or len(x)
    if width is None:
        # Of the recipe alone, never of the number of members: a member's bits depend on the width, and on nothing else.
        flops = 6 * parameters * batch  # forward and backward: a product and a sum, three times
        if cpu and flops > CPU_ALONE:
            width = 1
            reasons.append(f"a step of one member takes {flops / 1e6:,.0f} MFLOP: one member fills a core")
        else:
            fits = CPU_CACHE // (4 * state) if cpu else ACCELERATOR_CACHE // state
            width = min(CPU_BLOCK if cpu else ACCELERATOR_BLOCK, 2 ** max(1, int(math.log2(max(1, fits)))))
            reasons.append(
                f"a member holds {state:,} bytes and its step takes {flops / 1e6:.2g} MFLOP: {width} together "
                f"{'stay in the cache' if cpu else 'fill the card'}"
            )
    else:
        width = _check.positive_int("width", width)
        reasons.append(f"width {width} was given")
    given = memory is not None
    memory = _check.positive_int("memory", memory) if given else _memory(devices)
    fixed = sum(a.size * _itemsize(a) for a in jax.tree.leaves(data)) * len(devices)
    block = width * len(devices)
    # Besides the states: gradients, updates and the state before the epoch, and what backward remembers of a batch.
    working = block * (3 * state + 12 * batch * (parameters // max(1, x.shape[-1])))
    room = memory - fixed - working
    wave = members
    if 2 * members * member_bytes > room:  # the results are copied to their place beside the seats
        spare = room - members * member_bytes * cpu  # on a CPU what waits on the host is in the same memory
        wave = min(members, spare // (2 * member_bytes)) // block * block
        if wave < block:
            need = fixed + working + (members * cpu + 2 * block) * member_bytes
            raise ValueError(
                f"memory must hold the data, one block of members{' and all results' * cpu}: {need:,} bytes; got "
                f"{memory:,}{'' if given else ', three quarters of what is there'}; pass a smaller width, fewer "
                f"devices, fewer members or more memory"
            )
        reasons.append(f"in {math.ceil(members / wave)} waves of {wave:,} members: all at once do not fit")
    total = fixed + working + 2 * wave * member_bytes + (wave < members) * cpu * members * member_bytes
    reasons.append(f"about {total / 2**20:,.0f} MiB of {'the given' if given else 'usable'} {memory / 2**20:,.0f} MiB")
    return Plan(members, width, devices, int(wave), member_bytes, memory, tuple(reasons))


def one(hyperparams: Any, i: int = 0) -> Any:
    """Return the numbers of member i: numbers with a leading axis give their i-th, the others are everyone's."""
    return {name: value[i] if np.ndim(value) else value for name, value in (hyperparams or {}).items()}


def _devices(devices: Any, members: int, reasons: list[str]) -> tuple[Any, ...]:
    local = jax.local_devices()
    if devices is None:
        chosen = local  # not fewer for a few members: bits would change with their number
        if local[0].platform == "cpu" and len(local) == 1 < min(cores(), members):
            reasons.append(
                f"one device for {cores()} cores: jaxmlp.use_all_cores(), called first in the script, makes each core "
                f"a device; two devices were measured at about twice the speed of one"
            )
    elif isinstance(devices, list | tuple):
        chosen = list(devices)
        reasons.append("the devices were given")
    else:
        count = _check.positive_int("devices", devices)
        if count > len(local):
            raise ValueError(
                f"devices must be at most the {len(local)} local ones; got {count}; on a CPU jaxmlp.use_all_cores(), "
                f"called first, makes one of each core"
            )
        chosen = local[:count]
        reasons.append(f"{count} devices were given")
    if not chosen:
        raise ValueError("devices must name at least one device; got none")
    return tuple(chosen)


def _memory(devices: tuple[Any, ...]) -> int:
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return sum(3 * d.memory_stats()["bytes_limit"] // 4 for d in devices)
    return 3 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def _itemsize(a: Any) -> int:
    return 8 if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a.dtype.itemsize
