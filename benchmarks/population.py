"""How many networks a second, beside training them any other way?

    python -m benchmarks population

64-64-10 on scikit-learn's digits, batch 64, and 8-50-1 on a made-up table, batch 32, Adam, a seed and a rate each:
`population.fit` on all cores, our own `fit` in a loop, scikit-learn's MLP and PyTorch on a process a core, and
`torch.func`, which trains all as one stack. A step is one network's on one batch; times are for each such step. Then a
sweep of which half stops early, with and without; and `population.fit` for 1 to 4,096 members, with what the process
held at its most. Peers that are not installed are left out.

Two cores, medians of five in turn, as ratios to `population.fit` (64-64-10, 8-50-1): `fit` in a loop 2.0, 3.6;
`torch.func` 4.2, 16; scikit-learn 10, 53; PyTorch 15, 122. The sweep that stops early: 0.53 of its time.
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

import jaxmlp
from benchmarks import peers
from benchmarks.timing import Row, in_turn
from jaxmlp import MLP, Recipe, losses, population
from jaxmlp.data import steps_per_epoch

MEMBERS = 256


def run(*, quick: bool = False) -> list[Row]:
    """Time the contenders on both nets, and the members' curve."""
    digits, labels = load_digits(return_X_y=True)
    x = np.random.default_rng(0).normal(size=(1000, 8)).astype("f")
    tasks = {
        "64-64-10": ((64, 64, 10), ((digits / 16).astype("f"), labels.astype("i4")), losses.cross_entropy, 64),
        "8-50-1": ((8, 50, 1), (x, np.sin(x[:, :1])), losses.squared_error, 32),
    }
    rows = []
    for name, (sizes, data, loss, batch) in tasks.items():
        members, epochs = (4, 1) if quick else (MEMBERS, 10)
        rows += in_turn(
            f"population {name}", *contenders(sizes, data, loss, batch, members, epochs), repeats=2 if quick else 5
        )
    rows += stopping(*tasks["64-64-10"][1], members=4 if quick else MEMBERS, epochs=8 if quick else 120, quick=quick)
    for name, (sizes, data, loss, batch) in tasks.items():
        rows += curve(name, sizes, data, loss, batch, (1, 4) if quick else (1, 4, 16, 64, 256, 1024, 4096))
    if not quick:
        draw(rows, Path("figures/members.png"))
    return rows


def contenders(sizes: Any, data: Any, loss: Any, batch: int, members: int, epochs: int) -> tuple[dict, dict]:
    """Return what each contender runs, and how many network-steps that is: the slow ones train fewer, as long."""
    per_epoch = steps_per_epoch(len(data[0]), batch)
    recipe = Recipe(MLP(sizes), loss, optax.adam, epochs=epochs, batch_size=batch)
    keys = jax.random.split(jax.random.key(0), members)
    rates = np.logspace(-4, -2, members).astype("f")
    few = max(2, members // 16)

    def looped() -> Any:
        return [jaxmlp.fit(keys[i], data, recipe, {"learning_rate": rates[i]}) for i in range(few)]

    runs: dict[str, Any] = {
        "population.fit": (partial(population.fit, keys, data, recipe, {"learning_rate": jnp.asarray(rates)}), members),
        "jaxmlp.fit in a loop": (looped, few),
    }
    some = rates[:: len(rates) // few][:few]
    runs["scikit-learn, processes"] = (partial(peers.sklearn, sizes, data, batch, epochs, some), few)
    if peers.has_torch():
        stack = max(2, members // 4)
        runs["torch.func"] = (
            partial(peers.torch_func, sizes, data, batch, max(1, epochs // 5), rates[:stack]),
            stack / 5 if epochs >= 5 else stack,
        )
        runs["PyTorch, processes"] = (partial(peers.torch_processes, sizes, data, batch, epochs, some), few)
    return {name: call for name, (call, _) in runs.items()}, {
        name: int(round(count * epochs * per_epoch)) for name, (_, count) in runs.items()
    }


def stopping(x: np.ndarray, y: np.ndarray, *, members: int, epochs: int, quick: bool) -> list[Row]:
    """Time a sweep with and without early stopping; at these rates half the members stop by a third of the epochs."""
    recipe = Recipe(MLP((64, 64, 10)), losses.cross_entropy, optax.adam, epochs=epochs, batch_size=64)
    keys = jax.random.split(jax.random.key(0), members)
    hyperparams = {"learning_rate": jnp.logspace(-4, -1.2, members)}
    fit = partial(population.fit, keys, (x[:1000], y[:1000]), recipe, hyperparams, validation=(x[1000:], y[1000:]))
    runs: dict[str, Any] = {"every member to the end": fit, "patience of 5 epochs": partial(fit, patience=5)}
    steps = members * epochs * steps_per_epoch(1000, 64)
    return in_turn("early stopping", runs, steps, repeats=2 if quick else 5)


def curve(name: str, sizes: Any, data: Any, loss: Any, batch: int, members: tuple[int, ...]) -> list[Row]:
    """Return network-steps a second against the number of members, and what the process held at its most meanwhile."""
    rates: list[Row] = []
    memory: list[Row] = []
    for count in members:
        epochs = 10 if count < 1024 else 5
        recipe = Recipe(MLP(sizes), loss, optax.adam, epochs=epochs, batch_size=batch)
        keys = jax.random.split(jax.random.key(0), count)
        fit = partial(population.fit, keys, data, recipe, {"learning_rate": jnp.full(count, 1e-3)})
        steps = count * epochs * steps_per_epoch(len(data[0]), batch)
        reset_peak()
        (found,) = in_turn(f"members {name}", {f"{count:,}": fit}, steps, repeats=3)
        value, low, high = (1e6 / time for time in (found.value, found.high, found.low))
        first = rates[0].value if rates else value
        rates.append(Row(found.benchmark, found.contender, value, "net-steps/s", value / first, low, high))
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
