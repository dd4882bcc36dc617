"""Do the doubts of learnt dynamics cover what becomes of a pendulum?

    python -m experiments dynamics

Twelve games of a noisy pendulum under random torques, and 18 networks that give the change of its state by a move a
mean and a spread within bounds that are trained, one pair for all states, each on rows drawn with repetition (Chua
2018, arXiv 1805.12114), at three learning rates. Eight of them, the elites, are chosen by a metric on moves set aside
(Janner 2019, arXiv 1906.08253). Played forward for three seconds, each path by one network, their band of 90 % must
hold new games, and more than that of an elite alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.policy import DT, move
from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses, metrics, population
from jaxmlp.training import ClippedCosineAdamW
from jaxmlp.types import Params

SEEDS, RATES, ELITES, EPOCHS, GAMES, LENGTH, ASIDE = 6, (1e-3, 5e-3, 2e-2), 8, 40, 12, 50, 100
NEW, AHEAD, PATHS, NOISE = 100, 60, 100, (0.01, 0.05)  # games, moves, paths of a network; of angle and speed
MODEL = losses.BoundedScales(MLP((4, 64, 64, 4), "silu"), 2)


def play(seed: int, games: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return states (length + 1, games, 2) of the true pendulum and the random torques between them, from anywhere."""
    rng = np.random.default_rng(seed)
    states, torques = [rng.uniform(-1, 1, (games, 2)) * [np.pi, 5]], rng.uniform(-2, 2, (length, games))
    for torque in torques:
        states.append(np.asarray(move(jnp.asarray(states[-1]), torque)) + rng.normal(size=(games, 2)) * NOISE)
    return np.stack(states).astype("f"), torques.astype("f")


def inputs(state: Array | np.ndarray, torque: Array | np.ndarray) -> Array:
    """Return what a network sees, (..., 4): an angle as its cosine and sine."""
    return jnp.stack([jnp.cos(state[..., 0]), jnp.sin(state[..., 0]), state[..., 1] / 8, torque / 2], axis=-1)


def table(states: np.ndarray, torques: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, a row a move: what is seen, and the change of the state in units of `scale`."""
    x, y = inputs(states[:-1], torques), np.diff(states, axis=0) / scale
    return np.asarray(x).reshape(-1, 4), y.reshape(-1, 2)


def error_of_mean(outputs: Array, targets: Array) -> Array:
    """Return the error of the means, by which elites are chosen."""
    return metrics.rmse(outputs[:, :2], targets)


def forward(params: Params, key: Array, start: np.ndarray, torques: np.ndarray, scale: np.ndarray) -> Array:
    """Return one path of each game by one network, (moves, games, 2)."""

    def one(state: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        torque, key = now
        mean, variance = losses.gaussian(MODEL.apply(params, inputs(state, torque)))
        state = state + scale * (mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape))
        return state, state

    return jax.lax.scan(one, jnp.asarray(start), (jnp.asarray(torques), jax.random.split(key, len(torques))))[1]


def held(paths: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the share of games that the 90 % band of paths (paths, moves, games, 2) holds at each move, (moves,)."""
    low, high = np.quantile(paths, [0.05, 0.95], axis=0)
    return ((low <= truth) & (truth <= high)).mean((1, 2))


def run(report: Report) -> None:
    """Train on bootstrapped rows, choose elites, play new games forward, and count what their bands hold."""
    games, (new, torques), rng = play(0, GAMES, LENGTH), play(1, NEW, AHEAD), np.random.default_rng(0)
    scale = np.diff(games[0], axis=0).std((0, 1))
    (x, y), (new_x, new_y) = table(*games, scale), table(new, torques, scale)
    aside, learn = np.split(rng.permutation(len(x)), [ASIDE])
    loss, optimizer = losses.bounded(losses.gaussian_nll), ClippedCosineAdamW()
    recipe = Recipe(MODEL, loss, optimizer, epochs=EPOCHS, batch_size=100, metrics=(error_of_mean,))
    keys, numbers = population.grid(SEEDS, learning_rate=RATES)
    report.stage(f"{len(keys)} networks on {len(learn)} rows, drawn with repetition")
    rows = learn[rng.integers(0, len(learn), (len(keys), len(learn)))]
    states, history = population.fit(keys, (x, y), recipe, numbers, rows=rows, validation=(x[aside], y[aside]))
    elites = population.ranking(history, by="validation_error_of_mean", largest=False)[:ELITES]
    outputs = population.predict(MODEL, states.params, new_x)
    nll = np.asarray(jax.jit(jax.vmap(losses.gaussian_nll, (0, None)))(outputs, new_y)).mean(1)
    one, rest = nll[elites].mean(), np.delete(nll, elites).mean()
    said, better = f"{one:.2f} to {rest:.2f}", one < rest - 0.1
    report.claim("elites are likelier on new games", expected="by 0.1 nats", measured=said, holds=better)
    chosen, keys = population.take(states.params, elites), jax.random.split(jax.random.key(1), (ELITES, PATHS))
    ahead = jax.jit(jax.vmap(jax.vmap(forward, (None, 0, None, None, None)), (0, 0, None, None, None)))
    paths = np.asarray(ahead(chosen, keys, new[0], torques, scale))
    truth, everyone = new[1:], paths.reshape(-1, AHEAD, NEW, 2)
    together, alone = held(everyone, truth), np.array([held(of, truth) for of in paths])
    share, single = together.mean(), alone.mean()
    report.claim("their 90 % band holds new games", expected="> 75 %", measured=f"{share:.0%}", holds=share > 0.75)
    said, fewer = f"{single:.0%}, not {share:.0%}", single < share - 0.03
    report.claim("the band of an elite alone holds fewer", expected="by 3 %", measured=said, holds=fewer)
    draw(report, paths, truth, together, alone)


def draw(report: Report, paths: np.ndarray, truth: np.ndarray, together: np.ndarray, alone: np.ndarray) -> None:
    """Draw two games with the bands of the elites and of the best of them, and what bands hold at each move."""
    figure, (*games, right) = canvas(3, width=4.2)
    seconds, everyone = DT * np.arange(1, AHEAD + 1), paths.reshape(-1, *paths.shape[2:])
    order = np.argsort(everyone[..., 0].std(0).mean(0))  # of the games, by their doubt
    for axes, game, title in zip(games, order[[NEW // 2, -NEW // 10]], ("A game", "A game in doubt"), strict=True):
        for some, colour, name in ((everyone, BLUE, f"{ELITES} elites, 90 %"), (paths[0], ORANGE, "the best alone")):
            band = np.quantile(some[:, :, game, 0], [0.05, 0.95], axis=0)
            axes.fill_between(seconds, *band, color=colour, alpha=0.3, linewidth=0, label=name)
        axes.plot(seconds, truth[:, game, 0], color="black", linewidth=1, label="what happened")
        axes.set(xlabel="seconds ahead", ylabel="angle", title=title)
    games[1].legend(fontsize="small")
    right.axhline(90, color=GREY, linestyle="--")
    right.plot(seconds, 100 * together, color=BLUE, label="elites together")
    right.plot(seconds, 100 * alone.T, color=ORANGE, alpha=0.35, linewidth=1)
    right.plot(seconds, 100 * alone.mean(0), color=ORANGE, label="each alone, and their mean")
    right.set(xlabel="seconds ahead", ylabel="games in the 90 % band, %", title="What the bands hold", ylim=(50, 100))
    right.legend(loc="lower left", fontsize="small")
    report.figure(figure)
