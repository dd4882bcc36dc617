"""Many networks' training by jaxmlp and by other libraries, a seed and a rate each, as their users would write it.

Each function takes a `Task` and the members' rates, and returns `run`, which trains all members from weights and in
orders of their own. A new contender is a new function and its row in `CROWDS`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import joblib
import numpy as np
import optax

import jaxmlp
from benchmarks.peers import equinox_net, losses_of, nnx_net, sklearn, torch_net
from benchmarks.tasks import Task
from benchmarks.timing import Peer
from jaxmlp import population
from jaxmlp._engine.devices import cores

Run = Callable[[], Any]


def crowd(task: Task, rates: np.ndarray) -> Run:
    """`population.fit`, on all cores."""
    keys, numbers = jax.random.split(task.key, len(rates)), {"learning_rate": jnp.asarray(rates)}
    return lambda: population.fit(keys, (task.x, task.y), task.recipe(), numbers)


def looped(task: Task, rates: np.ndarray) -> Run:
    """`jaxmlp.fit`, one member after the other."""
    keys, recipe, table = jax.random.split(task.key, len(rates)), task.recipe(), (task.x, task.y)
    return lambda: [
        jaxmlp.fit(key, table, recipe, {"learning_rate": rate}) for key, rate in zip(keys, rates, strict=True)
    ]


def torch_func(task: Task, rates: np.ndarray) -> Run:
    """PyTorch's `torch.func`: all members as one stack, with Adam written for the stack."""
    import torch  # type: ignore[import-not-found]
    from torch.func import functional_call, grad, stack_module_state, vmap  # type: ignore[import-not-found]

    net, loss_of = torch_net(task.sizes)
    x, y = torch.as_tensor(task.x), torch.as_tensor(task.y.astype("i8") if task.labels else task.y)

    def run() -> Any:
        torch.manual_seed(0)
        params, _ = stack_module_state([torch_net(task.sizes)[0] for _ in rates])
        params = {name: p.detach() for name, p in params.items()}
        first = {name: torch.zeros_like(p) for name, p in params.items()}
        second = {name: torch.zeros_like(p) for name, p in params.items()}
        rate, step = torch.as_tensor(rates), 0

        def objective(p: Any, x: Any, y: Any) -> Any:
            return loss_of(functional_call(net, p, (x,)), y)

        gradient = vmap(grad(objective))
        for _ in range(task.epochs):
            orders = torch.rand(len(rates), len(x)).argsort(1)
            for rows in orders.split(task.batch, dim=1):
                grads = gradient(params, x[rows], y[rows])
                step += 1
                with torch.no_grad():
                    for name, p in params.items():
                        first[name].lerp_(grads[name], 0.1)
                        second[name].mul_(0.999).addcmul_(grads[name], grads[name], value=0.001)
                        slope = (second[name] / (1 - 0.999**step)).sqrt_().add_(1e-8)
                        each = (rate / (1 - 0.9**step)).view(-1, *[1] * (p.ndim - 1))
                        p.sub_(each * first[name] / slope)
        return [p.numpy() for p in params.values()]

    return run


def _orders(task: Task, members: int) -> list[np.ndarray]:
    """Return the rows of each step, (members, batch)."""
    rng = np.random.default_rng(0)
    epochs = [rng.permuted(np.tile(np.arange(len(task.x)), (members, 1)), axis=1) for _ in range(task.epochs)]
    cuts = range(task.batch, len(task.x), task.batch)
    return [rows for epoch in epochs for rows in np.split(epoch, cuts, axis=1)]


def filter_vmap(task: Task, rates: np.ndarray) -> Run:
    """Equinox: `filter_vmap` of a step over a stack of models."""
    import equinox as eqx  # type: ignore[import-not-found]

    x, y, orders = jnp.asarray(task.x), jnp.asarray(task.y), _orders(task, len(rates))
    keys, rate = jax.random.split(task.key, len(rates)), jnp.asarray(rates)

    def objective(model: Any, x: Any, y: Any) -> Any:
        return losses_of(jax.vmap(model)(x), y).mean()

    @eqx.filter_jit
    @eqx.filter_vmap(in_axes=(eqx.if_array(0), eqx.if_array(0), 0, 0))
    def step(model: Any, state: Any, rate: Any, rows: Any) -> Any:
        loss, grads = eqx.filter_value_and_grad(objective)(model, x[rows], y[rows])
        updates, state = optax.adam(rate).update(grads, state, model)
        return eqx.apply_updates(model, updates), state, loss

    @eqx.filter_jit
    @eqx.filter_vmap
    def make(key: Any) -> Any:
        model = equinox_net(task.sizes, key)
        return model, optax.adam(0.1).init(eqx.filter(model, eqx.is_inexact_array))

    def run() -> Any:
        model, state = make(keys)
        for rows in orders:
            model, state, _ = step(model, state, rate, rows)
        return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))

    return run


def nnx_vmap(task: Task, rates: np.ndarray) -> Run:
    """Flax: `nnx.vmap` of a step over a stack of models, its graph cached."""
    from flax import nnx  # type: ignore[import-not-found]

    x, y, orders = jnp.asarray(task.x), jnp.asarray(task.y), _orders(task, len(rates))

    adam = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)  # a number each, in the optimizer's state

    @nnx.jit
    @nnx.vmap(in_axes=(0, 0), out_axes=0)
    def make(key: Any, rate: Any) -> Any:
        model, _ = nnx_net(task.sizes, nnx.Rngs(key))
        optimizer = nnx.Optimizer(model, adam, wrt=nnx.Param)
        optimizer.opt_state.hyperparams["learning_rate"][...] = rate
        return model, optimizer

    def objective(model: Any, x: Any, y: Any) -> Any:
        return losses_of(model(x), y).mean()

    @nnx.jit
    @nnx.vmap(in_axes=(0, 0, 0), out_axes=0)
    def step(model: Any, optimizer: Any, rows: Any) -> Any:
        loss, grads = nnx.value_and_grad(objective)(model, x[rows], y[rows])
        optimizer.update(model, grads)
        return loss

    def run() -> Any:
        model, optimizer = make(jax.random.split(task.key, len(rates)), jnp.asarray(rates))
        cached = nnx.cached_partial(step, model, optimizer)
        for rows in orders:
            cached(rows)
        return jax.tree.leaves(nnx.state(model, nnx.Param))

    return run


def sklearn_processes(task: Task, rates: np.ndarray) -> Run:
    """scikit-learn's MLPs, one after the other on a process a core."""
    return _on_processes(_one_sklearn, task, rates)


def torch_processes(task: Task, rates: np.ndarray) -> Run:
    """PyTorch, one net after the other on a process a core, one thread each."""
    return _on_processes(_one_torch, task, rates)


def _on_processes(one: Callable[[Task, float, int], Any], task: Task, rates: np.ndarray) -> Run:
    jobs = [joblib.delayed(one)(task, float(rate), seed) for seed, rate in enumerate(rates)]
    return lambda: joblib.Parallel(n_jobs=cores())(jobs)


def _one_sklearn(task: Task, rate: float, seed: int) -> Any:
    return sklearn(task, rate=rate, seed=seed)()


def _one_torch(task: Task, rate: float, seed: int) -> Any:
    import torch  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net, loss_of = torch_net(task.sizes)
    x, y = torch.as_tensor(task.x), torch.as_tensor(task.y.astype("i8") if task.labels else task.y)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(task.epochs):
        for rows in torch.randperm(len(x)).split(task.batch):
            optimizer.zero_grad(set_to_none=True)
            loss_of(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return [p.detach().numpy() for p in net.parameters()]


FIT = Peer("population.fit", "jaxmlp", crowd)
CROWDS = (
    Peer("Equinox, filter_vmap", "equinox", filter_vmap),
    Peer("Flax, nnx.vmap", "flax", nnx_vmap),
    Peer("PyTorch, torch.func", "torch", torch_func),
)
ALONE = (  # whose speed does not depend on how many they are; "all cores" is a process on each
    Peer("jaxmlp.fit in a loop", "jaxmlp", looped),
    Peer("scikit-learn, all cores", "sklearn", sklearn_processes),
    Peer("PyTorch, all cores", "torch", torch_processes),
)
