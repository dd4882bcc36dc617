"""A model that went elsewhere predicts what it predicted here, and comes back."""

import warnings

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor

import jaxmlp
from jaxmlp import MLP, interop

X = np.random.default_rng(0).normal(size=(40, 3)).astype("f")


def make(sizes=(3, 5, 4, 2), activation="tanh", **options):
    model = MLP(sizes, activation, **options)
    params = model.init(jax.random.key(0))
    shifted = tuple(layer._replace(b=None if layer.b is None else layer.b + 0.1) for layer in params)
    return model, shifted


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "logistic"])
def test_scikit_learn_and_back(activation):
    y = np.column_stack([X[:, 0], X[:, 1] * X[:, 2]])
    theirs = MLPRegressor(hidden_layer_sizes=(6, 5), activation=activation, max_iter=5, random_state=0, solver="lbfgs")
    with warnings.catch_warnings(action="ignore"):  # five iterations are enough to have weights
        theirs.fit(X.astype(np.float64), y)
    model, params = interop.from_sklearn(theirs)
    np.testing.assert_allclose(model.apply(params, X), theirs.predict(X), rtol=2e-4, atol=2e-4)
    back = interop.to_sklearn(model, params)
    np.testing.assert_allclose(back.predict(X), theirs.predict(X), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(back.coefs_[1], theirs.coefs_[1], rtol=1e-6)
    same(interop.from_sklearn(back)[1], params)


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"]])
def test_a_classifier_keeps_its_probabilities(classes):
    outputs = len(classes) if len(classes) > 2 else 1
    model, params = make((3, 5, outputs), "relu")
    theirs = interop.to_sklearn(model, params, classes=classes)
    logits = model.apply(params, X)
    share = jax.nn.softmax(logits) if outputs > 1 else jax.nn.sigmoid(jnp.concatenate([-logits, logits], 1))
    np.testing.assert_allclose(theirs.predict_proba(X), share, rtol=1e-5, atol=1e-6)
    assert set(theirs.predict(X)) <= set(classes)
    labels = np.array(classes)[X[:, 0].argsort() % len(classes)]
    with warnings.catch_warnings(action="ignore"):
        fitted = MLPClassifier(hidden_layer_sizes=(4,), max_iter=3).fit(X, labels)
    model, params = interop.from_sklearn(fitted)
    assert model.sizes == (3, 4, outputs) and model.apply(params, X).shape == (40, outputs)


@pytest.mark.parametrize("options", [{}, {"activation": "gelu"}, {"bias": False}, {"activation": "identity"}])
def test_torch_and_back(options):
    torch = pytest.importorskip("torch")
    model, params = make(**options)
    modules = {"tanh": torch.nn.Tanh(), "gelu": torch.nn.GELU("tanh"), "identity": torch.nn.Identity()}
    linear = [torch.nn.Linear(m, n, bias=model.bias) for m, n in model.structure.shapes]
    theirs = torch.nn.Sequential(linear[0], modules[model.activation], linear[1], modules[model.activation], linear[2])
    theirs.load_state_dict(interop.to_torch(model, params))
    np.testing.assert_allclose(theirs(torch.from_numpy(X)).detach(), model.apply(params, X), rtol=1e-5, atol=1e-6)
    for source, options in ((theirs, {}), (theirs.state_dict(), {"activation": model.activation})):
        found, back = interop.from_torch(source, **options)
        assert found == model
        same(back, params)


def test_torch_says_what_it_cannot_be():
    nn = pytest.importorskip("torch.nn")
    for modules, words in (
        ([nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1)], "approximate=tanh"),
        ([nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)], "must hold Linear and one of"),
        ([nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)], "with one activation"),
        ([nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 1)], "weights must chain"),
        ([nn.Linear(3, 4), nn.ReLU()], "with one activation"),
    ):
        with pytest.raises(ValueError, match=words):
            interop.from_torch(nn.Sequential(*modules))


def test_bfloat16_passes_through_torch_unchanged():
    pytest.importorskip("torch")
    model, params = make(param_dtype="bfloat16")
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    found, back = interop.from_torch(interop.to_torch(model, params), activation="tanh")
    assert found.param_dtype == "bfloat16"
    same(back, params)


@pytest.mark.parametrize("members", [(), (3,)])
def test_an_exported_model_runs_for_any_batch_and_on_three_platforms(members):
    model = MLP((3, 5, 2), "gelu", norm="layer")
    keys = jax.random.split(jax.random.key(0), members) if members else jax.random.key(0)
    params = jax.vmap(model.init)(keys) if members else model.init(keys)
    apply = jax.vmap(model.apply, (0, None)) if members else model.apply
    data = jaxmlp.export(model, params)
    assert isinstance(data, bytes)
    program = jax.export.deserialize(bytearray(data))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    for n in (1, 7, 40):
        np.testing.assert_allclose(program.call(X[:n]), apply(params, X[:n]), rtol=1e-5, atol=1e-6)


def test_a_model_of_the_users_own_is_exported_by_its_example():
    class Scale:
        def init(self, key):
            return jnp.ones(2)

        def apply(self, params, x):
            return x * jnp.broadcast_to(params, x.shape)

    data = jaxmlp.export(Scale(), jnp.full(2, 3.0), x=jnp.ones((1, 2)))
    np.testing.assert_array_equal(jax.export.deserialize(bytearray(data)).call(jnp.ones((5, 2))), np.full((5, 2), 3.0))
