"""A run to be killed: `python tests/crash.py KIND DIRECTORY EPOCHS` trains, saves, and ends in a digest.

KIND is one, population (with halving) or stream. The digest is of every bit of the state and of the history.
"""

import hashlib
import sys
from pathlib import Path

import jax
import numpy as np
import optax

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses

X = np.random.default_rng(0).normal(size=(256, 8)).astype("f")
Y = np.sin(X[:, :1])
RECIPE = Recipe(MLP((8, 64, 1)), losses.squared_error, optax.adamw, epochs=60, batch_size=32)
NUMBERS = {"learning_rate": 1e-3, "weight_decay": 1e-4}


class Batches:
    """A stream whose order depends on the pass."""

    def set_epoch(self, epoch: int) -> None:
        """Remember which pass begins."""
        self.epoch = epoch

    def __iter__(self):
        """Give batches of 32."""
        order = np.random.default_rng(self.epoch).permutation(len(X))
        for i in range(0, len(X), 32):
            yield X[order[i : i + 32]], Y[order[i : i + 32]]


def run(kind: str, directory: Path | None, **options) -> tuple:
    """Train one of the kinds."""
    key = jax.random.key(0)
    options = {"validation": (X[:50], Y[:50]), "directory": directory, "progress": False, **options}
    if kind == "one":
        return loop.train(key, (X, Y), RECIPE, NUMBERS, every=2, stop=loop.Patience(40), **options)
    if kind == "population":
        numbers = {**NUMBERS, "learning_rate": np.geomspace(1e-4, 1e-2, 6)}
        keys = jax.random.split(key, 6)
        return loop.train(keys, (X, Y), RECIPE, numbers, every=3, stop=loop.Halving(2, first=5), **options)
    return loop.train(key, Batches(), RECIPE, NUMBERS, every=7, **options)


def digest(result: tuple) -> str:
    """Return a digest of every bit of a state and a history."""
    state, history = result
    state = state._replace(key=jax.random.key_data(state.key))
    told = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path((state, history)):
        array = np.asarray(leaf)
        told.update(f"{path} {array.dtype} {array.shape}".encode() + array.tobytes())
    return told.hexdigest()


if __name__ == "__main__":
    assert jaxmlp is not None
    kind, directory, epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    print("ready", flush=True)
    tell = [lambda state, history: print("chunk", flush=True)]
    found = digest(run(kind, directory, epochs=epochs, callbacks=tell))
    (directory / "digest").write_text(found)
