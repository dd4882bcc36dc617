"""What estimators predict beside a value: spreads, quantiles, distributions, draws, and what an ensemble doubts."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
from scipy import stats
from sklearn.datasets import load_diabetes, load_iris

import jaxmlp
from jaxmlp.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_diabetes(return_X_y=True)
FLOWERS, KINDS = load_iris(return_X_y=True)


def regressor(loss, members=1, **options):
    return MLPRegressor(loss, (8,), max_iter=30, learning_rate_init=0.02, n_members=members, random_state=0, **options)


@pytest.fixture(scope="module")
def fitted():
    return {
        (loss, members): regressor(loss, members).fit(X, Y)
        for loss in ("gaussian", "student_t", "poisson", "squared_error", "quantile")
        for members in (1, 3)
    }


@pytest.mark.parametrize("members", [1, 3])
def test_a_gaussian_is_the_one_that_the_library_reads_in_its_outputs(fitted, members):
    net = fitted["gaussian", members]
    dist = net.predict_dist(X)
    each = [net.params_] if members == 1 else [jaxmlp.population.member(net.params_, i) for i in range(members)]
    outputs = [jaxmlp.serving.predict(net.recipe_.model, params, X.astype("f")) for params in each]
    means, variances = zip(*(jaxmlp.losses.gaussian(a) for a in outputs), strict=True)
    np.testing.assert_allclose(dist.means, np.stack(means), rtol=1e-4)
    np.testing.assert_allclose(dist.variances, np.stack(variances), rtol=1e-3)
    mean, std = net.predict(X, return_std=True)
    np.testing.assert_allclose(mean, dist.mean[:, 0], rtol=1e-6)
    np.testing.assert_allclose(std**2, (dist.aleatoric + dist.epistemic)[:, 0], rtol=1e-6)
    assert (dist.epistemic.max() > 0) == (members > 1)


def test_an_ensemble_of_values_tells_what_its_members_disagree_about(fitted):
    net = fitted["squared_error", 3]
    each = np.stack([net.coefs_[0][i] for i in range(3)])
    hidden = np.maximum(np.einsum("nf,mfh->mnh", X, each) + net.intercepts_[0][:, None], 0)
    values = np.einsum("mnh,mho->mn", hidden, net.coefs_[1]) + net.intercepts_[1]
    mean, std = net.predict(X, return_std=True)
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(std, values.std(0))


@pytest.mark.parametrize(("loss", "family"), [("gaussian", stats.norm), ("student_t", stats.t), ("poisson", None)])
@pytest.mark.parametrize("members", [1, 3])
def test_quantiles_leave_so_much_below_them(fitted, loss, family, members):
    net, levels = fitted[loss, members], [0.05, 0.5, 0.9]
    found = net.predict_quantiles(X, levels)
    assert found.shape == (len(X), 3)
    predicted = net._predicted(net._outputs(X))
    below = predicted._members().cdf(np.moveaxis(found, 1, 0)[:, None, :, None]).mean(1)[..., 0]
    if loss == "poisson":  # of counts the smallest that has at least so much
        less = predicted._members().cdf(np.moveaxis(found, 1, 0)[:, None, :, None] - 1).mean(1)[..., 0]
        assert (below >= np.array(levels)[:, None] - 1e-9).all() and (less < np.array(levels)[:, None]).all()
    else:
        np.testing.assert_allclose(below, np.broadcast_to(np.array(levels)[:, None], below.shape), atol=1e-9)


@pytest.mark.parametrize("loss", ["gaussian", "student_t", "poisson"])
def test_draws_have_the_moments_that_are_predicted(fitted, loss):
    net = fitted[loss, 3]
    draws = net.sample(X[:5], 20_000, random_state=0)
    mean, std = net.predict(X[:5], return_std=True)
    assert draws.shape == (20_000, 5)
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.05 * std.max())
    np.testing.assert_allclose(draws.std(0), std, rtol=0.1)
    np.testing.assert_array_equal(net.sample(X[:5], 3, random_state=1), net.sample(X[:5], 3, random_state=1))


def test_trained_quantiles_are_those_levels_and_no_others(fitted):
    net = fitted["quantile", 1]
    found = net.predict_quantiles(X, [0.9, 0.1])
    np.testing.assert_array_equal(found[:, ::-1], net.predict_quantiles(X, [0.1, 0.9]))
    np.testing.assert_array_equal(net.predict(X), net.predict_quantiles(X, 0.5)[:, 0])
    assert 0.8 < (found[:, 0] > Y).mean() and (found[:, 1] < Y).mean() > 0.8
    with pytest.raises(ValueError, match=r"levels must be among those that were trained, \[0.1, 0.5, 0.9\]"):
        net.predict_quantiles(X, 0.2)


def test_several_targets_keep_their_axis():
    net = regressor("gaussian", 2).fit(X, np.c_[Y, -3 * Y])
    mean, std = net.predict(X, return_std=True)
    assert mean.shape == std.shape == (len(X), 2)
    assert net.predict_quantiles(X, [0.1, 0.9]).shape == (len(X), 2, 2)
    assert net.sample(X[:4], 7).shape == (7, 4, 2) and net.predict_dist(X).mean.shape == (len(X), 2)
    np.testing.assert_allclose(np.corrcoef(mean.T)[0, 1], -1, atol=0.05)


def test_what_a_loss_does_not_tell_is_refused(fitted):
    value = fitted["squared_error", 1]
    with pytest.raises(ValueError, match="must have a spread to tell; got loss='squared_error'.*n_members=5"):
        value.predict(X, return_std=True)
    for call in (value.predict_quantiles, value.predict_dist, value.sample):
        with pytest.raises(ValueError, match="the loss must tell a distribution"):
            call(X)
    with pytest.raises(ValueError, match="predict_dist must have Gaussians"):
        fitted["student_t", 1].predict_dist(X)
    for levels in (0, 1.0, [], [[0.5]]):
        with pytest.raises(ValueError, match=r"levels must be numbers in \(0, 1\)"):
            fitted["gaussian", 1].predict_quantiles(X, levels)
    with pytest.raises(ValueError, match="n must be"):
        fitted["gaussian", 1].sample(X, 0)
    heavy = regressor("student_t", loss_params={"df": 2.0}).fit(X, Y)
    with pytest.raises(ValueError, match="df of the loss student_t must be above 2"):
        heavy.predict(X, return_std=True)


@pytest.mark.parametrize("targets", [KINDS, KINDS > 0, np.c_[KINDS > 0, KINDS > 1].astype(int)])
@pytest.mark.parametrize("members", [1, 3])
def test_a_classifier_tells_noise_from_doubt(targets, members):
    net = MLPClassifier((8,), max_iter=20, n_members=members, random_state=0).fit(FLOWERS, targets)
    aleatoric, epistemic = net.predict_uncertainty(FLOWERS)
    chance = net.predict_proba(FLOWERS)
    chance = np.stack([chance, 1 - chance], -1) if targets.ndim == 2 else chance[:, None]
    np.testing.assert_allclose(aleatoric + epistemic, stats.entropy(chance, axis=-1).sum(-1), rtol=1e-6)
    assert aleatoric.shape == (150,) and (epistemic.max() > 1e-9) == (members > 1)


def test_logarithms_of_probabilities_do_not_vanish():
    net = MLPClassifier((4,), solver="lbfgs", alpha=0, max_iter=500, random_state=0).fit(FLOWERS, KINDS)
    far = net.predict_log_proba(1e4 * FLOWERS)
    assert np.isfinite(far).all() and far.min() < -1000
    np.testing.assert_allclose(
        net.predict_log_proba(FLOWERS), np.log(net.predict_proba(FLOWERS)), rtol=1e-6, atol=1e-12
    )
