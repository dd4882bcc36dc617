"""Arguments of another kind are named before anything is trained. One row, one mistake, its words."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, data, interop, loop, losses, metrics, population, records, serving

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2)
X = np.random.default_rng(0).normal(size=(6, 3)).astype("f")
Y = X[:, :1] * 2
NET = MLP((3, 2, 1))
PARAMS = NET.init(KEY)
RECIPE = Recipe(NET, losses.squared_error, optax.sgd, epochs=2, batch_size=3)
RATE = {"learning_rate": 0.1}
STATE = jaxmlp.start(KEY, RECIPE, RATE)
ADAM = jaxmlp.start(KEY, dataclasses.replace(RECIPE, optimizer=optax.adam), RATE)
STATES, HISTORY = population.fit(KEYS, (X, Y), RECIPE, RATE)
MIXTURE = population.mixture(np.ones((2, 6, 2), "f"))


def fit(**options):
    return jaxmlp.fit(**{"key": KEY, "data": (X, Y), "recipe": RECIPE, "hyperparams": RATE} | options)


def fits(**options):
    return population.fit(**{"keys": KEYS, "data": (X, Y), "recipe": RECIPE, "hyperparams": RATE} | options)


def train(**options):
    return loop.train(
        **{"key": KEY, "data": (X, Y), "recipe": RECIPE, "hyperparams": RATE, "progress": False} | options
    )


class Frame:
    """What a library calls a table has an `apply` as well."""

    def __array__(self, dtype=None, copy=None):
        return X

    def apply(self, *args):
        return args


BAD = {
    # The verbs of one network.
    "recipe: none": (lambda: fit(recipe=None), "recipe must be a Recipe; got NoneType None"),
    "recipe: its class": (lambda: fit(recipe=Recipe), "recipe must be a Recipe; got type <class"),
    "recipe: of step": (lambda: jaxmlp.step(STATE, (X, Y), "sgd", RATE), "recipe must be a Recipe; got str 'sgd'"),
    "state: parameters": (
        lambda: jaxmlp.step(PARAMS, (X, Y), RECIPE, RATE),
        "state must be a State, as start makes it",
    ),
    "state: of another model": (
        lambda: jaxmlp.step(STATE._replace(params=MLP((4, 1)).init(KEY)), (X, Y), RECIPE, RATE),
        "params must have 2 layers",
    ),
    "state: of another optimizer": (
        lambda: jaxmlp.epoch(ADAM, (X, Y), RECIPE, RATE),
        "state.opt_state must be as start makes it for this recipe; it has [0].count, of another",
    ),
    "state: without its optimizer's": (
        lambda: jaxmlp.step(STATE, (X, Y), dataclasses.replace(RECIPE, optimizer=optax.adam), RATE),
        "state.opt_state must be as start makes it for this recipe; it lacks [0].count",
    ),
    "state: step": (
        lambda: jaxmlp.step(STATE._replace(step=0.5), (X, Y), RECIPE, RATE),
        "state.step must be one integer, the steps done; got float 0.5",
    ),
    "state: of a population": (
        lambda: jaxmlp.step(STATES, (X, Y), RECIPE, RATE),
        "key must be a single key; got keys of shape (2,)",
    ),
    "state: a leaf": (
        lambda: jaxmlp.evaluate((PARAMS[0]._replace(b="b"), PARAMS[1]), (X, Y), RECIPE, RATE),
        "params[0].b must be an array; got str 'b'",
    ),
    "rows: an array": (
        lambda: jaxmlp.epoch(STATE, (X, Y), RECIPE, RATE, rows=np.arange(3)),
        "rows must be Rows(index) or Rows(index, count); got int64 of shape (3,)",
    ),
    "rows: outside": (
        lambda: jaxmlp.epoch(STATE, (X, Y), RECIPE, RATE, rows=data.Rows(np.arange(9))),
        "rows.index must be in 0 ... 5; got 0 ... 8",
    ),
    "rows: floats": (lambda: data.take((X, Y), data.Rows(np.ones(3))), "rows.index must be integers (n,); got float64"),
    "rows: count": (
        lambda: data.take((X, Y), data.Rows(np.arange(3), 0.5)),
        "rows.count must be a whole number; got float 0.5",
    ),
    "take: lengths": (lambda: data.take((X, Y[:3]), data.Rows(np.arange(3))), "as many examples; got [3, 6]"),
    "take: data": (lambda: data.take(X, data.Rows(np.arange(3))), "data must be (x, y) or (x, y, weight); got float32"),
    "take: leaves": (lambda: data.take((X, 1), data.Rows(np.arange(3))), "data must hold arrays, the examples on"),
    "evaluate: negative weight": (
        lambda: jaxmlp.evaluate(PARAMS, (X, Y, -np.ones(6, "f")), RECIPE, RATE),
        "weight must not be negative; got -1.0",
    ),
    "step: leaves": (lambda: jaxmlp.step(STATE, (X, [1.0]), RECIPE, RATE), "y of data must be an array with the ex"),
    "step: no x": (lambda: jaxmlp.step(STATE, ({}, Y), RECIPE, RATE), "x of data must hold an array with the examples"),
    "data: keys that cannot be sorted": (
        lambda: fit(data=({"a": X, 1: X}, Y)),
        "x must be a dict whose keys can be sorted; got ['a', 1]",
    ),
    # Descriptions.
    "sizes: text": (lambda: MLP(b"ab"), "sizes must list the widths (input, hidden..., output); got b'ab'"),
    "sizes: huge": (lambda: MLP((3, 10**30)), "every size must be at most 2147483647; got 10000000000"),
    "activation: of nothing": (lambda: MLP((3, 1), lambda: 1), "activation must take an array; got <lambda>()"),
    "activation: a class": (lambda: MLP((3, 1), Frame), "activation must take an array; got the class Frame"),
    "initializer: of a key": (
        lambda: MLP((3, 1), initializer=lambda key: key),
        "initializer must take (key, shape, dtype); got <lambda>(key)",
    ),
    "dtype: an array": (
        lambda: MLP((3, 1), dtype=X),
        "dtype must be one of bfloat16, float16, float32, float64; got a",
    ),
    "norm: an array": (lambda: MLP((3, 1), norm=X), "norm must be one of None, layer, rms; got array("),
    "options: no dict": (lambda: MLP.from_dict(3), "options of an MLP must be a dict; got int 3"),
    "init_scale": (lambda: NET.init(KEY, init_scale=[1.0]), "init_scale must be a number; got list [1.0]"),
    "init_scale: two": (lambda: NET.init(KEY, init_scale=np.ones(2)), "init_scale must be one number; got float64"),
    "a key that is not used": (lambda: NET.apply(PARAMS, X, key=3), "key must be a typed JAX key; got int 3"),
    "loss: of one": (
        lambda: dataclasses.replace(RECIPE, loss=lambda outputs: outputs),
        "loss must take (outputs, targets); got <lambda>(outputs)",
    ),
    "metrics: a class": (
        lambda: dataclasses.replace(RECIPE, metrics=(Frame,)),
        "metrics must take (outputs, targets); got the class Frame; pass an object or a function",
    ),
    "metrics: a text": (
        lambda: dataclasses.replace(RECIPE, metrics="rmse"),
        "metrics must be a function or a tuple of",
    ),
    # Populations.
    "callbacks: a function": (
        lambda: fits(callbacks=print),
        "callbacks must be a list of functions (state, history); got builtin_function_or_method",
    ),
    "callbacks: a text in it": (
        lambda: fits(callbacks=["print"]),
        "each of callbacks must be callable, with (state, hi",
    ),
    "callbacks: of nothing": (lambda: fits(callbacks=[lambda: 0]), "each of callbacks must take (state, history); got"),
    "callback: of one": (
        lambda: fits(callback=lambda done: 0),
        "callback must take (epochs done, status); got <lambda>",
    ),
    "plan: a number": (lambda: fits(plan=2), "plan must be one that population.plan made; got int 2"),
    "recipes: none": (lambda: fits(recipe=None), "recipe must be a Recipe or a list of one for each member; got None"),
    "recipes: others": (lambda: fits(recipe=[RECIPE, 3]), "got 2, among them what is none"),
    "numbers: a flag": (
        lambda: fits(hyperparams={"learning_rate": [True, False]}),
        "hyperparams['learning_rate'] must be a number; got bool True; this chooses the program",
    ),
    "rows: ragged": (
        lambda: fits(rows=[[0, 1], [2]]),
        "rows must be numbers in lists of equal lengths; got [[0, 1], [",
    ),
    "weights: a list": (lambda: fits(weights=[1.0]), "weights must be an array; got list [1.0]"),
    "min_improvement": (lambda: fits(min_improvement="a"), "min_improvement must be a number; got str 'a'"),
    "Budget": (lambda: fits(stop=population.Budget("1 h")), "seconds of Budget must be a number; got str '1 h'"),
    "Target: its metric": (lambda: fits(stop=population.Target(3, at_most=1)), "metric of Target must be a text; got"),
    "Target: a text": (lambda: fits(stop=population.Target("loss", at_most="1")), "at_most of Target must be a number"),
    "Target: NaN": (lambda: fits(stop=population.Target("loss", at_most=np.nan)), "Target must say a number"),
    "Halving: factor": (
        lambda: fits(stop=population.Halving(None, by="loss")),
        "factor must be a number; got NoneType",
    ),
    "plan: recipe": (lambda: population.plan(2, (X, Y), None), "recipe must be one Recipe; got NoneType None"),
    "plan: data": (lambda: population.plan(2, X, RECIPE), "data must be (x, y) or (x, y, weight); got float32"),
    "plan: leaves": (lambda: population.plan(2, (X, 3), RECIPE), "data must hold arrays, the examples on their first"),
    "plan: numbers": (
        lambda: population.plan(2, (X, Y), RECIPE, 0.1),
        "hyperparams must be a dict of numbers; got flo",
    ),
    "plan: devices": (lambda: population.plan(2, (X, Y), RECIPE, RATE, devices=["cpu"]), "devices must be JAX devices"),
    "plan: keep_best": (
        lambda: population.plan(2, (X, Y), RECIPE, RATE, keep_best="yes"),
        "keep_best must be True or False; got str 'yes'",
    ),
    "member: a float": (lambda: population.member(STATES, 1.0), "i must be a member's number, an int; got float 1.0"),
    "member: of a history": (lambda: population.member(HISTORY, 1), "got a history; the states come first"),
    "member: of one": (
        lambda: population.member(STATE, 0),
        "states must be arrays with a leading axis of members in ev",
    ),
    "take: outside": (lambda: population.take(STATES, [0, 2]), "members must be in 0 ... 1; got 2"),
    "take: floats": (lambda: population.take(STATES, [0.5]), "members must list members' numbers, ints; got float64"),
    "history: of one network": (
        lambda: population.ranking({"loss": np.ones(3)}),
        "history must be that of a population, with status, epochs of its members; got loss",
    ),
    "history: states": (
        lambda: population.ranking(STATES),
        "history must be that of population.fit or loop.train; got",
    ),
    "history: other epochs": (
        lambda: population.ranking(HISTORY | {"epochs": np.array([1, 9])}),
        "history['epochs'] must be in 0 ... 2, the epochs of the run; got [1 9]",
    ),
    "history: of others": (
        lambda: population.best(population.take(STATES, [0]), HISTORY),
        "states and history must be of one population; got 1 states and a history of 2 members",
    ),
    "greedy: a vector": (
        lambda: population.greedy(X[:, 0], jnp.sum, rounds=1),
        "predictions must have shape (members,",
    ),
    "greedy: integers": (
        lambda: population.greedy(np.ones((2, 3), int), jnp.sum, rounds=1),
        "predictions must hold floats; got int32 of shape (2, 3)",
    ),
    "greedy: no function": (
        lambda: population.greedy(X, "loss", rounds=1),
        "score must be callable, with the average of members, (batch, ...) -> a number; got 'loss'",
    ),
    "greedy: a vector of scores": (
        lambda: population.greedy(X, lambda average: average, rounds=1),
        "score must return one number; got an array of shape (3,)",
    ),
    "settings: no list": (
        lambda: population.settings(0.1),
        "settings must be a list of dicts of numbers; got float 0.1",
    ),
    "settings: shapes": (
        lambda: population.settings([{"a": 0.1}, {"a": [[0.1], [0.1, 0.2]]}]),
        "'a' of settings must be a number; got list [0.1]",
    ),
    "settings: lengths": (
        lambda: population.settings([{"a": 0.1}, {"a": np.ones(2)}]),
        "'a' of settings must have one shape in each of them; got [(), (2,)]",
    ),
    "settings: names": (lambda: population.settings([{3: 0.1}]), "settings must name their numbers by texts; got {3:"),
    "grid: a set": (lambda: population.grid(rate={0.1, 0.2}), "rate must list its values in their order; got set {0."),
    "sample: a choice that was not drawn": (
        lambda: population.sample(KEY, 1, rate=[0.1, "0.2"]),
        "'rate' of settings must be a number; got str '0.2'",
    ),
    "sample: low": (
        lambda: population.sample(KEY, 1, rate=population.Uniform(None, 1.0)),
        "low of rate must be a number; got NoneType None",
    ),
    "sample: no end": (
        lambda: population.sample(KEY, 1, rate=population.Uniform(0.0, np.inf)),
        "rate must have a range low < high; got Uniform(low=0.0, high=inf)",
    ),
    "seeds: huge": (lambda: population.grid(seeds=10**30, rate=[0.1]), "seeds must be at most 2147483647; got 1000000"),
    "folds: recipe": (
        lambda: population.cross_validate(KEY, (X, Y), [RECIPE], RATE, folds=2),
        "recipe must be one Recipe for all; got list",
    ),
    "folds: numbers": (
        lambda: population.cross_validate(KEY, (X, Y), RECIPE, 0.1, folds=2),
        "hyperparams must be a dict of numbers; got float 0.1",
    ),
    "folds: settings of two lengths": (
        lambda: population.cross_validate(
            KEY, (X, Y), RECIPE, {"learning_rate": np.ones(2), "momentum": np.ones(3)}, folds=2
        ),
        "hyperparams must have one entry for each setting; got lengths [2, 3]",
    ),
    "model: a table": (
        lambda: serving.predict(Frame(), PARAMS, X),
        "model must have apply(params, x), as an MLP; got Fra",
    ),
    "model: bound": (
        lambda: population.predict(RECIPE.bind(RATE), STATES.params, X),
        "model must have apply(params, x)",
    ),
    "params: of one": (
        lambda: population.predict(NET, PARAMS, X),
        "params must be arrays with a leading axis of members",
    ),
    "mixture: level": (lambda: MIXTURE.quantile(None), "level must be a number; got NoneType None"),
    "votes: labels": (
        lambda: population.categorical(np.ones((2, 6, 2), "f")).log_prob(np.zeros(5, int)),
        "y must have shape (6,); got int64 of shape (5,)",
    ),
    # The loop, and what is written.
    "loop: recipe": (
        lambda: train(recipe=None),
        "recipe must be a Recipe or a list of one for each member; got NoneType",
    ),
    "loop: keep without a directory": (lambda: train(keep=0), "keep must be a positive int; got 0"),
    "loop: progress": (lambda: train(progress="bar"), "progress must be None, True or False; got str 'bar'"),
    "loop: callbacks": (
        lambda: train(callbacks=3),
        "callbacks must be a list of functions (state, history); got int 3",
    ),
    "loop: plan": (lambda: train(plan="all"), "plan must be one that population.plan made; got str 'all'"),
    "loop: resume another kind": (
        lambda: loop.resume(".", (X, Y), [RECIPE]),
        "recipe must be one Recipe, or None for the saved one; got list",
    ),
    "records: no history": (
        lambda: list(records.rows(X)),
        "history must be a dict of arrays with a loss, as fit gives",
    ),
    "records: a number": (
        lambda: list(records.rows({"loss": np.ones(())})),
        "history['loss'] must have shape (epochs,) or (members, epochs); got float64 of shape ()",
    ),
    "records: epochs": (
        lambda: list(records.rows({"loss": np.ones(2)}, [0.5])),
        "epochs must be an integer for each of 1 members; got float64 of shape (1,)",
    ),
    "records: more epochs": (
        lambda: list(records.rows({"loss": np.ones(2)}, [3])),
        "epochs must be in 0 ... 2, those of the history; got [3]",
    ),
    "order: n": (lambda: data.steps_per_epoch(2.5, 1), "n must be a whole number; got float 2.5"),
    "order: no n": (lambda: data.steps_per_epoch(None, 2), "n must be a whole number; got NoneType None"),
    "order: batch size": (lambda: data.steps_per_epoch(6, "3"), "batch_size must be a whole number; got str '3'"),
    "shuffle: place": (
        lambda: data.shuffle(KEY, np.ones(3, "f"), 3),
        "place must hold integers, uint32; got float32 of",
    ),
    "shuffle: n": (lambda: data.shuffle(KEY, np.arange(3, dtype="u4"), 0.5), "n must be a whole number of at least 1"),
    "order: epoch": (lambda: data.epoch_order(KEY, -1, 6, 3), "epoch must be a whole number of at least 0; got int -1"),
    "split: test": (lambda: data.split(KEY, 6, "half"), "test must be a number; got str 'half'"),
    "classes: ragged": (
        lambda: interop.to_sklearn(NET, PARAMS, classes=[[1], [1, 2]]),
        "classes must list the labels; got",
    ),
    "export: x": (
        lambda: jaxmlp.export(population.mixture, PARAMS, x=X),
        "model must have apply(params, x), as an MLP; got function",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_another_kind_is_named_at_the_door(name):
    mistake, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        mistake()


def test_a_fault_in_the_callers_own_code_stays_as_it_is():
    class Broken:
        def init(self, key):
            return {"w": jnp.zeros(3)}

        def apply(self, params, x):
            raise KeyError("mine")

    def loss(outputs, targets):
        return outputs.nothing

    for recipe, kind in (
        (dataclasses.replace(RECIPE, model=Broken()), KeyError),
        (dataclasses.replace(RECIPE, loss=loss), AttributeError),
    ):
        with pytest.raises(kind):
            fit(recipe=recipe)
        with pytest.raises(kind):
            jaxmlp.step(jaxmlp.start(KEY, recipe, RATE), (X, Y), recipe, RATE)


def test_pythons_own_refusals_stay():
    for call in (
        lambda: jaxmlp.fit(KEY, (X, Y)),
        lambda: jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, (X, Y)),
        lambda: jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, valid=(X, Y)),
        lambda: jaxmlp.fit(KEY, (X, Y), RECIPE, RATE, key=KEY),
    ):
        with pytest.raises(TypeError):
            call()


def test_the_metrics_of_the_recipe_are_called_as_they_are():
    """A signature that hides what it takes is no mistake."""

    def hidden(*args, **numbers):
        return metrics.rmse(*args, **numbers)

    recipe = dataclasses.replace(RECIPE, metrics=(hidden,))
    assert "hidden" in jaxmlp.evaluate(PARAMS, (X, Y), recipe, RATE)


def test_a_setting_may_be_a_vector_in_any_form():
    for levels in ([[0.1, 0.9], [0.2, 0.8]], np.array([[0.1, 0.9], [0.2, 0.8]]), [np.array([0.1, 0.9]), (0.2, 0.8)]):
        _, hyperparams = population.grid(level=levels)
        np.testing.assert_array_equal(hyperparams["level"], np.array([[0.1, 0.9], [0.2, 0.8]], "f"))
