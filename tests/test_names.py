"""Names of variables say what they hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdjax

ROOT = Path(kdjax.__file__).parent
FORBIDDEN = frozenset(
    {"asked", "ended", "found", "given", "held", "kept", "made", "one", "own", "taken", "told"}
)
"""Names that say how a value came about and not what it is."""


def variables(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the names and lines of local variables and of parameters.

    Fields of classes may have such names: beside their class they say what they hold, as `found`
    and `expected` of a finding do.
    """
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.id, part.lineno
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            # A function that is given what was found and what was expected may say so.
            if argument.arg != "found":
                yield argument.arg, argument.lineno


def test_no_variable_has_a_name_that_does_not_say_what_it_holds() -> None:
    unclear = set()
    count = 0
    for path in ROOT.rglob("*.py"):
        for name, line in variables(ast.parse(path.read_text(encoding="utf-8"))):
            count += 1
            if name in FORBIDDEN:
                unclear.add(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert count > 10_000
    assert sorted(unclear) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(made):\n    return made", {"made"}),
        ("def f():\n    for one in range(3):\n        print(one)", {"one"}),
        ("def f():\n    while held := read():\n        pass", {"held"}),
        ("class Finding:\n    found: str", set()),
        ("def f(found, expected):\n    return found == expected", set()),
    ],
)
def test_variables_are_found_wherever_they_get_their_value(code: str, expected: set[str]) -> None:
    assert {name for name, _ in variables(ast.parse(code))} & FORBIDDEN == expected
