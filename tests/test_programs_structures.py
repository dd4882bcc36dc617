"""Programs whose data or parameters have a structure of their own: sets, heads, tokens, tasks, parts frozen or tied."""

import dataclasses

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


class DeepSet:
    """y = outer(sum_i there_i inner(x_i)) (Zaheer 2017, arXiv 1703.06114); the rows of a set are padded."""

    inner, outer = MLP((1, 8, 4), "tanh"), MLP((4, 1))

    def init(self, key):
        keys = jax.random.split(key)
        return {"inner": self.inner.init(keys[0]), "outer": self.outer.init(keys[1])}

    def apply(self, params, x):
        each = self.inner.apply(params["inner"], x["set"]) * x["there"][..., None]
        return self.outer.apply(params["outer"], each.sum(axis=-2))


def test_sets_of_unequal_size():
    """14. Deep sets: sets of unequal size, padded; the sum of squares of sets that are larger than any seen."""

    def sets(key, n, most):
        sizes = jax.random.randint(key, (n, 1), 1, most + 1)
        values = jax.random.uniform(key, (n, most, 1), minval=-1)
        there = (jnp.arange(most) < sizes).astype(values.dtype)
        return {"set": values, "there": there}, jnp.sum(values[..., 0] ** 2 * there, axis=1, keepdims=True)

    recipe = Recipe(DeepSet(), losses.squared_error, optax.adam, epochs=120, batch_size=32)
    state, _ = jaxmlp.fit(KEY, sets(KEY, 256, 5), recipe, {"learning_rate": 0.01})
    x, y = sets(jax.random.key(1), 64, 8)
    outputs = recipe.model.apply(state.params, x)
    np.testing.assert_allclose(outputs, y, atol=0.35)
    other = {"set": jnp.where(x["there"][..., None] > 0, x["set"], 9.0), "there": x["there"]}  # padding is not seen
    mixed = jax.tree.map(lambda leaf: leaf[:, ::-1], other)
    np.testing.assert_allclose(recipe.model.apply(state.params, mixed), outputs, rtol=1e-4, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Heads:
    trunk: MLP
    heads: tuple[tuple[str, MLP], ...]

    def init(self, key):
        keys = jax.random.split(key, 1 + len(self.heads))
        heads = {name: net.init(k) for (name, net), k in zip(self.heads, keys[1:], strict=True)}
        return {"trunk": self.trunk.init(keys[0]), "heads": heads}

    def apply(self, params, x):
        h = jnp.tanh(self.trunk.apply(params["trunk"], x))
        return {name: net.apply(params["heads"][name], h) for name, net in self.heads}


def of_heads(outputs, targets, *, kind=1.0):
    size = losses.squared_error(outputs["size"], targets["size"])
    kinds = losses.cross_entropy(outputs["kind"], targets["kind"])
    return size + kind * kinds, {"size": size, "kind": kinds}


def test_heads():
    """14. Heads: outputs and targets are dicts, the weight of a head is a number."""
    x = jax.random.normal(KEY, (64, 3))
    y = {"size": x[:, :1] * x[:, 1:2], "kind": jnp.argmax(x, axis=1)}
    net = Heads(MLP((3, 16)), (("size", MLP((16, 1))), ("kind", MLP((16, 3)))))
    recipe = Recipe(net, of_heads, optax.sgd, epochs=20)
    state, history = jaxmlp.fit(KEY, (x, y), recipe, RATE | {"kind": 0.5})

    def objective(params):
        return of_heads(net.apply(params, x), y, kind=0.5)[0].mean()

    close(state.params, descended(objective, jaxmlp.start(KEY, recipe, RATE).params, optax.sgd(0.05), 20))
    np.testing.assert_allclose(history["size"] + 0.5 * history["kind"], history["loss"], rtol=1e-5)


class Language:
    """Logits of the next token from this one: an embedding and a perceptron."""

    net = MLP((4, 16, 5), "tanh")

    def init(self, key):
        return {"embedding": jax.random.normal(key, (5, 4)), "net": self.net.init(key)}

    def apply(self, params, x):
        return self.net.apply(params["net"], params["embedding"][x])


def of_tokens(outputs, targets):
    """Return the mean over the tokens of each example; those of -1 are padding."""
    there = targets >= 0
    each = jax.vmap(losses.cross_entropy)(outputs, jnp.maximum(targets, 0))  # glue: no padding among labels
    return jnp.sum(each * there, axis=1) / there.sum(axis=1)


def test_tokens_of_ragged_sentences():
    """14. Tokens: integers in, ragged sentences; the least loss is the entropy of what follows what."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(5, 0.5), 5)
    tokens = np.zeros((64, 9), "i4")
    for i in range(1, 9):
        tokens[:, i] = [rng.choice(5, p=chances[t]) for t in tokens[:, i - 1]]
    there = np.arange(8) < rng.integers(4, 9, (64, 1))
    x, y = tokens[:, :-1], np.where(there, tokens[:, 1:], -1)
    weight = there.sum(1).astype("f")  # glue: so that each token counts alike
    recipe = Recipe(Language(), of_tokens, optax.adam, epochs=150)
    _, history = jaxmlp.fit(KEY, (x, y, weight), recipe, {"learning_rate": 0.05})
    counts = np.zeros((5, 5))
    np.add.at(counts, (x[there], y[there]), 1)
    share = counts / counts.sum(1, keepdims=True)
    entropy = -np.sum(counts * np.log(np.where(counts > 0, share, 1))) / counts.sum()
    assert entropy - 1e-4 < history["loss"][-1] < entropy + 0.01


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
