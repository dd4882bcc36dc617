"""Every mistake at the door: what must hold, what was given, how to fix it. One row, one mistake, its words."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Layer, Recipe, _check, data, interop, linear, loop, losses, metrics, population, serving
from jaxmlp.loop._description import rebuild
from jaxmlp.loop._manifest import Manifest
from jaxmlp.loop.streams import open_stream
from jaxmlp.training import CosineAdamW

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(10, 3)).astype("f")
Y = X[:, :1]
LABELS = np.arange(10) % 4
MLP31 = MLP((3, 4, 1))
PARAMS = MLP31.init(KEY)
RECIPE = Recipe(MLP31, losses.squared_error, optax.adam, epochs=1, batch_size=5)
CLASSES = Recipe(MLP((3, 4, 4)), losses.cross_entropy, optax.adam, epochs=1)
DROPOUT = dataclasses.replace(RECIPE, model=MLP((3, 4, 1), dropout=True))
RATE = {"learning_rate": 0.1}


def with_value(array, value):
    array = np.array(array)
    array[2, 0] = value
    return array


def fit(x=X, y=Y, recipe=RECIPE, hyperparams=RATE, key=KEY, **options):
    return jaxmlp.fit(key, (x, y), recipe, hyperparams, **options)


KEYS = jax.random.split(KEY, 2)
STATES, HISTORY = population.fit(KEYS, (X, Y), RECIPE, RATE)
WAVES = dataclasses.replace(population.plan(2, (X, Y), RECIPE, RATE), wave=1)


def fits(hyperparams=RATE, recipe=RECIPE, *, keys=KEYS, **options):
    return population.fit(keys, (X, Y), recipe, hyperparams, **options)


def train(data=(X, Y), recipe=RECIPE, *, key=KEY, **options):
    return loop.train(key, data, recipe, RATE, progress=False, **options)


MANIFEST = Manifest({"epochs": 6}, {}, {}, None, {}, {}, None, {"width": 16, "devices": 2})


class OwnStream:
    batch_size, steps, fingerprint = 5, 2, ["ten rows"]

    def __init__(self, example=(X[:5], Y[:5], Y[:5, 0])):
        self.example = example

    def stacks(self, start, epochs, every, state):
        yield from ()


NO_BATCH = dataclasses.replace(RECIPE, batch_size=None)
BAD = {
    # The description.
    "no sizes": (lambda: MLP(()), "sizes must name at least an input and an output width; got ()"),
    "one size": (lambda: MLP((3,)), "at least an input and an output width; got (3,)"),
    "zero size": (lambda: MLP((3, 0, 1)), "every size must be a positive int; got 0"),
    "negative size": (lambda: MLP((3, -2)), "every size must be a positive int; got -2"),
    "float size": (lambda: MLP((3, 2.0)), "every size must be a positive int; got 2.0"),
    "bool size": (lambda: MLP((3, True)), "every size must be a positive int; got True"),
    "sizes no list": (lambda: MLP(3), "sizes must list the widths (input, hidden..., output); got 3"),
    "activation": (lambda: MLP((1, 1), "rleu"), "got 'rleu' (did you mean 'relu'?)"),
    "initializer": (lambda: MLP((1, 1), initializer="he_norm"), "got 'he_norm' (did you mean 'he_normal'?)"),
    "initializer under both names": (
        lambda: MLP((1, 1), initializer="ones", init="zeros"),
        "initializer must be given once; got init= as well, its older name; leave init= out",
    ),
    "norm": (lambda: MLP((1, 1), norm="layers"), "norm must be one of None, layer, rms; got 'layers'"),
    "dropout rate as flag": (
        lambda: MLP((1, 1), dropout=0.5),
        "dropout must be True or False; got 0.5; the rate is a number: hyperparams={'dropout_rate': ...}",
    ),
    "dtype": (lambda: MLP((1, 1), dtype="bfloat"), "got 'bfloat' (did you mean 'bfloat16'?)"),
    "integer dtype": (lambda: MLP((1, 1), param_dtype=int), "param_dtype must be one of bfloat16, float16"),
    "float64 without x64": (
        lambda: MLP((1, 1), param_dtype="float64").init(KEY),
        "needs 64-bit JAX; call jax.config.update('jax_enable_x64', True) first",
    ),
    "factory for initializer": (
        lambda: MLP((3, 4), initializer=jax.nn.initializers.he_normal).init(KEY),
        "he_normal is a factory: pass he_normal()",
    ),
    "unknown option": (lambda: MLP.from_dict({"size": [1, 1]}), "got 'size' (did you mean 'sizes'?)"),
    "no sizes in a dict": (lambda: MLP.from_dict({"bias": True}), "an MLP needs sizes; got only bias"),
    "callable to JSON": (lambda: MLP((1, 1), jnp.sin).to_dict(), "to_dict needs activation by name"),
    # The forward pass.
    "wrong features": (
        lambda: MLP31.apply(PARAMS, np.ones((5, 2), "f")),
        "x must have shape (..., 3) for layer 0 of MLP(sizes=(3, 4, 1)); got float32 of shape (5, 2)",
    ),
    "vector for a column": (
        lambda: MLP((1, 1)).apply(MLP((1, 1)).init(KEY), jnp.ones(7)),
        "one feature needs a last axis of 1: x[:, None]",
    ),
    "integer x": (
        lambda: MLP31.apply(PARAMS, jnp.ones((5, 3), jnp.uint8)),
        "x must hold floats; got uint8 of shape (5, 3)",
    ),
    "list x": (lambda: MLP31.apply(PARAMS, [1.0, 2.0, 3.0]), "x must be an array of floats; got list"),
    "parameters of another net": (
        lambda: MLP31.apply(MLP((3, 5, 1)).init(KEY), X),
        "layer 0 of MLP(sizes=(3, 4, 1)) must have w of shape (3, 4); got (3, 5)",
    ),
    "stacked parameters": (
        lambda: MLP31.apply(jax.vmap(MLP31.init)(jax.random.split(KEY, 2)), X),
        "got (2, 3, 4); map over members with jax.vmap",
    ),
    "too few layers": (lambda: MLP31.apply(PARAMS[:1], X), "params must have 2 layers"),
    "parameters of another kind": (lambda: MLP31.apply({"w": 1}, X), "params must be a tuple of Layer"),
    "rate without dropout": (
        lambda: MLP31.apply(PARAMS, X, key=KEY, dropout_rate=0.1),
        "it takes one with MLP(..., dropout=True)",
    ),
    "dropout without rate": (
        lambda: DROPOUT.model.apply(PARAMS, X, key=KEY),
        "dropout_rate must be given with a key",
    ),
    "rate of one": (
        lambda: DROPOUT.model.apply(PARAMS, X, key=KEY, dropout_rate=1.0),
        "dropout_rate must lie in [0, 1); got 1.0",
    ),
    # Keys.
    "seed for a key": (
        lambda: MLP31.init(0),
        "key must be a typed JAX key; got int 0; make one with jax.random.key(0)",
    ),
    "old key": (lambda: fit(key=jax.random.PRNGKey(0)), "jax.random.PRNGKey is the old form: use jax.random.key"),
    "many keys": (
        lambda: fit(key=jax.random.split(KEY, 4)),
        "key must be a single key; got keys of shape (4,); map over them with jax.vmap",
    ),
    "no key": (lambda: fit(key=None), "key must be a typed JAX key; got NoneType None"),
    # Losses and metrics.
    "(N, 1) against (N,)": (
        lambda: losses.squared_error(Y, X[:, 0]),
        "one shape (batch, d); got float32 of shape (10, 1) and float32 of shape (10,); a column is targets[:, None]",
    ),
    "(N,) against (N, 1)": (
        lambda: losses.absolute_error(X[:, 0], Y),
        "a column of outputs is outputs[:, 0]",
    ),
    "integer targets": (lambda: losses.huber(Y, LABELS[:, None]), "targets must hold floats; got int64 of shape"),
    "label too large": (
        lambda: losses.cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 4, 5])),
        "labels must be integers in 0 ... 3, one for each of the 4 outputs; got 4 (2 of 3 labels are outside)",
    ),
    "negative label": (lambda: losses.cross_entropy(jnp.zeros((2, 4)), jnp.array([0, -1])), "got -1 (1 of 2"),
    "float labels": (
        lambda: losses.cross_entropy(jnp.zeros((2, 4)), jnp.array([0.0, 1.0])),
        "labels must be integers; got float32 of shape (2,); pass targets.astype('int32')",
    ),
    "column of labels": (
        lambda: losses.cross_entropy(jnp.zeros((2, 4)), jnp.array([[0], [1]])),
        "a column of labels is targets[:, 0]",
    ),
    "soft labels that do not sum to one": (
        lambda: losses.cross_entropy(jnp.zeros((1, 2)), jnp.ones((1, 2))),
        "must sum to one over the classes",
    ),
    "binary label of two": (
        lambda: losses.binary_cross_entropy(jnp.zeros((1, 1)), jnp.array([[2]])),
        "targets must lie in [0, 1]; got 2",
    ),
    "gaussian without a scale": (
        lambda: losses.gaussian_nll(Y, Y),
        "outputs must have shape (batch, 2 d), means then raw scales",
    ),
    "odd gaussian outputs": (lambda: losses.gaussian(jnp.zeros((2, 3))), "give the last layer two outputs a target"),
    "level of two": (lambda: losses.quantile(Y, Y, level=2.0), "level must lie in (0, 1); got 2.0"),
    "levels without outputs": (
        lambda: losses.quantile(Y, Y, level=jnp.array([0.1, 0.9])),
        "outputs must have shape (batch, 2 levels x d) for targets (batch, d)",
    ),
    "accuracy of float labels": (lambda: metrics.accuracy(jnp.zeros((2, 4)), jnp.zeros(2)), "labels must be integers"),
    "k above the classes": (
        lambda: metrics.top_k_accuracy(jnp.zeros((2, 4)), jnp.zeros(2, int), k=5),
        "k must be at most the 4 classes; got 5",
    ),
    "accuracy of one logit": (
        lambda: metrics.accuracy(Y, LABELS[:, None] % 2),
        "outputs of metrics.accuracy must have shape (batch, classes), two classes or more; got float32 of shape "
        "(10, 1); for one logit an example use metrics.binary_accuracy",
    ),
    "accuracy of a vector": (lambda: metrics.top_k_accuracy(Y[:, 0], LABELS), "use metrics.binary_accuracy"),
    "accuracy of many labels": (
        lambda: metrics.accuracy(X, np.ones((10, 3), int)),
        "targets (batch, classes) of metrics.accuracy must be one-hot, or probabilities that sum to one over the "
        "classes; got a row of sum 3; for many labels an example use metrics.multilabel_accuracy or exact_match",
    ),
    "accuracy of rows of zeros": (
        lambda: metrics.expected_calibration_error(X, np.zeros((10, 3), "f")),
        "got a row of sum 0",
    ),
    "accuracy of numbers": (
        lambda: metrics.accuracy(X[:2, :2], np.array([[100.0, -7.0], [0.0, 1.0]])),
        "got a row of sum 93; for many labels an example use metrics.multilabel_accuracy or exact_match, for numbers "
        "rmse, mae or r2",
    ),
    "accuracy of a column of labels": (
        lambda: metrics.accuracy(X, LABELS[:, None] % 3),
        "a column of labels is targets[:, 0]",
    ),
    "binary accuracy of several classes": (
        lambda: metrics.binary_accuracy(X, LABELS),
        "outputs and targets of metrics.binary_accuracy must have (batch,) or (batch, 1), one logit an example; got "
        "float32 of shape (10, 3) and int64 of shape (10,); for several classes use metrics.accuracy",
    ),
    "many labels of one shape": (
        lambda: metrics.exact_match(X, LABELS),
        "outputs and targets of metrics.exact_match must have one shape (batch, labels)",
    ),
    "soft yes": (
        lambda: metrics.roc_auc(Y, np.full((10, 1), 0.3)),
        "targets of metrics.roc_auc must be 0 or 1; got 0.3",
    ),
    "an unknown average": (lambda: metrics.f1(Y, LABELS % 2, average="marco"), "(did you mean 'macro'?)"),
    "binary average of classes": (
        lambda: metrics.recall(X, LABELS % 3, average="binary"),
        "average must be macro, micro or weighted for several classes or labels; got 'binary'",
    ),
    "multilabel by name": (
        lambda: metrics.f1(X, LABELS % 3, multilabel="yes"),
        "multilabel must be True, False or None; got 'yes'",
    ),
    "threshold": (lambda: metrics.f1(Y, LABELS % 2, threshold=1.5), "threshold must lie in [0, 1]; got 1.5"),
    "level of coverage": (
        lambda: metrics.interval_coverage(X[:, :2], Y, level=np.nan),
        "level must lie in [0, 1]; got nan",
    ),
    "numbers of another likelihood": (
        lambda: metrics.nll(X, LABELS % 3, min_variance=0.1),
        "numbers of nll must be those of cross_entropy; got an unexpected keyword argument 'min_variance'",
    ),
    "negative metric weight": (
        lambda: metrics.accuracy(X, LABELS % 3, weight=-np.ones(10)),
        "weight must not be negative, NaN or infinite; got -1.0",
    ),
    "metric weight of NaN": (
        lambda: metrics.average(jnp.ones(2), jnp.array([1.0, jnp.nan])),
        "weight must not be negative, NaN or infinite; got nan",
    ),
    "metric weight in a list": (
        lambda: metrics.rmse(Y, Y, weight=[1.0] * 10),
        "weight must be an array; got list",
    ),
    "metric weights": (
        lambda: metrics.rmse(Y, Y, weight=jnp.ones(3)),
        "weight must have shape (10,), one an example; got float32 of shape (3,)",
    ),
    # Data.
    "empty data": (lambda: fit(X[:0], Y[:0]), "x of data must not be empty; got float32 of shape (0, 3)"),
    "lengths": (lambda: fit(X, Y[:9]), "x, y and weight of data must have as many examples; got 10 and 9 in y"),
    "NaN in x": (
        lambda: fit(with_value(X, np.nan)),
        "x must be finite; got 1 bad of 30 values, the first nan at x[2, 0]",
    ),
    "infinity in y": (lambda: fit(X, with_value(Y, np.inf)), "y must be finite; got 1 bad of 10 values, the first inf"),
    "NaN in validation": (lambda: fit(validation=(X, with_value(Y, np.nan))), "validation y must be finite"),
    "infinities of both signs": (
        lambda: fit(np.stack([np.full(10, np.inf), np.full(10, -np.inf), np.zeros(10)], 1)),
        "x must be finite; got 20 bad of 30 values, the first inf at x[0, 0]",
    ),
    "NaN on the device": (lambda: fit(jnp.asarray(with_value(X, np.nan))), "x must be finite"),
    "integer images": (lambda: fit(X.astype("u1")), "x must hold floats; got uint8"),
    "y is a vector": (lambda: fit(X, Y[:, 0]), "a column is targets[:, None]"),
    "y is a list": (lambda: fit(X, [1.0] * 10), "must be an array with the examples on its first axis; got float 1.0"),
    "label outside the classes": (
        lambda: fit(X, LABELS + 1, CLASSES),
        "labels must be integers in 0 ... 3, one for each of the 4 outputs; got 4",
    ),
    "validation label outside the classes": (
        lambda: fit(X, LABELS, CLASSES, validation=(X, LABELS - 1)),
        "labels must be integers in 0 ... 3",
    ),
    "validation features": (lambda: fit(validation=(X[:, :2], Y)), "x must have shape (..., 3)"),
    "not a pair": (lambda: jaxmlp.fit(KEY, X, RECIPE, RATE), "data must be (x, y) or (x, y, weight); got ndarray"),
    "four parts": (lambda: jaxmlp.fit(KEY, (X, Y, Y, Y), RECIPE, RATE), "(x, y, weight); got tuple of length 4"),
    "weights of a wrong shape": (
        lambda: jaxmlp.fit(KEY, (X, Y, np.ones((10, 1), "f")), RECIPE, RATE),
        "weight of data must have shape (10,), one an example; got float32 of shape (10, 1)",
    ),
    "negative weight": (
        lambda: jaxmlp.fit(KEY, (X, Y, -np.ones(10, "f")), RECIPE, RATE),
        "weight must not be negative; got -1.0",
    ),
    "no weight at all": (
        lambda: jaxmlp.fit(KEY, (X, Y, np.zeros(10, "f")), RECIPE, RATE),
        "weight of data must not be zero for every example",
    ),
    "batch larger than data": (
        lambda: fit(recipe=dataclasses.replace(RECIPE, batch_size=11)),
        "batch_size must be at most the 10 examples; got 11; batch_size=None takes all at once",
    ),
    "epoch's batch larger than data": (
        lambda: data.epoch_order(KEY, 0, 10, 11),
        "batch_size must be at most the 10 rows; got 11",
    ),
    "epoch of too many rows": (
        lambda: data.epoch_order(KEY, 0, 2**31 + 1, 1000, count=7),
        "n must be at most 2^31; got 2147483649; rows are numbered in int32",
    ),
    "constant split": (lambda: data.split(KEY, 1), "split needs n >= 2 rows and a test share in (0, 1); got n=1"),
    "test share": (lambda: data.split(KEY, 10, 1.5), "got n=10, test=1.5"),
    "more folds than rows": (lambda: data.k_folds(KEY, 3, 4), "k must be at least 2 and at most the 3 rows; got 4"),
    "stratify": (
        lambda: data.k_folds(KEY, 10, 2, stratify=jnp.zeros(9)),
        "stratify must hold a label for each of 10 rows",
    ),
    "columns": (lambda: data.standardise(X[:, :2], data.statistics(X)), "x must have 3 columns, as the statistics do"),
    "statistics of a vector": (lambda: data.statistics(X[:, 0]), "x must be a table (N, d) with at least one row"),
    "statistics without weight": (
        lambda: data.statistics(X, np.zeros(10)),
        "weight must not be zero for every row",
    ),
    "statistics by a negative weight": (
        lambda: data.statistics(X, -np.ones(10)),
        "weight must not be negative, NaN or infinite; got -1.0",
    ),
    "too many rows to shuffle": (
        lambda: data.shuffle(KEY, jnp.zeros(1, jnp.uint32), 2**31 + 1),
        "n must be at most 2^31; got 2147483649",
    ),
    # Linear maps.
    "least squares of a vector": (lambda: linear.least_squares(X, X[:, 0]), "one column is y[:, None]"),
    "least squares of nothing": (lambda: linear.least_squares(X[:0], Y[:0]), "x must not be empty"),
    "least squares of NaN": (lambda: linear.least_squares(with_value(X, np.nan), Y), "x must be finite"),
    "negative penalty": (lambda: linear.least_squares(X, Y, l2=-1.0), "l2 must not be negative; got -1.0"),
    "rows": (lambda: linear.least_squares(X, Y[:3]), "x and y must have as many rows; got 10 and 3"),
    "gradients of a stack": (
        lambda: linear.gradients(PARAMS, X, Y),
        "gradients needs one affine layer; got 2; fold them with linear.compose",
    ),
    "gradients of other shapes": (
        lambda: linear.gradients(Layer(jnp.ones((2, 1)), jnp.ones(1)), X, Y),
        "w must have shape (3, 1) (in, out) for x and y; got (2, 1)",
    ),
    "empty stack": (lambda: linear.compose(()), "compose needs at least one Layer"),
    "stack with a norm": (
        lambda: linear.compose(MLP((2, 2, 2), norm="rms").init(KEY)),
        "layer 0 has a norm, which is not affine in x",
    ),
    "stack that does not chain": (
        lambda: linear.compose((Layer(jnp.ones((2, 3))), Layer(jnp.ones((2, 1))))),
        "layer 1 must take the 3 outputs of layer 0; its w is (2, 1)",
    ),
    # Recipes and their numbers.
    "model class": (lambda: Recipe(MLP, losses.huber, optax.sgd, epochs=1), "model must have init(key) and apply"),
    "model without apply": (lambda: Recipe(3, losses.huber, optax.sgd, epochs=1), "got 3 without init"),
    "loss by name": (lambda: Recipe(MLP31, "huber", optax.sgd, epochs=1), "loss must be callable; got 'huber'"),
    "finished optimizer": (
        lambda: Recipe(MLP31, losses.huber, optax.sgd(0.1), epochs=1),
        "optimizer must be a factory, as optax.adam, and its numbers go to hyperparams={'learning_rate': ...}",
    ),
    "factory of something else": (
        lambda: fit(recipe=dataclasses.replace(RECIPE, optimizer=lambda learning_rate: 3)),
        "optimizer must return an optax.GradientTransformation; got int",
    ),
    "zero epochs": (lambda: dataclasses.replace(RECIPE, epochs=0), "epochs must be a positive int; got 0"),
    "zero batch": (lambda: dataclasses.replace(RECIPE, batch_size=0), "batch_size must be a positive int; got 0"),
    "unhashable model": (
        lambda: dataclasses.replace(RECIPE, model=type("M", (), {"init": id, "apply": id, "__hash__": None})()),
        "every part of a Recipe must be hashable",
    ),
    "misspelt number": (
        lambda: fit(hyperparams={"learning_rat": 0.1}),
        "it is taken by nobody (did you mean 'learning_rate'?)\n  model MLP takes init_scale, dropout_rate\n"
        "  loss squared_error takes none\n  optimizer adam takes learning_rate, b1, b2",
    ),
    "number that two take": (
        lambda: fit(
            recipe=dataclasses.replace(RECIPE, loss=losses.huber, optimizer=lambda delta: optax.sgd(delta)),
            hyperparams={"delta": 0.1},
        ),
        "it is taken by loss huber and optimizer <lambda>",
    ),
    "no learning rate": (lambda: fit(hyperparams=None), "optimizer adam needs learning_rate: pass hyperparams={"),
    "rates at once": (
        lambda: fit(hyperparams={"learning_rate": np.array([0.1, 0.2])}),
        "must be one number for one network; got float64 of shape (2,); to sweep it, map: jax.vmap(jaxmlp.fit",
    ),
    "rate as text": (lambda: fit(hyperparams={"learning_rate": "0.1"}), "must be a number; got str '0.1'"),
    "rate alone": (lambda: fit(hyperparams=0.1), "hyperparams must be a dict of numbers; got float 0.1"),
    "dropout rate of one in fit": (
        lambda: fit(recipe=DROPOUT, hyperparams=RATE | {"dropout_rate": 1.0}),
        "dropout_rate must lie in [0, 1); got 1.0",
    ),
    "dropout rate missing in fit": (lambda: fit(recipe=DROPOUT), "dropout_rate must be given with a key"),
    "loss already averaged": (
        lambda: fit(recipe=dataclasses.replace(RECIPE, loss=lambda o, y: jnp.mean((o - y) ** 2))),
        "loss must return one value an example, shape (10,); got float32 of shape ()",
    ),
    "no steps": (lambda: CosineAdamW(steps=0), "steps must be a positive int; got 0"),
    "all warm-up": (lambda: CosineAdamW(steps=5, warmup=1.0), "warmup must lie in [0, 1); got 1.0"),
    # Populations.
    "one key for many": (
        lambda: fits(keys=KEY),
        "keys must be typed keys of shape (members,); got key<fry> of shape ()",
    ),
    "no members": (lambda: fits(keys=KEYS[:0]), "keys must name at least one member"),
    "rates for other members": (
        lambda: fits({"learning_rate": np.ones(3, "f")}),
        "hyperparams['learning_rate'] must have one entry for each of 2 keys, or be one number for all; got float32 of "
        "shape (3,)",
    ),
    "text for rates": (
        lambda: fits({"learning_rate": "fast"}),
        "hyperparams['learning_rate'] must be a number; got str 'fast'",
    ),
    "numbers no dict": (lambda: fits(0.1), "hyperparams must be a dict of (members,) numbers; got float 0.1"),
    "misspelt number of members": (lambda: fits({"learning_rat": 0.1}), "did you mean 'learning_rate'?"),
    "a member's dropout rate": (
        lambda: fits(RATE | {"dropout_rate": np.array([0.1, 1.5])}, DROPOUT),
        "dropout_rate must lie in [0, 1); got 1.5",
    ),
    "NaN in a member's table": (
        lambda: population.fit(
            KEYS, population.each(np.stack([X, with_value(X, np.nan)]), np.stack([Y, Y])), RECIPE, RATE
        ),
        "x must be finite; got 1 bad of 60 values",
    ),
    "label of a member": (
        lambda: population.fit(KEYS, population.each(np.stack([X, X]), np.stack([LABELS, LABELS + 9])), CLASSES, RATE),
        "labels must be integers in 0 ... 3",
    ),
    "weights' shape": (
        lambda: fits(weights=np.ones(10, "f")),
        "weights must have shape (2, 10), a member and an example; got float32 of shape (10,)",
    ),
    "weights of nobody": (
        lambda: fits(weights=np.stack([np.ones(10, "f"), np.zeros(10, "f")])),
        "weights must not be zero for every example; they are for member 1",
    ),
    "negative weights": (lambda: fits(weights=np.full((2, 10), -1.0, "f")), "weights must not be negative; got -1.0"),
    "float rows": (lambda: fits(rows=np.ones((2, 5))), "rows must be integers of shape (2, n), a member's rows each"),
    "row outside": (lambda: fits(rows=np.full((2, 5), 10)), "rows must be in 0 ... 9, with -1 only at the end"),
    "padding first": (lambda: fits(rows=np.array([[-1, 0], [0, 1]])), "with -1 only at the end for none"),
    "no rows": (
        lambda: fits(rows=np.array([[0, 1], [-1, -1]])),
        "rows must hold a row for every member; got none for member 1",
    ),
    "batch above the rows": (
        lambda: fits(rows=np.array([[0, 1], [2, 3]])),
        "batch_size must be at most the 2 examples of a member; got 5",
    ),
    "patience without validation": (lambda: fits(patience=3), "patience must have validation data to watch"),
    "zero patience": (lambda: fits(patience=0), "patience must be a positive int; got 0"),
    "improvement without patience": (lambda: fits(min_improvement=0.1), "min_improvement=0.1 needs patience"),
    "plan of others": (
        lambda: fits(plan=population.plan(5, (X, Y), RECIPE, RATE)),
        "plan must be made for as many members as there are keys, 2; got 5",
    ),
    "recipes for others": (
        lambda: fits(recipe=[RECIPE] * 3),
        "recipe must be a Recipe or a list of one for each of 2 members; got 3; for every recipe with every key: ",
    ),
    "plan for many shapes": (
        lambda: fits(recipe=[RECIPE] * 2, plan=population.plan(2, (X, Y), RECIPE, RATE)),
        "plan must be None for a list of recipes",
    ),
    "halving by one": (
        lambda: population.halving(KEYS, (X, Y), RECIPE, RATE, factor=1),
        "factor must be above 1; got 1",
    ),
    "halving by nothing": (
        lambda: population.halving(KEYS, (X, Y), dataclasses.replace(RECIPE, epochs=3), RATE),
        "by must be one of loss; got 'validation_loss'",
    ),
    "halving with patience": (
        lambda: population.halving(KEYS, (X, Y), RECIPE, RATE, patience=3),
        "an option of halving must be one of validation, weights, rows, validation_rows, plan, params, callbacks",
    ),
    "halving in waves": (
        lambda: population.halving(KEYS, (X, Y), RECIPE, RATE, plan=WAVES),
        "halving must hold all 2 members at once; the plan's memory holds 1",
    ),
    "too little memory": (
        lambda: population.plan(2, (X, Y), RECIPE, RATE, memory=1000),
        "memory must hold the data, one block of members and all results: ",
    ),
    "more devices than there are": (
        lambda: population.plan(2, (X, Y), RECIPE, RATE, devices=99),
        "devices must be at most the 2 local ones; got 99; on a CPU jaxmlp.use_all_cores()",
    ),
    "no devices": (
        lambda: population.plan(2, (X, Y), RECIPE, RATE, devices=[]),
        "devices must name at least one device",
    ),
    "zero width": (lambda: population.plan(2, (X, Y), RECIPE, RATE, width=0), "width must be a positive int; got 0"),
    "a member outside": (lambda: population.member(STATES, 3), "i must be a member, 0 ... 1; got 3"),
    "ranking by nothing": (
        lambda: population.ranking(HISTORY, by="los"),
        "by must be one of loss; got 'los' (did you mean 'loss'?)",
    ),
    "nobody to rank": (
        lambda: population.ranking(HISTORY | {"status": np.array([2, 2])}),
        "all 2 members diverged; try smaller learning rates",
    ),
    "folds of one array": (
        lambda: population.cross_validate(KEY, X, RECIPE),
        "data must be two arrays, (x, y); got ndarray",
    ),
    "folds of lists": (
        lambda: population.cross_validate(KEY, (X, Y.tolist()), RECIPE),
        "data must be two arrays, (x, y); got tuple of length 2",
    ),
    "standardise what": (
        lambda: population.cross_validate(KEY, (X, Y), RECIPE, standardise="y"),
        "standardise must be 'x', 'xy', or '' for neither; got 'y'",
    ),
    "grid of a number": (lambda: population.grid(rate=0.1), "rate must list its values; got 0.1; one value is [0.1]"),
    "grid of nothing": (lambda: population.grid(rate=[]), "rate must list at least one value; got none"),
    "no settings": (lambda: population.settings([]), "settings must hold at least one dict of numbers; got none"),
    "uneven settings": (
        lambda: population.settings([{"a": 1.0}, {"b": 1.0}]),
        "settings must be dicts of the same names; got {'a': 1.0} and, at 1, {'b': 1.0}",
    ),
    "logarithm of nothing": (
        lambda: population.sample(KEY, 3, rate=population.LogUniform(0.0, 1.0)),
        "rate must have a range low < high, low > 0; got LogUniform(low=0.0, high=1.0)",
    ),
    "states for params": (
        lambda: population.predict(MLP31, STATES, X),
        "params must be the members' parameters; got states; pass states.params",
    ),
    "outputs of one": (
        lambda: population.mixture(np.ones((5, 2), "f")),
        "outputs must have shape (members, batch, out), as population.predict gives; got float32 of shape (5, 2)",
    ),
    "status of others": (
        lambda: population.categorical(np.ones((2, 5, 2), "f"), status=np.zeros(3)),
        "status must be history['status'] of 2 members, not all diverged",
    ),
    "targets of a mixture": (
        lambda: population.mixture(np.ones((2, 5, 2), "f")).log_prob(Y[:3]),
        "y must have shape (5, 1); got float32 of shape (3, 1)",
    ),
    "level of a mixture": (
        lambda: population.mixture(np.ones((2, 5, 2), "f")).quantile(1.0),
        "level must lie in (0, 1); got 1.0",
    ),
    # The loop.
    "loop: no key": (lambda: train(key=0), "key must be a typed JAX key; got int 0"),
    "loop: every": (lambda: train(every=0), "every must be a positive int; got 0"),
    "loop: keep": (lambda: train(directory=".", keep=0), "keep must be a positive int; got 0"),
    "loop: steps of a table": (lambda: train(steps=3), "steps must be None for data in memory"),
    "loop: no data": (lambda: train(7), "data must be (x, y) or (x, y, weight); got int"),
    "loop: resume nothing": (
        lambda: loop.resume("nowhere", (X, Y)),
        "directory must be one that train saved in; nowhere",
    ),
    "loop: a folder without files": (lambda: train("tests/golden"), "must hold x.npy and y.npy, or shards x-000.npy"),
    "loop: weights of a stream": (
        lambda: train([(X, Y)], NO_BATCH, weights=np.ones((1, 10), "f")),
        "weights must be None for a stream",
    ),
    "loop: metrics of a stream": (
        lambda: train([(X, Y)], dataclasses.replace(NO_BATCH, metrics=(metrics.rmse,))),
        "metrics must have validation data for a stream",
    ),
    "loop: batch size of a stream": (
        lambda: train([(X, Y)]),
        "batch_size must be None or that of the stream, 10; got 5",
    ),
    "loop: a stream in waves": (
        lambda: train(key=KEYS, plan=WAVES, data=[(X[:5], Y[:5])] * 2),
        "a stream must be read by all 2 members at once; the plan's memory holds 1; pass a plan with more memory",
    ),
    "loop: a list of recipes for one network": (
        lambda: train(recipe=[RECIPE]),
        "recipe must be one Recipe for one network; for a list of them pass keys (members,)",
    ),
    "halving a list of recipes": (
        lambda: population.fit(KEYS, (X, Y), [RECIPE, DROPOUT], RATE, stop=population.Halving(by="loss")),
        "Halving must compare members of one recipe; train each recipe's members in a call of its own",
    ),
    "a table that could be each member's": (
        lambda: population.fit(KEYS, (np.stack([X, X]), np.stack([Y, Y])), RECIPE, RATE),
        "data must say what its first axis is, 2 members or 2 examples; got x of shape (2, 10, 3) for 2 keys",
    ),
    "a table for each of too few": (
        lambda: population.fit(KEYS, population.each(X[None], Y[None]), RECIPE, RATE),
        "data of each member must have shapes (2, N, ...), members and examples",
    ),
    "each of what is no array": (
        lambda: population.fit(KEYS, population.each(1, 2), RECIPE, RATE),
        "data of each member must be arrays, each(x, y) or each(x, y, weight)",
    ),
    "validation for each of a stream": (
        lambda: train(key=KEYS, data=[(X[:5], Y[:5])] * 2, validation=population.each(X[None], Y[None])),
        "validation must be shared by all members for a stream; got one for each",
    ),
    "numbers for a bound recipe": (
        lambda: fit(recipe=RECIPE.bind(RATE)),
        "hyperparams must be None for a recipe that was bound to its own; bind the Recipe anew",
    ),
    "stop: no rule": (
        lambda: train(stop=5),
        "stop must be Patience, Target, Budget or Halving, or a list of them; got 5",
    ),
    "stop: two of a kind": (
        lambda: train(stop=[loop.Budget(1), loop.Budget(2)]),
        "stop must name at most one Budget",
    ),
    "stop: patience without validation": (lambda: train(stop=loop.Patience(3)), "patience must have validation data"),
    "stop: no time": (lambda: train(stop=loop.Budget(0)), "Budget must have seconds above 0; got 0"),
    "stop: halving one": (lambda: train(stop=loop.Halving()), "Halving must have a population to choose from"),
    "stop: target both ways": (lambda: train(stop=loop.Target("loss")), "Target must say either at_least or at_most"),
    "stop: target twice": (
        lambda: train(stop=[loop.Target("loss", at_most=1), loop.Target("loss", at_most=2)]),
        "stop must name at most one Target of 'loss'",
    ),
    "stop: target of nothing": (
        lambda: train(stop=loop.Target("validation_loss", at_most=1)),
        "the metric of a Target must be one of loss; got 'validation_loss'",
    ),
    # Models that travel.
    "apply: biases of another net": (
        lambda: MLP31.replace(bias=False).apply(PARAMS, X),
        "layer 0 of MLP(sizes=(3, 4, 1), bias=False) must have w; got w, b",
    ),
    "apply: a norm without its scale": (
        lambda: MLP31.replace(norm="rms").apply(PARAMS, X),
        "layer 0 of MLP(sizes=(3, 4, 1), norm='rms') must have w, b, scale; got w, b",
    ),
    "apply: a bias that would broadcast": (
        lambda: MLP31.apply((PARAMS[0]._replace(b=jnp.ones(1)), PARAMS[1]), X),
        "layer 0 of MLP(sizes=(3, 4, 1)) must have b of shape (4,); got (1,)",
    ),
    "apply: integer weights": (
        lambda: MLP31.apply(jax.tree.map(lambda a: a.astype("int32"), PARAMS), X),
        "w of layer 0 of MLP(sizes=(3, 4, 1)) must hold floats; got int32",
    ),
    "layers: members of two counts": (
        lambda: MLP31.layers((STATES.params[0], PARAMS[1])),
        "layer 0 of MLP(sizes=(3, 4, 1)) must have w of shape (3, 4); got (2, 3, 4)",
    ),
    "apply: an activation of the batch": (
        lambda: MLP31.replace(activation=lambda h: h.sum(0, keepdims=True)).apply(PARAMS, X),
        "activation must be elementwise, from floats (..., units) to floats of that shape; got float32 of shape (1, 4)",
    ),
    "apply: an activation without floats": (
        lambda: MLP31.replace(activation=lambda h: h > 0).apply(PARAMS, X),
        "to floats of that shape; got bool of shape (10, 4) of float32 of shape (10, 4)",
    ),
    "apply: a rate for each unit": (
        lambda: DROPOUT.model.apply(PARAMS, X, key=KEY, dropout_rate=np.full(4, 0.1)),
        "dropout_rate must be one number; got float64 of shape (4,)",
    ),
    "apply: many keys": (
        lambda: DROPOUT.model.apply(PARAMS, X, key=KEYS, dropout_rate=0.1),
        "key must be a single key; got keys of shape (2,)",
    ),
    "init: a scale for each unit": (lambda: MLP31.init(KEY, init_scale=np.ones(4)), "init_scale must be one number"),
    "init: a scale that is too large": (
        lambda: MLP31.init(KEY, init_scale=1e39),
        "init_scale must fit float32, in which JAX computes; got 1e+39",
    ),
    "init: NaN": (lambda: MLP31.init(KEY, init_scale=np.nan), "init_scale must be finite in float32; got nan"),
    "sizes: too wide": (lambda: MLP((3, 2**31)).init(KEY), "every size must be at most 2147483647"),
    "predict: one row": (lambda: serving.predict(MLP31, PARAMS, X[0]), "x must have a row an example, (N, in)"),
    "predict: no chunk": (lambda: serving.predict(MLP31, PARAMS, X, chunk=0), "chunk must be a positive int; got 0"),
    "in_numpy: a callable": (
        lambda: serving.in_numpy(MLP31.replace(activation=jnp.sin), PARAMS),
        "in_numpy knows activations by name: identity, relu",
    ),
    "in_numpy: half precision": (
        lambda: serving.in_numpy(MLP31.replace(dtype="bfloat16"), PARAMS),
        "in_numpy computes in float32 or float64; got MLP(sizes=(3, 4, 1), dtype='bfloat16')",
    ),
    "in_numpy: another net's parameters": (
        lambda: serving.in_numpy(MLP((3, 5, 1)), PARAMS),
        "layer 0 of MLP(sizes=(3, 5, 1)) must have w of shape (3, 5)",
    ),
    "in_numpy: another width": (
        lambda: serving.in_numpy(MLP31, PARAMS)(np.ones((2, 4))),
        "x must have shape (..., 3); got float64 of shape (2, 4); one row has shape (3,)",
    ),
    "save: no MLP": (lambda: jaxmlp.save("m", object(), PARAMS), "model must be an MLP, whose description is data"),
    "save: other parameters": (
        lambda: jaxmlp.save("m", MLP((3, 5, 1)), PARAMS),
        "layer 0 of MLP(sizes=(3, 5, 1)) must have w of shape (3, 5); got (3, 4)",
    ),
    "save: NaN": (
        lambda: jaxmlp.save("m", MLP31, jax.tree.map(lambda a: a * np.float32("nan"), PARAMS)),
        "0/w must be finite",
    ),
    "save: metadata": (lambda: jaxmlp.save("m", MLP31, PARAMS, metadata=X), "metadata must be what JSON can hold"),
    "save: too much of it": (lambda: jaxmlp.save("m", MLP31, PARAMS, metadata="a" * 3_000_000), "metadata must leave"),
    "load: nothing": (lambda: jaxmlp.load("nowhere"), "nowhere must be a file that can be read"),
    "export: no example": (
        lambda: jaxmlp.export(type("M", (), {"apply": max})(), PARAMS),
        "x must be given for a model that is no MLP",
    ),
    "sklearn: norm": (
        lambda: interop.to_sklearn(MLP((3, 4, 1), norm="rms"), PARAMS),
        "model must be an MLP of affine maps and a named activation",
    ),
    "sklearn: gelu": (lambda: interop.to_sklearn(MLP((3, 4, 1), "gelu"), PARAMS), "for scikit-learn; got MLP"),
    "sklearn: classes": (
        lambda: interop.to_sklearn(MLP31, PARAMS, classes=["a"]),
        "classes must name 2 labels; got 1",
    ),
    "sklearn: order": (
        lambda: interop.to_sklearn(MLP31, PARAMS, classes=["b", "a"]),
        "classes must be sorted, as scikit-learn has them",
    ),
    "sklearn: not fitted": (lambda: interop.from_sklearn(object()), "estimator must be a fitted MLPRegressor"),
    "a population elsewhere": (
        lambda: interop.to_sklearn(MLP31, STATES.params),
        "params must be of one network; got w of shape (2, 3, 4); population.member picks",
    ),
    "torch: no weights": (lambda: interop.from_torch({}), "a state dict must hold 0.weight, 0.bias"),
    "torch: strange weights": (lambda: interop.from_torch({"norm.scale": 1}), "of nn.Sequential; got norm.scale"),
    "halving: rungs without end": (
        lambda: fits(stop=population.Halving(1 + 1e-10)),
        "factor must be at least 1.01, or rungs have no end; got 1.0000000001",
    ),
    # What a run is made of, and what is given on resuming it.
    "resume: fewer epochs": (
        lambda: MANIFEST.with_epochs(5),
        "epochs must be at least the 6 of the run; got 5; leave it",
    ),
    "resume: another recipe": (
        lambda: MANIFEST.check_same(MANIFEST.with_epochs(9), "run"),
        "run holds another:\n  recipe.epochs: saved 6, given 9\npass what was saved, or another directory",
    ),
    "resume: another layout": (
        lambda: MANIFEST.check_same(dataclasses.replace(MANIFEST, layout={"width": 8, "devices": 2}), "run"),
        "layout.width: saved 16, given 8\nthe bits depend on the layout: go on with two devices or more, any number of",
    ),
    "resume: a part that is gone": (
        lambda: rebuild("loss", {"function": "jaxmlp.losses:nothing"}),
        "loss was jaxmlp.losses:nothing, which is not there any more",
    ),
    "resume: another's name": (
        lambda: rebuild("optimizer", {"function": "optax:sgd", "code": "0"}),
        "optimizer must be given again: it calls itself optax:sgd, and nothing is found by that name that is the same",
    ),
    "stream: steps of one's own": (
        lambda: open_stream(OwnStream(), KEY, None, 3),
        "steps must be None or that of the stream, 2, which says itself how many batches an epoch has; got 3",
    ),
    "stream: batch size of one's own": (
        lambda: open_stream(OwnStream(), KEY, 6, None),
        "batch_size must be None or that of the stream, 5; got 6",
    ),
    "stream: example without weights": (
        lambda: open_stream(OwnStream((X[:5], Y[:5])), KEY, None, None),
        "the example of a stream must be a batch (x, y, weight) of NumPy arrays; got tuple of length 2",
    ),
    "stream: example of another size": (
        lambda: open_stream(OwnStream((X, Y, Y[:, 0])), KEY, None, None),
        "the example of a stream must have as many examples as its batch_size says, 5; got",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_named_at_the_door(name):
    mistake, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        mistake()


def test_the_table_is_long_enough():
    assert len(BAD) >= 40


def test_shapes_are_checked_while_tracing_and_values_wait():
    with pytest.raises(ValueError, match="one shape"):
        jax.jit(losses.squared_error)(Y, X[:, 0])
    with pytest.raises(ValueError, match="x must have shape"):
        jax.eval_shape(MLP31.apply, PARAMS, jax.ShapeDtypeStruct((5, 2), jnp.float32))
    outside = jax.jit(losses.cross_entropy)(jnp.zeros((1, 4)), jnp.array([7]))
    assert outside.shape == (1,)  # traced labels are not known on the host: nothing to check there


def test_huge_but_finite_numbers_pass_the_door():
    """Their sum overflows, which is no reason to refuse them or to warn."""
    huge = np.full((10, 3), 3e38, "f")
    huge[0, 0] = -huge[0, 0]
    _check.finite("x", huge)
    _check.finite("x", jnp.asarray(huge))


def test_a_loss_or_a_metric_of_numpy_is_named_before_the_run():
    def of_numpy(outputs, targets):
        return np.sum(np.asarray(outputs) - targets, -1)

    for part in ("loss", "metrics"):
        recipe = dataclasses.replace(RECIPE, **{part: of_numpy})
        with pytest.raises(ValueError, match="of_numpy, must compute with jax.numpy, since JAX traces them"):
            jaxmlp.fit(KEY, (X, Y), recipe, RATE)


def test_labels_where_numbers_are_wanted_are_told_of_their_losses():
    with pytest.raises(ValueError, match="labels of classes are for losses.cross_entropy and metrics.accuracy"):
        losses.squared_error(jnp.zeros((3, 2)), jnp.array([0, 1, 1]))


def test_one_member_is_taken_by_its_own_function():
    with pytest.raises(ValueError, match=r"got int64 of shape \(\); member\(states, i\) is one of them"):
        population.take({"w": np.arange(3)}, np.int64(1))


def test_gradients_by_hand_are_of_affine_layers():
    layer = Layer(jnp.ones((3, 1)), jnp.zeros(1), jnp.ones(1))
    with pytest.raises(ValueError, match="gradients needs an affine layer; this one has a norm"):
        linear.gradients(layer, X, Y)


def test_parameters_in_a_dict_of_mixed_keys_are_named():
    with pytest.raises(ValueError, match="params must be a tuple of Layer, as init makes it; got dict"):
        MLP31.apply({1: np.ones(2), "a": np.ones(2)}, X)
