"""How long does a search of 60 settings on 5 folds take, beside scikit-learn's GridSearchCV on all cores?

    python -m benchmarks searches

The default perceptron on digits. `one shape` is alpha by learning_rate_init, which is one program; `three shapes` has
hidden_layer_sizes too. What each fit does is the same, to where it stops: scikit-learn's own rule. The row "cold" is
the first call of its grid in a process, with the compilation of its programs; the others are warm.
"""

import time
import warnings
from typing import Any

from benchmarks.timing import Row, in_turn, measured

GRIDS: dict[str, dict[str, list[Any]]] = {
    "one shape": {
        "alpha": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0],
        "learning_rate_init": [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2],
    },
    "three shapes": {
        "hidden_layer_sizes": [(50,), (100,), (50, 50)],
        "alpha": [1e-5, 1e-4, 1e-2, 1.0],
        "learning_rate_init": [5e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    },
}


def run(*, quick: bool = False) -> list[Row]:
    """Time both searches over both grids, in turn."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier as Theirs

    from jaxmlp.estimators import MLPClassifier, SearchCV

    warnings.simplefilter("ignore")  # of fits that reach max_iter
    X, y = load_digits(return_X_y=True)
    rows = []
    for name, grid in GRIDS.items():
        how: dict[str, Any] = {"random_state": 0}
        if quick:
            how, grid = {**how, "max_iter": 3}, {key: values[:2] for key, values in grid.items()}
        ours, theirs = SearchCV(MLPClassifier(**how), grid), GridSearchCV(Theirs(**how), grid, n_jobs=-1)
        benchmark = f"searches {name}"
        begun = time.perf_counter()
        ours.fit(X, y)
        cold = time.perf_counter() - begun
        contenders = {"SearchCV": ours, "GridSearchCV": theirs}
        calls = {label: (lambda search=search: [search.fit(X, y), None][1]) for label, search in contenders.items()}
        timed = in_turn(benchmark, calls, 1, unit="s", repeats=1 if quick else 2)
        rows += [*timed, measured(benchmark, "SearchCV, cold", cold, "s", cold / timed[0].value)]
    return rows
