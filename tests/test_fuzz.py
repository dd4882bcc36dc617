"""Random wrong calls of every public function: each succeeds, or is refused by a ValueError in our own words.

The grammar: for each public function its arguments with values that are right. A call spoils one to three of them: by
something of another kind (None, text, a class, a list, ...), or by a change to what is right (another rank, dtype or
length, a NaN, a part of a tuple or a dict replaced, ...). An exception is ours if it is a ValueError, or an ImportError
that names an extra, and a `raise` statement of this package raised it.

    python tests/test_fuzz.py 10000              calls, counts for each function, and every exception that is not ours
    python tests/test_fuzz.py 10000 --passed     besides what succeeded, for a person to look for silent nonsense
    python tests/test_fuzz.py 1 --first 4711     call 4711 alone, with its traceback

The calls are numbered, and call n is the same call in every process.
"""

import argparse
import collections
import contextlib
import dis
import faulthandler
import functools
import io
import os
import random
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # as conftest.py does for pytest
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import (
    MLP,
    Layer,
    Recipe,
    conformal,
    data,
    files,
    interop,
    linear,
    loop,
    losses,
    metrics,
    population,
    records,
    serving,
    transforms,
)
from jaxmlp.optimizers import Averaged

PACKAGE = str(Path(jaxmlp.__file__).parent)
SECONDS = 60  # that one call may take
FIRST, COUNT = 0, 400  # of the ordinary suite


class Own:
    """An object of a user's that is nothing we know."""

    def __repr__(self):
        return "Own()"


class Model:
    """A model that is no MLP."""

    def init(self, key):
        return {"w": jnp.zeros((3, 1))}

    def apply(self, params, x):
        return x @ params["w"]


def other_kinds():
    """Values of many kinds, by name; made anew, so that no call can spoil another's."""
    return {
        "None": None,
        "True": True,
        "text": "relu",
        "empty text": "",
        "bytes": b"ab",
        "int": 3,
        "zero": 0,
        "negative": -1,
        "huge": 10**30,
        "float": 2.5,
        "NaN": float("nan"),
        "infinity": float("inf"),
        "1e39": 1e39,
        "complex": 1j,
        "list": [1.0, 2.0],
        "empty list": [],
        "ragged list": [[1.0], [1.0, 2.0]],
        "tuple": (1, 2),
        "empty tuple": (),
        "dict": {"a": 1},
        "empty dict": {},
        "mixed dict": {"a": 1, 2: 3},
        "set": {1, 2},
        "range": range(3),
        "iterator": iter([1, 2]),
        "object": Own(),
        "lambda": lambda: None,
        "lambda of one": lambda a: a,
        "class": Own,
        "our class": MLP,
        "module": np,
        "Recipe's class": Recipe,
        "np scalar": np.float32(0.5),
        "np int": np.int64(2),
        "np bool": np.bool_(True),
        "0-d": np.zeros((), "f"),
        "0-d of jax": jnp.zeros(()),
        "empty": np.zeros((0, 3), "f"),
        "vector": np.ones(3, "f"),
        "table": np.ones((6, 3), "f"),
        "column": np.ones((6, 1), "f"),
        "four axes": np.ones((2, 2, 2, 2), "f"),
        "ints": np.arange(6),
        "bools": np.ones(6, bool),
        "uint8": np.ones((6, 3), "u1"),
        "float64": np.ones((6, 3)),
        "big-endian": np.ones((6, 3), ">f4"),
        "long double": np.ones((6, 3), np.longdouble),
        "bfloat16": np.ones((6, 3), jnp.bfloat16),
        "complex array": np.ones((6, 3), complex),
        "objects": np.array([None, "a"], object),
        "texts": np.array(["a", "b"]),
        "dates": np.zeros(6, "M8[s]"),
        "records": np.zeros(6, [("a", "f4")]),
        "masked": np.ma.masked_greater(np.arange(6.0), 3),
        "matrix": np.ones((1, 2)).view(np.matrix),
        "sparse": _sparse(),
        "key": jax.random.key(1),
        "keys": jax.random.split(jax.random.key(1), 2),
        "old key": jax.random.PRNGKey(0),
        "shape": jax.ShapeDtypeStruct((6, 3), jnp.float32),
        "path": Path("/nowhere/at/all"),
        "recipe": RECIPE,
        "other recipe": OTHER,
        "bound": RECIPE.bind(RATE),
        "model": NET,
        "other model": MLP((5, 2)),
        "layer": PARAMS[0],
        "params": PARAMS,
        "other params": OTHER_PARAMS,
        "state": STATE,
        "states": STATES,
        "history": HISTORY,
        "members' history": FIT_HISTORY,
        "transformation": optax.sgd(0.1),
        "factory": optax.sgd,
        "schedule": optax.constant_schedule(0.1),
        "loss": losses.squared_error,
        "rule": population.Patience(1),
        "plan": PLAN,
        "pandas": _frame("pandas"),
        "polars": _frame("polars"),
        "torch": _tensor(),
    }


def _sparse():
    from scipy.sparse import csr_array

    return csr_array(np.eye(3, dtype="f"))


def _frame(library):
    module = sys.modules.get(library)
    return Own() if module is None else module.DataFrame({"a": [1.0, 2.0, 3.0]})


def _tensor():
    torch = sys.modules.get("torch")
    return Own() if torch is None else torch.ones(6, 3, requires_grad=True)


def changed_array(rng, array):
    """Return an array that differs in rank, length, dtype or value."""
    values = np.array(array)
    if values.dtype.kind not in "fiub":
        return rng.choice([np.asarray(array)[None], np.asarray(array)[:0]])
    flat = values.astype(np.float64).ravel()
    if flat.size:
        flat[rng.randrange(flat.size)] = rng.choice([np.nan, np.inf, -1.0, 1e39, 1e6, -(2.0**40)])
    ways = [
        lambda: values[None],
        lambda: values[..., 0] if values.ndim else values,
        lambda: values[:0] if values.ndim else values,
        lambda: values[:-1] if values.ndim else values,
        lambda: values[..., None],
        lambda: values.T,
        lambda: flat.reshape(values.shape),
        lambda: flat.reshape(values.shape).astype("f"),
        lambda: -values if values.dtype.kind == "f" else values + 100,
        lambda: values.astype(rng.choice(["i4", "i8", "u1", "?", "f2", "f4", "f8", ">f8", "c8", "O", "U", "S"])),
        lambda: np.ma.masked_array(values, rng.random() < 0.5),
        lambda: values.tolist(),
        lambda: jnp.asarray(values, jnp.bfloat16),
        lambda: np.zeros_like(values),
    ]
    with np.errstate(all="ignore"):
        return rng.choice(ways)()


def spoiled(rng, right):
    """Return (what was done, a value to pass instead of `right`)."""
    is_array = isinstance(right, np.ndarray | jax.Array) and not jnp.issubdtype(right.dtype, jax.dtypes.prng_key)
    if is_array and rng.random() < 0.5:
        found = changed_array(rng, right)
        return f"changed {_short(found)}", found
    if isinstance(right, tuple | list) and right and rng.random() < 0.5:
        i = rng.randrange(len(right))
        name, part = spoiled(rng, right[i])
        parts = [*right[:i], part, *right[i + 1 :]]
        return f"[{i}] {name}", type(right)(*parts) if hasattr(right, "_fields") else type(right)(parts)
    if isinstance(right, dict) and rng.random() < 0.6:
        if right and rng.random() < 0.8:
            key = rng.choice(sorted(right))
            name, part = spoiled(rng, right[key])
            return f"[{key!r}] {name}", type(right)({**right, key: part})
        return "one key more", type(right)({**right, rng.choice(["learning_rat", 3, None]): 0.1})
    kinds = other_kinds()
    name = rng.choice(sorted(kinds))
    return name, kinds[name]


def _short(value):
    text = f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray | jax.Array) else repr(value)
    return " ".join(text.split())[:60]


KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2)
X = np.random.default_rng(0).normal(size=(6, 3)).astype("f")
Y = X[:, :1] * 2
LABELS = np.array([0, 1, 1, 0, 1, 0])
LOGITS = X[:, :2].copy()
PAIRS = X[:, :2].copy()
WEIGHT = np.ones(6, "f")
MEMBERS = np.stack([LOGITS, 2 * LOGITS])
RATE = {"learning_rate": 0.1}
NET = MLP((3, 2, 1))
PARAMS = NET.init(KEY)
OTHER_PARAMS = MLP((4, 1)).init(KEY)
RECIPE = Recipe(NET, losses.squared_error, optax.sgd, epochs=2, batch_size=3)
OTHER = Recipe(MLP((3, 2)), losses.cross_entropy, optax.adam, epochs=1)
STATE = jaxmlp.start(KEY, RECIPE, RATE)
HISTORY = {"loss": np.array([0.5, 0.25], "f")}
STATES, FIT_HISTORY = population.fit(KEYS, (X, Y), RECIPE, RATE)
PART = population.part(KEYS, RATE, of=2, number=1)
PLAN = population.plan(2, (X, Y), RECIPE, RATE)
MIXTURE = population.mixture(MEMBERS)
FOLDS = population.CrossValidation({"loss": np.ones((1, 2), "f")}, STATES, FIT_HISTORY, [], [])
VOTES = population.categorical(MEMBERS)
BYTES = b"\0\0\x08\x01\0\0\0\x03\x07\x08\x09"


class Verb(NamedTuple):
    """A public function, and for each of its arguments by name the values that are right."""

    function: object
    right: dict[str, list]
    positional: int = 0  # how many of the first arguments are passed by position


def _with(what, *, positional=0, **right):
    return Verb(
        what, {name: values if isinstance(values, list) else [values] for name, values in right.items()}, positional
    )


def _loss(function, outputs, targets, **numbers):
    return _with(function, outputs=outputs, targets=targets, **numbers)


def _in(directory, function):
    """Call a function of a path with one in a directory of its own."""

    @functools.wraps(function)
    def call(path, *args, **options):
        path = directory / path if isinstance(path, str) and path in ("file", "model", "idx", "log") else path
        return function(path, *args, **options)

    return call


def verbs(directory):
    """Return the public functions by name; files are written in the directory."""
    here = functools.partial(_in, directory)
    jaxmlp.save(directory / "model", NET, PARAMS)
    (directory / "idx").write_bytes(BYTES)
    data_ = [(X, Y), (X, Y, WEIGHT)]
    found = {
        "MLP": _with(
            MLP,
            sizes=[(3, 2, 1), [3, 1]],
            activation=["relu", jnp.tanh],
            bias=True,
            initializer=[None, "ones"],
            dropout=False,
            norm=[None, "rms"],
            residual=False,
            dtype=[None, "bfloat16"],
            param_dtype=None,
            scan=False,
        ),
        "MLP.init": _with(NET.init, key=KEY, init_scale=1.0, positional=1),
        "MLP.apply": _with(NET.apply, params=PARAMS, x=X, key=None, dropout_rate=None),
        "MLP.layers": _with(NET.layers, params=PARAMS),
        "MLP.replace": _with(NET.replace, activation="tanh", sizes=[(3, 1)]),
        "MLP.from_dict": _with(MLP.from_dict, options={"sizes": [3, 1], "bias": False}),
        "Recipe": _with(
            Recipe,
            model=NET,
            loss=losses.squared_error,
            optimizer=optax.sgd,
            epochs=1,
            batch_size=[None, 3],
            metrics=[(), (metrics.rmse,), metrics.rmse],
            frozen=[None, lambda path: path[0] == 0],
        ),
        "Recipe.bind": _with(RECIPE.bind, hyperparams=RATE),
        "transfer": _with(
            jaxmlp.transfer, key=KEY, params=PARAMS, source=NET, target=[NET, MLP((3, 2, 2))], anew=[-1, (1,)]
        ),
        "Averaged": _with(Averaged, factory=[optax.sgd, optax.adam]),
        "start": _with(jaxmlp.start, key=KEY, recipe=RECIPE, hyperparams=RATE),
        "step": _with(jaxmlp.step, state=STATE, batch=data_, recipe=RECIPE, hyperparams=RATE),
        "epoch": _with(
            jaxmlp.epoch,
            state=STATE,
            data=data_,
            recipe=RECIPE,
            hyperparams=RATE,
            rows=[None, data.Rows(np.arange(4, dtype="i4"))],
        ),
        "evaluate": _with(jaxmlp.evaluate, params=PARAMS, data=data_, recipe=RECIPE, hyperparams=RATE),
        "fit": _with(jaxmlp.fit, key=KEY, data=data_, recipe=RECIPE, hyperparams=RATE, validation=[None, (X, Y)]),
        # Losses and metrics.
        "squared_error": _loss(losses.squared_error, Y, Y),
        "absolute_error": _loss(losses.absolute_error, Y, Y),
        "huber": _loss(losses.huber, Y, Y, delta=1.0),
        "quantile": _loss(losses.quantile, Y, Y, level=0.5),
        "cross_entropy": _loss(
            losses.cross_entropy,
            LOGITS,
            [LABELS, np.eye(2, dtype="f")[LABELS]],
            label_smoothing=0.1,
            class_weight=[None, np.ones(2, "f")],
        ),
        "binary_cross_entropy": _loss(losses.binary_cross_entropy, Y, LABELS[:, None], pos_weight=[None, 2.0]),
        "focal": _loss(losses.focal, LOGITS, [LABELS, np.eye(2, dtype="i4")[LABELS]], gamma=2.0, alpha=None),
        "unit_gaussian_nll": _loss(losses.unit_gaussian_nll, Y, Y),
        "gaussian": _with(losses.gaussian, outputs=PAIRS, min_variance=1e-6),
        "from_softplus": _with(losses.from_softplus, outputs=PAIRS),
        "gaussian_nll": _loss(losses.gaussian_nll, PAIRS, Y, min_variance=1e-6),
        "beta_gaussian_nll": _loss(losses.beta_gaussian_nll, PAIRS, Y, beta=0.5, min_variance=1e-6),
        "negative_binomial": _loss(losses.negative_binomial, PAIRS, np.abs(np.round(Y))),
        "negative_binomial_moments": _with(losses.negative_binomial_moments, outputs=PAIRS),
        "triplet": _with(losses.triplet, outputs=(PAIRS, PAIRS + 1, -PAIRS), targets=None, margin=1.0),
        "pairwise_ranking": _loss(losses.pairwise_ranking, Y, [LABELS, Y], weight=[None, WEIGHT]),
        "crps": _with(losses.crps, outputs=X, targets=Y[:, 0]),
        "evidential": _with(losses.evidential, outputs=np.hstack([PAIRS, PAIRS])),
        "evidential_nll": _loss(losses.evidential_nll, np.hstack([PAIRS, PAIRS]), Y, evidence=0.1),
        **_of_composed(),
        "accuracy": _loss(metrics.accuracy, LOGITS, LABELS, weight=[None, WEIGHT]),
        "top_k_accuracy": _loss(metrics.top_k_accuracy, LOGITS, LABELS, k=1, weight=[None, WEIGHT]),
        "rmse": _loss(metrics.rmse, Y, Y, weight=[None, WEIGHT]),
        "mae": _loss(metrics.mae, Y, Y, weight=[None, WEIGHT]),
        "r2": _loss(metrics.r2, Y, Y, weight=[None, WEIGHT]),
        "nll": _loss(metrics.nll, LOGITS, LABELS, likelihood=losses.cross_entropy, weight=[None, WEIGHT]),
        "expected_calibration_error": _loss(
            metrics.expected_calibration_error, LOGITS, LABELS, bins=3, weight=[None, WEIGHT]
        ),
        "interval_coverage": _loss(metrics.interval_coverage, PAIRS, Y, level=0.9, weight=[None, WEIGHT]),
        # Intervals.
        "conformal.scores": _with(conformal.scores, low=Y, high=Y, y=Y, scale=[1.0, np.ones((6, 1), "f")]),
        "conformal.radius": _with(conformal.radius, scores=[Y, Y[:, 0]], coverage=0.5, positional=2),
        "conformal.interval": _with(conformal.interval, low=Y, high=Y, radius=[1.0, np.ones(1, "f")], scale=1.0),
        # Data and linear maps.
        "statistics": _with(data.statistics, x=X, weight=[None, WEIGHT]),
        "standardise": _with(data.standardise, x=X, by=data.statistics(X)),
        "unstandardise": _with(data.unstandardise, z=X, by=data.statistics(X)),
        "split": _with(data.split, key=KEY, n=6, test=0.5),
        "k_folds": _with(data.k_folds, key=KEY, n=6, k=2, stratify=[None, LABELS]),
        "epoch_order": _with(data.epoch_order, key=KEY, epoch=0, n=6, batch_size=3, count=[None, 4]),
        "shuffle": _with(data.shuffle, key=KEY, place=np.arange(6, dtype="u4"), n=6),
        "take": _with(data.take, data=data_, rows=data.Rows(np.arange(4, dtype="i4"))),
        "steps_per_epoch": _with(data.steps_per_epoch, n=6, batch_size=[3, None]),
        "read_idx": _with(here(data.read_idx), path="idx", max_bytes=2**20, positional=1),
        "least_squares": _with(linear.least_squares, x=X, y=Y, l2=0.1),
        "gradients": _with(linear.gradients, params=Layer(np.ones((3, 1), "f"), np.ones(1, "f")), x=X, y=Y),
        "compose": _with(linear.compose, params=[PARAMS, Layer(np.ones((3, 1), "f"))]),
        "serving.predict": _with(serving.predict, model=NET, params=PARAMS, x=X, chunk=4, positional=3),
        "in_numpy": _with(lambda model, params, x: serving.in_numpy(model, params)(x), model=NET, params=PARAMS, x=X),
        # Files.
        "save": _with(
            here(jaxmlp.save), path="file", model=NET, params=PARAMS, metadata=[None, {"a": 1}], positional=3
        ),
        "load": _with(here(jaxmlp.load), path="model", positional=1),
        "read_metadata": _with(here(files.read_metadata), path="model", positional=1),
        "export": _with(jaxmlp.export, model=NET, params=PARAMS, x=None),
        "to_sklearn": _with(interop.to_sklearn, model=NET, params=PARAMS, classes=[None, ["a", "b"]]),
        "from_sklearn": _with(interop.from_sklearn, estimator=interop.to_sklearn(NET, PARAMS)),
        "to_torch": _with(interop.to_torch, model=NET, params=PARAMS),
        "from_torch": _with(interop.from_torch, source={"0.weight": X}, activation=[None, "tanh"]),
        "rows": _with(lambda history, epochs: list(records.rows(history, epochs)), history=HISTORY, epochs=[None, [2]]),
        "write_json_lines": _with(
            here(records.write_json_lines), path="file", history=HISTORY, epochs=[None, [2]], positional=2
        ),
        "write_csv": _with(here(records.write_csv), path="file", history=HISTORY, epochs=[None, [2]], positional=2),
    }
    one, many = np.array([[-1.0], [2.0], [0.5], [-3.0], [1.0], [-0.1]], "f"), np.eye(2, dtype="i4")[LABELS]
    for name in ("binary_accuracy", "roc_auc", "average_precision", "precision", "recall", "f1"):
        found[name] = _loss(getattr(metrics, name), one, [LABELS[:, None]], weight=[None, WEIGHT])
    for name in ("multilabel_accuracy", "exact_match"):
        found[name] = _loss(getattr(metrics, name), LOGITS, [many], threshold=0.5, weight=[None, WEIGHT])
    found["confusion_matrix"] = _loss(metrics.confusion_matrix, LOGITS, LABELS, weight=[None, WEIGHT])
    return found | _of_transforms(here) | _of_populations() | _of_the_loop(directory)


def _of_composed():
    both = losses.total(image=losses.huber, text=losses.cross_entropy)
    one = losses.per_token(losses.squared_error)
    heads = {"image": Y, "text": LOGITS}
    ranged = losses.BoundedScales(MLP((3, 2)), 1)
    params = ranged.init(KEY)
    return {
        "BoundedScales": _with(losses.BoundedScales, model=MLP((3, 2)), d=1, low=-10.0, high=0.5),
        "BoundedScales.init": _with(ranged.init, key=KEY, init_scale=1.0, positional=1),
        "BoundedScales.apply": _with(ranged.apply, params=params, x=X, positional=2),
        "sobolev": _with(
            losses.sobolev,
            outputs=NET.apply(PARAMS, X),
            targets={"value": Y, "slope": np.ones((6, 1, 3), "f")},
            params=[PARAMS],
            x=X,
            apply=[NET.apply],
            slope_weight=0.5,
        ),
        "bounded": _with(losses.bounded, loss=losses.gaussian_nll),
        "Bounded": _with(losses.Bounded, loss=losses.gaussian_nll),
        "bounded of outputs": _loss(losses.bounded(losses.gaussian_nll), PAIRS, Y, params=params, bound_weight=0.1),
        "total": _with(losses.total, image=losses.huber, text=both),
        "Total": _with(losses.Total, heads=("image", "text"), losses=(losses.huber, both)),
        "total of heads": _loss(both, heads, {"image": Y, "text": LABELS}, image_weight=0.5, delta=1.0),
        "per_token": _with(losses.per_token, loss=losses.huber),
        "PerToken": _with(losses.PerToken, loss=both),
        "per_token of tokens": _loss(one, X, [X, {"y": X, "mask": np.ones((6, 3), bool)}]),
    }


def _of_transforms(here):
    standard = transforms.Standard()
    scaled = transforms.Scaled(NET, x=standard, y=transforms.Chain(transforms.Quantile(3), standard))
    scaling = scaled.fitted(X, Y)
    params = {"model": PARAMS, **scaling}
    recipe = Recipe(scaled, losses.unit_gaussian_nll, optax.sgd, epochs=1, metrics=metrics.rmse)
    numbers = {**RATE, "scaling": scaling}
    shared = {**RATE, "scaling": population.shared(scaling)}
    each = {**RATE, "scaling": population.each(jax.tree.map(lambda a: jnp.stack([a, a]), scaling))}
    return {
        "Scaled": _with(transforms.Scaled, model=NET, x=[None, standard], y=[None, standard], head="values"),
        "Scaled.fitted": _with(scaled.fitted, x=X, y=Y),
        "Scaled.apply": _with(scaled.apply, params=params, x=X, positional=2),
        "Scaled.init": _with(scaled.init, key=KEY, scaling=scaling, positional=1),
        "Scaled.predict": _with(scaled.predict, params=params, x=X),
        "Quantile": _with(transforms.Quantile, points=3),
        "Log": _with(transforms.Log, offset=1.0),
        "Whiten": _with(transforms.Whiten, components=[None, 2]),
        "Chain": _with(transforms.Chain, first=standard, second=transforms.Log(), positional=2),
        "fit of scaled": _with(jaxmlp.fit, key=KEY, data=(X, Y), recipe=recipe, hyperparams=numbers),
        "evaluate of scaled": _with(jaxmlp.evaluate, params=params, data=(X, Y), recipe=recipe, hyperparams=numbers),
        "population of scaled": _with(
            population.fit, keys=KEYS, data=(X, Y), recipe=recipe, hyperparams=[shared, each], validation=[None, (X, Y)]
        ),
        "save of scaled": _with(here(jaxmlp.save), path="file", model=scaled, params=[params]),
        "predict of scaled": _with(serving.predict, model=scaled, params=params, x=X),
        "in_numpy of scaled": _with(serving.in_numpy, model=scaled, params=params),
    }


def _of_populations():
    many = dict(keys=KEYS, data=[(X, Y), (X, Y, WEIGHT)], recipe=[RECIPE], hyperparams=RATE)
    own = np.stack([np.arange(4), np.arange(2, 6)])
    return {
        "population.fit": _with(
            population.fit,
            **many | {"hyperparams": [RATE, {"learning_rate": np.array([0.1, 0.2], "f")}, [RATE, RATE]]},
            validation=[None, (X, Y)],
            stop=[None, population.Target("loss", at_most=0.1)],
            weights=[None, np.ones((2, 6), "f")],
            rows=[None, own],
            validation_rows=None,
            callbacks=(),
            plan=[None, PLAN],
            callback=None,
            patience=None,
            min_improvement=0.0,
        ),
        "halving": _with(population.halving, **many, factor=2, first=1, by="loss"),
        "cross_validate": _with(
            population.cross_validate,
            key=KEY,
            data=(X, Y),
            recipe=RECIPE,
            hyperparams=RATE,
            folds=2,
            stratify=[None, LABELS],
            seeds=1,
            standardise=["x", "xy", ""],
            plan=None,
        ),
        "plan": _with(
            population.plan, **many, width=[None, 2], devices=[None, 1], memory=[None, 2**30], keep_best=False
        ),
        "Patience": _with(_ruled(population.Patience), epochs=1, min_improvement=0.0, by="loss", largest=[None, False]),
        "Target": _with(_ruled(population.Target), metric="loss", at_least=None, at_most=0.1),
        "Budget": _with(_ruled(population.Budget), seconds=10.0),
        "Halving": _with(_ruled(population.Halving), factor=3, first=1, by="loss", largest=[None, False]),
        "member": _with(population.member, states=STATES, i=1),
        "population.take": _with(population.take, states=STATES, members=[[1, 0], np.array([1])]),
        "ranking": _with(population.ranking, history=FIT_HISTORY, by=[None, "loss"], largest=[None, True]),
        "best": _with(population.best, states=STATES, history=FIT_HISTORY, by=[None, "loss"], largest=[None, True]),
        "CrossValidation.ranking": _with(FOLDS.ranking, by="loss", largest=[None, False]),
        "CrossValidation.best": _with(FOLDS.best, by="loss", largest=[None, False]),
        "greedy": _with(population.greedy, predictions=MEMBERS, score=_score, rounds=2, largest=[None, True]),
        "grid": _with(population.grid, seeds=2, key=[None, KEY], learning_rate=[[0.1, 0.2]]),
        "settings": _with(population.settings, rows=[[{"learning_rate": 0.1}]], seeds=2, key=[None, KEY]),
        "sample": _with(
            population.sample,
            key=KEY,
            count=2,
            seeds=1,
            learning_rate=[population.LogUniform(0.1, 1.0), population.Uniform(0.0, 1.0), [0.1, 0.2]],
        ),
        "population.fit of a part": _with(
            population.fit, **many | {"keys": PART.keys, "hyperparams": PART.hyperparams}
        ),
        "part": _with(
            population.part,
            keys=KEYS,
            hyperparams=[None, RATE, {"learning_rate": np.array([0.1, 0.2], "f")}, [RATE, RATE]],
            of=[1, 2],
            number=0,
        ),
        "population.predict": _with(population.predict, model=NET, params=STATES.params, x=X, positional=3),
        "mixture": _with(population.mixture, outputs=MEMBERS, status=[None, np.zeros(2, int)], min_variance=1e-6),
        "categorical": _with(population.categorical, outputs=MEMBERS, status=[None, np.zeros(2, int)]),
        "temperature": _with(population.temperature, logits=LOGITS, y=LABELS),
        "Mixture.log_prob": _with(MIXTURE.log_prob, y=Y),
        "Mixture.cdf": _with(MIXTURE.cdf, y=Y),
        "Mixture.quantile": _with(MIXTURE.quantile, level=0.5),
        "Mixture.sample": _with(MIXTURE.sample, key=KEY, count=2),
        "Mixture.scale": _with(MIXTURE.scale, y=Y),
        "Mixture.scaled": _with(MIXTURE.scaled, by=[2.0, np.ones(1, "f")]),
        "Mixture.unstandardise": _with(MIXTURE.unstandardise, by=data.statistics(Y)),
        "Categorical.log_prob": _with(VOTES.log_prob, y=LABELS),
        "each": _with(_each, x=np.stack([X, X]), y=np.stack([Y, Y])),
    }


def _of_the_loop(directory):
    def train(**arguments):
        return loop.train(progress=False, **arguments)

    def resume(**arguments):
        return loop.resume(progress=False, **arguments)

    runs = [str(directory / "runs" / f"{number}") for number in range(2)]
    for number, run in enumerate(runs):
        train(**_named(population.part(KEYS, RATE, of=2, number=number)), directory=run)
    return {
        "gather": _with(population.gather, directories=[runs, str(directory / "runs")], recipe=[None, RECIPE]),
        "train of a part": _with(train, **{name: [value] for name, value in _named(PART).items()}),
        "train": _with(
            train,
            key=[KEY, KEYS],
            data=[(X, Y), (X, Y, WEIGHT)],
            recipe=RECIPE,
            hyperparams=RATE,
            validation=[None, (X, Y)],
            epochs=[None, 1],
            directory=None,
            every=[None, 1],
            keep=3,
            callbacks=(),
            stop=[None, loop.Budget(60)],
            steps=None,
            weights=None,
            rows=None,
            validation_rows=None,
            plan=None,
        ),
        "resume": _with(
            resume, directory=str(directory / "nothing"), data=(X, Y), recipe=[None, RECIPE], epochs=[None, 4]
        ),
    }


def _named(part):
    return {"key": part.keys, "data": (X, Y), "recipe": RECIPE, "hyperparams": part.hyperparams}


def _ruled(kind):
    @functools.wraps(kind)
    def call(**arguments):
        return population.fit(KEYS, (X, Y), RECIPE, RATE, validation=(X, Y), stop=kind(**arguments))

    return call


def _each(x, y):
    return population.fit(KEYS, population.each(x, y), RECIPE, RATE)


def _score(average):
    return jnp.abs(average).sum()


class Call(NamedTuple):
    """One call of the grammar."""

    number: int
    name: str
    function: object
    arguments: dict[str, object]
    positional: int
    spoiled: dict[str, str]

    def __str__(self):
        return f"{self.number} {self.name}({', '.join(f'{k}: {v}' for k, v in self.spoiled.items())})"

    def __call__(self):
        names = list(self.arguments)[: self.positional]
        rest = {name: value for name, value in self.arguments.items() if name not in names}
        return self.function(*(self.arguments[name] for name in names), **rest)


def call_of(number, known):
    """Return call `number`."""
    rng = random.Random(number)
    name = rng.choice(sorted(known))
    function, right, positional = known[name]
    arguments = {argument: rng.choice(values) for argument, values in right.items()}
    wrong = {}
    for argument in rng.sample(sorted(arguments), min(rng.choice([1, 1, 1, 2, 3]), len(arguments))):
        wrong[argument], arguments[argument] = spoiled(rng, arguments[argument])
    return Call(number, name, function, arguments, positional, wrong)


class Hang(BaseException):
    """A call took too long; no `except Exception` keeps it."""


def outcome(call):
    """Return ("passed", the result), ("ours", the error), or ("not ours", the error)."""

    def alarm(*_):
        raise Hang(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return "passed", call()
    except (Exception, Hang) as error:
        return ("ours" if is_ours(error) else "not ours"), error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def is_ours(error):
    """Tell whether an exception is a refusal in our words: a ValueError that a `raise` of this package raised."""
    if isinstance(error, ImportError):
        return "pip install 'jaxmlp[" in str(error)
    if isinstance(error, OSError) and not isinstance(error, ValueError):
        return error.filename is not None  # of a reader, whose docstring says so
    if not isinstance(error, ValueError):
        return False
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    raised = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and code.co_filename.startswith(PACKAGE)


def where(error):
    """Return the last place in this package that an exception came by, and the exception in short."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(PACKAGE)]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].line}" if ours else "nowhere"
    return f"{place}\n      {type(error).__name__}: {' '.join(str(error).split())[:160]}"


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return verbs(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, 100))
def test_a_wrong_call_is_refused_in_our_words(known, first, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check(known, range(first, first + 100))


@pytest.mark.long
@pytest.mark.parametrize("first", range(FIRST + COUNT, 10_000, 400))
def test_many_wrong_calls_are_refused_in_our_words(known, first, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check(known, range(first, first + 400))


@pytest.mark.long
def test_what_is_right_succeeds(known):
    """Else a wrong argument beside it would never be looked at."""
    for name, (function, right, positional) in known.items():
        if name not in ("resume", "to_torch"):
            kind, found = outcome(Call(0, name, function, {k: v[0] for k, v in right.items()}, positional, {}))
            assert kind == "passed", f"{name}: {found}"


def check(known, numbers):
    found = []
    for number in numbers:
        call = call_of(number, known)
        kind, error = outcome(call)
        if kind == "not ours":
            found.append(f"{call}\n    {where(error)}")
    assert not found, "\n".join(found)


def main():
    parser = argparse.ArgumentParser(description="Random wrong calls of every public function.")
    parser.add_argument("count", type=int, help="how many calls")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--only", nargs="*", help="the names of functions")
    parser.add_argument("--passed", action="store_true", help="show what succeeded")
    arguments = parser.parse_args()
    faulthandler.enable()
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_traceback_filtering", "off")
    counts, places = collections.defaultdict(collections.Counter), collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        known = verbs(Path(directory))
        os.chdir(directory)
        for number in range(arguments.first, arguments.first + arguments.count):
            call = call_of(number, known)
            if arguments.only is not None and call.name not in arguments.only:
                continue
            kind, found = outcome(call)
            counts[call.name][kind] += 1
            if kind == "passed" and arguments.passed:
                print("passed", call, "->", _short(jax.tree.map(_short, found)), flush=True)
            if kind == "not ours":
                places[where(found)].append(call)
            if arguments.count == 1:
                print(call, kind)
                print("".join(traceback.format_exception(found)) if kind != "passed" else found)
    for place, calls in sorted(places.items(), key=lambda item: -len(item[1])):
        print(f"{len(calls)} x {place}")
        for call in calls[:3]:
            print(f"      {call}")
    for name in sorted(counts):
        print(f"{name:30s}", ", ".join(f"{kind} {n}" for kind, n in sorted(counts[name].items())))
    total = sum(counts.values(), collections.Counter())
    print(f"{sum(total.values())} calls:", ", ".join(f"{n} {kind}" for kind, n in sorted(total.items())))
    return 1 if total["not ours"] else 0


if __name__ == "__main__":
    sys.exit(main())
