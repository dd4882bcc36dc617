"""Other rules than those that a run had: who was stopped and would not have been goes on where the run stands."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmlp import _check
from jaxmlp._choice import Figure
from jaxmlp._engine.executor import Job
from jaxmlp._engine.stops import Patience, Stops
from jaxmlp.types import Json, Status

BEST, HISTORY = "run.best.", "run.history."


def judged_anew(
    arrays: dict[str, np.ndarray], place: Json, before: Stops, job: Job
) -> tuple[dict[str, np.ndarray], Json]:
    """Let those go on that the rules of before stopped and those of now would not have, where they stood."""
    status, epochs = arrays["run.status"].copy(), arrays["run.epochs"]
    stopped = [int(i) for i in np.flatnonzero(status == Status.STOPPED) if 0 < epochs[i] < job.recipe.epochs]
    free = [i for i in stopped if not _stops(arrays, i, before, job.stops)]
    free = [i for i in free if not _left_out(arrays, i, before, job.stops)]
    if not free:
        return arrays, place
    runs = np.flatnonzero(status == Status.RUNNING)
    if "epoch" in place:
        # All members take an epoch together: those who stopped earlier than where the run stands missed some.
        at = place["epoch"] if len(runs) else int(max(epochs[i] for i in free))
        place = {"epoch": at}
    else:
        epoch, step = [*place["position"], 0, 0][:2]
        at = epoch if step == 0 else -1
    status[[i for i in free if epochs[i] == at]] = Status.RUNNING
    if late := [i for i in free if epochs[i] != at]:
        warnings.warn(
            f"the rules of now would not have stopped {len(late)} members, {str(late[:8]).strip('[]')}, which stopped "
            f"before the epoch at which the run goes on, and stay as they are",
            stacklevel=_check.level_of_caller(),
        )
    return {**arrays, "run.status": status}, place


def figures(arrays: Mapping[str, np.ndarray], figure: Figure, dtype: Any) -> np.ndarray | None:
    """Return what is watched, (members, epochs), of which the least is the best; None where it was not recorded."""
    values = arrays.get(f"{HISTORY}{figure.name}")
    return None if values is None or values.ndim != 2 else figure.less(values).astype(dtype)


def _stops(arrays: Mapping[str, np.ndarray], i: int, before: Stops, stops: Stops) -> bool:
    """Tell whether the rules stop a member at the last epoch that it was trained for."""
    last = int(arrays["run.epochs"][i]) - 1
    # Patience that is new, or watches something else than it did, counts from where the run stands.
    if isinstance(stops.patience, Patience) and before.patience and stops.patience.figure == before.patience.figure:
        kept = arrays.get(f"{BEST}loss")
        watched = None if kept is None else figures(arrays, stops.patience.figure, kept.dtype)
        if watched is not None:
            _, since = stops.patience.counts_from(watched[i, : last + 1])
            if last - since >= stops.patience.epochs:
                return True
    for name, limit in stops.targets.items():
        values = arrays.get(f"{HISTORY}{name}")
        if values is None or values.ndim != 2 or last >= values.shape[1]:
            continue
        value = values[i, last]
        bound = values.dtype.type(limit.at_most if limit.at_least is None else limit.at_least)
        if value <= bound if limit.at_least is None else value >= bound:
            return True
    return False


def _left_out(arrays: Mapping[str, np.ndarray], i: int, before: Stops, now: Stops) -> bool:
    """Tell whether halving has left a member out, and still would."""
    return before.halving is not None and before.halving == now.halving and not _stops(arrays, i, before, before)
