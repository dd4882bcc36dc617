"""`python -m experiments [NAME ...]`: run the experiments and say whether each claim holds."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NamedTuple

NAMES = (
    "line linear_map collapse activations classification regression probabilistic variance approximation sweep "
    "ensemble uci vae pinn policy density dynamics neural_ode bayes transfer sklearn"
).split()
FILES = {"sklearn": "sklearn_sets"}  # whose name is that of a library
NEEDS = {"neural_ode": "diffrax", "bayes": "blackjax"}  # of the extra `compose`


class Options(NamedTuple):
    """What the command line asks for."""

    names: tuple[str, ...]  # of experiments
    sets: tuple[str, ...]  # of `uci`
    data: Path | None
    figures: Path
    thorough: bool
    directory: Path | None


def parse(argv: list[str] | None = None) -> Options:
    """Return what the command line asks for.

    Raises:
      ValueError: for an experiment that does not exist, and for --directory with any other than `classification`.
      SystemExit: for an option that does not exist.
    """
    import tyro

    from jaxmlp import _check

    def options(
        names: tyro.conf.Positional[tuple[str, ...]] = (),
        data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
        figures: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("figures"),
        thorough: bool = False,
        directory: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    ) -> Options:
        """Run the experiments; each holds a claim of the notes to what is measured.

        Args:
            names: which ones; all where none is named. `uci` takes the names of its sets after it.
            data: for `classification` a folder of IDX files, plain or gzipped (MNIST, Fashion-MNIST); for `uci` a
                folder of regression sets.
            figures: folder for the figures.
            thorough: train as long as ten minutes for the best accuracy, with --data.
            directory: for `classification`, where one network's run is saved, stopped and resumed, and its model kept.
        """
        return Options(names, (), data, figures, thorough, directory)

    argv = sys.argv[1:] if argv is None else argv
    # The parser takes positional arguments in one run only; names may follow an option too: `uci --data DIR NAME`.
    found, rest = tyro.cli(options, args=argv, prog="python -m experiments", return_unknown_args=True)
    if any(word.startswith("-") for word in rest):
        tyro.cli(options, args=argv, prog="python -m experiments")  # says which option is unknown, and exits
    names, sets = (*found.names, *rest), ()
    if names[:1] == ("uci",):
        names, sets = names[:1], names[1:]
    for name in names:
        _check.one_of("an experiment", name, NAMES)
    if found.directory is not None and names != ("classification",):
        raise ValueError(
            "--directory is for classification alone: python -m experiments classification --directory DIR"
        )
    return found._replace(names=names, sets=sets)


def main(argv: list[str] | None = None) -> int:
    """Run the named experiments and return the exit code: 0 where every claim holds, else 1."""
    try:
        import tyro  # noqa: F401

        from experiments.report import Report
    except ImportError as error:
        print(f"{error}; the experiments need: pip install 'jaxmlp[experiments]'", file=sys.stderr)
        return 2
    try:
        names, sets, data, figures, thorough, directory = parse(argv)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    missing = {name: library for name, library in NEEDS.items() if find_spec(library) is None}
    for name in names:
        if name in missing:
            print(f"{name} needs {missing[name]}: pip install 'jaxmlp[experiments,compose]'", file=sys.stderr)
            return 2
    report = Report(figures)
    for name in names or NAMES:
        if name in missing:
            report.skip(name, f"needs {missing[name]}: pip install 'jaxmlp[experiments,compose]'")
            continue
        module = importlib.import_module(f"experiments.{'survival' if directory else FILES.get(name, name)}")
        question = (module.__doc__ or name).splitlines()[0]
        with report.experiment(name, question):
            if directory is not None:
                module.run(report, directory)
            elif name == "classification":
                module.run(report, data=data, thorough=thorough)
            elif name == "uci":
                module.run(report, data=data if names else None, names=sets)
            else:
                module.run(report)
    report.console.print(report.table())
    return 0 if report.holds else 1


if __name__ == "__main__":
    import jaxmlp

    jaxmlp.use_all_cores()  # before JAX starts
    sys.exit(main())
