"""What a corpus's text is like is counted, said, and refused where nothing can be learned of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kdjax.config import DataConfig
from kdjax.data.manifest import Manifest
from kdjax.data.prepare import local
from kdjax.data.prepare.blocks import read_block
from kdjax.data.text_figures import TextFigures, check_unknown, unknown_warning
from kdjax.errors import InputError
from kdjax.study.artifacts.corpus import manifest_warnings
from kdjax.text.streams import TextError
from tests.data.directories import contents
from tests.support.corpora import WORDS, make_corpus

AMHARIC = ("ሰላም", "ዓለም", "ቋንቋ", "ጽሑፍ", "መጽሐፍ")

Prepare = Callable[[DataConfig, Path, Path], Manifest]


def beam_prepare(config: DataConfig, tokenizer: Path, out: Path) -> Manifest:
    """Prepare by Beam; its import takes seconds."""
    pytest.importorskip("apache_beam")
    from kdjax.data.prepare import beam

    return beam.prepare(config, tokenizer, out)


def write(path: Path, rows: list[dict[str, object]]) -> DataConfig:
    """Write records and return the settings that prepare them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataConfig(files=str(path), seq_len=24, max_predictions=4, validation=0.2, workers=1)


def texts_of(known: int, unknown: int, documents: int = 200) -> list[str]:
    """Return different texts with so many known and unknown words each."""
    texts = []
    for number in range(documents):
        words = [WORDS[(number * 7 + n * (1 + number // 48)) % 48] for n in range(known)]
        words += [AMHARIC[(number + n) % 5] + "ን" * (number // 5) for n in range(unknown)]
        texts.append(" ".join(words))
    return texts


def rows_of(texts: list[str]) -> list[dict[str, object]]:
    return [{"id": f"document {n}", "text": text} for n, text in enumerate(texts)]


def test_words_characters_and_unknown_tokens_are_counted(tmp_path: Path, tokenizer: Path) -> None:
    texts = texts_of(9, 1)
    manifest = local.prepare(
        write(tmp_path / "a.jsonl", rows_of(texts)), tokenizer, tmp_path / "out"
    )
    assert manifest.text is not None
    assert sum(manifest.text.words.values()) == sum(len(text.split()) for text in texts)
    assert sum(manifest.text.characters.values()) == sum(map(len, texts))
    assert sum(manifest.text.unknown.values()) == len(texts)
    assert manifest.unknown == {"train": 0.1, "validation": 0.1}
    assert manifest.text.rates(manifest.text_tokens)[0] == 1.0
    assert Manifest.read(tmp_path / "out") == manifest


@pytest.mark.parametrize("prepare", [local.prepare, beam_prepare])
@pytest.mark.parametrize(("known", "share"), [(0, "100.0%"), (1, "90.0%")])
def test_text_of_unknown_tokens_is_refused_and_leaves_nothing(
    tmp_path: Path, tokenizer: Path, prepare: Prepare, known: int, share: str
) -> None:
    config = write(tmp_path / "a.jsonl", rows_of(texts_of(known, 10 - known)))
    with pytest.raises(TextError, match=f"a.jsonl: {share} of the .* expected at most 50%") as e:
        prepare(config, tokenizer, tmp_path / "out")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


def test_bounds_of_unknown_tokens() -> None:
    check_unknown({"train": 0.5, "validation": 0.0}, "text")
    with pytest.raises(TextError, match=r"51\.0% of the held-out tokens are \[UNK\]"):
        check_unknown({"train": 0.5, "validation": 0.51}, "text")
    assert unknown_warning({"train": 0.019}) == ""
    assert unknown_warning({"train": 0.02}).startswith("2.0% of the training tokens are [UNK]")
    assert unknown_warning({}) == ""


def test_manifest_of_an_earlier_version_is_read_and_its_digest_is_the_same(
    tmp_path: Path, tokenizer: Path
) -> None:
    config = write(tmp_path / "a.jsonl", rows_of(texts_of(9, 0)))
    manifest = local.prepare(config, tokenizer, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    values = json.loads(path.read_text())
    del values["text"]
    path.write_text(json.dumps(values))
    earlier = Manifest.read(tmp_path / "out")
    assert earlier == replace(manifest, text=None)
    assert earlier.unknown == {}
    # The same command finds the corpus done.
    assert local.prepare(config, tokenizer, tmp_path / "out") == earlier


def test_block_of_an_earlier_version_is_made_again(tmp_path: Path, tokenizer: Path) -> None:
    out = tmp_path / "out"
    config = write(tmp_path / "a.jsonl", rows_of(texts_of(9, 0)))
    manifest = local.prepare(config, tokenizer, out)
    before = contents(out)
    (out / "manifest.json").unlink()
    path = out / "shards" / "part-00000.json"
    values = json.loads(path.read_text())
    for name in ("words", "characters", "unknown"):
        del values[name]
    path.write_text(json.dumps(values))
    assert read_block(out, 0) is not None
    assert local.prepare(config, tokenizer, out) == manifest
    assert contents(out) == before


@pytest.mark.parametrize("settings", [{}, {"deduplicate": True}, {"unusable": "skip"}])
def test_beam_counts_and_places_as_one_machine_does(
    tmp_path: Path, tokenizer: Path, settings: dict[str, object]
) -> None:
    texts = texts_of(5, 1, documents=60)
    rows: list[dict[str, object]] = []
    for number, text in enumerate([*texts, *texts[:30], *texts]):
        rows.append({"title": "one" if number % 2 else f"title {number}", "text": text})
    if settings.get("unusable"):
        rows += [{"text": None}, {"body": "x"}]
    # Texts repeat within a source and across sources.
    (tmp_path / "text").mkdir()
    write(tmp_path / "text" / "0.jsonl", rows[:70])
    write(tmp_path / "text" / "1.jsonl", rows[70:])
    config = DataConfig(
        files=f"{tmp_path}/text/*.jsonl",
        seq_len=24,
        max_predictions=4,
        validation=0.3,
        shard_documents=25,
        workers=1,
    )
    config = replace(config, **settings)
    alone = local.prepare(config, tokenizer, tmp_path / "alone")
    assert alone.text is not None
    assert alone.text.repeated == 90
    assert alone.text.removed == (90 if settings.get("deduplicate") else 0)
    assert alone.text.same_identity > 50
    assert sum(alone.documents.values()) == 150 - alone.text.removed
    assert alone.text.unusable == ({"absent": 1, "null": 1} if settings.get("unusable") else {})
    assert beam_prepare(config, tokenizer, tmp_path / "beam") == alone
    assert contents(tmp_path / "beam") == contents(tmp_path / "alone")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"deduplicate": True}, "data.deduplicate False, expected True"),
        ({"unusable": "skip"}, "data.unusable refuse, expected skip"),
        ({"documents": "lines"}, "data.documents paragraphs, expected lines"),
    ],
)
def test_directory_of_other_settings_is_refused_either_way(
    tmp_path: Path, tokenizer: Path, changed: dict[str, object], message: str
) -> None:
    config = write(tmp_path / "a.jsonl", rows_of(texts_of(9, 0)))
    local.prepare(config, tokenizer, tmp_path / "out")
    with pytest.raises(InputError, match=message):
        local.prepare(replace(config, **changed), tokenizer, tmp_path / "out")
    # And a corpus with the setting is none without it.
    local.prepare(replace(config, **changed), tokenizer, tmp_path / "other")
    with pytest.raises(InputError, match=r"was prepared with data\."):
        local.prepare(config, tokenizer, tmp_path / "other")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("\n".join(texts_of(5, 0)), "data.documents 'lines' makes each line one"),
        ("\r".join(texts_of(5, 0)), "line ends of old Macs"),
    ],
)
def test_single_document_of_many_lines_is_refused_with_the_remedy(
    tmp_path: Path, tokenizer: Path, content: str, hint: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content.encode())
    config = write(tmp_path / "b.jsonl", [])
    config = replace(config, files=str(tmp_path / "a.txt"))
    with pytest.raises(TextError, match=re.escape(hint)):
        local.prepare(config, tokenizer, tmp_path / "out")


def test_one_title_for_all_is_said_where_it_empties_a_split(
    tmp_path: Path, tokenizer: Path
) -> None:
    rows: list[dict[str, object]] = [{"title": "-", "text": text} for text in texts_of(9, 0)]
    config = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(TextError, match="200 of 200 documents have the same key, id or title"):
        local.prepare(config, tokenizer, tmp_path / "out")


def figures(**counts: object) -> TextFigures:
    """Return the figures of a text that nothing is wrong with, but for these counts."""
    clean = TextFigures({}, {}, {}, {}, {}, repeated=0, moved=0, removed=0, same_identity=0)
    return replace(clean, **counts)


@pytest.mark.parametrize(
    ("counts", "warning"),
    [
        ({}, None),
        ({"unusable": {"null": 2, "empty": 1}}, "3 records .* left out: 1 empty, 2 null"),
        ({"repeated": 9}, None),
        ({"repeated": 10}, "^10 documents repeat the text of an earlier one, .* that one; data"),
        ({"repeated": 10, "moved": 4}, "10 documents repeat .* that one, 4 of them although"),
        ({"repeated": 1, "removed": 1}, "documents left out, .* text: 1"),
        ({"same_identity": 99}, None),
        ({"same_identity": 500}, "at least 500 of 1,000 documents have the same key, id or title"),
        ({"layouts": {"no blank line": 3}}, "3 text files have several lines and no blank line"),
    ],
)
def test_what_is_doubtful_is_said_in_a_line(counts: dict[str, object], warning: str | None) -> None:
    said = list(figures(**counts).warnings(1000 - int(str(counts.get("removed", 0)))))
    assert len(said) == (warning is not None)
    assert warning is None or re.search(warning, said[0])


def test_valid_text_has_no_warnings(tmp_path: Path, tokenizer: Path) -> None:
    config = DataConfig(
        files=str(make_corpus(tmp_path / "a.jsonl")), seq_len=24, max_predictions=4, workers=1
    )
    manifest = local.prepare(config, tokenizer, tmp_path / "out")
    assert manifest.text is not None
    assert not list(manifest.text.warnings(200))
    assert "deduplicate" not in manifest.settings


def test_shards_that_a_corpus_lacks_are_said(tmp_path: Path, tokenizer: Path) -> None:
    settings = write(tmp_path / "a-00001-of-00002.jsonl", rows_of(texts_of(9, 0)))
    manifest = local.prepare(settings, tokenizer, tmp_path / "out")
    (warning,) = manifest_warnings(manifest)
    assert "a-…-of-00002.jsonl: 1 of 2 files are read, without 00000 for instance" in warning
