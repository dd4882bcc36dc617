"""The best weights of a run that goes on: as they were kept, or chosen anew where something else is watched now."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmlp import _check
from jaxmlp._choice import Figure
from jaxmlp._engine.stops import Stops
from jaxmlp.loop._judging import BEST, figures


def what_judges(figure: Figure | None) -> set[str]:
    """Return by which words of accept= what is best would be judged by something else."""
    name = "validation_loss" if figure is None else figure.name
    words = {"loss", "validation", "model"}
    words |= {"metrics"} if name not in ("loss", "validation_loss") else set()
    return words if name.startswith("validation_") else words | {"data"}


def warn_of_another(before: Stops, now: Stops) -> None:
    """Warn where patience watches something else than it did."""
    one, other = (rules.patience and rules.patience.figure for rules in (before, now))
    if one and other and one != other:
        was, is_ = (f"the {'largest' if figure.largest else 'least'} {figure.name}" for figure in (one, other))
        warnings.warn(
            f"patience watches {is_} now, and watched {was}: the best weights are chosen anew, among those that were "
            f"kept and those from where the run stands",
            stacklevel=_check.level_of_caller(),
        )


def with_best(
    found: dict[str, np.ndarray], wanted: Mapping[str, Any], forget: bool, before: Stops, now: Stops
) -> dict[str, np.ndarray]:
    """Return the arrays with the best weights where patience asks for them: of what is new, the best that are there."""
    kept = {name: a for name, a in found.items() if not name.startswith(BEST) or name in wanted}
    patience: Any = now.patience
    if patience is None or f"{BEST}loss" not in wanted:
        return kept
    epochs, dtype = found["run.epochs"], wanted[f"{BEST}loss"].dtype
    watched = None if forget else figures(found, patience.figure, dtype)
    same = before.patience is not None and before.patience.figure == patience.figure
    if same and watched is not None and f"{BEST}loss" in kept:
        # The best figure stays so; what counts as enough may be another.
        counted = [patience.counts_from(watched[i, :done]) for i, done in enumerate(epochs)]
        for name, values in zip(("mark", "since"), zip(*counted, strict=True), strict=True):
            kept[f"{BEST}{name}"] = np.array(values, wanted[f"{BEST}{name}"].dtype)
        return kept
    last, every, infinite = np.maximum(epochs - 1, 0), np.arange(len(epochs)), np.full(len(epochs), np.inf, dtype)
    figure = infinite if watched is None else np.where(epochs > 0, watched[every, last], infinite)
    figure = np.where(np.isnan(figure), infinite, figure)
    fresh = {"loss": figure, "epoch": last, "mark": infinite, "since": last}
    stays = np.zeros(len(epochs), bool)
    if watched is not None and f"{BEST}loss" in found:  # the weights that another figure kept may be better by this one
        then = watched[every, found[f"{BEST}epoch"]]
        stays = np.isfinite(found[f"{BEST}loss"]) & (then <= figure)
        fresh |= {"loss": np.where(stays, then, figure), "epoch": np.where(stays, found[f"{BEST}epoch"], last)}
    for name, leaf in wanted.items():
        if name.startswith(f"{BEST}params") and (current := found.get(name.replace(BEST, "run.state.", 1))) is not None:
            one = stays.reshape(-1, *[1] * (current.ndim - 1))
            kept[name] = (
                current if not stays.any() else found[name] if stays.all() else np.where(one, found[name], current)
            )
        elif name.startswith(BEST) and name.removeprefix(BEST) in fresh:
            kept[name] = fresh[name.removeprefix(BEST)].astype(leaf.dtype)
    return kept
