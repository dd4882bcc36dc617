"""The benchmarks run, and their contenders do the same work; no test here depends on a time."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import accelerator, crowds, inference, peaks, peers, population, quality, scaling, show, small
from benchmarks import compile as start_up
from benchmarks.__main__ import NAMES, main
from benchmarks.tasks import Task, table
from benchmarks.timing import Peer, in_turn, installed

# The peers warn of their own future; that is not ours.
pytestmark = [pytest.mark.usefixtures("as_users_run_it"), pytest.mark.filterwarnings("ignore")]
HERE = [peer for peer in peers.PEERS if importlib.util.find_spec(peer.module) is not None]


@pytest.fixture
def as_users_run_it(tmp_path, monkeypatch):
    """The peers and what is written by hand mix dtypes; the figures go elsewhere."""
    monkeypatch.setattr(show, "FOLDER", tmp_path / "figures")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def task(sizes):
    return Task(sizes, *table(sizes, 50), batch=16, epochs=3)  # the last batch of an epoch has two rows


@pytest.fixture(scope="module")
def trained():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return {sizes: peers.fit(task(sizes))() for sizes in ((4, 8, 1), (6, 8, 5, 3))}


@pytest.mark.parametrize("sizes", [(4, 8, 1), (6, 8, 5, 3)])
@pytest.mark.parametrize("peer", HERE, ids=[peer.name for peer in HERE])
def test_every_contender_trains_the_same_network(peer, sizes, trained):
    weights = jax.tree.leaves(peer.make(task(sizes))())
    expected = jax.tree.leaves(trained[sizes])
    assert [a.shape for a in weights] == [a.shape for a in expected]
    if peer.name == "scikit-learn":  # draws its own weights
        return
    tolerance = 5e-2 if peer.name in peers.OWN_ORDER else 1e-2 if "bfloat16" in peer.name else 2e-6
    for one, other, before in zip(weights, expected, (a for layer in task(sizes).weights for a in layer), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)
        assert np.abs(other - before).max() > 5e-4  # it moved


@pytest.mark.parametrize("peer", HERE, ids=[peer.name for peer in HERE])
def test_no_contender_compiles_while_it_is_timed(peer, caplog):
    """A peer that compiles anew in each run would look slow, and we fast."""
    run = peer.make(task((4, 8, 1)))
    run()
    with jax.log_compiles():
        jax.block_until_ready(run())
    assert "Compiling" not in caplog.text


@pytest.mark.parametrize("peer", installed([crowds.FIT, *crowds.CROWDS]), ids=lambda peer: peer.name)
def test_no_crowd_compiles_while_it_is_timed(peer, caplog):
    """Nor do those that train many, each at a rate of its own: at rate zero three epochs are as one."""
    rates = np.array([0.0, 1e-2], "f")
    run = peer.make(task((4, 8, 1)), rates)
    run()
    with jax.log_compiles():
        found = run()
    assert "Compiling" not in caplog.text
    sooner = peer.make(task((4, 8, 1)).with_epochs(1), rates)()
    found, sooner = (out[0].params if peer is crowds.FIT else out for out in (found, sooner))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(sooner), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert np.abs(np.asarray(one[1]) - other[1]).max() > 1e-4


@pytest.mark.parametrize("kind", [inference.ONE, inference.MANY], ids=["one row", "many rows"])
def test_every_predictor_gives_the_same_outputs(kind):
    given = Task((5, 8, 7, 3), *table((5, 8, 7, 3), 30), batch=10, epochs=1)
    expected = inference.by_hand(given.state.params, given.x)
    for peer in installed(kind):
        if peer.name == "scikit-learn":  # gives probabilities
            expected_here, tolerance = jax.nn.softmax(expected), 1e-5
        else:
            expected_here, tolerance = expected, 5e-2 if "bfloat16" in peer.name else 1e-5
        outputs = peer.make(given)(given.x[:1]) if kind is inference.ONE else peer.make(given, given.x)()
        np.testing.assert_allclose(outputs, expected_here[: len(outputs)], atol=tolerance, err_msg=peer.name)
        assert len(outputs) == (1 if kind is inference.ONE else 30)


def test_the_command_prints_a_table_and_writes_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(small, "NETS", ((8, 50, 1),))
    assert main(["small", "--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {"benchmark", "contender", "value", "unit", "ratio"} <= set(rows[0])
    assert [row["contender"] for row in rows[:2]] == ["jaxmlp.fit", "JAX by hand, one scan"]
    assert rows[0]["ratio"] == 1
    printed = capsys.readouterr().out
    assert "python -m benchmarks small --quick" in printed
    assert max(len(line) for line in printed.splitlines() if not line.startswith("figure")) <= 80
    assert (tmp_path / "figures" / "benchmark_small.png").is_file()


def test_several_names_run_apart(monkeypatch, tmp_path):
    calls = []

    def run(command, check):
        calls.append(command[1:])
        Path(command[command.index("--json") + 1]).write_text(json.dumps([{"benchmark": command[3]}]))

    monkeypatch.setattr(subprocess, "run", run)
    assert main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    assert [call[:3] for call in calls] == [["-m", "benchmarks", name] for name in NAMES]
    assert all(call[-1] == "--quick" for call in calls)
    assert [row["benchmark"] for row in json.loads((tmp_path / "rows.json").read_text())] == list(NAMES)


def test_an_unknown_name_is_named(capsys):
    assert main(["smal"]) == 2
    assert "did you mean 'small'?" in capsys.readouterr().err


def test_who_is_not_installed_is_named(capsys):
    here, absent = Peer("NumPy", "numpy", None), Peer("Nobody", "no_such_module", None)
    assert installed([here, absent]) == [here]
    assert capsys.readouterr().out == "left out, not installed: Nobody (no_such_module)\n"
    assert installed([here, absent]) == [here] and capsys.readouterr().out == ""  # said once


def test_ratios_say_how_many_times_the_first_is_ahead(monkeypatch):
    """A clock by hand: `slow` takes three times as long for a piece, and does half as many."""
    now = iter(np.cumsum([0, 2.0, 0, 3.0] * 2).tolist())
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    quick, slow = in_turn("b", {"q": list, "s": list}, {"q": 4, "s": 2}, unit="steps/s", repeats=2)
    assert (quick.value, quick.ratio, slow.ratio) == (2.0, 1.0, 3.0)
    assert slow.low <= slow.value <= slow.high


def test_the_population_counts_its_steps_right():
    """A rate is steps over time: a contender that took fewer than it says would look fast."""
    small_task = Task((3, 4, 1), *table((3, 4, 1), 50), batch=20, epochs=1)
    runs, steps = population.contenders(small_task, members=4, epochs=2, alone=True)
    states, _ = runs["population.fit"]()
    assert int(states.step.sum()) == steps["population.fit"] == 4 * 2 * 3
    assert sum(int(state.step) for state, _ in runs["jaxmlp.fit in a loop"]()) == steps["jaxmlp.fit in a loop"]


@pytest.mark.long
def test_the_accelerator_runs_toy_sizes_here_and_is_left_out_otherwise(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(accelerator, "TOY", (16,))
    rows = accelerator.run(quick=True)
    assert {"width 16, bfloat16", "accelerator", "8-50-1", "4 of 64-64-10"} <= {row.benchmark for row in rows}
    assert all(row.value > 0 for row in rows) and (tmp_path / "figures" / "roofline.png").is_file()
    assert accelerator.run() == [] and "no accelerator" in capsys.readouterr().out


def test_the_first_step_is_taken_in_a_process_of_its_own():
    assert 0 < start_up._start("jaxmlp.fit", 1, 2, None)
    heavy = subprocess.run(
        [sys.executable, "-c", "import sys, benchmarks.compile; print('jax' in sys.modules)"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert heavy.stdout.strip() == "False"  # or every contender would pay for JAX's import


def test_exponents_are_slopes_of_the_larger_sizes():
    sizes = [1, 10, 100, 1000]
    assert scaling.exponent(sizes, [5.0, 5.0, 1e4, 1e6]) == pytest.approx(2.0)


def test_products_are_counted_by_hand():
    """2-3-1: 6 + 3 products forward and again for the weights, 3 for the hidden layer's gradient, two FLOPs each."""
    assert peaks.training_flops((2, 3, 1)) == 2 * (9 + 9 + 3)
    assert peaks.matmul("bfloat16", shapes=peaks.SMALL, repeats=1) > 0


def test_the_fewest_epochs_are_found():
    problem = quality.Problem("p", (1, 1), 1, 0.75, 4, *[np.arange(4)] * 4)

    def make(problem, epochs, seed):
        return lambda: lambda x: np.where(x < epochs + seed, x, -1)  # right for so many of four

    peer = Peer("p", "numpy", make)
    assert quality.fewest(peer, problem, (1, 2, 3, 4), (0, 1, 2)) == (2, 0.75)
    assert quality.fewest(peer, problem, (1,), (0,)) == (1, 0.25)
