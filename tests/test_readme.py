"""The README does what it says: its code runs, its commands are those of the project and of CI."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from benchmarks import summary

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "bash" for line in block.strip().splitlines()]
MODULES = {"experiments", "benchmarks", "pytest"}


def test_the_python_blocks_run_as_one_program(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them saves
    blocks = [block for language, block in BLOCKS if language == "python"]
    # The first block is the library in one line; its names come from the room it stands for.
    one_line, *program = blocks
    from jaxmlp import MLP, Recipe, losses, start, step

    namespace = {"step": step}
    exec(
        "import jax, optax; import jax.numpy as jnp",
        namespace,
    )
    recipe = Recipe(MLP((2, 1)), losses.squared_error, namespace["optax"].sgd, epochs=1)
    hyperparams = {"learning_rate": 0.1}
    namespace |= {"recipe": recipe, "hyperparams": hyperparams}
    namespace["state"] = start(namespace["jax"].random.key(0), recipe, hyperparams)
    namespace["batch"] = (namespace["jnp"].ones((3, 2)), namespace["jnp"].ones((3, 1)))
    exec(one_line, namespace)
    assert namespace["state"].step == 1

    namespace = {}
    *alone, members, saved, fast = program
    for block in alone:
        exec(block, namespace)
    assert namespace["history"]["loss"][-1] < 0.3 < namespace["history"]["loss"][0]
    assert namespace["accuracy"] > 0.9 and abs(namespace["slope"]) > 0
    with pytest.warns(UserWarning, match="6 of 18 members diverged"):
        exec(members, namespace)
    assert namespace["history"]["status"].tolist().count(2) == 6
    assert namespace["accuracy"] > 0.85 and namespace["i"] in range(3, 12)
    exec(saved, namespace)
    assert namespace["model"] == namespace["recipe"].model and isinstance(namespace["program"], bytes)
    assert (tmp_path / "runs" / "digits" / "history.csv").is_file() and len(namespace["history"]["loss"]) <= 40
    exec(fast, namespace)
    assert [part.w.shape for part in namespace["deep_params"]] == [(64, 128), (99, 128, 128), (128, 10)]
    np.testing.assert_allclose(namespace["answer"](namespace["x"]), namespace["logits"], atol=1e-3)
    assert "did you mean 'dropout_rate'?" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shell_line_names_what_exists(command):
    """Set-up is CI's to run; here the extras must exist, and the last part is a module that the tests run."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in re.findall(r"\.\[(\w+)\]|--extra (\w+)", command):
        assert "".join(extra) in extras
    words = shlex.split(command.split("&&")[-1])
    module = words[words.index("-m") + 1]
    assert module in MODULES
    arguments = [*words[words.index("-m") + 2 :], "--help"]
    run = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and "usage" in run.stdout, run.stderr


def test_ci_runs_exactly_the_test_command():
    test_command = next(command for command in COMMANDS if "-m pytest" in command)
    assert test_command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_figures_are_those_of_a_run():
    """Every number of the tables comes from rows that `python -m benchmarks --json FILE` wrote."""
    rows, page = json.loads(summary.RESULTS.read_text()), (ROOT / "README.md").read_text()
    assert summary.written(page, rows) == page
    tables = summary.markdown(rows)
    for question, columns in summary.TABLES.values():
        assert question in tables and all(name in tables for name in columns)
    assert {row["contender"] for row in rows} >= {"jaxmlp.fit", "population.fit", "PyTorch", "scikit-learn"}


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\((?!http)(.*?)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).is_file()
