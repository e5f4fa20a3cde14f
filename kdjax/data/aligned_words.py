"""The words that two tokenizers share: where both have a boundary between tokens at one place of a
text.

An aligned word is the shortest stretch of text at both of whose ends either tokenizer has such a
boundary. So every token of either lies in one aligned word, whole, and every aligned word has at
least one token of each. Of a tokenizer and itself every token is a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # reading a corpus needs no tokenizer
    from kdjax.tokenizers.text_tokenizer import TokenSpans


class AlignedWords(NamedTuple):
    """The number of the aligned word that each token of a text lies in, from 0.

    Both arrays ascend without gaps from 0 to the same last number; of a text of which a tokenizer
    has no token both are empty.

    Attributes:
        student: `[n_s]` int32: of each of the student's tokens.
        teacher: `[n_t]` int32: of each of the teacher's.
    """

    student: np.ndarray
    teacher: np.ndarray


class _Boundaries(NamedTuple):
    """The places of a text at which one tokenizer's tokens are parted.

    Attributes:
        tokens: number of tokens before each boundary.
        lows: characters up to which the tokens before it reach.
        highs: character at which the tokens behind it begin: white space that is of no token may
            lie between.
    """

    tokens: list[int]
    lows: list[int]
    highs: list[int]


def align(student: TokenSpans, teacher: TokenSpans) -> AlignedWords:
    """Find the aligned words of a text that two tokenizers have split.

    Places are characters of the text as it was before either tokenizer normalized it, so they can
    be compared whatever becomes of capitals, accents or ligatures. Several tokens of one character,
    such as the bytes of an emoji, have no boundary between them. White space around a boundary may
    be of the token before it, of the one behind it or of none: boundaries are the same where these
    stretches meet.

    Args:
        student: the text's tokens by the student's tokenizer.
        teacher: its tokens by the teacher's.
    """
    counts = (len(student.ids), len(teacher.ids))
    if not all(counts):
        return AlignedWords(np.zeros(0, np.int32), np.zeros(0, np.int32))
    ours = _boundaries(student)
    theirs = _boundaries(teacher)

    # Both ascend: of two that do not meet, the one that ends first meets no later one, either.
    # Each is used once, so that no word is without a token.
    student_starts = np.zeros(counts[0], np.int32)
    teacher_starts = np.zeros(counts[1], np.int32)
    i = 0
    j = 0
    while i < len(ours.tokens) and j < len(theirs.tokens):
        if ours.highs[i] < theirs.lows[j]:
            i += 1
        elif theirs.highs[j] < ours.lows[i]:
            j += 1
        else:
            student_starts[ours.tokens[i]] = 1
            teacher_starts[theirs.tokens[j]] = 1
            i += 1
            j += 1
    return AlignedWords(
        np.cumsum(student_starts, dtype=np.int32), np.cumsum(teacher_starts, dtype=np.int32)
    )


def hide_words(
    hidden: np.ndarray,
    words: np.ndarray,
    teacher_tokens: np.ndarray,
    teacher_words: np.ndarray,
    mask_id: int,
) -> np.ndarray:
    """Hide from the teacher the words that are hidden from the student.

    All of a word's tokens become [MASK] where any of the student's tokens of it is hidden, by
    [MASK] or by another token: the teacher never sees what the student has to guess.

    Args:
        hidden: `[B, L]` bool: where the student sees another token than the text's.
        words: `[B, L]` aligned word of each token, from 1; 0 is padding.
        teacher_tokens: `[B, L_t]` the teacher's tokens of the text.
        teacher_words: `[B, L_t]` aligned word of each of them, likewise.
        mask_id: id of the teacher's [MASK].

    Returns:
        `[B, L_t]` int32: the tokens that the teacher sees.
    """
    word_is_hidden = np.zeros((len(words), words.shape[1] + 1), bool)
    rows, columns = np.nonzero(hidden)
    word_is_hidden[rows, words[rows, columns]] = True
    # Padding is no word.
    word_is_hidden[:, 0] = False
    token_is_hidden = np.take_along_axis(word_is_hidden, teacher_words, axis=1)
    seen: np.ndarray = np.where(token_is_hidden, mask_id, teacher_tokens).astype(np.int32)
    return seen


def _boundaries(spans: TokenSpans) -> _Boundaries:
    """Find where the tokens of a text are parted: all before a place end by it, all behind it begin
    there or later."""
    # Tokens of one character overlap, and a normalization may change the order of characters.
    reached = np.maximum.accumulate(np.asarray(spans.ends))
    begun = np.minimum.accumulate(np.asarray(spans.starts)[::-1])[::-1]
    lows = reached[:-1]
    highs = begun[1:]
    parted = np.flatnonzero(lows <= highs)
    return _Boundaries((parted + 1).tolist(), lows[parted].tolist(), highs[parted].tolist())
