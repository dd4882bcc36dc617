"""Optimizers: roles by name, stacks layer by layer, schedules that know the run, and every optimizer of Optax."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxmlp
from jaxmlp import MLP, Layer, Recipe, loop, losses, population
from jaxmlp._factories import Finished
from jaxmlp._per_layer import adapted, sees_stacks
from jaxmlp._stacking import stack
from jaxmlp.optimizers import ClippedCosineAdamW, CosineAdamW, PerLayer, decays, schedule_length

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
X = np.random.default_rng(0).normal(size=(20, 3)).astype("f")
Y = X[:, :1]
RATE = {"learning_rate": 0.1}
RECIPE = Recipe(MLP((3, 4, 1)), losses.squared_error, CosineAdamW(), epochs=3, batch_size=5)
DEEP = MLP((4, 6, 6, 6, 1), norm="layer")
STACKED = DEEP.replace(scan=True)


def with_optimizer(optimizer, **changes):
    return dataclasses.replace(RECIPE, optimizer=optimizer, **changes)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other, rtol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), one, other)


STACKS = np.ones((4, 2, 2)), np.ones((4, 2))  # of matrices, of biases


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (Layer(STACKS[0], *[STACKS[1]] * 3), {"w"}),
        (dict(zip(("fc_weight", "fc_bias"), STACKS, strict=True)), {"fc_weight"}),
        ({"W1": np.ones(3), "b1": STACKS[1], "LayerNorm_0": {"scale": STACKS[1]}}, {"W1"}),
        ({"layers.0.weight": np.ones(3), "layers.0.bias": STACKS[1]}, {"layers.0.weight"}),
        ({"w": [np.ones(2)], "b": (STACKS[1],)}, {"w.0"}),
        ([(np.ones((2, 2)), np.ones(2))], {"0.0"}),  # no names: a leaf of two axes is a matrix
        ({"slope": np.ones((2, 2)), "alpha": np.ones(2)}, {"slope"}),
    ],
    ids=["layer", "flax", "capitals", "torch", "lists", "tuples", "unknown names"],
)
def test_what_decays_is_known_by_its_name(params, expected):
    found = jax.tree_util.tree_leaves_with_path(decays(params))
    assert {jax.tree_util.keystr(path, simple=True, separator=".") for path, does in found if does} == expected


@pytest.mark.parametrize("factory", [CosineAdamW(9, 0.0), ClippedCosineAdamW(9, 0.0)])
def test_a_stack_decays_as_its_layers_do(loose, factory):
    """With gradients of zero only the decay moves a parameter: biases, scales and shifts stay."""
    moved = []
    for model in (DEEP, STACKED):
        params, optimizer = model.init(KEY), factory(0.5, 0.2)

        @jax.jit
        def update(params, optimizer=optimizer):
            return optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)[0]

        moved.append(model.layers(update(params)))
    close(*moved)
    for layer, update in zip(DEEP.init(KEY), moved[1], strict=True):
        np.testing.assert_allclose(update.w, -0.1 * layer.w, rtol=1e-6)
        assert not any(np.any(leaf) for leaf in update[1:] if leaf is not None)


def chained(learning_rate):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adaptive_grad_clip(0.1), optax.lamb(learning_rate))


ELEMENTWISE = {
    *(optax.adam, optax.adamw, optax.sgd, optax.lion, optax.adabelief, optax.rmsprop, optax.rprop, optax.yogi),
    *(optax.adadelta, optax.nadamw, optax.contrib.prodigy, optax.contrib.momo),
    *(optax.contrib.adopt, optax.contrib.sophia, optax.contrib.schedule_free_adamw, optax.contrib.cocob),
}
BY_LAYER = [
    *(optax.lamb, optax.lars, optax.fromage, optax.novograd, optax.sm3, chained, optax.contrib.muon),
    functools.partial(optax.adafactor, min_dim_size_to_factor=4),
    functools.partial(optax.contrib.galore, rank=2),
]


def by_rank(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def masked(learning_rate):
    return optax.adamw(learning_rate, mask=by_rank)


def two_rates(learning_rate):
    return optax.multi_transform({True: optax.sgd(learning_rate), False: optax.sgd(0.1 * learning_rate)}, by_rank)


def test_which_optimizers_see_a_stack_as_one_layer_is_read_from_their_programs(loose):
    params = STACKED.init(KEY)

    def seen(factory, numbers=RATE):
        return sees_stacks(Finished(factory), numbers, params)

    assert [f for f in ELEMENTWISE if seen(f)] == [] and not seen(CosineAdamW(9))
    assert not seen(optax.lbfgs, {}) and not seen(optax.polyak_sgd, {}) and not seen(ClippedCosineAdamW(9))
    assert [f for f in [*BY_LAYER[:-1], masked, two_rates] if not seen(f)] == []
    assert seen(lambda learning_rate: optax.apply_if_finite(optax.lamb(learning_rate), 3))
    for moved in (
        lambda g: jnp.roll(g, 1, 0),
        lambda g: g - g[:1],
        lambda g: g[::-1],
        lambda g: g.at[0].set(0),
        jnp.flip,
    ):
        own = optax.stateless_with_tree_map(lambda g, p, moved=moved: moved(g))
        assert seen(lambda learning_rate, own=own: optax.chain(own, optax.sgd(learning_rate)))
    assert seen(lambda learning_rate: optax.MultiSteps(optax.lars(learning_rate), 2))


def test_a_stack_takes_the_steps_that_its_layers_take(loose):
    """Two steps, as a recipe chooses and by the wrapper, beside those of the net that holds its layers apart."""
    params = DEEP.init(KEY)
    grads = [jax.tree.map(lambda p, s=s: jnp.cos(s + 9 * p) * s, params) for s in (1.0, 0.3)]

    def two_steps(optimizer, model):
        now, *both = (stack(tree, model.structure.parts) for tree in (params, *grads))
        state = optimizer.init(now)
        for grad in both:
            updates, state = optimizer.update(grad, state, now)
            now = optax.apply_updates(now, updates)
        return model.layers(now)

    def everything():
        found = {}
        for i, factory in enumerate([*BY_LAYER, masked, two_rates, optax.adamw]):
            build = Finished(factory)
            apart = adapted(build(**RATE), functools.partial(sees_stacks, build, RATE))
            wrapped = PerLayer(factory)(**RATE) if i < len(BY_LAYER) - 1 else apart
            found[i] = [two_steps(apart, DEEP), two_steps(apart, STACKED), two_steps(wrapped, STACKED)]
        return found

    for expected, *others in jax.jit(everything)().values():
        for found in others:
            close(found, expected)


def test_the_state_of_an_optimizer_that_works_by_element_keeps_its_form():
    """Checkpoints of stacked nets go on loading."""
    bound = with_optimizer(ClippedCosineAdamW(12), model=MLP((3, 4, 4, 4, 1), scan=True)).bind(RATE)
    shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(lambda: jaxmlp.start(KEY, bound)).opt_state)]
    assert shapes.count((2, 4, 4)) == 2 and (4, 4) not in shapes


def test_fit_of_a_stacked_net_is_that_of_its_layers():
    recipe = with_optimizer(optax.lamb, model=MLP((3, 4, 4, 4, 1), "tanh"))
    by_itself = dataclasses.replace(recipe, model=recipe.model.replace(scan=True))
    expected, found = (jaxmlp.fit(KEY, (X, Y), one, RATE)[0].params for one in (recipe, by_itself))
    close(by_itself.model.layers(found), expected, rtol=1e-5)
    wrapped = [dataclasses.replace(by_itself, optimizer=PerLayer(optax.lamb)) for _ in range(2)]
    assert wrapped[0] == wrapped[1] and len(set(wrapped)) == 1
    assert wrapped[0].bind(RATE | {"b1": 0.8}).numbers.optimizer == RATE | {"b1": 0.8}


# Schedules that know the run.


def scheduled(learning_rate, run_steps):
    return optax.adam(optax.cosine_decay_schedule(learning_rate, run_steps))


def test_a_schedule_learns_the_length_of_the_run():
    """Twelve steps: those of `fit`, of a loop in memory, of members and of a stream that says its length."""
    told = dataclasses.replace(RECIPE, optimizer=CosineAdamW(12))
    expected, history = jaxmlp.fit(KEY, (X, Y), told, RATE)
    same(jaxmlp.fit(KEY, (X, Y), RECIPE, RATE)[0].params, expected.params)
    same(loop.train(KEY, (X, Y), RECIPE, RATE, progress=False)[0].params, expected.params)
    bound = RECIPE.bind(RATE, steps=12)
    state = jaxmlp.start(KEY, bound)
    for _ in range(3):
        state, metrics = jaxmlp.epoch(state, (X, Y), bound)
    close(metrics["loss"], history["loss"][-1])

    batches, whole = [(X[i : i + 5], Y[i : i + 5]) for i in range(0, 20, 5)], dataclasses.replace(told, batch_size=None)
    streamed = [
        loop.train(KEY, batches, dataclasses.replace(whole, optimizer=one), RATE, progress=False)[1]
        for one in (CosineAdamW(12), CosineAdamW())
    ]
    same(*streamed)


def test_members_with_rows_of_their_own_have_steps_of_their_own():
    counts = 20, 12, 7
    rows = np.array([[*range(n), *[-1] * (20 - n)] for n in counts])
    _, history = population.fit(KEYS, (X, Y), RECIPE, RATE, rows=rows)
    for i, n in enumerate(counts):
        close(history["loss"][i], jaxmlp.fit(KEYS[i], (X[:n], Y[:n]), RECIPE, RATE)[1]["loss"], rtol=1e-5)
    whole = dataclasses.replace(RECIPE, batch_size=None)  # a step an epoch, however many rows
    _, history = population.fit(KEYS, (X, Y), whole, RATE, rows=rows)
    for i, n in enumerate(counts):
        close(history["loss"][i], jaxmlp.fit(KEYS[i], (X[:n], Y[:n]), whole, RATE)[1]["loss"], rtol=1e-5)
    with pytest.raises(ValueError, match="steps of CosineAdamW must be at least the 12 of the run"):
        population.fit(KEYS, (X, Y), with_optimizer(CosineAdamW(11)), RATE, rows=rows)
    with pytest.raises(ValueError, match="run_steps of scheduled must not choose the program where members own"):
        population.fit(KEYS, (X, Y), with_optimizer(scheduled), RATE, rows=rows)


def test_the_rate_is_one_curve_for_known_and_for_traced_steps():
    lengths, count = (1, 2, 9, 30, 1001), np.arange(1004)

    @jax.jit
    def curves(steps):
        pairs = [(CosineAdamW(warmup=warmup), i) for warmup in (0.0, 0.05, 0.5) for i in range(len(lengths))]
        return [[f._shape(which)(count) for which in (lengths[i], steps[i])] for f, i in pairs]

    with jax.numpy_dtype_promotion("standard"):
        for known, traced in curves(jnp.array(lengths)):
            np.testing.assert_allclose(known, traced, atol=2e-6)


def test_a_factory_of_ones_own_is_given_the_steps_of_the_run():
    told = with_optimizer(functools.partial(scheduled, run_steps=12))
    same(jaxmlp.fit(KEY, (X, Y), with_optimizer(scheduled), RATE)[1], jaxmlp.fit(KEY, (X, Y), told, RATE)[1])
    assert [schedule_length(f) for f in (scheduled, PerLayer(scheduled), CosineAdamW(7), optax.adam)] == [
        *("run", "run", 7, None)
    ]


ENDLESS = type("Endless", (), {"__iter__": lambda self: iter(lambda: (X[:5], Y[:5]), None)})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda r: jaxmlp.fit(KEY, (X, Y), r(CosineAdamW(11)), RATE),
            "steps of CosineAdamW must be at least the 12 of",
        ),
        (lambda r: population.fit(KEYS, (X, Y), r(CosineAdamW(11)), RATE), "the last 1 have a rate of zero; got 11"),
        (lambda r: loop.train(KEY, (X, Y), r(CosineAdamW(12)), RATE, epochs=4), "must be at least the 16 of the run"),
        (
            lambda r: jaxmlp.fit(KEY, (X, Y), r(CosineAdamW()).bind(RATE, steps=9)),
            "the recipe was bound to 9; bind it ",
        ),
        (lambda r: jaxmlp.start(KEY, r(CosineAdamW()), RATE), "CosineAdamW must know the steps of the run, as fit"),
        (lambda r: jaxmlp.start(KEY, r(scheduled), RATE), "optimizer scheduled must know the steps of the run, as fit"),
        (
            lambda r: loop.train(KEY, ENDLESS(), r(CosineAdamW(), batch_size=None), RATE),
            "steps must be given for a stream that does not tell its length: CosineAdamW takes",
        ),
        (lambda r: r(CosineAdamW()).bind(RATE | {"run_steps": 3}), "it is taken by nobody"),
        (lambda r: CosineAdamW(warmup=float("nan")), "warmup must lie in [0, 1); got nan"),
        (lambda r: CosineAdamW(warmup="all"), "warmup must be a share, in [0, 1); got str 'all'"),
        (lambda r: PerLayer(optax.lamb(0.1)), "factory must be one of numbers, as optax.lamb; got GradientTransf"),
        (lambda r: ClippedCosineAdamW(9)(0.1, clip_norm=0.0), "clip_norm must be positive and finite; got 0.0"),
        (lambda r: CosineAdamW(9)(-0.1), "learning_rate must be finite and not negative; got -0.1; to climb, negate"),
    ],
)
def test_a_schedule_that_does_not_fit_the_run_is_refused(call, words):
    with pytest.raises(ValueError) as error:
        call(with_optimizer)
    assert words in str(error.value)


def test_a_finished_run_whose_rate_follows_its_length_is_not_stretched(tmp_path):
    loop.train(KEY, (X, Y), RECIPE, RATE, directory=tmp_path, progress=False)
    with pytest.raises(ValueError, match="its schedule follows the length of the run, which is another now"):
        loop.resume(tmp_path, (X, Y), RECIPE, epochs=5, progress=False)
