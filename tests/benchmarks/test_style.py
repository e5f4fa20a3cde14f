"""The style figures count what they say, in one tree and in two."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import style

pytestmark = pytest.mark.system

SOURCE = '''"""A module's docstring is no code,
however long."""

# A comment alone is no code either.
first, second = 1, 2
swapped = second, first
pairs = [(a, b) for a in range(2) for b in range(2)]
rows = [[a for a in range(2)] for _ in range(2)]
plain = [a for a in range(2)]
one, two = (a + 1 for a in range(2))
larger = first if first > second else second  # a comment behind code


def double(x):
    """Return twice x."""
    return 2 * x
'''
COUNTS = style.Counts(
    code=9,
    comments=2,
    parallel_assignments=1,
    unpacked_generators=1,
    nested_comprehensions=2,
    conditional_expressions=1,
    long_lines=0,
    statements=9,
)


def write(tree: Path, name: str, source: str) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")


def rows(table: str) -> dict[str, list[str]]:
    """Return the cells of each row behind its name."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {name: cells for name, *cells in lines}


def test_count_of_a_file_is_that_by_hand() -> None:
    assert style.count(SOURCE) == COUNTS


def test_count_does_not_depend_on_how_lines_are_wrapped() -> None:
    wrapped = SOURCE.replace("range(2) for b", "range(2)\n    for b")
    assert style.count(wrapped) == style.Counts(**{**vars(COUNTS), "code": COUNTS.code + 1})


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("a, b = (x for x in y)", 1),
        ("[a, b] = [x for x in y]", 1),
        ("(a,) = map(f, y)", 1),
        ("a, b = y", 0),
        ("a = [x for x in y]", 0),
        ("a, b = f(x for x in y)", 0),
    ],
)
def test_unpacked_generator_counts_whatever_makes_it(statement: str, expected: int) -> None:
    assert style.count(f"{statement}\n").unpacked_generators == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("x if y else z", 1),
        ("{True: x, False: z}[y]", 1),
        ("{'y': x}.get(y, z)", 1),
        ("table[y]", 0),
        ("table.get(y, z)", 0),
        ("{'y': x}.items()", 0),
    ],
)
def test_dictionary_in_place_of_a_condition_counts_as_one(expression: str, expected: int) -> None:
    assert style.count(f"chosen = {expression}\n").conditional_expressions == expected


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# noqa: E501", 0),
        ("#type: ignore[attr-defined]", 0),
        ("# pragma: no cover", 0),
        ("# fmt: off", 0),
        ("# noqa is not for this", 1),
        ("# a type that is ignored", 1),
    ],
)
def test_comment_for_a_tool_counts_as_none(comment: str, expected: int) -> None:
    assert style.count(f"x = 1  {comment}\n").comments == expected


def test_long_line_counts_in_a_docstring_too() -> None:
    assert style.count(f'"""{"x" * 98}"""\n').long_lines == 1
    assert style.count(f'"""{"x" * 94}"""\n').long_lines == 0


def test_table_has_a_row_for_each_package_and_their_sum(tmp_path: Path) -> None:
    write(tmp_path, "code/top.py", SOURCE)
    write(tmp_path, "code/inner/deep/file.py", SOURCE)
    counted = rows(style.table([Path("code")], tmp_path))
    assert counted.keys() == {"code", "code/inner", "**code, all**"}
    assert counted["code"] == ["9", "9", "22.2", "111.1", "111.1", "222.2", "111.1", "0.0"]
    assert counted["code/inner"] == counted["code"]
    assert counted["**code, all**"] == ["18", "18", *counted["code"][2:]]


def test_table_against_another_tree_shows_both_and_dashes_for_packages_of_one(
    tmp_path: Path,
) -> None:
    before = tmp_path / "before"
    write(before, "code/kept/file.py", SOURCE)
    write(before, "code/former/file.py", "x = 1\n")
    after = tmp_path / "after"
    write(after, "code/kept/file.py", "x = 1\ny = 2\n")
    write(after, "code/new/file.py", "x = 1\n")
    counted = rows(style.table([Path("code")], after, before))
    assert list(counted) == ["code/former", "code/kept", "code/new", "**code, all**"]
    assert counted["code/kept"][:3] == ["9 → 2", "9 → 2", "22.2 → 0.0"]
    assert counted["code/former"][0] == "1 → –"
    assert counted["code/new"][1] == "– → 1"
    assert counted["**code, all**"][1] == "10 → 3"


def test_path_that_no_tree_has_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["style", "absent", "--against", str(tmp_path)])
    with pytest.raises(SystemExit):
        style.main()
    assert "found no absent, expected a file or directory" in capsys.readouterr().err
