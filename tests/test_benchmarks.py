"""The benchmarks run, and `small` compares like with like; no test here depends on a time."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmlp
from benchmarks import population, small
from benchmarks.__main__ import main
from jaxmlp import MLP, Recipe, losses


def test_the_command_prints_a_table_and_writes_rows(tmp_path, capsys):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert main(["small", "--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {"benchmark", "contender", "value", "unit", "ratio"} <= set(rows[0])
    assert [row["contender"] for row in rows[:3]] == ["scan by hand", "jaxmlp.fit", "scan by hand, sorting"]
    assert rows[0]["ratio"] == 1
    assert "python -m benchmarks small" in capsys.readouterr().out


def test_the_scan_by_hand_does_the_same_work(loose):
    """Same law of the initial weights, same number of steps, same kind of data: the losses end alike."""
    x = jax.random.normal(jax.random.key(0), (small.ROWS, 8))
    y = jnp.sin(x[:, :1])
    recipe = Recipe(MLP((8, 50, 1)), losses.squared_error, optax.adam, epochs=30, batch_size=small.BATCH)
    _, history = jaxmlp.fit(jax.random.key(0), (x, y), recipe, {"learning_rate": small.RATE})
    with jax.numpy_rank_promotion("allow"):
        _, by_hand = small.by_hand(jax.random.key(0), x, y, sizes=(8, 50, 1), epochs=30, sort=False)
    np.testing.assert_allclose(np.log(by_hand[-1]), np.log(history["loss"][-1]), atol=0.5)


def test_an_unknown_name_is_named(capsys):
    assert main(["smal"]) == 2
    assert "did you mean 'small'?" in capsys.readouterr().err


def test_the_population_counts_its_steps_right():
    """A rate is steps over time: a contender that took fewer than it says would look fast."""
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("f")
    runs, steps = population.contenders((3, 4, 1), (x, x[:, :1]), losses.squared_error, 20, members=4, epochs=2)
    states, _ = runs["population.fit"]()
    assert int(states.step.sum()) == steps["population.fit"] == 4 * 2 * 3
    assert sum(int(state.step) for state, _ in runs["jaxmlp.fit in a loop"]()) == steps["jaxmlp.fit in a loop"]
