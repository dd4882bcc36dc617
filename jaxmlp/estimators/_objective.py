"""What a perceptron of scikit-learn's interface minimises: the mean loss of a batch, and the penalty on its weights."""

import dataclasses
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxmlp import losses
from jaxmlp.types import Loss, Params

OWN = ("params", "weight", "penalty")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of an example, and its share of the penalty, so that the weighted mean over a batch is scikit-learn's.

        sum_i weight_i loss_i / sum_i weight_i  +  penalty / 2 sum_l |W_l|^2 / sum_i weight_i

    The penalty is scikit-learn's alpha; some losses have an alpha of their own.

    Args:
      loss: (outputs, targets, **numbers) -> (batch,).
      outputs: by how many the data's part is divided in what is reported: scikit-learn minimises the squared error
        summed over the outputs, and tells their mean.
      least: how far from zero and one the probabilities of a log loss stay in what is reported, as scikit-learn's do;
        the steps of L-BFGS follow from what is reported, and so does the end of a run.
    """

    loss: Loss
    outputs: int = 1
    least: float | None = None

    @property
    def takes(self) -> list[inspect.Parameter]:
        """What the loss takes by keyword."""
        return [p for p in inspect.signature(self.loss).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def __post_init__(self) -> None:
        kinds, theirs = inspect.Parameter, self.takes
        own = [kinds(name, kinds.KEYWORD_ONLY) for name in OWN if name not in {p.name for p in theirs}]
        two = [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in ("outputs", "targets")]
        object.__setattr__(self, "__signature__", inspect.Signature([*two, *own, *theirs]))

    def __call__(self, outputs: Any, targets: Any, *, penalty: Any, params: Params, weight: Any, **numbers: Any) -> Any:
        """Return one value an example, (batch,); with {"reported": the value that is told} where it is another."""
        asked = inspect.signature(self.loss).parameters
        numbers |= {name: a for name, a in (("params", params), ("weight", weight)) if name in asked}
        found: Any = self.loss(outputs, targets, **numbers)
        total = jnp.asarray(len(found), found.dtype) if weight is None else jnp.sum(weight).astype(found.dtype)
        squares = sum(jnp.sum(jnp.square(layer.w)) for layer in layers_of(params))
        pull = 0.5 * penalty * squares / jnp.where(total > 0, total, 1)
        if self.least is not None:
            return found + pull, {"reported": self._bounded(self.least, outputs, targets, found) + pull}
        if self.outputs == 1:
            return found + pull
        return found + pull, {"reported": found / self.outputs + pull}

    def _bounded(self, least: float, outputs: Any, targets: Any, log_losses: Any) -> Any:
        """Return the log losses with all probabilities within [least, 1 - least]."""
        low, high = -math.log1p(-least), -math.log(least)
        if self.loss is losses.cross_entropy:
            return jnp.clip(log_losses, low, high)
        if outputs.dtype == jnp.float64:  # its rounding of what is next to one, too: L-BFGS would go other ways
            p = jnp.clip(jax.nn.sigmoid(outputs), least, 1 - least)
            return -jnp.sum(xlogy(targets, p) + xlogy(1 - targets, 1 - p), axis=-1)
        return self.loss(jnp.clip(outputs, low - high, high - low), targets)


def layers_of(params: Params) -> Any:
    """Return the layers in the parameters of an `MLP`, or of one inside a `transforms.Scaled`."""
    return params["model"] if isinstance(params, dict) else params
