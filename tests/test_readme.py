"""The README does what it says: its code runs and prints what it shows, its commands and figures are the project's."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmlp
from benchmarks import summary

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "docs/bits.md",
    "docs/devices.md",
    "docs/estimators.md",
    "docs/trust.md",
    "docs/objectives.md",
    "docs/programs.md",
)
README = (ROOT / "README.md").read_text()


def blocks(language, *pages):
    return [b for page in pages for b in re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)]


COMMANDS = [line for b in blocks("bash", "README.md", "benchmarks/README.md") for line in b.strip().splitlines()]
MODULES = {"experiments", "benchmarks", "pytest", "pip"}
NUMBER = r"\d+\.\d+"


def test_the_page_is_short():
    assert len(README.splitlines()) <= 260  # forty of them are two loops before and after


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # which scikit-learn's own would tell too
@pytest.mark.parametrize("page", ["docs/objectives.md", "docs/devices.md", "docs/estimators.md"])
def test_a_page_runs_as_one_program(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them saves
    found = {}
    for block in blocks("python", page):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as it is for a reader
            exec(block, found)
        shown = re.findall(r"^print\(.*# (.+)$", block, re.MULTILINE)
        assert capsys.readouterr().out.strip().splitlines() == shown


def test_the_script_for_two_processes_runs_as_it_stands(tmp_path):
    (script,) = blocks("py", "docs/devices.md")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "127.0.0.1:1234" in script
    (tmp_path / "joint.py").write_text(script.replace(":1234", f":{port}"))
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    # Into files of Python's own: Gloo's threads write to the process's output, into the midst of each other's lines.
    run = "import runpy, sys; sys.stdout = open(sys.argv[1] + '.txt', 'w', buffering=1); runpy.run_path('joint.py')"
    both = [
        subprocess.Popen([sys.executable, "-c", run, who], cwd=tmp_path, env=env, text=True, stdout=-1, stderr=-1)
        for who in "01"
    ]
    try:
        faults = [process.communicate(timeout=300)[1][-3000:] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], faults
    split = "(64, 64) of which a device has (64, 16)"
    found, other = ((tmp_path / f"{who}.txt").read_text().splitlines() for who in "01")
    assert re.fullmatch(r"\d of 6 is the best", found[0]) and found[1:] == other == [split]
    model, params = jaxmlp.load(tmp_path / "wide.safetensors")
    assert model.sizes == (1, 64, 64, 1) and params[1].w.shape == (64, 64)
    assert all((tmp_path / "runs" / name / "history.csv").is_file() for name in ("members", "wide"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_python_blocks_run_as_one_program(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them saves
    first, parts, members, saved, sklearns, mesh, emulator, dynamics = blocks("python", "README.md")
    assert not re.search(r"sklearn|orbax|safetensors|matplotlib", first)  # what the core does not bring
    found = {}
    exec(first, found)
    shown = re.findall(r"^# (.+)", first, re.MULTILINE)
    printed = capsys.readouterr().out.strip().splitlines()
    # The words as they stand; other processors round a hundred epochs otherwise, so the numbers nearly.
    assert [re.sub(NUMBER, "", line) for line in printed] == [re.sub(NUMBER, "", line) for line in shown]
    for line, other in zip(printed, shown, strict=True):
        numbers, others = (np.array(re.findall(NUMBER, text), float) for text in (line, other))
        np.testing.assert_allclose(numbers, others, rtol=0.2, atol=0.03)
    assert found["state"].step == 60 * 25 and len(found["keys"]) == 64
    exec(parts, found)
    assert found["scores"]["r2"] > 0.3 and abs(found["slope"]) > 0
    assert "did you mean 'dropout_rate'?" in capsys.readouterr().out
    exec(members, found)
    assert found["diverged"].sum() == 6 and found["stopped"].any() and not (found["diverged"] & found["stopped"]).any()
    assert "18 members on" in capsys.readouterr().out
    exec(saved, found)
    assert found["model"] == found["recipe"].model and isinstance(found["program"], bytes)
    assert (tmp_path / "runs" / "example" / "history.csv").is_file() and len(found["history"]["loss"]) <= 40
    np.testing.assert_allclose(found["few"], found["many"][:2], atol=1e-4)
    np.testing.assert_allclose(found["many"], found["model"].apply(found["params"], found["x"]), atol=1e-5)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(mesh, found)
    assert found["state"].params[0].w.sharding.mesh == found["mesh"] and len(found["rows"][0].sharding.device_set) == 2
    exec(sklearns, found)
    assert found["guess"].shape == found["spread"].shape == (111,) and set(found["chosen"]) == {
        "alpha",
        "learning_rate_init",
    }
    assert np.abs((found["guess"] - found["asked"]) / found["spread"]).mean() < 2
    for loop in (emulator, dynamics):
        assert "\n# after\n" in loop
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as it is for a reader
            exec(loop, found)
    errors = [float(np.mean((found[name] - found["y"]) ** 2)) for name in ("by_hand", "emulated")]
    assert (tmp_path / "emulator.safetensors").is_file() and max(errors) < 0.6 and 0.5 < errors[0] / errors[1] < 2
    assert found["history"]["validation_loss"].shape[0] == 5 and found["mixture"].mean.shape == (200, 1)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shell_line_names_what_exists(command):
    """Set-up is CI's to run; here the extras must exist, and the last part is a module that the tests run."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for found in re.findall(r"\.\[([\w,]+)\]", command):
        assert set(found.split(",")) <= set(extras)
    words = shlex.split(command.split("&&")[-1])
    module = words[words.index("-m") + 1]
    assert module.split(".")[0] in MODULES
    if module == "benchmarks.summary":  # it has no options; the tests of the figures are below
        return
    arguments = [*words[words.index("-m") + 2 :], "--help"]
    run = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and "usage" in run.stdout.lower(), run.stderr


def test_ci_runs_exactly_the_test_command():
    test_command = next(command for command in COMMANDS if "-m pytest" in command)
    assert test_command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_figures_are_those_of_a_run():
    """Every number of both pages' tables comes from rows that `python -m benchmarks --json FILE` wrote."""
    rows, page = json.loads(summary.RESULTS.read_text()), summary.PAGE.read_text()
    assert summary.written(page, summary.markdown(rows)) == page
    assert summary.written(README, summary.headlines(rows)) == README
    run = {row["benchmark"] for row in rows}
    for question, columns in summary.TABLES.values():
        if run & set(columns.values()):
            assert question in page and all(name in page for name in columns)
    assert all(question in README for question in summary.HEADLINES)
    assert {row["contender"] for row in rows} >= {"jaxmlp.fit", "population.fit", "PyTorch", "scikit-learn"}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\((?!http)(.*?)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target.split("#")[0]).exists(), target


def test_the_tests_that_the_page_on_bits_names_are_there():
    """Each of its lines says which test holds it: `module::test`."""
    named = re.findall(r"`(test_\w+)(?:\.py)?::(test_\w+)`", (ROOT / "docs" / "bits.md").read_text())
    assert len(named) > 15
    for module, test in named:
        assert f"def {test}(" in (ROOT / "tests" / f"{module}.py").read_text(), f"{module}::{test}"
