"""Many members, one prediction with honest uncertainty: what each of them says, and averaged votes."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmlp import _arrays, _check, _compile, _mesh, losses
from jaxmlp._known import is_far
from jaxmlp._mesh import on_automatic_axes
from jaxmlp._scaling import outputs as in_units
from jaxmlp._verbs import members, verb
from jaxmlp.types import Model, Number, Numeric, Params, Status


@verb
def predict(model: Model, params: Params, x: Numeric, **numbers: Number) -> Array:
    """Return the outputs of every member on the same x (batch, in): (members, batch, out).

    Raises:
      ValueError: for x or parameters that do not fit the model, and for states in the place of their params.

    >>> from jaxmlp import MLP
    >>> params = jax.vmap(MLP((3, 2)).init)(jax.random.split(jax.random.key(0), 4))
    >>> predict(MLP((3, 2)), params, jnp.ones((5, 3))).shape
    (4, 5, 2)
    """
    if hasattr(params, "opt_state"):
        raise ValueError("params must be the members' parameters; got states; pass states.params")
    members("params", params)
    numbers = {name: _arrays.number(name, value) for name, value in numbers.items()}
    x = jnp.asarray(_arrays.array("x", x))
    outputs = _predict(model, params, x, numbers)
    return outputs if is_far(x) else _mesh.whole(outputs)


@_compile.jit(static_argnums=0)
def _predict(model: Model, params: Params, x: Array, numbers: dict[str, Number]) -> Array:
    return jax.vmap(lambda p: in_units(model, p, model.apply(p, x, **numbers)))(params)


class Categorical(NamedTuple):
    """Averaged class probabilities, one vote a member."""

    probabilities: Array  # (members, batch, classes)

    @property
    def mean(self) -> Array:
        """Averaged probabilities, (batch, classes)."""
        return self.probabilities.mean(0)

    @property
    def entropy(self) -> Array:
        """Entropy of the average in nats, (batch,): all uncertainty."""
        return _entropy(self.mean)

    @property
    def mutual_information(self) -> Array:
        """Entropy of the average less the members' mean entropy, (batch,): what the members disagree about."""
        return self.entropy - _entropy(self.probabilities).mean(0)

    @on_automatic_axes
    def log_prob(self, y: Numeric) -> Array:
        """Return the log of the averaged probability of labels y (batch,); of 0, that of the least normal float."""
        y = _arrays.array("y", y)
        _check.labels("y", y, self.mean.shape[-1])
        if y.shape != self.probabilities.shape[1:2]:
            raise ValueError(f"y must have shape {self.probabilities.shape[1:2]}; got {_check.describe(y)}")
        tiny = jnp.finfo(self.probabilities.dtype).tiny
        chosen = jnp.take_along_axis(self.mean, jnp.asarray(y)[:, None], axis=-1)[:, 0]
        return jnp.log(jnp.maximum(chosen, tiny))


@on_automatic_axes
def categorical(outputs: Numeric, *, status: Numeric | None = None) -> Categorical:
    """Return the averaged probabilities softmax(outputs) of the members' logits.

    Args:
      outputs: (members, batch, classes), from `predict` with nets trained on `losses.cross_entropy`.
      status: history["status"]; members that diverged are left out, and a warning counts them.

    Raises:
      ValueError: for outputs without a members' axis, or of no member that is left.

    >>> c = categorical(jnp.array([[[10.0, -10.0]], [[-10.0, 10.0]]]))
    >>> c.mean.round(2), c.mutual_information.round(2)
    (Array([[0.5, 0.5]], dtype=float32), Array([0.69], dtype=float32))
    """
    return Categorical(jax.nn.softmax(losses.wide(healthy(outputs, status)), axis=-1))


def _entropy(p: Array) -> Array:
    return -jnp.sum(jax.scipy.special.xlogy(p, p), axis=-1)


def healthy(outputs: Numeric, status: Numeric | None) -> Array:
    """Return the outputs (members, batch, out) of those that did not diverge; a warning counts the others."""
    outputs = _arrays.array("outputs", outputs)
    status = None if status is None else np.asarray(_arrays.listed("status", status))
    _check.floating("outputs", outputs)
    if outputs.ndim != 3 or len(outputs) == 0:
        raise ValueError(
            f"outputs must have shape (members, batch, out), as population.predict gives; got "
            f"{_check.describe(outputs)}"
        )
    outputs = jnp.asarray(outputs)
    if status is None:
        return outputs
    good = np.flatnonzero(np.asarray(status) != Status.DIVERGED)
    if np.shape(status) != (len(outputs),) or len(good) == 0:
        raise ValueError(f"status must be history['status'] of {len(outputs)} members, not all diverged; got {status}")
    if len(good) < len(outputs):
        warnings.warn(
            f"{len(outputs) - len(good)} of {len(outputs)} members diverged and are left out",
            stacklevel=_check.level_of_caller(),
        )
    return outputs[good]
