"""Frames and cuts of rows, against the library that tokenises."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import tokenizers
from hypothesis import strategies
from tokenizers import processors

from kdjax.data.tasks.encoding import cut_pair, encode, frame
from kdjax.data.tasks.raw import RawRow, RawTask, RowSource
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from tests.support.corpora import make_tokenizer, texts

NAMED = {"[CLS]": 2, "[SEP]": 3}
LENGTHS = strategies.integers(0, 40)


@pytest.mark.parametrize(
    ("first", "second", "budget", "expected"),
    [
        (3, 4, 7, (3, 4)),
        # The longer one alone is cut.
        (2, 9, 7, (2, 5)),
        (9, 2, 7, (5, 2)),
        # Both are: the odd token is the longer one's, the second's where they are equal.
        (9, 8, 7, (4, 3)),
        (8, 9, 7, (3, 4)),
        (9, 9, 7, (3, 4)),
        (9, 9, 6, (3, 3)),
        (0, 9, 4, (0, 4)),
        (5, 5, 0, (0, 0)),
    ],
)
def test_longer_text_is_cut_first(
    first: int, second: int, budget: int, expected: tuple[int, int]
) -> None:
    assert cut_pair(first, second, budget) == expected


@hypothesis.given(LENGTHS, LENGTHS, LENGTHS)
def test_cut_pair_is_that_of_taking_tokens_from_the_longer_one_by_one(
    first: int, second: int, budget: int
) -> None:
    kept = [first, second]
    while sum(kept) > budget:
        # Of equals the one that was shorter gives, the first where they began alike.
        longer = first > second
        take_first = kept[0] > kept[1] or (kept[0] == kept[1] and not longer)
        kept[0 if take_first else 1] -= 1
    assert cut_pair(first, second, budget) == tuple(kept)


def test_frames_are_those_of_the_library(tmp_path: Path) -> None:
    path = make_tokenizer(tmp_path / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(path))
    library.no_padding()
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    ours = TextTokenizer.read(path)
    first = texts(60, seed=1, longest=12)
    second = texts(60, seed=2, longest=12)
    for length in (4, 9, 12, 64):
        library.enable_truncation(length, strategy="longest_first")
        pairs = list(zip(first, second, strict=True))
        ids = zip(ours.ids(first), ours.ids(second), strict=True)
        for (a, b), encoding in zip(ids, library.encode_batch(pairs), strict=True):
            framed, begin = frame(a, b, ours.framing, length)
            assert framed == encoding.ids
            types = [int(place >= begin) for place in range(len(framed))]
            assert types == encoding.type_ids
        for a, encoding in zip(ours.ids(first), library.encode_batch(first), strict=True):
            assert frame(a, None, ours.framing, length)[0] == encoding.ids


def test_pairs_have_types_and_rows_come_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdjax.data.tasks.encoding.CHUNK", 7)
    monkeypatch.setattr("kdjax.data.tasks.task.COPIED_ROWS", 7)
    tokenizer = TextTokenizer.read(make_tokenizer(tmp_path / "tokenizer.json"))
    rows = [
        RawRow(f"row {n}", (a, b), "xy"[n % 2])
        for n, (a, b) in enumerate(zip(texts(30, seed=3), texts(30, seed=4), strict=True))
    ]
    source = RowSource("dev", "t", "a.csv", lambda _: iter(rows))
    task = RawTask("t", ("x", "y"), ("accuracy",), True, (source,))
    encoded = encode(task, source, rows, tokenizer, 16)
    split = encoded.split
    assert split.labels.tolist() == [0, 1] * 15
    assert split.lengths.max() == 16
    for number, row in enumerate(rows):
        a, b = tokenizer.ids(row.texts)
        expected, begin = frame(a, b, tokenizer.framing, 16)
        batch = split.batch(np.array([number]), 20)
        assert batch["tokens"][0, : len(expected)].tolist() == expected
        assert batch["types"][0].tolist() == [
            int(begin <= place < len(expected)) for place in range(20)
        ]
    # Rows that are taken are these rows.
    taken = encoded.split.take(np.array([4, 29, 0]))
    assert taken.labels.tolist() == [0, 1, 0]
    for place, number in enumerate((4, 29, 0)):
        left, right = (
            part.batch(np.array([row]), 16) for part, row in ((taken, place), (split, number))
        )
        assert all(np.array_equal(left[name], right[name]) for name in left)
    assert len(encoded.split.take(np.array([], np.intp))) == 0


def test_unknown_is_counted_in_texts_without_their_frames(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.read(make_tokenizer(tmp_path / "tokenizer.json"))
    rows = [RawRow("row 0", ("w1 what w2", "w3 why"), "x")]
    source = RowSource("dev", "t", "a.csv", lambda _: iter(rows))
    task = RawTask("t", ("x", "y"), ("accuracy",), True, (source,))
    encoded = encode(task, source, rows, tokenizer, 16)
    assert (encoded.unknown, encoded.text_tokens) == (2, 5)
