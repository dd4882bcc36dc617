"""Nothing that is called eagerly compiles at its second call, and `init` is one program at its first."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, data, interop, linear, losses, metrics, population, serving
from jaxmlp.layer import INITIALIZERS

KEY = jax.random.key(3)
X = np.random.default_rng(0).normal(size=(6, 3)).astype("f")
LABELS = np.array([0, 1, 1, 0, 1, 0], "i4")
NET = MLP((3, 4, 4, 4, 2), "tanh", norm="layer", dropout=True, residual=True)
STACK = NET.replace(scan=True)
NARROW = MLP((3, 4, 2), dtype="bfloat16")
PARAMS, STACKED, LAYERS = NET.init(KEY), STACK.init(KEY), MLP((3, 4, 2)).init(KEY)
LOGITS = jnp.asarray(X[:, :2])
MIXTURE = population.mixture(jnp.stack([LOGITS, 2 * LOGITS, 3 * LOGITS]))
VOTES = population.categorical(jnp.stack([LOGITS, 2 * LOGITS, 3 * LOGITS]))
SPLIT = data.Split(jnp.arange(4), jnp.arange(4, 6))
STATISTICS = data.statistics(X)


def energy(params, model, x):
    return jnp.square(model.apply(params, x)).mean()


def error(targets, average):
    return jnp.square(average - targets).mean()


RUN = Recipe(MLP((3, 4, 2)), losses.cross_entropy, optax.adam, epochs=1, batch_size=4, metrics=(metrics.accuracy,))
RATE = {"learning_rate": 0.1}
STATE = jaxmlp.start(KEY, RUN, RATE)
STATES, HISTORY = population.fit(jax.random.split(KEY, 3), (X, LABELS), RUN, RATE, validation=(X, LABELS))


VERBS = {
    "start": lambda: jaxmlp.start(KEY, RUN, RATE),
    "step": lambda: jaxmlp.step(STATE, (X, LABELS), RUN, RATE),
    "epoch": lambda: jaxmlp.epoch(STATE, (X, LABELS), RUN, RATE),
    "evaluate": lambda: jaxmlp.evaluate(STATE.params, (X, LABELS), RUN, RATE),
    "fit": lambda: jaxmlp.fit(KEY, (X, LABELS), RUN, RATE),
    "population.fit": lambda: population.fit(
        jax.random.split(KEY, 3), (X, LABELS), RUN, RATE, validation=(X, LABELS), stop=population.Patience(1)
    ),
    "grid": lambda: population.grid(2, learning_rate=[0.1, 0.2]),
    "member": lambda: population.member(STATES, 1),
    "best": lambda: population.best(STATES, HISTORY),
    "init": lambda: NET.init(KEY),
    "init of a stack": lambda: STACK.init(KEY),
    "init, scaled": lambda: NET.init(KEY, init_scale=0.5),
    "init of members": lambda: jax.vmap(NET.init)(jax.random.split(KEY, 3)),
    "apply": lambda: NET.apply(PARAMS, X),
    "apply with dropout": lambda: NET.apply(PARAMS, X, key=KEY, dropout_rate=0.2),
    "apply of a stack": lambda: STACK.apply(STACKED, X),
    "apply of a stack with dropout": lambda: STACK.apply(STACKED, X, key=KEY, dropout_rate=0.2),
    "apply in bfloat16": lambda: NARROW.apply(LAYERS, X),
    "gradient": lambda: jax.grad(energy)(PARAMS, NET, X),
    "gradient of a stack": lambda: jax.grad(energy)(STACKED, STACK, X),
    "gradient in bfloat16": lambda: jax.grad(energy)(LAYERS, NARROW, X),
    "layers": lambda: STACK.layers(STACKED),
    "epoch_order": lambda: data.epoch_order(KEY, 1, 6, 4),
    "epoch_order with a count": lambda: data.epoch_order(KEY, 1, 6, 4, count=5),
    "shuffle": lambda: data.shuffle(KEY, jnp.arange(6, dtype=jnp.uint32), 6),
    "take": lambda: data.take((X, LABELS), data.Rows(jnp.arange(4), jnp.asarray(3))),
    "split": lambda: data.split(KEY, 6),
    "k_folds": lambda: data.k_folds(KEY, 6, 3, stratify=LABELS),
    "statistics": lambda: data.statistics(X),
    "standardise": lambda: data.unstandardise(data.standardise(X, STATISTICS), STATISTICS),
    "least_squares": lambda: linear.least_squares(X, X[:, :1], 0.1),
    "gradients by hand": lambda: linear.gradients(LAYERS[1], jnp.ones((6, 4)), LOGITS),
    "compose": lambda: linear.compose(LAYERS),
    "accuracy": lambda: metrics.accuracy(LOGITS, LABELS, weight=jnp.ones(6)),
    "top_k_accuracy": lambda: metrics.top_k_accuracy(LOGITS, LABELS, k=2),
    "regression metrics": lambda: [f(LOGITS, LOGITS) for f in (metrics.rmse, metrics.mae, metrics.r2)],
    "nll": lambda: metrics.nll(LOGITS, LABELS),
    "calibration": lambda: metrics.expected_calibration_error(LOGITS, LABELS),
    "interval_coverage": lambda: metrics.interval_coverage(LOGITS, X[:, :1]),
    "quantile loss": lambda: losses.quantile(LOGITS, LOGITS, level=0.3),
    "cross_entropy": lambda: losses.cross_entropy(LOGITS, LABELS, label_smoothing=0.1),
    "gaussian_nll": lambda: losses.beta_gaussian_nll(LOGITS, X[:, :1]),
    "predict": lambda: serving.predict(NET, PARAMS, X, chunk=4),
    "predict of members": lambda: population.predict(NET, jax.tree.map(lambda a: jnp.stack([a, a]), PARAMS), X),
    "in_numpy": lambda: serving.in_numpy(STACK, STACKED)(X),
    "to_sklearn": lambda: interop.to_sklearn(MLP((3, 4, 2)), LAYERS),
    "mixture": lambda: population.mixture(jnp.stack([LOGITS, LOGITS]), status=np.zeros(2, int)),
    "quantile of a mixture": lambda: MIXTURE.quantile(0.3),
    "a mixture's moments": lambda: (MIXTURE.mean, MIXTURE.variance, MIXTURE.sample(KEY, 4)),
    "a mixture's scale": lambda: MIXTURE.scaled(MIXTURE.scale(X[:, :1])),
    "a mixture's densities": lambda: [f(X[:, :1]) for f in (MIXTURE.log_prob, MIXTURE.gaussian_log_prob, MIXTURE.cdf)],
    "votes": lambda: (VOTES.mutual_information, VOTES.log_prob(LABELS)),
    "temperature": lambda: population.temperature(LOGITS, LABELS),
    "greedy": lambda: population.greedy(VOTES.probabilities, jax.tree_util.Partial(error, LOGITS), rounds=3),
    "sample": lambda: population.sample(KEY, 3, learning_rate=population.LogUniform(0.1, 1.0)),
}


@pytest.fixture
def compilations():
    """A list that grows by one at each compilation by XLA, whether or not a cache on disk answers it."""
    found = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_compilations_are_counted(compilations):
    jax.jit(lambda x: x + 1)(np.ones(3, "f"))
    assert len(compilations) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_the_second_call_compiles_nothing(verb, compilations):
    VERBS[verb]()
    del compilations[:]
    VERBS[verb]()
    assert len(compilations) == 0


def test_init_is_one_program_that_nets_of_equal_structure_share(compilations):
    mlp, other = MLP((3, 11, 11, 13)), jax.random.key(9)
    del compilations[:]  # of the key
    mlp.init(KEY)
    assert len(compilations) == 1
    mlp.replace(residual=True, dropout=True, dtype="bfloat16").init(other, init_scale=2.0)
    assert len(compilations) == 1
    mlp.replace(initializer="ones").init(KEY)
    assert len(compilations) == 2


def test_a_score_that_reads_what_changes_is_asked_anew():
    goal = jnp.zeros(1)

    def score(average):
        return jnp.abs(average - goal).sum()

    predictions = jnp.array([[0.0], [4.0]])
    assert population.greedy(predictions, score, rounds=1).tolist() == [0]
    goal = jnp.full(1, 4.0)
    assert population.greedy(predictions, score, rounds=1).tolist() == [1]


class Unhashable:
    """A callable of a caller's, compared by value and so without a hash."""

    def __init__(self, function):
        self.function = function

    def __eq__(self, other):
        return isinstance(other, Unhashable) and self.function == other.function

    __hash__ = None

    def __call__(self, *args):
        return self.function(*args)


def test_callables_without_a_hash_serve():
    net = STACK.replace(activation=Unhashable(jnp.tanh), initializer=Unhashable(INITIALIZERS["glorot_uniform"]))
    params = net.init(KEY)
    jax.tree.map(np.testing.assert_array_equal, params, STACKED)
    np.testing.assert_array_equal(net.apply(params, X), STACK.apply(STACKED, X))
    score = partial(error, LOGITS)
    chosen = population.greedy(VOTES.probabilities, Unhashable(score), rounds=3)
    np.testing.assert_array_equal(chosen, population.greedy(VOTES.probabilities, score, rounds=3))
