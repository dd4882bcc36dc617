"""The house: imports run one way, a file is one noun, a function fits on a screen."""

import ast
from pathlib import Path

ROOM = Path(__file__).parent.parent / "jaxmlp"
FILES = {path.relative_to(ROOM).with_suffix("").as_posix().replace("/", "."): path for path in ROOM.rglob("*.py")}
# Each room imports from those before it; rooms of one line know nothing of each other.
FLOORS = [
    ["types", "_known"],
    ["_check", "_requests"],
    ["_scaling"],
    ["_disk", "_header"],
    ["_tensors"],
    ["_arguments", "_compile", "_libraries"],
    ["_mesh"],
    ["_arrays", "_passing"],
    ["_choice", "_eager", "_events", "_factories", "_idx", "_kinds", "_naming", "_targets", "_trees", "_varying"],
    ["_gaussian", "_matmul", "_order", "_transforms", "_weights"],
    ["_bounds", "_classes", "_composed", "_evidence", "_likelihoods", "_pairs", "_scaled", "_slopes"],
    ["layer", "losses", "data", "_labels"],
    ["_in_numpy"],
    ["_classification", "_ranking", "_regression"],
    ["metrics", "linear", "_layout", "_stacking", "_roles", "_coupling", "transforms"],
    ["_averaging", "_freezing", "_placement", "_structure", "_per_layer"],
    ["_description", "optimizers"],
    ["mlp"],
    ["_routing"],
    ["recipe"],
    ["_dry_run"],
    ["_state"],
    ["_preflight", "_verbs"],
    ["_evaluating", "_transfer"],
    ["training"],
    ["_described", "sharding"],
    ["conformal", "serving", "files", "interop", "records"],
    ["_engine"],
    ["loop"],
    ["population"],
    ["estimators"],
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}


def imports(path):
    """Yield the names of jaxmlp's modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxmlp":
            inner = node.module.removeprefix("jaxmlp").lstrip(".")
            yield from [inner] if inner else [alias.name for alias in node.names]


def test_imports_run_one_way():
    for name, path in FILES.items():
        room = name.split(".")[0]
        for imported in imports(path) if room != "__init__" else ():
            other = imported.split(".")[0]
            assert other == room or FLOOR[other] < FLOOR[room], f"{name} imports {imported}"


def test_files_and_functions_are_of_a_size_that_is_read_at_once():
    for name, path in FILES.items():
        text = path.read_text()
        assert text.count("\n") <= 260, f"{name} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                spoken = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - spoken.count("\n")
                assert lines <= 60, f"{name}.{node.name} has {lines} lines of code"
                arguments = node.args.args + node.args.kwonlyargs + node.args.posonlyargs
                inner = node.name.startswith("_") or any(part.startswith("_") for part in name.split("."))
                if inner and node.name != "__init__":
                    count = sum(a.arg not in ("self", "cls") for a in arguments)
                    public = (name.split(".")[0], node.name) in PUBLIC
                    assert count <= 6 or public, f"{name}.{node.name} has {count} parameters"


PUBLIC = {
    ("population", "fit"),
    ("population", "halving"),
    ("population", "cross_validate"),
    ("loop", "train"),
    ("loop", "resume"),
    ("_engine", "plan"),
}
