"""What a caller brings fits the Protocols; what comes back is a mapping, a pytree and has names."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, losses, recipe, training
from jaxmlp.types import History, Status

X = jnp.linspace(-1, 1, 12)[:, None]
RECIPE = Recipe(MLP((1, 3, 1)), losses.squared_error, optax.adam, epochs=2, batch_size=4)


def test_a_history_is_a_mapping_and_a_pytree():
    history = History(loss=np.ones((3, 2)), status=np.array([0, 1, 2]), epochs=np.array([2, 1, 0]))
    assert isinstance(history, dict) and dict(history) == {**history}
    doubled = jax.tree.map(lambda a: 2 * a, history)
    assert isinstance(doubled, History) and (doubled["loss"] == 2).all() and doubled.status.tolist() == [0, 2, 4]
    assert jax.jit(lambda h: h)(history).epochs.tolist() == [2, 1, 0]
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(history)] == [
        "['epochs']",
        "['loss']",
        "['status']",
    ]
    assert list(history.curves) == ["loss"]
    assert isinstance(history.copy(), History) and isinstance(history | {"more": 1}, History)
    assert isinstance({"less": 1} | history, History) and ({"loss": 1} | history)["loss"].shape == (3, 2)
    with pytest.raises(AttributeError, match="no 'best_epoch'; it has loss, status, epochs"):
        history.best_epoch  # noqa: B018


def test_status_is_the_int_it_was():
    assert [Status.FINISHED, Status.STOPPED, Status.DIVERGED] == [0, 1, 2] and Status.RUNNING is Status.FINISHED
    assert (np.array([0, 2]) == Status.DIVERGED).tolist() == [False, True]


def test_fit_gives_a_history_also_under_jit_and_vmap():
    keys = jax.random.split(jax.random.key(0), 2)
    _, history = jax.jit(jax.vmap(lambda key: jaxmlp.fit(key, (X, X), RECIPE, {"learning_rate": 0.1})))(keys)
    assert isinstance(history, History) and history["loss"].shape == (2, 2)


def test_hyperparams_are_routed_once(monkeypatch):
    """At the outermost verb, whatever it calls."""
    calls = []
    route = recipe.route
    monkeypatch.setattr(recipe, "route", lambda *args: calls.append(1) or route(*args))
    fresh = Recipe(MLP((1, 5, 1)), losses.squared_error, optax.adam, epochs=2, batch_size=4)
    rate = {"learning_rate": 0.1}
    jaxmlp.fit(jax.random.key(0), (X, X), fresh, rate, validation=(X, X))
    assert len(calls) == 1
    state = jaxmlp.start(jax.random.key(0), fresh, rate)
    jaxmlp.epoch(state, (X, X), fresh, rate)
    jaxmlp.evaluate(state.params, (X, X), fresh, rate)
    assert len(calls) == 4


def test_a_bound_recipe_serves_every_verb():
    bound = RECIPE.bind({"learning_rate": 0.1})
    state = jaxmlp.start(jax.random.key(0), bound)
    one, _ = jax.jit(training.step)(state, (X, X), bound)
    two, _ = jax.jit(training.step)(state, (X, X), RECIPE, {"learning_rate": 0.1})
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True))
    with pytest.raises(ValueError, match="bound to its own; bind the Recipe anew"):
        jaxmlp.step(state, (X, X), bound, {"learning_rate": 0.2})
