"""Backpropagation of a whole perceptron by hand, in NumPy: what `jax.grad` is held to.

For h_l = phi(a_l), a_l = h_{l-1} W_l + b_l and a mean of losses, with delta_L = dloss/dyhat / N:
dW_l = h_{l-1}' delta_l, db_l = sum_i delta_l, delta_{l-1} = (delta_l W_l') * phi'(a_{l-1}).
"""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softplus(a):
    return np.logaddexp(a, 0)


def tanh_slope(a):
    return 1 - np.tanh(a) ** 2


def gelu(a):
    return a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))


def gelu_slope(a):
    c = np.sqrt(2 / np.pi)
    inner, slope = c * (a + 0.044715 * a**3), c * (1 + 3 * 0.044715 * a**2)
    return (1 + np.tanh(inner)) / 2 + a / 2 * tanh_slope(inner) * slope


ALPHA, SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

# name: (phi, phi')
ACTIVATIONS = {
    "identity": (lambda a: a, lambda a: np.ones_like(a)),
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0) * 1.0),
    "sigmoid": (sigmoid, lambda a: sigmoid(a) * (1 - sigmoid(a))),
    "tanh": (np.tanh, tanh_slope),
    "leaky_relu": (lambda a: np.where(a > 0, a, 0.01 * a), lambda a: np.where(a > 0, 1, 0.01)),
    "elu": (lambda a: np.where(a > 0, a, np.expm1(a)), lambda a: np.where(a > 0, 1, np.exp(a))),
    "selu": (
        lambda a: SCALE * np.where(a > 0, a, ALPHA * np.expm1(a)),
        lambda a: SCALE * np.where(a > 0, 1, ALPHA * np.exp(a)),
    ),
    "gelu": (gelu, gelu_slope),
    "silu": (lambda a: a * sigmoid(a), lambda a: sigmoid(a) * (1 + a * (1 - sigmoid(a)))),
    "softplus": (softplus, sigmoid),
    "mish": (
        lambda a: a * np.tanh(softplus(a)),
        lambda a: np.tanh(softplus(a)) + a * tanh_slope(softplus(a)) * sigmoid(a),
    ),
    "hard_tanh": (lambda a: np.clip(a, -1, 1), lambda a: (np.abs(a) < 1) * 1.0),
}


def log_softmax(o):
    o = o - o.max(-1, keepdims=True)
    return o - np.log(np.exp(o).sum(-1, keepdims=True))


def cross_entropy(o, y, label_smoothing=0.0):
    p = np.eye(o.shape[1])[y] if y.ndim == 1 else y
    p = (1 - label_smoothing) * p + label_smoothing / o.shape[1]
    return -(p * log_softmax(o)).sum(-1), np.exp(log_softmax(o)) - p


def binary_cross_entropy(o, y):
    return (softplus(o) - y * o).sum(-1), sigmoid(o) - y


def huber(o, y, delta=1.0):
    r = o - y
    small = np.abs(r) <= delta
    return np.where(small, r**2 / 2, delta * (np.abs(r) - delta / 2)).sum(-1), np.where(small, r, delta * np.sign(r))


def quantile(o, y, level):
    """Levels one after the other, each with all d outputs."""
    level, y = np.atleast_1d(level), np.tile(y, (1, np.size(level)))
    q = np.repeat(level, o.shape[1] // len(level))
    r = y - o
    return np.maximum(q * r, (q - 1) * r).sum(-1), np.where(r > 0, -q, 1 - q)


def gaussian_nll(o, y, min_variance=1e-6):
    mean, raw = np.split(o, 2, -1)
    spread = np.exp(2 * np.arcsinh(raw / 16))
    variance = spread**2 + min_variance
    loss = 0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)
    by_variance = 0.5 * (1 / variance - (y - mean) ** 2 / variance**2)
    return loss.sum(-1), np.concatenate(
        [(mean - y) / variance, by_variance * 4 * spread**2 / np.sqrt(raw**2 + 256)], -1
    )


# name: (outputs, targets, **numbers) -> (losses (N,), dlosses/doutputs (N, d))
LOSSES = {
    "squared_error": lambda o, y: (((o - y) ** 2).sum(-1), 2 * (o - y)),
    "absolute_error": lambda o, y: (np.abs(o - y).sum(-1), np.sign(o - y)),
    "huber": huber,
    "quantile": quantile,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "gaussian_nll": gaussian_nll,
    "unit_gaussian_nll": lambda o, y: ((((o - y) ** 2 + np.log(2 * np.pi)) / 2).sum(-1), o - y),
}


def forward(params, x, activation):
    """Return all layers' inputs and pre-activations."""
    phi, _ = ACTIVATIONS[activation]
    inputs, sums = [], []
    for w, b in params:
        inputs.append(x)
        sums.append(x @ w + b)
        x = phi(sums[-1])
    return inputs, sums


def backprop(params, x, y, activation, loss, **numbers):
    """Return the mean loss and its gradients, a list of (dW, db), by hand."""
    _, slope = ACTIVATIONS[activation]
    inputs, sums = forward(params, x, activation)
    losses, delta = LOSSES[loss](sums[-1], y, **numbers)
    delta = delta / len(x)
    gradients = []
    for layer in reversed(range(len(params))):
        gradients.insert(0, (inputs[layer].T @ delta, delta.sum(0)))
        if layer:
            delta = (delta @ params[layer][0].T) * slope(sums[layer - 1])
    return losses.mean(), gradients
