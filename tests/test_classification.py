"""Metrics of one logit, classes and many labels are scikit-learn's: with ties, weights and masks, under `vmap`."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sk

import jaxmlp
from jaxmlp import MLP, Recipe, metrics, population

RNG = np.random.default_rng(0)
N = 57
SCORES = {  # members of logits: random, tied, and all equal
    columns: np.stack([RNG.normal(size=(N, columns)), RNG.integers(-2, 3, (N, columns)), np.zeros((N, columns))])
    for columns in (1, 4)
}
SCORES = {columns: values.astype("f") for columns, values in SCORES.items()}
YES = RNG.integers(0, 2, N)
LABELS = RNG.integers(0, 3, N)  # of four classes: one does not occur
MANY = RNG.integers(0, 2, (N, 4)) * np.array([1, 1, 1, 0])  # the last label has no positives
WEIGHTS = np.stack(
    [RNG.uniform(0.1, 2, N), RNG.random(N) < 0.6, 1e37 * RNG.integers(1, 5, N), 1e-40 * RNG.integers(1, 5, N)]
).astype("f")


def members(metric, scores, targets):
    """Return the metric of each member without weights and with each of them: (1 + weights, members), two programs."""
    scores, targets = jnp.asarray(scores), jnp.asarray(targets)
    over = lambda weight: jax.vmap(lambda s: metric(s, targets, weight=weight))(scores)  # noqa: E731
    return np.concatenate([jax.jit(over)(None)[None], jax.jit(jax.vmap(over))(jnp.asarray(WEIGHTS))])


def by_sklearn(metric, scores, targets, weight):
    kept = np.ones(N, bool) if weight is None else weight > 0
    options = {} if weight is None else {"sample_weight": np.float64(weight)[kept]}
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("ignore")  # of undefined cases, whose numbers are what counts here
        return np.array([metric(np.asarray(targets)[kept], s[kept], **options) for s in np.float64(scores)], "f")


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


COUNTED = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
RANKED = {"roc_auc": sk.roc_auc_score, "average_precision": sk.average_precision_score}
AVERAGES = ("macro", "micro", "weighted")


def several(names, averages=AVERAGES):
    """Return the metrics of these names, with each average, as one."""

    def ours(scores, targets, **options):
        return jnp.stack(
            [getattr(metrics, name)(scores, targets, average=a, **options) for name in names for a in averages]
        )

    return ours


def theirs(functions, read, averages=AVERAGES, **more):
    def score(y, s, **options):
        return [f(*read(y, s), average=a, **more, **options) for f in functions.values() for a in averages]

    return score


CUT = np.log(0.3 / 0.7)
CASES = {
    "accuracy, one": (metrics.binary_accuracy, YES[:, None], lambda y, s, **w: sk.accuracy_score(y, s > 0, **w)),
    "accuracy, one, by a threshold": (
        partial(metrics.binary_accuracy, threshold=0.3),
        YES,
        lambda y, s, **w: sk.accuracy_score(y, s > CUT, **w),
    ),
    "accuracy, many": (
        lambda *a, **w: jnp.stack([metrics.multilabel_accuracy(*a, **w), metrics.exact_match(*a, **w)]),
        MANY,
        lambda y, s, **w: [
            np.average((y == (s > 0)).mean(1), weights=w.get("sample_weight")),
            sk.accuracy_score(y, s > 0, **w),
        ],
    ),
    "confusion, one": (metrics.confusion_matrix, YES, lambda y, s, **w: sk.confusion_matrix(y, s[:, 0] > 0, **w)),
    "confusion, classes": (
        metrics.confusion_matrix,
        LABELS,
        lambda y, s, **w: sk.confusion_matrix(y, s.argmax(1), labels=range(4), **w),
    ),
    "confusion, many": (
        metrics.confusion_matrix,
        MANY,
        lambda y, s, **w: sk.multilabel_confusion_matrix(y, s > 0, **w),
    ),
    "counted, one": (
        several(COUNTED, (None, *AVERAGES)),
        YES,
        theirs(COUNTED, lambda y, s: (y, s > 0), ("binary", *AVERAGES)),
    ),
    "counted, classes": (several(COUNTED), LABELS, theirs(COUNTED, lambda y, s: (y, s.argmax(1)))),
    "counted, many": (several(COUNTED), MANY, theirs(COUNTED, lambda y, s: (y, s > 0))),
    "ranked, one": (several(RANKED), YES[:, None], theirs(RANKED, lambda y, s: (y[:, 0], s[:, 0]))),
    "ranked, many": (several(RANKED), MANY[:, :3], theirs(RANKED, lambda y, s: (y, s))),
    "ranked, without positives": (
        several(["average_precision"]),
        MANY,
        theirs({"": sk.average_precision_score}, lambda y, s: (y, s)),
    ),
}
RANKED_CLASSES = {**RANKED, "roc_auc": partial(sk.roc_auc_score, multi_class="ovr")}
CASES["ranked, classes"] = (several(RANKED), LABELS, theirs(RANKED_CLASSES, lambda y, s: (y, softmax(s))))


@pytest.mark.parametrize("case", CASES)
def test_equal_to_scikit_learn(case):
    ours, targets, right = CASES[case]
    scores = SCORES[1 if np.size(targets) == N and targets is not LABELS else 4]
    scores = scores[..., :3] if case in ("ranked, many", "ranked, classes") else scores  # positives of each
    if case == "ranked, classes":
        scores = scores[[0, 2]]  # rounding decides which of the same logits in another order stands higher
    # What scikit-learn takes for no weight at all is a matter of scale; ours is of none, but for sums.
    weights = WEIGHTS if "confusion" in case else WEIGHTS / WEIGHTS.max(1, keepdims=True)
    expected = np.stack([by_sklearn(right, scores, targets, weight) for weight in (None, *weights)])
    np.testing.assert_allclose(members(ours, scores, targets), expected, rtol=2e-5, atol=1e-6)
    alone = ours(scores[0], targets, weight=WEIGHTS[0].astype(np.float16))  # known, and in half precision
    np.testing.assert_allclose(alone, expected[1, 0], rtol=2e-3, atol=1e-6)


def test_undefined_cases_are_scikit_learns_defaults():
    some, none = np.array([1.0, -1.0, 2.0], "f"), np.zeros(3, int)
    assert np.isnan(metrics.roc_auc(some, none)) and np.isnan(metrics.roc_auc(some, none + 1))
    assert metrics.average_precision(some, none) == 0 == metrics.precision(-abs(some), none)
    assert metrics.recall(some, none) == 0 == metrics.f1(-abs(some), none)
    for metric in (metrics.binary_accuracy, metrics.precision, metrics.average_precision):
        assert metric(some, none, weight=np.zeros(3, "f")) == 0


def test_left_out_is_as_if_it_were_not_there():
    """Whatever stands there: NaN outputs, targets that mean nothing."""
    keep = np.arange(N) < 40
    weight = keep.astype("f")
    for targets, columns in ((YES, 1), (LABELS, 4), (MANY, 4)):
        outputs = np.where(keep[:, None], SCORES[columns][0], np.nan).astype("f")
        spoilt = np.where(keep.reshape(-1, *[1] * (targets.ndim - 1)), targets, 3 if columns == 4 else 7)
        for metric in (metrics.f1, metrics.average_precision, metrics.confusion_matrix):
            np.testing.assert_allclose(
                metric(outputs, spoilt, weight=weight), metric(outputs[:40], targets[:40]), rtol=1e-5
            )


def test_outputs_of_nan_have_no_metric():
    one, many = SCORES[1][0].copy(), SCORES[4][0].copy()
    one[3], many[3, 1] = np.nan, np.nan
    single = (metrics.binary_accuracy, metrics.precision, metrics.recall, metrics.f1, metrics.roc_auc)
    for metric in (*single, metrics.average_precision, metrics.confusion_matrix):
        assert np.isnan(metric(one, YES)).all() and np.isnan(jax.jit(metric)(one, YES)).all()
    for metric in (metrics.accuracy, partial(metrics.top_k_accuracy, k=2), metrics.expected_calibration_error):
        assert np.isnan(metric(many, LABELS)) and np.isnan(jax.jit(metric)(many, LABELS))
        assert np.isfinite(metric(many, LABELS, weight=(np.arange(N) != 3).astype("f")))
    assert np.isnan(metrics.exact_match(many, MANY)) and np.isnan(metrics.multilabel_accuracy(many, MANY))


def test_targets_that_cannot_be_seen_are_never_a_number():
    """Under `jit` no value is known, so there is nothing to refuse: NaN instead."""
    logits = SCORES[4][0]
    for targets in (MANY, np.zeros_like(MANY), 100.0 * logits, LABELS + 2):
        assert np.isnan(jax.jit(metrics.accuracy)(logits, targets))
    assert np.isnan(jax.jit(metrics.binary_accuracy)(logits[:, :1], 2 * YES))
    with pytest.raises(ValueError, match="metrics.binary_accuracy"):
        jax.jit(metrics.accuracy)(logits[:, :1], YES[:, None])


def test_one_hot_rows_are_what_they_are_said_to_be():
    logits, rows = SCORES[4][0], np.eye(4)[LABELS]
    assert metrics.accuracy(logits, rows) == metrics.accuracy(logits, LABELS)
    for metric in (metrics.f1, metrics.roc_auc, metrics.confusion_matrix):
        with pytest.raises(ValueError, match="every row is one-hot; pass targets.argmax"):
            metric(logits, rows)
    np.testing.assert_array_equal(metrics.f1(logits, rows, multilabel=False), metrics.f1(logits, LABELS))
    np.testing.assert_allclose(
        metrics.f1(logits, rows, multilabel=True), sk.f1_score(rows, logits > 0, average="macro", zero_division=0)
    )


def test_a_recipe_reads_them_also_for_members():
    x = RNG.normal(size=(N, 3)).astype("f")
    recipe = Recipe(
        MLP((3, 4, 1)),
        jaxmlp.losses.binary_cross_entropy,
        optax.adam,
        epochs=2,
        batch_size=16,
        metrics=(metrics.binary_accuracy, metrics.roc_auc, metrics.f1),
    )
    data = (x, YES[:, None], WEIGHTS[1])
    states, history = population.fit(jax.random.split(jax.random.key(0), 3), data, recipe, {"learning_rate": 1e-2})
    for i in range(3):
        params = population.member(states, i).params
        value = metrics.roc_auc(recipe.model.apply(params, x), YES, weight=WEIGHTS[1])
        np.testing.assert_allclose(history["roc_auc"][i, -1], value, rtol=1e-5)
