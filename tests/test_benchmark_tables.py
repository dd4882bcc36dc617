"""The benchmarks of the estimators run, on tables that are made here, and their page is made of what they found."""

import gzip

import jax
import numpy as np
import pytest

from benchmarks import estimators, show, summary, tables
from benchmarks.__main__ import main


@pytest.fixture
def as_users_run_it(tmp_path, monkeypatch):
    monkeypatch.setattr(show, "FOLDER", tmp_path / "figures")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def folder(tmp_path):
    """A table of each kind, the target first in one and last in the other."""
    rng = np.random.RandomState(0)
    x = rng.normal(size=(60, 3))
    targets = {"classification": 3 + (x[:, 0] > 0), "regression": 100 * x[:, 1]}
    for kind, y in targets.items():
        (tmp_path / kind).mkdir()
        columns = {"a": x[:, 0], "target": y, "b": x[:, 1], "c": x[:, 2]}
        lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        with gzip.open(tmp_path / kind / f"made_{kind}.tsv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    return tmp_path


def test_tables_are_read_with_their_targets(folder, monkeypatch):
    labels, numbers = tables.read(folder)
    assert (labels.name, labels.labels, labels.x.shape) == ("made_classification", True, (60, 3))
    assert set(labels.y) == {3, 4} and not numbers.labels
    np.testing.assert_allclose(numbers.y, 100 * numbers.x[:, 1])
    monkeypatch.setattr(tables, "ROWS", 20)
    assert [len(sheet.x) for sheet in tables.read(folder)] == [20, 20]


@pytest.mark.usefixtures("as_users_run_it")
def test_both_libraries_are_scored_on_the_same_folds(folder, capsys):
    assert main(["tables", "--quick", "--data", str(folder), "--json", str(folder / "rows.json")]) == 0
    printed = capsys.readouterr().out
    assert "made_classification" in printed and "tables, median difference" in printed
    assert max(map(len, printed.splitlines()[1:])) <= 80  # but for the command


def test_tables_without_a_folder_are_left_out(capsys, tmp_path):
    assert tables.run() == tables.run(folder=tmp_path) == []
    assert capsys.readouterr().out.count("left out: tables needs --data DIR") == 2
    tables.show([])
    assert capsys.readouterr().out == "" and tables.markdown([]) == []


def test_differences_are_ours_less_theirs():
    rows = [
        tables.Row(f"tables: {name}", contender, value, unit, 1.0, 0.0, 1.0)._asdict()
        for name, unit, theirs, ours in (("a", "accuracy", 0.5, 0.75), ("a", "balanced accuracy", 0.5, 0.25))
        + (("b", "R2", 0.5, 0.5), ("c", "R2", 0.5, 0.25))
        for contender, value in (("jaxmlp", ours), ("scikit-learn", theirs))
    ]
    assert tables.fact(rows) == "at least as good on 2 of 3 tables, median difference +0.000"
    assert "| a | balanced accuracy | 0.500 | 0.250 | -0.250 |" in tables.markdown(rows)


@pytest.mark.usefixtures("as_users_run_it")
def test_the_sets_of_the_fits_are_there(tmp_path):
    for case in estimators.CASES[:-1]:
        x, y = estimators.table(case.name, tmp_path)
        assert len(x) == len(y) and estimators.net("jaxmlp", case.labels, 2).max_iter == 2
    columns = summary.TABLES["estimators"][1]
    for case in estimators.CASES:
        assert columns[f"{case.name}, warm"] == f"estimators: {case.name}, warm"


@pytest.mark.usefixtures("as_users_run_it")
def test_fits_are_timed_warm_cold_and_a_row():
    rows = estimators.run(quick=True)
    assert [(row.benchmark, row.contender) for row in rows] == [
        (f"estimators: iris, {how}", name) for how in ("warm", "cold", "one row") for name in estimators.MODULES
    ]
    assert all(row.value > 0 for row in rows)
