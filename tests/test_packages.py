"""Imports between the packages of kdjax go one way: from a package to those below it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdjax

ROOT = Path(kdjax.__file__).parent
FLOORS = (
    "__main__",
    "api",
    "cli",
    "doctor",
    "rehearsal",
    "audit",
    "plan",
    "tuning",
    "sweep",
    "study",
    "dry_run",
    "forecast",
    "report",
    "results",
    "arms",
    "evaluation",
    "training",
    "data",
    "hlo",
    "objectives",
    "progress",
    "budget",
    "parallel",
    "models",
    "tokenizers",
    "text",
    "recipes",
    "config",
    "storage",
    "runtime",
    "errors",
)
"""Packages and single modules of kdjax, from the top to the bottom. `docs/architecture.md` says
what each is for."""


def floor_of(module: str) -> int:
    return FLOORS.index(module.split(".")[1])


def is_module(name: str) -> bool:
    path = ROOT.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the modules of kdjax that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("kdjax."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kdjax":
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                if is_module(member):
                    yield member
                elif node.module != "kdjax":
                    yield str(node.module)


def test_every_package_has_its_floor() -> None:
    there = {
        path.stem
        for path in ROOT.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("package", FLOORS)
def test_package_imports_only_what_is_below_it(package: str) -> None:
    single = ROOT / f"{package}.py"
    paths = [single] if single.exists() else sorted((ROOT / package).rglob("*.py"))
    for path in paths:
        for module in imported_modules(path):
            inside = module.split(".")[1] == package
            assert inside or floor_of(module) > FLOORS.index(package), (
                f"{path.relative_to(ROOT)} imports {module}"
            )


def test_modules_import_one_another_in_no_circle() -> None:
    graph = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(("kdjax", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        graph[name] = path
    imports = {}
    for name, path in graph.items():
        imports[name] = [module for module in imported_modules(path) if module in graph]
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name in finished:
            return
        for module in imports[name]:
            if module != name:
                visit(module, (*above, name))
        finished.add(name)

    for name in graph:
        visit(name, ())


def test_readme_lists_packages_in_the_order_of_their_floors() -> None:
    readme = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    listed = readme.split("\nkdjax/ ")[1].split("\nexamples/ ")[0]
    names = re.findall(r"(?<=\s)(\w+)(?:/|\.py)(?=\s)", listed)
    assert len(names) > 1
    assert names == [name for name in FLOORS if name in names]


def test_readme_and_the_picture_name_each_package() -> None:
    repository = ROOT.parent
    readme = (repository / "README.md").read_text(encoding="utf-8")
    section = readme.split("## What is where")[1].split("##")[0]
    picture = (repository / "docs" / "images" / "packages.svg").read_text(encoding="utf-8")
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {name for name in packages if f"{name}/" in section} == packages
    assert {name for name in packages if f">{name}</text>" in picture} == packages
