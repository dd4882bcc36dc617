"""Programs whose data come from a loader, each beside a loop by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from programs import close

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses

KEY = jax.random.key(0)
RATE = {"learning_rate": 0.05}
X = jax.random.normal(KEY, (24, 8))
Y = jnp.sum(X[:, 1:] * X[:, :-1], axis=1, keepdims=True)
NET = MLP((8, 8, 1), "tanh")


class Loader:
    """Batches in the order of the rows, anew for each epoch."""

    def __iter__(self):
        return ((np.asarray(X[i : i + 8]), np.asarray(Y[i : i + 8])) for i in range(0, 24, 8))


def check_stream(stream):
    recipe = Recipe(NET, losses.squared_error, optax.sgd, epochs=2)
    state, _ = loop.train(KEY, stream, recipe, RATE, progress=False)
    params = jaxmlp.start(KEY, recipe, RATE).params
    for x, y in [*Loader(), *Loader()]:
        params = step_by_hand(params, x, y)
    close(state.params, params)


@jax.jit
def step_by_hand(params, x, y):
    grads = jax.grad(lambda params: jnp.mean(losses.squared_error(NET.apply(params, x), y)))(params)
    return jax.tree.map(lambda a, g: a - 0.05 * g, params, grads)


def test_any_iterable_of_batches():
    """19. Loaders: any object that gives batches anew for each epoch."""
    check_stream(Loader())


def test_grain():
    """19. Grain: its dataset of batches, as it is."""
    grain = pytest.importorskip("grain")
    rows = [(np.asarray(x), np.asarray(y)) for x, y in zip(X, Y, strict=True)]
    check_stream(grain.MapDataset.source(rows).batch(8).to_iter_dataset())
