"""Likelihoods and scores are SciPy's; losses of pairs leave the padding of a short batch out."""

import jax
import jax.test_util
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import jaxmlp
from jaxmlp import MLP, Recipe, losses

RNG = np.random.default_rng(0)
N, D = 12, 3
OUT = RNG.normal(size=(N, 2 * D)).astype("f")
Y = RNG.normal(size=(N, D)).astype("f")
MEAN, SCALE = OUT[:, :D], np.sqrt(np.exp(4 * np.arcsinh(OUT[:, D:] / 16)) + 1e-6)


def close(found, expected, rtol=2e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=2e-5)


def test_counts_are_those_of_poisson():
    counts = RNG.poisson(3.0, size=(N, D)).astype("f")
    close(losses.poisson(OUT[:, :D], counts), -scipy.stats.poisson.logpmf(counts, np.exp(MEAN)).sum(1))


@pytest.mark.parametrize("raw", [-200.0, -8.0, -2.1, -2.0, 0.0, 5.0])
def test_counts_that_vary_more_are_those_of_the_negative_binomial(raw):
    """On both sides of the dispersion where the series begins, and where next to none is left."""
    outputs = np.concatenate([OUT[:, :D], raw + 0.01 * OUT[:, D:]], axis=1).astype("f")
    mean, dispersion = np.exp(MEAN.astype("f8")), np.logaddexp(0, outputs[:, D:].astype("f8")) + 1e-6
    law = scipy.stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
    found = losses.negative_binomial_moments(outputs)
    close(found[0], law.mean())
    close(found[1], law.var())
    for counts in (RNG.poisson(3.0, size=(N, D)), RNG.integers(0, 200, size=(N, D))):
        close(losses.negative_binomial(outputs, counts.astype("f")), -law.logpmf(counts).sum(1), rtol=1e-4)


def test_counts_of_no_dispersion_are_those_of_poisson_and_draw_no_slope_from_it():
    counts, outputs = RNG.poisson(3.0, size=(N, D)).astype("f"), np.concatenate([OUT[:, :D], OUT[:, D:] * 0 - 30], 1)
    close(losses.negative_binomial(outputs, counts), losses.poisson(OUT[:, :D], counts), rtol=1e-4)
    slope = jax.grad(lambda o: losses.negative_binomial(o, counts).sum())(outputs)
    close(slope[:, :D], jax.grad(lambda o: losses.poisson(o, counts).sum())(OUT[:, :D]), rtol=1e-3)
    assert np.abs(slope[:, D:]).max() < 1e-6


def test_slopes_of_the_negative_binomial_are_differences(x64):
    counts = RNG.poisson(3.0, size=(N, D)) * 1.0
    for raw in (-3.0, 1.0):
        outputs = np.concatenate([OUT[:, :D], raw + 0.1 * OUT[:, D:]], axis=1).astype("f8")
        jax.test_util.check_grads(lambda o: losses.negative_binomial(o, counts).sum(), (outputs,), 1, ["rev"])


@pytest.mark.parametrize("df", [1.0, 4.0, np.array([0.5, 3.0, 30.0]), 59.0, 61.0, 1e4])
def test_tails_are_those_of_student(df):
    close(losses.student_t_nll(OUT, Y, df=df), -scipy.stats.t.logpdf(Y, df, MEAN, SCALE).sum(1))


def test_of_many_degrees_of_freedom_it_is_the_gaussian():
    close(losses.student_t_nll(OUT, Y, df=1e6), losses.gaussian_nll(OUT, Y), rtol=3e-3)


@pytest.mark.parametrize("k", [1, 4])
def test_mixtures_are_sums_of_densities(k):
    logits, parts = RNG.normal(size=(N, k)), RNG.normal(size=(N, k, 2 * D))
    outputs = np.concatenate([logits, parts.reshape(N, -1)], axis=1).astype("f")
    scale = np.sqrt(np.exp(4 * np.arcsinh(parts[..., D:] / 16)) + 1e-6)
    each = scipy.stats.norm.logpdf(Y[:, None], parts[..., :D], scale).sum(-1)
    close(
        losses.mixture_nll(outputs, Y),
        -scipy.special.logsumexp(scipy.special.log_softmax(logits, axis=1) + each, axis=1),
    )


def test_a_mixture_of_one_is_the_gaussian():
    close(losses.mixture_nll(np.concatenate([np.ones((N, 1), "f"), OUT], axis=1), Y), losses.gaussian_nll(OUT, Y))


def test_the_score_is_the_integral_that_defines_it():
    found = losses.gaussian_crps(OUT, Y)
    for i in (0, 5):
        total = 0.0
        for d in range(D):
            law = scipy.stats.norm(MEAN[i, d], SCALE[i, d])
            below, _ = scipy.integrate.quad(lambda t, law=law: law.cdf(t) ** 2, -40, Y[i, d])
            above, _ = scipy.integrate.quad(lambda t, law=law: law.sf(t) ** 2, Y[i, d], 40)
            total += below + above
        assert float(found[i]) == pytest.approx(total, rel=1e-4)


def test_pairs_are_told_apart_by_their_likeness():
    a, b = RNG.normal(size=(2, N, D)).astype("f")
    near = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b)]
    table = near[0] @ near[1].T / 0.2
    close(losses.info_nce(a, b, temperature=0.2), scipy.special.logsumexp(table, axis=1) - np.diag(table))


def by_hand(hazard, time, event, weight=None):
    weight = np.ones(len(time)) if weight is None else weight
    found = np.zeros(len(time))
    for i in range(len(time)):
        if event[i] and weight[i] > 0:
            at_risk = time >= time[i]
            found[i] = np.log((weight * np.exp(hazard))[at_risk].sum()) - hazard[i]
    return found


def test_cox_is_breslows_partial_likelihood():
    hazard, time = RNG.normal(size=N).astype("f"), RNG.integers(1, 6, size=N).astype("f")
    event = (RNG.random(N) < 0.6).astype("f")
    targets = np.stack([time, event], axis=1)
    close(losses.cox(hazard[:, None], targets), by_hand(hazard, time, event))
    weight = RNG.random(N).astype("f")
    weight[3] = 0
    close(losses.cox(hazard, targets, weight=weight), by_hand(hazard, time, event, weight))


def test_an_anchor_lies_nearer_to_its_like_as_by_hand():
    a, p, n = RNG.normal(size=(3, N, D)).astype("f")
    near, far = (np.sqrt(np.square(a - b).sum(1) + 1e-6) for b in (p, n))
    expected = np.maximum(near - far + 0.5, 0)
    close(losses.triplet((a, p, n), None, margin=0.5), expected)
    close(losses.triplet({"anchor": a, "negative": n, "positive": p}, margin=0.5), expected)
    assert np.isfinite(jax.grad(lambda a: losses.triplet((a, a, a)).sum())(a)).all()


class Siamese:
    """One net for the three."""

    net = MLP((2, 4, 2), "tanh")

    def init(self, key):
        return self.net.init(key)

    def apply(self, params, x):
        return {name: self.net.apply(params, part) for name, part in x.items()}


def test_a_siamese_net_learns_without_targets():
    x = np.random.default_rng(0).normal(size=(25, 2)).astype("f")
    data = {"anchor": x, "positive": x + 0.1, "negative": x[::-1].copy()}
    recipe = Recipe(Siamese(), losses.triplet, optax.adam, epochs=40, batch_size=10)
    with jax.debug_nans(True):
        _, history = jaxmlp.fit(jax.random.key(0), (data,), recipe, {"learning_rate": 0.02, "margin": 0.5})
    assert history["loss"][-1] < 0.7 * history["loss"][0]


def test_ranking_is_the_logistic_loss_of_pairs():
    score, relevance = RNG.normal(size=N).astype("f"), RNG.integers(0, 3, size=N)
    for weight in (None, np.array([0.0, 2.0] * (N // 2), "f")):
        each = np.ones(N) if weight is None else weight
        expected = [
            sum(each[j] * np.log1p(np.exp(score[j] - score[i])) for j in range(N) if relevance[j] < relevance[i])
            for i in range(N)
        ]
        found = losses.pairwise_ranking(score[:, None], relevance, weight=weight)
        close(found, np.where(each > 0, expected, 0) / each.sum())


@pytest.mark.parametrize("name", ["info_nce", "cox", "pairwise_ranking"])
def test_what_fills_up_a_batch_is_no_other_of_anybody(name):
    function = getattr(losses, name)
    outputs, targets = RNG.normal(size=(8, 2)).astype("f"), RNG.normal(size=(8, 2)).astype("f")
    if name == "pairwise_ranking":
        outputs, targets = outputs[:, :1], targets[:, 0]
    if name == "cox":
        outputs, targets = outputs[:, :1], np.stack([np.arange(8), np.ones(8)], axis=1).astype("f")
    padded = [np.concatenate([a, np.repeat(a[:1], 4, axis=0)]) for a in (outputs, targets)]
    weight = np.array([1.0] * 8 + [0.0] * 4, "f")
    close(function(*padded, weight=weight)[:8], function(outputs, targets))
    assert (np.asarray(function(*padded, weight=weight))[8:] == 0).all()


@pytest.mark.parametrize(
    "name", ["poisson", "negative_binomial", "student_t_nll", "mixture_nll", "gaussian_crps", "info_nce", "cox"]
)
def test_each_trains_with_a_short_batch_and_without_a_nan(name):
    x = RNG.normal(size=(25, 2)).astype("f")
    counts = np.round(np.exp(x[:, :1]))
    width, y = {
        "poisson": (1, counts),
        "negative_binomial": (2, counts),
        "mixture_nll": (9, x[:, :1]),
        "info_nce": (2, x),
    }.get(name, (2, x[:, :1]))
    if name == "cox":
        width, y = 1, np.stack([np.exp(x[:, 0]), (x[:, 1] > 0).astype("f")], axis=1)
    recipe = Recipe(MLP((2, 8, width), "tanh"), getattr(losses, name), optax.adam, epochs=30, batch_size=10)
    with jax.debug_nans(True):
        _, history = jaxmlp.fit(jax.random.key(0), (x, y), recipe, {"learning_rate": 0.02})
    assert np.isfinite(np.asarray(history["loss"])).all() and history["loss"][-1] < history["loss"][0]


BAD = {
    "negative counts": (lambda: losses.poisson(OUT[:, :D], Y), "targets, counts, must not be negative"),
    "counts that are negative": (lambda: losses.negative_binomial(OUT, Y), "targets, counts, must not be negative"),
    "width of counts": (
        lambda: losses.negative_binomial(OUT, np.abs(Y[:, :2])),
        "outputs must have shape (batch, 2 d), log means then raw dispersions",
    ),
    "pairs of moments": (
        lambda: losses.negative_binomial_moments(Y),
        "outputs must hold a log mean and a raw dispersion for each target",
    ),
    "degrees": (lambda: losses.student_t_nll(OUT, Y, df=0.0), "df must be finite and above 0; got 0.0"),
    "width of a mixture": (
        lambda: losses.mixture_nll(OUT, Y),
        "outputs must be a multiple of 7 wide, a logit and 3 means",
    ),
    "rank of a mixture": (lambda: losses.mixture_nll(OUT, Y[:, 0]), "must be (batch, k (1 + 2 d)) and (batch, d)"),
    "pairs": (lambda: losses.info_nce(OUT, Y), "must be embeddings of one shape (batch, d)"),
    "temperature": (lambda: losses.info_nce(Y, Y, temperature=0.0), "temperature must be finite and above 0; got 0.0"),
    "hazards": (lambda: losses.cox(OUT, Y[:, :2]), "must be log hazards (batch, 1) and (batch, 2), time and event"),
    "events": (
        lambda: losses.cox(Y[:, :1], Y[:, :2]),
        "targets[:, 1] must be 1 for an event and 0 where there was none",
    ),
    "two of three": (lambda: losses.triplet((Y, Y)), "must be embeddings (anchor, positive, negative), or a dict of"),
    "names of three": (lambda: losses.triplet({"a": Y, "b": Y, "c": Y}), "got ['a', 'b', 'c']"),
    "shapes of three": (lambda: losses.triplet((Y, Y, OUT)), "anchor, positive and negative must have one shape"),
    "margin": (lambda: losses.triplet((Y, Y, Y), margin=-1.0), "margin must not be negative; got -1.0"),
    "margins": (lambda: losses.triplet((Y, Y, Y), margin=np.ones(N)), "margin must be one number"),
    "scores": (lambda: losses.pairwise_ranking(OUT, Y[:, 0]), "must be scores and relevances, (batch,) or (batch, 1)"),
    "weights": (lambda: losses.info_nce(Y, Y, weight=np.ones(3, "f")), "weight must have shape (12,), one an example"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
