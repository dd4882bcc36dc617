"""What the twenty programs share: a loop by hand, a run that is killed, and the count of their lines.

A program is a test whose docstring begins with its number, and what of its own module it names. Its lines are those of
code; those that end in the comment `glue` stand there only because an interface does not fit.
`python tests/programs.py` writes the table to its page.
"""

import ast
import dataclasses
import io
import re
import tokenize
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jaxmlp
from jaxmlp import loop, population

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "programs.md"


def close(one, other, rtol=1e-4, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def descended(objective, params, optimizer, steps):
    """Return the parameters after some steps of Optax down a function of them: the loop that everybody writes."""

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(objective)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(steps):
            params, state = step(params, state)
    return params


class Killed(Exception):
    pass


def kill_at(step):
    def kill(state, history):
        if np.max(state.step) >= step:
            raise Killed

    return kill


def check_everywhere(key, given, recipe, numbers, directory):
    """Train four epochs by `fit`, as a member, and by a loop that is killed after two and resumed: to the same bits."""
    recipe = dataclasses.replace(recipe, epochs=4)
    state, history = jaxmlp.fit(key, given, recipe, numbers)
    keys = jax.random.split(key, 2).at[1].set(key)
    plan = population.plan(keys, given, recipe, numbers, width=1, devices=1)
    states, curves = population.fit(keys, given, recipe, numbers, plan=plan)
    same(population.member(states, 1).params, state.params)
    same(curves["loss"][1], history["loss"])
    options = {"directory": directory, "every": 1, "progress": False}
    kill = kill_at(int(state.step) // 2)
    with pytest.raises(Killed):
        loop.train(key, given, recipe, numbers, callbacks=[kill], **options)
    resumed, curve = loop.resume(directory, given, recipe, progress=False)
    same(resumed.params, state.params)
    same(dict(curve), dict(history))


def lines_of(nodes, source):
    """Return how many lines of code the nodes have, without docstrings, comments and blank lines; and how much glue."""
    spoken = set()
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(part) is not None:
                spoken |= set(range(part.body[0].lineno, part.body[0].end_lineno + 1))
    places = {line for node in nodes for line in range(node.lineno, node.end_lineno + 1)} - spoken
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    code, glue = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            code |= set(range(token.start[0], token.end[0] + 1))
        elif token.type == tokenize.COMMENT and re.fullmatch(r"# glue\b.*", token.string):
            glue.add(token.start[0])
    return len(places & code), len(places & glue)


def named_in(node, defined):
    """Return the definitions of a module that one of them names, and those that these name."""
    found, new = {}, [node]
    while new:
        inner = new.pop()
        for part in ast.walk(inner):
            if isinstance(part, ast.Name) and part.id in defined and part.id not in found:
                found[part.id] = defined[part.id]
                new.append(defined[part.id])
    return [each for each in found.values() if each is not node]


def programs():
    """Yield (number, what it is, libraries, lines, lines of glue, module::test) for each program of the tests."""
    for path in sorted(TESTS.glob("test_programs*.py")):
        source = path.read_text()
        nodes = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        defined = {node.name: node for node in nodes if not node.name.startswith("test_")}
        for node in nodes:
            if found := re.match(r"(\d+)\. (.+)", ast.get_docstring(node) or ""):
                parts = [node, *named_in(node, defined)]
                libraries = {
                    call.args[0].value.split(".")[0]
                    for part in parts
                    for call in ast.walk(part)
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.importorskip"
                }
                lines, glue = lines_of(parts, source)
                yield int(found[1]), found[2].rstrip("."), sorted(libraries), lines, glue, f"{path.stem}::{node.name}"


def table():
    """Return the programs as a table of Markdown."""
    rows = ["| | program | with | lines | glue | test |", "|---|---|---|---|---|---|"]
    for number, what, libraries, lines, glue, test in sorted(programs(), key=lambda row: (row[0], row[5])):
        rows.append(f"| {number} | {what} | {', '.join(libraries)} | {lines} | {glue} | `{test}` |")
    return "\n".join(rows)


def written(page, table):
    """Return a page with the table in the place of its own."""
    return re.sub(r"\| \| program \|.*?(?=\n\n|\Z)", lambda _: table, page.rstrip(), flags=re.DOTALL) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), table()))
