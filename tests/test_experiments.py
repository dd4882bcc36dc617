"""Every experiment runs as a user runs it, every claim holds, and the terminal shows what it should."""

import gzip
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import report
from experiments.__main__ import NAMES, main


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Experiments are programs: JAX as it comes, without the strictness that the library is tested under."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_holds(name, tmp_path, capsys):
    assert main([name, "--figures", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert " yes" in out and " NO" not in out and f"ok {name}" in out
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


def test_an_unknown_name_is_named(capsys):
    assert main(["colapse"]) == 2
    assert "did you mean 'collapse'?" in capsys.readouterr().err


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
