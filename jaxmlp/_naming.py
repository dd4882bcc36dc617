"""What the columns of a history are called; which way each is better, `_choice` knows."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxmlp import _check
from jaxmlp.types import Metric

RESERVED = ("loss", "weight", "status", "epochs", "best_epoch", "epoch", "member")  # what a history calls its own


def metric_names(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Return the name of each metric: that of its function, with what tells it from others of the same function.

    Raises:
      ValueError: for names that are reserved, and for metrics that cannot be told apart.

    >>> from functools import partial
    >>> from jaxmlp.metrics import rmse, top_k_accuracy
    >>> metric_names([rmse, partial(top_k_accuracy, k=1), partial(top_k_accuracy, k=3)])
    ('rmse', 'top_k_accuracy(k=1)', 'top_k_accuracy(k=3)')
    """
    plain = [_check.name_of(metric) for metric in metrics]
    names = []
    for name, metric in zip(plain, metrics, strict=True):
        if name in RESERVED or name.startswith("validation_"):
            raise ValueError(
                f"metrics must not be called {', '.join(RESERVED)}, or validation_...: a history has these of its own; "
                f"got one called {name!r}; rename the function"
            )
        rivals = [other for other, of in zip(metrics, plain, strict=True) if of == name]
        names.append(name + _apart(metric, rivals))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"metrics must have names of their own, which are the columns of the history; got {names.count(twice)} "
            f"called {twice!r}; write each as a function (def) of another name"
        )
    return tuple(names)


def check_extras(extras: Any, shape: tuple[int, ...], metrics: Sequence[Metric]) -> None:
    """Raise unless what a loss says besides is a dict of one value an example, by names that a history has free.

    Raises:
      ValueError: for anything else.
    """
    if not isinstance(extras, Mapping) or not all(isinstance(name, str) for name in extras):
        raise ValueError(f"loss must return values or (values, {{name: values}}); got {_check.describe(extras)} second")
    for name, values in extras.items():
        if name in RESERVED or name.startswith("validation_") or name in metric_names(metrics):
            raise ValueError(f"extras of the loss must not be called as another column of the history; got {name!r}")
        if getattr(values, "shape", None) != shape:
            raise ValueError(
                f"{name} of the loss must have one value an example, shape {shape}; got {_check.describe(values)}; the "
                f"step makes the mean"
            )


def _apart(metric: Metric, rivals: Sequence[Metric]) -> str:
    """Return '(k=3)' for what a metric was given and its rivals of the same name were not, '' without such."""
    given, others = _given(metric), [_given(rival) for rival in rivals]
    own = {key: value for key, value in given.items() if any(other.get(key, ...) != value for other in others)}
    return f"({', '.join(_told(own))})" if own else ""


def _given(metric: Any) -> dict[str, Any]:
    """Return the arguments that a partial holds, or the fields of a callable dataclass."""
    if isinstance(metric, functools.partial):
        return {**{str(i): value for i, value in enumerate(metric.args)}, **metric.keywords}
    if dataclasses.is_dataclass(metric) and not isinstance(metric, type):
        return {field.name: getattr(metric, field.name) for field in dataclasses.fields(metric)}
    return {}


def _told(given: Mapping[str, Any]) -> Iterable[str]:
    for name, value in given.items():
        yield f"{name}={_check.name_of(value) if callable(value) else value}"
