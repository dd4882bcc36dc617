"""A number out of its range is refused by every verb, whichever member has it, before anything is trained."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, metrics, population

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 4)
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(8, 3)).astype("f"), RNG.normal(size=(8, 1)).astype("f")
OWN = population.each(*(np.stack([a] * 4) for a in DATA))
RATE = {"learning_rate": 0.1}


def recipe(loss, outputs=1, **options):
    return Recipe(MLP((3, outputs)), loss, optax.sgd, epochs=2, batch_size=4, **options)


HUBER, NLL = recipe(losses.huber), recipe(losses.gaussian_nll, 2)
COVERED = recipe(losses.gaussian_nll, 2, metrics=metrics.interval_coverage)
STREAMED = dataclasses.replace(HUBER, batch_size=None)
STATE = jaxmlp.start(KEY, HUBER, RATE)


def stream(weight=DATA[1][:, 0] ** 2, **numbers):
    return loop.train(KEY, [(*DATA, weight)], STREAMED, RATE | numbers, progress=False)


def fit(weight):
    return jaxmlp.fit(KEY, (*DATA, weight), HUBER, RATE)


def fits(weights):
    return population.fit(KEYS, DATA, HUBER, RATE, weights=weights)


LEVELS = {"level": np.array([[0.1, 0.9], [0.5, 0.9], [0.5, 0.95], [0.5, 1.5]])}
DELTA, LAST, UNKNOWN = {"delta": -1.0}, {"delta": [1.0, 2.0, 3.0, 0.0]}, {"delta": [1.0, np.nan, 3.0, 2.0]}
BAD = {
    "fit": (lambda: jaxmlp.fit(KEY, DATA, HUBER, RATE | DELTA), "delta must be finite and above 0; got -1.0"),
    "step": (lambda: jaxmlp.step(STATE, DATA, HUBER, RATE | DELTA), "delta must be finite and above 0"),
    "epoch": (lambda: jaxmlp.epoch(STATE, DATA, HUBER, RATE | DELTA), "delta must be finite and above 0"),
    "evaluate": (lambda: jaxmlp.evaluate(STATE.params, DATA, HUBER, RATE | DELTA), "delta must be finite and above 0"),
    "last member": (lambda: population.fit(KEYS, DATA, HUBER, RATE | LAST), "above 0; got 0.0"),
    "a NaN": (lambda: population.fit(KEYS, DATA, HUBER, RATE | UNKNOWN), "above 0; got nan"),
    "own data": (lambda: population.fit(KEYS, OWN, HUBER, RATE | LAST), "above 0; got 0.0"),
    "a metric": (lambda: population.fit(KEYS, DATA, COVERED, RATE | {"level": [0.5, 0.9, 2.0, 0.1]}), "got 2.0"),
    "a floor": (lambda: population.fit(KEYS, DATA, NLL, RATE | {"min_variance": [1.0, -1.0, 1.0, 2.0]}), "got -1.0"),
    "vectors": (lambda: population.fit(KEYS, DATA, recipe(losses.quantile, 2), RATE | LEVELS), "in (0, 1); got 1.5"),
    "train": (lambda: loop.train(KEYS, DATA, HUBER, RATE | LAST, progress=False), "above 0; got 0.0"),
    "a stream": (
        lambda: stream(delta=-1.0),
        "above 0",
    ),
    "vanishing weights": (lambda: fit(np.full(8, 1e-300)), "weight of data must not be zero for every example; they"),
    "vanishing of a member": (lambda: fits(np.full((4, 8), 1e-300)), "for member 0; they vanish in float32: multiply"),
    "a table a member": (lambda: jaxmlp.fit(KEY, OWN, HUBER, RATE), "that is for the members of population.fit"),
    # Weights in memory are brought near one; of a stream nobody knows the largest before its end.
    "huge weights": (lambda: stream(np.full(8, 1e38, "f")), "weights of a stream must be zero or near one, the"),
    "tiny weights": (lambda: stream(np.full(8, 1e-36, "f")), "must be zero or near one"),
    "folds": (lambda: population.cross_validate(KEY, DATA, HUBER, RATE | DELTA, folds=2), "above 0; got -1.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_number_out_of_its_range_is_refused(name):
    mistake, words = BAD[name]
    with pytest.raises(ValueError) as caught:
        mistake()
    assert words in str(caught.value)


def test_an_epoch_checks_labels_once_for_a_table():
    told, labels = recipe(losses.cross_entropy, 2), np.array([0, 1] * 4)
    state = jaxmlp.start(KEY, told, RATE)
    for _ in range(2):
        state, _ = jaxmlp.epoch(state, (DATA[0], labels), told, RATE)
    with pytest.raises(ValueError, match=r"labels must be integers in 0 \.\.\. 1"):
        jaxmlp.epoch(state, (DATA[0], labels + 1), told, RATE)
