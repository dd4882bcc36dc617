"""The update rules of scikit-learn's solvers, as factories over Optax's interface.

They differ from Optax's own by what a user of scikit-learn would see: where Adam's epsilon stands, and that the
velocity of SGD keeps the rates at which it was gathered.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmlp.types import Number


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, in the form of the end of its section 2).

    m <- beta_1 m + (1 - beta_1) g,    v <- beta_2 v + (1 - beta_2) g^2
    p <- p - rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)
    """

    def __call__(
        self, learning_rate: Number, beta_1: Number = 0.9, beta_2: Number = 0.999, epsilon: Number = 1e-8
    ) -> optax.GradientTransformation:
        """Return the transformation; all numbers may be traced."""

        def init(params: Any) -> Any:
            return self.first(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            count, m, v = state[0] + 1, *state[1:]
            m = jax.tree.map(lambda m, g: beta_1 * m + (1 - beta_1) * g, m, updates)
            v = jax.tree.map(lambda v, g: beta_2 * v + (1 - beta_2) * jnp.square(g), v, updates)
            t = count.astype(jax.tree.leaves(updates)[0].dtype)
            rate = learning_rate * jnp.sqrt(1 - beta_2**t) / (1 - beta_1**t)
            return jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + epsilon), m, v), (count, m, v)

        return optax.GradientTransformation(init, update)

    def first(self, zeros: Any, count: Any) -> Any:
        """Return the state before the first step, made of zeros like the parameters, and of a zero that counts."""
        return count, zeros, zeros


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum, by Nesterov's rule or plainly.

    u <- momentum u - rate g,    p <- p + momentum u - rate g  (Nesterov),    p <- p + u  (plain)
    """

    nesterov: bool = True

    def __call__(self, learning_rate: Number, momentum: Number = 0.9) -> optax.GradientTransformation:
        """Return the transformation; all numbers may be traced."""

        def init(params: Any) -> Any:
            return self.first(jax.tree.map(jnp.zeros_like, params), None)

        def moved(velocity: Any, grads: Any) -> Any:
            return jax.tree.map(lambda u, g: momentum * u - learning_rate * g, velocity, grads)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            velocity = moved(state, updates)
            return moved(velocity, updates) if self.nesterov else velocity, velocity

        return optax.GradientTransformation(init, update)

    def first(self, zeros: Any, count: Any) -> Any:
        """Return the state before the first step, made of zeros like the parameters."""
        return zeros


SOLVERS = (Adam, SGD)  # whose first state is zero
