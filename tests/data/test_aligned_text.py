"""Documents as two tokenizers have them: pieces, rows, records, and batches of a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kdjax.config import DataConfig, MaskingConfig
from kdjax.data.corpus import Corpus
from kdjax.data.masking import MaskSettings
from kdjax.data.prepare import local
from kdjax.data.prepare.aligned_text import (
    AlignedFormat,
    align_documents,
    cut_words,
    pack_aligned,
    segments_of_words,
)
from kdjax.data.prepare.packing import RecordFormat
from kdjax.errors import InputError
from kdjax.tokenizers.special_tokens import SpecialTokens
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from tests.data.test_aligned_words import read
from tests.support.corpora import (
    PIECES,
    SPECIAL,
    make_corpus,
    make_pieces_tokenizer,
    make_tokenizer,
    texts,
)


@pytest.mark.parametrize(
    ("sizes", "teacher_sizes", "cuts"),
    [
        ([1, 1, 1], [1, 1, 1], [(0, 3)]),
        ([2, 2, 2], [1, 1, 1], [(0, 2), (2, 3)]),
        # The teacher's side is full first.
        ([1, 1, 1], [3, 3, 3], [(0, 2), (2, 3)]),
        # The second word is larger than a row of the student, the last one than the teacher's.
        ([1, 5, 1, 1], [1, 1, 1, 7], [(0, 1), (2, 3)]),
        ([5], [1], []),
    ],
)
def test_words_are_cut_where_either_side_is_full(
    sizes: list[int], teacher_sizes: list[int], cuts: list[tuple[int, int]]
) -> None:
    assert cut_words(sizes, teacher_sizes, 4, 6) == cuts


def test_rows_of_both_models_fit_and_their_records_read_back(tmp_path: Path) -> None:
    student = read("unigram", tmp_path)
    teacher = read("bpe", tmp_path)
    documents = ["the dog walked, walking über 日本語 cafe " * 3, "😀 don't", "", "3.14" * 9]
    formats = (
        RecordFormat.smallest(16, student.vocab_size),
        RecordFormat.smallest(20, teacher.vocab_size),
    )
    aligned = align_documents(documents, student, teacher, *formats)
    rows = pack_aligned(aligned.pieces, 16, 20)
    assert sum(len(row) for row in rows) == len(aligned.pieces)
    assert aligned.words == sum(int(piece.begins.sum()) for piece in aligned.pieces)
    # All tokens are there but those of words that are longer than a row: none here.
    assert aligned.left_out == 0
    texts_by_side = ((student, "tokens"), (teacher, "teacher_tokens"))
    for tokenizer, name in texts_by_side:
        ids = np.concatenate([getattr(piece, name) for piece in aligned.pieces])
        assert ids.tolist() == [number for ids in tokenizer.ids(documents) for number in ids]

    special = SpecialTokens(pad=0, unknown=1, start=2, end=3, mask=4)
    other = SpecialTokens(pad=9, unknown=8, start=7, end=6, mask=5)
    both = AlignedFormat(*formats)
    read_back = both.decode(list(both.encode(rows, special, other)))
    segments = segments_of_words(read_back.words, read_back.segments)
    for n, row in enumerate(rows):
        tokens = np.concatenate([[2, *piece.tokens, 3] for piece in row])
        teacher_tokens = np.concatenate([[7, *piece.teacher_tokens, 6] for piece in row])
        assert read_back.tokens[n, : len(tokens)].tolist() == tokens.tolist()
        assert (
            read_back.teacher_tokens[n, : len(teacher_tokens)].tolist() == teacher_tokens.tolist()
        )
        # Words by a plain count: a frame is a word at either end of its piece.
        words: list[int] = []
        teacher_words: list[int] = []
        word_segments: list[int] = []
        for segment, piece in enumerate(row, start=1):
            first = len(word_segments) + 1
            inside = int(piece.begins.sum())
            words += [first, *(first + np.cumsum(piece.begins)).tolist(), first + inside + 1]
            theirs = (first + np.cumsum(piece.teacher_begins)).tolist()
            teacher_words += [first, *theirs, first + inside + 1]
            word_segments += [segment] * (inside + 2)
        padding = [0] * (16 - len(words))
        assert read_back.words[n].tolist() == words + padding
        assert read_back.teacher_words[n].tolist() == teacher_words + [0] * (
            20 - len(teacher_words)
        )
        assert segments[n].tolist() == word_segments + [0] * (16 - len(word_segments))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataConfig]:
    """Prepare a corpus of whole words for a teacher that splits them."""
    directory = tmp_path_factory.mktemp("aligned")
    tokenizer = make_tokenizer(directory / "student" / "tokenizer.json")
    config = DataConfig(
        files=str(make_corpus(directory / "text.jsonl", 60)),
        tokenizer=str(tokenizer),
        teacher_tokenizer=str(make_pieces_tokenizer(directory / "teacher" / "tokenizer.json")),
        teacher_seq_len=20,
        seq_len=12,
        masking=MaskingConfig(unit="word"),
        validation=0.2,
        workers=1,
    )
    local.prepare(config, tokenizer, directory / "corpus")
    return directory, config


def test_batch_has_the_same_text_and_the_same_hidden_words_for_both_models(
    prepared: tuple[Path, DataConfig],
) -> None:
    directory, config = prepared
    corpus = Corpus.open(directory / "corpus")
    student = TextTokenizer.read(directory / "student" / "tokenizer.json")
    teacher = TextTokenizer.read(directory / "teacher" / "tokenizer.json")
    sequences = np.arange(corpus.sequences("train"))
    batch = corpus.batch(
        "train",
        sequences,
        sequences * 0,
        seed=1,
        mask_settings=MaskSettings(0.3, 4, config.masking),
    )
    tokens, _ = corpus.read("train", sequences)
    entries = {index: f"w{index - len(SPECIAL)}" for index in range(len(SPECIAL), 53)}
    pieces = [entry.removeprefix("##") for entry in PIECES]
    frame = {student.special.start, student.special.end}
    for row in range(len(sequences)):
        for word in range(1, batch["words"][row].max() + 1):
            (places,) = np.nonzero(batch["words"][row] == word)
            (theirs,) = np.nonzero(batch["teacher.words"][row] == word)
            assert len(places) == 1
            assert batch["word_segments"][row, word - 1] == batch["segments"][row, places[0]]
            assert set(batch["teacher.segments"][row, theirs]) == set(
                batch["segments"][row, places]
            )
            token = tokens[row, places[0]]
            seen = batch["teacher.tokens"][row, theirs]
            if token in frame:
                assert len(theirs) == 1
                assert (token, seen[0]) in {
                    (student.special.start, teacher.special.start),
                    (student.special.end, teacher.special.end),
                }
            elif batch["tokens"][row, places[0]] != token:
                assert set(seen) == {teacher.special.mask}
            else:
                assert "".join(pieces[index] for index in seen) == entries[token]
    # Something was hidden, and something drawn at random.
    assert (batch["teacher.tokens"] == teacher.special.mask).any()
    assert np.array_equal(batch["teacher.positions"][:, :2], np.tile([0, 1], (len(sequences), 1)))


def test_manifest_counts_the_teachers_tokens_and_words(prepared: tuple[Path, DataConfig]) -> None:
    directory, config = prepared
    manifest = Corpus.open(directory / "corpus").manifest
    assert manifest.teacher is not None
    teacher = TextTokenizer.read(directory / "teacher" / "tokenizer.json")
    counts = [len(ids) for ids in teacher.ids(texts(60))]
    assert sum(manifest.teacher.text_tokens.values()) == sum(counts)
    assert manifest.teacher.words == manifest.text_tokens
    assert manifest.teacher.left_out == {"train": 0, "validation": 0}
    assert manifest.teacher.warnings() == []
    # Found again; another tokenizer of the teacher, or none, is another corpus.
    tokenizer = Path(str(config.tokenizer))
    assert local.prepare(config, tokenizer, directory / "corpus") == manifest
    plain = DataConfig(
        files=config.files, tokenizer=str(tokenizer), seq_len=12, validation=0.2, workers=1
    )
    with pytest.raises(
        InputError, match=r"prepared with data\.teacher_tokenizer \{.*expected None"
    ):
        local.prepare(plain, tokenizer, directory / "corpus")
    # Read as it was written
    written = json.loads((directory / "corpus" / "manifest.json").read_text(encoding="utf-8"))
    assert written["teacher"]["length"] == 20


def test_words_longer_than_a_row_are_left_out_and_warned_of(
    prepared: tuple[Path, DataConfig], tmp_path: Path
) -> None:
    directory, _ = prepared
    student = TextTokenizer.read(directory / "student" / "tokenizer.json")
    teacher = TextTokenizer.read(directory / "teacher" / "tokenizer.json")
    formats = (RecordFormat.smallest(8, 53), RecordFormat.smallest(8, 53))
    # A word of seven tokens is one of eight with a frame too many.
    aligned = align_documents(["w1 w123456 w2", "w123456"], student, teacher, *formats)
    assert (aligned.words, aligned.left_out) == (2, 2)
    assert [len(piece.teacher_tokens) for piece in aligned.pieces] == [2, 2]
