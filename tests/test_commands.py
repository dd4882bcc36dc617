"""Every command that a docstring or a page shows is accepted by the program that it names."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from experiments import __main__ as experiments

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
PAGES += [path for room in ("experiments", "benchmarks", "jaxmlp", "tests") for path in (ROOT / room).rglob("*.*")]
COMMAND = r"python -m (?:experiments|benchmarks|pytest)(?![.\w])"
QUOTED = re.compile(rf"(?<!`)`[^`\n]{{0,20}}?({COMMAND}[^`]*)`(?!`)")  # in a sentence, maybe over two lines
LINE = re.compile(rf"^(?!#)[^`\n]*?({COMMAND}[^`\n]*)$", re.MULTILINE)  # alone on its line
WORDS = {"experiments": {"NAME": "line"}, "benchmarks": {"NAME": "small"}, "pytest": {}}


def commands(text: str) -> list[str]:
    """Return the commands that a text shows, without the remarks behind them."""
    alone = [re.split(r"\s{2,}| && | #|;", found)[0] for found in LINE.findall(text)]
    return [*alone, *(" ".join(found.split()) for found in QUOTED.findall(text))]


def shown() -> list[tuple[str, str]]:
    """Return every command of the docstrings and pages, each once, and a file that shows it."""
    found: dict[str, str] = {}
    for path in PAGES:
        if path.suffix not in (".py", ".md") or path == Path(__file__):
            continue
        text = path.read_text()
        if path.suffix == ".py":
            text = "\n".join(re.findall(r'"""(.*?)"""', text, re.DOTALL))
        for command in commands(text):
            found.setdefault(command, str(path.relative_to(ROOT)))
    return sorted(found.items())


SHOWN = shown()


def words(command: str) -> tuple[str, list[str]]:
    """Return the program and its arguments, those in brackets too, placeholders replaced by what they stand for."""
    _, _, program, *rest = shlex.split(command.replace("[", " ").replace("]", " ").replace("...", " "))
    return program, [WORDS[program].get(word, word) for word in rest]


def accept(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, parser) -> None:
    """Give the command to its program's own parser; an error if it is refused."""
    program, argv = words(command)
    monkeypatch.chdir(folder)
    if program == "experiments":
        experiments.parse(argv)
    elif program == "benchmarks":
        (folder / "benchmarks").mkdir(exist_ok=True)  # --json writes there
        for run in ("alone", "apart"):
            monkeypatch.setattr(benchmarks, run, lambda *_, **__: [])
        assert benchmarks.main(argv) == 0
    else:
        known, unknown = parser.parse_known_and_unknown_args(argv)
        assert not unknown
        assert all((ROOT / str(path).split("::")[0]).exists() for path in known.file_or_dir)


@pytest.mark.parametrize(("command", "page"), SHOWN, ids=[command for command, _ in SHOWN])
def test_a_command_is_accepted_as_shown(command, page, tmp_path, monkeypatch, pytestconfig):
    accept(command, tmp_path, monkeypatch, pytestconfig._parser)


@pytest.mark.parametrize(
    "command",
    ["experiments colapse", "experiments --fast", "benchmarks smal", "benchmarks --fast", "pytest --fastest"],
)
def test_a_wrong_command_is_not(command, tmp_path, monkeypatch, pytestconfig):
    with pytest.raises((SystemExit, ValueError, AssertionError)):
        accept(f"python -m {command}", tmp_path, monkeypatch, pytestconfig._parser)


def test_commands_are_found_where_they_stand():
    found = [command for command, _ in SHOWN]
    assert "python -m experiments uci --data DIR [NAME ...]" in found and len(found) > 25
    text = "Run `python -m experiments uci\n--data DIR`.\n\n    python -m benchmarks small  # quick\n"
    assert commands(text) == ["python -m benchmarks small", "python -m experiments uci --data DIR"]


def test_names_may_follow_an_option():
    found = experiments.parse(["uci", "--data", "sets", "concrete", "yacht"])
    assert (found.names, found.sets, found.data) == (("uci",), ("concrete", "yacht"), Path("sets"))
