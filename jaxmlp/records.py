"""The history on disk: JSON lines, CSV, TensorBoard.

A whole history is written by `write_json_lines` and `write_csv`, a member's epochs together. The files in the directory
of `loop.train` grow with the run: `HistoryFiles` appends what is new to them, so an epoch's members stand together.
pandas reads both: `pandas.read_csv("history.csv").pivot(index="epoch", columns="member", values="loss")`.
"""

import csv
import io
import json
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxmlp import _arrays, _check, _disk, _events
from jaxmlp._mesh import here
from jaxmlp.types import Callback, Json, Numeric, StrPath

Epochs: TypeAlias = Sequence[int] | Numeric  # (members,), how many epochs each member took part in


def rows(history: Mapping[str, Numeric], epochs: Epochs | None = None) -> Iterator[Json]:
    """Yield a line an epoch, and for a population an epoch and member, of the entries that have one for each.

    `epochs` (members,) says how many lines a member has; where it is not given, lines end where all entries are NaN.

    >>> list(rows({"loss": np.array([0.5, 0.25])}))
    [{'epoch': 0, 'loss': 0.5}, {'epoch': 1, 'loss': 0.25}]
    """
    entries, epochs = _checked(history, epochs)
    loss = entries["loss"]
    single = loss.ndim == 1
    values = {name: v for name, v in entries.items() if v.shape[: loss.ndim] == loss.shape}
    values = {name: v[None] if single else v for name, v in values.items()}
    count, length = next(iter(values.values())).shape[:2]
    names = ["loss", *(name for name in values if name != "loss")]
    for member in range(count):
        for epoch in range(length if epochs is None else int(epochs[member])):
            line = {name: values[name][member, epoch].tolist() for name in names}
            if epochs is None and not single and all(v != v for v in line.values()):
                break
            yield ({} if count == 1 else {"member": member}) | {"epoch": epoch} | line


def _checked(history: Any, epochs: Any) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Return the entries as arrays, and how many epochs each member has where that is given.

    Raises:
      ValueError: for what is no history, and for epochs that are not those of its members.
    """
    if not isinstance(history, Mapping) or "loss" not in history:
        raise ValueError(
            f"history must be a dict of arrays with a loss, as fit gives it; got {_check.describe(history)}"
        )
    history = here("history", dict(history))
    entries = {name: np.asarray(_arrays.listed(f"history[{name!r}]", v)) for name, v in history.items()}
    loss = entries["loss"]
    if loss.ndim not in (1, 2):
        raise ValueError(f"history['loss'] must have shape (epochs,) or (members, epochs); got {_check.describe(loss)}")
    if epochs is None:
        return entries, None
    epochs = np.asarray(_arrays.listed("epochs", epochs))
    members = 1 if loss.ndim == 1 else len(loss)
    if epochs.shape != (members,) or epochs.dtype.kind not in "iu":
        raise ValueError(f"epochs must be an integer for each of {members} members; got {_check.describe(epochs)}")
    if len(epochs) and (epochs.min() < 0 or epochs.max() > loss.shape[-1]):
        raise ValueError(f"epochs must be in 0 ... {loss.shape[-1]}, those of the history; got {epochs}")
    return entries, epochs


def write_json_lines(path: StrPath, history: Mapping[str, Numeric], epochs: Epochs | None = None) -> None:
    """Write the history as a JSON object a line; the file is there whole or as it was."""
    lines = [json.dumps({name: _finite(v) for name, v in line.items()}) for line in rows(history, epochs)]
    _disk.write_file(_disk.path_of("path", path), "".join(line + "\n" for line in lines).encode())


def write_csv(path: StrPath, history: Mapping[str, Numeric], epochs: Epochs | None = None) -> None:
    """Write the history as a table with a heading; the file is there whole or as it was."""
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for line in rows(history, epochs):
        if writer is None:
            writer = csv.DictWriter(text, line, lineterminator="\n")
            writer.writeheader()
        writer.writerow(line)
    _disk.write_file(_disk.path_of("path", path), text.getvalue().encode())


def write(directory: Path, history: Mapping[str, Numeric], epochs: Epochs) -> None:
    """Write history.jsonl and history.csv of a whole history of (members, epochs) arrays, a member's lines together."""
    write_json_lines(directory / "history.jsonl", history, epochs)
    write_csv(directory / "history.csv", history, epochs)


BEGINNINGS = (b"epoch,", b"member,epoch,", b'{"epoch": ', b'{"member": ')  # of the files of a history


class HistoryFiles:
    """history.jsonl and history.csv of a run in progress: each `update` appends the lines of the epochs that are new.

    Lines are sorted by epoch, then by member: a member that has stopped has no more. What the files hold is thereby the
    beginning of what they will hold, wherever a run was stopped, killed or resumed. The first `update` reads what is
    there and makes it this run's: a line that was cut short is completed, lines of epochs after the given ones (of a
    run that is resumed from an earlier checkpoint) are cut off, files of another run are replaced, and a file that is
    no history is set aside as history.csv.before. Those after it read nothing and write the new lines alone. Who reads
    meanwhile may find the last line incomplete.

    >>> import tempfile
    >>> directory = Path(tempfile.mkdtemp())
    >>> files = HistoryFiles(directory)
    >>> files.update({"loss": np.array([[0.5], [0.25]])}, [1, 1])
    >>> files.update({"loss": np.array([[0.5, 0.125], [0.25, np.nan]])}, [2, 1])
    >>> print((directory / "history.csv").read_text())
    member,epoch,loss
    0,0,0.5
    1,0,0.25
    0,1,0.125
    <BLANKLINE>
    """

    def __init__(self, directory: StrPath):
        """Name the directory; nothing is read or written yet."""
        self._directory = _disk.path_of("directory", directory)
        self._epochs: int | None = None  # how many the files show; None where that is not known

    def update(self, history: Mapping[str, Numeric], epochs: Epochs) -> None:
        """Bring the files up to date.

        Args:
          history: (members, epochs) arrays, so many epochs as are done.
          epochs: (members,) how many of them each member took part in.

        Raises:
          OSError: where a file cannot be written; the next `update` puts it right.
          ValueError: where something that is no regular file has the name of one.
        """
        done = np.shape(history["loss"])[1]
        before, self._epochs = self._epochs, None  # until both files are written it is not known what they show
        for name, text_of in (("history.jsonl", _json_text), ("history.csv", _csv_text)):
            path = self._directory / name
            if before is None or before > done:
                _put_right(path, text_of(history, epochs, 0).encode())
            else:
                _disk.append(path, text_of(history, epochs, before).encode())
        self._epochs = done


def _put_right(path: Path, wanted: bytes) -> None:
    """Let a file hold these bytes: what is right of it stays, and only what differs is written."""
    try:
        found = _disk.read_file(path)
    except FileNotFoundError:
        found = None
    if found is None or not (found.startswith(wanted) or wanted.startswith(found)):
        if found and not found.startswith(BEGINNINGS):
            os.rename(path, _disk.free_name(path, "before"))  # it is no history, and so somebody's own
        _disk.write_file(path, wanted)
    elif len(found) > len(wanted):
        with open(path, "rb+") as file:
            file.truncate(len(wanted))
            _disk.sync(file)
    else:
        _disk.append(path, wanted[len(found) :])


def _json_text(history: Mapping[str, Numeric], epochs: Epochs, first: int) -> str:
    """Return the lines of the epochs from `first` on, sorted by epoch and member, as JSON."""
    columns = _columns(history, epochs, first)
    texts = [_texts(values, lambda v: json.dumps(_finite(v)), special="null") for values in columns.values()]
    entries = ", ".join(json.dumps(name).replace("{", "{{").replace("}", "}}") + ": {}" for name in columns)
    return "".join(map(("{{" + entries + "}}\n").format, *texts))


def _csv_text(history: Mapping[str, Numeric], epochs: Epochs, first: int) -> str:
    """Return the lines of the epochs from `first` on as CSV, under a heading where they are the first."""
    columns = _columns(history, epochs, first)
    texts = [_texts(values, lambda v: _csv_line([v])) for values in columns.values()]
    lines = "".join(map((",".join(["{}"] * len(columns)) + "\n").format, *texts))
    return _csv_line(list(columns)) + "\n" + lines if first == 0 and lines else lines


def _columns(history: Mapping[str, Numeric], epochs: Epochs, first: int) -> dict[str, np.ndarray]:
    """Return an array a column, with an entry for each epoch from `first` on and each member that took part in it."""
    shape = np.shape(history["loss"])
    kept = {name: np.asarray(values) for name, values in history.items() if np.shape(values)[:2] == shape}
    epoch, member = np.nonzero(np.arange(first, shape[1])[:, None] < np.asarray(epochs)[None, :])
    epoch += first
    columns = {"member": member, "epoch": epoch} if shape[0] > 1 else {"epoch": epoch}
    return columns | {name: kept[name][member, epoch] for name in ["loss", *(n for n in kept if n != "loss")]}


def _texts(values: np.ndarray, text_of: Callable[[object], str], special: str | None = None) -> list[str]:
    """Return the entries of a column as text; numbers go the quick way, and what is not finite is `special`."""
    if values.ndim > 1 or not np.issubdtype(values.dtype, np.number):
        return [text_of(value) for value in values.tolist()]
    texts = list(map(repr, values.tolist()))
    if special is not None and np.issubdtype(values.dtype, np.floating):
        for i in np.flatnonzero(~np.isfinite(values)):
            texts[i] = special
    return texts


def _finite(value: object) -> object:
    """Return a value as JSON has it: NaN is none, so what is not finite is None."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _csv_line(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def tensorboard(directory: StrPath) -> Callback:
    """Return a callback for `loop.train` that writes each entry of the history for TensorBoard.

    Of a population it writes the best and the median of the members. What the directory shows already is not written
    again, so a run that is resumed goes on with its curves. Needs the extra `tensorboard`.

    Raises:
      ImportError: where tensorboardX is not installed.
      ValueError: for what is no path on this machine.
    """
    files, seen = _events.EventFiles(_disk.path_of("directory", directory)), 0

    def callback(state: object, history: Mapping[str, Numeric]) -> None:
        nonlocal seen
        count = np.shape(history["loss"])[-1]
        # Of another run, as each of several recipes is, the entries before are others too.
        same = seen <= count and all(files.shows(*entry) for entry in _scalars(history, max(seen - 1, 0), seen))
        files.add(_scalars(history, seen if same else 0, count))
        seen = count

    weakref.finalize(callback, files.close)
    return callback


def _scalars(history: Mapping[str, Numeric], first: int, last: int) -> Iterator[_events.Entry]:
    """Yield what TensorBoard shows of some epochs: the name, the epoch and the value of each point."""
    shape = np.shape(history["loss"])
    columns = {name: np.asarray(values) for name, values in history.items() if np.shape(values) == shape}
    for epoch in range(first, last):
        for name, values in columns.items():
            if values.ndim == 1:
                yield name, epoch, float(values[epoch])
            elif not np.isnan(values[:, epoch]).all():
                yield f"{name}/lowest", epoch, float(np.nanmin(values[:, epoch]))
                yield f"{name}/median", epoch, float(np.nanmedian(values[:, epoch]))
