"""How many networks a second, beside training them any other way?

    python -m benchmarks population

64-64-10 on scikit-learn's digits, batch 64, and 8-50-1 on a made-up table, batch 32, Adam, a seed and a rate each, 64
and 1,024 of them: `population.fit` on all cores; `torch.func`, Equinox and Flax, which train all as one stack; and one
after the other our own `fit`, and scikit-learn and PyTorch on a process a core. A step is one network's on one batch.
Then a sweep of which half stops early, with and without; and `population.fit` for 1 to 4,096 members, with what the
process held at its most.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from benchmarks.crowds import ALONE, CROWDS, FIT
from benchmarks.tasks import Task, table
from benchmarks.timing import Row, in_turn, installed
from jaxmlp import MLP, Recipe, losses, population
from jaxmlp.data import steps_per_epoch

MEMBERS = 256
FEW = 16  # members of those that train one after the other


def tasks() -> dict[str, Task]:
    """Return the two nets of the benchmark."""
    digits, labels = load_digits(return_X_y=True)
    return {
        "64-64-10": Task((64, 64, 10), (digits / 16).astype("f"), labels.astype("i4"), 64, epochs=1),
        "8-50-1": Task((8, 50, 1), *table((8, 50, 1), 1000), 32, epochs=1),
    }


def run(*, quick: bool = False) -> list[Row]:
    """Time the contenders on both nets, and the members' curve."""
    rows = []
    for name, task in tasks().items():
        for members, epochs in ((4, 1),) if quick else ((64, 40), (1024, 4)):
            runs, steps = contenders(task, members, epochs, alone=members < 1000)
            title = f"{members:,} of {name}"
            rows += in_turn(title, runs, steps, unit="net-steps/s", repeats=2 if quick else 5)
    digits = tasks()["64-64-10"]
    members, epochs = (4, 8) if quick else (MEMBERS, 120)
    rows += stopping(digits.x, digits.y, members=members, epochs=epochs, quick=quick)
    for name, task in tasks().items():
        rows += curve(name, task, (1, 4) if quick else (1, 4, 16, 64, 256, 1024, 4096))
    if not quick:
        draw(rows, Path("figures/members.png"))
    return rows


def contenders(task: Task, members: int, epochs: int, *, alone: bool) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what each contender runs, and how many network-steps that is: the slow ones train fewer, as long."""
    rates = np.logspace(-4, -2, members).astype("f")
    some = rates[:: max(1, members // FEW)][:FEW]
    sizes = [(FIT, epochs, rates)]
    sizes += [(peer, max(1, epochs // 10), rates) for peer in installed(CROWDS)]
    sizes += [(peer, epochs if peer.module == "jaxmlp" else 10, some) for peer in installed(ALONE if alone else ())]
    runs = {peer.name: peer.make(task.with_epochs(epochs), mine) for peer, epochs, mine in sizes}
    return runs, {peer.name: task.with_epochs(epochs).steps * len(mine) for peer, epochs, mine in sizes}


def stopping(x: np.ndarray, y: np.ndarray, *, members: int, epochs: int, quick: bool) -> list[Row]:
    """Time a sweep with and without early stopping; at these rates half the members stop by a third of the epochs."""
    recipe = Recipe(MLP((64, 64, 10)), losses.cross_entropy, optax.adam, epochs=epochs, batch_size=64)
    keys = jax.random.split(jax.random.key(0), members)
    hyperparams = {"learning_rate": jnp.logspace(-4, -1.2, members)}
    fit = partial(population.fit, keys, (x[:1000], y[:1000]), recipe, hyperparams, validation=(x[1000:], y[1000:]))
    runs: dict[str, Any] = {"every member to the end": fit, "patience of 5 epochs": partial(fit, patience=5)}
    steps = members * epochs * steps_per_epoch(1000, 64)
    return in_turn("early stopping", runs, steps, unit="net-steps/s", repeats=2 if quick else 5)


def curve(name: str, task: Task, members: tuple[int, ...]) -> list[Row]:
    """Return network-steps a second against the number of members, and what the process held at its most meanwhile."""
    rates: list[Row] = []
    memory: list[Row] = []
    for count in members:
        epochs = 10 if count < 1024 else 5
        mine = task.with_epochs(epochs)
        fit = FIT.make(mine, np.full(count, 1e-3, "f"))
        reset_peak()
        (found,) = in_turn(f"members {name}", {f"{count:,}": fit}, count * mine.steps, unit="net-steps/s", repeats=3)
        rates.append(found._replace(ratio=(rates[0] if rates else found).value / found.value))
        held = peak()
        if held is not None:
            first = memory[0].value if memory else held
            memory.append(Row(f"memory {name}", f"{count:,}", held, "MiB", held / first, held, held))
    return rates + memory


def reset_peak() -> None:
    """Forget the most memory that the process held, where Linux keeps it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float | None:
    """Return the most memory in MiB that the process held since, or None where that is not known."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    return None


def draw(rows: list[Row], path: Path) -> None:
    """Draw throughput and memory against the number of members."""
    from experiments.report import BLUE, ORANGE, canvas

    figure, (left, right) = canvas(2, width=4.4)
    for colour, net in ((BLUE, "64-64-10"), (ORANGE, "8-50-1")):
        for axis, what, scale in ((left, "members", 1e-3), (right, "memory", 1.0)):
            mine = [row for row in rows if row.benchmark == f"{what} {net}"]
            axis.plot(
                [int(r.contender.replace(",", "")) for r in mine],
                [scale * r.value for r in mine],
                "o-",
                color=colour,
                label=net,
            )
    left.set(xscale="log", yscale="log", xlabel="members", ylabel="thousand network-steps a second", title="Throughput")
    right.set(xscale="log", xlabel="members", ylabel="MiB, the whole process", title="Memory", ylim=(0, None))
    left.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"figure {path}")
