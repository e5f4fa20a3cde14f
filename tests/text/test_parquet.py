"""Parquet rows are records, of which only the columns that matter are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdjax.text.document import Document
from kdjax.text.sources import TextError, documents

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(arrow.table(columns), path, **options)
    return path


def read(path: Path, *fields: str) -> list[Document]:
    return list(documents(str(path), fields or ("text", "extract")))


def test_rows_are_documents_in_their_order_over_many_row_groups(tmp_path: Path) -> None:
    texts = [f"text {n} é" for n in range(1000)]
    columns = {"text": texts, "id": list(range(1000)), "other": [{"deep": n} for n in range(1000)]}
    expected = [Document(str(n), text) for n, text in enumerate(texts)]
    assert read(write(tmp_path / "a.parquet", columns, row_group_size=130)) == expected
    assert (
        read(write(tmp_path / "b.parquet", columns, compression="zstd", use_dictionary=["text"]))
        == expected
    )


def test_first_field_with_a_text_is_read_and_white_space_is_skipped(tmp_path: Path) -> None:
    columns = {"extract": ["a", None, " "], "text": ["b", "c", None], "title": ["t", "u", "v"]}
    path = write(tmp_path / "a.parquet", columns)
    assert read(path) == [Document("t", "b"), Document("u", "c")]
    assert read(path, "extract", "text") == [Document("t", "a"), Document("u", "c")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"body": ["x"]},
            "a.parquet: has the columns body, expected the one data.text_field names",
        ),
        ({"text": [None]}, "a.parquet, row 0: the text field 'text' is null"),
        ({"text": ["x"] * 70 + [None]}, "a.parquet, row 70: the text field 'text' is null"),
        ({"text": [5]}, "a.parquet, row 0: the field 'text' is a int, expected text"),
        ({"text": arrow.array([], arrow.string())}, "a.parquet: holds no documents"),
    ],
)
def test_unusable_row_is_refused_with_cause_and_place(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(TextError) as e:
        read(write(tmp_path / "a.parquet", columns))
    assert message in str(e.value)


def test_parquet_damaged_or_not_utf8_is_refused_with_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["some text"] * 5000}, use_dictionary=False)
    whole = path.read_bytes()
    for data in (
        # Cut short, of another kind, empty, and with bytes overwritten.
        whole[: len(whole) // 2],
        b"no parquet",
        b"",
        whole[:30] + b"\xff" * 30 + whole[60:],
    ):
        path.write_bytes(data)
        with pytest.raises(
            TextError, match=r"a\.parquet: cannot be read \(.*expected a whole Parquet file"
        ):
            read(path)
    # A column that says it is text, and is not.
    raw = arrow.array([b"fine", b"d\xff"], arrow.binary()).view(arrow.string())
    with pytest.raises(TextError, match=r"a\.parquet: not UTF-8 about row 0"):
        read(write(path, {"text": raw}))


def test_parquet_whose_schema_is_not_utf8_is_refused_with_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["some text"], "naïve": ["x"]})
    path.write_bytes(path.read_bytes().replace("ï".encode(), b"\xc3\x28"))
    with pytest.raises(TextError, match=r"a\.parquet: "):
        read(path)
