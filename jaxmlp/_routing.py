"""Who takes which hyperparameter: each goes to that of model, loss, optimizer and metrics whose signature names it."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from jaxmlp import _arrays, _check, _trees
from jaxmlp._kinds import check_kind, missing_number
from jaxmlp._requests import REQUESTS
from jaxmlp.types import After, Hyperparams, Loss, Metric, Model, Number, OptimizerFactory

# These shape training, and are no part of the likelihood that a metric reports.
OF_TRAINING = ("label_smoothing", "class_weight", "pos_weight")


class Numbers(NamedTuple):
    """The hyperparameters, sorted by who takes them."""

    init: Mapping[str, Number]
    apply: Mapping[str, Number]
    loss: Mapping[str, Number]
    optimizer: Mapping[str, Number]
    metrics: Mapping[str, Number] = {}  # a number that loss and metrics both name stands in both
    after: Mapping[str, Number] = {}

    @property
    def by_name(self) -> dict[str, Number]:
        """All of them in one dict, as they were given."""
        return {name: value for part in self for name, value in part.items()}

    def joined(self, others: "Numbers") -> "Numbers":
        """Return these and others: of a member, with those that all members share."""
        return Numbers(*({**mine, **shared} for mine, shared in zip(self, others, strict=True)))

    def only(self, names: Collection[str]) -> "Numbers":
        """Return those of these names."""
        return Numbers(*({name: value for name, value in part.items() if name in names} for part in self))


def route(
    model: Model,
    loss: Loss,
    optimizer: OptimizerFactory,
    metrics: Sequence[Metric],
    after: After | None,
    hyperparams: Hyperparams,
) -> Numbers:
    """Sort `hyperparams` by the one whose signature names each; loss and metrics may share a name, and both get it.

    Raises:
      ValueError: for a name that no part takes, or that two take; for a value that is no number; and where a part
        needs a number that is not there.
    """
    hyperparams = {} if hyperparams is None else hyperparams
    if not isinstance(hyperparams, Mapping):
        raise ValueError(f"hyperparams must be a dict of numbers; got {_check.describe(hyperparams)}")
    init, apply, needs = _names(model.init, 1), _names(model.apply, 2), _names(optimizer, 0)
    of_loss, of_metrics = names_of(loss, 2), [(metric, names_of_metric(metric)) for metric in metrics]
    of_after = {} if after is None else names_of(after, 3)
    takers = {
        f"model {type(model).__name__}": {**init, **apply},
        f"loss {_check.name_of(loss)}": of_loss,
        f"optimizer {_check.name_of(optimizer)}": needs,
    } | {f"metric {_check.name_of(metric)}": names for metric, names in of_metrics}
    if after is not None:
        takers[f"after {_check.name_of(after)}"] = of_after
    seen = {name for _, names in of_metrics for name in names}
    parts = [(model.init, init), (model.apply, apply), (loss, of_loss), (after, of_after), *of_metrics]
    numbers = {}
    for name, value in hyperparams.items():
        _check_taken_once(name, takers)
        taker = loss if name in of_loss else optimizer if name in needs else after if name in of_after else type(model)
        functions = [function for function, names in parts if name in names]
        if _trees.is_tree(value):
            numbers[name] = _trees.taken(name, value, optimizer if name in needs else None, functions)
            continue
        check_kind(name, value, taker)
        single = (
            name in needs
            or (name in init or name in apply or name in of_after)
            and any(_trees.wants_number(function, name) for function in functions)
        )
        numbers[name] = _number(name, value, vector=not single)
    for taker, names in takers.items():
        for name, required in names.items():
            if required and name not in hyperparams:
                lacks = f"{taker} needs {name}: pass hyperparams={{{name!r}: ...}}"
                raise ValueError(missing_number(optimizer, name) if name in needs else lacks)
    return Numbers(
        *(
            {name: value for name, value in numbers.items() if name in names}
            for names in (init, apply, of_loss, needs, seen, of_after)
        )
    )


def _check_taken_once(name: str, takers: dict[str, dict[str, bool]]) -> None:
    owners = [taker for taker, names in takers.items() if name in names]
    # What a loss and metrics name is one number, of which the metrics tell: min_variance, a quantile's level.
    if len(owners) == 1 or owners and all(owner.startswith(("loss ", "metric ")) for owner in owners):
        return
    if owners:
        found = f"is taken by {' and '.join(owners)}"
        fix = f"; give one of them another name for it, as lambda *args, {name}_2: ..."
    else:
        found = "is taken by nobody"
        fix = _check.did_you_mean(name, [known for names in takers.values() for known in names])
        if name in REQUESTS:
            fix = "; a function that names it is given that of the step: give the number another name"
    raise ValueError(
        f"hyperparams[{name!r}] must be a number that model, loss, optimizer or a metric names; it {found}{fix}\n"
        + "\n".join(f"  {taker} takes {', '.join(names) or 'none'}" for taker, names in takers.items())
    )


def _number(name: str, value: Any, vector: bool) -> Number:
    """Return a number as JAX takes it, or an array of them where no single number is asked for."""
    value = _arrays.number(f"hyperparams[{name!r}]", value)
    if not vector and np.ndim(value) != 0:
        raise ValueError(
            f"hyperparams[{name!r}] must be one number for one network; got {_check.describe(value)}; to sweep it, "
            f"map: jax.vmap(jaxmlp.fit, (None, None, None, 0))(key, data, recipe, {{{name!r}: values}})"
        )
    return value


@lru_cache(maxsize=1024)
def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _names(function: Callable[..., object], data: int) -> dict[str, bool]:
    """Names of the numbers that `function` takes after its first `data` arguments, and whether each is needed."""
    signature = _signature(function)
    parameters = list(signature.parameters.values())[data:] if signature else []
    return {
        p.name: p.default is p.empty
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name != "key"
        and (p.name != "run_steps" or data)  # which an optimizer is given by the run
    }


def names_of(function: Callable[..., object], data: int) -> dict[str, bool]:
    """Names of the numbers that a loss, a metric or `after` takes: those that are no requests."""
    return {name: required for name, required in _names(function, data).items() if name not in REQUESTS}


def names_of_metric(metric: Metric) -> dict[str, bool]:
    """Names of the numbers that a metric takes: its own, and where it hands them on to a likelihood, those of that."""
    signature, names = _signature(metric), names_of(metric, 2)
    if signature and "likelihood" in signature.parameters and takes(metric, ""):
        likelihood = signature.parameters["likelihood"].default
        if callable(likelihood):
            names |= {name: required for name, required in _names(likelihood, 2).items() if name not in OF_TRAINING}
    return names


def takes_key(function: Callable[..., object]) -> bool:
    """Tell whether `function` names an argument `key`."""
    signature = _signature(function)
    return signature is not None and "key" in signature.parameters


def takes_optional(function: Callable[..., object], name: str) -> bool:
    """Tell whether `function` names an argument and has a default for it."""
    signature = _signature(function)
    found = None if signature is None else signature.parameters.get(name)
    return found is not None and found.default is not found.empty


def takes(function: Callable[..., object], name: str) -> bool:
    """Tell whether `function` can be called with an argument of this name; one that cannot be read can."""
    signature = _signature(function)
    parameters = signature.parameters.values() if signature else []
    return signature is None or any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)
