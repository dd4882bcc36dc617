"""Every experiment runs as a user runs it, every claim holds, and the terminal shows what it should."""

import gzip
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import report, tables, uci
from experiments.__main__ import FILES, NAMES, NEEDS, main

pytestmark = pytest.mark.bits


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Experiments are programs: JAX as it comes, without the strictness that the library is tested under."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# The longest run smaller here, and only where `pytest -m long` asks for them: `python -m experiments` runs them whole,
# and ends in an error where a claim fails.
LONG = (
    "activations approximation classification ensemble regression sweep uci variance vae pinn policy dynamics "
    "neural_ode bayes transfer sklearn"
).split()
SMALLER = {
    "activations": {"SEEDS": 2},
    "approximation": {"SEEDS": 2},
    "sweep": {"SEEDS": 2, "ALONE": 3},
    "uci": {"RATES": (3e-3,), "PARTS_OF_LONGEST": (16,)},
    "density": {"SEEDS": 2, "EPOCHS": 40},
    "dynamics": {"SEEDS": 4},
    "neural_ode": {"SEEDS": 2},
    "pinn": {"WEIGHTS": (0.1, 5.0, 100.0)},
    "policy": {"SEEDS": 4, "EPOCHS": 30},
    "vae": {"EPOCHS": 50},
    "sklearn": {"FOLDS": 3},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in LONG)) for n in NAMES])
def test_every_claim_holds(name, tmp_path, capsys, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    for constant, value in SMALLER.get(name, {}).items():
        monkeypatch.setattr(f"experiments.{FILES.get(name, name)}.{constant}", value)
    assert main([name, "--figures", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert " yes" in out and " NO" not in out and f"ok {name}" in out
    if name != "uci":  # a table
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert all(len(line) <= 80 for line in out.split("claims hold")[-1].splitlines())  # the table


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_classification_reads_idx_files_and_says_when_a_claim_fails(tmp_path, capsys):
    """Noise has no digits in it: the claim must fail, and the exit code must say so."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 256), ("t10k", 128)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 255, (n, 4, 4), "u1")))
        labels = rng.integers(0, 10, n, "u1")
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    assert main(["classification", "--data", str(tmp_path), "--figures", str(tmp_path)]) == 1
    assert " NO" in capsys.readouterr().out


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(SystemExit, match="must hold a file train-images"):
        main(["classification", "--data", str(tmp_path)])


def write_set(folder, x, y, splits):
    folder.mkdir()
    np.savetxt(folder / "data.txt", np.column_stack([y, x]))
    np.savetxt(folder / "index_features.txt", 1 + np.arange(x.shape[1]), fmt="%d")
    np.savetxt(folder / "index_target.txt", [0], fmt="%d")
    np.savetxt(folder / "n_splits.txt", [len(splits)], fmt="%d")
    for i, (train, test) in enumerate(splits):
        np.savetxt(folder / f"index_train_{i}.txt", train, fmt="%d")
        np.savetxt(folder / f"index_test_{i}.txt", test, fmt="%d")


def test_a_folder_of_sets_is_read_and_each_split_standardised_by_its_training_rows(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (30, 2)), rng.normal(5, 4, 30)
    x[:, 1] = 7.0
    splits = [(np.arange(20), np.arange(20, 30)), (np.arange(11, 30), np.arange(11))]  # of unequal sizes
    write_set(tmp_path / "noise", x, y, splits)
    table = tables.read(tmp_path / "noise")
    assert table.name == "noise" and table.x.shape == (30, 2) and table.y.shape == (30, 1)
    for i, (train, _) in enumerate(splits):
        mine = table.targets[table.rows(i)]
        np.testing.assert_allclose([mine.mean(), mine.std()], [0, 1], atol=1e-5)
        np.testing.assert_allclose(table.units[i][0], y[train].mean(), rtol=1e-6)
        assert (table.features[table.rows(i, test=True), 1] == 0).all()
    (tmp_path / "noise" / "index_test_1.txt").unlink()
    with pytest.raises(SystemExit, match="must hold index_test_1.txt"):
        tables.read(tmp_path / "noise")
    with pytest.raises(SystemExit, match="must hold a folder a set"):
        main(["uci", "--data", str(tmp_path / "noise")])


def test_the_stretch_is_the_one_of_least_nll():
    """Members that agree and are twice too sure: their variances are to be stretched by four."""
    rng = np.random.default_rng(0)
    y, zero = rng.normal(0, 2, (4000, 1)), np.zeros((4000, 1))
    _, factor = uci.best_stretch([[(zero, zero + 1)], [(zero, zero + 1)]], y)
    assert abs(factor - 4) < 0.4


def test_an_unknown_name_is_named(capsys):
    assert main(["colapse"]) == 2
    assert "did you mean 'collapse'?" in capsys.readouterr().err


def test_an_experiment_without_its_library_is_left_out_and_named_where_it_is_asked_for(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("experiments.__main__.NEEDS", {"line": "no_such_library"})
    monkeypatch.setattr("experiments.__main__.NAMES", ["line"])
    assert main(["--figures", str(tmp_path)]) == 0
    found = "needs no_such_library: pip install 'jaxmlp[experiments,compose]'\n"
    assert f"left out, it {found}" in capsys.readouterr().out
    assert main(["line"]) == 2
    assert capsys.readouterr().err == f"line {found}"


def test_a_terminal_gets_a_spinner_and_a_pipe_plain_lines(tmp_path, capsys):
    for terminal in (True, False):
        page = report.Report(tmp_path, Console(force_terminal=terminal, width=80))
        with page.experiment("line", "A question?"):
            page.stage("a stage")
            page.claim("a claim", expected="1", measured="2", holds=False)
        out = capsys.readouterr().out
        assert ("\x1b[" in out) == terminal
        assert ("   a stage" in out.splitlines()) == (not terminal)
        assert "0 of 1 claims hold" in out.replace("\x1b[1m", "").replace("\x1b[0m", "")
        assert not page.holds


@pytest.mark.parametrize(("module", "extra"), [("experiments", "experiments"), ("benchmarks", "benchmarks")])
def test_a_missing_extra_is_named(module, extra):
    program = f"import sys; sys.modules['tyro'] = None; from {module}.__main__ import main; sys.exit(main([]))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 2 and f"pip install 'jaxmlp[{extra}]'" in run.stderr
