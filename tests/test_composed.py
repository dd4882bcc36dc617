"""Losses of losses: heads that are summed, tokens that are averaged, as by hand, in every way to train, and resumed."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype("f")
LABELS = (X[:, 0] > 0).astype("i4")
Y = {"image": X[:, 1:2] ** 2, "text": LABELS}


class Heads:
    """One net, whose outputs are cut into heads."""

    net = MLP((3, 6, 3), "tanh")

    def init(self, key):
        return self.net.init(key)

    def apply(self, params, x):
        out = self.net.apply(params, x)
        return {"image": out[:, :1], "text": out[:, 1:]}


class Tokens:
    """A net for each token of a sequence."""

    net = MLP((2, 5, 3), "tanh")

    def init(self, key):
        return self.net.init(key)

    def apply(self, params, x):
        return self.net.apply(params, x.reshape(-1, 2)).reshape(*x.shape[:2], 3)


def asking(outputs, targets, *, params, scale, weight=None):
    """Ask for something, need a number, and say something besides."""
    size = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
    values = scale * losses.squared_error(outputs, targets)
    return values, {"size": jnp.broadcast_to(size, values.shape)}


HEADS, TOKENS = Heads(), Tokens()
BOTH = losses.total(image=losses.huber, text=losses.cross_entropy)
RECIPE = Recipe(HEADS, BOTH, optax.adam, epochs=4, batch_size=8)
RATE = {"learning_rate": 0.05}
NUMBERS = {**RATE, "text_weight": 0.3, "delta": 0.5, "label_smoothing": 0.1}


def by_hand(outputs, targets, *, text_weight=1.0, delta=1.0, label_smoothing=0.0):
    image = losses.huber(outputs["image"], targets["image"], delta=delta)
    text = losses.cross_entropy(outputs["text"], targets["text"], label_smoothing=label_smoothing)
    return image + text_weight * text, {"image": image, "text": text}


def close(one, other, rtol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), one, other)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, (s.params, h)) for s, h in (one, other)))


def test_a_sum_of_heads_is_that_by_hand():
    numbers = {name: value for name, value in NUMBERS.items() if name != "learning_rate"}
    outputs = HEADS.apply(HEADS.init(KEY), X)
    close(BOTH(outputs, Y, **numbers), by_hand(outputs, Y, **numbers))
    trained = jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS, validation=(X, Y))
    expected = jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, loss=by_hand), NUMBERS, validation=(X, Y))
    close(trained[0].params, expected[0].params, rtol=1e-5)
    close(dict(trained[1]), dict(expected[1]), rtol=1e-5)
    assert {"image", "text", "validation_image", "validation_text"} < set(trained[1])


def test_equal_sums_are_one_program():
    again = losses.total(text=losses.cross_entropy, image=losses.huber)
    assert again == BOTH and hash(again) == hash(BOTH) and again is not BOTH
    assert losses.per_token(BOTH) == losses.per_token(again) != losses.per_token(losses.huber)
    jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS)
    before = jaxmlp.training.trace_count()
    jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, loss=again), NUMBERS)
    assert jaxmlp.training.trace_count() == before


def test_a_population_sweeps_the_weights_of_heads():
    numbers = {**NUMBERS, "text_weight": np.array([0.0, 0.3], "f")}
    keys = jnp.stack([KEY, KEY])
    states, history = population.fit(keys, (X, Y), RECIPE, numbers)
    state, alone = jaxmlp.fit(KEY, (X, Y), RECIPE, NUMBERS)
    close(population.member(states, 1).params, state.params, rtol=1e-5)
    np.testing.assert_allclose(history["text"][1], alone["text"], rtol=1e-5)
    np.testing.assert_allclose(history["loss"][0], history["image"][0], rtol=1e-5)
    assert population.best(states, history, by="text", largest=False)[1] == 1


def test_a_head_without_weight_counts_nothing_even_where_it_is_infinite():
    found = BOTH({"image": jnp.full((1, 1), jnp.inf), "text": jnp.zeros((1, 2))}, {"image": jnp.ones((1, 1)), "text":
                 jnp.array([0])}, image_weight=0.0)  # fmt: skip
    np.testing.assert_allclose(found[0], np.log([2.0]), rtol=1e-6)


def test_what_a_head_asks_for_and_needs_and_says_is_passed_on():
    loss = losses.total(image=asking, text=losses.cross_entropy)
    recipe = dataclasses.replace(RECIPE, loss=loss)
    _, history = jaxmlp.fit(KEY, (X, Y), recipe, {**RATE, "scale": 2.0})
    assert {"image", "text", "image_size"} < set(history) and (history["image_size"] > 0).all()
    with pytest.raises(ValueError, match="loss Total needs scale"):
        recipe.bind(RATE)
    with pytest.raises(ValueError, match=r"taken by nobody \(did you mean 'text_weight'\?\)"):
        recipe.bind({**RATE, "scale": 1.0, "text_weigh": 2.0})


def test_a_number_that_two_heads_name_goes_to_both():
    loss = losses.total(a=losses.huber, b=losses.huber)
    outputs = {"a": jnp.full((1, 1), 3.0), "b": jnp.full((1, 1), 2.0)}
    found, _ = loss(outputs, {"a": jnp.zeros((1, 1)), "b": jnp.zeros((1, 1))}, delta=0.5)
    np.testing.assert_allclose(found, [0.5 * 2.75 + 0.5 * 1.75], rtol=1e-6)


def test_sums_are_nested_and_given_numbers_beforehand():
    inner = losses.total(a=partial(losses.huber, delta=0.5), b=losses.squared_error)
    outer = losses.total(left=inner, right=losses.absolute_error)
    out = {"left": {"a": jnp.full((1, 1), 3.0), "b": jnp.ones((1, 1))}, "right": jnp.ones((1, 1))}
    found, told = outer(out, jax.tree.map(jnp.zeros_like, out), b_weight=2.0, right_weight=3.0)
    np.testing.assert_allclose(found, [0.5 * 2.75 + 2 + 3], rtol=1e-6)
    assert list(told) == ["left", "right", "left_a", "left_b"]


class Stop(Exception):
    pass


def stopping(state, history):
    raise Stop


def own(outputs, targets, *, shift=0.0):
    return losses.squared_error(outputs, targets + shift)


def twice(outputs, targets, *, label_smoothing):
    return 2 * losses.cross_entropy(outputs, targets, label_smoothing=label_smoothing)


@pytest.mark.parametrize("kind", ["ours", "own", "partial", "tokens"])
def test_a_run_of_it_is_resumed_to_the_same_bits(kind, tmp_path):
    recipe, numbers, data = RECIPE, NUMBERS, (X, Y)
    if kind == "own":
        recipe = dataclasses.replace(RECIPE, loss=losses.total(image=own, text=losses.cross_entropy))
        numbers = {**RATE, "text_weight": 0.3, "shift": 0.1}
    if kind == "partial":
        recipe = dataclasses.replace(RECIPE, loss=partial(BOTH, delta=0.5))
        numbers = RATE
    if kind == "tokens":
        recipe = Recipe(TOKENS, losses.per_token(losses.cross_entropy), optax.adam, epochs=4, batch_size=8)
        numbers, data = RATE, (SEQUENCES, {"y": WORDS, "mask": MASK})
    straight = loop.train(KEY, data, recipe, numbers, progress=False)
    with pytest.raises(Stop):
        loop.train(KEY, data, recipe, numbers, progress=False, directory=tmp_path, every=2, callbacks=[stopping])
    if kind == "ours":
        other = dataclasses.replace(recipe, loss=losses.total(image=losses.huber, text=twice))
        with pytest.raises(ValueError, match="recipe.loss.losses.1"):
            loop.resume(tmp_path, data, recipe=other, progress=False)
    same(loop.resume(tmp_path, data, recipe=recipe, progress=False), straight)


def test_its_words_in_a_checkpoint_are_found_again():
    for loss in (BOTH, losses.per_token(losses.cross_entropy), losses.total(a=losses.per_token(BOTH), b=losses.cox)):
        assert loop._description.rebuild("loss", loop._description.describe(loss)) == loss


SEQUENCES = RNG.normal(size=(20, 4, 2)).astype("f")
MASK = np.arange(4) < np.arange(20)[:, None] % 4 + 1  # one token to four
WORDS = np.where(MASK, RNG.integers(0, 3, size=(20, 4)), -1).astype("i4")  # padding is no class


def test_tokens_are_averaged_as_by_hand_and_padding_is_never_looked_at():
    outputs = RNG.normal(size=(20, 4, 3)).astype("f")
    outputs[~MASK] = np.inf
    loss = losses.per_token(losses.cross_entropy)
    found, slopes = jax.value_and_grad(lambda o: loss(o, {"y": WORDS, "mask": MASK}).sum())(jnp.asarray(outputs))
    each = [[losses.cross_entropy(outputs[i, t][None], WORDS[i, t][None])[0] for t in np.flatnonzero(MASK[i])]
            for i in range(20)]  # fmt: skip
    np.testing.assert_allclose(found, sum(np.mean(values) for values in each), rtol=1e-5)
    slopes = np.asarray(slopes)
    assert np.isfinite(slopes).all() and (slopes[~MASK] == 0).all() and (slopes[MASK] != 0).all()
    nothing = {"y": WORDS, "mask": np.zeros_like(MASK)}
    found, slopes = jax.value_and_grad(lambda o: loss(o, nothing).sum())(jnp.asarray(outputs * np.nan))
    assert found == 0 and (slopes == 0).all()


def test_tokens_without_a_mask_and_of_more_axes_are_averaged():
    outputs, y = RNG.normal(size=(2, 5, 4, 3, 2)).astype("f")
    np.testing.assert_allclose(
        losses.per_token(losses.absolute_error)(outputs, y), np.abs(outputs - y).sum((2, 3)).mean(1), rtol=1e-5
    )
    mask = RNG.random((5, 4, 3)) < 0.5
    mask[:, 0, 0] = True
    expected = (np.abs(outputs - y).sum(-1) * mask).sum((1, 2)) / mask.sum((1, 2))
    np.testing.assert_allclose(
        losses.per_token(losses.absolute_error)(outputs, {"y": y, "mask": mask.astype("f")}), expected, rtol=1e-5
    )


def telling(outputs, targets):
    values = losses.cross_entropy(outputs, targets)
    return values, {"all": values}


def test_tokens_train_and_an_example_weighs_as_many_as_it_has():
    recipe = Recipe(TOKENS, losses.per_token(telling), optax.adam, epochs=3)
    counts = MASK.sum(1).astype("f")
    with jax.debug_nans(True):
        state, history = jaxmlp.fit(KEY, (SEQUENCES, {"y": WORDS, "mask": MASK}, counts), recipe, RATE)
    outputs = TOKENS.apply(jaxmlp.start(KEY, recipe, RATE).params, SEQUENCES)
    flat = losses.cross_entropy(outputs[MASK], WORDS[MASK])
    np.testing.assert_allclose(history["loss"][0], flat.mean(), rtol=1e-5)
    np.testing.assert_allclose(history["all"], history["loss"], rtol=1e-6)


def test_a_loss_of_pairs_leaves_padding_out():
    a, b = RNG.normal(size=(2, 3, 4, 2)).astype("f")
    mask = MASK[:3]
    found = losses.per_token(losses.info_nce)(a, {"y": b, "mask": mask})
    each = losses.info_nce(a[mask], b[mask])
    expected = [np.mean(part) for part in np.split(np.asarray(each), np.cumsum(mask.sum(1))[:-1])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    weight = np.array([1.0, 0.0, 2.0], "f")
    found = losses.per_token(losses.info_nce)(a, {"y": b, "mask": mask}, weight=weight)
    each = np.asarray(losses.info_nce(a[::2][mask[::2]], b[::2][mask[::2]]))
    expected = [np.mean(part) for part in np.split(each, [mask[0].sum()])]
    np.testing.assert_allclose(found[::2], expected, rtol=1e-5)


ONE, TWO = np.ones((2, 1), "f"), np.full((2, 2), 0.5, "f")
OUT = {"image": ONE, "text": TWO}
TOKEN = losses.per_token(losses.squared_error)
BAD = {
    "no heads": (lambda: losses.total(), "total must have a loss for each of its heads"),
    "a column of the history": (lambda: losses.total(status=losses.huber), "must not be called loss, weight, status"),
    "no loss": (lambda: losses.total(image=3), "the loss of head 'image' must be callable"),
    "unhashable": (lambda: losses.per_token(Unhashable()), "the loss of a token must be hashable"),
    "one argument": (lambda: losses.total(image=lambda a: a), "must take (outputs, targets)"),
    "two numbers": (
        lambda: losses.total(b=losses.huber, c=losses.total(b=losses.huber)),
        "b_weight must be the weight of one head",
    ),
    "a name that is none": (lambda: losses.total(**{"a b": losses.huber}), "must be called by a word; got 'a b'"),
    "the order": (
        lambda: losses.Total(("b", "a"), (losses.huber, losses.huber)),
        "must be in the order of the alphabet",
    ),
    "a head is missing": (
        lambda: BOTH({"image": ONE}, OUT),
        "outputs must be a dict of the heads image, text; got those of image",
    ),
    "a head too many": (lambda: BOTH(OUT, {**OUT, "sound": ONE}), "targets must be a dict of the heads image, text"),
    "no dict": (lambda: BOTH(ONE, OUT), "outputs must be a dict of the heads image, text; got float32 of shape"),
    "a number": (lambda: BOTH(OUT, OUT, levle=1.0), "a number of Total must be one of"),
    "a weight": (lambda: BOTH(OUT, OUT, text_weight=-1.0), "text_weight must not be negative; got -1.0"),
    "weights": (lambda: BOTH(OUT, OUT, text_weight=np.ones(2)), "text_weight must be one number"),
    "no loss of one example": (
        lambda: losses.total(image=lambda o, y: o)({"image": ONE}, None),
        "the loss of head 'image' must be one value an example; got float32 of shape (2, 1)",
    ),
    "a mask of numbers": (
        lambda: TOKEN(TWO, {"y": TWO, "mask": np.full((2, 2), 0.5, "f")}),
        "mask must be 1 or True for a token that counts",
    ),
    "a mask of examples": (
        lambda: TOKEN(TWO, {"y": TWO, "mask": np.ones(2)}),
        "mask must have shape (batch, tokens); got float64 of shape (2,)",
    ),
    "another number of tokens": (lambda: TOKEN(TWO, {"y": ONE, "mask": 2 * TWO}), "must all begin with the axes"),
    "no tokens": (lambda: TOKEN(np.ones(2, "f"), np.ones(2, "f")), "must all begin with the axes (batch, tokens)"),
    "a token's loss": (
        lambda: losses.per_token(lambda o, y: o)(np.ones((2, 2, 1), "f"), None),
        "the loss of a token must return one value a token, (4,)",
    ),
    "labels": (
        lambda: losses.per_token(losses.cross_entropy)(
            np.ones((2, 2, 3), "f"), {"y": WORDS[:2, :2] + 9, "mask": 2 * TWO}
        ),
        "labels must be integers in 0 ... 2",
    ),
}


class Unhashable:
    __hash__ = None

    def __call__(self, outputs, targets):
        return outputs


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
