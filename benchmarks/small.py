"""What does `fit` cost over the scan that one would write by hand?

    python -m benchmarks small

8-64-64-1 and 8-50-1, batch 32, Adam, 100 epochs of 1,000 rows: `jaxmlp.fit`, with its shuffle, its padded last
batch, its weights and its checks at the door, against a `lax.scan` written for this one net that does the same
work with the same shuffle, and against the same scan with the usual `jax.random.permutation`, which sorts.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmlp
from benchmarks.timing import Row, in_turn
from jaxmlp import MLP, Recipe, data, losses

EPOCHS, ROWS, BATCH = 100, 1000, 32
RATE = 1e-3


def run(*, quick: bool = False) -> list[Row]:
    """Time the contenders on both nets."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(ROWS, 8)), jnp.float32)
    y = jnp.sin(x[:, :1]) + 0.1 * x[:, 1:2]
    rows = []
    for sizes in ((8, 64, 64, 1), (8, 50, 1)):
        epochs = 2 if quick else EPOCHS
        recipe = Recipe(MLP(sizes), losses.squared_error, optax.adam, epochs=epochs, batch_size=BATCH)
        key = jax.random.key(0)
        contenders = {
            "scan by hand": partial(by_hand, key, x, y, sizes=sizes, epochs=epochs, sort=False),
            "jaxmlp.fit": partial(jaxmlp.fit, key, (x, y), recipe, {"learning_rate": RATE}),
            "scan by hand, sorting": partial(by_hand, key, x, y, sizes=sizes, epochs=epochs, sort=True),
        }
        steps = epochs * data.steps_per_epoch(ROWS, BATCH)
        name = "small " + "-".join(map(str, sizes))
        rows += in_turn(name, contenders, steps=steps, repeats=2 if quick else 15)
    return rows


@partial(jax.jit, static_argnames=("sizes", "epochs", "sort"))
def by_hand(key: jax.Array, x: jax.Array, y: jax.Array, *, sizes: tuple[int, ...], epochs: int, sort: bool) -> Any:
    """Train one net by a scan over epochs of a scan over steps: no library, one loss, one optimizer."""
    init_key, order_key = jax.random.split(key)
    keys = jax.random.split(init_key, len(sizes) - 1)
    params = [
        (jax.random.normal(k, (m, n)) * jnp.sqrt(2 / m), jnp.zeros(n))
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    optimizer = optax.adam(RATE)
    steps = -(-ROWS // BATCH)

    def mean_loss(params: Any, x: jax.Array, y: jax.Array, weight: jax.Array) -> jax.Array:
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return jnp.sum(weight * jnp.sum((x @ w + b - y) ** 2, -1)) / weight.sum()

    def step(carry: Any, batch: Any) -> Any:
        params, state = carry
        index, weight = batch
        loss, grads = jax.value_and_grad(mean_loss)(params, x[index], y[index], weight)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    def epoch(carry: Any, number: jax.Array) -> Any:
        key = jax.random.fold_in(order_key, number)
        place = jnp.arange(steps * BATCH, dtype=jnp.uint32)
        if sort:
            rows = jnp.pad(jax.random.permutation(key, ROWS), (0, steps * BATCH - ROWS))
        else:
            rows = jnp.where(place < ROWS, data.shuffle(key, place, ROWS), 0)
        weight = (place < ROWS).astype(jnp.float32)
        carry, losses = jax.lax.scan(step, carry, (rows.reshape(steps, BATCH), weight.reshape(steps, BATCH)))
        return carry, losses.mean()

    return jax.lax.scan(epoch, (params, optimizer.init(params)), jnp.arange(epochs))
