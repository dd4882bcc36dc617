"""Metrics in a run: columns of their own, the numbers of the loss, and which way is better."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, metrics, population
from jaxmlp._naming import metric_names

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
X = np.random.default_rng(0).normal(size=(60, 3)).astype("f")
Y = X[:, :1] + np.random.default_rng(1).normal(size=(60, 1)).astype("f")
LABELS = np.arange(60) % 5
CLASSES = Recipe(MLP((3, 5)), losses.cross_entropy, optax.sgd, epochs=2)
GAUSSIAN = Recipe(MLP((3, 2)), losses.gaussian_nll, optax.sgd, epochs=2)


def mine(outputs, targets):
    return jnp.mean(jnp.square(outputs - targets))


def weighted(outputs, targets, *, weight=None):
    return metrics.average(jnp.square(outputs - targets)[:, 0], weight)


def test_partials_of_one_metric_are_columns_of_their_own():
    tops = tuple(partial(metrics.top_k_accuracy, k=k) for k in (1, 3))
    state, history = jaxmlp.fit(
        KEY, (X, LABELS), dataclasses.replace(CLASSES, metrics=tops), {"learning_rate": 0.1}, validation=(X, LABELS)
    )
    assert set(history) == {
        *("loss", "validation_loss", "validation_top_k_accuracy(k=1)", "validation_top_k_accuracy(k=3)")
    }
    outputs = CLASSES.model.apply(state.params, X)
    for k, top in zip((1, 3), tops, strict=True):
        assert history[f"validation_top_k_accuracy(k={k})"][-1] == top(outputs, LABELS)


def test_a_metric_that_is_alone_keeps_its_name():
    assert metric_names([partial(metrics.top_k_accuracy, k=3), metrics.rmse]) == ("top_k_accuracy", "rmse")
    assert metric_names([metrics.top_k_accuracy, partial(metrics.top_k_accuracy, k=1)]) == (
        *("top_k_accuracy", "top_k_accuracy(k=1)"),
    )
    both = [partial(metrics.nll, likelihood=one) for one in (losses.gaussian_nll, losses.unit_gaussian_nll)]
    assert metric_names(both) == ("nll(likelihood=gaussian_nll)", "nll(likelihood=unit_gaussian_nll)")


def test_fields_tell_callable_dataclasses_apart():
    @dataclasses.dataclass(frozen=True)
    class Within:
        radius: float

        def __call__(self, outputs, targets):
            return jnp.mean(jnp.abs(outputs - targets) < self.radius)

    assert metric_names([Within(1.0), Within(2.0)]) == ("Within(radius=1.0)", "Within(radius=2.0)")


def called(name):
    def metric(outputs, targets):
        return jnp.mean(outputs)

    metric.__name__ = name
    return metric


@pytest.mark.parametrize("name", ["loss", "validation_loss", "status", "epochs", "best_epoch", "epoch", "member"])
def test_names_that_a_history_has_of_its_own_are_refused(name):
    with pytest.raises(ValueError, match=f"must not be called .* got one called '{name}'; rename"):
        dataclasses.replace(CLASSES, metrics=(called(name),))


@pytest.mark.parametrize(
    "pair",
    [
        (lambda o, t: 0.0, lambda o, t: 1.0),
        (metrics.rmse, metrics.rmse),
        (called("mine"), called("mine")),
        (partial(metrics.top_k_accuracy, k=2), partial(metrics.top_k_accuracy, k=2)),
    ],
    ids=["lambdas", "twice", "functions", "partials"],
)
def test_metrics_that_cannot_be_told_apart_are_refused(pair):
    with pytest.raises(ValueError, match="must have names of their own.*got 2 called.*write each as a function"):
        dataclasses.replace(CLASSES, metrics=pair)


def test_a_number_of_the_loss_reaches_the_metrics():
    """Of a model that never learns, the variance is what min_variance adds: coverage and likelihood know it."""
    recipe = dataclasses.replace(
        GAUSSIAN, metrics=(metrics.interval_coverage, partial(metrics.nll, likelihood=losses.gaussian_nll))
    )
    numbers = {"learning_rate": 0.0, "min_variance": 0.25}
    state, history = jaxmlp.fit(KEY, (X, Y), recipe, numbers, validation=(X, Y))
    outputs = recipe.model.apply(state.params, X)
    mean, variance = losses.gaussian(outputs, min_variance=0.25)
    inside = np.abs(np.asarray(Y - mean)) <= 1.6448536 * np.sqrt(np.asarray(variance))
    np.testing.assert_allclose(history["validation_interval_coverage"][-1], inside.mean(), rtol=1e-6)
    np.testing.assert_allclose(history["validation_nll"][-1], history["validation_loss"][-1], rtol=1e-6)
    values = jaxmlp.evaluate(state.params, (X, Y), recipe, numbers)
    assert values["interval_coverage"] == history["validation_interval_coverage"][-1]
    _, many = population.fit(
        jnp.stack([KEY] * 3), (X, Y), recipe, {"learning_rate": 0.0, "min_variance": np.array([0.01, 0.25, 9.0], "f")}
    )
    assert (np.diff(np.asarray(many["interval_coverage"])[:, -1]) > 0).all()
    assert len(np.unique(many["nll"][:, -1])) == 3


def test_a_likelihood_of_the_callers_own_gets_its_numbers():
    def laplace(outputs, targets, *, scale):
        return jnp.sum(jnp.abs(outputs - targets) / scale + jnp.log(2 * scale), axis=-1)

    recipe = Recipe(MLP((3, 1)), laplace, optax.sgd, epochs=1, metrics=(partial(metrics.nll, likelihood=laplace),))
    _, history = jaxmlp.fit(KEY, (X, Y), recipe, {"learning_rate": 0.0, "scale": 2.0}, validation=(X, Y))
    np.testing.assert_allclose(history["validation_nll"], history["validation_loss"], rtol=1e-6)


def test_the_likelihood_of_labels_is_without_smoothing():
    recipe = dataclasses.replace(CLASSES, metrics=(metrics.nll,))
    numbers = {"learning_rate": 0.0, "label_smoothing": 0.3}
    state, history = jaxmlp.fit(KEY, (X, LABELS), recipe, numbers, validation=(X, LABELS))
    plain = losses.cross_entropy(CLASSES.model.apply(state.params, X), LABELS).mean()
    np.testing.assert_allclose(history["validation_nll"][-1], plain, rtol=1e-6)
    assert history["validation_loss"][-1] != history["validation_nll"][-1]


def test_a_number_of_a_metric_alone_can_be_swept():
    recipe = dataclasses.replace(GAUSSIAN, metrics=(metrics.interval_coverage,))
    levels = {"learning_rate": 0.0, "level": np.array([0.1, 0.5, 0.99], "f")}
    _, history = population.fit(jnp.stack([KEY] * 3), (X, Y), recipe, levels)
    assert (np.diff(np.asarray(history["interval_coverage"])[:, -1]) > 0).all()


@pytest.mark.parametrize(
    "recipe, needed",
    [
        (Recipe(MLP((3, 1)), losses.quantile, optax.sgd, epochs=1), "loss quantile needs level"),
        (
            Recipe(
                *(MLP((3, 1)), losses.squared_error, optax.sgd),
                epochs=1,
                metrics=(lambda outputs, targets, *, scale: jnp.mean(outputs) * scale,),
            ),
            "metric <lambda> needs scale",
        ),
    ],
)
def test_a_number_that_a_part_needs_is_asked_for_by_name(recipe, needed):
    with pytest.raises(ValueError, match=needed):
        jaxmlp.fit(KEY, (X, Y), recipe, {"learning_rate": 0.1})


def test_a_metric_without_weight_serves_until_examples_are_weighted():
    recipe = Recipe(MLP((3, 1)), losses.squared_error, optax.sgd, epochs=1, metrics=(mine,))
    rate = {"learning_rate": 0.1}
    assert "mine" in jaxmlp.fit(KEY, (X, Y), recipe, rate)[1]
    refused = "metric mine must take weight="
    weight = np.ones(60, "f")
    with pytest.raises(ValueError, match=refused):
        jaxmlp.fit(KEY, (X, Y, weight), recipe, rate)
    with pytest.raises(ValueError, match=refused):
        jaxmlp.evaluate(recipe.model.init(KEY), (X, Y, weight), recipe, rate)
    with pytest.raises(ValueError, match=refused):  # ten rows in three folds: one is padded
        population.cross_validate(KEY, (X[:10], Y[:10]), recipe, rate, folds=3)
    with pytest.raises(ValueError, match=refused):
        loop.train(KEY, (X, Y, weight), recipe, rate, progress=False)
    population.cross_validate(KEY, (X[:10], Y[:10]), dataclasses.replace(recipe, metrics=(weighted,)), rate, folds=3)


HISTORY = {
    "loss": np.array([[0.3], [0.2], [0.1]]),
    "validation_accuracy": np.array([[0.2], [0.8], [0.5]]),
    "validation_rmse": np.array([[0.2], [0.8], [0.1]]),
    "validation_top_k_accuracy(k=3)": np.array([[0.2], [0.3], [0.9]]),
    "validation_mine": np.array([[1.0], [2.0], [3.0]]),
    "status": np.zeros(3, int),
    "epochs": np.ones(3, int),
}


@pytest.mark.parametrize(
    "by, largest, order",
    [
        (None, None, [2, 1, 0]),
        ("validation_accuracy", None, [1, 2, 0]),
        ("validation_rmse", None, [2, 0, 1]),
        ("validation_top_k_accuracy(k=3)", None, [2, 1, 0]),
        ("validation_mine", True, [2, 1, 0]),
        ("validation_mine", False, [0, 1, 2]),
        ("validation_accuracy", False, [0, 2, 1]),
    ],
)
def test_the_best_by_a_metric_is_the_best(by, largest, order):
    assert population.ranking(HISTORY, by=by, largest=largest).tolist() == order
    assert population.best(np.arange(3), HISTORY, by=by, largest=largest) == (order[0], order[0])


def test_which_way_is_better_is_asked_where_it_is_not_known():
    for call in (
        lambda: population.best(np.arange(3), HISTORY, by="validation_mine"),
        lambda: population.ranking(HISTORY | {"interval_coverage": HISTORY["loss"]}, by="interval_coverage"),
    ):
        with pytest.raises(ValueError, match="does not tell which way is better; pass largest=True"):
            call()
    with pytest.raises(ValueError, match="largest must be True, False or None; got 1"):
        population.best(np.arange(3), HISTORY, by="loss", largest=1)


def test_halving_by_a_metric_keeps_those_of_the_largest():
    recipe = dataclasses.replace(CLASSES, metrics=(metrics.accuracy,), epochs=4)
    keys = jax.random.split(KEY, 6)
    _, history = population.halving(
        keys, (X, LABELS), recipe, {"learning_rate": 0.0}, validation=(X, LABELS), by="validation_accuracy", factor=2
    )
    first = np.asarray(history["validation_accuracy"])[:, 0]
    assert set(np.flatnonzero(history.epochs > 1)) == set(np.argsort(-first, kind="stable")[:3])


def test_members_of_different_losses_are_not_ranked_by_them():
    numbers = {"learning_rate": 0.1, "label_smoothing": np.array([0.0, 0.1, 0.2], "f")}
    with pytest.raises(ValueError, match="ranked by 'validation_loss' must have one loss; got 'label_smoothing'"):
        population.halving(KEYS, (X, LABELS), CLASSES, numbers, validation=(X, LABELS))
