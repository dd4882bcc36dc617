"""What would a step take on 1 to 1,024 accelerators? On paper, then checked by compiling for them.

    python -m benchmarks paper

100,000 members 8-64-64-1, batch 32, and one net of eight layers 32,768 wide, bfloat16 products, 128 rows a device, both
by Adam, on H100 and TPU v5e: time and memory a step from the equations of `benchmarks/equations.py`. Then the real step
is lowered for a mesh of so many GPUs and TPUs, and compiled for as many virtual devices; with libtpu installed, by the
TPU's own compiler too. Nothing is computed. What the compiled step sends, and what a device holds, stand beside the
equations.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import equations
from benchmarks.equations import H100, V5E, Hardware, Split, Step
from benchmarks.timing import Row, measured

DEVICES, NODE = (1, 8, 64, 256, 1024), 8
WIDE, ROWS = (32768,) * 9, 128  # rows a device
SMALL, BATCH, TABLE, MEMBERS, WIDTH = (8, 64, 64, 1), 32, 10_000, 100_000, 1024  # the width that `plan` chooses
COMPILERS = {"cpu": ("CPU", H100), "tpu": ("v5e", V5E)}  # who compiles, and whose equations it is held to
LIMIT = 3600  # seconds after which a child is ended


class Case(NamedTuple):
    """A number of devices and how the work lies on them: the wide net's split, or the population's width."""

    devices: int
    layout: str
    split: Split | None = None
    width: int | None = None

    @property
    def name(self) -> str:
        """Its name in a table of rows."""
        kind = "data x model" if self.split is not None else "width"
        return f"{self.devices:,} devices, {kind} {self.layout}"

    def step(self, hardware: Hardware) -> Step:
        """Return its step by the equations."""
        if self.split is not None:
            return equations.wide(WIDE, ROWS, self.split, hardware)
        places = equations.slots(MEMBERS, self.devices, self.width or 1)
        return equations.crowd(SMALL, BATCH, TABLE, places, self.width or 1, hardware)

    def sent(self) -> float:
        """Return the bytes that a device sends, by the equations."""
        return 0.0 if self.split is None else equations.sent(WIDE, ROWS * self.split.model, self.split)


def wide_cases(devices: tuple[int, ...] = DEVICES) -> Iterator[Case]:
    """Yield the ways to lay the wide net on so many devices, data x model."""
    for count in devices:
        for model in dict.fromkeys((1, min(count, NODE))):
            data = count // model
            yield Case(count, f"{data:,} x {model}", Split(data, model))
            if data > 1:
                yield Case(count, f"{data:,} x {model} sharded", Split(data, model, sharded=True))


def crowd_cases(devices: tuple[int, ...] = DEVICES) -> Iterator[Case]:
    """Yield the population at the plan's width, and at a device's share of the members where that is less.

    A device computes whole blocks: 98 members in a block of 1,024 take the time of 1,024.
    """
    for count in devices:
        for width in dict.fromkeys((WIDTH, min(WIDTH, -(-MEMBERS // count)))):
            yield Case(count, f"{width:,}", width=width)


WORKS = {
    f"One net, eight layers {WIDE[0]:,} wide, {ROWS} rows a device": wide_cases,
    f"{MEMBERS:,} members {'-'.join(map(str, SMALL))}, batch {BATCH}": crowd_cases,
}
LAYOUTS = {wide_cases: "data x model", crowd_cases: "width"}


def run(*, quick: bool = False) -> list[Row]:
    """Return what the compilers made of each case, as ratios to the equations."""
    rows = []
    cases = [case for kind in WORKS.values() for case in kind(DEVICES[:2] if quick else DEVICES)]
    for platform, (compiler, hardware) in COMPILERS.items():
        if platform == "tpu" and importlib.util.find_spec("libtpu") is None:
            print("left out, not installed: the compiler of TPU v5e (libtpu)")
            continue
        told = compiled(platform, cases)
        for case, found in zip(cases, told, strict=True):
            step = case.step(hardware)
            expected = {"sent": case.sent(), "held": step.held, "flops": step.flops}
            if platform == "tpu":  # a CPU's compiler widens the operands
                expected["traffic"] = step.traffic
            for what, size in expected.items():
                if what in found:  # a program that does not fit has nothing to count
                    ratio = found[what] / size if size else 1.0  # nothing is to be sent: the value says how it is
                    unit = "GFLOP" if what == "flops" else "GB"
                    rows.append(measured(f"paper: {what} by {compiler}", case.name, found[what] / 1e9, unit, ratio))
        longest = max(found["seconds"] for found in told)
        rows.append(measured("paper: compiling, the longest", compiler, longest, "s"))
        if platform == "cpu":
            done = sum(found["lowers"] for found in told)
            rows.append(measured("paper: lowered for CUDA and TPU", f"of {len(cases)}", done, "cases"))
    return rows


def compiled(platform: str, cases: list[Case]) -> list[dict[str, Any]]:
    """Return what a child process tells of each case, in order."""
    from benchmarks.lowering import TPU

    how = {
        "platform": platform,
        "wide": [WIDE, ROWS],
        "crowd": [SMALL, BATCH, TABLE, MEMBERS],
        "cases": [(case.devices, case.split, case.width) for case in cases],
    }
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **(TPU if platform == "tpu" else {})}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lowering", json.dumps(how)],
        capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent, timeout=LIMIT,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the process that compiles must end well; it ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


Cells = list[list[str]]


def tables(rows: list[dict[str, Any]]) -> Iterator[tuple[str, Cells]]:
    """Yield title and lines of each table, the header first: the equations' on each hardware, then the compilers'."""
    for work, kind in WORKS.items():
        for hardware in (H100, V5E):
            lines = [["devices", LAYOUTS[kind], "GB", "products", "memory", "links", "ms a step"]]
            for case in kind():
                step = case.step(hardware)
                lines.append([f"{case.devices:,}", case.layout, holds(step, hardware), *times(step)])
            yield f"{work}, on {hardware.name}", lines
    value = {(row["benchmark"], row["contender"]): row["value"] for row in rows}
    for work, kind in WORKS.items():
        lines = [["devices", LAYOUTS[kind], "sent", "CPU", "v5e", "held", "CPU", "held", "v5e"]]
        for case in kind():
            own = case.step(H100).held, case.step(V5E).held
            sent, held = (
                [value.get((f"paper: {what} by {by}", case.name)) for by, _ in COMPILERS.values()]
                for what in ("sent", "held")
            )
            if held[0] is not None:
                cells = [case.sent() / 1e9, *sent, own[0] / 1e9, held[0], own[1] / 1e9, held[1]]
                lines.append([f"{case.devices:,}", case.layout, *("" if c is None else figure(c) for c in cells)])
        yield f"{work}: GB, by the equations and as compiled", lines


def holds(step: Step, hardware: Hardware) -> str:
    """Return the gigabytes that a device holds, and of how many where these are too few."""
    held = figure(step.held / 1e9)
    return held if step.held <= hardware.capacity else f"{held} > {hardware.capacity / 1e9:.0f}"


def times(step: Step) -> list[str]:
    """Return milliseconds of products, memory and links, and of the step between its bounds."""
    low, high = (figure(1e3 * seconds) for seconds in step.bounds)
    return [*(figure(1e3 * seconds) for seconds in step.seconds), low if low == high else f"{low} - {high}"]


def figure(value: float) -> str:
    """Return three digits."""
    return "0" if value == 0 else f"{value:,.0f}" if value >= 99.5 else f"{value:#.3g}"


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """Return the tables as lines of Markdown."""
    found = []
    for title, (header, *lines) in tables(rows):
        found += [f"**{title}** (`python -m benchmarks paper`)", "", f"| {' | '.join(header)} |"]
        found += ["|---" * len(header) + "|", *(f"| {' | '.join(line)} |" for line in lines), ""]
    return found


def facts(rows: list[dict[str, Any]]) -> list[str]:
    """Return how far the compilers' counts are from the equations, a line of Markdown each."""
    found = []
    for compiler, _ in COMPILERS.values():
        spans = []
        for what in ("sent", "held", "flops", "traffic"):
            ratios = [row["ratio"] for row in rows if row["benchmark"] == f"paper: {what} by {compiler}"]
            if ratios:
                spans.append(f"{what} {min(ratios):.2f} to {max(ratios):.2f}")
        if spans:
            found.append(f"- `paper`: as compiled for {compiler}, in units of the equations: {', '.join(spans)}.")
    for hardware in (H100, V5E):
        split = Split(DEVICES[-1] // NODE, NODE)
        enough = equations.enough_rows(WIDE, split, hardware)
        found.append(
            f"- `paper`: from {figure(enough)} rows a device on, the products of the wide net take longest on "
            f"{hardware.name}, {split.data} x {split.model}."
        )
    done = [row for row in rows if row["benchmark"] == "paper: lowered for CUDA and TPU"]
    return found + [f"- `paper`: {row['value']} {row['contender']} cases are lowered for CUDA and TPU." for row in done]


def show(rows: list[Row]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, (header, *lines) in tables([row._asdict() for row in rows]):
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        for name in header:
            table.add_column(name, justify="left" if name == header[1] else "right", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        console.print(table)
        console.print()
    for row in rows:
        if row.unit in ("s", "cases"):
            console.print(f"{row.benchmark.removeprefix('paper: ')}: {figure(row.value)} {row.unit}, {row.contender}")
