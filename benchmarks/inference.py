"""How long does one prediction take, and how many rows a second go through?

    python -m benchmarks inference

784-256-256-10: one row from NumPy to NumPy, in microseconds; then 60,000 rows that lie where the library wants them.
The same weights for all; PyTorch without gradients, all rows at once and in chunks of 1,000; ONNX Runtime on a graph of
the same layers.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import torch_net
from benchmarks.tasks import Task, table
from benchmarks.timing import Peer, Row, in_turn, installed
from jaxmlp import serving

SIZES, ROWS, CHUNK, CALLS = (784, 256, 256, 10), 60_000, 1000, 500
Predict = Callable[[np.ndarray], Any]


def run(*, quick: bool = False) -> list[Row]:
    """Time one row, and many."""
    task = Task(SIZES, *table(SIZES, 200), batch=100, epochs=1)
    calls, rows, repeats = (3, 2500, 2) if quick else (CALLS, ROWS, 9)
    row = task.x[:1]

    def again(answer: Predict) -> Callable[[], None]:
        def ask() -> None:
            for _ in range(calls):
                np.asarray(answer(row))

        return ask

    one = {peer.name: again(peer.make(task)) for peer in installed(ONE)}
    found = in_turn("inference, one row", one, calls, unit="us", repeats=repeats, settle=True)
    x = np.tile(task.x, (rows // 100, 1))[:rows]
    many = {peer.name: peer.make(task, x) for peer in installed(MANY)}
    return found + in_turn(f"inference, {rows:,} rows", many, rows, unit="rows/s", repeats=repeats)


def by_hand(params: Any, x: Any) -> Any:
    """Return the outputs, without any check."""
    for w, b, *_ in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b, *_ = params[-1]
    return x @ w + b


def bare_jit(task: Task) -> Predict:
    """JAX by hand, compiled."""
    return partial(jax.jit(by_hand), task.state.params)


def jitted(task: Task) -> Predict:
    """`MLP.apply` under `jax.jit`."""
    return partial(jax.jit(task.recipe().model.apply), task.state.params)


def ahead(task: Task) -> Predict:
    """`MLP.apply`, compiled ahead of time for one row."""
    return partial(jax.jit(task.recipe().model.apply).lower(task.state.params, task.x[:1]).compile(), task.state.params)


def numpy_alone(task: Task) -> Predict:
    """`serving.in_numpy`."""
    model: Any = task.recipe().model
    return serving.in_numpy(model, task.state.params)


def _torch(task: Task) -> Any:
    import torch  # type: ignore[import-not-found]

    net, _ = torch_net(task.sizes)
    with torch.no_grad():
        for layer, (w, b) in zip(net[::2], task.weights, strict=True):
            layer.weight.copy_(torch.as_tensor(w.T.copy()))
            layer.bias.copy_(torch.as_tensor(b))
    return torch, net.eval()


def torch_one(task: Task, compiled: bool = False) -> Predict:
    """PyTorch in inference mode."""
    torch, net = _torch(task)
    answer = torch.compile(net, dynamic=False) if compiled else net

    def ask(x: np.ndarray) -> Any:
        with torch.inference_mode():
            return answer(torch.from_numpy(x)).numpy()

    return ask


def _sklearn(task: Task) -> Any:
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(task.sizes[1:-1], max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.fit(task.x, np.arange(len(task.x)) % task.sizes[-1])
    net.coefs_, net.intercepts_ = map(list, zip(*task.weights, strict=True))
    return net.predict_proba


def onnx(task: Task) -> Predict:
    """ONNX Runtime on a graph of products, sums and rectifiers."""
    import onnxruntime  # type: ignore[import-not-found]
    from onnx import TensorProto, helper, numpy_helper  # type: ignore[import-not-found]

    nodes, tensors, h = [], [], "x"
    last = len(task.weights) - 1
    for i, (w, b) in enumerate(task.weights):
        tensors += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(b, f"b{i}")]
        out = "y" if i == last else f"s{i}"
        nodes.append(helper.make_node("Gemm", [h, f"w{i}", f"b{i}"], [out]))
        if i < last:
            nodes.append(helper.make_node("Relu", [out], [f"h{i}"]))
        h = f"h{i}"
    ends: Any = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, n])]
        for name, n in (("x", task.sizes[0]), ("y", task.sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", ends[0], ends[1], tensors)
    opset = [helper.make_opsetid("", 17)]
    session = onnxruntime.InferenceSession(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    return lambda x: session.run(None, {"x": x})[0]


def at_once(task: Task, x: np.ndarray) -> Callable[[], Any]:
    """`MLP.apply` on all rows."""
    return partial(jax.jit(task.recipe().model.apply), task.state.params, jnp.asarray(x))


def in_chunks(task: Task, x: np.ndarray, dtype: str | None = None) -> Callable[[], Any]:
    """`serving.predict`."""
    return partial(serving.predict, task.recipe(dtype).model, task.state.params, jnp.asarray(x))


def torch_many(task: Task, x: np.ndarray, chunk: int | None = CHUNK, half: bool = False) -> Callable[[], Any]:
    """PyTorch, all at once or in chunks."""
    torch, net = _torch(task)
    net = net.bfloat16() if half else net
    chunks = torch.as_tensor(x).split(chunk or len(x))
    out = torch.empty(len(x), task.sizes[-1])

    def ask() -> Any:
        with torch.inference_mode():
            for rows, place in zip(chunks, out.split(chunk or len(x)), strict=True):
                place.copy_(net(rows.bfloat16() if half else rows))
        return out.numpy()

    return ask


def asked(one: Callable[[Task], Predict]) -> Callable[[Task, np.ndarray], Callable[[], Any]]:
    """Return what asks a predictor of NumPy arrays for all rows."""
    return lambda task, x: partial(one(task), x)


ONE = (
    Peer("JAX by hand, jit", "jax", bare_jit),
    Peer("jaxmlp, jit", "jaxmlp", jitted),
    Peer("jaxmlp, ahead of time", "jaxmlp", ahead),
    Peer("jaxmlp, in_numpy", "jaxmlp", numpy_alone),
    Peer("PyTorch", "torch", torch_one),
    Peer("PyTorch, compiled", "torch", partial(torch_one, compiled=True)),
    Peer("scikit-learn", "sklearn", _sklearn),
    Peer("ONNX Runtime", "onnxruntime", onnx),
)
MANY = (
    Peer("jaxmlp, predict", "jaxmlp", in_chunks),
    Peer("jaxmlp, all at once", "jaxmlp", at_once),
    Peer("jaxmlp, predict in bfloat16", "jaxmlp", partial(in_chunks, dtype="bfloat16")),
    Peer("PyTorch, all at once", "torch", partial(torch_many, chunk=None)),
    Peer("PyTorch, chunks", "torch", torch_many),
    Peer("PyTorch, chunks in bfloat16", "torch", partial(torch_many, half=True)),
    Peer("scikit-learn", "sklearn", asked(_sklearn)),
    Peer("ONNX Runtime", "onnxruntime", asked(onnx)),
)
