"""Docstrings and documents name what there is: modules and their members, attributes of classes."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import kdjax

PACKAGE = Path(kdjax.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAME = re.compile(r"(?<![\w/.-])kdjax(?:\.[A-Za-z_]\w*)+")
"""A dotted name of the package; not part of a path or an address."""
PATH = re.compile(r"`((?:benchmarks|configs|docs|examples|kdjax|tests|tpu_scripts)/[\w./-]+)`")
"""A path in the repository, as documents write it."""


def module_of(path: Path) -> str:
    """Return the dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def prose(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module, those of its variables and fields included, and its
    comments."""
    source = path.read_text(encoding="utf-8")
    yield from re.findall(r"# .*", source)
    for node in ast.walk(ast.parse(source)):
        is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_constant and isinstance(node.value.value, str):
            yield node.value.value


def exists(name: str) -> bool:
    """Return whether a dotted name is a module, a member of one, or an attribute of a member."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            member = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return has_attributes(member, parts[end:]) and is_at_home(member, parts[end:])
    return False


def is_at_home(module: ModuleType, names: list[str]) -> bool:
    """Return whether a member is a module's own; a package has those that it hands on."""
    if not names or hasattr(module, "__path__"):
        return True
    home = getattr(getattr(module, names[0]), "__module__", module.__name__)
    return bool(home == module.__name__ or not home.startswith("kdjax."))


def has_attributes(member: object, names: list[str]) -> bool:
    """Return whether attributes of attributes exist; a field without a default is one of a
    class."""
    for name in names:
        if name in getattr(member, "__annotations__", {}):
            return True
        if not hasattr(member, name):
            return False
        member = getattr(member, name)
    return True


def documented_attributes(docstring: str) -> list[str]:
    """Return the names under `Attributes:` of a class's docstring."""
    _, _, section = docstring.partition("\nAttributes:\n")
    names: list[str] = []
    for line in section.splitlines():
        # The section ends where the indentation does.
        if line and not line.startswith(" "):
            break
        entry = re.match(r"    ([a-z_]\w*(?:, [a-z_]\w*)*):", line)
        if entry:
            names += entry[1].split(", ")
    return names


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the names of a class's fields and properties, and of what its methods set of it."""
    names: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign | ast.Assign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names.update(ast.unparse(target) for target in targets)
        elif isinstance(statement, ast.FunctionDef):
            if statement.decorator_list:
                names.add(statement.name)
            for part in ast.walk(statement):
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
                    names.add(ast.unparse(part).removeprefix("self."))
    return names


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield all classes of the package with the names of their modules."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield module_of(path), node


def test_names_in_docstrings_and_comments_exist() -> None:
    missing = []
    found = 0
    for path in MODULES:
        for text in prose(path):
            for name in NAME.findall(text):
                found += 1
                if not exists(name):
                    missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert found > 0
    assert missing == []


def test_names_in_documents_exist() -> None:
    missing = []
    found = 0
    for path in PAGES:
        for name in NAME.findall(path.read_text(encoding="utf-8")):
            found += 1
            if not exists(name):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert found > 0
    assert missing == []


def test_paths_in_documents_exist() -> None:
    missing = []
    found = 0
    for page in PAGES:
        for path in PATH.findall(page.read_text(encoding="utf-8")):
            found += 1
            # A name in capitals stands for any.
            if not (ROOT / path).exists() and "NAME" not in path:
                missing.append(f"{page.relative_to(ROOT)}: {path}")
    assert found > 0
    assert missing == []


def test_documented_attributes_are_those_of_the_class() -> None:
    by_name = {node.name: node for _, node in classes()}
    missing = []
    found = 0
    for module, node in classes():
        names = attributes(node)
        # What it has from classes of the package, and what they have from others.
        bases = list(node.bases)
        while bases:
            base = bases.pop()
            parent = by_name.get(base.id) if isinstance(base, ast.Name) else None
            if parent is not None:
                names |= attributes(parent)
                bases += parent.bases
        for name in documented_attributes(ast.get_docstring(node) or ""):
            found += 1
            if name not in names:
                missing.append(f"{module}.{node.name}: {name}")
    assert found > 0
    assert missing == []


@pytest.mark.parametrize(
    "name",
    [
        "kdjax.nothing",
        "kdjax.errors.Nothing",
        "kdjax.config.Config.nothing",
        "kdjax.api.InputError",
    ],
)
def test_name_that_is_not_there_is_found_out(name: str) -> None:
    assert not exists(name)
    assert exists("kdjax.config.Config.student")


def test_attributes_are_read_as_they_are_documented() -> None:
    docstring = "A class.\n\nAttributes:\n    a, b: two.\n    c: one that\n        goes on: here.\n"
    assert documented_attributes(docstring) == ["a", "b", "c"]
    assert documented_attributes("A class.\n\nArgs:\n    a: no attribute.\n") == []
