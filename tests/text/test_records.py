"""A .json file is read piece by piece as the standard library reads it whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdjax.text import records
from kdjax.text.streams import TextError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=6)


def read(path: Path) -> list[tuple[str | None, dict[str, Any]]]:
    return [(record.key, record.fields) for record in records.records(path)]


@pytest.mark.parametrize("buffer", [1, 7, 64])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, indent=st.sampled_from([None, 1]), plain=st.booleans(), bom=st.booleans())
def test_every_file_is_read_as_if_whole_whatever_the_buffer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    buffer: int,
    rows: list[Any],
    indent: Any,
    plain: bool,
    bom: bool,
) -> None:
    monkeypatch.setattr(records, "BUFFER", buffer)
    path = tmp_path / "a.json"
    start = "\ufeff" if bom else ""
    path.write_text(
        start + json.dumps(rows, ensure_ascii=plain, indent=indent) + "\n", encoding="utf-8"
    )
    assert read(path) == [(None, row) for row in rows]
    mapping = {f"ключ {n}": row for n, row in enumerate(rows)}
    path.write_text(
        start + json.dumps(mapping, ensure_ascii=plain, indent=indent), encoding="utf-8"
    )
    assert read(path) == list(mapping.items())


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1},\n {"a": 1}\n',
        '[{"a": 1}\n {"a": 1}]',
        '[{"a": 1}]\n x',
        '{"k":\n\n {"a" 1}}',
        '{"k": {},\n j: {}}',
        '{"k"\n}',
        '{"k": {}\n',
        "",
        "[\n",
        '[{"a": "x\ny"}]',
        '["\\q"]',
        '[{"a": "' + "x" * 100 + '\n"}]',
    ],
)
@pytest.mark.parametrize("buffer", [1, 16, 2**20])
def test_what_is_malformed_is_found_where_the_standard_library_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, buffer: int
) -> None:
    monkeypatch.setattr(records, "BUFFER", buffer)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(TextError) as e:
        read(tmp_path / "a.json")
    line = expected.value.lineno
    column = expected.value.colno
    assert f"a.json, line {line}: malformed JSON, " in str(e.value)
    assert str(e.value).endswith(f" at column {column}")


@pytest.mark.parametrize("buffer", [1, 16, 2**20])
def test_trailing_comma_is_found_at_the_bracket_on_every_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer: int
) -> None:
    """The standard library finds it there before Python 3.13, and at the comma since."""
    monkeypatch.setattr(records, "BUFFER", buffer)
    (tmp_path / "a.json").write_text('[{"a": 1},\n ]')
    with pytest.raises(TextError, match=r"a\.json, line 2: malformed JSON, .* at column 2$"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("buffer", [1, 2**20])
def test_byte_that_is_not_utf8_is_counted_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer: int
) -> None:
    monkeypatch.setattr(records, "BUFFER", buffer)
    for data, byte in ((b'[{"a": "\xc3\xa9"}, {"b": "\xe9"}]', 21), (b'[{"a": 1}] \xc3', 11)):
        (tmp_path / "a.json").write_bytes(data)
        with pytest.raises(TextError, match=f"not UTF-8 at byte {byte} "):
            read(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_record_with_a_field_twice_is_refused(tmp_path: Path, name: str) -> None:
    record = '{"text": "one", "text": "two"}\n'
    path = tmp_path / name
    path.write_text(record if name == "a.jsonl" else f"[{record}]", encoding="utf-8")
    with pytest.raises(TextError, match=r"a\.json.*'text' twice in one object"):
        list(records.records(path))
