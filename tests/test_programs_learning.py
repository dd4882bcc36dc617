"""Programs of machine learning with a perceptron in them, each beside what is known of its end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from programs import check_everywhere, close, descended

import jaxmlp
from jaxmlp import MLP, Recipe, losses, optimizers, population

KEY = jax.random.key(0)
RATE = {"learning_rate": 0.05}


@pytest.fixture(autouse=True)
def as_a_user():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def reinforce(outputs, targets, *, params, x, apply, key):
    """Hold s' = s + a near zero at the cost of s^2 + a^2, by actions that are drawn (Williams 1992)."""

    def act(s, key):
        mean = apply(params, s)
        action = jax.lax.stop_gradient(mean + 0.3 * jax.random.normal(key, mean.shape))
        log_probability = -0.5 * jnp.square((action - mean)[:, 0] / 0.3)
        return s + action, (log_probability, -(jnp.square(s) + jnp.square(action))[:, 0])

    _, (log_probability, reward) = jax.lax.scan(act, x, jax.random.split(key, 8))
    to_go = jnp.cumsum(reward[::-1], axis=0)[::-1]
    advantage = to_go - to_go.mean(axis=1, keepdims=True)
    return -jnp.sum(log_probability * advantage, axis=0), {"return": reward.sum(0)}


def test_a_policy_gradient():
    """5. Policy gradient: control whose best gain is known, episodes in a scan, a population of seeds."""
    x = jnp.linspace(-1, 1, 256)[:, None]
    recipe = Recipe(MLP((1, 1)), reinforce, optax.adam, epochs=500)
    keys, numbers = population.grid(4, learning_rate=[0.02], init_scale=[0.1])
    states, history = population.fit(keys, (x,), recipe, numbers)
    cost = (1 + np.sqrt(5)) / 2  # of Riccati's equation p = 1 + p - p^2 / (1 + p)
    np.testing.assert_allclose(states.params[0].w[:, 0, 0], -cost / (1 + cost), atol=0.1)
    assert (history["return"][:, -1] > history["return"][:, 0]).all()


class Autoencoder:
    """A linear one, whose bound is the likelihood of principal components where it is tight (Lucas 2019)."""

    encoder, decoder = MLP((3, 2)), MLP((1, 3))  # to a mean and a log variance, and back

    def init(self, key):
        keys = jax.random.split(key)
        nets = {"encoder": self.encoder.init(keys[0]), "decoder": self.decoder.init(keys[1])}
        return {**nets, "log_noise": jnp.zeros(())}

    def apply(self, params, x):
        return jnp.split(self.encoder.apply(params["encoder"], x), 2, axis=-1)


def bound(outputs, targets, *, params, x, key):
    mean, log_variance = outputs
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    misfit = losses.squared_error(Autoencoder.decoder.apply(params["decoder"], z), x)
    nll = 0.5 * (misfit / jnp.exp(params["log_noise"]) + 3 * (params["log_noise"] + jnp.log(2 * jnp.pi)))
    kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance, axis=-1)
    return nll + kl, {"kl": kl}


@pytest.mark.bits
def test_a_variational_autoencoder(tmp_path):
    """11. VAE: a linear one, whose best bound is the likelihood of principal components."""
    mix = jnp.array([[1.5, 1.0, -0.5]])
    x = jax.random.normal(KEY, (400, 1)) @ mix + 0.4 * jax.random.normal(jax.random.key(1), (400, 3))
    recipe = Recipe(Autoencoder(), bound, optax.adam, epochs=120, batch_size=50)
    state, _ = jaxmlp.fit(KEY, (x,), recipe, {"learning_rate": 0.03})
    found = jaxmlp.evaluate(state.params, (jnp.repeat(x, 20, 0),), recipe, {"learning_rate": 0.0}, key=KEY)
    large, *small = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    known = 0.5 * (3 * np.log(2 * np.pi) + np.log(large) + 2 * np.log(np.mean(small)) + 3)
    assert float(found["loss"]) == pytest.approx(known, abs=0.05)
    check_everywhere(KEY, (x,), recipe, RATE, tmp_path)


class Game:
    generator, critic = MLP((1, 1)), MLP((1, 8, 1), "tanh")

    def init(self, key):
        keys = jax.random.split(key)
        return {"generator": self.generator.init(keys[0]), "critic": self.critic.init(keys[1])}

    def apply(self, params, x):
        return self.generator.apply(params["generator"], x["noise"])


def judged(outputs, targets, *, params, x):
    def score(made):
        return Game.critic.apply(params["critic"], made)[:, 0]

    return jax.nn.softplus(-score(x["real"])) + jax.nn.softplus(score(jax.lax.stop_gradient(outputs)))


def fooled(outputs, targets, *, params):
    return jax.nn.softplus(-Game.critic.apply(jax.lax.stop_gradient(params["critic"]), outputs)[:, 0])


def test_adversaries():
    """12. GAN: two recipes on the same parameters, stepped in turn."""
    judging, fooling = (Recipe(Game(), loss, optax.adam, epochs=1) for loss in (judged, fooled))
    critic, generator = jaxmlp.start(KEY, judging, RATE), jaxmlp.start(KEY, fooling, RATE)
    begun, step = critic.params, jax.jit(jaxmlp.step)
    batches = [(jax.random.normal(k, (32, 1)), 3 + jax.random.normal(k, (32, 1))) for k in jax.random.split(KEY, 40)]
    for noise, real in batches:
        batch = {"noise": noise, "real": real}, None
        critic, _ = step(critic._replace(params=generator.params), batch, judging, RATE)  # glue: from hand to hand
        generator, _ = step(generator._replace(params=critic.params), batch, fooling, RATE)  # glue

    adam, net = optax.adam(0.05), Game()
    params, states = begun, {name: adam.init(part) for name, part in begun.items()}

    @jax.jit
    def turn(params, states, noise, real):
        def of_critic(part):
            return judged(net.apply(params, {"noise": noise}), None, params={"critic": part}, x={"real": real}).mean()

        updates, of = adam.update(jax.grad(of_critic)(params["critic"]), states["critic"])
        params, states = params | {"critic": optax.apply_updates(params["critic"], updates)}, states | {"critic": of}

        def of_generator(part):
            return fooled(net.apply({"generator": part}, {"noise": noise}), None, params=params).mean()

        updates, of = adam.update(jax.grad(of_generator)(params["generator"]), states["generator"])
        return params | {"generator": optax.apply_updates(params["generator"], updates)}, states | {"generator": of}

    for batch in batches:
        params, states = turn(params, states, *batch)
    close(generator.params, params, rtol=1e-3, atol=1e-4)
    assert generator.params["generator"][0].b > 1  # on its way to 3


def test_an_average_of_weights():
    """12. EMA: trained are the weights; validated, returned and saved is their average."""
    x = jnp.linspace(-1, 1, 32)[:, None]
    net, numbers = MLP((1, 8, 1), "tanh"), RATE | {"average_decay": 0.9}
    recipe = Recipe(net, losses.squared_error, optimizers.Averaged(optax.sgd), epochs=20)
    state, history = jaxmlp.fit(KEY, (x, x**2), recipe, numbers, validation=(x, x**2))

    def objective(params):
        return jnp.mean(losses.squared_error(net.apply(params, x), x**2))

    now, ema = jaxmlp.start(KEY, recipe, numbers).params, optax.ema(0.9)
    averages = ema.init(now)
    for _ in range(20):
        now = descended(objective, now, optax.sgd(0.05), 1)
        mean, averages = ema.update(now, averages)
    close(state.params, mean)
    assert float(history["validation_loss"][-1]) == pytest.approx(float(objective(mean)), rel=1e-4)


class Bootstrapped:
    net = MLP((4, 2), bias=False)  # of states that are rows of the identity: a table

    def init(self, key):
        params = self.net.init(key)
        return {"now": params, "target": params}

    def apply(self, params, x):
        return self.net.apply(params["now"], x["state"])


def temporal_difference(outputs, targets, *, params, x, discount):
    after = Bootstrapped.net.apply(jax.lax.stop_gradient(params["target"]), x["next"]).max(axis=1)
    value = jnp.take_along_axis(outputs, x["action"][:, None], axis=1)[:, 0]
    return jnp.square(value - x["reward"] - discount * after)


def copied(params, previous, told, *, step):
    return params | {"target": optax.periodic_update(params["now"], params["target"], step + 1, 10)}


def test_a_target_network():
    """12. Target network: fitted Q iteration on a chain whose values are known."""
    here, action = (part.ravel() for part in np.meshgrid(np.arange(4), np.arange(2)))
    there = np.clip(here + 2 * action - 1, 0, 3)
    reward, eye = (there == 3).astype("f"), np.eye(4, dtype="f")
    x = {"state": eye[here], "action": action, "next": eye[there], "reward": reward}
    recipe = Recipe(Bootstrapped(), temporal_difference, optax.sgd, epochs=300, after=copied)
    state, _ = jaxmlp.fit(KEY, (x,), recipe, {"learning_rate": 2.0, "discount": 0.5})
    q = np.zeros((4, 2))
    for _ in range(50):
        q[here, action] = reward + 0.5 * q[there].max(1)
    np.testing.assert_allclose(state.params["now"][0].w, q, atol=1e-3)


@dataclasses.dataclass(frozen=True)
class Twins:
    """One net for every leaf of x."""

    net: MLP = MLP((2, 1), bias=False)

    def init(self, key):
        return self.net.init(key)

    def apply(self, params, x):
        return jax.tree.map(lambda leaf: self.net.apply(params, leaf), x)


def siamese(outputs, targets):
    distance = jnp.linalg.norm(outputs[0] - outputs[1] + 1e-6, axis=-1)
    return jnp.where(targets, jnp.square(distance), jnp.square(jax.nn.relu(1 - distance)))


def triplet(outputs, targets):  # glue
    return optax.losses.triplet_margin_loss(*outputs)  # glue: what Optax takes apart comes as one


def contrast(outputs, targets, *, weight):  # glue
    return losses.info_nce(*outputs, weight=weight)  # glue: the views are two outputs, and no target


def views(n, count):
    """Return views of n things that agree in their first coordinate, and in nothing else."""
    thing, *noise = jax.random.normal(KEY, (1 + count, n))
    return tuple(jnp.stack([thing, other], axis=1) for other in noise)


def test_pairs():
    """13. Siamese: pairs that are alike or not."""
    one, other = views(64, 2)
    given = (jnp.tile(one, (2, 1)), jnp.concatenate([other, other[::-1]])), jnp.arange(128) < 64
    recipe = Recipe(Twins(), siamese, optax.sgd, epochs=40, batch_size=50)
    state, _ = jaxmlp.fit(KEY, given, recipe, RATE)
    assert abs(state.params[0].w[0, 0]) > 20 * abs(
        state.params[0].w[1, 0]
    )  # what a pair shares, and not what it does not


def test_triplets():
    """13. Triplet: an anchor, one like it and one unlike it, by the loss of Optax."""
    anchor, alike = views(64, 2)
    recipe = Recipe(Twins(), triplet, optax.sgd, epochs=30)
    state, _ = jaxmlp.fit(KEY, ((anchor, alike, alike[::-1]),), recipe, RATE)

    def objective(params):
        return triplet(Twins().apply(params, (anchor, alike, alike[::-1])), None).mean()

    close(state.params, descended(objective, jaxmlp.start(KEY, recipe, RATE).params, optax.sgd(0.05), 30))
    assert abs(state.params[0].w[0, 0]) > 3 * abs(state.params[0].w[1, 0])


def test_contrast():
    """13. InfoNCE: the other rows of a batch are what an example is unlike."""
    one, other = views(64, 2)
    recipe = Recipe(Twins(MLP((2, 8, 2), "tanh")), contrast, optax.adam, epochs=60, batch_size=32)
    state, _ = jaxmlp.fit(KEY, ((one, other),), recipe, RATE)
    things = jnp.linspace(-1, 1, 8)
    new = [jnp.stack([things, noise], axis=1) for noise in (things, -things)]
    first, second = (o / jnp.linalg.norm(o, axis=1, keepdims=True) for o in recipe.model.apply(state.params, new))
    assert jnp.abs(jnp.argmax(first @ second.T, axis=1) - jnp.arange(8)).max() <= 1  # the right one, or beside it
