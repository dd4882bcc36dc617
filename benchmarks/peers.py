"""One network's training by jaxmlp and by other libraries, each as its own users would write it for speed.

Each function takes a `Task` and returns `run`, which trains from the task's first weights and returns the last ones.
All of them work the loss out, as one who watches a run needs it. Data lies where the library wants it before the clock
starts, and so do the orders of the epochs: the peers are handed what jaxmlp and the scan that sorts work out in time.
A new contender is a new function and its row in `PEERS`.
"""

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmlp
from benchmarks.tasks import RATE, Task
from benchmarks.timing import Peer

Run = Callable[[], Any]
rate = RATE["learning_rate"]


def fit(task: Task, dtype: str | None = None) -> Run:
    """`jaxmlp.fit`, its shuffle and its checks of the data included."""
    recipe, table = task.recipe(dtype), (jnp.asarray(task.x), jnp.asarray(task.y))
    return lambda: [tuple(layer[:2]) for layer in jaxmlp.fit(task.key, table, recipe, RATE)[0].params]


def _mean_loss(params: Any, x: Any, y: Any, weight: Any = None) -> Any:
    """By hand in JAX: the net, and the mean of its loss."""
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    each = losses_of(x @ w + b, y)
    return each.mean() if weight is None else (weight * each).sum() / weight.sum()


def losses_of(outputs: Any, y: Any) -> Any:
    """Return each example's loss."""
    if y.ndim == 1:
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y)
    return jnp.square(outputs - y).sum(-1)


def _update(optimizer: Any, carry: Any, *batch: Any) -> Any:
    params, state = carry
    loss, grads = jax.value_and_grad(_mean_loss)(params, *batch)
    updates, state = optimizer.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), loss


def jitted_step(task: Task) -> Run:
    """JAX by hand: one donated, compiled step a batch."""
    x, y, optimizer = jnp.asarray(task.x), jnp.asarray(task.y), optax.adam(rate)
    step = jax.jit(lambda carry, x, y, rows: _update(optimizer, carry, x[rows], y[rows]), donate_argnums=0)

    def run() -> Any:
        params = jax.tree.map(jnp.asarray, task.weights)
        carry = params, optimizer.init(params)
        for rows in task.batches:
            carry, _ = step(carry, x, y, rows)
        return carry[0]

    return run


def scan(task: Task, sort: bool = False) -> Run:
    """JAX by hand: the whole run as one scan, over orders that are given, or that each epoch sorts for itself."""
    table, optimizer = (jnp.asarray(task.x), jnp.asarray(task.y)), optax.adam(rate)
    n, batch, per_epoch = len(task.x), task.batch, task.steps // task.epochs
    present = jnp.asarray(task.padded.weight[:per_epoch])

    def steps(table: Any, carry: Any, rows: Any, present: Any) -> Any:
        def step(carry: Any, order: Any) -> Any:
            rows, weight = order
            return _update(optimizer, carry, *(a[rows] for a in table), weight)

        return jax.lax.scan(step, carry, (rows, present))

    @jax.jit
    def given(table: Any, carry: Any, order: Any) -> Any:
        return steps(table, carry, *order)

    @jax.jit
    def sorting(table: Any, carry: Any, key: Any) -> Any:
        def epoch(carry: Any, key: Any) -> Any:
            rows = jnp.pad(jax.random.permutation(key, n), (0, per_epoch * batch - n))
            return steps(table, carry, rows.reshape(per_epoch, batch), present)

        return jax.lax.scan(epoch, carry, jax.random.split(key, task.epochs))

    order = jax.tree.map(jnp.asarray, task.padded)

    def run() -> Any:
        params = jax.tree.map(jnp.asarray, task.weights)
        carry = params, optimizer.init(params)
        (params, _), _ = sorting(table, carry, task.key) if sort else given(table, carry, order)
        return params

    return run


def torch(task: Task, compiled: bool = False, fused: bool = False, dtype: str | None = None) -> Run:
    """PyTorch: eager or compiled, with its plain or its fused Adam, in float32 or under autocast."""
    import torch  # type: ignore[import-not-found]

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    net, loss_of = torch_net(task.sizes)
    net = net.to(device)
    x, y = (torch.as_tensor(a, device=device) for a in (task.x, task.y.astype("i8") if task.labels else task.y))
    batches = [torch.as_tensor(rows, device=device, dtype=torch.int64) for rows in task.batches]
    precision = partial(torch.autocast, device, getattr(torch, dtype or "bfloat16"), enabled=dtype is not None)

    def mean_loss(x: Any, y: Any) -> Any:
        with precision():
            return loss_of(net(x), y)

    if compiled:  # CUDA graphs, where there is CUDA
        mean_loss = torch.compile(mean_loss, mode="reduce-overhead" if device == "cuda" else "default", dynamic=False)

    def run() -> Any:
        with torch.no_grad():
            for layer, (w, b) in zip(net[::2], task.weights, strict=True):
                layer.weight.copy_(torch.as_tensor(w.T.copy()))
                layer.bias.copy_(torch.as_tensor(b))
        optimizer = torch.optim.Adam(net.parameters(), lr=rate, fused=fused or None)
        for rows in batches:
            optimizer.zero_grad(set_to_none=True)
            mean_loss(x[rows], y[rows]).backward()
            optimizer.step()
        return [(layer.weight.detach().T.cpu().numpy(), layer.bias.detach().cpu().numpy()) for layer in net[::2]]

    return run


def torch_net(sizes: Any) -> tuple[Any, Any]:
    """Return PyTorch's net and mean loss."""
    from torch import nn  # type: ignore[import-not-found]

    layers: list[Any] = []
    for m, n in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(m, n), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), nn.functional.cross_entropy if sizes[-1] > 1 else nn.functional.mse_loss


def sklearn(task: Task, rate: float = rate, seed: int = 0) -> Run:
    """scikit-learn's MLP, which draws its own weights and orders."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    options: dict[str, Any] = dict(
        hidden_layer_sizes=task.sizes[1:-1], batch_size=task.batch, learning_rate_init=rate, max_iter=task.epochs
    )
    options |= dict(alpha=0.0, tol=0.0, n_iter_no_change=task.epochs + 1, random_state=seed)

    def run() -> Any:
        net = (MLPClassifier if task.labels else MLPRegressor)(**options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            net.fit(task.x, task.y.ravel())
        return list(zip(net.coefs_, net.intercepts_, strict=True))

    return run


def keras(task: Task) -> Run:
    """Keras on JAX: compile and fit, in an order of its own."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras  # type: ignore[import-not-found]

    layers = [keras.layers.Dense(n, activation="relu") for n in task.sizes[1:-1]]
    net = keras.Sequential([keras.Input(task.sizes[:1]), *layers, keras.layers.Dense(task.sizes[-1])])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if task.labels else "mse"
    net.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)

    def run() -> Any:
        net.set_weights([a for layer in task.weights for a in layer])
        for variable in net.optimizer.variables:
            if variable.path.endswith(("momentum", "velocity", "iteration")):
                variable.assign(np.zeros(variable.shape, variable.dtype))
        net.fit(task.x, task.y, batch_size=task.batch, epochs=task.epochs, verbose=0)  # type: ignore[arg-type]
        weights = [np.asarray(a) for a in net.get_weights()]
        return list(zip(weights[::2], weights[1::2], strict=True))

    return run


def nnx(task: Task) -> Run:
    """Flax NNX: a jitted train step with its graph cached, as its guide to performance says."""
    from flax import nnx  # type: ignore[import-not-found]

    x, y, adam = jnp.asarray(task.x), jnp.asarray(task.y), optax.adam(rate)  # a new one would compile anew

    def loss_of(model: Any, x: Any, y: Any) -> Any:
        return losses_of(model(x), y).mean()

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any, y: Any, rows: Any) -> Any:
        loss, grads = nnx.value_and_grad(loss_of)(model, x[rows], y[rows])
        optimizer.update(model, grads)
        return loss

    def run() -> Any:
        model, linear = nnx_net(task.sizes, nnx.Rngs(0))
        for layer, (w, b) in zip(linear, task.weights, strict=True):
            layer.kernel[...], layer.bias[...] = jnp.asarray(w), jnp.asarray(b)
        optimizer = nnx.Optimizer(model, adam, wrt=nnx.Param)
        cached = nnx.cached_partial(step, model, optimizer)
        for rows in task.batches:
            cached(x, y, rows)
        return [(layer.kernel[...], layer.bias[...]) for layer in linear]

    return run


def nnx_net(sizes: Any, rngs: Any) -> tuple[Any, list[Any]]:
    """Return Flax's net and its linear layers."""
    from flax import nnx  # type: ignore[import-not-found]

    linear = [nnx.Linear(m, n, rngs=rngs) for m, n in zip(sizes, sizes[1:], strict=False)]
    return nnx.Sequential(*[part for layer in linear[:-1] for part in (layer, nnx.relu)], linear[-1]), linear


def equinox(task: Task) -> Run:
    """Equinox: a filtered jit of a step, as its examples have it."""
    import equinox as eqx  # type: ignore[import-not-found]

    x, y, optimizer = jnp.asarray(task.x), jnp.asarray(task.y), optax.adam(rate)

    def loss_of(model: Any, x: Any, y: Any) -> Any:
        return losses_of(jax.vmap(model)(x), y).mean()

    @eqx.filter_jit
    def step(model: Any, state: Any, rows: Any) -> Any:
        loss, grads = eqx.filter_value_and_grad(loss_of)(model, x[rows], y[rows])
        updates, state = optimizer.update(grads, state, model)
        return eqx.apply_updates(model, updates), state, loss

    def run() -> Any:
        model = equinox_net(task.sizes, jax.random.key(0))
        weights = [jnp.asarray(a) for w, b in task.weights for a in (w.T, b)]
        model = eqx.tree_at(
            lambda m: [a for layer in m.layers[::2] for a in (layer.weight, layer.bias)], model, weights
        )
        state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
        for rows in task.batches:
            model, state, _ = step(model, state, rows)
        return [(layer.weight.T, layer.bias) for layer in model.layers[::2]]

    return run


def equinox_net(sizes: Any, key: Any) -> Any:
    """Return Equinox's net."""
    import equinox as eqx  # type: ignore[import-not-found]

    layers: list[Any] = []
    for one, m, n in zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True):
        layers += [eqx.nn.Linear(m, n, key=one), eqx.nn.Lambda(jax.nn.relu)]
    return eqx.nn.Sequential(layers[:-1])


def haiku(task: Task) -> Run:
    """Haiku: a transformed net and a jitted update, as its MNIST example has it."""
    import haiku as hk  # type: ignore[import-not-found]

    x, y, optimizer = jnp.asarray(task.x), jnp.asarray(task.y), optax.adam(rate)
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP(task.sizes[1:])(x)))

    @jax.jit
    def step(params: Any, state: Any, rows: Any) -> Any:
        def loss_of(params: Any) -> Any:
            return losses_of(net.apply(params, x[rows]), y[rows]).mean()

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    def run() -> Any:
        params: Any = {
            f"mlp/~/linear_{i}": {"w": jnp.asarray(w), "b": jnp.asarray(b)} for i, (w, b) in enumerate(task.weights)
        }
        state = optimizer.init(params)
        for rows in task.batches:
            params, state, _ = step(params, state, rows)
        return [(layer["w"], layer["b"]) for layer in params.values()]

    return run


HALF = partial(fit, dtype="bfloat16")
PEERS = (
    Peer("jaxmlp.fit", "jaxmlp", fit),
    Peer("JAX by hand, one scan", "jax", scan),
    Peer("JAX by hand, one scan that sorts", "jax", partial(scan, sort=True)),
    Peer("JAX by hand, a jitted step", "jax", jitted_step),
    Peer("Haiku", "haiku", haiku),
    Peer("Equinox", "equinox", equinox),
    Peer("Flax NNX", "flax", nnx),
    Peer("Keras", "keras", keras),
    Peer("PyTorch", "torch", torch),
    Peer("PyTorch, fused Adam", "torch", partial(torch, fused=True)),
    Peer("PyTorch, compiled", "torch", partial(torch, compiled=True, fused=True)),
    Peer("scikit-learn", "sklearn", sklearn),
    Peer("jaxmlp.fit, bfloat16", "jaxmlp", HALF),
    Peer("PyTorch, bfloat16", "torch", partial(torch, dtype="bfloat16", fused=True)),
)
OWN_ORDER = {"JAX by hand, one scan that sorts", "Keras", "scikit-learn"}  # so their last weights are others
