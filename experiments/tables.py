"""Regression tables with their splits, and what was published about them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

# RMSE, then NLL: PBP (Hernandez-Lobato 2015, arXiv 1502.05336), MC dropout (Gal 2016, arXiv 1506.02142), Deep Ensembles
# (Lakshminarayanan 2017, arXiv 1612.01474), and the dropout authors' tuned table of 2018.
PUBLISHED = {
    "concrete": ((5.67, 5.23, 6.03, 4.83), (3.16, 3.04, 3.06, 2.94)),
    "energy": ((1.80, 1.66, 2.09, 0.539), (2.04, 1.99, 1.38, 1.21)),
    "yacht": ((1.02, 1.11, 1.58, 0.666), (1.63, 1.55, 1.18, 1.25)),
    "kin8nm": ((0.10, 0.10, 0.09, 0.079), (-0.90, -0.95, -1.20, -1.14)),
    "naval": ((0.01, 0.01, 0.00, 0.0007), (-3.73, -3.80, -5.63, -4.45)),
    "power": ((4.12, 4.02, 4.11, 4.01), (2.84, 2.80, 2.79, 2.81)),
    "protein": ((4.73, 4.36, 4.71, 4.27), (2.97, 2.89, 2.83, 2.87)),
    "wine": ((0.64, 0.62, 0.64, 0.622), (0.97, 0.93, 0.94, 0.928)),
}


@dataclass(frozen=True)
class Table:
    """A set and its splits; all splits' rows, each standardised by its own training rows, lie in one long table."""

    name: str
    x: np.ndarray  # (N, d)
    y: np.ndarray  # (N, 1)
    splits: list[tuple[np.ndarray, np.ndarray]]  # train and test rows

    @property
    def hidden(self) -> int:
        """Units of a hidden layer: 50, and 100 for the large set, as in the papers."""
        return 100 if len(self.x) > 20_000 else 50

    def rows(self, split: int, *, test: bool = False) -> np.ndarray:
        """Return the training or test rows of a split in the long table."""
        return self.splits[split][int(test)] + split * len(self.x)

    @cached_property
    def units(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mean and deviation of the target over each split's training rows."""
        return [_units(self.y, train) for train, _ in self.splits]

    @cached_property
    def features(self) -> np.ndarray:
        """Standardised x, (splits N, d)."""
        return self._long(self.x)

    @cached_property
    def targets(self) -> np.ndarray:
        """Standardised y, (splits N, 1)."""
        return self._long(self.y)

    def _long(self, a: np.ndarray) -> np.ndarray:
        parts = ((a, *_units(a, train)) for train, _ in self.splits)
        return np.concatenate([((values - mean) / std).astype("f") for values, mean, std in parts])


def together(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows of one member each as (members, longest), with -1 behind those of the shorter."""
    longest = max(map(len, rows))
    return np.stack([np.pad(r, (0, longest - len(r)), constant_values=-1) for r in rows])


def fifth(rng: np.random.Generator, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return four fifths of the rows, and the other."""
    rows = rng.permutation(rows)
    cut = round(0.2 * len(rows))
    return rows[cut:], rows[:cut]


def _units(a: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = a[rows].mean(0), a[rows].std(0)
    return mean, np.where(std > 1e-9 * (1 + abs(mean)), std, 1.0)  # a constant column stays, as zeros


def read(folder: Path) -> Table:
    """Read a folder of data.txt, index_features.txt, index_target.txt, n_splits.txt and the splits' rows."""

    def numbers(name: str, kind: type = int) -> np.ndarray:
        path = folder / name
        if not path.is_file():
            raise SystemExit(f"{folder} must hold {name}; it does not")
        return np.atleast_1d(np.loadtxt(path).astype(kind))

    values = numbers("data.txt", float)
    count = int(numbers("n_splits.txt")[0])
    splits = [(numbers(f"index_train_{i}.txt"), numbers(f"index_test_{i}.txt")) for i in range(count)]
    return Table(
        folder.name, values[:, numbers("index_features.txt")], values[:, numbers("index_target.txt")[:1]], splits
    )


def openml(name: str) -> Table:
    """Fetch a set by its name on OpenML, with twenty random splits of 90 to 10 per cent."""
    from sklearn.datasets import fetch_openml

    try:
        found: Any = fetch_openml(name, version=1, as_frame=False, parser="liac-arff")
    except Exception as error:
        raise SystemExit(
            f"OpenML must give a set of the name {name!r}; it said: {error}; with files, pass --data"
        ) from error
    return Table(name, *_numbers(found.data, found.target), _random_splits(len(found.data), 20))


def diabetes() -> Table:
    """Return scikit-learn's diabetes data with five random splits."""
    from sklearn.datasets import load_diabetes

    found: Any = load_diabetes()
    x, y = _numbers(found.data, found.target)
    return Table("diabetes", x, y, _random_splits(len(x), 5))


def _numbers(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(x, float), np.asarray(y, float).reshape(len(x), -1)[:, :1]


def _random_splits(n: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    splits = []
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(n)
        cut = max(1, round(0.1 * n))
        splits.append((order[cut:], order[:cut]))
    return splits
