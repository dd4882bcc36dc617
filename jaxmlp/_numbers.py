"""Who takes which number: a hyperparameter goes to the one of model, loss and optimizer whose signature names it."""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlp import _check


class Numbers(NamedTuple):
    """The hyperparameters, sorted by who takes them."""

    init: dict[str, Any]
    apply: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]


def route(model: Any, loss: Callable[..., Any], optimizer: Callable[..., Any], hyperparams: Any) -> Numbers:
    """Sort `hyperparams` by taker.

    Raises:
      ValueError: for a name that nobody takes, or that two take; for a value that is no number; and where the
        optimizer needs a number that is not there.
    """
    hyperparams = {} if hyperparams is None else hyperparams
    if not isinstance(hyperparams, Mapping):
        raise ValueError(f"hyperparams must be a dict of numbers; got {_check.describe(hyperparams)}")
    init, apply, needs = _names(model.init, 1), _names(model.apply, 2), _names(optimizer, 0)
    takers = {
        f"model {type(model).__name__}": {**init, **apply},
        f"loss {_check.name_of(loss)}": _names(loss, 2),
        f"optimizer {_check.name_of(optimizer)}": needs,
    }
    for name, value in hyperparams.items():
        owners = [taker for taker, names in takers.items() if name in names]
        if len(owners) != 1:
            known = [known for names in takers.values() for known in names]
            found = f"is taken by {' and '.join(owners)}" if owners else "is taken by nobody"
            raise ValueError(
                f"hyperparams[{name!r}] must be a number that one of model, loss and optimizer names; it {found}"
                f"{'' if owners else _check.did_you_mean(name, known)}\n"
                + "\n".join(f"  {taker} takes {', '.join(names) or 'none'}" for taker, names in takers.items())
            )
        scalar = not owners[0].startswith("loss")
        _number(name, value, scalar)
    missing = [name for name, required in needs.items() if required and name not in hyperparams]
    if missing:
        raise ValueError(
            f"optimizer {_check.name_of(optimizer)} needs {missing[0]}: pass hyperparams={{{missing[0]!r}: ...}}"
        )
    by = [init, apply, *list(takers.values())[1:]]
    return Numbers(*({name: value for name, value in hyperparams.items() if name in names} for names in by))


def _number(name: str, value: Any, scalar: bool) -> None:
    """A loss may take a vector (quantile levels); a model and an optimizer take one number each."""
    if not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)):
        raise ValueError(f"hyperparams[{name!r}] must be a number; got {_check.describe(value)}")
    if scalar and np.ndim(value) != 0:
        raise ValueError(
            f"hyperparams[{name!r}] must be one number for one network; got {_check.describe(value)}; to sweep it, "
            f"map: jax.vmap(jaxmlp.fit, (None, None, None, 0))(key, data, recipe, {{{name!r}: values}})"
        )


@lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _names(function: Callable[..., Any], data: int) -> dict[str, bool]:
    """Names of the numbers that `function` takes after its first `data` arguments, and whether each is needed."""
    signature = _signature(function)
    parameters = list(signature.parameters.values())[data:] if signature else []
    return {
        p.name: p.default is p.empty
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "key"
    }


def takes_key(function: Callable[..., Any]) -> bool:
    """Tell whether `function` names an argument `key`."""
    signature = _signature(function)
    return signature is not None and "key" in signature.parameters
