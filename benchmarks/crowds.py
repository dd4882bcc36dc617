"""The same training by other libraries, each as its own users would write it for speed."""

import importlib.util
import warnings
from typing import Any

import joblib
import numpy as np

from jaxmlp.devices import cores


def has_torch() -> bool:
    """Tell whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def sklearn(sizes: Any, data: Any, batch: int, epochs: int, rates: np.ndarray) -> Any:
    """Train scikit-learn's MLPs, one after the other on a process a core."""
    return _on_processes(_one_sklearn, sizes, data, batch, epochs, rates)


def torch_processes(sizes: Any, data: Any, batch: int, epochs: int, rates: np.ndarray) -> Any:
    """Train PyTorch networks, one after the other on a process a core, one thread each."""
    return _on_processes(_one_torch, sizes, data, batch, epochs, rates)


def _on_processes(one: Any, sizes: Any, data: Any, batch: int, epochs: int, rates: np.ndarray) -> Any:
    jobs = (joblib.delayed(one)(sizes, data, batch, epochs, float(rate), seed) for seed, rate in enumerate(rates))
    return joblib.Parallel(n_jobs=cores())(jobs)


def _one_sklearn(sizes: Any, data: Any, batch: int, epochs: int, rate: float, seed: int) -> float:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    x, y = data
    kind = MLPClassifier if sizes[-1] > 1 else MLPRegressor
    options: dict[str, Any] = dict(
        hidden_layer_sizes=sizes[1:-1],
        batch_size=batch,
        learning_rate_init=rate,
        max_iter=epochs,
        alpha=0.0,
        tol=0.0,
        n_iter_no_change=epochs + 1,
        random_state=seed,
    )
    net = kind(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        net.fit(x, y if sizes[-1] > 1 else y[:, 0])
    return float(net.loss_)


def _one_torch(sizes: Any, data: Any, batch: int, epochs: int, rate: float, seed: int) -> float:
    import torch  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net, loss_of = _torch_net(sizes)
    x, y = torch.as_tensor(data[0]), _torch_targets(data[1])
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    loss = torch.zeros(())
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    return float(loss.detach())


def torch_func(sizes: Any, data: Any, batch: int, epochs: int, rates: np.ndarray) -> Any:
    """Train all members as one stack, under torch.func, with Adam written for the stack and a learning rate each."""
    import torch  # type: ignore[import-not-found]
    from torch.func import functional_call, grad, stack_module_state, vmap  # type: ignore[import-not-found]

    torch.manual_seed(0)
    nets = [_torch_net(sizes)[0] for _ in rates]
    net, loss_of = _torch_net(sizes)
    params, _ = stack_module_state(nets)
    params = {name: p.detach() for name, p in params.items()}
    first = {name: torch.zeros_like(p) for name, p in params.items()}
    second = {name: torch.zeros_like(p) for name, p in params.items()}
    x, y, count = torch.as_tensor(data[0]), _torch_targets(data[1]), len(rates)
    rate = torch.as_tensor(rates)

    def objective(p: Any, x: Any, y: Any) -> Any:
        return loss_of(functional_call(net, p, (x,)), y)

    gradient, step = vmap(grad(objective)), 0
    for _ in range(epochs):
        orders = torch.rand(count, len(x)).argsort(1)
        for start in range(0, len(x), batch):
            rows = orders[:, start : start + batch]
            grads = gradient(params, x[rows], y[rows])
            step += 1
            with torch.no_grad():
                for name, p in params.items():
                    first[name].lerp_(grads[name], 0.1)
                    second[name].mul_(0.999).addcmul_(grads[name], grads[name], value=0.001)
                    slope = (second[name] / (1 - 0.999**step)).sqrt_().add_(1e-8)
                    each = (rate / (1 - 0.9**step)).view(-1, *[1] * (p.ndim - 1))
                    p.sub_(each * first[name] / slope)
    return float(next(iter(params.values())).sum())


def _torch_net(sizes: Any) -> tuple[Any, Any]:
    from torch import nn  # type: ignore[import-not-found]

    layers: list[Any] = []
    for m, n in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(m, n), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), nn.functional.cross_entropy if sizes[-1] > 1 else nn.functional.mse_loss


def _torch_targets(y: np.ndarray) -> Any:
    import torch  # type: ignore[import-not-found]

    return torch.as_tensor(y.astype("i8") if y.ndim == 1 else y)
