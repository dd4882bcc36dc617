"""Checkpoints that came from anywhere: every word of one is another, and the digests are right all the same."""

import copy
import hashlib
import json

DEEP = "[" * 3000 + "]" * 3000
TEXT = "\N{SNOWMAN}\ud800" + "x" * 300
KINDS = [
    *(None, True, False, 0, -1, 3, 10**30, 2 * 10**8, 0.5, 1e300, float("nan"), float("inf"), "", "x", TEXT),
    *([], [1], ["x", None], [[[]]], {}, {"a": 1}, {"": {"": []}}),
    {"type": "jax.numpy:load", "file": "spy.npy", "allow_pickle": True},
    {"type": "pathlib:Path"},
    {"type": "jaxmlp:MLP", "sizes": [3, 10**9, 1]},
    {"type": "jaxmlp.loop._saving:RunDirectory", "path": "spy"},
    {"function": "os:system"},
    {"function": "jax.numpy:save"},
    {"function": "jaxmlp._check:importlib.import_module"},
    {"function": "optax:adam"},
    {"function": "optax:squared_error", "code": "0"},
    {"partial": {"function": "jax.nn:one_hot"}, "args": [], "keywords": {"num_classes": 10**10}},
    {"partial": {"function": "jax.numpy:load"}, "args": ["spy.npy"], "keywords": {"allow_pickle": True}},
    {"partial": {"type": "jaxmlp:MLP", "sizes": [1, 1]}, "args": 3, "keywords": {}},
    {"array": {"shape": [10**12], "dtype": "float64", "sha256": ""}},
]


def seal(folder):
    """Write the digests of a checkpoint's files as they are now."""
    names = sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS"
    )
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def tell(folder, told):
    """Let a checkpoint say something else: JSON, or text."""
    text = told if isinstance(told, str) else json.dumps(told)
    (folder / "run.json").write_text(text, errors="surrogatepass")
    seal(folder)


def places(told, path=()):
    """Yield the path to each value in JSON."""
    yield path
    inner = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for name, value in inner:
        yield from places(value, (*path, name))


def mutants(told):
    """Yield a name and JSON in which one thing is another, is gone, is there twice, or has another name."""
    for path in places(told):
        if not path:
            continue
        for kind, value in enumerate(KINDS):
            other = copy.deepcopy(told)
            _at(other, path[:-1])[path[-1]] = value
            yield f"{'.'.join(map(str, path))} #{kind}", other
        other = copy.deepcopy(told)
        del _at(other, path[:-1])[path[-1]]
        yield f"{'.'.join(map(str, path))} gone", other
        if isinstance(path[-1], str):
            other = copy.deepcopy(told)
            inside = _at(other, path[:-1])
            inside[f"{path[-1]}2"] = inside.pop(path[-1])
            yield f"{'.'.join(map(str, path))} renamed", other
            text, name = json.dumps(told), f"{json.dumps(path[-1])}: "
            yield f"{'.'.join(map(str, path))} twice", text.replace(name, f"{name}1, {name}", 1)
            yield f"{'.'.join(map(str, path))} deep", text.replace(name, f'"deep": {DEEP}, {name}', 1)


def _at(told, path):
    for name in path:
        told = told[name]
    return told
