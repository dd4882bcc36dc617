"""How a population runs: how many members at once, on which devices, in how much memory.

Of what a population costs and of the devices, `plan` chooses, and keeps a sentence about each choice.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmlp import _arrays, _check
from jaxmlp._engine import limits
from jaxmlp._engine.cost import STEP_COPIES, Cost, estimate
from jaxmlp._engine.devices import chosen_devices
from jaxmlp._engine.entry import check_keys
from jaxmlp._engine.hosts import hosts_of, together
from jaxmlp._engine.inputs import at_hand, checked_table, plain
from jaxmlp._placement import Placement
from jaxmlp._trees import is_tree
from jaxmlp.recipe import Recipe
from jaxmlp.types import Data, Hyperparams

# Measured on two CPU cores: a block of members pays while what a step touches stays in the second-level cache, and up
# to 16 of them; a network whose own step is above 20 MFLOP keeps a core busy alone. The accelerator's are a guess: wide
# enough to fill a card, and small enough that stopped members make room in steps.
CPU_BLOCK, CPU_CACHE, CPU_ALONE = 16, 2**20, 2e7
ACCELERATOR_BLOCK, ACCELERATOR_CACHE = 1024, 2**32

EVERYWHERE, FIRST, SHARDED = RESULTS = "everywhere", "first", "sharded"


class Layout(NamedTuple):
    """What of a plan changes the program."""

    width: int
    devices: tuple[Any, ...]
    placement: Placement = Placement()  # of one network on a mesh of these devices

    @property
    def lanes(self) -> int:
        """How many devices train members of their own."""
        return len(self.devices) if self.placement.mesh is None else 1


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
    member_bytes: int  # parameters and optimizer's state of one member, and its best parameters where they are kept
    memory: int  # the budget, in bytes
    results: str = EVERYWHERE  # on which processes they are to be
    reasons: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    placement: Placement = Placement()  # of one network on a mesh

    @property
    def slots(self) -> int:
        """Places for members on each device, a multiple of the width."""
        return self.width * math.ceil(self.wave / (self.width * len(self.devices)))

    @property
    def share(self) -> int:
        """Members that a device has in memory at a time, where they are dealt out in turn; the most of any."""
        return math.ceil(self.wave / len(self.devices))

    @property
    def layout(self) -> Layout:
        """What of the plan changes the program."""
        return Layout(self.width, self.devices, self.placement)

    def __str__(self) -> str:
        count, kind = len(self.devices), self.devices[0].platform.upper()
        devices, where = (f"{count} {kind} device", "") if count == 1 else (f"{count} {kind} devices", " on each")
        if (processes := len({device.process_index for device in self.devices})) > 1:
            devices += f" of {processes} processes"
        if self.width == 1:
            how = f"one after the other{where}"
        elif self.width <= self.share:
            how = f"{self.width} at a time{where}"
        else:
            most = "at most " if self.wave % count else ""
            how = f"{most}{self.share} together{where}, in a block of width {self.width}"
        return "\n  ".join([f"{self.members:,} members on {devices}, {how}", *self.reasons])


@together
def plan(
    keys: Any,
    data: Data,
    recipe: Recipe,
    hyperparams: Hyperparams = None,
    *,
    width: int | None = None,
    devices: Any = None,
    memory: int | None = None,
    keep_best: bool = False,
    results: str = EVERYWHERE,
) -> Plan:
    """Choose how a population runs; what is given by hand stays.

    Where several processes run one program, all of them must call it alike, as they must `population.fit`: one that
    calls it alone waits for the others. With `devices=jax.local_devices()` it asks nobody.

    Args:
      keys: the members' keys, (members,), or their number.
      data: the data of the run, for its size.
      recipe: the recipe of all members.
      hyperparams: for numbers without which `init` cannot run; of one member or of all.
      width: members at once under `vmap` on a device; 1 trains them one after the other, bit for bit as `fit` does.
      devices: a list of JAX devices, or how many of them; all unless given, those of all processes where several run
        one program (`jax.distributed.initialize`). `jax.local_devices()` lets each process train by itself.
      memory: budget in bytes for the population and the data on all devices; where the members do not fit at once
        they are trained in waves, whose results wait as NumPy arrays. Unless given, three quarters of what is there:
        the accelerators' memory, or the machine's, or what the container around this process allows (cgroup v1, v2).
        Where the system tells nothing, 4 GiB are taken to be there.
      keep_best: count a second copy of the parameters, as early stopping keeps one.
      results: of several processes, "everywhere" brings the results of all members to each, "first" to the first alone,
        and the others get none, arrays (0, ...); "sharded" leaves the states on the devices, in the order of the
        members, one array over all processes, and brings the history everywhere.

    Returns:
      A `Plan`, whose text says what was chosen and why.

    Raises:
      ValueError: for a budget too small for one block of members, or options that are no positive numbers.

    >>> from jaxmlp import MLP, losses
    >>> import jax.numpy as jnp, optax
    >>> recipe = Recipe(MLP((8, 50, 1)), losses.squared_error, optax.adam, epochs=1, batch_size=32)
    >>> data = jnp.ones((100, 8)), jnp.ones((100, 1))
    >>> plan(4, data, recipe, {"learning_rate": 0.1}, width=2, devices=1).slots
    4
    """
    (keys, hyperparams), data = at_hand((keys, hyperparams)), checked_table(plain(data))
    if not isinstance(keep_best, bool):
        raise ValueError(f"keep_best must be True or False; got {_check.describe(keep_best)}")
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be one Recipe; got {_check.describe(recipe)}")
    if not isinstance(hyperparams, Mapping | None):
        raise ValueError(f"hyperparams must be a dict of numbers; got {_check.describe(hyperparams)}")
    hyperparams = {
        name: _arrays.listed(f"hyperparams[{name!r}]", value)
        if isinstance(value, list | tuple) and not is_tree(value)
        else value
        for name, value in (hyperparams or {}).items()
    }
    members = _members(keys)
    chosen, why_devices = chosen_devices(devices, members)
    _check.one_of("results", results, RESULTS)
    cost = estimate(data, recipe, hyperparams, devices=chosen, keep_best=keep_best)
    width, why_width = _width(width, cost, cpu=chosen[0].platform == "cpu")
    given = memory is not None
    memory, why_memory = (
        (_check.positive_int("memory", memory, most=2**63 - 1), [])
        if given
        else limits.usable(chosen, hosts_of(chosen))
    )
    block = width * len(chosen)
    wave = _wave(cost, members, block, memory)
    if wave is None:
        raise ValueError(
            f"memory must hold the data, one block of members{' and all results' if cost.shares_memory else ''}: "
            f"{_least(cost, members, block):,} bytes; got {memory:,}"
            f"{'' if given else ', three quarters of what is there'}; pass a smaller width, fewer devices, fewer "
            f"members or more memory"
        )
    if results == SHARDED and (members % len(chosen) or wave < members):
        raise ValueError(
            f"results='sharded' must have all members in memory at once and as many on each of {len(chosen)} devices; "
            f"got {members} members, {wave} at once; pass a multiple of the devices, or results='everywhere'"
        )
    reasons = [*why_devices, why_width, *_empty(width, math.ceil(wave / len(chosen))), *why_memory]
    if wave < members:
        reasons.append(f"in {math.ceil(members / wave)} waves of {wave:,} members: all at once do not fit")
    total = cost.total(members, wave, block)
    reasons.append(f"about {total / 2**20:,.0f} MiB of {'the given' if given else 'usable'} {memory / 2**20:,.0f} MiB")
    return Plan(members, width, chosen, wave, cost.member, memory, results, tuple(reasons))


def _members(keys: Any) -> int:
    """Return how many members there are, of their keys or their number."""
    if _check.is_array(keys) and keys.shape:
        return check_keys(keys)  # pyright: ignore[reportArgumentType]  (which says what keys are)
    return _check.positive_int("keys, the members,", keys)


def _width(given: int | None, cost: Cost, *, cpu: bool) -> tuple[int, str]:
    """Return how many members a device trains at once, and why.

    It comes of the recipe alone, never of the number of members: a member's bits depend on the width, and so a member
    among ten has the bits that it has among a thousand.
    """
    if given is not None:
        width = _check.positive_int("width", given)
        return width, f"width {width} was given"
    if cpu and cost.flops > CPU_ALONE:
        return 1, f"a step of one member takes {cost.flops / 1e6:,.0f} MFLOP: one member fills a core"
    # A step touches a state and its working copies, which a cache must hold; the accelerator's number counts states.
    fits = CPU_CACHE // ((1 + STEP_COPIES) * cost.state) if cpu else ACCELERATOR_CACHE // cost.state
    most = CPU_BLOCK if cpu else ACCELERATOR_BLOCK
    width = min(most, max(2, _power_of_two(fits)))  # even two that do not fit share the overhead of each operation
    place = "stay in the cache" if cpu else "fill the card"
    return width, (
        f"a member holds {cost.state:,} bytes and its step takes {cost.flops / 1e6:.2g} MFLOP: {width} together {place}"
    )


def _empty(width: int, share: int) -> list[str]:
    """Return a sentence about slots without a member, where half of them or more have none."""
    if width < 2 * share:
        return []
    return [
        f"at least {width - share:,} of {width:,} slots of each device are empty, and are computed all the same: "
        f"width={share} leaves fewest, with other bits"
    ]


def _wave(cost: Cost, members: int, block: int, memory: int) -> int | None:
    """Return how many members are in memory at a time: all, else whole blocks; None where not even one block fits."""
    room = memory - cost.data - cost.working(block)
    if members * cost.held <= room:
        return members
    wave = min(members, (room - cost.waiting(members)) // cost.held) // block * block
    return wave if wave >= block else None


def _least(cost: Cost, members: int, block: int) -> int:
    """Return the smallest budget in which a population runs in waves, of a block each."""
    return cost.data + cost.working(block) + cost.waiting(members) + block * cost.held


def _power_of_two(number: int) -> int:
    """Return the greatest power of two that is at most the number; 1 for less."""
    return 2 ** int(math.log2(max(1, number)))
