"""Losses of labels against PyTorch and NumPy by hand: what a class counts, and what is easy counts little."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, losses, metrics, population

RNG = np.random.default_rng(0)
N, CLASSES = 12, 4
LOGITS = RNG.normal(size=(N, CLASSES)).astype("f")
LABELS = RNG.integers(0, CLASSES, N)
SOFT = RNG.dirichlet(np.ones(CLASSES), N).astype("f")
MANY = RNG.integers(0, 2, (N, CLASSES))
WEIGHT = np.array([0.5, 1.0, 3.0, 0.0], "f")
KEY = jax.random.key(0)


def close(found, expected, rtol=2e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6)


def by_hand(targets, smoothing, weight):
    y = np.eye(CLASSES)[targets] if targets.ndim == 1 else targets
    y = (1 - smoothing) * y + smoothing / CLASSES
    logs = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    return -(weight * y * logs).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["labels", "shares"])
def test_weights_of_classes(targets, smoothing):
    found = losses.cross_entropy(LOGITS, targets, label_smoothing=smoothing, class_weight=WEIGHT)
    close(found, by_hand(targets, smoothing, WEIGHT))
    close(losses.cross_entropy(LOGITS, targets, class_weight=np.ones(4)), losses.cross_entropy(LOGITS, targets))


@pytest.mark.parametrize("number", [np.float32, jnp.float32, jnp.asarray, np.asarray])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_smoothing_is_a_number_of_any_library_wherever_it_is_known(smoothing, number):
    """Within a caller's program too, where JAX traces whatever is made of its own numbers."""
    a, expected = number(smoothing), by_hand(LABELS, smoothing, 1.0)

    def loss(logits, a=a):
        return losses.cross_entropy(logits, LABELS, label_smoothing=a)

    close(loss(LOGITS), expected)
    close(jax.jit(loss)(LOGITS), expected)
    close(jax.vmap(loss)(LOGITS[None])[0], expected)
    close(jax.jit(loss)(LOGITS, a), expected)
    close(jax.vmap(loss, (None, 0))(LOGITS, jnp.asarray(a)[None])[0], expected)
    assert jnp.isfinite(jax.grad(lambda logits: loss(logits).sum())(LOGITS)).all()
    recipe = Recipe(MLP((4, 4)), partial(losses.cross_entropy, label_smoothing=a), optax.sgd, epochs=1)
    assert jnp.isfinite(jaxmlp.fit(KEY, (LOGITS, LABELS), recipe, {"learning_rate": 0.1})[1]["loss"]).all()


def test_weights_of_classes_are_pytorchs():
    torch = pytest.importorskip("torch")
    loss = partial(torch.nn.functional.cross_entropy, reduction="none", weight=torch.tensor(WEIGHT))
    for smoothing in (0.0, 0.2):
        expected = loss(torch.tensor(LOGITS), torch.tensor(LABELS), label_smoothing=smoothing)
        close(losses.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, class_weight=WEIGHT), expected)
    loss = partial(torch.nn.functional.binary_cross_entropy_with_logits, reduction="none")
    for targets in (MANY.astype("f"), SOFT):
        expected = loss(torch.tensor(LOGITS), torch.tensor(targets), pos_weight=torch.tensor(WEIGHT)).sum(1)
        close(losses.binary_cross_entropy(LOGITS, targets, pos_weight=WEIGHT), expected)


def test_a_yes_counts_more_than_a_no():
    p = 1 / (1 + np.exp(-LOGITS))
    close(losses.binary_cross_entropy(LOGITS, MANY, pos_weight=3.0), -np.log(np.where(MANY, p**3, 1 - p)).sum(1))
    ends = losses.binary_cross_entropy(np.array([[np.inf, -np.inf]], "f"), np.array([[1, 0]]), pos_weight=2.0)
    assert ends == 0


def test_without_weights_the_program_is_as_it_was():
    """Of labels it is that of Optax alone."""
    plain = jax.make_jaxpr(losses.cross_entropy)(LOGITS, jnp.asarray(LABELS))
    optaxs = jax.make_jaxpr(optax.softmax_cross_entropy_with_integer_labels)(LOGITS, jnp.asarray(LABELS))
    assert str(plain) == str(optaxs)


def test_weights_of_classes_train_are_swept_and_are_no_part_of_a_likelihood():
    x = RNG.normal(size=(30, 2)).astype("f")
    y = (x[:, 0] > 1).astype("i4") + (x[:, 1] > 1)
    model = MLP((2, 4, 3), "tanh")
    recipe = Recipe(model, losses.cross_entropy, optax.sgd, epochs=3, batch_size=10, metrics=(metrics.nll,))
    numbers = {"learning_rate": 0.1, "class_weight": np.array([1.0, 2.0, 5.0], "f")}
    state, history = jaxmlp.fit(KEY, (x, y), recipe, numbers)
    close(history["nll"][-1], losses.cross_entropy(model.apply(state.params, x), y).mean())

    def weighed(outputs, targets):
        return losses.cross_entropy(outputs, targets) * jnp.asarray([1.0, 2.0, 5.0])[targets]

    other = jaxmlp.fit(KEY, (x, y), Recipe(model, weighed, optax.sgd, epochs=3, batch_size=10), {"learning_rate": 0.1})
    close(history["loss"], other[1]["loss"])
    column = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 5.0]], "f")
    _, each = population.fit(jnp.stack([KEY, KEY]), (x, y), recipe, {**numbers, "class_weight": column})
    close(each["loss"][1], history["loss"])
    assert not np.allclose(each["loss"][0], each["loss"][1])


def test_focal_is_that_of_its_paper():
    p = 1 / (1 + np.exp(-LOGITS.astype("f8")))
    p = np.where(MANY, p, 1 - p)
    close(losses.focal(LOGITS, MANY, gamma=1.5), -((1 - p) ** 1.5 * np.log(p)).sum(1))
    a = np.where(MANY, 0.25, 0.75)
    close(losses.focal(LOGITS, MANY, alpha=0.25), -(a * (1 - p) ** 2 * np.log(p)).sum(1))
    close(losses.focal(LOGITS, MANY, gamma=0.0), losses.binary_cross_entropy(LOGITS, MANY))
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    p = p[np.arange(N), LABELS]
    close(losses.focal(LOGITS, LABELS, gamma=1.5), -((1 - p) ** 1.5) * np.log(p))
    close(losses.focal(LOGITS, LABELS, alpha=WEIGHT), -WEIGHT[LABELS] * (1 - p) ** 2 * np.log(p))
    close(losses.focal(LOGITS, LABELS, gamma=0.0), losses.cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_slope_where_all_is_certain(gamma):
    far = jnp.array([[200.0, -200.0]])
    for targets in (jnp.array([0]), jnp.array([1]), jnp.array([[1, 0]]), jnp.array([[0, 1]])):
        slope = jax.grad(lambda o, y=targets: losses.focal(o, y, gamma=gamma).sum())(far)
        assert np.isfinite(slope).all()


def test_focal_trains():
    x = RNG.normal(size=(25, 2)).astype("f")
    for width, y in ((3, (x[:, 0] > 0).astype("i4")), (1, (x[:, :1] > 0).astype("i4"))):
        recipe = Recipe(MLP((2, 4, width)), losses.focal, optax.adam, epochs=20, batch_size=10)
        with jax.debug_nans(True):
            _, history = jaxmlp.fit(KEY, (x, y), recipe, {"learning_rate": 0.05, "gamma": 1.0})
        assert history["loss"][-1] < history["loss"][0]


BAD = {
    "other classes": (
        lambda: losses.cross_entropy(LOGITS, LABELS, class_weight=np.ones(3)),
        "class_weight must be one number for each of 4 classes; got float32 of shape (3,)",
    ),
    "one weight": (lambda: losses.cross_entropy(LOGITS, SOFT, class_weight=2.0), "for each of 4 classes"),
    "a negative weight": (
        lambda: losses.cross_entropy(LOGITS, LABELS, class_weight=-WEIGHT),
        "class_weight must not be negative; got -0.5",
    ),
    "a text": (lambda: losses.cross_entropy(LOGITS, LABELS, class_weight="balanced"), "class_weight must be a number"),
    "a negative yes": (
        lambda: losses.binary_cross_entropy(LOGITS, MANY, pos_weight=-1.0),
        "pos_weight must not be negative",
    ),
    "other outputs": (
        lambda: losses.binary_cross_entropy(LOGITS, MANY, pos_weight=np.ones(3)),
        "pos_weight must be one number, or one for each output",
    ),
    "gamma": (lambda: losses.focal(LOGITS, LABELS, gamma=-1.0), "gamma must not be negative"),
    "gammas": (lambda: losses.focal(LOGITS, LABELS, gamma=np.ones(4)), "gamma must be one number"),
    "alpha": (lambda: losses.focal(LOGITS, MANY, alpha=1.5), "alpha must lie in [0, 1]; got 1.5"),
    "alphas": (lambda: losses.focal(LOGITS, LABELS, alpha=0.5), "alpha must be one number for each of 4 classes"),
    "focal labels": (lambda: losses.focal(LOGITS, LABELS + 4), "labels must be integers in 0 ... 3"),
    "focal shapes": (lambda: losses.focal(LOGITS, MANY[:, :1]), "outputs and targets must have one shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
