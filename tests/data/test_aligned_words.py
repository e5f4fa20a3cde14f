"""The words that two tokenizers share, on hard text, against a search over all pairs of
boundaries."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from kdjax.data.aligned_words import align, hide_words
from kdjax.tokenizers.text_tokenizer import TextTokenizer, TokenSpans
from tests.golden import record_token_kinds, record_tokens

TEXTS = (
    *record_tokens.TEXTS,
    "ﬁne eﬃcient ½ ① Å",
    "क्षि नमस्ते กำ ที่ ญี่ปุ่น",
    "walking, walked;  \u3000the\u3000dog",
    "🏴\u200d☠️e\u0301\u0323x",
)
"""Those whose ids are recorded, and ligatures, signs of several characters that a normalization
parts or joins, wide white space, and marks in another order than their normal one."""


def read(name: str, directory: Path) -> TextTokenizer:
    path = directory / name / "tokenizer.json"
    path.parent.mkdir()
    if name in record_tokens.NORMALIZERS:
        record_tokens.write_tokenizer(path, name)
    else:
        record_token_kinds.KINDS[name]().save(str(path))
    return TextTokenizer.read(path)


def spans(*places: tuple[int, int]) -> TokenSpans:
    starts = [start for start, _ in places]
    ends = [end for _, end in places]
    return TokenSpans([7] * len(places), [0] * len(places), starts, ends)


def gaps(tokens: TokenSpans) -> list[tuple[int, int, int]]:
    """Tokens before each place where tokens are parted, and the stretch of text it lies in."""
    places = []
    for n in range(1, len(tokens.ids)):
        low = max(tokens.ends[:n])
        high = min(tokens.starts[n:])
        if low <= high:
            places.append((n, low, high))
    return places


def most_words(student: TokenSpans, teacher: TokenSpans) -> int:
    """The most words that any choice of common boundaries makes, by the table of all pairs."""
    ours = gaps(student)
    theirs = gaps(teacher)
    best = np.zeros((len(ours) + 1, len(theirs) + 1), int)
    for i, j in itertools.product(range(len(ours)), range(len(theirs))):
        meets = ours[i][1] <= theirs[j][2] and theirs[j][1] <= ours[i][2]
        best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], best[i, j] + meets)
    return int(best[-1, -1]) + 1


def test_words_on_hard_text_are_whole_common_and_as_many_as_can_be(tmp_path: Path) -> None:
    names = ("uncased", "cased", "bpe", "roberta", "unigram")
    split = {name: list(read(name, tmp_path).spans(TEXTS)) for name in names}
    for one, other in itertools.product(names, names):
        for student, teacher in zip(split[one], split[other], strict=True):
            words = align(student, teacher)
            if not student.ids or not teacher.ids:
                assert len(words.student) == len(words.teacher) == 0
                continue
            # Each token is of one word, and each word has tokens of both.
            for numbers, tokens in ((words.student, student), (words.teacher, teacher)):
                assert len(numbers) == len(tokens.ids)
                assert numbers[0] == 0
                assert set(np.diff(numbers)) <= {0, 1}
            assert words.student[-1] == words.teacher[-1]
            # At either end of a word both are parted, in stretches that meet.
            student_gaps = {n: (low, high) for n, low, high in gaps(student)}
            teacher_gaps = {n: (low, high) for n, low, high in gaps(teacher)}
            for word in range(1, words.student[-1] + 1):
                low, high = student_gaps[int(np.searchsorted(words.student, word))]
                other_low, other_high = teacher_gaps[int(np.searchsorted(words.teacher, word))]
                assert max(low, other_low) <= min(high, other_high)
            assert words.student[-1] + 1 == most_words(student, teacher)


@pytest.mark.parametrize(
    ("student", "teacher", "student_words", "teacher_words"),
    [
        # "dog walks": dog / walk / s by one, do / g / walks by the other
        (((0, 3), (4, 8), (8, 9)), ((0, 2), (2, 3), (3, 9)), [0, 1, 1], [0, 0, 1]),
        # An emoji's four bytes and the letter behind it
        (((0, 1), (1, 2)), ((0, 1), (0, 1), (0, 1), (0, 1), (1, 2)), [0, 1], [0, 0, 0, 0, 1]),
        # White space: of no token, of a token of its own, of the token behind it
        (((0, 1), (5, 6)), ((0, 1), (1, 4), (4, 6)), [0, 1], [0, 1, 1]),
        # Two boundaries of one meet a single one of the other, which counts once.
        (((0, 1), (1, 2), (2, 3)), ((0, 1), (2, 3)), [0, 1, 1], [0, 1]),
        # No boundary in common
        (((0, 2), (2, 4)), ((0, 1), (1, 3), (3, 4)), [0, 0], [0, 0, 0]),
        # Marks that a normalization has put into another order
        (((0, 1), (2, 3), (1, 2), (3, 4)), ((0, 3), (3, 4)), [0, 0, 0, 1], [0, 1]),
        (((0, 1),), (), [], []),
    ],
)
def test_aligned_words_of_made_up_places_equal_those_by_hand(
    student: tuple[tuple[int, int], ...],
    teacher: tuple[tuple[int, int], ...],
    student_words: list[int],
    teacher_words: list[int],
) -> None:
    words = align(spans(*student), spans(*teacher))
    assert words.student.tolist() == student_words
    assert words.teacher.tolist() == teacher_words
    swapped = align(spans(*teacher), spans(*student))
    assert swapped.student.tolist() == teacher_words


def test_normalization_that_changes_text_is_aligned_by_the_text_before_it(tmp_path: Path) -> None:
    # NFKC makes "fi" of one character and "1⁄2" of another; the bytes are of the text as it stands.
    entries = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    entries |= {letter: n for n, letter in enumerate("fine12⁄", start=5)}
    letters = tokenizers.Tokenizer(models.WordLevel(entries, unk_token="[UNK]"))
    letters.normalizer = normalizers.NFKC()
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s|."), "isolated")
    letters.save(str(tmp_path / "tokenizer.json"))
    (student,) = TextTokenizer.read(tmp_path / "tokenizer.json").spans(["ﬁn½e"])
    (teacher,) = read("roberta", tmp_path).spans(["ﬁn½e"])
    assert [entry for entry in student.ids] == [entries[letter] for letter in "fin1⁄2e"]
    words = align(student, teacher)
    assert words.student.tolist() == [0, 0, 1, 2, 2, 2, 3]
    # Three bytes, one, two, one
    assert words.teacher.tolist() == [0, 0, 0, 1, 2, 2, 3]


def test_words_hidden_from_the_student_are_hidden_from_the_teacher() -> None:
    words = np.array([[1, 2, 2, 3, 4, 0], [1, 2, 3, 3, 3, 4]])
    hidden = np.zeros(words.shape, bool)
    hidden[0, 2] = True
    hidden[1, [1, 2]] = True
    teacher_words = np.array([[1, 2, 3, 3, 4, 0, 0], [1, 2, 2, 3, 4, 0, 0]])
    tokens = np.arange(14).reshape(2, 7)
    seen = hide_words(hidden, words, tokens, teacher_words, mask_id=99)
    assert seen.tolist() == [[0, 99, 2, 3, 4, 5, 6], [7, 99, 99, 99, 11, 12, 13]]
    assert np.array_equal(hide_words(hidden & False, words, tokens, teacher_words, 99), tokens)
