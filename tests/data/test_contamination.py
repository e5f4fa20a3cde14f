"""Evaluation rows within other texts: as a plain search finds them, normalised, in flat memory."""

from __future__ import annotations

import random
import re
import tracemalloc
import unicodedata
from collections.abc import Iterator

import numpy as np
import pytest

from kdjax.data.contamination import index
from kdjax.data.contamination.check import Overlap, compare
from kdjax.data.contamination.hashing import RunHasher
from kdjax.data.contamination.index import GRAM, LEAST_WORDS, RowIndex
from kdjax.data.contamination.rows import RowGroup, Use, digest
from kdjax.data.contamination.words import words_of

THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"
EIGHT = "one two three four five six seven eight"


def is_found(row: str, *texts: str) -> bool:
    """Return whether a row of one text stands in texts."""
    return bool(RowIndex([(row,)]).search((text,) for text in texts)[0])


def plain_words(text: str) -> list[str]:
    """Find words by a regular expression: ASCII alone."""
    return re.findall("[a-z0-9]+", text.lower())


def plainly_found(row: str, texts: list[str]) -> bool:
    """Search for a row as the documentation says, run by run."""
    words = plain_words(row)
    letters = "".join(words)
    for text in texts:
        others = plain_words(text)
        if len(words) >= GRAM:
            grams = {tuple(others[n : n + GRAM]) for n in range(len(others) - GRAM + 1)}
            if any(tuple(words[n : n + GRAM]) in grams for n in range(len(words) - GRAM + 1)):
                return True
            continue
        # A shorter one: any run of whole words, or of whole sentences, with its letters.
        pieces = others
        if len(words) < LEAST_WORDS:
            sentences = re.split(r"\n|[.!?](?![a-z0-9])", text.lower())
            pieces = ["".join(plain_words(sentence)) for sentence in sentences]
        for first in range(len(pieces)):
            for behind in range(first + 1, len(pieces) + 1):
                if letters and "".join(pieces[first:behind]) == letters:
                    return True
    return False


def made_up(rng: random.Random, words: int) -> str:
    """Draw words of few letters with punctuation and capitals between them."""
    drawn = ["".join(rng.choices("abc", k=rng.randint(1, 3))) for _ in range(words)]
    return "".join(
        word + rng.choice([" ", " ", " ", ", ", ". ", "! ", "\n", "-"]) for word in drawn
    )


def test_rows_found_are_those_of_a_search_run_by_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # Batches of a few texts, so that rows and texts lie in several.
    monkeypatch.setattr(index, "BATCH", 300)
    rng = random.Random(0)
    texts = [made_up(rng, rng.randint(0, 60)) for _ in range(25)]
    rows = [made_up(rng, rng.randint(0, 25)) for _ in range(40)]
    # Rows that are cut out of texts, at words or amid them, in capitals.
    for _ in range(70):
        text = rng.choice(texts)
        start = rng.randrange(max(1, len(text)))
        rows.append(text[start : start + rng.randint(5, 120)].upper())
    expected = [plainly_found(row, texts) for row in rows]
    found = RowIndex((row,) for row in rows).search((text,) for text in texts)
    assert found.tolist() == expected
    assert 30 < sum(expected) < len(rows) - 30
    lengths = [len(plain_words(row)) for row, is_in in zip(rows, expected, strict=True) if is_in]
    assert min(lengths) < LEAST_WORDS
    assert any(LEAST_WORDS <= length < GRAM for length in lengths)
    assert max(lengths) >= GRAM


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (THIRTEEN, f"before {THIRTEEN.title()} after"),
        (THIRTEEN, THIRTEEN.replace(" ", "\t\n -- ")),
        (EIGHT, f"before, {EIGHT}: after"),
        ("Office fine.", "o\ufb03ce \ufb01ne"),
        ("stra\u00dfe offen", "STRASSE OFFEN"),
        ("caf\u00e9 noir", unicodedata.normalize("NFD", "caf\u00e9 noir")),
        ("\uff21\uff22\uff23 1", "abc \uff11"),
        ("it does n't work -lrb- at all -rrb- .", "It doesn\u2019t work (at all)."),
        ("\u6f22\u5b57\u306e\u6587\u7ae0", "\u6f22\u5b57\u306e\u6587\u7ae0\u3002"),
        ("\u0915\u0940 \u0916\u0947", "\u0915\u0940 \u0916\u0947\u0964"),
        ("two sentences. here", "Before. Two sentences. Here! After"),
        (EIGHT, EIGHT.replace("seven", "se\u00adven").replace("two", "t\u200bwo")),
        (EIGHT.replace("four", "fo\u2060ur\ufeff"), EIGHT),
        ("a soft film", "A so\u00adft film."),
    ],
)
def test_same_words_written_otherwise_are_found(row: str, text: str) -> None:
    assert is_found(row, text)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (THIRTEEN, THIRTEEN.replace("seven", "other")),
        (THIRTEEN, THIRTEEN.removesuffix(" thirteen")),
        (EIGHT, EIGHT.removesuffix(" eight")),
        (EIGHT, f"{EIGHT}s"),
        ("a good film", "it is a good film"),
        ("cafe noir", "caf\u00e9 noir"),
        ("", "."),
        (". !", ". !"),
    ],
)
def test_other_words_are_not_found(row: str, text: str) -> None:
    assert not is_found(row, text)


def test_run_over_the_end_of_a_text_is_not_found() -> None:
    assert not is_found(THIRTEEN, THIRTEEN[:30], THIRTEEN[30:])
    assert not is_found(EIGHT, EIGHT[:13], EIGHT[14:])
    assert not is_found("a good film", "a good", "film")


def test_pair_is_found_by_either_text() -> None:
    rows = [("nothing of it", THIRTEEN), (THIRTEEN, "nothing of it"), ("nothing", "of it")]
    found = RowIndex(rows).search([(f"x {THIRTEEN}",)])
    assert found.tolist() == [True, True, False]


def test_index_without_rows_finds_nothing() -> None:
    assert len(RowIndex([]).search([(THIRTEEN,)])) == 0


def test_hash_of_a_run_is_that_of_its_letters_wherever_it_stands() -> None:
    letters = np.frombuffer("xxabcabyyabc".encode("utf-32-le"), np.uint32)
    hasher = RunHasher()
    starts = np.array([2, 9, 5, 2, 0])
    ends = np.array([5, 12, 7, 4, 2])
    abc, again, ab, ab_again, xx = hasher.runs(hasher.sums(letters), starts, ends).tolist()
    assert abc == again
    assert ab == ab_again
    assert len({abc, ab, xx}) == 3


def test_hashes_of_different_runs_differ() -> None:
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 99, 20_000).astype(np.uint32)
    hasher = RunHasher()
    starts = np.arange(len(letters) - 40)
    hashes = hasher.runs(hasher.sums(letters), starts, starts + 40)
    runs = {letters[start : start + 40].tobytes() for start in starts}
    assert len(np.unique(hashes)) == len(runs)


def test_words_of_texts_have_their_places_and_sentences() -> None:
    words = words_of(["Ab c. 3.5 d", "", "e"])
    spans = zip(words.starts, words.ends, strict=True)
    found = ["".join(map(chr, words.letters[start:end])) for start, end in spans]
    assert found == ["ab", "c", "3", "5", "d", "e"]
    assert words.texts.tolist() == [0, 0, 0, 0, 0, 2]
    assert words.limits.tolist() == [6, 6, 6, 6, 6, 7]
    assert words.opens.tolist() == [True, False, True, False, False, True]
    assert words.closes.tolist() == [False, True, False, False, True, True]


def test_memory_of_a_search_is_the_same_for_text_four_times_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index, "BATCH", 2**14)
    rng = random.Random(0)
    document = made_up(rng, 400)
    rows = RowIndex([(THIRTEEN,), (EIGHT,)])

    def peak(documents: int) -> int:
        tracemalloc.start()
        rows.search((document,) for _ in range(documents))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(60)
    short = peak(60)
    assert peak(240) < 1.1 * short


def group(task: str, use: Use, *texts: str) -> RowGroup:
    """Return rows of one text each, whose places are their numbers."""

    def read() -> Iterator[tuple[str, tuple[str, ...]]]:
        for number, text in enumerate(texts):
            yield f"{task} {use} {number}", (text,)

    return RowGroup(task, task, use, read)


def sentences(*numbers: int) -> list[str]:
    """Return different sentences, the same for a number."""
    return [" ".join(f"word{number}x{n}" for n in range(15)) for number in numbers]


def test_training_rows_of_one_task_are_found_among_reported_rows_of_another() -> None:
    # As Rotten Tomatoes' training rows are among SST-2's dev rows, cut into words.
    movies = group("movies", "train", *sentences(*range(8)))
    other = group("movies", "reported", *sentences(100))
    cut = [text.upper().replace(" ", "  ,") for text in sentences(*range(4, 14))]
    sst2 = group("sst2", "reported", *cut)
    own = group("sst2", "train", *sentences(200, 201))
    overlaps = list(compare([movies, other, own, sst2], None))
    places = ("sst2 reported 0", "sst2 reported 1", "sst2 reported 2")
    assert overlaps == [Overlap("sst2", "sst2", "reported", "movies", 10, 4, places)]


def test_every_result_is_held_against_the_text_and_named_with_its_share() -> None:
    selection = group("a", "selection", *sentences(0, 1))
    reported = group("a", "reported", *sentences(2, 3, 4, 5))
    clean = group("b", "reported", *sentences(9))
    documents = [" ".join(sentences(20, 1)), sentences(3)[0]]
    overlaps = list(compare([selection, reported, clean], documents))
    assert [overlap.found for overlap in overlaps] == [1, 1, 0]
    assert [overlap.rows for overlap in overlaps] == [2, 4, 1]
    assert [overlap.share for overlap in overlaps] == [0.5, 0.25, 0]
    assert [overlap.examples for overlap in overlaps] == [
        ("a selection 1",),
        ("a reported 1",),
        (),
    ]


def test_rows_among_the_training_rows_of_their_own_task_are_found() -> None:
    train = group("a", "train", "One row.", "Another row!", "A third one")
    selection = group("a", "selection", "one  ROW", "a row of its own")
    reported = group("a", "reported", "another row", "third one", "so\u00adme other", ".")
    overlaps = list(compare([train, selection, reported], None))
    assert overlaps == [
        Overlap("a", "a", "selection", "a", 2, 1, ("a selection 0",)),
        Overlap("a", "a", "reported", "a", 4, 1, ("a reported 0",)),
    ]


def test_pair_is_found_in_its_own_task_where_both_texts_are_in_one_row() -> None:
    premise, hypothesis, other = sentences(0, 1, 2)

    def rows_of(use: Use, *rows: tuple[str, str]) -> RowGroup:
        return RowGroup("a", "a", use, lambda: [(use, row) for row in rows])

    train = rows_of("train", (premise, hypothesis), (other, other))
    assert not list(compare([train, rows_of("reported", (premise, other))], None))
    assert not list(compare([train, rows_of("reported", (hypothesis, premise))], None))
    (overlap,) = compare([train, rows_of("reported", (premise.upper(), hypothesis))], None)
    assert (overlap.found, overlap.trained) == (1, "a")


def test_row_without_letters_is_in_no_training_row() -> None:
    overlaps = compare([group("a", "train", "?", "."), group("a", "reported", "!", "...")], None)
    assert not list(overlaps)


def test_digest_of_rows_depends_on_texts_and_use() -> None:
    rows = group("a", "reported", "one", "two")
    assert digest([rows]) == digest([group("a", "reported", "one", "two")])
    others = [
        group("a", "selection", "one", "two"),
        group("b", "reported", "one", "two"),
        group("a", "reported", "one", "three"),
        group("a", "reported", "one two"),
    ]
    assert len({digest([rows]), *(digest([other]) for other in others)}) == 5
