"""Programs whose data have a structure of their own: sets, heads, sentences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from programs import close, descended

import jaxmlp
from jaxmlp import MLP, Recipe, losses

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
