"""Does a network that is the field of a differential equation go on where its data ends?

    python -m experiments neural_ode

Noisy observations of a damped pendulum's first period, from sixteen starts. A neural ODE (Chen 2018, arXiv 1806.07366)
is an MLP solved by Diffrax within the model's `apply`, so it trains as any other, by gradients through the solver. In
the two periods that follow it must stay within a fifth of the swing, where a network of start and time, which fits what
was seen as well, is several times worse.
"""

import dataclasses
from collections.abc import Callable

import diffrax  # type: ignore[import-not-found]
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, losses, population
from jaxmlp.training import ClippedCosineAdamW
from jaxmlp.types import Params

SEEDS, EPOCHS, STARTS, NOISE, WINDOW = 3, 150, 16, 0.02, 6
SEEN, ALL, STEP = 28, 84, 0.1  # observations in the first period and in three, seconds apart


def solve(field: Callable[[Array], Array], start: Array, times: int) -> Array:
    """Return the states (times, 2) that follow a start (2,), each STEP after the one before."""
    at, term = STEP * jnp.arange(1, times + 1), diffrax.ODETerm(lambda t, state, args: field(state))
    options = {"saveat": diffrax.SaveAt(ts=at), "max_steps": times + 2}
    found = diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, at[-1], STEP, start, **options)
    return jnp.asarray(found.ys)


def pendulum(state: Array) -> Array:
    """Return the field of the truth: angle' = speed, speed' = -5 sin(angle) - speed / 10."""
    return jnp.stack([state[1], -5 * jnp.sin(state[0]) - 0.1 * state[1]])


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Flow:
    """A start (batch, 2) to the states that follow it, (batch, 2 times), as the field of a network has it."""

    times: int
    field: MLP = MLP((2, 32, 32, 2), "tanh")

    def init(self, key: Array) -> Params:
        """Return the parameters of the field."""
        return self.field.init(key)

    def apply(self, params: Params, x: Array) -> Array:
        """Return the states at all times."""
        return jax.vmap(lambda start: solve(lambda s: self.field.apply(params, s), start, self.times).ravel())(x)


def run(report: Report) -> None:
    """Train both on the first period, and compare them with the truth in the two that follow."""
    rng = np.random.default_rng(0)
    start = rng.uniform(-1.5, 1.5, (STARTS, 2)).astype("f")
    truth = np.asarray(jax.jit(jax.vmap(lambda state: solve(pendulum, state, ALL)))(start))
    seen = (truth[:, :SEEN] + NOISE * rng.normal(size=(STARTS, SEEN, 2))).astype("f")
    # Each observation is a start, and the few that follow are to be told: a short way has a gradient that is tame.
    runs = np.concatenate([start[:, None], seen], axis=1)
    parts = np.stack([runs[:, i : i + WINDOW + 1] for i in range(SEEN - WINDOW + 1)], axis=1).reshape(-1, WINDOW + 1, 2)
    recipe = Recipe(Flow(WINDOW), losses.squared_error, ClippedCosineAdamW(), epochs=EPOCHS, batch_size=64)
    keys, numbers = population.grid(SEEDS, learning_rate=[1e-2])
    report.stage(f"{SEEDS} neural ODEs on {len(parts)} parts of paths")
    data = parts[:, 0], parts[:, 1:].reshape(len(parts), -1)
    # On one device: several are a `shard_map`, within which Diffrax's gradient fails.
    alone = population.plan(keys, data, recipe, numbers, devices=1)
    states, _ = population.fit(keys, data, recipe, numbers, plan=alone, callback=report.progress(EPOCHS))
    flow = population.predict(Flow(ALL), states.params, start)
    report.stage(f"{SEEDS} networks of start and time")
    seconds = STEP * np.arange(1, ALL + 1, dtype="f")
    x = np.concatenate([np.repeat(start[:, None], ALL, 1), np.tile(seconds[:, None], (STARTS, 1, 1))], axis=2)
    plain = Recipe(MLP((3, 64, 64, 2), "tanh"), losses.squared_error, ClippedCosineAdamW(), epochs=300, batch_size=64)
    data = x[:, :SEEN].reshape(-1, 3), seen.reshape(-1, 2)
    states, _ = population.fit(keys, data, plain, numbers)
    rival = population.predict(plain.model, states.params, x.reshape(-1, 3))
    paths = np.stack([np.asarray(of).reshape(SEEDS, STARTS, ALL, 2) for of in (flow, rival)])
    swing = np.sqrt(np.square(truth).mean())
    error = np.sqrt(np.square(paths - truth).mean((1, 2, 4))) / swing  # (2, times)
    fits, ahead = error[:, :SEEN].mean(1), error[:, SEEN:].mean(1)
    said = f"{fits[0]:.1%}, {fits[1]:.1%}"
    report.claim("both fit what was seen", expected="< 15 % of swing", measured=said, holds=fits.max() < 0.15)
    said, several = f"{ahead[1]:.0%}", ahead[1] > 3 * ahead[0]
    report.claim("the ODE goes on from there", expected="< 20 %", measured=f"{ahead[0]:.1%}", holds=ahead[0] < 0.2)
    report.claim("a network of time does not", expected="> 3 times as much", measured=said, holds=several)
    draw(report, seconds, seen, truth, paths, error)


def draw(
    report: Report, seconds: np.ndarray, seen: np.ndarray, truth: np.ndarray, paths: np.ndarray, error: np.ndarray
) -> None:
    """Draw one start as both go on from it, its way through the plane of states, and their errors by time."""
    figure, (left, middle, right) = canvas(3, width=4.2)
    widest = int(np.abs(truth[..., 0]).max(1).argmax())
    end = seconds[len(seen[0]) - 1]
    for axes in (left, right):
        axes.axvspan(0, end, color=GREY, alpha=0.15, linewidth=0)
    for some, colour, name in zip(paths, (BLUE, ORANGE), ("neural ODE", "network of time"), strict=True):
        left.plot(seconds, some[0, widest, :, 0], color=colour, label=name)
        middle.plot(*some[0, widest].T, color=colour)
    left.plot(seconds, truth[widest, :, 0], "--", color="black", linewidth=0.8, label="truth")
    left.plot(seconds[: len(seen[0])], seen[widest, :, 0], ".", color=GREY, markersize=4)
    left.set(xlabel="seconds", ylabel="angle", title="Seen (grey), and what follows", ylim=(-2.5, 3.5))
    left.legend(fontsize="small", ncols=2)
    middle.plot(*truth[widest].T, "--", color="black", linewidth=0.8)
    middle.set(xlabel="angle", ylabel="speed", title="Its way", xlim=(-3, 3), ylim=(-6, 6))
    for values, colour in zip(error, (BLUE, ORANGE), strict=True):
        right.plot(seconds, 100 * values, color=colour)
    right.set(xlabel="seconds", ylabel="error, % of the swing", title=f"All {len(truth)} starts", yscale="log")
    report.figure(figure)
