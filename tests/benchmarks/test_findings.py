"""The findings say what the raw results say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import findings
from kdjax.results.store import read_results

DOCUMENT = findings.ROOT / "docs" / "findings.md"


@pytest.fixture(scope="module")
def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def test_document_has_every_table_as_the_results_give_it(text: str) -> None:
    tables = findings.tables()
    assert len(tables) == 7
    assert all(table in text for table in tables)


def test_sentences_give_the_levels_of_the_results(text: str) -> None:
    study = read_results(findings.HOUR / "1e12.json")
    losses = study.corpus.ngram_losses
    assert losses is not None
    levels = f"unigram {losses.unigram:.3f}, left neighbour alone {losses.left_neighbor:.3f}"
    words = " ".join(text.split())
    assert levels in words
    assert f"both neighbours {losses.both_neighbors:.3f}" in words
    assert f"the teachers reach {findings.teachers_mean(study):.3f} on average" in words


def test_verdict_on_the_second_arm_of_a_pair_is_turned_round() -> None:
    study = read_results(findings.HOUR / "3.2e12.json")
    pair = next(
        pair for pair in study.verdicts if pair.endpoint == "mlm_probe" and pair.b == "tinybert"
    )
    assert (pair.a, pair.verdict) == ("scratch", "BEATS")
    assert findings.against_scratch(study, "tinybert").startswith("LOSES, +0.155 [+0.098, ")


def test_picture_is_drawn(tmp_path: Path) -> None:
    findings.draw(findings.hour(), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
