"""The tables of benchmarks/README.md, six of their rows in README.md, and the picture, made from the rows of a run.

    python -m benchmarks --data DIR --json benchmarks/results.json
    python -m benchmarks.summary

No figure is typed in by hand: a test holds both pages to benchmarks/results.json.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import devices, paper, tables
from benchmarks.show import bars, number
from benchmarks.timing import TIMES, Row

ROOT = Path(__file__).parent.parent
MAIN, PAGE = ROOT / "README.md", ROOT / "benchmarks" / "README.md"
RESULTS, PICTURE = ROOT / "benchmarks" / "results.json", ROOT / "benchmarks" / "speed.png"
BEGIN, END = "<!-- made by benchmarks/summary.py -->", "<!-- end -->"
RATES = ("examples/s", "steps/s", "net-steps/s", "rows/s", "members/s")
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
    "estimators": (
        "A fit of the estimators and of scikit-learn's perceptrons, warm and in a new process",
        {
            f"{name}, {how}": f"estimators: {name}, {how}"
            for how in ("warm", "cold")
            for name in ("iris", "digits", "diabetes", "10,000 x 20", "60,000 x 784")
        }
        | {"one row": "estimators: digits, one row"},
    ),
    "searches": (
        "A search of 60 settings on 5 folds of digits, on all cores",
        {"60 settings of one shape": "searches one shape"},
    ),
    "loop": (
        "The host's loop in four chunks, checkpoints, files",
        {"8-50-1": "loop 8-50-1", "784-256-256-10": "loop 784-256-256-10"},
    ),
    "devices": (
        "256 networks 8-64-64-1 on virtual devices of two cores, compilation apart",
        {"one process": "devices: one process", "two devices": "devices: two devices"},
    ),
}
COLUMNS = {  # of the short table: {column: what may stand in it}, of which the fastest does
    "jaxmlp": ("jaxmlp.fit", "population.fit", "jaxmlp, in_numpy"),
    "JAX by hand": ("JAX by hand, one scan", "JAX by hand, jit"),
    "Equinox or Flax": ("Equinox", "Equinox, filter_vmap", "Flax NNX", "Flax, nnx.vmap"),
    "Keras": ("Keras",),
    "PyTorch": ("PyTorch", "PyTorch, fused Adam", "PyTorch, compiled", "PyTorch, torch.func", "PyTorch, all cores"),
    "scikit-learn": ("scikit-learn", "scikit-learn, all cores"),
}
HEADLINES = {  # its rows: {what is timed: (the name of a benchmark, its rows)}
    "training 784-256-256-10, batch 128": ("single", "single"),
    "training 8-50-1, batch 32": ("small", "small 8-50-1"),
    "training 64 networks 64-64-10": ("population", "64 of 64-64-10"),
    "training 1,024 networks 8-50-1": ("population", "1,024 of 8-50-1"),
    "one row through 784-256-256-10": ("inference", "inference, one row"),
    "MNIST to 98 % test accuracy": ("quality", "MNIST to 98 %"),
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
        if not contenders:  # it has not been run yet
            continue
        lines += [f"**{question}** (`python -m benchmarks {command}`)", ""]
        lines += [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
        for contender in contenders:
            cells = [times(column[contender]) if contender in column else "" for column in found.values()]
            lines.append(f"| {contender} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, *facts(rows), "", *tables.markdown(rows), *paper.markdown(rows)])


def headlines(rows: list[dict[str, Any]]) -> str:
    """Return the short table: the time of each column's fastest contender, in units of one of the row."""
    lines = [f"| | {' | '.join(COLUMNS)} | command |", "|---" * (len(COLUMNS) + 2) + "|"]
    for question, (command, benchmark) in HEADLINES.items():
        ratio = {row["contender"]: row["ratio"] for row in rows if row["benchmark"] == benchmark}
        cells = []
        for names in COLUMNS.values():
            found = [ratio[name] for name in names if name in ratio]
            cells.append(times(min(found)) if found else "")
        lines.append(f"| {question} | {' | '.join(cells)} | `python -m benchmarks {command}` |")
    return "\n".join([*lines, ""])


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
        f"{ratio['early stopping', 'patience of 5 epochs']:.2f} of its time with a patience of 5 epochs.",
        f"- `compile`: to the first step, 256 hidden layers take {depth['cold']:.2f} of the time of two "
        f"({depth['cached']:.2f} with the cache) under `MLP(..., scan=True)`, and {apart:.1f} written out; importing "
        f"jaxmlp takes {imports:.2f} of importing JAX and Optax.",
        f"- `scaling`: time grows with the power {slopes}, where theory says 2 for width and 1 for the others; a run "
        f"plans for at most {memory:.2f} of the memory that is counted.",
        f"- `loop`: 20 GB of examples train within {number(large)} MiB of resident memory.",
        *devices.facts(rows),
        *paper.facts(rows),
    ]


def written(page: str, made: str) -> str:
    """Return a page with what stands between its marks replaced."""
    block = f"{BEGIN}\n\n{made}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, page, flags=re.DOTALL)


def picture(rows: list[dict[str, Any]], path: Path = PICTURE) -> None:
    """Draw the three training benchmarks."""
    shown = ("single", "small 8-50-1", "64 of 64-64-10", "64 of 8-50-1")
    mine = [r for r in rows if r["benchmark"] in shown and r["unit"] in RATES]
    bars([Row(**{name: row[name] for name in Row._fields}) for row in mine], path, columns=2)


if __name__ == "__main__":
    found = json.loads(RESULTS.read_text())
    for path, made in ((MAIN, headlines(found)), (PAGE, markdown(found))):
        path.write_text(written(path.read_text(), made))
    picture(found)
