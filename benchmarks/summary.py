"""The README's tables and picture, made from the rows of a run, so that no figure is typed in by hand.

    python -m benchmarks --data DIR --json benchmarks/results.json
    python -m benchmarks.summary

A test holds the README to benchmarks/results.json.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.show import bars, number
from benchmarks.timing import TIMES, Row

ROOT = Path(__file__).parent.parent
RESULTS, PICTURE = ROOT / "benchmarks" / "results.json", ROOT / "benchmarks" / "speed.png"
BEGIN, END = "<!-- made by benchmarks/summary.py -->", "<!-- end -->"
RATES = ("examples/s", "steps/s", "net-steps/s", "rows/s")
TABLES = {  # the name of a benchmark: what is timed, and {column: its rows}
    "single": ("One network, batch 128, Adam", {"784-256-256-10": "single"}),
    "small": ("Small networks, batch 32, Adam", {"8-50-1": "small 8-50-1", "8-64-64-1": "small 8-64-64-1"}),
    "population": (
        "Many networks, a seed and a learning rate each, on all cores",
        {f"{count} of {net}": f"{count} of {net}" for net in ("64-64-10", "8-50-1") for count in ("64", "1,024")},
    ),
    "inference": (
        "Inference of 784-256-256-10",
        {"one row, NumPy to NumPy": "inference, one row", "60,000 rows": "inference, 60,000 rows"},
    ),
    "compile": (
        "From the process's start, two hidden layers, without and with JAX's persistent cache",
        {
            f"{step}, {cache}": f"compile: {step}, {cache}"
            for step in ("first step", "100th step")
            for cache in ("cold", "cached")
        },
    ),
    "quality": (
        "Data in memory to a test accuracy, compilation apart",
        {"digits to 97 %": "digits to 97 %", "MNIST to 98 %": "MNIST to 98 %"},
    ),
    "loop": (
        "The host's loop in four chunks, checkpoints, files",
        {"8-50-1": "loop 8-50-1", "784-256-256-10": "loop 784-256-256-10"},
    ),
}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return a table a benchmark: how many times as long each contender takes as the first of its column."""
    lines = [f"Measured on: {rows[0]['machine']}.", ""]
    for command, (question, columns) in TABLES.items():
        timed = [row for row in rows if row["unit"] in (*RATES, *TIMES)]
        found = {
            name: {r["contender"]: r["ratio"] for r in timed if r["benchmark"] == columns[name]} for name in columns
        }
        contenders = dict.fromkeys(contender for column in found.values() for contender in column)
        lines += [f"**{question}** (`python -m benchmarks {command}`)", ""]
        lines += [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
        for contender in contenders:
            cells = [times(column[contender]) if contender in column else "" for column in found.values()]
            lines.append(f"| {contender} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, *facts(rows), ""])


def times(ratio: float) -> str:
    """Return a ratio with three digits or so."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def facts(rows: list[dict[str, Any]]) -> list[str]:
    """Return what is no comparison of contenders, a line each."""
    value = {(row["benchmark"], row["contender"]): row["value"] for row in rows}
    ratio = {(row["benchmark"], row["contender"]): row["ratio"] for row in rows}
    shares = [
        f"{100 * ratio['single', f'matrix products alone, {kind}']:.0f} % of the best in {kind}"
        for kind in ("float32", "bfloat16")
    ]
    depth = {
        cache: value[f"compile: depth, {cache}", "jaxmlp.step, scan, 256 hidden layers"]
        / value[f"compile: depth, {cache}", "jaxmlp.step, scan, 2 hidden layers"]
        for cache in ("cold", "cached")
    }
    apart = ratio["compile: depth, cold", "jaxmlp.step, 256 hidden layers"]
    imports = 1 / ratio["compile: import", "import jax, optax"]
    slopes = ", ".join(f"{row[1].split(',')[0]} {value[row]:.2f}" for row in value if row[0] == "scaling exponents")
    memory = max(ratio[row] for row in ratio if row[0] == "scaling memory")
    large = value["loop 20 GB", "peak resident memory"]
    return [
        f"- `single`: bare matrix products reached {number(value['single', 'matrix products alone, float32'])} GFLOP/s "
        f"in the same run in float32; training reaches {' and '.join(shares)}.",
        f"- `population`: a sweep of which half stops early takes "
        f"{ratio['early stopping', 'patience of 5 epochs']:.2f} of its time with `patience=5`.",
        f"- `compile`: to the first step, 256 hidden layers take {depth['cold']:.2f} of the time of two "
        f"({depth['cached']:.2f} with the cache) under `MLP(..., scan=True)`, and {apart:.1f} written out; importing "
        f"jaxmlp takes {imports:.2f} of importing JAX and Optax.",
        f"- `scaling`: time grows with the power {slopes}, where theory says 2 for width and 1 for the others; a run "
        f"plans for at most {memory:.2f} of the memory that is counted.",
        f"- `loop`: 20 GB of examples train within {number(large)} MiB of resident memory.",
    ]


def written(readme: str, rows: list[dict[str, Any]]) -> str:
    """Return the README with its tables replaced."""
    block = f"{BEGIN}\n\n{markdown(rows)}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, readme, flags=re.DOTALL)


def picture(rows: list[dict[str, Any]], path: Path = PICTURE) -> None:
    """Draw the three training benchmarks."""
    shown = ("single", "small 8-50-1", "64 of 64-64-10", "64 of 8-50-1")
    mine = [r for r in rows if r["benchmark"] in shown and r["unit"] in RATES]
    bars([Row(**{name: row[name] for name in Row._fields}) for row in mine], path, columns=2)


if __name__ == "__main__":
    page, found = ROOT / "README.md", json.loads(RESULTS.read_text())
    page.write_text(written(page.read_text(), found))
    picture(found)
