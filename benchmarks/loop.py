"""What do the host's loop, its checkpoints and data on disk cost over `fit`, and how much memory does 20 GB take?

    python -m benchmarks loop

8-50-1 and 784-256-256-10 by `fit`, by `loop.train` in four chunks, the same with a checkpoint after each chunk, and
from memory-mapped files whose pages are warm. Then one epoch's beginning over 20 GB of examples (a sparse file in a
temporary folder, read by a process of its own): its largest resident memory.
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmlp
from benchmarks.timing import Row, in_turn
from jaxmlp import MLP, Recipe, data, loop, losses

RATE = {"learning_rate": 1e-3}
CHUNKS = 4
LARGE = 20 * 10**9  # bytes


def run(*, quick: bool = False) -> list[Row]:
    """Time the contenders on both nets, and measure the memory of the large file."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for sizes, batch, count, epochs in (((8, 50, 1), 32, 200_000, 32), ((784, 256, 256, 10), 128, 90_000, 4)):
            count, epochs = (256, CHUNKS) if quick else (count, epochs)
            name = "loop " + "-".join(map(str, sizes))
            contenders = _contenders(Path(folder) / name.replace(" ", "_"), sizes, batch, count, epochs)
            steps = epochs * data.steps_per_epoch(count, batch)
            rows += in_turn(name, contenders, steps, unit="steps/s", repeats=2 if quick else 3)
    size = LARGE // 100 if quick else LARGE
    command = [sys.executable, "-m", "benchmarks.loop", str(size), "20" if quick else "1000"]
    peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [*rows, Row(f"loop {size / 1e9:g} GB", "peak resident memory", peak, "MiB", peak * 2**20 / size, peak, peak)]


def _contenders(folder: Path, sizes: tuple[int, ...], batch: int, count: int, epochs: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(count, sizes[0])).astype("f"), rng.normal(size=(count, sizes[-1])).astype("f")
    folder.mkdir()
    for name, array in zip("xy", table, strict=True):
        np.save(folder / f"{name}.npy", array)
    recipe = Recipe(MLP(sizes), losses.squared_error, optax.adam, epochs=epochs, batch_size=batch)
    here, key = tuple(map(jnp.asarray, table)), jax.random.key(0)
    train = partial(loop.train, key, here, recipe, RATE, every=epochs // CHUNKS, progress=False)

    def saved() -> Any:
        with tempfile.TemporaryDirectory() as directory:
            return train(directory=directory)

    return {
        "jaxmlp.fit": partial(jaxmlp.fit, key, here, recipe, RATE),
        "loop.train": train,
        "loop.train, four checkpoints": saved,
        "loop.train, mapped files": partial(loop.train, key, folder, recipe, RATE, progress=False),
    }


def memory(size: int, steps: int) -> float:
    """Return the largest resident memory, in MiB, of training so many steps on a sparse file of `size` bytes."""

    class Enough(Exception):
        pass

    def stop(state: Any, history: Any) -> None:
        if state.step >= steps:
            raise Enough

    with tempfile.TemporaryDirectory() as folder:
        rows = size // (784 * 4)
        np.lib.format.open_memmap(f"{folder}/x.npy", "w+", np.float32, (rows, 784)).flush()
        np.lib.format.open_memmap(f"{folder}/y.npy", "w+", np.int32, (rows,)).flush()
        recipe = Recipe(MLP((784, 256, 256, 10)), losses.cross_entropy, optax.adam, epochs=1, batch_size=128)
        try:
            loop.train(jax.random.key(0), folder, recipe, RATE, every=steps, callbacks=[stop], progress=False)
        except Enough:
            pass
    # Not getrusage, whose largest figure a process takes over from the one that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**10


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print(memory(int(sys.argv[1]), int(sys.argv[2])))
