"""The benchmarks run, and their contenders do the same work; no test here depends on a time."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import (
    accelerator,
    crowds,
    devices,
    equations,
    inference,
    lowering,
    paper,
    peaks,
    peers,
    population,
    quality,
    scaling,
    show,
    small,
)
from benchmarks import compile as start_up
from benchmarks.__main__ import NAMES, main
from benchmarks.equations import H100, V5E, Hardware, Split
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


def test_every_name_is_a_module_that_runs():
    assert {"devices", "paper"} <= set(NAMES)
    for name in NAMES:
        assert "def run(*, quick: bool = False" in (Path(small.__file__).parent / f"{name}.py").read_text()


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


def test_a_ring_sends_each_byte_round_but_once():
    """Eight by NVLink: 7/8 of 450 GB at 450 GB/s, twice. Sixteen: besides, half of an eighth by InfiniBand."""
    assert equations.all_reduce(450e9, H100, 8) == pytest.approx(2 * 7 / 8)
    assert equations.all_gather(450e9, H100, 16) == pytest.approx(7 / 8 + 1 / 2 * (450 / 8) / 50)
    assert equations.all_gather(50e9, H100, 2, inside=8) == pytest.approx(1 / 2)  # no neighbour within the eight
    assert equations.all_gather(100e9, V5E, 32, inside=8) == pytest.approx(31 / 32)  # one pod of 256
    assert equations.all_gather(100e9, V5E, 128, inside=8) == pytest.approx(31 / 32 + 3 / 4 * (100 / 32) / 3.125)
    assert equations.all_reduce(1.0, H100, 1) == 0


def test_what_a_split_net_sends_is_counted_by_hand():
    """Four layers 4 x 4, P = 80, two rows a shard; sums over "model" of two outputs and of one input's gradient."""
    sizes = (4,) * 5
    assert equations.parameters(sizes) == 80
    assert equations.summed(sizes, 2, Split(1, 1)) == (0, 0, 0)
    assert equations.summed(sizes, 2, Split(1, 2)) == (3 * 2 * 4 * 4, 0, 0)
    assert equations.summed(sizes, 2, Split(4, 2)) == (3 * 2 * 4 * 4, 0, 4 * 80 / 2)
    assert equations.sent(sizes, 2, Split(4, 2)) == 2 * (1 / 2) * 96 + 2 * (3 / 4) * 160
    assert equations.summed(sizes, 2, Split(4, 1, sharded=True)) == (0, 2 * 80, 4 * 80)
    assert equations.sent(sizes, 2, Split(4, 1, sharded=True)) == (3 / 4) * (160 + 320)


UNIT = Hardware("of ones", 1.0, 1.0, 1.0, 1e3, ((float("inf"), 1.0),))


def test_a_step_of_the_wide_net_is_counted_by_hand():
    """Two layers 4 x 4, P = 40, one row a device; the first layer has no gradient of its input."""
    alone = equations.wide((4, 4, 4), 1, Split(1, 1), UNIT)
    assert alone.flops == 4 * 16 + 6 * 16
    assert alone.traffic == 40 * 40 + 24 * 8
    # State; x and y; both layers' inputs, narrow; a layer's gradient and sums.
    assert alone.held == 12 * 40 + 4 * 8 + 2 * 8 + 4 * (16 + 4)
    assert alone.bounds == (alone.traffic, alone.traffic)
    split = equations.wide((4, 4, 4), 1, Split(1, 2), UNIT)  # two rows a shard
    assert split.flops == alone.flops
    assert split.traffic == 40 * 20 + 24 * 2 * (4 + 4 / 2)
    assert split.seconds[2] == 2 * (1 / 2) * 2 * 4 * 4  # the last layer's outputs are summed
    assert split.bounds == (split.traffic, split.traffic + split.seconds[2])
    # Products take 160 a row, memory 1600 + 192: never the longest; at twice its speed, from 800 / 64 on.
    assert equations.enough_rows((4, 4, 4), Split(1, 1), UNIT) == float("inf")
    assert equations.enough_rows((4, 4, 4), Split(1, 1), UNIT._replace(memory=2.0)) == pytest.approx(800 / (160 - 96))
    data = equations.wide((4, 4, 4), 1, Split(4, 1), UNIT)
    assert (data.held, data.traffic, data.seconds[2]) == (alone.held, alone.traffic, 2 * 3 / 4 * 4 * 40)
    sharded = equations.wide((4, 4, 4), 1, Split(4, 1, sharded=True), UNIT)
    assert sharded.held == alone.held - 12 * 30 + 2 * 40
    assert sharded.traffic == 36 * 10 + 14 * 40 + 24 * 8
    assert sharded.seconds[2] == 3 / 4 * (2 + 4) * 40


def test_a_step_of_the_population_is_counted_by_hand():
    """2-3-1, P = 13, five members on two devices by twos: four places each; batch 2 of ten rows."""
    assert equations.slots(5, 2, 2) == 4 and equations.slots(100_000, 1024, 1024) == 1024
    step = equations.crowd((2, 3, 1), 2, 10, 4, 2, UNIT)
    assert step.flops == 4 * 2 * (4 * 6 + 6 * 3)
    assert step.traffic == 4 * (40 * 13 + 24 * 2 * 4 + 4 * 2 * 3)
    assert step.held == 12 * 13 * 4 + 4 * 10 * 3 + 2 * (36 * 13 + 12 * 2 * 4)
    assert step.seconds[2] == 0
    assert equations.tiled((2, 3, 1), 4) == 2 * 4 + 4 + 4 + 1
    tiles = equations.crowd((2, 3, 1), 2, 10, 4, 2, UNIT._replace(tile=4))
    assert tiles.held == step.held + 12 * 17 * 4


def test_the_compiled_step_sends_what_the_equations_say(monkeypatch):
    """A net that is compiled in no time, for eight devices, each collective counted; a population has none."""
    monkeypatch.setattr(paper, "WIDE", (512,) * 5)
    cases = [*paper.wide_cases((8,)), paper.Case(8, "4", width=4)]
    assert [case.layout for case in cases] == ["8 x 1", "8 x 1 sharded", "1 x 8", "4"]
    for case, found in zip(cases, paper.compiled("cpu", cases), strict=True):
        assert found["lowers"], case.name
        # A CPU's compiler gathers what is widened already, and sums whole what each device keeps a part of.
        more = 2 if case.split is not None and case.split.sharded else 1
        assert found["sent"] == pytest.approx(more * case.sent(), rel=0.01), case.name
        if case.split is not None:
            assert found["flops"] == pytest.approx(case.step(H100).flops, rel=0.15), case.name  # and Adam's, the ReLUs'


def test_what_a_program_would_need_is_read_from_the_compiler():
    refused = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm."
    assert lowering.needed(refused) == 17.5 * 2**30
    assert lowering.needed("the total memory required for HLO temporaries (96.00G) exceeds available") == 96 * 2**30
    with pytest.raises(RuntimeError, match="another"):
        lowering.needed("another error")


def test_the_tables_on_paper_fit_a_screen(capsys):
    paper.show([])
    printed = capsys.readouterr().out
    assert "128 x 8 sharded" in printed and "107 > 80" in printed and "\u2026" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_ratios_of_processes_are_those_of_their_rounds():
    told = {
        name: [{"first": 3.0, "run": run, "call": 0.5, "moved": 0} for run in (1.0, 2.0)]
        for name in devices.CONFIGURATIONS
    }
    told["2 processes of 1 device"] = [{"first": 3.0, "run": run, "call": 0.5, "moved": 0} for run in (1.5, 3.0)]
    rows = {(row.benchmark, row.contender): row for row in devices.rows_of(told, 12)}
    both = rows["devices: two devices", "2 processes of 1 device"]
    assert (both.ratio, both.low, both.high) == (1.5, 4.0, 8.0)
    assert rows["devices: compilation", "1 device"].value == 1.5
    with pytest.raises(RuntimeError, match="same bits"):
        devices.check_bits([{"digest": "a"}, {"digest": "b"}])


@pytest.mark.long
def test_two_processes_train_what_one_does():
    told = [devices.started(*devices.CONFIGURATIONS[name], devices.TOY) for name in devices.TABLES["two devices"]]
    devices.check_bits(told)
    assert all(each["moved"] == 0 for each in told)
