"""How long from the process's start to the first trained step, and to the hundredth?

    python -m benchmarks compile

Every contender in processes of its own, in turn: the import alone; then one step and a hundred steps of 64-64-64-1,
batch 32, Adam, cold, and again with JAX's persistent cache filled. Then jaxmlp's first step against the number of
hidden layers, as one stack that a scan goes through (`scan=True`) and with each layer written out.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

WIDTH, BATCH, RATE = 64, 32, 1e-3
IMPORTS = {"import jaxmlp": "import jaxmlp", "import jax, optax": "import jax, optax"}
DEPTHS = {"jaxmlp.step, scan": (2, 8, 32, 128, 256), "jaxmlp.step": (2, 32, 256)}


def run(*, quick: bool = False) -> list[Any]:
    """Start the processes and return their times in seconds."""
    from benchmarks.timing import Peer, installed

    repeats = 1 if quick else 3
    imports = {name: partial(_import, code) for name, code in IMPORTS.items()}
    rows = _rows("import", imports, 1 if quick else 15)
    peers = (Peer(name, module, CONTENDERS[name]) for name, module in MODULES.items())
    names = [peer.name for peer in installed(peers)]
    with tempfile.TemporaryDirectory() as cache:
        for steps in (1, 100):
            for title, folder in (("cold", None), ("cached", cache)):
                started = {name: partial(_start, name, 2, steps, folder) for name in names}
                if folder is not None:
                    for begin in started.values():
                        begin()  # fills the cache
                rows += _rows(f"{'first step' if steps == 1 else '100th step'}, {title}", started, repeats)
        for title, folder in (("cold", None), ("cached", cache)):
            depths = {
                f"{name}, {depth} hidden layers": partial(_start, name, depth, 1, folder)
                for name, depths in DEPTHS.items()
                for depth in (depths[:1] if quick else depths)
            }
            if folder is not None:
                for begin in depths.values():
                    begin()
            rows += _rows(f"depth, {title}", depths, repeats)
    return rows


def _rows(benchmark: str, contenders: dict[str, Callable[[], float]], repeats: int) -> list[Any]:
    """Return seconds; not by `in_turn`, since a process tells its own time."""
    from benchmarks.timing import Row

    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, begin in contenders.items():
            times[name].append(begin())
    first = next(iter(times.values()))
    rows = []
    for name, mine in times.items():
        ratio = statistics.median(a / b for a, b in zip(mine, first, strict=True))
        rows.append(Row(f"compile: {benchmark}", name, statistics.median(mine), "s", ratio, min(mine), max(mine)))
    return rows


def _import(code: str) -> float:
    program = f"import time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


def _start(name: str, depth: int, steps: int, cache: str | None) -> float:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if cache is not None:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    command = [sys.executable, "-m", "benchmarks.compile", name, str(depth), str(steps), str(time.time())]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


# What follows runs in the processes; each imports what it needs and nothing else.


def _table(steps: int) -> Any:
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * BATCH, WIDTH)).astype("f")
    return x, np.sin(x[:, :1])


def _sizes(depth: int) -> tuple[int, ...]:
    return (WIDTH,) * (depth + 1) + (1,)


def _jaxmlp_step(depth: int, steps: int, scan: bool = False) -> None:
    import jax
    import optax

    import jaxmlp
    from jaxmlp import losses

    x, y = _table(steps)
    mlp = jaxmlp.MLP(_sizes(depth), scan=scan)
    recipe = jaxmlp.Recipe(mlp, losses.squared_error, optax.adam, epochs=1, batch_size=BATCH)
    rate, step = {"learning_rate": RATE}, jax.jit(jaxmlp.step, donate_argnums=0)
    state = jax.jit(jaxmlp.start)(jax.random.key(0), recipe, rate)
    for i in range(0, len(x), BATCH):
        state, _ = step(state, (x[i : i + BATCH], y[i : i + BATCH]), recipe, rate)
    jax.block_until_ready(state)


def _jaxmlp_fit(depth: int, steps: int) -> None:
    import jax
    import optax

    import jaxmlp
    from jaxmlp import losses

    recipe = jaxmlp.Recipe(jaxmlp.MLP(_sizes(depth)), losses.squared_error, optax.adam, epochs=1, batch_size=BATCH)
    jax.block_until_ready(jaxmlp.fit(jax.random.key(0), _table(steps), recipe, {"learning_rate": RATE}))


def _by_hand(depth: int, steps: int) -> None:
    import jax
    import jax.numpy as jnp
    import optax

    x, y = _table(steps)
    sizes, optimizer = _sizes(depth), optax.adam(RATE)

    @jax.jit
    def start(key: Any) -> Any:
        keys = jax.random.split(key, len(sizes) - 1)
        shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
        params = [(jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros(n)) for k, m, n in shapes]
        return params, optimizer.init(params)

    def mean_loss(params: Any, x: Any, y: Any) -> Any:
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return jnp.square(x @ w + b - y).mean()

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(mean_loss)(params, x, y)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    params, state = start(jax.random.key(0))
    for i in range(0, len(x), BATCH):
        params, state, _ = step(params, state, x[i : i + BATCH], y[i : i + BATCH])
    jax.block_until_ready(params)


def _equinox(depth: int, steps: int) -> None:
    import equinox as eqx  # type: ignore[import-not-found]
    import jax
    import jax.numpy as jnp
    import optax

    x, y = _table(steps)
    model = eqx.nn.MLP(WIDTH, 1, WIDTH, depth, key=jax.random.key(0))
    optimizer = optax.adam(RATE)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, state: Any, x: Any, y: Any) -> Any:
        loss, grads = eqx.filter_value_and_grad(lambda m: jnp.square(jax.vmap(m)(x) - y).mean())(model)
        updates, state = optimizer.update(grads, state, model)
        return eqx.apply_updates(model, updates), state, loss

    for i in range(0, len(x), BATCH):
        model, state, _ = step(model, state, x[i : i + BATCH], y[i : i + BATCH])
    jax.block_until_ready(jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))


def _torch(depth: int, steps: int) -> None:
    import torch  # type: ignore[import-not-found]
    from torch import nn  # type: ignore[import-not-found]

    x, y = map(torch.as_tensor, _table(steps))
    sizes = _sizes(depth)
    parts = [part for m, n in zip(sizes, sizes[1:], strict=False) for part in (nn.Linear(m, n), nn.ReLU())]
    net = nn.Sequential(*parts[:-1])
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    for i in range(0, len(x), BATCH):
        optimizer.zero_grad(set_to_none=True)
        nn.functional.mse_loss(net(x[i : i + BATCH]), y[i : i + BATCH]).backward()
        optimizer.step()


CONTENDERS = {
    "jaxmlp.step": _jaxmlp_step,
    "jaxmlp.step, scan": partial(_jaxmlp_step, scan=True),
    "jaxmlp.fit": _jaxmlp_fit,
    "JAX by hand": _by_hand,
    "Equinox": _equinox,
    "PyTorch": _torch,
}
MODULES = {
    "jaxmlp.step": "jaxmlp",
    "jaxmlp.fit": "jaxmlp",
    "JAX by hand": "jax",
    "Equinox": "equinox",
    "PyTorch": "torch",
}

if __name__ == "__main__":
    _, name, depth, steps, began = sys.argv
    CONTENDERS[name](int(depth), int(steps))
    print(json.dumps(time.time() - float(began)))
