"""How long until a network is good, each library by its own best practice?

    python -m benchmarks quality
    python -m benchmarks quality --data DIR      with MNIST's four files in DIR

64-128-10 on scikit-learn's digits to 97 % of held-out examples, and with `--data` 784-256-256-10 on MNIST to 98 %: for
each library the fewest epochs with which the median of three seeds reaches it, and the time of that run from data in
memory to trained weights, compilation apart. Best practice: batches of 64 (MNIST: 128), Adam from 3e-3 falling along a
cosine; scikit-learn, whose Adam has no schedule, from a constant 1e-3.
"""

import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jaxmlp
from benchmarks.peers import torch_net
from benchmarks.timing import Peer, Row, in_turn, installed, measured
from experiments.images import load
from jaxmlp import MLP, Recipe, data, losses
from jaxmlp.training import CosineAdamW

RATE = 3e-3
EPOCHS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
SEEDS = (0, 1, 2)


class Problem(NamedTuple):
    """Examples to learn from, examples to be judged on, and when it is good enough."""

    name: str
    sizes: tuple[int, ...]
    batch: int
    target: float
    most: int  # epochs
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def run(*, quick: bool = False, folder: Path | None = None) -> list[Row]:
    """Find each library's fewest epochs, and time them."""
    rows = []
    for problem in problems(folder):
        runs, notes = {}, []
        for peer in installed(PEERS):
            tried = EPOCHS[:1] if quick else tuple(n for n in EPOCHS if n <= problem.most)
            epochs, accuracy = fewest(peer, problem, tried, SEEDS[:1] if quick else SEEDS)
            if accuracy < problem.target and not quick:
                print(f"left out: {peer.name} came to {accuracy:.2%} in {epochs} epochs")
                continue
            runs[peer.name] = peer.make(problem, epochs, 0)
            notes.append(measured(problem.name + ", epochs", peer.name, epochs, "epochs", epochs))
        rows += in_turn(problem.name, runs, 1, unit="ms", repeats=2 if quick else 5) + notes
    return [row._replace(ratio=row.value / first(rows, row)) for row in rows]


def first(rows: list[Row], row: Row) -> float:
    """Return the value of the first contender of a row's benchmark."""
    return next(other.value for other in rows if other.benchmark == row.benchmark)


def fewest(peer: Peer, problem: Problem, epochs: tuple[int, ...], seeds: tuple[int, ...]) -> tuple[int, float]:
    """Return the fewest of the `epochs` whose median accuracy reaches the target, else the most, and that accuracy."""
    count, accuracy = 0, 0.0
    for count in epochs:
        answers = [peer.make(problem, count, seed)() for seed in seeds]
        accuracy = statistics.median(float((answer(problem.test_x) == problem.test_y).mean()) for answer in answers)
        if accuracy >= problem.target:
            break
    return count, accuracy


def problems(folder: Path | None) -> list[Problem]:
    """Return the digits, and MNIST where its files are given."""
    x, y = load_digits(return_X_y=True)
    train, test = data.split(jax.random.key(0), len(x), 0.25)
    x, y = (x / 16).astype("f"), y.astype("i4")
    parts = (a[rows] for rows in map(np.asarray, (train, test)) for a in (x, y))
    found = [Problem("digits to 97 %", (64, 128, 10), 64, 0.97, 64, *parts)]
    if folder is not None:
        (x, y), (test_x, test_y) = load(folder)
        found.append(Problem("MNIST to 98 %", (784, 256, 256, 10), 128, 0.98, 12, x, y, test_x, test_y))
    return found


Answer = Callable[[np.ndarray], np.ndarray]


def ours(problem: Problem, epochs: int, seed: int) -> Callable[[], Answer]:
    """`jaxmlp.fit`, AdamW along a cosine without decay of weights."""
    steps = epochs * data.steps_per_epoch(len(problem.x), problem.batch)
    mlp = MLP(problem.sizes)
    recipe = Recipe(mlp, losses.cross_entropy, CosineAdamW(steps), epochs=epochs, batch_size=problem.batch)
    table = jnp.asarray(problem.x), jnp.asarray(problem.y)

    def train() -> Answer:
        state, _ = jaxmlp.fit(jax.random.key(seed), table, recipe, {"learning_rate": RATE})
        jax.block_until_ready(state.params)
        return lambda x: np.asarray(mlp.apply(state.params, x)).argmax(1)

    return train


def pytorch(problem: Problem, epochs: int, seed: int) -> Callable[[], Answer]:
    """PyTorch, eager, a fused Adam under a cosine schedule."""
    import torch  # type: ignore[import-not-found]

    x, y = torch.as_tensor(problem.x), torch.as_tensor(problem.y.astype("i8"))
    steps = epochs * data.steps_per_epoch(len(x), problem.batch)

    def train() -> Answer:
        torch.manual_seed(seed)
        net, loss_of = torch_net(problem.sizes)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(problem.batch):
                optimizer.zero_grad(set_to_none=True)
                loss_of(net(x[rows]), y[rows]).backward()
                optimizer.step()
                schedule.step()
        return lambda test: net(torch.as_tensor(test)).detach().numpy().argmax(1)

    return train


def keras(problem: Problem, epochs: int, seed: int) -> Callable[[], Answer]:
    """Keras on JAX, Adam under its cosine schedule."""
    import os

    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras  # type: ignore[import-not-found]

    steps = epochs * data.steps_per_epoch(len(problem.x), problem.batch)
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(n, activation="relu") for n in problem.sizes[1:-1]]
    net = keras.Sequential([keras.Input(problem.sizes[:1]), *layers, keras.layers.Dense(problem.sizes[-1])])
    schedule: Any = keras.optimizers.schedules.CosineDecay(RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(optimizer=keras.optimizers.Adam(schedule), loss=loss)
    before = net.get_weights()

    def train() -> Answer:
        net.set_weights(before)
        for variable in net.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        net.fit(problem.x, problem.y, batch_size=problem.batch, epochs=epochs, verbose=0)  # type: ignore[arg-type]
        return lambda x: np.asarray(net(x)).argmax(1)

    return train


def scikit(problem: Problem, epochs: int, seed: int) -> Callable[[], Answer]:
    """scikit-learn's classifier."""
    from sklearn.neural_network import MLPClassifier

    options: dict[str, Any] = dict(hidden_layer_sizes=problem.sizes[1:-1], batch_size=problem.batch, max_iter=epochs)
    options |= dict(alpha=0.0, tol=0.0, n_iter_no_change=epochs + 1, random_state=seed)

    def train() -> Answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            net: Any = MLPClassifier(**options).fit(problem.x, problem.y)
            return net.predict

    return train


PEERS = (
    Peer("jaxmlp.fit", "jaxmlp", ours),
    Peer("PyTorch", "torch", pytorch),
    Peer("Keras", "keras", keras),
    Peer("scikit-learn", "sklearn", scikit),
)
