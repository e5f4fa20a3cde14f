"""Opening a prepared corpus: damage is named, and what a budget lacks is counted."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.data.corpus import Corpus
from kdjax.data.loader import Batches
from kdjax.data.masking import MaskSettings
from kdjax.errors import InputError


@pytest.fixture
def copy(corpus: Corpus, tmp_path: Path) -> Path:
    shutil.copytree(corpus.directory, tmp_path / "copy")
    return tmp_path / "copy"


def test_truncated_or_missing_shard_is_named(corpus: Corpus, copy: Path) -> None:
    shard = copy / corpus.manifest.shards[1].file
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(
        InputError, match=rf"{shard.name}: has {len(data) - 100} bytes, expected {len(data)}"
    ):
        Corpus.open(copy)
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: has 0 bytes"):
        Corpus.open(copy)
    # The right size, and no ArrayRecord file.
    shard.write_bytes(bytes(len(data)))
    with pytest.raises(InputError, match=rf"{shard.name}: damaged"):
        Corpus.open(copy)


@pytest.mark.parametrize("which", [0, -1])
def test_flipped_bit_is_found_by_verifying_and_by_reading(
    corpus: Corpus, copy: Path, which: int
) -> None:
    Corpus.open(copy).verify()
    shards = [shard for shard in corpus.manifest.shards if shard.split == "train"]
    assert len(shards) > 1
    # A sequence of the first shard, or of the last.
    number = 3 if which == 0 else corpus.sequences("train") - 1
    tokens, segments = corpus.read("train", np.array([number]))
    record = tokens.astype("<u2").tobytes() + segments.astype("u1").tobytes()
    shard = copy / shards[which].file
    data = bytearray(shard.read_bytes())
    place = data.find(record)
    assert place > 0
    # One bit of one record.
    data[place] ^= 1
    shard.write_bytes(data)
    opened = Corpus.open(copy)
    with pytest.raises(InputError, match=rf"{shard.name}: other bytes than those prepared"):
        opened.verify()
    with pytest.raises(InputError, match=rf"{shard.name}: damaged"):
        opened.read("train", np.array([0, number]))
    with pytest.raises(InputError, match=rf"{shard.name}: damaged"):
        stream = Batches(opened, batch_size=7, seed=0, mask_settings=MaskSettings(0.15, 4)).iterate(
            0
        )
        # An epoch reads every sequence, also the damaged one.
        list(itertools.islice(stream, opened.sequences("train") // 7 + 1))


def test_directory_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        Corpus.open(tmp_path / "nowhere")


def test_tokens_of_a_split_are_those_that_are_not_padding(corpus: Corpus) -> None:
    for split in ("train", "validation"):
        _, segments = corpus.read(split, np.arange(corpus.sequences(split)))
        assert 0 < corpus.tokens(split) == np.count_nonzero(segments) < segments.size


@given(sequences=st.integers(1, 10**12), mean=st.integers(3, 512), more=st.integers(0, 10**12))
def test_missing_tokens_are_those_of_the_missing_sequences(
    sequences: int, mean: int, more: int
) -> None:
    manifest = _Counts({"train": sequences}, {"train": mean * sequences})
    counted = Corpus(Path(), manifest, {})
    assert counted.missing_tokens(sequences + more) == mean * more
    assert counted.missing_tokens(1) == 0


def test_part_of_a_missing_token_counts_as_one() -> None:
    manifest = _Counts({"train": 3}, {"train": 10})
    counted = Corpus(Path(), manifest, {})
    assert [counted.missing_tokens(needed) for needed in (0, 3, 4, 5, 6)] == [0, 0, 4, 7, 10]


@dataclasses.dataclass(frozen=True)
class _Counts:
    """The two counts of a manifest that the estimate needs."""

    sequences: dict[str, int]
    tokens: dict[str, int]
