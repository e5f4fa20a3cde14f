"""Documents with one text are in one split, or all but the first are left out."""

from __future__ import annotations

import random
from itertools import product

import pytest

from kdjax.text import repeats
from kdjax.text.document import Document
from kdjax.text.repeats import Fingerprint, RepeatFinder


@pytest.mark.parametrize("deduplicate", [False, True])
def test_placement_is_that_of_a_plain_dictionary_however_little_is_recent(
    monkeypatch: pytest.MonkeyPatch, deduplicate: bool
) -> None:
    monkeypatch.setattr(repeats, "RECENT", 8)
    rng = random.Random(0)
    finder = RepeatFinder(deduplicate=deduplicate)
    first: dict[str, bool] = {}
    moved = 0
    repeated = 0
    for number in range(2000):
        document = Document(f"document {number}", f"text {rng.randrange(600)}")
        own = document.is_held_out(0.3)
        expected: bool | None = first.setdefault(document.text, own)
        if len(first) + repeated <= number:
            repeated += 1
            moved += expected != own
            if deduplicate:
                expected = None
        assert finder.place(Fingerprint.from_document(document, 0.3)) is expected
    assert finder.repeated == repeated > 1000
    assert finder.removed == (repeated if deduplicate else 0)
    assert finder.moved == (0 if deduplicate else moved)


def test_distinct_texts_stay_where_their_identity_says() -> None:
    documents = [Document(f"id {number}", f"text {number}") for number in range(500)]
    placed = list(RepeatFinder(deduplicate=False).split(documents, 0.2))
    assert [d.text for d in placed] == [d.text for d in documents]
    assert [d.held_out for d in placed] == [d.is_held_out(0.2) for d in documents]


def test_same_texts_under_different_ids_are_in_no_two_splits() -> None:
    pairs = product(range(3), range(200))
    documents = [Document(f"{copy} {number}", f"text {number}") for copy, number in pairs]
    split: dict[bool, set[str]] = {False: set(), True: set()}
    for document in RepeatFinder(deduplicate=False).split(documents, 0.2):
        split[document.held_out].add(document.text)
    assert split[True]
    assert not split[True] & split[False]


@pytest.mark.parametrize("share", [2, 10])
def test_frequent_identity_is_counted_among_very_many(share: int) -> None:
    finder = RepeatFinder(deduplicate=False)
    documents = 20_000
    for number in range(documents):
        identity = "Untitled" if number % share == 0 else f"title {number}"
        finder.place(Fingerprint.from_document(Document(identity, f"text {number}"), 0.1))
    error = documents / (repeats.CANDIDATES + 1)
    assert documents / share - error <= finder.same_identity <= documents / share


def test_text_without_identity_counts_for_no_identity() -> None:
    finder = RepeatFinder(deduplicate=False)
    for _ in range(20):
        finder.place(Fingerprint.from_document(Document("text", "text"), 0.1))
    assert (finder.same_identity, finder.repeated) == (0, 19)
