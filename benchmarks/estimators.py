"""How long does a fit take, where one import is changed?

    python -m benchmarks estimators
    python -m benchmarks estimators --data DIR      with MNIST's four files in DIR, else made numbers of its shape

scikit-learn's perceptron and ours by the same lines, for the same number of epochs and otherwise as they come: warm,
where the net was fitted once before; cold, the first fit of a new process beyond its imports; and the prediction of one
row.
"""

import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MODULES = {"jaxmlp": "jaxmlp.estimators", "scikit-learn": "sklearn.neural_network"}
CALLS = 200  # of predict


class Case(NamedTuple):
    """A set, and for how many epochs it is learnt."""

    name: str
    labels: bool
    epochs: int
    repeats: int


CASES = (
    Case("iris", True, 200, 5),
    Case("digits", True, 200, 3),
    Case("diabetes", False, 200, 5),
    Case("10,000 x 20", True, 50, 3),
    Case("60,000 x 784", True, 5, 2),
)


def run(*, quick: bool = False, folder: Path | None = None) -> list[Any]:
    """Time both libraries in turn: warm fits, cold ones, and predictions of one row."""
    from benchmarks.timing import Row, in_turn

    warm, cold, predict = [], [], []
    for case in CASES[:1] if quick else CASES:
        x, y = table(case.name, folder)
        epochs, repeats = (2, 1) if quick else (case.epochs, case.repeats)
        nets = {name: net(name, case.labels, epochs) for name in MODULES}
        fits = {name: partial(fit, each, x, y) for name, each in nets.items()}
        warm += in_turn(f"estimators: {case.name}, warm", fits, 1, unit="ms", repeats=repeats)
        rows = {name: partial(predictions, each, x[:1].astype(float)) for name, each in nets.items()}
        predict += in_turn(f"estimators: {case.name}, one row", rows, CALLS, unit="us", repeats=repeats, settle=True)
        times: dict[str, list[float]] = {name: [] for name in MODULES}
        for _ in range(1 if quick else min(3, repeats)):
            for name in MODULES:
                times[name].append(started(name, case, epochs, folder))
        first = times["jaxmlp"]
        for name, mine in times.items():
            ratio = statistics.median(a / b for a, b in zip(mine, first, strict=True))
            middle = statistics.median(mine)
            cold.append(Row(f"estimators: {case.name}, cold", name, middle, "s", ratio, min(mine), max(mine)))
    return warm + cold + predict


def started(name: str, case: Case, epochs: int, folder: Path | None) -> float:
    """Return the seconds of the first fit of a new process."""
    command = [sys.executable, "-m", "benchmarks.estimators", name, case.name, str(epochs), str(folder or "")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(name: str, folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a set's inputs and targets."""
    from sklearn import datasets

    if name in ("iris", "digits", "diabetes"):
        return getattr(datasets, f"load_{name}")(return_X_y=True)
    if name.endswith("784") and folder is not None and any(folder.glob("train-images*")):
        from jaxmlp.data import read_idx

        images, labels = (read_idx(next(iter(folder.glob(f"train-{part}*")))) for part in ("images", "labels"))
        return (images.reshape(len(images), -1) / 255).astype("f"), labels.astype("i4")
    rows, columns = (int(part.replace(",", "")) for part in name.split(" x "))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns)).astype("f")
    return x, (x[:, :20] @ rng.normal(size=(20, 10)).astype("f")).argmax(1)


def net(name: str, labels: bool, epochs: int) -> Any:
    """Return a library's perceptron, as it comes, for so many epochs."""
    library = __import__(MODULES[name], fromlist=["MLPClassifier", "MLPRegressor"])
    kind = library.MLPClassifier if labels else library.MLPRegressor
    return kind(max_iter=epochs, n_iter_no_change=epochs + 1, random_state=0)


def fit(estimator: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Fit, without a word that it has not converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(x, y)


def predictions(estimator: Any, row: np.ndarray) -> None:
    """Predict a row again and again."""
    predict: Callable[[np.ndarray], Any] = estimator.predict
    for _ in range(CALLS):
        predict(row)


def main(name: str, case: str, epochs: str, folder: str) -> None:
    """Fit once in this process, and print the seconds."""
    x, y = table(case, Path(folder) if folder else None)
    estimator = net(name, next(one.labels for one in CASES if one.name == case), int(epochs))
    start = time.perf_counter()
    fit(estimator, x, y)
    print(json.dumps(time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
