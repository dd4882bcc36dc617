"""One network on a mesh of two devices is that on one, whatever its recipe asks for and however its rows divide."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, metrics, optimizers, sharding, transforms

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(26, 4)).astype("f")
Y = np.sin(X[:, :1])
NET = MLP((4, 16, 16, 1), "tanh", dropout=True)
# Seven rows a batch: one more, at weight zero, is what two devices divide.
RECIPE = Recipe(NET, losses.squared_error, optax.adam, epochs=3, batch_size=7, metrics=(metrics.rmse,))
NUMBERS = {"learning_rate": 0.01, "dropout_rate": 0.1}


def bounded(params, previous, told, *, x, weight):
    """Keep weights below the size of a batch's inputs, and the last bias where it was before the update."""
    limit = 0.3 * jnp.sqrt(jnp.sum(weight * jnp.mean(jnp.square(x), axis=1)) / jnp.sum(weight))
    *hidden, last = jax.tree.map(lambda a: jnp.clip(a, -limit, limit), params)
    return (*hidden, last._replace(b=previous[-1].b))


def everything(outputs, targets, *, params, x, apply, key, weight, step):
    """A penalty, a slope in x, a draw, what an example counts, and the steps done."""
    fit = losses.squared_error(outputs, targets)
    size = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
    slope = jax.vmap(jax.grad(lambda point: apply(params, point[None])[0, 0]))(x)[:, 0]
    noise = jax.random.normal(key, fit.shape)
    share = weight / jnp.sum(weight)
    ramp = jnp.minimum(1.0, jnp.asarray(step, jnp.float32) / 4)
    total = fit + ramp * 0.01 * size + 0.1 * noise * slope + 0.1 * jnp.sum(share * outputs[:, 0])
    return total, {"slope": slope, "noise": noise, "ramp": jnp.full(fit.shape, ramp)}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class OfTwo:
    """A model of inputs by name."""

    net: MLP = MLP((4, 16, 1), "tanh")

    def init(self, key):
        return self.net.init(key)

    def apply(self, params, x):
        return self.net.apply(params, jnp.concatenate([x["left"], x["right"]], axis=-1))


def scaled(**options):
    model = transforms.Scaled(
        MLP((4, 16, 1), "tanh", **options), x=transforms.Standard(), y=transforms.Chain(transforms.Standard())
    )
    return dataclasses.replace(RECIPE, model=model), {"learning_rate": 0.01, "scaling": model.fitted(X, 5 * Y + 2)}


def plain(**changes):
    return dataclasses.replace(RECIPE, **changes), NUMBERS, (X, Y)


def without_dropout(model, **changes):
    return dataclasses.replace(RECIPE, model=model, **changes), {"learning_rate": 0.01}


def averaged():
    recipe, numbers = without_dropout(MLP((4, 16, 1)), optimizer=optimizers.Averaged(optax.adam))
    return recipe, numbers | {"average_decay": 0.9}


CASES = {
    "after": lambda: plain(after=bounded),
    "every request": lambda: plain(loss=everything),
    "a transform with what was fitted": lambda: (*scaled(), (X, 5 * Y + 2)),
    "inputs by name": lambda: (*without_dropout(OfTwo()), ({"left": X[:, :1], "right": X[:, 1:]}, Y)),
    "weights, and all at once": lambda: (*plain(batch_size=None)[:2], (X, Y, np.linspace(0, 1, 26, dtype="f"))),
    "an average of weights": lambda: (*averaged(), (X, Y)),
    "frozen": lambda: plain(frozen=lambda path: path[0] == 0),
    "float16": lambda: (*without_dropout(MLP((4, 16, 16, 1), "tanh", dtype="float16")), (X, Y)),
    "bfloat16": lambda: (*without_dropout(MLP((4, 16, 16, 1), "tanh", dtype="bfloat16")), (X, Y)),
}
LOOSE = {"float16": 1e-3, "bfloat16": 1e-2}


def apart(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(a, "f8") - np.asarray(b, "f8")).max()) for a, b in pairs)


@pytest.mark.parametrize("axis", ["data", pytest.param("model", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CASES)
def test_what_a_recipe_asks_for_is_the_same_on_a_mesh(name, axis, loose):
    recipe, numbers, (x, y, *weight) = CASES[name]()
    held_out = jax.tree.map(lambda a: a[:9], (x, y))
    alone, line = jaxmlp.fit(KEY, (x, y, *weight), recipe, numbers, validation=held_out)
    mesh = jax.make_mesh((2,), (axis,))
    state = sharding.start(KEY, recipe, numbers, mesh=mesh, fsdp=axis == "data")
    rows = jax.device_put((x, y, *weight), NamedSharding(mesh, P(axis if axis == "data" else None)))
    state, history = jaxmlp.fit(KEY, rows, recipe, numbers, validation=held_out, params=state)
    limit = LOOSE.get(name, 1e-6)
    assert apart(state.params, alone.params) <= limit
    assert list(history) == list(line) and apart(dict(history), dict(line)) <= limit
    assert any(not a.sharding.is_fully_replicated for a in jax.tree.leaves(state.params))


@pytest.mark.parametrize("size", [8, None])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_rows_that_the_devices_do_not_divide_stay_as_they_are(size, kind):
    """JAX places no such rows; a batch of them is split all the same, filled up at weight zero."""
    recipe = dataclasses.replace(RECIPE, batch_size=size)
    data, mesh = jax.tree.map(kind, (X[:25], Y[:25])), jax.make_mesh((2,), ("data",))
    with pytest.raises(ValueError, match="does not evenly divide"):
        jax.device_put(data, NamedSharding(mesh, P("data")))
    alone = jaxmlp.start(KEY, recipe, NUMBERS)
    there = sharding.start(KEY, recipe, NUMBERS, mesh=mesh, fsdp=True)
    straight, history = jaxmlp.fit(KEY, data, recipe, NUMBERS, validation=(X[:9], Y[:9]))
    for train, options in ((jaxmlp.fit, {}), (loop.train, {"progress": False})):
        found, line = train(KEY, data, recipe, NUMBERS, validation=(X[:9], Y[:9]), params=there, **options)
        assert max(apart(found.params, straight.params), apart(dict(line), dict(history))) <= 1e-6
    for verb in (jaxmlp.step, jaxmlp.epoch):
        (found, means), (expected, others) = (verb(state, data, recipe, NUMBERS) for state in (there, alone))
        assert max(apart(found.params, expected.params), apart(means, others)) <= 1e-6
        assert not found.params[1].w.sharding.is_fully_replicated
    scores = [jaxmlp.evaluate(state.params, data, recipe, NUMBERS) for state in (there, alone)]
    assert apart(*scores) <= 1e-6
