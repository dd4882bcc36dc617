"""Every optimizer of Optax trains, or is refused by name; and every number of one is such as its name says."""

import dataclasses
import functools
import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxmlp
from jaxmlp import MLP, Recipe, loop, losses, population
from jaxmlp._coupling import stand_ins
from jaxmlp._factories import PARTS, finished
from jaxmlp.optimizers import ClippedCosineAdamW, CosineAdamW, PerLayer

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2)
X = np.random.default_rng(0).normal(size=(12, 3)).astype("f")
Y = X[:, :1]
RATE = {"learning_rate": 0.01}
RECIPE = Recipe(MLP((3, 4, 1)), losses.squared_error, optax.adam, epochs=3)


def matrices(params):
    return jax.tree.map(lambda a: a.ndim > 1, params)


INNER = optax.sgd(0.01)
GIVEN = {  # what is no number, by the name of an argument that needs it
    **dict.fromkeys(("inner", "optimizer", "base_optimizer", "opt", "tx", "fast_optimizer"), INNER),
    **{"adv_optimizer": optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), "inner_factory": optax.sgd},
    **{"mask": matrices, "freeze_mask": matrices, "transforms": {"all": INNER}, "seed": 0, "every_k_schedule": 2},
    **{"param_labels": lambda params: jax.tree.map(lambda a: "all", params), "f": lambda u, p: u, "measures": {}},
    **{"should_transform_fn": lambda step: step > 0, "step_size_fn": optax.constant_schedule(-0.01)},
    **{"sync_period": 2, "slow_step_size": 0.5, "max_consecutive_errors": 2, "measure_name": "norm"},
    **{"max_backtracking_steps": 5, "max_linesearch_steps": 5, "measure": optax.tree.norm},
}
NUMBERS = {
    **{"learning_rate": 0.01, "clipping": 0.5, "eta": 0.01, "gamma": 0.5, "max_delta": 1.0, "threshold": 1.0},
    **{"max_norm": 1.0, "decay": 0.9, "step_size": -0.01, "l2_norm_clip": 1.0, "noise_multiplier": 0.1},
}
LISTS = {"chain": (INNER, INNER), "named_chain": (("one", INNER),)}
KEYED = ("add_noise", "noisy_sgd", "differentially_private_aggregate")
REFUSED = {
    "lookahead": "optimizer optax.lookahead cannot update these parameters: AttributeError: 'tuple' object has no",
    "dpsgd": "it needs the gradient of each example, and a step has that of their mean",
    "differentially_private_aggregate": "it needs the gradient of each example",
    "measure_with_ema": "ValueError: updates must have the shapes of the parameters, or JAX would stretch them",
    "scale_by_muon": "optimizer optax.contrib.scale_by_muon cannot update these parameters: ValueError: pytree",
}
# What these do with a gradient is the caller's: they wrap a transformation, or a function, that is given to them.
WRAPPERS = (
    "chain conditionally_transform freeze masked sam selective_transform stateless stateless_with_tree_map".split()
)


def factories():
    """Yield the name, the factory and the numbers of all that makes a transformation in optax and optax.contrib."""
    seen = set()
    for room in (optax, optax.contrib):
        for name in sorted(set(dir(room)) - {"convex_kl_divergence"}):  # whose call is deprecated
            function = getattr(room, name)
            wanted = name == "MultiSteps" or (callable(function) and hasattr(function, "__code__"))
            if name.startswith("_") or not wanted or function in seen:
                continue
            seen.add(function)
            parameters = inspect.signature(function).parameters
            needed = [p.name for p in parameters.values() if p.default is p.empty]
            fixed = {n: GIVEN[n] for n in needed if n in GIVEN} | ({"key": 0} if name in KEYED else {})
            numbers = {n: NUMBERS[n] for n in parameters if n in NUMBERS and (n in needed or n == "learning_rate")}
            try:
                with warnings.catch_warnings(action="ignore"):  # dpsgd has no way to its noise that is not deprecated
                    made = function(*LISTS.get(name, ()), **fixed, **numbers)
            except Exception:  # a function of another kind
                assert "Transformation" not in str(inspect.signature(function).return_annotation), name
                continue
            if name.startswith("inject"):  # it makes a factory
                yield name, made, RATE
            elif isinstance(made, optax.GradientTransformation | optax.MultiSteps):
                held = functools.partial(function, *LISTS.get(name, ()), **fixed)
                yield name, held if held.args or fixed else function, numbers


@functools.cache
def sorted_out():
    """Return all that train, as recipes with their numbers, and the words for those that are refused."""
    train, refused = {}, {}
    for name, factory, numbers in factories():
        try:
            recipe = dataclasses.replace(RECIPE, optimizer=factory)
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of a few of Optax's names
                jax.eval_shape(jaxmlp.fit, KEY, (X, Y), recipe, numbers)
            train[name] = recipe, numbers
        except ValueError as error:
            refused[name] = str(error)
    return train, refused


def losses_of(names):
    train, _ = sorted_out()

    @jax.jit
    def together(key, data):
        return {name: jaxmlp.fit(key, data, *train[name])[1]["loss"] for name in names}

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return together(KEY, (X, Y))


def test_every_optimizer_of_optax_trains_or_is_refused_by_name():
    train, refused = sorted_out()
    parts = {name for name, words in refused.items() if "is a part of one, and alone steps along the gradient" in words}
    assert len(train) > 65 and set(refused) == set(REFUSED) | parts
    assert all(words in refused[name] for name, words in REFUSED.items())
    assert parts <= PARTS and PARTS - parts <= {name for name in PARTS if not hasattr(optax, name)}


@pytest.mark.long
def test_a_part_of_an_optimizer_is_what_climbs():
    def steps(factory, numbers):
        """Return the product of gradients and updates over three steps on a paraboloid: negative where they descend."""
        params = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([1.0, -1.0])}
        optimizer, product = finished(factory(**numbers)), 0.0
        opt_state = optimizer.init(params)
        for _ in range(3):
            grads = jax.tree.map(lambda a: 2 * a, params)
            updates, opt_state = optimizer.update(grads, opt_state, params, **stand_ins(optimizer.update, grads))
            product += optax.tree.vdot(grads, updates)
            params = optax.apply_updates(params, updates)
        return product

    for name, factory, numbers in factories():
        if name not in (*REFUSED, *WRAPPERS):
            loose = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
            with loose[0], loose[1], warnings.catch_warnings(action="ignore"):
                product = jax.jit(functools.partial(steps, factory))(numbers)
            assert (product > 0) == (name in PARTS), name


@pytest.mark.parametrize("name", sorted(PARTS))
def test_each_fix_of_a_part_descends(name):
    """The chain that the refusal shows, with what the part needs, on a paraboloid."""
    room = next((room for room in (optax, optax.contrib) if hasattr(room, name)), None)
    if room is None:
        pytest.skip("not in this Optax")
    found = {n: (f, numbers) for n, f, numbers in factories()}
    part, numbers = found[name]
    with pytest.raises(ValueError, match="is a part of one") as error:
        dataclasses.replace(RECIPE, optimizer=getattr(room, name))
    shown = str(error.value).split("return ")[1]
    spoken = f"{room.__name__}.{name}"
    assert spoken in shown
    chain = eval(
        shown.replace(f"{spoken}(...)", "part(**numbers)"),
        {**globals(), "part": part, "numbers": numbers, "learning_rate": 0.01},
    )
    params = {"w": jnp.array([[1.0, 2.0], [0.5, 3.0]]), "b": jnp.array([1.0, 1.0])}
    optimizer = finished(chain)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        opt_state = optimizer.init(params)
        grads = jax.tree.map(lambda a: 2 * a, params)
        product = 0.0
        for _ in range(3):
            updates, opt_state = optimizer.update(grads, opt_state, params, **stand_ins(optimizer.update, grads))
            product += optax.tree.vdot(grads, updates)
    assert product < 0


def test_other_ways_to_climb_are_refused_and_to_descend_are_not():
    for climbing, numbers in (
        (functools.partial(optax.scale, 0.1), {}),
        (optax.scale, {"step_size": 0.1}),
        (functools.partial(optax.scale_by_learning_rate, flip_sign=False), RATE),
        (optax.inject_hyperparams(optax.scale_by_adam), {"b1": 0.9}),
    ):
        with pytest.raises(ValueError, match="optimizer must descend"):
            fit(climbing, numbers)
    for descending, numbers in (
        (functools.partial(optax.scale, step_size=-0.01), {}),
        (optax.scale, {"step_size": -0.01}),
    ):
        _, history = fit(descending, numbers)
        assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("part", [optax.scale_by_adam, functools.partial(optax.clip, 1.0), optax.contrib.normalize])
def test_a_part_of_an_optimizer_alone_is_refused_with_how_to_make_one_of_it(part):
    for make in (lambda: dataclasses.replace(RECIPE, optimizer=part), lambda: PerLayer(part)):
        with pytest.raises(ValueError, match=r"optimizer must descend; .* write a factory: def mine\(learning_rate\)"):
            make()

    def mine(learning_rate):
        return optax.chain(part(), optax.scale_by_learning_rate(learning_rate))

    _, history = fit(mine, RATE)
    assert history["loss"][-1] < history["loss"][0]


def test_those_that_ask_for_more_than_a_gradient_train():
    names = ("MultiSteps", "galore", "polyak_sgd", "sam", "lbfgs", "sophia")
    for name, loss in losses_of(names).items():
        assert np.isfinite(loss).all(), name


@pytest.mark.long
def test_every_optimizer_of_optax_has_a_finite_loss():
    for name, loss in losses_of(list(sorted_out()[0])).items():
        assert np.isfinite(loss).all(), name


def test_an_optimizer_that_needs_another_is_told_to_be_a_factory():
    for factory in (optax.contrib.sam, optax.MultiSteps, optax.apply_if_finite, optax.masked):
        with pytest.raises(
            ValueError, match=r"which is no number; write a factory of numbers: def mine\(learning_rate"
        ):
            dataclasses.replace(RECIPE, optimizer=factory).bind(RATE if factory is optax.adam else {})


def test_sharpness_aware_steps_are_those_of_their_equation():
    """One opaque step of SAM is the gradient at w + rho g / |g| (Foret 2021, arXiv 2010.01412)."""

    def sam(learning_rate):
        adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
        return optax.contrib.sam(optax.sgd(learning_rate), adversary, opaque_mode=True)

    recipe = Recipe(MLP((3, 1)), losses.squared_error, sam, epochs=1)
    before = jaxmlp.start(KEY, recipe, RATE).params
    after = jaxmlp.fit(KEY, (X, Y), recipe, RATE)[0].params

    def loss(params):
        return jnp.mean(losses.squared_error(recipe.model.apply(params, X), Y))

    grads = jax.grad(loss)(before)
    norm = optax.tree.norm(grads)
    beyond = jax.grad(loss)(jax.tree.map(lambda p, g: p + 0.05 * g / norm, before, grads))
    jax.tree.map(
        lambda p, g, found: np.testing.assert_allclose(found, p - 0.01 * g, rtol=1e-4, atol=1e-6), before, beyond, after
    )


# Numbers.


def fit(optimizer, numbers, model=RECIPE.model):
    return jaxmlp.fit(KEY, (X, Y), dataclasses.replace(RECIPE, optimizer=optimizer, model=model), numbers)


def fits(optimizer, numbers):
    return population.fit(KEYS, (X, Y), dataclasses.replace(RECIPE, optimizer=optimizer), numbers)


def nan_state(learning_rate):
    """Make an optimizer that widens its state step by step."""
    return optax.GradientTransformation(lambda p: jnp.zeros(2), lambda g, s, p=None: (g, jnp.zeros(3)))


CLIP = ClippedCosineAdamW()
HALF = MLP((3, 4, 1), param_dtype="float16")
SAY = "this chooses the program: set it beforehand, by functools.partial"
BAD = {
    "flag": (fit, optax.sgd, RATE | {"nesterov": True}, f"got bool True; {SAY}(optax.sgd, nesterov=True)"),
    "flags": (
        fits,
        optax.sgd,
        RATE | {"nesterov": [True, False]},
        "hyperparams['nesterov'] must be a number; got bool",
    ),
    "flag in an array": (fit, optax.sgd, RATE | {"nesterov": np.bool_(1)}, "(optax.sgd, nesterov=True)"),
    "size": (fit, optax.lbfgs, {"memory_size": 5}, f"got int 5; {SAY}(optax.lbfgs, memory_size=5)"),
    "sizes": (fits, optax.lbfgs, {"memory_size": np.int32([5, 6])}, f"{SAY}(optax.lbfgs, memory_size=5)"),
    "int for a flag": (fit, optax.adam, RATE | {"nesterov": 1}, f"{SAY}(optax.adam, nesterov=1)"),
    "name": (
        fit,
        optax.adam,
        RATE | {"mu_dtype": "float32"},
        f"got str 'float32'; {SAY}(optax.adam, mu_dtype='float32')",
    ),
    "dtype": (fit, optax.adam, RATE | {"mu_dtype": jnp.float32}, "hyperparams['mu_dtype'] must be a number; got "),
    "None": (fit, optax.sgd, RATE | {"momentum": None}, f"{SAY}(optax.sgd, momentum=None)"),
    "schedule": (
        *(fit, optax.adam, {"learning_rate": optax.cosine_decay_schedule(0.1, 9)}),
        "got the function schedule; a schedule is made by a factory of numbers: def scheduled(learning_rate): return ",
    ),
    "schedules": (fits, optax.adam, {"learning_rate": optax.constant_schedule(0.1)}, "a schedule is made by a factory"),
    "flag of the model": (fit, optax.adam, RATE | {"init_scale": True}, f"got bool True; {SAY}(MLP, init_scale=True)"),
    "negative rate": (
        fit,
        optax.adam,
        {"learning_rate": -0.1},
        "learning_rate must be finite and not negative; got -0.1",
    ),
    "NaN among rates": (
        fits,
        CosineAdamW(),
        {"learning_rate": [0.1, np.nan]},
        "must be finite and not negative; got nan",
    ),
    "infinite rate": (fit, PerLayer(optax.lamb), {"learning_rate": np.inf}, "finite and not negative; got inf"),
    "rate set before": (fit, functools.partial(optax.sgd, learning_rate=-1.0), {}, "not negative; got -1.0"),
    "negative decay": (
        fits,
        optax.adamw,
        RATE | {"weight_decay": [0.1, -0.1]},
        "weight_decay must be finite and not neg",
    ),
    "b1": (fit, optax.adam, RATE | {"b1": 1.0}, "b1 must be in [0, 1); got 1.0"),
    "clip": (fits, CLIP, RATE | {"clip_norm": [1.0, 0.0]}, "clip_norm must be positive and finite; got 0.0"),
    "state of another form": (
        fit,
        nan_state,
        RATE,
        "its state must keep its form;  was float32 of shape (2,) and became",
    ),
    "no transformation": (
        fits,
        lambda learning_rate: 3,
        RATE,
        "optimizer must return an optax.GradientTransformation; got",
    ),
    "finished MultiSteps": (
        *(fit, optax.MultiSteps(INNER, 2), {}),
        "optimizer must be a factory, as optax.adam, and its numbers go to hyperparams={'learning_rate': ...}; got a ",
    ),
    "eps of half precision": (
        *(functools.partial(fit, model=HALF), optax.adam, RATE),
        "eps of optax.adam must not be zero in float16, the dtype of the parameters, or a gradient of zero becomes NaN",
    ),
    "our eps of half precision": (functools.partial(fit, model=HALF), CLIP, RATE, "got 1e-08; pass 'eps': 1e-4 where"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_number_that_is_none_is_named_at_the_door(name):
    call, optimizer, numbers, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call(optimizer, numbers)
    assert words in str(error.value)


def test_half_precision_trains_where_eps_is_not_zero():
    for numbers in (RATE | {"eps": 1e-4}, RATE | {"eps_root": 1e-4}):
        bound = dataclasses.replace(RECIPE, model=HALF, optimizer=optax.adam), numbers
        state, _ = jax.eval_shape(jaxmlp.fit, KEY, (X.astype("e"), Y.astype("e")), *bound)
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("e")}


def dtypes(state):
    return [leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state))]


@pytest.mark.parametrize("half", [None, "float16", "bfloat16"])
def test_numbers_of_a_wider_dtype_change_none_of_a_run(half):
    """NumPy's float64 numbers on float32 networks in 64-bit JAX, and float32 numbers on half precision."""
    wide = np.float32 if half else np.float64
    numbers = {"learning_rate": wide(0.1), "momentum": wide(0.9), "delta": wide(1.0)}
    with jax.enable_x64(half is None):
        key, data = jax.random.key(0), jax.tree.map(lambda a: jnp.asarray(a, half or "float32"), (X, Y))
        recipe = Recipe(MLP((3, 1), param_dtype=half or "float32"), losses.huber, optax.sgd, epochs=2, batch_size=5)
        state = jaxmlp.start(key, recipe, numbers)
        expected = dtypes(state)
        assert set(expected) == {jnp.dtype(half or "float32")}
        assert dtypes(jax.eval_shape(jaxmlp.step, state, data, recipe, numbers)[0]) == expected
        assert dtypes(jax.eval_shape(jaxmlp.epoch, state, data, recipe, numbers)[0]) == expected
        assert dtypes(jax.eval_shape(jaxmlp.fit, key, data, recipe, numbers)[0]) == expected
        if half is None:
            assert dtypes(loop.train(key, data, recipe, numbers, progress=False)[0]) == expected
            assert dtypes(population.fit(jax.random.split(key), data, recipe, numbers)[0]) == expected
