"""`python -m benchmarks [NAME ...] [--json FILE] [--quick]`: time jaxmlp and what one would use instead."""

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAMES = {
    "single": "one network of middle size, beside the peers and the machine's best",
    "small": "steps a second of small networks",
    "population": "1 to 4,096 networks at once",
    "searches": "60 settings on 5 folds, beside scikit-learn's grid search on all cores",
    "compile": "from the process's start to the first step and the hundredth, against depth",
    "inference": "one row's latency, and 60,000 rows",
    "scaling": "time and memory against width, depth, batch, members and rows",
    "accelerator": "a GPU's or TPU's share of its peak",
    "quality": "time to a test accuracy",
    "estimators": "fits and predictions beside scikit-learn's, warm and cold",
    "tables": "scores beside scikit-learn's, on tables of PMLB",
    "loop": "what checkpoints and data on disk cost",
    "devices": "a population on 1 to 8 devices, and on two processes",
    "paper": "a step on 1 to 1,024 accelerators, in equations, and compiled for them",
}
DATA = ("quality", "estimators", "tables")  # what reads a folder
DEVICE_A_CORE = {"population"}  # the others leave one device to use all cores


def main(argv: list[str] | None = None) -> int:
    """Run the named benchmarks, one process each where they are several, and print their rows."""
    try:
        import rich  # noqa: F401
        import tyro
    except ImportError as error:
        print(f"{error}; the benchmarks need: pip install 'jaxmlp[benchmarks]'", file=sys.stderr)
        return 2

    from jaxmlp import _check

    def options(
        names: tyro.conf.Positional[tuple[str, ...]] = (),
        json: Path | None = None,
        quick: bool = False,
        data: Path | None = None,
    ) -> tuple[tuple[str, ...], Path | None, bool, Path | None]:
        """Time jaxmlp beside its peers, in turn in one run.

        Args:
            names: which benchmarks; all where none is named.
            json: file for the rows.
            quick: a few steps only, to see that it runs.
            data: folder of MNIST's four files, for `quality` and `estimators`; of PMLB's tables, for `tables`.
        """
        return names, json, quick, data

    description = "\n".join(f"{name:12} {question}" for name, question in NAMES.items())
    names, file, quick, folder = tyro.cli(options, args=argv, prog="python -m benchmarks", description=description)
    for name in names:
        try:
            _check.one_of("a benchmark", name, NAMES)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
    names = names or tuple(NAMES)
    flags = ["--quick"] * quick + (["--data", str(folder)] if folder else [])
    if len(names) == 1:
        rows = alone(names[0], flags, quick=quick, **({"folder": folder} if folder and names[0] in DATA else {}))
    else:
        rows = [row for name in names for row in apart(name, flags)]
    if file is not None:
        file.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def alone(name: str, flags: list[str], **how: Any) -> list[dict[str, Any]]:
    """Run a benchmark in this process; print its header and its table, and draw its figure."""
    from benchmarks import show
    from benchmarks.timing import header, machine

    module = importlib.import_module(f"benchmarks.{name}")
    print(header(" ".join(["python -m benchmarks", name, *flags])), flush=True)
    rows = module.run(**how)
    own = getattr(module, "show", None)
    own(rows) if own else show.show(name, rows)
    return [row._asdict() | {"machine": machine()} for row in rows]


def apart(name: str, flags: list[str]) -> list[dict[str, Any]]:
    """Run a benchmark in a process of its own, so that no thread or cache of one disturbs another."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        subprocess.run([sys.executable, "-m", "benchmarks", name, "--json", str(file), *flags], check=True)
        return json.loads(file.read_text())


if __name__ == "__main__":
    if DEVICE_A_CORE & set(sys.argv[1:]):
        import jaxmlp

        jaxmlp.use_all_cores()  # before JAX starts
    sys.exit(main())
