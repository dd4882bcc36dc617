"""`jax.grad` of every activation, loss and depth is the backpropagation written by hand; PyTorch agrees."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jaxmlp import MLP, losses
from jaxmlp.layer import ACTIVATIONS

CASES = [
    ("squared_error", {}),
    ("absolute_error", {}),
    ("huber", {"delta": 0.7}),
    ("quantile", {"level": 0.9}),
    ("quantile", {"level": np.array([0.1, 0.5, 0.9])}),
    ("cross_entropy", {}),
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("soft cross_entropy", {"label_smoothing": 0.2}),
    ("binary_cross_entropy", {}),
    ("gaussian_nll", {"min_variance": 1e-3}),
    ("unit_gaussian_nll", {}),
]


def problem(loss, numbers, depth, seed=0):
    """Return sizes, x and y of a random problem that suits the loss."""
    rng = np.random.default_rng(seed)
    n, d = 7, 2
    y = rng.normal(size=(n, d))
    out = d * (2 if loss == "gaussian_nll" else np.size(numbers.get("level", 0.5)))
    if loss == "cross_entropy":
        out, y = 4, rng.integers(0, 4, n)
    elif loss == "soft cross_entropy":
        out, y = 4, rng.dirichlet(np.ones(4), n)
    elif loss == "binary_cross_entropy":
        y = rng.integers(0, 2, (n, d)).astype(float)
    return (3, *[5] * depth, out), rng.normal(size=(n, 3)), y


def test_the_oracle_knows_every_activation():
    assert set(oracle.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("name", "numbers"), CASES, ids=lambda case: str(case))
def test_grad_equals_backpropagation_by_hand(x64, activation, name, numbers):
    loss = name.split()[-1]
    for depth in range(5):
        sizes, x, y = problem(name, numbers, depth)
        mlp = MLP(sizes, activation)
        params = mlp.init(jax.random.key(depth))
        # Biases away from zero, so that their path through every layer is seen.
        params = jax.tree.map(lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)

        def mean_loss(params, mlp=mlp, x=x, y=y):
            outputs = mlp.apply(params, jnp.asarray(x))
            return getattr(losses, loss)(outputs, jnp.asarray(y), **numbers).mean()

        value, grads = jax.value_and_grad(mean_loss)(params)
        by_hand, grads_by_hand = oracle.backprop(
            [(np.asarray(p.w), np.asarray(p.b)) for p in params], x, y, activation, loss, **numbers
        )
        np.testing.assert_allclose(value, by_hand, rtol=1e-10, atol=1e-10)
        for layer, (dw, db) in zip(grads, grads_by_hand, strict=True):
            np.testing.assert_allclose(layer.w, dw, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(layer.b, db, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_pytorch_agrees(activation, key):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    phi = {
        "identity": lambda a: a,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "hard_tanh": functional.hardtanh,
        "gelu": lambda a: functional.gelu(a, approximate="tanh"),
    }
    phi = phi.get(activation) or getattr(functional, activation)
    mlp = MLP((6, 16, 16, 3), activation)
    params = mlp.init(key)
    x = jax.random.normal(key, (32, 6))
    y = jax.random.randint(key, (32,), 0, 3)

    leaves = [[torch.tensor(np.asarray(p), requires_grad=True) for p in (layer.w, layer.b)] for layer in params]
    h = torch.tensor(np.asarray(x))
    for w, b in leaves[:-1]:
        h = phi(functional.linear(h, w.T, b))
    outputs = functional.linear(h, leaves[-1][0].T, leaves[-1][1])
    np.testing.assert_allclose(mlp.apply(params, x), outputs.detach().numpy(), rtol=1e-6, atol=1e-6)

    functional.cross_entropy(outputs, torch.tensor(np.asarray(y)).long()).backward()
    grads = jax.grad(lambda p: losses.cross_entropy(mlp.apply(p, x), y).mean())(params)
    for layer, (w, b) in zip(grads, leaves, strict=True):
        np.testing.assert_allclose(layer.w, w.grad.numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.b, b.grad.numpy(), rtol=1e-4, atol=1e-6)
