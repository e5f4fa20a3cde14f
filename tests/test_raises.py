"""Public functions say which of kdjax's errors they raise."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import kdjax
from kdjax import errors

ROOT = Path(kdjax.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")}


def error_names() -> set[str]:
    """Return the names of `kdjax.errors`, of errors made of them, and of what returns one."""
    names = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and names & {ast.unparse(b) for b in node.bases}:
                names.add(node.name)
    for tree in TREES.values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or node.returns is None:
                continue
            if ast.unparse(node.returns) in names:
                names.add(node.name)
    return names


def public_functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """Yield public functions, and public methods that have a docstring of their own."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef):
            # An override says what it raises where it is declared.
            has_docstring = ast.get_docstring(node) is not None
            if has_docstring and not node.name.startswith("_"):
                yield node


def raised_names(function: ast.FunctionDef) -> Iterator[str]:
    """Yield what a function raises in its own statements, not in functions within it."""
    nodes: list[ast.AST] = list(function.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield ast.unparse(node.exc.func).rpartition(".")[2]
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)


def test_public_functions_that_raise_a_named_error_say_so() -> None:
    named = error_names()
    silent = []
    raising = 0
    for path, tree in TREES.items():
        for function in public_functions(tree.body):
            if not named & set(raised_names(function)):
                continue
            raising += 1
            if "raise" not in (ast.get_docstring(function) or "").lower():
                silent.append(f"{path.relative_to(ROOT)}: {function.name}")
    assert raising > 100
    assert silent == []
