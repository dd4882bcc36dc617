"""Does a network learn to swing a pendulum up, by the derivatives of the pendulum itself?

    python -m experiments policy

A rod that hangs, and a motor with half the torque that would lift it: it has to swing to and fro first. The loss plays
two seconds from states that it draws with `key`, the network's torques through `apply`, and its gradient goes through
physics and network alike; there is no table of examples. Seeds are a population, since such searches are known to
depend on luck (Henderson 2018, arXiv 1709.06560): nine of ten must swing up and stay, from rest and from anywhere.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.report import BLUE, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, population
from jaxmlp.training import ClippedCosineAdamW
from jaxmlp.types import Params

SEEDS, EPOCHS, STEPS, BATCH = 12, 40, 20, 32  # 20 steps an epoch, of 32 games each
DT, LENGTH, LATER, TORQUE = 0.05, 40, 200, 2.5  # seconds a move, moves of a game, and of a test; newton metres
MODEL = MLP((3, 32, 32, 1), "tanh")


def move(state: Array, torque: Array) -> Array:
    """Return angle (0 is up) and speed after DT, of a rod of one metre and one kilogram: I = 1/3, g = 10."""
    angle, speed = state[..., 0], state[..., 1]
    speed = speed + DT * (15 * jnp.sin(angle) + 3 * torque)
    return jnp.stack([angle + DT * speed, speed], axis=-1)


def torque(network: Callable[[Array], Array], state: Array) -> Array:
    """Return the torque of the network in each state, (batch,), of at most TORQUE to either side."""
    seen = jnp.stack([jnp.cos(state[:, 0]), jnp.sin(state[:, 0]), state[:, 1] / 8], axis=1)
    return TORQUE * jnp.tanh(network(seen)[:, 0])


def play(network: Callable[[Array], Array], state: Array, length: int) -> Array:
    """Return the states after each move, (length, batch, 2)."""

    def one(state: Array, _: None) -> tuple[Array, Array]:
        after = move(state, torque(network, state))
        return after, after

    return jax.lax.scan(one, state, length=length)[1]


def cost(
    outputs: Array, targets: None, *, params: Params, x: Array, apply: Callable, key: Array
) -> tuple[Array, dict[str, Array]]:
    """Return the mean over a game of 1 - cos(angle) + speed^2 / 500, from anywhere; and the mean height, -1 ... 1."""
    start = jax.random.uniform(key, (len(x), 2), minval=-1) * jnp.array([jnp.pi, 4.0])
    path = play(lambda seen: apply(params, seen), start, LENGTH)
    height = jnp.cos(path[..., 0]).mean(0)
    return 1 - height + jnp.square(path[..., 1]).mean(0) / 500, {"height": height}


def run(report: Report) -> None:
    """Train a population of seeds, and see whether each swings up from rest and from anywhere."""
    recipe = Recipe(MODEL, cost, ClippedCosineAdamW(), epochs=EPOCHS, batch_size=BATCH)
    keys, numbers = population.grid(SEEDS, learning_rate=[1e-2])
    games = np.zeros((STEPS * BATCH, 3), "f")  # how many an epoch has: where they begin, the loss draws
    report.stage(f"{SEEDS} seeds, {EPOCHS * STEPS} steps of {BATCH} games")
    states, history = population.fit(keys, (games,), recipe, numbers, callback=report.progress(EPOCHS))
    rng = np.random.default_rng(0)
    start = rng.uniform(-1, 1, (100, 2)) * [np.pi, 4]
    start[0] = [np.pi, 0]  # hangs, and rests
    test = jax.jit(jax.vmap(lambda params: play(lambda seen: MODEL.apply(params, seen), jnp.array(start, "f"), LATER)))
    path = np.asarray(test(states.params))  # (seeds, moves, games, 2)
    up = np.all(np.cos(path[:, -40:, :, 0]) > 0.9, axis=1)  # for the last two seconds of ten
    rested, share = int(up[:, 0].sum()), up.mean(1)
    constant = play(lambda seen: jnp.full((1, 1), jnp.inf), jnp.array([[jnp.pi, 0]]), LATER)
    most = float(jnp.cos(constant[..., 0]).max())
    report.claim("the motor by itself cannot lift it", expected="height < 0", measured=f"{most:.2f}", holds=most < 0)
    report.claim(
        "it swings up from rest, and stays",
        expected="9 of 10 seeds",
        measured=f"{rested} of {SEEDS}",
        holds=rested >= 0.9 * SEEDS,
    )
    report.claim(
        "and so from anywhere",
        expected="95 % of 100 starts",
        measured=f"{share.min():.0%} to {share.max():.0%}",
        holds=(share > 0.95).mean() >= 0.9,
    )
    draw(report, np.asarray(history["height"]), path[:, :, 0], population.member(states, 0).params)


def draw(report: Report, height: np.ndarray, path: np.ndarray, params: Params) -> None:
    """Draw the height of each seed by step, its way up from rest, and what one network does in every state."""
    figure, (left, middle, right) = canvas(3, width=4.2)
    steps, seconds = STEPS * np.arange(1, EPOCHS + 1), DT * np.arange(1, 121)
    left.plot(steps, height.T, color=BLUE, alpha=0.5, linewidth=1)
    left.set(xlabel="steps of training", ylabel="mean height of a game", title=f"Learning, {len(height)} seeds")
    middle.plot(seconds, np.cos(path[:, :120, 0]).T, color=ORANGE, alpha=0.5, linewidth=1)
    middle.set(xlabel="seconds", ylabel="height: -1 hangs, 1 stands", title="From rest, each seed")
    angle, speed = np.meshgrid(np.linspace(0, 2 * np.pi, 121), np.linspace(-8, 8, 121))
    states = jnp.stack([angle.ravel(), speed.ravel()], axis=1)
    push = jax.jit(lambda params: torque(lambda seen: MODEL.apply(params, seen), states))(params)
    image = right.pcolormesh(angle, speed, np.asarray(push).reshape(angle.shape), cmap="PuOr", shading="gouraud")
    figure.colorbar(image, ax=right, label="torque, N m")
    turns = np.floor(path[0, :, 0] / (2 * np.pi))
    way = np.where(np.diff(turns, prepend=turns[0]) == 0, path[0, :, 0] % (2 * np.pi), np.nan)  # broken where it wraps
    right.plot(way, path[0, :, 1], ".-", color="white", linewidth=1.2, markersize=4)
    right.set(xlabel="angle", ylabel="speed, 1/s", title="What a network does, and where it goes")
    right.set(xticks=[0, np.pi, 2 * np.pi], xticklabels=["stands", "hangs", "stands"], xlim=(0, 2 * np.pi))
    right.grid(False)
    report.figure(figure)
