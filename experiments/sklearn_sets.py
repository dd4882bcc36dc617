"""What becomes of scikit-learn's data sets where one import is changed?

    python -m experiments sklearn

Ten sets, six of them measured and four made, all of which come with scikit-learn; its perceptrons and ours by the same
lines and the same defaults, on the same five folds. With `scale=False` ours draw the same weights and take the rows in
the same order, so scores agree; as they come, ours scale inputs and targets inside, and the scores are better. A net's
first fit has its compilation in it, which the nets of the other folds share.
"""

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate

from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp import estimators

FOLDS = 5
LABELS: dict[str, Callable[[], Any]] = {
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "breast cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "moons": lambda: datasets.make_moons(500, noise=0.2, random_state=0),
    "classification": lambda: datasets.make_classification(500, n_informative=6, n_classes=3, random_state=0),
}
NUMBERS: dict[str, Callable[[], Any]] = {
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True, scaled=False),
    "linnerud": lambda: datasets.load_linnerud(return_X_y=True),
    "friedman": lambda: datasets.make_friedman1(500, noise=1.0, random_state=0),
    "regression": lambda: datasets.make_regression(500, 10, noise=20.0, random_state=0),
}
SAME = 0.03  # what scores may differ by where rounding alone differs: a few rows of a fold


class Found(NamedTuple):
    """What the folds of one set say."""

    scores: np.ndarray  # (folds,), accuracy or R^2
    seconds: np.ndarray  # (folds,), of each fit

    @property
    def score(self) -> float:
        """The mean over the folds."""
        return float(self.scores.mean())

    @property
    def warm(self) -> float:
        """Seconds of a fit but for the first."""
        return float(np.median(self.seconds[1:]))


def crossed(library: ModuleType, name: str, **parameters: Any) -> Found:
    """Cross-validate a library's perceptron, as it comes, on a set."""
    x, y = (LABELS | NUMBERS)[name]()
    if name in LABELS:
        net, folds = library.MLPClassifier(random_state=0, **parameters), StratifiedKFold(FOLDS)
    else:
        net, folds = library.MLPRegressor(random_state=0, **parameters), KFold(FOLDS)
    folds.shuffle, folds.random_state = True, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = cross_validate(net, x, y, cv=folds)
    return Found(found["test_score"], found["fit_time"])


def run(report: Report) -> None:
    """Cross-validate both libraries on all sets."""
    theirs, ours, plain = {}, {}, {}
    for name in (*LABELS, *NUMBERS):
        report.stage(f"{name}, {FOLDS} folds, both libraries")
        ours[name] = crossed(estimators, name)
        theirs[name] = crossed(neural_network, name)
        plain[name] = crossed(estimators, name, scale=False)
    report.say(f"{'':15} {'score, theirs':>13} {'ours':>7} {'s a fit, theirs':>16} {'ours':>7} {'compiling':>10}")
    for name, one in theirs.items():
        two = ours[name]
        report.say(
            f"{name:15} {one.score:13.3f} {two.score:7.3f} {one.warm:16.2f} {two.warm:7.2f} {two.seconds[0]:10.2f}"
        )
    gaps = {name: abs(bounded(plain[name]) - bounded(one)) for name, one in theirs.items()}
    widest = max(gaps, key=lambda name: gaps[name])
    report.claim(
        "with scale=False, scikit-learn's scores on all ten sets",
        expected=f"gap <= {SAME}",
        measured=f"{gaps[widest]:.4f} at most, {widest}",
        holds=gaps[widest] <= SAME,
    )
    gains = {name: bounded(ours[name]) - bounded(one) for name, one in theirs.items()}
    report.claim(
        "as they come, scores at least as good",
        expected="on 8 of 10 to 0.01",
        measured=f"on {sum(gain >= -0.01 for gain in gains.values())}, median gain {np.median([*gains.values()]):.3f}",
        holds=sum(gain >= -0.01 for gain in gains.values()) >= 8,
    )
    draw(report, theirs, ours)


def bounded(found: Found) -> float:
    """Return the score, an R^2 below zero as zero: worse than the mean is worse than the mean."""
    return max(found.score, 0.0)


def draw(report: Report, theirs: dict[str, Found], ours: dict[str, Found]) -> None:
    """Draw scores and times of both, a line a set."""
    figure, (scores, times) = canvas(2, width=4.6, height=3.6)
    names = list(theirs)
    places = np.arange(len(names))
    one, two = ([bounded(found[name]) for name in names] for found in (theirs, ours))
    scores.hlines(places, one, two, color=GREY, linewidth=1)
    scores.plot(one, places, "o", color=GREY)
    scores.plot(two, places, "o", color=BLUE)
    scores.set(title=f"Mean of {FOLDS} folds", xlabel="accuracy or R², zero where below", xlim=(-0.03, 1.03))
    times.plot([theirs[name].warm for name in names], places, "o", color=GREY, label="scikit-learn")
    times.plot([ours[name].warm for name in names], places, "o", color=BLUE, label="jaxmlp")
    times.plot(
        [ours[name].seconds[0] for name in names],
        places,
        "o",
        color=ORANGE,
        mfc="none",
        label="its first fit, with compilation",
    )
    times.set(title="One fit, median after the first fold", xlabel="seconds", xscale="log")
    figure.legend(*times.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for axis in (scores, times):
        axis.set_yticks(places, names)
        axis.invert_yaxis()
    report.figure(figure)
