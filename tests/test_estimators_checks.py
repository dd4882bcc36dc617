"""scikit-learn's own checks of estimators: each passes, and there are as many as for its own perceptrons.

Compiling is most of the time. So a check that both estimators have is run on one of them, and ensembles take a handful;
`pytest -m long` takes the rest.
"""

import itertools
from collections import Counter
from unittest import SkipTest

import pytest
import sklearn
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator

from jaxmlp.estimators import MLPClassifier, MLPRegressor

ESTIMATORS = {
    "classifier": MLPClassifier(),
    "regressor": MLPRegressor(),
    "classifiers": MLPClassifier(n_members=3),
    "regressors": MLPRegressor(n_members=3),
}
THEIRS = {"classifier": TheirClassifier(), "regressor": TheirRegressor()}
COUNTS = {"1.6": (67, 59), "1.9": (68, 60)}  # of the checks of a classifier and of a regressor
HANDFUL = (
    "check_estimators_pickle",
    "check_fit_idempotent",
)
LACKS = ("pandas is not installed", "SCIPY_ARRAY_API is not set")  # why a check may be skipped: this machine


def checks_of(estimator):
    """Return scikit-learn's checks of an estimator, as (name, check)."""
    found = [check for _, check in estimator_checks_generator(estimator)]
    return [(check.func.__name__ if hasattr(check, "func") else check.__name__, check) for check in found]


def cases():
    """Return pairs of an estimator and a check of it; those beyond one run's time are marked."""
    names = {kind: {name for name, _ in checks_of(ESTIMATORS[kind])} for kind in THEIRS}
    turns = dict(zip(sorted(names["classifier"] & names["regressor"]), itertools.cycle(THEIRS), strict=False))
    found, seen = [], Counter()
    for kind, estimator in ESTIMATORS.items():
        for name, check in checks_of(estimator):
            now = turns.get(name, kind) == kind if kind in THEIRS else name in HANDFUL
            label = f"{kind}-{name.removeprefix('check_')}-{seen[kind, name]}"
            seen[kind, name] += 1
            found.append(pytest.param(estimator, check, id=label, marks=() if now else pytest.mark.long))
    return found


@pytest.mark.parametrize(("estimator", "check"), cases())
@pytest.mark.filterwarnings("ignore")
def test_a_check_passes(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        assert any(lack in str(reason) for lack in LACKS), reason
        pytest.skip(str(reason))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_as_many_checks_are_made_as_of_theirs(kind):
    single = kind.removesuffix("s")
    names = Counter(name for name, _ in checks_of(ESTIMATORS[kind]))
    theirs = Counter(name for name, _ in checks_of(THEIRS[single]))
    assert not theirs - names
    more = set(names - theirs)
    if hasattr(THEIRS[single], "set_fit_request"):  # since 1.7 theirs take weights of rows, but none of classes
        assert more == ({"check_class_weight_classifiers"} if single == "classifier" else set())
    assert all("weight" in name for name in more)
    known = COUNTS.get(".".join(sklearn.__version__.split(".")[:2]))
    if known:  # of another version the comparison above is what is known
        assert names.total() == known[list(THEIRS).index(single)]


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_no_tag_weakens_a_check(kind):
    tags = get_tags(ESTIMATORS[kind])
    own = tags.classifier_tags or tags.regressor_tags
    assert not own.poor_score
    assert not (tags.non_deterministic or tags.no_validation or tags._skip_test)
    assert tags.requires_fit and tags.target_tags.required and tags.input_tags.sparse
