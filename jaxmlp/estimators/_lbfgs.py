"""scikit-learn's solver "lbfgs": SciPy's L-BFGS-B on loss and gradient of all rows, which JAX computes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from sklearn.utils.optimize import _check_optimize_result

from jaxmlp import _compile
from jaxmlp.estimators._drive import ENTRIES, Table
from jaxmlp.layer import Layer
from jaxmlp.recipe import Recipe

Layers = tuple[Layer, ...]


@_compile.jit(static_argnames=("recipe",))
def loss_and_slope(params: Layers, x: Any, y: Any, weight: Any, numbers: dict[str, Any], recipe: Recipe) -> Any:
    """Return the weighted sum of what the rows' losses are told as, and the gradient of the sum of the losses.

    Neither has the penalty. The two differ where scikit-learn's do: it gives its solver the mean of the squared errors
    of many outputs and the gradient of their sum, and log losses of probabilities that are kept from zero and one.
    """
    objective: Any = recipe.loss
    bound = recipe.bind(numbers | {"learning_rate": 1.0})
    own = {name: a for name, a in bound.numbers.loss.items() if name != "penalty"}

    def total(params: Layers) -> Any:
        outputs = bound.apply(params, x)
        found = objective(outputs, y, penalty=0.0, params=params, weight=weight, **own)
        losses, told = found if isinstance(found, tuple) else (found, {"reported": found})
        return jnp.sum(losses * weight), jnp.sum(told["reported"] * weight)

    return jax.value_and_grad(total, has_aux=True)(params)


def minimise(
    layers: Layers,
    table: Table,
    recipe: Recipe,
    numbers: dict[str, Any],
    limits: dict[str, Any],
    tell: Callable[[Layers, Any], bool] | None,
) -> tuple[Layers, Any]:
    """Return the layers at the end, and SciPy's result; `tell(layers, result)` ends it where it returns true.

    Sparse rows are made dense some at a time. SciPy works in float64, whatever the net does.
    """
    leaves, tree = jax.tree.flatten(layers)
    shapes, ends = [a.shape for a in leaves], np.cumsum([a.size for a in leaves])
    dtype, penalty = leaves[0].dtype, float(numbers["penalty"]) / float(table.unit)  # the weights are divided by it
    rows = len(table.y)
    weight = np.ones(rows, dtype) if table.weight is None else table.weight
    total = float(np.sum(weight, dtype=np.float64))
    most = rows if table.dense is None else max(1, ENTRIES // table.x.shape[1])
    parts = []
    for first in range(0, rows, most):
        cut = slice(first, first + most)
        parts.append((table.x[cut], table.y[cut], weight[cut]))
    if table.dense is None:
        parts = [jax.tree.map(jnp.asarray, part) for part in parts]

    def unpack(flat: np.ndarray) -> Layers:
        cut = [a.reshape(shape) for a, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]
        return jax.tree.unflatten(tree, cut)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        params = unpack(flat)
        narrow = jax.tree.map(lambda a: a.astype(dtype), params)
        loss, slope = 0.0, np.zeros_like(flat)
        for x, y, w in parts:
            x = x if table.dense is None else table.dense(x)
            (_, told), grads = jax.device_get(loss_and_slope(narrow, x, y, w, numbers, recipe=recipe))
            loss += float(told)
            slope += np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])
        squares = sum(float(np.vdot(layer.w, layer.w)) for layer in params)
        pull = tuple(jax.tree.map(np.zeros_like, layer)._replace(w=penalty * layer.w) for layer in params)
        slope += np.concatenate([np.ravel(a) for a in jax.tree.leaves(pull)])
        return (loss + 0.5 * penalty * squares) / total, slope / total

    def look(intermediate_result: Any) -> None:
        if tell is not None and tell(unpack(intermediate_result.x), intermediate_result):
            raise StopIteration

    found = scipy.optimize.minimize(
        objective,
        np.concatenate([np.ravel(a) for a in leaves]).astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        options=limits,
        callback=None if tell is None else look,
    )
    return unpack(found.x), found


def iterations(result: Any, max_iter: int) -> int:
    """Return how many iterations were taken; a warning in scikit-learn's words says if they were too few."""
    return int(_check_optimize_result("lbfgs", result, max_iter))
