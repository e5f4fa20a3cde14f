"""Blocks are bounded by documents and by bytes, and depend on the text alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdjax.config import DataConfig
from kdjax.data.manifest import Manifest
from kdjax.data.prepare import blocks
from kdjax.data.prepare.local import prepare
from tests.support.corpora import make_corpus


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 12), max_size=40), most=st.integers(1, 6))
def test_blocks_hold_as_much_as_they_may_and_no_more(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], most: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 10)
    cut_blocks = list(blocks.cut(sizes, int, most))
    # No document is lost, and their order stays.
    assert list(itertools.chain.from_iterable(cut_blocks)) == sizes
    for block, following in itertools.pairwise([*cut_blocks, []]):
        assert len(block) == 1 or (len(block) <= most and sum(block) <= 10)
        # A block ends only where the next document would not fit.
        assert not following or len(block) == most or sum(block) + following[0] > 10


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    files = str(make_corpus(tmp_path / "text.jsonl", 240))
    return DataConfig(
        files=files, seq_len=24, max_predictions=4, validation=0.2, shard_documents=64, workers=1
    )


def test_long_documents_make_more_shards_of_the_same_documents(
    tmp_path: Path, config: DataConfig, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(config, tokenizer, tmp_path / "whole")
    assert len(whole.shards) == 8  # the texts are well below the bound
    # Less than the documents of a block take together.
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2000)
    split = prepare(config, tokenizer, tmp_path / "split")
    assert len(split.shards) > 16
    assert (split.documents, split.text_tokens) == (whole.documents, whole.text_tokens)
    assert split.digest != whole.digest


def test_part_prepared_from_other_documents_is_made_again(
    tmp_path: Path, config: DataConfig, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupted preparation's blocks were cut elsewhere."""
    out = tmp_path / "out"
    expected = prepare(config, tokenizer, tmp_path / "expected")
    with monkeypatch.context() as patched:
        patched.setattr(blocks, "BLOCK_BYTES", 2000)
        prepare(config, tokenizer, out)
    # Without a manifest it looks like an interrupted preparation.
    (out / "manifest.json").unlink()
    assert prepare(replace(config, workers=2), tokenizer, out) == expected == Manifest.read(out)
