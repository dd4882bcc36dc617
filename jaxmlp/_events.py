"""The event files that TensorBoard shows: what a directory holds is read first, and only what is new is added to it."""

import importlib
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxmlp import _check, _disk

Entry: TypeAlias = tuple[str, int, float]  # a name, a step, and the value that is shown there


class EventFiles:
    """The event files of a directory: those that are there, and one that is added."""

    def __init__(self, directory: Path):
        """Read what the directory shows, and open a new file in it."""
        _check.extra("tensorboardX", "tensorboard")
        self._event = importlib.import_module("tensorboardX.proto.event_pb2").Event
        self._shown: dict[tuple[str, int], float] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(directory.iterdir()):
            if path.name.startswith("events.out.tfevents.") and path.is_file():
                self._read(_disk.read_file(path))
        # Not a `SummaryWriter`, whose thread may not have written all when the process ends. Named by the second alone,
        # the file of a call that follows at once would replace that of the one before.
        files = importlib.import_module("tensorboardX.event_file_writer")
        self._file = files.EventsWriter(str(directory / "events"), f".{secrets.token_hex(4)}")
        self.close = self._file.close

    def shows(self, name: str, step: int, value: float) -> bool:
        """Tell whether an entry is there already, in single precision, as TensorBoard keeps numbers."""
        shown = self._shown.get((_tag(name), step))
        with np.errstate(over="ignore"):
            return shown is not None and bool(np.array_equal(np.float32(shown), np.float32(value), equal_nan=True))

    def add(self, entries: Iterable[Entry]) -> None:
        """Write the entries that are not there yet."""
        for name, step, value in entries:
            if not self.shows(name, step, value):
                told = {"value": [{"tag": _tag(name), "simple_value": value}]}
                self._file.write_event(self._event(wall_time=time.time(), step=step, summary=told))
                self._shown[_tag(name), step] = value
        self._file.flush()

    def _read(self, data: bytes) -> None:
        """Remember what a file shows; one that was cut short is read as far as it goes."""
        # A record is the length in 8 bytes, a checksum of 4, so many bytes, and another checksum of 4.
        at = 0
        while at + 12 <= len(data) and (end := at + 12 + int.from_bytes(data[at : at + 8], "little")) <= len(data):
            try:
                told: Any = self._event.FromString(data[at + 12 : end])
            except Exception:  # what protobuf raises for a record that is none
                break
            for value in told.summary.value:
                if value.HasField("simple_value"):
                    self._shown[value.tag, told.step] = value.simple_value
            at = end + 4


def _tag(name: str) -> str:
    return re.sub(r"[^-/\w.]", "_", name, flags=re.ASCII).lstrip("/")
