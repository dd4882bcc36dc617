"""The runs of a population's parts: found and read, and compared, so that none is missing, twice or of another run."""

import dataclasses
import itertools
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlp import _check, _disk
from jaxmlp._engine.portion import Portion
from jaxmlp.loop import _ours, _trouble
from jaxmlp.loop._changes import MOST, changes
from jaxmlp.loop._description import differences
from jaxmlp.loop._manifest import Manifest
from jaxmlp.loop._saved import SavedRun, read_run
from jaxmlp.types import Json

WAVE, RECIPE = re.compile(r"wave-[0-9]{3,}", re.ASCII), re.compile(r"recipe-[0-9]{3,}", re.ASCII)
FEW = 8  # names in a sentence
MANY = 10**6  # directories, at most
CUT = "keys, hyperparams = population.part(keys, hyperparams, of={of}, number={number})"


class PartRun(NamedTuple):
    """A part as it is saved."""

    path: Path
    portion: Portion
    runs: list[SavedRun]  # one, or one for each wave that has begun

    def __str__(self) -> str:
        return f"part {self.portion.number} in {self.path}"


def read_parts(directories: Any) -> tuple[list[PartRun], list[Path]]:
    """Return the parts that are saved in directories, or in those below them, and the directories that hold none.

    Raises:
      ValueError: where no part is there, for a run that is no part, and for what cannot be read.
    """
    found: list[PartRun] = []
    empty: list[Path] = []
    for path in _paths(directories):
        try:
            read = [part for inner in _holding(path) if (part := _read(inner)) is not None]
        except OSError as error:
            raise ValueError(_trouble.cannot_read(path, error)) from error
        found += read
        empty += [] if read else [path]
    if not found:
        told = ", ".join(map(str, empty[:FEW])) or "none were given"
        raise ValueError(
            f"directories must hold what loop.train saved of a population's parts; got {told}; train each part in a "
            f"directory of its own: {CUT.format(of='N', number='r')}"
        )
    return found, empty


def _paths(directories: Any) -> list[Path]:
    if isinstance(directories, str | os.PathLike):
        return [_disk.path_of("directories", directories)]
    if not isinstance(directories, Iterable) or isinstance(directories, bytes) or getattr(directories, "ndim", 1) != 1:
        raise ValueError(
            f"directories must be a list of paths, or the path of the folder that holds them; got "
            f"{_check.describe(directories)}"
        )
    return [_disk.path_of("directories", path) for path in itertools.islice(directories, MANY)]


def _holding(path: Path) -> list[Path]:
    """Return the folders that hold runs: this one, or those in it."""
    if not path.is_dir():
        return []
    if _holds(path):
        return [path]
    return [inner for inner in sorted(path.iterdir()) if inner.is_dir() and _holds(inner)]


def _holds(path: Path) -> bool:
    """Tell whether a run has saved in a folder, or its waves, or those of several recipes, have theirs in it."""
    return any(
        _ours.number_of(inner) is not None
        or _ours.was_emptied(inner)
        or (WAVE.fullmatch(inner.name) or RECIPE.fullmatch(inner.name)) is not None
        and inner.is_dir()
        for inner in path.iterdir()
    )


def _read(path: Path) -> PartRun | None:
    """Return the part that is saved in a folder; None where it has begun and nothing is saved yet."""
    whole = read_run(path)
    runs = [] if whole is None else [whole]
    while whole is None and (wave := path / f"wave-{len(runs):03d}").is_dir():
        run = read_run(wave)
        if run is None:
            break
        runs.append(run)
    if not runs:
        if (path / "recipe-000").is_dir():
            raise ValueError(
                f"directories must hold members of one recipe; {path} has several; its own call of loop.train brings "
                f"its states and history back"
            )
        return None
    told = runs[0].manifest.part
    if told is None:
        raise ValueError(
            f"directories must hold parts of a population; the run in {path} is no part of one; train each part with "
            f"what population.part returns: {CUT.format(of='N', number='r')}"
        )
    portion = Portion.from_json(told)
    if not portion.number < portion.of <= portion.count or any(run.manifest.part != told for run in runs):
        raise ValueError(f"part of the checkpoint must be one of a population, and of all waves; {path} has {told}")
    return PartRun(path, portion, runs)


def check_together(parts: Sequence[PartRun], empty: Sequence[Path]) -> None:
    """Raise unless these are all parts of one population, trained alike and to their end; warn of other machines.

    Raises:
      ValueError: with what differs, is there twice, is missing or is not finished, and the ways out.
    """
    first = parts[0]
    for other in parts[1:]:
        lines = differences(_whole(first), _whole(other), "part")
        if lines:
            fix = "gather those that population.part cut from the same keys and hyperparams"
            raise ValueError(_apart("of one population", first.path, other.path, lines, fix))
    by_number: dict[int, PartRun] = {}
    for part in parts:
        other = by_number.setdefault(part.portion.number, part)
        if other is not part:
            raise ValueError(
                f"each part must be there once; part {part.portion.number} is in {other.path} and {part.path}"
            )
    for run in [run for part in parts for run in part.runs]:
        lines = _differences(first.runs[0], run)
        if lines:
            fix = "train the one as the other was trained, and gather again"
            raise ValueError(_apart("trained alike", first.runs[0].directory, run.directory, lines, fix))
    _check_complete(by_number, empty)
    _warn_of_machines([run for part in parts for run in part.runs])


def _whole(part: PartRun) -> Json:
    return {name: value for name, value in part.portion.to_json().items() if name != "number"}


def _apart(must: str, one: Path, other: Path, lines: list[str], fix: str) -> str:
    shown = "\n  ".join(lines[:MOST] + [f"and {len(lines) - MOST} more"] * (len(lines) > MOST))
    return f"parts must be {must}; what {one} saved and what {other} has been given differ:\n  {shown}\n{fix}"


def _differences(one: SavedRun, other: SavedRun) -> list[str]:
    """Return a line for each place where two runs of parts were not trained alike."""
    found = [change.line for change in changes(_shared(one), _shared(other))]
    return found + differences(one.manifest.stop, other.manifest.stop, "stop")


def _shared(run: SavedRun) -> Manifest:
    """Return a manifest without what is each member's own, and without the devices."""
    told, count = run.manifest, len(run.arrays.get("members.key", ()))
    own = {*(told.each or ()), "weights", "rows", "validation_rows"}
    options = {name: _form(value) if name in own else value for name, value in told.options.items()}
    given = options.get("params")
    if given and all(form["shape"][:1] == [count] for form in given.values()):
        options["params"] = _form(given)
    data = _form(told.data) if "data" in own else told.data
    return dataclasses.replace(told, key={}, hyperparams={}, part=None, layout={}, data=data, options=options)


def _form(table: Any) -> Any:
    """Return what a table of each member's own must have in common with that of others."""
    if not isinstance(table, dict):
        return table
    return {name: {"shape": told["shape"][1:], "dtype": told["dtype"]} for name, told in table.items()}


def _check_complete(parts: dict[int, PartRun], empty: Sequence[Path]) -> None:
    portion = next(iter(parts.values())).portion
    lines = [line for number in sorted(parts) if (line := _unfinished(parts[number]))]
    if lines:
        lines.append(
            "  the same call of loop.train goes on from there, on any machine that has the directory or a copy of it"
        )
    missing = portion.of - len(parts)
    if missing:
        first = list(itertools.islice((i for i in range(portion.of) if i not in parts), FEW))
        names = [*map(str, first), *([f"{missing - FEW} more"] if missing > FEW else [])]
        told = f"parts {', '.join(names[:-1])} and {names[-1]} are" if missing > 1 else f"part {names[0]} is"
        cut = CUT.format(of=portion.of, number=first[0])
        which = f"each, as {first[0]}" if missing > 1 else "it"
        lines += [f"{told} not there", f"  train {which}, by loop.train on any machine with {cut}"]
    if lines:
        lines += [f"nothing is saved in {path}" for path in empty[:FEW]]
        shown = "\n  ".join(lines)
        raise ValueError(f"directories must hold all {portion.of} parts (from 0), trained to their end:\n  {shown}")


def _unfinished(part: PartRun) -> str | None:
    """Return how far a part is that has not ended."""
    for run in part.runs:
        epochs = run.manifest.recipe["epochs"]
        if not run.has_ended(epochs):
            where = "" if run.directory == part.path else f", in {run.directory.name}"
            return f"{part} is at epoch {run.done} of {epochs}{where}"
    count = sum(len(run.arrays["members.key"]) for run in part.runs)
    return None if count == part.portion.size else f"{part} has {count} of its {part.portion.size} members"


def _warn_of_machines(runs: Sequence[SavedRun]) -> None:
    """Warn where runs had other devices or other versions, once for each value."""
    told: dict[str, tuple[Any, Path]] = {}
    for run in runs:
        named = {f"layout.{name}": value for name, value in run.manifest.layout.items()}
        named |= {f"version.{name}": value for name, value in run.versions.items()}
        for name, value in named.items():
            one, where = told.setdefault(name, (value, run.directory))
            if value != one and (key := f"{name} {value}") not in told:
                told[key] = value, run.directory
                warnings.warn(
                    f"{name}: {one} in {where}, {value} in {run.directory}: the parts are gathered, but only equal "
                    f"devices and versions promise the bits of one machine",
                    stacklevel=_check.level_of_caller(),
                )
