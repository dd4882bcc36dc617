"""Losses made of losses: a sum over heads, a mean over the tokens of an example. Values, equal where their parts are.

What a part asks for, and its numbers, are asked for by the whole: its signature names them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxmlp import _arrays, _check
from jaxmlp._naming import RESERVED
from jaxmlp._passing import apart, check_names, check_part, parameters, share, signature
from jaxmlp._requests import asked
from jaxmlp._targets import number, times, widest
from jaxmlp.types import Loss, PyTree


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Total:
    """The sum of the losses of several heads, as `total` makes it.

    Args:
      heads: the names, in the order of the alphabet.
      losses: the loss of each.

    Raises:
      ValueError: for names that are no columns of a history or stand twice, parts that are no losses or have no hash,
        and the name of a number that would mean two things.
    """

    heads: tuple[str, ...]
    losses: tuple[Loss, ...]

    def __post_init__(self) -> None:
        heads, losses = self.heads, self.losses
        if not isinstance(heads, tuple) or not isinstance(losses, tuple) or not heads or len(heads) != len(losses):
            raise ValueError(f"total must have a loss for each of its heads; got {heads!r:.200} and {losses!r:.200}")
        for head, loss in zip(heads, losses, strict=True):
            if not isinstance(head, str) or not head.isidentifier():
                raise ValueError(f"a head of total must be called by a word; got {head!r:.80}")
            if head in RESERVED or head.startswith("validation_"):
                raise ValueError(
                    f"a head of total must not be called {', '.join(RESERVED)}, or validation_...: a history has these "
                    f"of its own; got {head!r}"
                )
            check_part(f"the loss of head {head!r}", loss)
        if list(heads) != sorted(set(heads)):
            raise ValueError(f"heads of total must be in the order of the alphabet, each once; got {heads}")
        weights = {f"{head}_weight": 1.0 for head in heads}
        taken = [name for name in weights if any(name in parameters(loss) for loss in losses)]
        if taken:
            raise ValueError(
                f"{taken[0]} must be the weight of one head; a loss of total names it too; rename the head"
            )
        object.__setattr__(self, "__signature__", signature(losses, weights))

    def __call__(self, outputs: PyTree, targets: PyTree, **given: Any) -> tuple[Array, dict[str, Array]]:
        """Return the weighted sum (batch,), and the loss of each head by its name, with what it says besides."""
        check_names(self, given)
        outputs = self._of_heads("outputs", outputs)
        targets = dict.fromkeys(self.heads) if targets is None else self._of_heads("targets", targets)
        each: dict[str, Any] = {}
        told: dict[str, Any] = {}
        for head, loss in zip(self.heads, self.losses, strict=True):
            values, extras = apart(loss(outputs[head], targets[head], **share(loss, given)))
            shape = getattr(values, "shape", None)
            if shape is None or len(shape) != 1 or any(shape != other.shape for other in each.values()):
                raise ValueError(
                    f"the loss of head {head!r} must be one value an example; got {_check.describe(values)}"
                )
            each[head] = values
            told |= {f"{head}_{name}": value for name, value in extras.items()}
        if twice := each.keys() & told.keys():
            raise ValueError(f"{min(twice)!r} must be a head or what a loss says besides, not both; rename the head")
        dtype, total = widest(*each.values()), None
        for head, values in each.items():
            values = jnp.asarray(values, dtype)
            if (weight := given.get(f"{head}_weight")) is not None:
                values = times(_one(f"{head}_weight", weight, dtype), values)
            total = values if total is None else total + values
        return jnp.asarray(total), {**each, **told}

    def _of_heads(self, what: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping) and set(value) == set(self.heads):
            return value
        got = f"those of {', '.join(map(str, value))}" if isinstance(value, Mapping) else _check.describe(value)
        raise ValueError(f"{what} must be a dict of the heads {', '.join(self.heads)}; got {got}")


def total(**losses: Loss) -> Total:
    """Return the loss of outputs and targets that are dicts of heads: sum_h weight_h loss_h(outputs_h, targets_h).

    The weight of a head h is the number `h_weight`, 1 where it is not given. A number of a head's loss keeps its name,
    and goes to each of them that names it; what one asks for, it is given. The mean of each head, before its weight, is
    a column of the history by its name, and what its loss says besides by `head_name`. Targets of a head whose loss
    looks at none are None. It is a value: equal where heads and losses are, in any order.

    Raises:
      ValueError: for heads that a history has no column for, for what is no loss, and for two numbers of one name; when
        called, for outputs or targets of other heads.

    >>> loss = total(image=squared_error, text=cross_entropy)
    >>> outputs = {"image": jnp.array([[1.0]]), "text": jnp.array([[0.0, 0.0]])}
    >>> sum_, told = loss(outputs, {"image": jnp.array([[3.0]]), "text": jnp.array([1])}, text_weight=2.0)
    >>> sum_.round(3), told["image"], told["text"].round(3)
    (Array([5.386], dtype=float32), Array([4.], dtype=float32), Array([0.693], dtype=float32))
    """
    heads = tuple(sorted(losses))
    return Total(heads, tuple(losses[head] for head in heads))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PerToken:
    """The mean of a loss over the tokens of each example, as `per_token` makes it.

    Args:
      loss: that of one token, as a loss has it of one example.

    Raises:
      ValueError: for what is no loss or has no hash.
    """

    loss: Loss

    def __post_init__(self) -> None:
        check_part("the loss of a token", self.loss)
        object.__setattr__(self, "__signature__", signature([self.loss], {}))

    def __call__(self, outputs: PyTree, targets: PyTree, **given: Any) -> Any:
        """Return the mean of each example, (batch,), and of what the loss says besides, if it does."""
        check_names(self, given)
        y, mask = targets, None
        if isinstance(targets, Mapping) and set(targets) == {"y", "mask"}:
            y, mask = targets["y"], _mask(targets["mask"])
        outputs, y = _arrays.tree("outputs", outputs), _arrays.tree("targets", y)
        lead = _axes(outputs, y, mask)
        outputs, y = _in_one_row(outputs, mask, lead), _in_one_row(y, mask, lead)
        if "weight" in asked(self.loss) and (mask is not None or given.get("weight") is not None):
            weight = jnp.ones(lead[0], jnp.float32) if given.get("weight") is None else jnp.asarray(given["weight"])
            weight = jnp.broadcast_to(weight.reshape(-1, *[1] * (len(lead) - 1)), lead)
            counts = True if mask is None else jnp.asarray(mask)
            given = {**given, "weight": jnp.where(counts, weight, jnp.zeros_like(weight)).reshape(-1)}
        values, extras = apart(self.loss(outputs, y, **share(self.loss, given)))
        n = int(np.prod(lead))
        for value in (values, *extras.values()):
            if getattr(value, "shape", None) != (n,):
                raise ValueError(
                    f"the loss of a token must return one value a token, ({n},); got {_check.describe(value)}"
                )
        found = _mean(values, mask, lead)
        return (found, {name: _mean(value, mask, lead) for name, value in extras.items()}) if extras else found


def per_token(loss: Loss) -> PerToken:
    """Return the loss of examples that are sequences: the mean of `loss` over the tokens of each that count.

    Outputs are (batch, tokens, ...), and so are targets; or targets are {"y": (batch, tokens, ...), "mask": (batch,
    tokens)}, where the mask is True, or 1, for a token that counts and False for padding. A mask of more axes says that
    tokens have as many: (batch, height, width). Any trees of arrays do, as everywhere. What stands at padding is never
    looked at, neither its label nor its output: it adds nothing and has no gradient. An example without a token is 0.

    The mean over tokens of all examples is that of examples weighted by their number of tokens: data=(x, y, counts). A
    loss that asks for the weight gets one a token, zero for padding; numbers are passed on, and x is as it is.

    Raises:
      ValueError: for what is no loss; when called, for axes that do not fit, and a mask of other values.

    >>> loss = per_token(squared_error)
    >>> y = {"y": jnp.array([[1.0, 2.0, -9.0]]), "mask": jnp.array([[1, 1, 0]])}
    >>> loss(jnp.array([[1.0, 4.0, 7.0]]), y)
    Array([2.], dtype=float32)
    """
    return PerToken(loss)


def _one(what: str, value: Any, dtype: Any) -> Array:
    number(what, value, 0, np.inf)
    if np.ndim(value):
        raise ValueError(f"{what} must be one number; got {_check.describe(value)}")
    return jnp.asarray(value, dtype)


def _mask(given: Any) -> Any:
    mask = _arrays.array("mask", given)
    if mask.ndim < 2:
        raise ValueError(f"mask must have shape (batch, tokens); got {_check.describe(mask)}")
    known = _check.on_host(mask)
    if known is not None and not ((known == 0) | (known == 1)).all():
        raise ValueError("mask must be 1 or True for a token that counts, 0 or False for padding; got other numbers")
    return (mask if known is None else known).astype(bool)


def _axes(outputs: PyTree, y: PyTree, mask: Any) -> tuple[int, ...]:
    """Return (batch, tokens), or more, with which all arrays begin."""
    leaves = [*jax.tree.leaves(outputs), *jax.tree.leaves(y)]
    lead = mask.shape if mask is not None else getattr(leaves[0] if leaves else None, "shape", ())[:2]
    for leaf in leaves:
        if len(lead) < 2 or not isinstance(leaf, np.ndarray | jax.Array) or leaf.shape[: len(lead)] != lead:
            raise ValueError(
                f"outputs, targets and mask must all begin with the axes (batch, tokens)"
                f"{f', {lead}' if len(lead) > 1 else ''}; got {_check.describe(leaf)}"
            )
    return lead


def _in_one_row(tree: PyTree, mask: Any, lead: tuple[int, ...]) -> PyTree:
    """Return arrays (tokens of all examples, ...), padding filled with the first token that counts, zero without one.

    On the host where they are known, so that labels are looked at as those of single examples are.
    """

    def one(leaf: Any) -> Any:
        known = not isinstance(leaf, Tracer) and isinstance(mask, np.ndarray)
        xp: Any = np if known else jnp
        flat = xp.asarray(leaf).reshape(-1, *leaf.shape[len(lead) :])
        if mask is None:
            return flat
        counts = xp.asarray(mask).reshape(-1)
        first = flat[xp.argmax(counts)]
        fill = xp.where(xp.any(counts), first, xp.zeros_like(first))
        counts = xp.broadcast_to(counts.reshape(-1, *[1] * (flat.ndim - 1)), flat.shape)
        return xp.where(counts, flat, xp.broadcast_to(fill, flat.shape))

    return jax.tree.map(one, tree)


def _mean(values: Array, mask: Any, lead: tuple[int, ...]) -> Array:
    values, axes = jnp.asarray(values).reshape(lead), tuple(range(1, len(lead)))
    if mask is None:
        return jnp.mean(values, axis=axes)
    counts = jnp.asarray(mask)
    total = jnp.sum(jnp.where(counts, values, jnp.zeros_like(values)), axis=axes)
    return total / jnp.maximum(jnp.sum(counts, axis=axes, dtype=total.dtype), jnp.ones_like(total))
