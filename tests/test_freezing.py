"""What is frozen stays, bit for bit, and costs no gradient: in every way to train, and as a loop by hand has it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population
from jaxmlp.loop._description import describe, rebuild, upgrade
from jaxmlp.loop._fields import PARTS
from jaxmlp.optimizers import CosineAdamW

KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), 3)
X = np.random.default_rng(0).normal(size=(24, 3)).astype("f")
Y = np.sin(X[:, :2])
NET = MLP((3, 4, 4, 2), "tanh")
HEAD = 2


def trunk(path):
    return path[0] < HEAD


def weights(path):
    return path[-1] == "w" and path[0] < HEAD


RECIPE = Recipe(NET, losses.squared_error, optax.adamw, epochs=3, batch_size=10, frozen=trunk)
DECAYS = {"learning_rate": 0.05, "weight_decay": 0.9}
RATE = {"learning_rate": 0.05}


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def words(tree):
    """Return a state whose key is integers, so that NumPy compares it."""
    return tree._replace(key=jax.random.key_data(tree.key))


def products(recipe):
    state = jaxmlp.start(KEY, recipe, DECAYS)
    program = jax.jit(lambda state: jaxmlp.step(state, (X, Y), recipe, DECAYS)).lower(state).compile().as_text()
    return program.count(" dot(")


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize(
    ("frozen", "forth", "back"),
    [
        (None, 3, 2 + 3),  # through two layers, and in three w
        (trunk, 3, 1),  # in the last w alone
        (weights, 3, 2 + 1),  # through two layers to their b
        (lambda path: path[0] == HEAD, 3, 2 + 2),
        (lambda path: path[0] == 0, 3, 1 + 2),
    ],
)
def test_no_product_is_computed_for_what_is_frozen(frozen, forth, back, dtype):
    recipe = dataclasses.replace(RECIPE, model=dataclasses.replace(NET, dtype=dtype), frozen=frozen)
    assert products(recipe) == forth + back


@pytest.mark.parametrize(
    ("optimizer", "numbers", "scan", "frozen"),
    [
        (optax.adamw, DECAYS, False, trunk),
        (optax.adamw, DECAYS, True, weights),
        (CosineAdamW(), DECAYS, True, trunk),
        (CosineAdamW(), DECAYS, False, weights),
        (partial(optax.noisy_sgd, key=0), RATE, False, trunk),
        (optax.lamb, DECAYS, True, trunk),
        (optax.lbfgs, {}, False, weights),
    ],
)
def test_what_is_frozen_keeps_its_bits_and_takes_no_memory(optimizer, numbers, scan, frozen):
    net = MLP((3, 4, 4, 4, 2), "tanh", scan=scan)
    recipe = dataclasses.replace(RECIPE, model=net, optimizer=optimizer, frozen=frozen)
    before = jaxmlp.start(KEY, recipe.bind(numbers, steps=9))
    state, history = jaxmlp.fit(KEY, (X, Y), recipe, numbers)
    assert history["loss"][-1] < history["loss"][0]
    named = jax.tree_util.tree_leaves_with_path(state.params)
    for (path, leaf), old in zip(named, jax.tree.leaves(before.params), strict=True):
        held = frozen((path[0].idx, path[1].name))
        assert (leaf == old).all() == held, path
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    trained = sum(a.size for path, a in named if not frozen((path[0].idx, path[1].name)))
    assert moments % trained == 0 or optimizer is optax.lbfgs


def test_layers_in_a_stack_train_as_layers_apart():
    """Lamb takes a leaf for a layer: what is left of a stack is still a stack to it."""
    found = []
    for scan in (False, True):
        net = MLP((3, 4, 4, 4, 2), "tanh", scan=scan)
        recipe = dataclasses.replace(RECIPE, model=net, optimizer=optax.lamb, frozen=lambda path: path[-1] == "w")
        state, _ = jaxmlp.fit(KEY, (X, Y), recipe, RATE, params=net.init(KEY))
        found.append(net.layers(state.params))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *found)


def test_a_run_is_that_of_a_loop_by_hand():
    recipe = dataclasses.replace(RECIPE, batch_size=None)
    state, history = jaxmlp.fit(KEY, (X, Y), recipe, DECAYS)
    params = NET.init(jax.random.split(KEY)[0])
    optimizer = optax.adamw(0.05, weight_decay=0.9)
    head, body = params[-1], params[:-1]
    moments, seen = optimizer.init(head), []
    for _ in range(3):
        loss, grads = jax.value_and_grad(lambda h: jnp.mean(losses.squared_error(NET.apply((*body, h), X), Y)))(head)
        with jax.numpy_dtype_promotion("standard"):  # which Optax needs
            updates, moments = optimizer.update(grads, moments, head)
            head = optax.apply_updates(head, updates)
        seen.append(float(loss))
    np.testing.assert_allclose(history["loss"], seen, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state.params, (*body, head))


def test_a_member_is_its_solo_run():
    plan = population.plan(KEYS, (X, Y), RECIPE, DECAYS, width=1)
    states, history = population.fit(KEYS, (X, Y), RECIPE, DECAYS, plan=plan)
    for i in (0, 2):
        alone = jaxmlp.fit(KEYS[i], (X, Y), RECIPE, DECAYS)
        same([leaf[i] for leaf in jax.tree.leaves(words(states))], jax.tree.leaves(words(alone[0])))
        same(history["loss"][i], alone[1]["loss"])


class Stop(Exception):
    pass


def stop(state, history):
    if state.step >= 6:
        raise Stop


def test_a_resumed_run_is_the_straight_one_and_knows_what_was_frozen(tmp_path):
    options = {"progress": False, "every": 1, "directory": tmp_path}
    straight = jaxmlp.fit(KEY, (X, Y), RECIPE, DECAYS)
    with pytest.raises(Stop):
        loop.train(KEY, (X, Y), RECIPE, DECAYS, callbacks=[stop], **options)
    for other in (weights, None):
        with pytest.raises(ValueError, match=r"(?s)recipe\.frozen.*accept=\('frozen',\)") as raised:
            loop.train(KEY, (X, Y), dataclasses.replace(RECIPE, frozen=other), DECAYS, **options)
        assert "recipe.model" not in str(raised.value)
    renamed = dataclasses.replace(RECIPE, frozen=lambda path: path[0] in (0, 1))
    state, history = loop.resume(tmp_path, (X, Y), renamed, progress=False)
    same(words(state), words(straight[0]))
    same(dict(history), dict(straight[1]))
    thawed = dataclasses.replace(RECIPE, frozen=None)
    with pytest.warns(UserWarning, match="its state begins anew, at the parameters that were saved"):
        state, _ = loop.resume(tmp_path, (X, Y), thawed, epochs=4, accept="frozen", progress=False)
    assert (state.params[0].w != straight[0].params[0].w).all()


def test_a_checkpoint_of_before_knows_of_nothing_frozen():
    plain = dataclasses.replace(RECIPE, frozen=None)
    older = {name: told for name, told in describe(plain).items() if name != "frozen"}
    assert rebuild("recipe", upgrade(older)) == plain
    digests = dict.fromkeys(("model", "loss", "optimizer", "metrics"), "0")
    assert PARTS("parts", digests) == digests


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Scaled:
    """A net behind a scaling that lies in the parameters, with a count and a table of integers, and stays."""

    net: MLP = NET
    says: tuple = ("scaling",)

    def init(self, key):
        scaling = {"mean": jnp.full(3, 0.5), "scale": [jnp.full(3, 2.0)], "table": jnp.arange(4, dtype=jnp.int32)}
        return {"net": self.net.init(key), "scaling": scaling}

    def apply(self, params, x):
        scaling = params["scaling"]
        return self.net.apply(params["net"], (x - scaling["mean"][None]) / scaling["scale"][0][None])

    def frozen(self, path):
        assert path in PATHS, path
        return path[0] in self.says


OF_SCALING = [("scaling", "mean"), ("scaling", "scale", 0), ("scaling", "table")]
PATHS = [*(("net", i, name) for i in range(3) for name in "wb"), *OF_SCALING]


def test_a_model_says_what_of_it_stays(tmp_path):
    for frozen, places in ((None, 9), (lambda path: path[:2] == ("net", 0), 7)):
        recipe = dataclasses.replace(RECIPE, model=Scaled(), frozen=frozen)
        begun = jaxmlp.start(KEY, recipe, DECAYS)
        state, _ = jaxmlp.fit(KEY, (X, Y), recipe, DECAYS)
        same(state.params["scaling"], begun.params["scaling"])
        assert state.params["scaling"]["table"].dtype == jnp.int32
        assert (state.params["net"][0].w == begun.params["net"][0].w).all() == (places == 7)
        stepped, _ = jaxmlp.epoch(begun, (X, Y), recipe, DECAYS)
        same(stepped.params["scaling"], begun.params["scaling"])
    looped, _ = loop.train(KEY, (X, Y), recipe, DECAYS, progress=False, directory=tmp_path)
    same(words(looped), words(state))
    scaled = jaxmlp.fit(KEY, ((X - 0.5) / 2, Y), RECIPE, DECAYS, params=NET.init(KEY))[0]
    own = dataclasses.replace(RECIPE, model=Scaled(), frozen=lambda path: path[:2] in (("net", 0), ("net", 1)))
    given = Scaled().init(KEY) | {"net": NET.init(KEY)}
    found = jaxmlp.fit(KEY, (X, Y), own, DECAYS, params=given)[0]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found.params["net"], scaled.params)


def test_after_may_write_what_is_frozen_as_a_target_network_and_statistics_ask():
    @jax.tree_util.register_static
    @dataclasses.dataclass(frozen=True)
    class Twins:
        def init(self, key):
            return {"online": NET.init(key), "target": NET.init(key)}

        def apply(self, params, x):
            return NET.apply(params["online"], x)

    def follow(params, previous, told, *, rate):
        move = partial(jax.tree.map, lambda t, o: t + rate * (o - t))
        return params | {"target": move(previous["target"], params["online"])}

    recipe = dataclasses.replace(RECIPE, model=Twins(), after=follow, frozen=lambda path: path[0] == "target")
    state, _ = jaxmlp.fit(KEY, (X, Y), recipe, {**DECAYS, "rate": 0.5})
    twin = jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, frozen=None), DECAYS)[0]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state.params["online"], twin.params)
    before = jaxmlp.start(KEY, recipe, {**DECAYS, "rate": 0.5}).params["target"]
    assert (before[0].w != state.params["target"][0].w).all() and (
        state.params["target"][0].w != twin.params[0].w
    ).all()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Willing:
    """A model that may freeze, and freezes nothing."""

    init = staticmethod(NET.init)
    apply = staticmethod(NET.apply)

    def frozen(self, path):
        return False


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Plain:
    init = staticmethod(NET.init)
    apply = staticmethod(NET.apply)
    frozen = ("a field of this name says nothing",)


def test_where_nothing_is_frozen_the_program_is_the_same():
    programs = []
    for model in (NET, Willing(), Plain()):
        recipe = dataclasses.replace(RECIPE, model=model, frozen=None)
        state = jaxmlp.start(KEY, recipe, DECAYS)
        programs.append(str(jax.make_jaxpr(lambda s, r=recipe: jaxmlp.step(s, (X, Y), r, DECAYS))(state)))
    assert programs[0] == programs[1] == programs[2]


@dataclasses.dataclass(frozen=True)
class Counts:
    def init(self, key):
        return {"table": jnp.arange(3), "w": jnp.ones((3, 2))}

    def apply(self, params, x):
        return x @ params["w"]


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"frozen": lambda path: path[0] == "trunk"}, r"frozen must hold for a path .* none: \(0, 'w'\), \(0, 'b'\)"),
        ({"frozen": lambda path: True}, r"frozen must leave something to train; <lambda> freezes all: \(0, 'w'\)"),
        ({"model": Scaled(says=("net", "scaling")), "frozen": None}, "to train; the model freezes all"),
        (
            {"model": Counts(), "frozen": None},
            r"got int32 of shape \(3,\) at \('table',\); to keep it as it is, freeze",
        ),
    ],
)
def test_what_cannot_be_frozen_is_named_with_the_paths_that_there_are(part, told):
    recipe = dataclasses.replace(RECIPE, **part)
    for call in (jaxmlp.fit, partial(loop.train, progress=False)):
        with pytest.raises(ValueError, match=told):
            call(KEY, (X, Y), recipe, DECAYS)
    with pytest.raises(ValueError, match=told):
        population.fit(KEYS, (X, Y), recipe, DECAYS)
    with pytest.raises(ValueError, match=told):
        jaxmlp.start(KEY, recipe, DECAYS)


@pytest.mark.parametrize(("frozen", "told"), [("trunk", "frozen must be callable"), (lambda: True, "frozen must take")])
def test_frozen_is_a_function_of_a_path(frozen, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(RECIPE, frozen=frozen)
