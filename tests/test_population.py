"""A member is what `fit` makes of it alone: whatever its neighbours, its order, the stops and the folds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import MLP, Recipe, data, loop, losses, metrics, population, training
from jaxmlp.types import Status

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3)).astype("f")
Y = np.sin(X[:, :1])
LABELS = (X.sum(1) > 0).astype("i4") + (X[:, 0] > 0.5)
RECIPE = Recipe(MLP((3, 8, 1)), losses.squared_error, optax.adam, epochs=6, batch_size=20)
CLASSES = Recipe(MLP((3, 8, 3)), losses.cross_entropy, optax.adam, epochs=6, batch_size=20, metrics=(metrics.accuracy,))
KEYS = jax.random.split(jax.random.key(7), 12)
RATES = {"learning_rate": jnp.logspace(-3, -1, 12)}


def same(a, b, rows=slice(None)):
    """Whether two populations are equal bit for bit."""
    pairs = zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True)
    return all(np.array_equal(np.asarray(p)[rows], np.asarray(q)) for p, q in pairs)


def close(state, other):
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_member_is_its_solo_run_after_a_hundred_steps():
    recipe = Recipe(MLP((3, 8, 1), "tanh"), losses.squared_error, optax.adam, epochs=20, batch_size=18)
    states, history = population.fit(KEYS, (X, Y), recipe, RATES, validation=(X, Y))
    assert history["loss"].shape == (12, 20) and states.step.tolist() == [100] * 12
    for i in (0, 5, 11):
        alone, record = jaxmlp.fit(
            KEYS[i], (X, Y), recipe, {"learning_rate": RATES["learning_rate"][i]}, validation=(X, Y)
        )
        close(population.member(states, i), alone)
        np.testing.assert_allclose(history["validation_loss"][i], record["validation_loss"], rtol=1e-5)
        assert (jax.random.key_data(states.key[i]) == jax.random.key_data(alone.key)).all()


@pytest.mark.bits
def test_width_one_is_the_solo_run_bit_for_bit():
    plan = population.plan(KEYS, (X, Y), RECIPE, RATES, width=1)
    states, _ = population.fit(KEYS, (X, Y), RECIPE, RATES, plan=plan)
    alone, _ = jaxmlp.fit(KEYS[4], (X, Y), RECIPE, {"learning_rate": RATES["learning_rate"][4]})
    assert same(population.take(states, [4]), jax.tree.map(lambda a: a[None], alone))


@pytest.mark.bits
@given(st.lists(st.integers(0, 11), min_size=1, max_size=12))
def test_bits_depend_on_neither_number_nor_order_nor_neighbours(members):
    """One trace serves all sizes that fill as many blocks, so this also says that shapes stay few."""
    every, _ = population.fit(KEYS, (X, Y), RECIPE, RATES)
    who = np.array(members)
    some, _ = population.fit(KEYS[who], (X, Y), RECIPE, {"learning_rate": RATES["learning_rate"][who]})
    assert same(every, some, who)


@pytest.mark.bits
def test_one_block_a_device_makes_the_bits_of_many():
    """This net once had others, where all members of a device were one block."""
    x = np.random.default_rng(0).normal(size=(100, 8)).astype("f")
    net = MLP((8, 33, 1), "gelu", norm="layer", dropout=True)
    recipe, keys = Recipe(net, losses.squared_error, optax.adam, epochs=4), jax.random.split(jax.random.key(0), 24)
    data, numbers = (x, np.sin(x[:, :1])), {"learning_rate": 0.01, "dropout_rate": 0.1}

    def states(count):
        plan = population.plan(count, data, recipe, numbers, width=4)
        return population.fit(keys[:count], data, recipe, numbers, plan=plan)[0]

    a_block_each = 4 * len(jax.local_devices())
    assert same(states(a_block_each + 13), states(a_block_each), np.arange(a_block_each))


def test_a_sweep_compiles_once_and_three_widths_three_times():
    before = training.trace_count()
    keys, hyperparams = population.grid(seeds=4, learning_rate=np.logspace(-4, -1, 50), weight_decay=[0.0, 1e-3, 1e-2])
    recipe = Recipe(MLP((3, 4, 1)), losses.squared_error, optax.adamw, epochs=1, batch_size=45)
    _, history = population.fit(keys, (X, Y), recipe, hyperparams)
    assert history["loss"].shape == (600, 1) and training.trace_count() == before + 1
    recipes = [Recipe(MLP((3, w, 1)), losses.squared_error, optax.adam, epochs=1, batch_size=45) for w in (4, 5, 6)]
    population.fit(KEYS, (X, Y), recipes * 4, RATES)
    assert training.trace_count() == before + 4


def test_recipes_of_many_shapes_come_back_in_the_callers_order():
    wide = Recipe(MLP((3, 6, 6, 1), "tanh"), losses.squared_error, optax.adam, epochs=3, batch_size=20)
    recipes = [RECIPE, wide, RECIPE, wide]
    states, history = population.fit(KEYS[:4], (X, Y), recipes, {"learning_rate": RATES["learning_rate"][:4]})
    assert history["loss"].shape == (4, 6) and np.isnan(history["loss"][1, 3:]).all()
    for i, recipe in enumerate(recipes):
        alone, record = jaxmlp.fit(KEYS[i], (X, Y), recipe, {"learning_rate": RATES["learning_rate"][i]})
        close(population.member(states, i), alone)
        np.testing.assert_allclose(history["loss"][i, : recipe.epochs], record["loss"], rtol=1e-4)
    assert population.best(states, history)[1] == int(population.ranking(history)[0])
    assert len(population.take(states, [3, 1])) == 2


def test_a_diverged_member_is_frozen_marked_and_changes_no_bit_of_the_others():
    good, _ = population.fit(KEYS, (X, Y), RECIPE, RATES)
    rates = RATES["learning_rate"].at[3].set(1e38)
    states, history = population.fit(KEYS, (X, Y), RECIPE, {"learning_rate": rates})
    others = np.arange(12) != 3
    assert history["status"].tolist() == [0, 0, 0, 2] + [0] * 8
    assert same(good, population.take(states, np.flatnonzero(others)), others)
    ran = int(history["epochs"][3])
    assert ran < 6 and np.isfinite(history["loss"][3, :ran]).all() and np.isnan(history["loss"][3, ran:]).all()
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(population.member(states, 3).params))
    for verb in (lambda: population.ranking(history), lambda: population.best(states, history)):
        with pytest.warns(UserWarning, match="1 of 12 members diverged and are left out") as warned:
            verb()
        assert warned[0].filename == __file__
    with pytest.warns(UserWarning):
        assert 3 not in population.ranking(history)


def test_early_stopping_keeps_the_best_weights_and_compiles_once():
    recipe = Recipe(MLP((3, 16, 1)), losses.squared_error, optax.adam, epochs=40, batch_size=20)
    rates = {"learning_rate": jnp.logspace(-3, 0, 12)}
    before, seen = training.trace_count(), []
    states, history = population.fit(
        KEYS,
        (X[:60], Y[:60]),
        recipe,
        rates,
        validation=(X[60:], Y[60:]),
        patience=3,
        callback=lambda e, s: seen.append(e),
    )
    assert training.trace_count() == before + 1 and seen == sorted(set(seen)) and len(seen) > 5
    losses_, ran, best = (np.asarray(history[name]) for name in ("validation_loss", "epochs", "best_epoch"))
    assert {0, 1} >= set(history["status"].tolist()) and 1 in history["status"]
    for i in range(12):
        seen_losses = losses_[i, : ran[i]]
        assert best[i] == seen_losses.argmin() and np.isnan(losses_[i, ran[i] :]).all()
        if history["status"][i] == 1:
            assert ran[i] - 1 - best[i] == 3
        found = jaxmlp.evaluate(population.member(states, i).params, (X[60:], Y[60:]), recipe, {"learning_rate": 0.0})
        np.testing.assert_allclose(found["loss"], seen_losses.min(), rtol=1e-5)
    # What it did until its stop is what it would have done without one.
    _, through = population.fit(KEYS, (X[:60], Y[:60]), recipe, rates, validation=(X[60:], Y[60:]))
    there = ~np.isnan(losses_)
    np.testing.assert_allclose(losses_[there], np.asarray(through["validation_loss"])[there], rtol=1e-5)


def test_halving_keeps_the_best_and_the_survivor_is_its_solo_run():
    recipe = Recipe(MLP((3, 8, 1)), losses.squared_error, optax.adam, epochs=9, batch_size=20)
    before = training.trace_count()
    states, history = population.halving(KEYS, (X, Y), recipe, RATES, validation=(X, Y), factor=3, first=1)
    assert sorted(history["epochs"].tolist()) == [1] * 8 + [3] * 2 + [9] * 2
    assert training.trace_count() == before + 1
    first = np.asarray(history["validation_loss"][:, 0])
    assert set(np.argsort(first)[:4]) == set(np.flatnonzero(history["epochs"] > 1))
    i = int(np.flatnonzero(history["status"] == 0)[0])
    alone, _ = jaxmlp.fit(KEYS[i], (X, Y), recipe, {"learning_rate": RATES["learning_rate"][i]})
    close(population.member(states, i), alone)


def test_rows_are_fit_on_those_rows_also_where_they_are_fewer():
    rows = np.full((4, 60), -1)
    for i, n in enumerate((60, 59, 41, 20)):
        rows[i, :n] = np.random.default_rng(i).choice(90, n, replace=i % 2 == 1)
    rates = {"learning_rate": RATES["learning_rate"][:4]}
    whole = Recipe(MLP((3, 8, 1)), losses.squared_error, optax.adam, epochs=6)
    for recipe, checked in ((RECIPE, range(4)), (whole, [1])):
        states, history = population.fit(KEYS[:4], (X, Y), recipe, rates, rows=rows, validation_rows=rows[::-1])
        for i in checked:
            mine, other = rows[i][rows[i] >= 0], rows[3 - i][rows[3 - i] >= 0]
            alone, record = jaxmlp.fit(
                KEYS[i],
                (X[mine], Y[mine]),
                recipe,
                {"learning_rate": rates["learning_rate"][i]},
                validation=(X[other], Y[other]),
            )
            close(population.member(states, i), alone)
            assert states.step[i] == alone.step
            np.testing.assert_allclose(history["validation_loss"][i], record["validation_loss"], rtol=1e-4)


def test_weights_and_data_of_each_member_are_those_of_fit():
    weights = RNG.uniform(0, 2, (3, 90)).astype("f")
    rates = {"learning_rate": RATES["learning_rate"][:3], "eps": 1e-8}
    weighted, _ = population.fit(KEYS[:3], (X, Y), RECIPE, rates, weights=weights)
    tables = np.stack([X, X + 1, 2 * X]), np.stack([Y, Y, -Y])
    tables_of = population.each(*tables)
    own, _ = population.fit(KEYS[:3], tables_of, RECIPE, rates, validation=tables_of)
    for i in range(3):
        numbers = {"learning_rate": rates["learning_rate"][i]}
        close(population.member(weighted, i), jaxmlp.fit(KEYS[i], (X, Y, weights[i]), RECIPE, numbers)[0])
        close(population.member(own, i), jaxmlp.fit(KEYS[i], (tables[0][i], tables[1][i]), RECIPE, numbers)[0])


def test_whose_a_table_is_the_caller_says():
    """Twelve members and a table of twelve examples: its meaning must not hang on the number of keys."""
    rows, targets = RNG.normal(size=(12, 5, 3)).astype("f"), RNG.normal(size=(12, 5, 1)).astype("f")
    recipe = Recipe(MLP((3, 4, 1)), losses.squared_error, optax.adam, epochs=1)
    eleven, _ = population.fit(KEYS[:11], (rows, targets), recipe, {"learning_rate": 0.01})
    with pytest.raises(ValueError, match=r"12 members or 12 examples.*population.each\(x, y\).*population.shared"):
        population.fit(KEYS, (rows, targets), recipe, {"learning_rate": 0.01})
    twelve, _ = population.fit(KEYS, population.shared(rows, targets), recipe, {"learning_rate": 0.01})
    assert same(twelve, eleven, slice(11))
    own, _ = population.fit(KEYS, population.each(rows, targets), recipe, {"learning_rate": 0.01})
    close(population.member(own, 3), jaxmlp.fit(KEYS[3], (rows[3], targets[3]), recipe, {"learning_rate": 0.01})[0])
    with pytest.raises(ValueError, match=r"each member must have shapes \(11, N, ...\)"):
        population.fit(KEYS[:11], population.each(rows, targets), recipe, {"learning_rate": 0.01})


def test_one_word_for_stops_and_callbacks_at_both_doors():
    """`stop=` and `callbacks=` of fit are those of loop.train, and equal to the older spellings bit for bit."""
    told = {"validation": (X[60:], Y[60:]), "progress": False}
    recipe = Recipe(MLP((3, 8, 1)), losses.squared_error, optax.adam, epochs=20, batch_size=20)
    rates = {"learning_rate": jnp.logspace(-3, 0, 12)}
    seen = {"fit": [], "loop": []}
    rules = [population.Patience(3, 1e-3), population.Target("validation_loss", at_most=0.02)]
    both = {}
    for name, door in (("fit", population.fit), ("loop", loop.train)):
        options = dict(told) if name == "loop" else {"validation": told["validation"]}
        look = lambda state, history, name=name: seen[name].append((state.step.shape, history.status.shape))  # noqa: E731
        both[name] = door(KEYS, (X[:60], Y[:60]), recipe, rates, stop=rules, callbacks=[look], **options)
    assert same(both["fit"][0], both["loop"][0])
    for name, values in both["fit"][1].items():
        np.testing.assert_array_equal(values, both["loop"][1][name], err_msg=name)
    assert set(seen["fit"]) == set(seen["loop"]) == {((12,), (12,))}
    assert Status.STOPPED in both["fit"][1].status
    older, _ = population.fit(KEYS, (X[:60], Y[:60]), recipe, rates, validation=told["validation"], patience=3)
    newer, _ = population.fit(
        KEYS, (X[:60], Y[:60]), recipe, rates, validation=told["validation"], stop=population.Patience(3)
    )
    assert same(older, newer)
    halved, _ = population.halving(KEYS, (X, Y), RECIPE, RATES, by="loss")
    ruled, _ = population.fit(KEYS, (X, Y), RECIPE, RATES, stop=population.Halving(by="loss"))
    assert same(halved, ruled)


def test_a_budget_of_seconds_ends_a_population_after_a_chunk():
    recipe = Recipe(MLP((3, 8, 1)), losses.squared_error, optax.adam, epochs=64, batch_size=20)
    _, history = population.fit(KEYS, (X, Y), recipe, RATES, stop=population.Budget(1e-9))
    assert history.epochs.tolist() == [2] * 12 and np.isnan(history["loss"][:, 2:]).all()


def test_the_loop_trains_lists_of_recipes_and_waves_as_fit_does(tmp_path):
    """Each part is saved in a directory of its own, and the same call goes on from where they are."""
    wide = Recipe(MLP((3, 6, 1), "tanh"), losses.squared_error, optax.adam, epochs=3, batch_size=20)
    recipes, rates = [RECIPE, wide, RECIPE, wide], {"learning_rate": RATES["learning_rate"][:4]}
    straight, record = population.fit(KEYS[:4], (X, Y), recipes, rates)
    for _ in range(2):
        states, history = loop.train(KEYS[:4], (X, Y), recipes, rates, progress=False, directory=tmp_path / "recipes")
        assert all(same(a, b) for a, b in zip(straight, states, strict=True))
        np.testing.assert_array_equal(record["loss"], history["loss"])
    assert {path.name for path in (tmp_path / "recipes").iterdir()} == {"recipe-000", "recipe-001"}
    plan = dataclasses.replace(population.plan(KEYS, (X, Y), RECIPE, RATES, width=2), wave=4)
    straight, record = population.fit(KEYS, (X, Y), RECIPE, RATES, plan=plan)
    stopped = []

    def interrupt(state, history):
        stopped.append(len(state.step))
        if len(stopped) == 4:
            raise InterruptedError

    options = {"plan": plan, "progress": False, "directory": tmp_path / "waves", "every": 3}
    with pytest.raises(InterruptedError):
        loop.train(KEYS, (X, Y), RECIPE, RATES, callbacks=[interrupt], **options)
    assert stopped == [4, 4, 4, 4]
    states, history = loop.train(KEYS, (X, Y), RECIPE, RATES, **options)
    assert same(straight, states)
    np.testing.assert_array_equal(record["loss"], history["loss"])
    # The waves stay as they began, also where there would be room for all members at once now.
    again, _ = loop.train(KEYS, (X, Y), RECIPE, RATES, **(options | {"plan": None}))
    assert same(straight, again)
    with pytest.raises(ValueError, match="plan must have waves of 4 members, as the run in .* began; got 12"):
        loop.train(KEYS, (X, Y), RECIPE, RATES, **(options | {"plan": dataclasses.replace(plan, wave=12)}))
    with pytest.raises(
        ValueError, match="its parts wave-000, wave-001, wave-002 are resumed by the call of loop.train"
    ):
        loop.resume(tmp_path / "waves", (X, Y))


def test_recipes_share_what_the_whole_call_shares():
    """Whose a table is, and the names of numbers, are asked of all members and not of those of one recipe."""
    rows, targets = RNG.normal(size=(4, 6, 3)).astype("f"), RNG.normal(size=(4, 6, 1)).astype("f")
    one = Recipe(MLP((3, 4, 1)), losses.squared_error, optax.sgd, epochs=1)
    two = dataclasses.replace(one, optimizer=optax.adam)
    numbers = [{"learning_rate": 0.1, "momentum": 0.9}] * 2 + [{"learning_rate": 0.1, "b1": 0.8}] * 2
    with pytest.raises(ValueError, match="4 members or 4 examples"):
        population.fit(KEYS[:4], (rows, targets), [one, one, two, two], numbers)
    told = population.each(rows, targets)
    states, _ = population.fit(KEYS[:4], told, [one, one, two, two], numbers, rows=[[0, 1, 2, 3]] * 2 + [[4, 5]] * 2)
    for i, recipe, which in ((1, one, slice(0, 4)), (2, two, slice(4, 6))):
        close(states[i], jaxmlp.fit(KEYS[i], (rows[i][which], targets[i][which]), recipe, numbers[i])[0])


def test_the_older_callback_of_halving_is_called_at_the_rungs():
    seen = []
    recipe = Recipe(MLP((3, 4, 1)), losses.squared_error, optax.adam, epochs=9, batch_size=45)
    population.halving(KEYS, (X, Y), recipe, RATES, by="loss", callback=lambda epochs, status: seen.append(epochs))
    assert seen == [1, 3]


def test_a_callback_sees_a_history_that_ranks():
    seen = []
    population.fit(
        KEYS[:3],
        (X, Y),
        RECIPE,
        {"learning_rate": 0.01},
        validation=(X, Y),
        stop=population.Patience(4),
        callbacks=[
            lambda states, history: seen.append((population.best(states, history)[1], history.best_epoch.shape))
        ],
    )
    assert seen and all(best in range(3) and shape == (3,) for best, shape in seen)


def test_a_budget_is_that_of_all_parts():
    recipe = Recipe(MLP((3, 4, 1)), losses.squared_error, optax.adam, epochs=4, batch_size=45)
    recipes = [recipe, dataclasses.replace(recipe, batch_size=30)]
    plan = dataclasses.replace(population.plan(KEYS[:4], (X, Y), recipe, RATES, width=1), wave=2)
    rate = {"learning_rate": 0.01}
    for door, quiet in ((population.fit, {}), (loop.train, {"progress": False, "every": 1})):
        _, history = door(KEYS[:2], (X, Y), recipes, rate, stop=population.Budget(1e-9), **quiet)
        assert history.epochs.tolist() == [1, 0]
        _, history = door(KEYS[:4], (X, Y), recipe, rate, stop=population.Budget(1e-9), plan=plan, **quiet)
        assert history.epochs.tolist() == [1, 1, 0, 0]


def test_cross_validation_is_a_loop_over_the_folds():
    key = jax.random.key(3)
    found = population.cross_validate(
        key, (X, LABELS), CLASSES, {"learning_rate": jnp.array([1e-3, 1e-2])}, folds=2, stratify=LABELS, seeds=2
    )
    assert {name: a.shape for name, a in found.scores.items()} == {"loss": (4, 2), "accuracy": (4, 2)}
    fold_key, run_key = jax.random.split(key)
    for f, split in enumerate(data.k_folds(fold_key, 90, 2, stratify=LABELS)):
        by = data.statistics(X[split.train])
        train = data.standardise(X[split.train], by), LABELS[split.train]
        test = data.standardise(X[split.test], by), LABELS[split.test]
        _, record = jaxmlp.fit(jax.random.fold_in(run_key, 1), train, CLASSES, {"learning_rate": 1e-2}, validation=test)
        np.testing.assert_allclose(found.scores["loss"][3, f], record["validation_loss"][-1], rtol=1e-4)
        np.testing.assert_allclose(found.scores["accuracy"][3, f], record["validation_accuracy"][-1], rtol=1e-5)
    single = population.cross_validate(key, (X, Y), RECIPE, {"learning_rate": 1e-2}, folds=3, standardise="xy")
    assert single.scores["loss"].shape == (3,) and set(single.statistics[0]) == {"x", "y"}


def test_a_budget_gives_waves_with_the_same_bits():
    every, record = population.fit(KEYS, (X, Y), RECIPE, RATES)
    whole = population.plan(KEYS, (X, Y), RECIPE, RATES, width=2)
    tight = None
    for memory in range(8_000, 400_000, 2_000):  # the smallest budget that will do
        try:
            tight = population.plan(KEYS, (X, Y), RECIPE, RATES, width=2, memory=memory)
            break
        except ValueError:
            continue
    assert tight.wave < whole.wave == 12 and "waves" in str(tight) and "waves" not in str(whole)
    one, _ = population.fit(KEYS, (X, Y), RECIPE, RATES, plan=whole)
    many, history = population.fit(KEYS, (X, Y), RECIPE, RATES, plan=tight)
    assert isinstance(many.params[0].w, np.ndarray) and same(one, many)
    np.testing.assert_allclose(history["loss"], record["loss"], rtol=1e-5)


def test_the_plan_says_what_and_why():
    text = str(population.plan(KEYS, (X, Y), RECIPE, RATES))
    assert "12 members on 2 CPU devices, 6 together on each" in text and "stay in the cache" in text
    big = Recipe(MLP((784, 512, 10)), losses.cross_entropy, optax.adam, epochs=1, batch_size=128)
    text = str(population.plan(4, (np.zeros((128, 784), "f"), np.zeros(128, "i4")), big, {"learning_rate": 0.1}))
    assert "one after the other" in text and "one member fills a core" in text
