"""How good are the estimators, as they come, on tables that nobody chose for them?

    python -m benchmarks tables --data DIR      with PMLB's folders classification and regression in DIR

Accuracy, or R^2, of our estimators and of scikit-learn's perceptrons, with the defaults of both and without any tuning:
five folds of a fixed seed, at most 3,000 rows of a table. The tables are those of the Penn Machine Learning Benchmarks
(Romano 2022, arXiv 2012.00058) as .tsv.gz, `target` among their columns.
"""

import gzip
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn import neural_network
from sklearn.metrics import accuracy_score, balanced_accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold

from benchmarks.timing import Row
from jaxmlp import estimators

ROWS, FOLDS = 3000, 5
LIBRARIES = {"jaxmlp": estimators, "scikit-learn": neural_network}
SCORES = {"accuracy": accuracy_score, "balanced accuracy": balanced_accuracy_score, "R2": r2_score}


class Sheet(NamedTuple):
    """A table with its target."""

    name: str
    labels: bool
    x: np.ndarray
    y: np.ndarray


def run(*, quick: bool = False, folder: Path | None = None) -> list[Row]:
    """Cross-validate both libraries on every table; the smallest one of each kind where it is to be quick."""
    if folder is None or not (folder / "classification").is_dir():
        print("left out: tables needs --data DIR, a folder of PMLB's tables")
        return []
    rows, sheets = [], list(read(folder))
    if quick:
        sheets = [min((s for s in sheets if s.labels == labels), key=lambda s: s.x.size) for labels in (True, False)]
    for sheet in sheets:
        splits, told = crossed(sheet, 2 if quick else FOLDS)
        for unit in ("accuracy", "balanced accuracy") if sheet.labels else ("R2",):
            score: Any = SCORES[unit]
            for name, found in told.items():
                each = [float(score(sheet.y[test], y)) for (_, test), y in zip(splits, found, strict=True)]
                rows.append(Row(f"tables: {sheet.name}", name, float(np.mean(each)), unit, 1.0, min(each), max(each)))
    return rows


def read(folder: Path) -> Iterator[Sheet]:
    """Yield the tables of a folder, of long ones some rows that are drawn with a fixed seed."""
    for kind in ("classification", "regression"):
        for path in sorted((folder / kind).glob("*.tsv.gz")):
            with gzip.open(path, "rt") as file:
                names = file.readline().rstrip("\n").split("\t")
                values = np.loadtxt(file, delimiter="\t", ndmin=2)
            values = values[np.random.RandomState(0).permutation(len(values))[:ROWS]] if len(values) > ROWS else values
            place, labels = names.index("target"), kind == "classification"
            y = values[:, place].astype(int) if labels else values[:, place]
            yield Sheet(path.name.removesuffix(".tsv.gz"), labels, np.delete(values, place, 1), y)


def crossed(sheet: Sheet, folds: int) -> tuple[list[Any], dict[str, list[Any]]]:
    """Return the folds (train, test) of a table, and what each library's net predicts of each fold's test rows."""
    kind = StratifiedKFold if sheet.labels else KFold
    splits = list(kind(folds, shuffle=True, random_state=0).split(sheet.x, sheet.y))
    told: dict[str, list[Any]] = {name: [] for name in LIBRARIES}
    for seed, (train, test) in enumerate(splits):
        for name, library in LIBRARIES.items():
            net = (library.MLPClassifier if sheet.labels else library.MLPRegressor)(random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it has not converged
                told[name].append(net.fit(sheet.x[train], sheet.y[train]).predict(sheet.x[test]))
    return splits, told


def differences(rows: list[dict[str, Any]]) -> list[tuple[str, str, float, float]]:
    """Return each table's name, unit, their score and ours."""
    value = {(row["benchmark"], row["unit"], row["contender"]): row["value"] for row in rows}
    found = [key[:2] for key in value if key[0].startswith("tables: ") and key[2] == "jaxmlp"]
    return [(name[8:], unit, value[name, unit, "scikit-learn"], value[name, unit, "jaxmlp"]) for name, unit in found]


def fact(rows: list[dict[str, Any]]) -> str:
    """Return on how many tables ours is at least as good, and the median difference."""
    gains = [ours - theirs for _, unit, theirs, ours in differences(rows) if unit != "balanced accuracy"]
    good = sum(gain >= 0 for gain in gains)
    return f"at least as good on {good} of {len(gains)} tables, median difference {statistics.median(gains):+.3f}"


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of the page, or nothing where it has not been run."""
    found = differences(rows)
    if not found:
        return []
    lines = [f"**Tables of PMLB by the defaults: {fact(rows)}** (`python -m benchmarks tables`)", ""]
    lines += ["| | | scikit-learn | jaxmlp | difference |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {unit} | {a:.3f} | {b:.3f} | {b - a:+.3f} |" for name, unit, a, b in found]
    return [*lines, ""]


def show(rows: list[Row]) -> None:
    """Print both scores and their difference."""
    made = [row._asdict() for row in rows]
    if not made:
        return
    printed = Table(box=None, pad_edge=False)
    for column in ("table", "score", "scikit-learn", "jaxmlp", "difference"):
        printed.add_column(column, justify="left" if column in ("table", "score") else "right")
    for name, unit, a, b in differences(made):
        printed.add_row(name, unit, f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}")
    Console().print(printed)
    print(fact(made))
