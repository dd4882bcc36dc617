"""A model that went elsewhere predicts what it predicted here, and comes back."""

import copy
import pickle
import warnings

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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


def fitted(kind, y, **options):
    options = {"hidden_layer_sizes": (4, 3), "max_iter": 4, "random_state": 0, "shuffle": False} | options
    with warnings.catch_warnings(action="ignore"):
        return kind(**options).fit(X.astype(np.float64), y)


LABELS = X[:, 0].argsort() % 3
MANY = (X > 0).astype(int)
COUNTS = np.exp(X[:, 0]).round()


@pytest.mark.parametrize(
    ("kind", "y", "link", "options"),
    [
        (MLPRegressor, X[:, 0], "identity", {}),
        (MLPRegressor, COUNTS, "exp", {"loss": "poisson"}),
        (MLPClassifier, LABELS, "softmax", {}),
        (MLPClassifier, LABELS == 1, "logistic", {}),
        (MLPClassifier, MANY, "logistic", {}),
        (MLPClassifier, MANY[:, :2], "logistic", {}),
    ],
)
def test_what_stands_after_the_last_layer_is_said_and_kept(kind, y, link, options):
    """Predictions are `out_activation` of the outputs; training goes on as it does in scikit-learn itself."""
    theirs = fitted(kind, y, solver="sgd", momentum=0.0, **options)
    assert theirs.out_activation_ == link
    unusual = link == "exp" or y is not LABELS and np.ndim(y) == 2
    if unusual:
        with pytest.raises(ValueError, match=f"pass out_activation='{link}' and apply it"):
            interop.from_sklearn(theirs)
    else:
        interop.from_sklearn(theirs)
    with pytest.raises(ValueError, match=f"out_activation must be '{link}' for this"):
        interop.from_sklearn(theirs, out_activation="softmax" if link != "softmax" else "logistic")
    model, params = interop.from_sklearn(theirs, out_activation=link)
    outputs = np.asarray(model.apply(params, X), np.float64)
    expected = {"identity": lambda z: z, "exp": np.exp, "logistic": expit, "softmax": lambda z: softmax(z, 1)}[link]
    shares = expected(outputs)
    if kind is MLPRegressor:
        np.testing.assert_allclose(shares[:, 0], theirs.predict(X), rtol=1e-5, atol=1e-6)
        back = interop.to_sklearn(model, params, out_activation=link)
    else:
        shares = np.hstack([1 - shares, shares]) if outputs.shape[1] == 1 else shares
        np.testing.assert_allclose(shares, theirs.predict_proba(X), rtol=1e-5, atol=1e-6)
        back = interop.to_sklearn(model, params, classes=theirs.classes_, out_activation=link)
    same(interop.from_sklearn(back, out_activation=link)[1], params)
    assert back.out_activation_ == link and back.n_outputs_ == theirs.n_outputs_

    back.set_params(**theirs.get_params())
    back = pickle.loads(pickle.dumps(back))
    for _ in range(3):
        theirs.partial_fit(X, y)
        back.partial_fit(X, y)
    for one, other in zip(back.coefs_ + back.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(back.predict(X) > 0.5, theirs.predict(X) > 0.5)
    np.testing.assert_allclose(back.score(X, y), theirs.score(X, y), rtol=1e-4)
    for solver in ("adam", "lbfgs"):
        before = back.loss_
        with warnings.catch_warnings(action="ignore"):
            back.set_params(solver=solver, warm_start=True, max_iter=3).fit(X, y)
        assert back.loss_ < before * 1.01
    assert not hasattr(clone(back), "coefs_")


def test_two_outputs_of_two_classes_are_one_logit_there():
    model, params = make((3, 5, 2), "relu")
    theirs = interop.to_sklearn(model, params, classes=["no", "yes"])
    np.testing.assert_allclose(theirs.predict_proba(X), jax.nn.softmax(model.apply(params, X)), rtol=1e-5, atol=1e-6)
    assert theirs.n_outputs_ == 1
    theirs.partial_fit(X, np.where(X[:, 0] > 0, "yes", "no"))
    assert theirs.coefs_[-1].shape == (5, 1)


def test_estimators_with_more_to_them_are_refused():
    class Own(MLPRegressor):
        def predict(self, X):
            return 2 * super().predict(X)

    good = fitted(MLPRegressor, X[:, 0])
    with warnings.catch_warnings(action="ignore"):
        search = make_pipeline(StandardScaler(), MLPRegressor(max_iter=2)).fit(X, X[:, 0])
    huge = copy.deepcopy(good)
    huge.coefs_[0][0, 0] = 1e39
    patched = copy.deepcopy(good)
    patched.predict = lambda X: X
    for estimator, words in (
        (fitted(Own, X[:, 0]), "no subclass, pipeline or search of one"),
        (search, "no subclass, pipeline or search of one"),
        (MLPRegressor(), "must be a fitted MLPRegressor"),
        (patched, "got one with predict of its own"),
        (huge, "weights must be numbers that float32 can hold; got 1e\\+39 in float64"),
    ):
        with pytest.raises(ValueError, match=words):
            interop.from_sklearn(estimator)


def test_only_what_the_other_library_computes_goes_there():
    model, params = make()
    with pytest.raises(ValueError, match="must compute in the dtype of its parameters, float32"):
        interop.to_sklearn(model.replace(dtype="bfloat16"), params)
    with pytest.raises(ValueError, match="must have w of shape"):
        interop.to_sklearn(MLP((3, 5, 5, 2), "tanh"), params)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    assert interop.to_sklearn(model, half).coefs_[0].dtype == np.float32


def state(*numbers, shapes=((4, 3), (4, 4), (1, 4))):
    return {f"{n}.weight": np.ones(shape, "f") for n, shape in zip(numbers, shapes, strict=False)}


@pytest.mark.parametrize(
    ("source", "activation", "words"),
    [
        (state(1, 3), None, "must begin with 0.weight"),
        (state(0, 1), "tanh", "leave a number for the activation after each layer but the last"),
        (state(0, 2) | {"2.bias": np.ones(4)}, None, "biases must be there for all layers or none"),
        (state(0) | {"2.bias": np.ones(4)}, None, "2.weight misses"),
        ({"0.weight": np.ones((4, 3), "i4")}, None, "0.weight must be a dense tensor of floats"),
        ({"0.weight": [[1.0]]}, None, "0.weight must be a dense tensor of floats"),
        ({"0.weight": np.ones((4, 3)), "2.weight": np.ones((1, 4), "f")}, None, "must be of one dtype"),
        ({"²": np.ones((4, 3))}, None, "a state dict must hold"),
        (state(0) | {"1.weight": np.ones(4, "f")}, "identity", "weights must chain"),
        ([np.ones((4, 3))], None, "source must be an nn.Sequential of PyTorch, or its state dict"),
    ],
)
def test_a_state_dict_says_where_its_layers_stood(source, activation, words):
    with pytest.raises(ValueError, match=words):
        interop.from_torch(source, activation)
    assert interop.from_torch(state(0, 2, 5))[0] == MLP((3, 4, 4, 1), bias=False)
    assert interop.from_torch(state(0, 1), "identity")[0] == MLP((3, 4, 4), "identity", bias=False)


def test_what_a_module_has_more_than_an_mlp_is_refused_by_name():
    torch = pytest.importorskip("torch")
    nn, prune = torch.nn, pytest.importorskip("torch.nn.utils.prune")

    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    def changed(change, at=None):
        module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
        change(module if at is None else module[at])
        return module

    def chain(*inner, first=()):
        return nn.Sequential(*first, nn.Linear(3, 3), *inner, nn.Linear(3, 3))

    def own_forward(module):
        module.forward = lambda x: x

    for module, words in (
        (chain(first=[nn.ReLU()]), "before the first Linear stands relu"),
        (chain(first=[nn.LayerNorm(3)]), "got LayerNorm"),
        (chain(first=[nn.Flatten()]), "got Flatten"),
        (chain(first=[nn.BatchNorm1d(3, affine=False)]), "got BatchNorm1d"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), "got Softmax"),
        (nn.Sequential(nn.Linear(3, 3), nn.Sigmoid()), "after the last Linear stands sigmoid"),
        (chain(nn.ReLU(), nn.ReLU()), "with one activation"),
        (chain(nn.Softplus(threshold=1)), "threshold=20.0"),
        (chain(nn.Softplus(2)), "beta=1.0"),
        (chain(nn.LeakyReLU(0.2)), "negative_slope=0.01"),
        (chain(nn.ELU(0.5)), "alpha=1.0"),
        (chain(nn.Hardtanh(0, 6)), "min_val=-1.0"),
        (chain(nn.ReLU6()), "got ReLU6"),
        (chain(nn.ReLU(), nn.Dropout(0.5)), "call eval()"),
        (nn.Sequential(Twice(3, 3)), "got Twice"),
        (Residual(nn.Linear(3, 3)), r"pass nn.Sequential\(\*source\)"),
        (nn.ModuleList([nn.Linear(3, 3)]), "got ModuleList"),
        (chain(Residual(nn.ReLU())), "got Residual"),
        (changed(own_forward, 0), "Linear must have the methods of its type; got one with forward"),
        (changed(own_forward), "Sequential must have the methods"),
        (changed(lambda m: m.register_forward_hook(lambda *_: None)), "Sequential must have no forward_hooks"),
        (changed(lambda m: m.register_forward_pre_hook(lambda *_: None), 1), "ReLU must have no forward_pre_hooks"),
        (changed(lambda m: prune.l1_unstructured(m, "weight", 3), 2), "must have no forward_pre_hooks"),
        (changed(lambda m: nn.utils.parametrizations.weight_norm(m), 2), "got ParametrizedLinear"),
        (chain(nn.ReLU()).to(torch.float8_e4m3fn), "must be a dense tensor of floats"),
        (chain(nn.ReLU()).to("meta"), "must be a dense tensor of floats"),
        (nn.Sequential(nn.LazyLinear(3)), "LazyLinear must have no forward_pre_hooks"),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double()), "must be of one dtype"),
    ):
        with pytest.raises(ValueError, match=words):
            interop.from_torch(module)
    with pytest.raises(ValueError, match="activation must be that of the module, 'relu'"):
        interop.from_torch(chain(nn.ReLU()), "tanh")
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="must have no global_forward_hooks"):
        interop.from_torch(chain(nn.ReLU()))
    handle.remove()


@given(st.data())
@settings(max_examples=60)
def test_any_chain_of_modules_computes_the_same_or_is_refused(data):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(data.draw(st.integers(0, 9)))
    favourite = data.draw(st.sampled_from(["ReLU", "Tanh", "Softplus", "SiLU", "Identity"]))
    others = st.sampled_from(
        [nn.Identity(), nn.Dropout(0.5), nn.LayerNorm(3), nn.Softmax(-1), nn.Softplus(3.0), nn.CELU(), nn.Linear(3, 3)]
    )
    piece = st.one_of(st.builds(lambda: nn.Linear(3, 3)), st.builds(getattr(nn, favourite)), others)
    parts = data.draw(st.lists(piece, min_size=1, max_size=6))
    if data.draw(st.booleans()):
        parts = [nn.Sequential(*parts[:2]), *parts[2:]]
    module = nn.Sequential(*parts).eval()
    try:
        model, params = interop.from_torch(module)
    except ValueError:
        return
    np.testing.assert_allclose(model.apply(params, X), module(torch.from_numpy(X)).detach(), rtol=1e-5, atol=1e-6)
