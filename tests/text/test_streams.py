"""Compressed files are read as what they hold; damaged ones and endless lines are one line of
complaint."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.text import document, records, streams
from kdjax.text.document import Document
from kdjax.text.sources import documents, expand
from kdjax.text.streams import TextError

TEXT = b"one\ntwo\n\nthree\n"
EXPECTED = [Document("one\ntwo", "one\ntwo"), Document("three", "three")]
ROWS = b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n'


def zst(data: bytes) -> bytes:
    """Compress with a checksum, as the command line tool does."""
    zstd = pytest.importorskip(streams.ZSTANDARD)
    compressed: bytes = zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})
    return compressed


compressions = pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zst)],
)


@compressions
def test_compressed_file_is_the_text_it_holds(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / f"a.txt{suffix}").write_bytes(compress(TEXT))
    (tmp_path / f"b.1.jsonl{suffix}").write_bytes(compress(ROWS))
    (tmp_path / f"c.json{suffix}").write_bytes(compress(b'{"key": {"text": "c"}}'))
    rest = [Document("1", "a"), Document("2", "b"), Document("key", "c")]
    assert list(documents(f"{tmp_path}/*{suffix}", "text")) == EXPECTED + rest


@compressions
def test_suffixes_count_in_upper_case(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / f"A.TXT{suffix.upper()}").write_bytes(compress(TEXT))
    (tmp_path / "B.JSONL").write_bytes(ROWS)
    assert list(documents(f"{tmp_path}/A*", "text")) == EXPECTED
    assert [document.text for document in documents(f"{tmp_path}/B.JSONL", "text")] == ["a", "b"]


def test_xz_archive_that_asks_for_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "XZ_BYTES", 2**20)
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(TEXT))
    with pytest.raises(TextError, match=r"a\.txt\.xz: damaged \(Memory usage limit"):
        list(documents(str(tmp_path / "a.txt.xz"), "text"))


def test_line_ends_at_newline_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a\u2028b\x85c\x0bd\re\r\r\nf\n\ng\r".encode())
    read = [line for _, line in streams.lines(tmp_path / "a.txt")]
    assert read == ["a\u2028b\x85c\x0bd\re\r", "f", "", "g\r"]


@compressions
def test_several_members_are_one_text(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / f"a.txt{suffix}").write_bytes(
        compress(TEXT[:6]) + compress(b"") + compress(TEXT[6:])
    )
    assert list(documents(f"{tmp_path}/a.txt{suffix}", "text")) == EXPECTED


@compressions
def test_damaged_archive_is_refused_with_its_place(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    whole = compress("".join(f"document {n}\n\n" for n in range(5000)).encode())
    path = tmp_path / f"a.txt{suffix}"
    for data, message in (
        (whole[: len(whole) // 2], f"a.txt{suffix}: ends early, expected a whole {suffix} archive"),
        (whole[:60] + b"\xff" * 9 + whole[69:], f"a.txt{suffix}: damaged "),
        (b"plain text", f"a.txt{suffix}: damaged "),
        (whole + b"more", f"a.txt{suffix}: damaged "),
    ):
        path.write_bytes(data)
        with pytest.raises(TextError) as e:
            list(documents(str(path), "text"))
        assert str(e.value).startswith(f"{tmp_path}/{message}")
        assert "\n" not in str(e.value)


@compressions
def test_endless_line_is_refused_before_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(streams, "LINE_BYTES", 2**10)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(ROWS + b" " * 2**20))
    stream = documents(f"{tmp_path}/a.jsonl{suffix}", "text")
    assert [next(stream).text, next(stream).text] == ["a", "b"]
    with pytest.raises(TextError, match=r"line 3: is longer than 0\.000976562 MiB"):
        next(stream)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_document_that_is_too_long_says_where_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(document, "DOCUMENT_BYTES", 40)
    content = {
        "a.txt": "short\n\n" + "naïve lines\n" * 4,
        "a.jsonl": '{"text": "short"}\n{"text": "' + "é" * 21 + '"}\n',
        "a.json": '[{"text": "short"}, {"text": "' + "é" * 21 + '"}]',
    }[name]
    (tmp_path / name).write_text(content)
    stream = documents(str(tmp_path / name), "text")
    assert next(stream).text == "short"
    where = {"a.txt": "line 3", "a.jsonl": "line 2", "a.json": "item 1"}[name]
    with pytest.raises(TextError, match=f"{name}, {where}: here begins a document of more than"):
        next(stream)


def test_record_that_is_too_long_is_refused_before_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LINE_BYTES", 2**8)
    monkeypatch.setattr(records, "BUFFER", 2**6)
    (tmp_path / "a.json").write_text('[{"text": "fine"},\n{"text": "' + "x" * 2**12 + '"}]')
    stream = documents(str(tmp_path / "a.json"), "text")
    assert next(stream).text == "fine"
    with pytest.raises(
        TextError, match=r"a\.json, line 2: malformed JSON, .* or a record is longer than"
    ):
        next(stream)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("a.txt.zst", streams.ZSTANDARD, "zstd"), ("a.parquet", "pyarrow.parquet", "parquet")],
)
def test_missing_library_is_named_with_its_extra_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        InputError, match=rf"{name}: needs {module} .*: pip install 'kdjax\[{extra}\]'"
    ) as e:
        expand(str(tmp_path / name))
    assert not isinstance(e.value, TextError)
