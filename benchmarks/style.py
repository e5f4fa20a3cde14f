"""Count what makes Python code dense, package by package.

    python -m benchmarks.style                  # of kdjax, benchmarks and tests
    python -m benchmarks.style PATH ...         # of other files or directories
    python -m benchmarks.style --against TREE   # how they changed since another tree

Figures are per 1,000 code lines, but for comments, which are per 100. A code line is a line that is
neither blank nor a comment nor part of a docstring. Statements are counted in the syntax tree, so
that they do not depend on how lines are wrapped. With `--against` each figure is that of the other
tree, an arrow, and that of this one; a package that only one of them has shows a dash.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

COLUMNS = 100
HEADER = (
    "package",
    "code lines",
    "statements",
    "comments / 100",
    "parallel assignments",
    "unpacked generators",
    "nested comprehensions",
    "conditional expressions",
    "long lines",
)
ABSENT = "–"
PRAGMA = re.compile(r"#\s*(noqa(:|$)|type:\s*ignore|pragma:|fmt:|ruff:|mypy:)")
"""Beginning of a comment that a linter, a formatter, a type checker or a coverage tool reads."""
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Counts:
    """Counts over some files.

    Attributes:
        code: code lines.
        comments: lines that hold a comment, alone or behind code; what a comment tells a tool
            (`# noqa`, `# type: ignore`, `# pragma`) tells a reader nothing, and does not count.
        parallel_assignments: assignments of several values to several names, `a, b = x, y`.
        unpacked_generators: comprehensions and `map` unpacked into names, `a, b = map(f, pair)`.
        nested_comprehensions: comprehensions with more than one `for`, or within another.
        conditional_expressions: `x if condition else y`, and a dictionary that stands in for one:
            `{True: x, False: y}[condition]`, or a display whose `get` is called at once.
        long_lines: lines of more than 100 columns, docstrings included.
        statements: of the syntax tree, docstrings aside.
    """

    code: int = 0
    comments: int = 0
    parallel_assignments: int = 0
    unpacked_generators: int = 0
    nested_comprehensions: int = 0
    conditional_expressions: int = 0
    long_lines: int = 0
    statements: int = 0

    def __add__(self, other: Counts) -> Counts:
        sums = (getattr(self, f.name) + getattr(other, f.name) for f in fields(self))
        return Counts(*sums)


def docstrings(tree: ast.AST) -> Iterator[ast.Expr]:
    """Yield the statements that are strings alone: docstrings, of attributes too."""
    for node in ast.walk(tree):
        is_string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_string and isinstance(node.value.value, str):
            yield node


def is_parallel(node: ast.AST) -> bool:
    """Return whether a statement assigns several values to several names at once."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


def is_conditional(node: ast.AST) -> bool:
    """Return whether an expression chooses: by a condition, or by a dictionary written in place."""
    if isinstance(node, ast.IfExp):
        return True
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Dict)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "get" and isinstance(node.func.value, ast.Dict)
    return False


def is_pragma(comment: str) -> bool:
    """Return whether a comment speaks to a tool."""
    return PRAGMA.match(comment) is not None


def is_unpacked(node: ast.AST) -> bool:
    """Return whether a statement unpacks what a comprehension, `map` or `filter` makes."""
    if not isinstance(node, ast.Assign):
        return False
    is_generator = isinstance(node.value, COMPREHENSIONS)
    if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
        is_generator = node.value.func.id in ("map", "filter")
    return is_generator and any(isinstance(target, ast.Tuple | ast.List) for target in node.targets)


def nested_comprehensions(tree: ast.AST) -> int:
    """Count comprehensions with more than one `for`, and those within another."""
    count = 0
    for node in ast.walk(tree):
        if not isinstance(node, COMPREHENSIONS):
            continue
        inner = [child for child in ast.walk(node) if isinstance(child, COMPREHENSIONS)]
        count += len(node.generators) > 1
        count += len(inner) > 1
    return count


def count(source: str) -> Counts:
    """Count one file."""
    tree = ast.parse(source)
    lines = source.splitlines()

    # Lines of docstrings and of comments alone are no code.
    in_docstring: set[int] = set()
    for node in docstrings(tree):
        in_docstring.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    commented: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not is_pragma(token.string):
            commented.add(token.start[0])
    code = 0
    for number, line in enumerate(lines, start=1):
        alone = line.lstrip().startswith("#")
        code += bool(line.strip()) and not alone and number not in in_docstring

    nodes = list(ast.walk(tree))
    statements = sum(isinstance(node, ast.stmt) for node in nodes)
    return Counts(
        code=code,
        comments=len(commented),
        parallel_assignments=sum(map(is_parallel, nodes)),
        unpacked_generators=sum(map(is_unpacked, nodes)),
        nested_comprehensions=nested_comprehensions(tree),
        conditional_expressions=sum(map(is_conditional, nodes)),
        long_lines=sum(len(line) > COLUMNS for line in lines),
        statements=statements - sum(1 for _ in docstrings(tree)),
    )


def count_files(paths: Iterable[Path]) -> Counts:
    """Count several files together."""
    total = Counts()
    for path in paths:
        total += count(path.read_text(encoding="utf-8"))
    return total


def packages(path: Path, tree: Path) -> dict[str, list[Path]]:
    """Return the files of each package below a directory, by the package's path.

    Args:
        path: a directory, or a file that counts as a package; modules that lie in the directory
            itself are one package.
        tree: the directory that `path` is relative to.
    """
    root = tree / path
    if root.is_file():
        return {str(path): [root]}
    files: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.py")):
        # The directory directly below, or none: a package holds all that lies deeper.
        package = path.joinpath(*file.relative_to(root).parts[:-1][:1])
        files.setdefault(str(package), []).append(file)
    return files


def count_packages(path: Path, tree: Path) -> dict[str, Counts]:
    """Count each package below a directory, and all of them together."""
    counts = {}
    total = Counts()
    for name, files in packages(path, tree).items():
        counts[name] = count_files(files)
        total += counts[name]
    counts[f"**{path}, all**"] = total
    return counts


def figures(counts: Counts | None) -> list[str]:
    """Return a row's cells behind its name; dashes where nothing was counted."""
    if counts is None or not counts.code:
        return [ABSENT] * (len(HEADER) - 1)
    thousands = counts.code / 1000
    return [
        f"{counts.code:,}",
        f"{counts.statements:,}",
        f"{counts.comments / thousands / 10:.1f}",
        f"{counts.parallel_assignments / thousands:.1f}",
        f"{counts.unpacked_generators / thousands:.1f}",
        f"{counts.nested_comprehensions / thousands:.1f}",
        f"{counts.conditional_expressions / thousands:.1f}",
        f"{counts.long_lines / thousands:.1f}",
    ]


def row(cells: Iterable[str]) -> str:
    """Return a line of a Markdown table; `benchmarks.tables` needs a library, and this does not."""
    return f"| {' | '.join(cells)} |"


def table(paths: Iterable[Path], tree: Path, against: Path | None = None) -> str:
    """Return the table of all packages below some directories, each directory summed up.

    Args:
        paths: directories or files, relative to the tree.
        tree: the directory whose packages are counted.
        against: another tree of the same layout, whose figures stand before the arrows.
    """
    lines = [row(HEADER), "|" + "---|" * len(HEADER)]
    for path in paths:
        after = count_packages(path, tree)
        if against is None:
            lines += [row((name, *figures(counts))) for name, counts in after.items()]
            continue
        before = count_packages(path, against)
        # The sum has a name that sorts before all packages, and belongs below them.
        for name in sorted(before | after, key=lambda name: (name.startswith("*"), name)):
            pairs = zip(figures(before.get(name)), figures(after.get(name)), strict=True)
            lines.append(row((name, *(f"{old} → {new}" for old, new in pairs))))
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="default: kdjax, benchmarks, tests")
    parser.add_argument("--against", type=Path, metavar="TREE", help="root of the tree before")
    options = parser.parse_args()
    paths = options.paths or [Path("kdjax"), Path("benchmarks"), Path("tests")]
    trees = [Path()]
    if options.against is not None:
        trees.append(options.against)
    for path in paths:
        if not any((tree / path).exists() for tree in trees):
            parser.error(f"found no {path}, expected a file or directory")
    print(table(paths, Path(), options.against))


if __name__ == "__main__":
    main()
