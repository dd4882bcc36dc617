"""The history on disk: JSON lines, CSV, TensorBoard."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp import _check


def rows(history: dict[str, Any], epochs: Any = None) -> Iterator[dict[str, Any]]:
    """Yield a line an epoch, and for a population an epoch and member, of the entries that have one for each.

    `epochs` (members,) says how many lines a member has; where it is not given, lines end where all entries are NaN.

    >>> list(rows({"loss": np.array([0.5, 0.25])}))
    [{'epoch': 0, 'loss': 0.5}, {'epoch': 1, 'loss': 0.25}]
    """
    loss = np.asarray(history["loss"])
    single = loss.ndim == 1
    values = {name: np.asarray(v) for name, v in history.items() if np.shape(v)[: loss.ndim] == loss.shape}
    values = {name: v[None] if single else v for name, v in values.items()}
    count, length = next(iter(values.values())).shape[:2]
    names = ["loss", *(name for name in values if name != "loss")]
    for member in range(count):
        for epoch in range(length if epochs is None else int(np.asarray(epochs)[member])):
            line = {name: values[name][member, epoch].tolist() for name in names}
            if epochs is None and not single and all(v != v for v in line.values()):
                break
            yield ({} if count == 1 else {"member": member}) | {"epoch": epoch} | line


def write_json_lines(path: Any, history: dict[str, Any], epochs: Any = None) -> None:
    """Write the history as a JSON object a line; the file is there whole or as it was."""
    # NaN is no JSON: what is not finite is null.
    lines = [
        json.dumps({name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in line.items()})
        for line in rows(history, epochs)
    ]
    _replace(path, "".join(line + "\n" for line in lines))


def write_csv(path: Any, history: dict[str, Any], epochs: Any = None) -> None:
    """Write the history as a table with a heading; the file is there whole or as it was."""
    text = io.StringIO()
    writer: Any = None
    for line in rows(history, epochs):
        if writer is None:
            writer = csv.DictWriter(text, line, lineterminator="\n")
            writer.writeheader()
        writer.writerow(line)
    _replace(path, text.getvalue())


def write(directory: Path, history: dict[str, Any], epochs: Any) -> None:
    """Write history.jsonl and history.csv of (members, epochs) arrays."""
    write_json_lines(directory / "history.jsonl", history, epochs)
    write_csv(directory / "history.csv", history, epochs)


def tensorboard(directory: Any) -> Callable[[Any, dict[str, Any]], None]:
    """Return a callback for `loop.train` that writes each entry of the history for TensorBoard.

    Of a population it writes the best and the median of the members. Needs the extra `tensorboard`.

    Raises:
      ImportError: where tensorboardX is not installed.
    """
    writer = _check.extra("tensorboardX", "tensorboard").SummaryWriter(str(directory))
    written = 0

    def callback(state: Any, history: dict[str, Any]) -> None:
        nonlocal written
        loss = np.asarray(history["loss"])
        for epoch in range(written, loss.shape[-1]):
            for name, values in history.items():
                values = np.asarray(values)
                if values.shape == loss.shape and values.ndim == 1:
                    writer.add_scalar(name, values[epoch], epoch)
                elif values.shape == loss.shape and not np.isnan(values[:, epoch]).all():
                    writer.add_scalar(f"{name}/lowest", np.nanmin(values[:, epoch]), epoch)
                    writer.add_scalar(f"{name}/median", np.nanmedian(values[:, epoch]), epoch)
        written = loss.shape[-1]
        writer.flush()

    return callback


def _replace(path: Any, text: str) -> None:
    path = Path(path)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)
