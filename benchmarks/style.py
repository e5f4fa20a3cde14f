"""Count what makes Python code dense, package by package.

    python -m benchmarks.style              # of kdjax, benchmarks and tests
    python -m benchmarks.style PATH ...     # of other files or directories

Figures are per 1,000 code lines, but for comments, which are per 100. A code line is a line that is
neither blank nor a comment nor part of a docstring. Statements are counted in the syntax tree, so
that they do not depend on how lines are wrapped.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

COLUMNS = 100
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Counts:
    """What was counted in some files.

    Attributes:
        code: code lines.
        comments: lines that hold a comment, alone or behind code.
        parallel_assignments: assignments of several values to several names, `a, b = x, y`.
        nested_comprehensions: comprehensions with more than one `for`, or within another.
        conditional_expressions: `x if condition else y`.
        long_lines: lines of more than 100 columns, docstrings included.
        statements: of the syntax tree, docstrings aside.
    """

    code: int = 0
    comments: int = 0
    parallel_assignments: int = 0
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
        if token.type == tokenize.COMMENT:
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
        nested_comprehensions=nested_comprehensions(tree),
        conditional_expressions=sum(isinstance(node, ast.IfExp) for node in nodes),
        long_lines=sum(len(line) > COLUMNS for line in lines),
        statements=statements - sum(1 for _ in docstrings(tree)),
    )


def count_files(paths: Iterable[Path]) -> Counts:
    """Count several files together."""
    total = Counts()
    for path in paths:
        total += count(path.read_text(encoding="utf-8"))
    return total


def packages(root: Path) -> dict[str, list[Path]]:
    """Return the files of each package below a directory, and of its single modules."""
    if root.is_file():
        return {root.name: [root]}
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        name = root.name if len(parts) == 1 else f"{root.name}/{parts[0]}"
        found.setdefault(name, []).append(path)
    return found


def row(name: str, counts: Counts) -> str:
    """Return a line of the table."""
    thousands = max(counts.code, 1) / 1000
    figures = [
        f"{counts.code:,}",
        f"{counts.statements:,}",
        f"{counts.comments / thousands / 10:.1f}",
        f"{counts.parallel_assignments / thousands:.1f}",
        f"{counts.nested_comprehensions / thousands:.1f}",
        f"{counts.conditional_expressions / thousands:.1f}",
        f"{counts.long_lines / thousands:.1f}",
    ]
    return f"| {name} | {' | '.join(figures)} |"


def table(roots: Iterable[Path]) -> str:
    """Return the table of all packages below some directories, each directory summed up."""
    lines = [
        "| package | code lines | statements | comments / 100 | parallel assignments "
        "| nested comprehensions | conditional expressions | long lines |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for root in roots:
        total = Counts()
        for name, paths in packages(root).items():
            counts = count_files(paths)
            total += counts
            lines.append(row(name, counts))
        lines.append(row(f"**{root.name}, all**", total))
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="default: kdjax, benchmarks, tests")
    options = parser.parse_args()
    print(table(options.paths or [Path("kdjax"), Path("benchmarks"), Path("tests")]))


if __name__ == "__main__":
    main()
