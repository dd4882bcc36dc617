"""What one net has learned as the beginning of another: layers that are taken over, and layers that are drawn anew."""

import operator
from collections.abc import Iterable
from typing import Any

from jax import Array

from jaxmlp import _check, _stacking
from jaxmlp._verbs import verb
from jaxmlp.layer import Layer
from jaxmlp.mlp import MLP
from jaxmlp.types import Params

KEPT = ("activation", "norm", "residual")  # by which a layer that is taken over computes what it did


@verb
def transfer(key: Array, params: Params, source: MLP, target: MLP, *, anew: int | Iterable[int] = -1) -> Params:
    """Return parameters of `target` that are those of `source`, but for the layers that are drawn anew: the last one.

    To train them is `fit(..., params=transfer(...))`; with `Recipe(..., frozen=lambda path: path[0] < n)` the first n
    parts stay as they are: layers, or with scan=True stacks of equal ones, which the two nets need not share.

    Args:
      key: one typed key, for what is drawn.
      params: of `source`.
      source: the net that was trained.
      target: the net to train; its layers are those of `source` from the input on.
      anew: the places of the layers that are drawn, from 0, or from the end as -1; all others are taken over.

    Raises:
      ValueError: for a layer that is to be taken over and has another form in `target`, or is not there; for nets of
        another activation, norm or residual, whose layers would compute something else; for a place of no layer.

    >>> import jax
    >>> source, target = MLP((8, 16, 16, 10)), MLP((8, 16, 16, 3))
    >>> params = transfer(jax.random.key(1), source.init(jax.random.key(0)), source, target)
    >>> [layer.w.shape for layer in params], bool((params[1].w == source.init(jax.random.key(0))[1].w).all())
    ([(8, 16), (16, 16), (16, 3)], True)
    """
    for name, net in (("source", source), ("target", target)):
        if not isinstance(net, MLP):
            raise ValueError(f"{name} must be an MLP; got {_check.describe(net)}")
    for name in KEPT:
        one, other = getattr(source, name), getattr(target, name)
        if one != other:
            raise ValueError(
                f"target must have the {name} of source, {one!r}, or its layers would compute something else; got "
                f"{other!r}; if that is meant, pass source.replace({name}=...)"
            )
    there, drawn = source.layers(params), target.layers(target.init(key))
    new = _places(anew, len(drawn))
    forms = [_form(layer) for layer in there] + ["no such layer"] * len(drawn)
    odd = [i for i, layer in enumerate(drawn) if i not in new and forms[i] != _form(layer)]
    if odd:
        raise ValueError(
            f"layer {odd[0]} of source must be as that of target, {_form(drawn[odd[0]])}, to be taken over; got "
            f"{forms[odd[0]]}; to draw what does not fit, pass anew={tuple(sorted({*odd, *new}))}"
        )
    layers = tuple(layer if i in new else there[i] for i, layer in enumerate(drawn))
    return _stacking.stack(layers, target.structure.parts)


def _form(layer: Layer) -> str:
    """Return 'w float32 of shape (3, 4), b float32 of shape (4,)'."""
    return ", ".join(f"{name} {_check.describe(leaf)}" for name, leaf in layer._asdict().items() if leaf is not None)


def _places(anew: Any, count: int) -> set[int]:
    wanted: Any = anew if isinstance(anew, Iterable) and not isinstance(anew, str | bytes) else (anew,)
    try:
        return {range(count)[operator.index(place)] for place in wanted}
    except (TypeError, IndexError) as error:
        raise ValueError(f"anew must name layers, {-count} to {count - 1}; got {_check.shown(anew)}") from error
