"""Where text is, and which documents it holds."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.text import document, sources
from kdjax.text.document import Document, ReadSettings, split_fraction
from kdjax.text.reading_notes import ReadingNotes, layout_hints
from kdjax.text.records import NESTING
from kdjax.text.sources import (
    TextError,
    documents,
    documents_of,
    expand,
    locate,
)


def read(path: Path, *fields: str) -> list[Document]:
    return list(documents(str(path), fields or ("text", "extract")))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that must not be imported."""
    root = tmp_path / "site" / "carrier_of_text"
    (root / "data").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "data" / "a.txt").write_text("one")
    monkeypatch.syspath_prepend(root.parent)
    return root


def test_plain_path_is_itself_and_a_package_path_is_found_without_importing(
    package: Path,
) -> None:
    assert locate("some/file.txt") == Path("some/file.txt")
    assert locate("package:carrier_of_text/data/a.txt") == package / "data" / "a.txt"
    assert locate("package:carrier_of_text") == package
    assert read(Path("package:carrier_of_text/data/*.txt")) == [Document("one", "one")]
    assert "carrier_of_text" not in sys.modules


@pytest.mark.parametrize(
    "uri",
    [
        "package:carrier_of_text/../secret.txt",
        "package:carrier_of_text//etc/passwd",
        "package:../x",
    ],
)
def test_package_path_stays_inside_the_package(package: Path, uri: str) -> None:
    with pytest.raises(InputError, match=r"a path inside it, without '\.\.'"):
        locate(uri)


@pytest.mark.parametrize("name", ["no_such_package_here", "__main__"])
def test_missing_package_says_what_to_install(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is not installed.*requirements-data.txt"):
        locate(f"package:{name}/data/a.txt")


def test_text_documents_are_separated_by_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo \r\n\r\n \t\n\nthree\u2028four".encode())
    assert read(tmp_path / "a.txt") == [
        Document("one\ntwo", "one\ntwo"),
        Document("three\u2028four", "three\u2028four"),
    ]


def test_identity_is_the_key_else_id_else_title_else_the_text(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "title": "t", "text": "a"},
        {"title": "t", "text": "b"},
        {"id": None, "text": "c"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.json").write_text(json.dumps({"key": rows[0]}))
    expected = [Document("7", "a"), Document("t", "b"), Document("c", "c")]
    assert read(tmp_path / "a.jsonl") == expected
    assert read(tmp_path / "b.json") == expected
    assert read(tmp_path / "c.json") == [Document("key", "a")]


def test_first_text_field_present_is_read_and_only_whitespace_is_skipped(
    tmp_path: Path,
) -> None:
    rows = [{"extract": "e", "text": "t"}, {"extract": "f"}, {"text": " \n"}, {"text": "."}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [d.text for d in read(tmp_path / "a.jsonl")] == ["t", "f", "."]
    assert [d.text for d in read(tmp_path / "a.jsonl", "extract", "text")] == ["e", "f", "."]


def test_globs_are_sorted_and_no_file_is_read_twice(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/c.txt", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    paths = expand((f"{tmp_path}/b*.txt", f"{tmp_path}/**/*.txt"))
    assert [path.name for path in paths] == ["b.txt", "a.txt", "c.txt"]


def test_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("x")
    (tmp_path / "a1.txt").write_text("y")
    assert [d.text for d in read(tmp_path / "a[1].txt")] == ["x"]


def test_documents_before_a_malformed_line_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\nnot JSON\n')
    stream = documents(str(tmp_path / "a.jsonl"), "text")
    assert next(stream).text == "fine"
    with pytest.raises(TextError, match="line 2"):
        next(stream)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt: holds no documents"),
        ("a.txt", b" \n\n\t\n", "a.txt: holds no documents"),
        ("a.txt", b"abc\nd\xff", "a.txt: not UTF-8 at byte 5"),
        ("a.json", b'{"k": {"text": "\xe9"}}', "a.json: not UTF-8 at byte 16"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": }\n', "a.jsonl, line 3: malformed JSON"),
        ("a.jsonl", b'{"text": "x"}\n["x"]\n', "a.jsonl, line 2: is a list, expected a record"),
        (
            "a.jsonl",
            b'{"body": "x"}\n',
            "a.jsonl, line 1: has none of the text fields text, extract",
        ),
        ("a.jsonl", b'{"text": 5}\n', "a.jsonl, line 1: the field 'text' is a int"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "a.jsonl, line 1: has half a surrogate pair"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: JSON that is nested more deeply"),
        ("a.json", b'{"k":\n {"text": "x"}', "a.json, line 2: malformed JSON"),
        ("a.json", b'{"k": "x"}', "a.json, key 'k': is a str, expected a record"),
        ("a.json", b'[{"text": "x"}, 3]', "a.json, item 1: is a int, expected a record"),
        ("a.json", b"3", "a.json: holds a int, expected a list or a mapping"),
        ("a.json", b"{}", "a.json: holds no documents"),
        ("a.csv", b"text\nx\n", "a.csv: is a .csv, expected .txt"),
    ],
)
def test_unusable_text_is_refused_with_cause_and_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError) as e:
        read(tmp_path / name)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


ROWS = [
    {"text": "fine"},
    {"text": None},
    {"body": "x"},
    {"text": " \n"},
    {"text": 5},
    None,
    ["x"],
    {"text": "\ud800"},
    {"text": "x" * 50},
    {"extract": "too", "text": None},
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_unusable_records_are_left_out_and_counted_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(document, "DOCUMENT_BYTES", 40)
    text = json.dumps(ROWS) if name == "a.json" else "\n".join(map(json.dumps, ROWS))
    (tmp_path / name).write_text(text)
    notes = ReadingNotes()
    settings = ReadSettings(("text", "extract"), skip_unusable=True)
    read_texts = [d.text for d in sources.documents_of(tmp_path / name, settings, notes)]
    assert read_texts == ["fine", "too"]
    assert notes.unusable == {
        "null": 1,
        "absent": 1,
        "empty": 1,
        "not text": 1,
        "not a record": 2,
        "invalid Unicode": 1,
        "too long": 1,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": None}, "line 2: the text field 'text' is null, expected text"),
        ({"body": "x"}, "line 2: has none of the text fields text, extract; see data.text_field"),
        ({"text": 5}, "line 2: the field 'text' is a int, expected text"),
    ],
)
def test_null_and_absent_are_told_apart_and_the_remedy_is_named(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + json.dumps(row))
    with pytest.raises(TextError) as e:
        read(tmp_path / "a.jsonl")
    assert message in str(e.value)
    assert "data.unusable 'skip'" in str(e.value)


def test_file_of_unusable_records_alone_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"body": "x"}\n')
    settings = ReadSettings(("text",), skip_unusable=True)
    with pytest.raises(TextError, match=r"holds no documents \(2 records .*: 1 null, 1 absent\)"):
        list(sources.documents_of(tmp_path / "a.jsonl", settings, ReadingNotes()))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_long_numbers_of_json_are_read(tmp_path: Path, name: str) -> None:
    digits = "7" * 5000
    row = f'{{"text": "x", "id": {digits}}}'
    (tmp_path / name).write_text(f"[{row}]" if name == "a.json" else row)
    assert read(tmp_path / name) == [Document(digits, "x")]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_nesting_is_read_as_deep_as_promised(tmp_path: Path, name: str) -> None:
    # The record itself is one level, and the list of a .json file is read by kdjax.
    for depth, is_read in ((NESTING - 1, True), (100_000, False)):
        row = '{"text": "x", "deep": ' + "[" * depth + "]" * depth + "}"
        (tmp_path / name).write_text(f"[{row}]" if name == "a.json" else row)
        if is_read:
            assert read(tmp_path / name) == [Document("x", "x")]
            continue
        with pytest.raises(TextError, match=f"nested more deeply .* at most {NESTING} lists"):
            read(tmp_path / name)


def test_pattern_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"none\*\.txt: no file matches"):
        read(tmp_path / "none*.txt")
    with pytest.raises(TextError, match=r"no file matches \(a directory; its files would be"):
        read(tmp_path)
    with pytest.raises(TextError, match=r"data\.files is empty"):
        expand(())


def test_one_bad_file_among_good_ones_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(TextError, match=r"b\.txt: holds no documents"):
        read(tmp_path / "*.txt")


def test_split_fractions_are_uniform_and_never_change() -> None:
    fractions = np.array([split_fraction(f"title {n}") for n in range(20_000)])
    assert fractions.min() >= 0
    assert fractions.max() < 1
    counts, _ = np.histogram(fractions, bins=20, range=(0, 1))
    # Chi-squared, 19 degrees of freedom, p = 0.001
    assert np.sum((counts - 1000) ** 2 / 1000) < 43.8
    # B2sum -l 64
    assert split_fraction("Albert Einstein") == pytest.approx(0x6B578C2BE3732BCB / 2**64, abs=1e-15)


def test_babylm_files_are_text_under_the_layout_that_is_asked(tmp_path: Path) -> None:
    # A file of each kind of its corpus: utterances, and an encyclopedia with blank lines.
    (tmp_path / "bnc_spoken.train").write_text("Right .\nYes , I know .\n")
    (tmp_path / "simple_wiki.train").write_text("= = = April = = =\n\nA month .\nOf 30 days .\n")
    (tmp_path / "childes.dev").write_text("*MOT:\tlook .\n")
    (tmp_path / "childes.test").write_text("*CHI:\tno .\n")
    sources = expand(f"{tmp_path}/*.train")
    assert [source.name for source in sources] == ["bnc_spoken.train", "simple_wiki.train"]
    by_lines = ReadSettings(("text",), "lines")
    texts = [d.text for source in sources for d in documents_of(source, by_lines, ReadingNotes())]
    assert texts == [
        "Right .",
        "Yes , I know .",
        "= = = April = = =",
        "A month .",
        "Of 30 days .",
    ]
    assert [d.text for d in read(tmp_path / "childes.*")] == ["*MOT:\tlook .", "*CHI:\tno ."]


def test_babylm_file_without_blank_lines_is_said_and_the_remedy_named(tmp_path: Path) -> None:
    (tmp_path / "bnc_spoken.train.gz").write_bytes(gzip.compress(b"Right .\nYes .\n"))
    notes = ReadingNotes()
    source = expand(f"{tmp_path}/*.gz")[0]
    documents = list(documents_of(source, ReadSettings(("text",)), notes))
    assert len(documents) == 1
    assert "1 text file has several lines" in next(iter(layout_hints(notes.layouts)))
