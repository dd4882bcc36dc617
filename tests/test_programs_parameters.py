"""Programs whose parameters have a structure of their own: adapted, generated, frozen, tied, of low rank."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from programs import close, descended

import jaxmlp
from jaxmlp import MLP, Layer, Recipe, losses

KEY = jax.random.key(0)
RATE = {"learning_rate": 0.05}


@pytest.fixture(autouse=True)
def as_a_user():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


LINE = Recipe(MLP((1, 1)), losses.squared_error, optax.sgd, epochs=2)


class Adapted:
    """A start of which a few steps on a task's examples lead to its others (Finn 2017, arXiv 1703.03400)."""

    def init(self, key):
        return LINE.model.init(key)

    def apply(self, params, x):
        def of_task(task):
            state, _ = jaxmlp.fit(KEY, (task["x"], task["y"]), LINE, {"learning_rate": 0.1}, params=params)
            return LINE.model.apply(state.params, task["query"])[:, 0]  # glue: losses take (batch, d)

        return jax.vmap(of_task)(x)


def test_meta_learning():
    """15. MAML: a recipe within a recipe, `fit(params=)` in the model of the outer one."""
    slopes = 2 + jax.random.normal(KEY, (16, 1, 1))
    points = jax.random.uniform(KEY, (16, 10, 1), minval=-1)
    tasks = {"x": points[:, :5], "y": slopes * points[:, :5], "query": points[:, 5:]}
    targets = (slopes * points[:, 5:])[..., 0]  # glue
    recipe = Recipe(Adapted(), losses.squared_error, optax.sgd, epochs=20)
    state, history = jaxmlp.fit(KEY, (tasks, targets), recipe, {"learning_rate": 0.02})

    def objective(params):
        def of_task(task, target):
            def inner(p):
                return jnp.mean(jnp.square(LINE.model.apply(p, task["x"]) - task["y"]))

            adapted = params
            for _ in range(2):
                adapted = jax.tree.map(lambda a, g: a - 0.1 * g, adapted, jax.grad(inner)(adapted))
            return jnp.sum(jnp.square(LINE.model.apply(adapted, task["query"])[:, 0] - target))

        return jnp.mean(jax.vmap(of_task)(tasks, targets))

    begun = jaxmlp.start(KEY, recipe, {"learning_rate": 0.02}).params
    close(state.params, descended(objective, begun, optax.sgd(0.02), 20))
    assert history["loss"][-1] < history["loss"][0]


class Hyper:
    """A net whose outputs are the parameters of another, one set an example (Ha 2016, arXiv 1609.09106)."""

    inner = MLP((1, 1))
    outer = MLP((2, 8, inner.parameter_count), "tanh")

    def init(self, key):
        return self.outer.init(key)

    def apply(self, params, x):
        _, unravel = ravel_pytree(self.inner.init(KEY))
        inner = jax.vmap(unravel)(self.outer.apply(params, x["task"]))
        return jax.vmap(self.inner.apply)(inner, x["points"])[..., 0]  # glue: losses take (batch, d)


def test_a_hypernetwork():
    """15. Hypernetwork: what the outer net gives are the inner one's parameters."""
    task = jax.random.uniform(KEY, (64, 2), minval=-1)
    points = jnp.broadcast_to(jnp.linspace(-1, 1, 7)[:, None], (64, 7, 1))
    y = task[:, :1] * points[..., 0] + task[:, 1:]
    recipe = Recipe(Hyper(), losses.squared_error, optax.adam, epochs=300)
    state, _ = jaxmlp.fit(KEY, ({"task": task, "points": points}, y), recipe, {"learning_rate": 0.03})
    made = Hyper.outer.apply(state.params, jnp.array([[0.5, -0.25]]))
    np.testing.assert_allclose(made, [[0.5, -0.25]], atol=0.05)  # w and b


def test_a_frozen_trunk():
    """20. Freezing: a trunk stays, its last layer is drawn anew."""
    x = jax.random.normal(KEY, (40, 3))
    net = MLP((3, 8, 1), "tanh")
    trunk = net.init(jax.random.key(1))
    params = jaxmlp.transfer(KEY, trunk, net, net)
    recipe = Recipe(net, losses.squared_error, optax.lbfgs, epochs=40, frozen=lambda path: path[0] == 0)
    state, _ = jaxmlp.fit(KEY, (x, jnp.sin(x[:, :1])), recipe, params=params)
    np.testing.assert_array_equal(state.params[0].w, trunk[0].w)
    features = jnp.concatenate([jnp.tanh(x @ trunk[0].w), jnp.ones((40, 1))], axis=1)
    _, residual, *_ = np.linalg.lstsq(features, np.sin(x[:, :1]))
    assert float(losses.squared_error(net.apply(state.params, x), jnp.sin(x[:, :1])).sum()) == pytest.approx(
        float(residual[0]), rel=1e-2
    )


class Tied:
    """An autoencoder whose decoder is the encoder, transposed."""

    encoder, decoder = MLP((4, 2), bias=False), MLP((2, 4), bias=False)

    def init(self, key):
        return self.encoder.init(key)

    def apply(self, params, x):
        return self.decoder.apply((Layer(params[0].w.T),), self.encoder.apply(params, x))


def test_tied_weights():
    """20. Tying: a linear autoencoder, whose least loss is that of principal components."""
    x = jax.random.normal(KEY, (60, 4)) * jnp.array([2.0, 1.0, 0.5, 0.2])
    recipe = Recipe(Tied(), losses.squared_error, optax.adam, epochs=200)
    state, history = jaxmlp.fit(KEY, (x, x), recipe, RATE)
    left = np.linalg.svd(x, compute_uv=False)[2:]
    assert float(history["loss"][-1]) == pytest.approx(np.sum(left**2) / 60, rel=1e-3)
    np.testing.assert_allclose(state.params[0].w.T @ state.params[0].w, np.eye(2), atol=0.02)


class LowRank:
    """y = x (w + a b): w is frozen, and a product of rank one is trained beside it (Hu 2021, arXiv 2106.09685)."""

    net = MLP((4, 3), bias=False)

    def init(self, key):
        base = self.net.init(key)
        return {"base": base, "a": jax.random.normal(key, (4, 1)), "b": jnp.zeros((1, 3))}

    def frozen(self, path):
        return path[0] == "base"

    def apply(self, params, x):
        (layer,) = params["base"]
        return self.net.apply((layer._replace(w=layer.w + params["a"] @ params["b"]),), x)


def test_a_low_rank_adapter():
    """20. LoRA: the best change of rank one, which for white inputs the singular vectors give."""
    x = np.linalg.qr(jax.random.normal(KEY, (32, 4)))[0] * np.sqrt(32).astype("f")
    change = jax.random.normal(jax.random.key(1), (4, 3))
    recipe = Recipe(LowRank(), losses.squared_error, optax.adam, epochs=300)
    begun = jaxmlp.start(KEY, recipe, RATE).params
    y = x @ (begun["base"][0].w + change)
    state, _ = jaxmlp.fit(KEY, (x, y), recipe, RATE)
    np.testing.assert_array_equal(state.params["base"][0].w, begun["base"][0].w)
    u, s, v = np.linalg.svd(change)
    np.testing.assert_allclose(state.params["a"] @ state.params["b"], s[0] * u[:, :1] @ v[:1], atol=0.02)
