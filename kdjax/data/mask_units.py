"""The choice of whole words and of spans of words to be masked, as a pure function."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kdjax.config import MaskingConfig
from kdjax.tokenizers.word_boundaries import WordBoundaries


class WordSpans(NamedTuple):
    """The W words of a sequence that may be masked, in their order.

    Attributes:
        starts: `[W]` position of each word's first token.
        sizes: `[W]` tokens of each word; they stand in a row.
        goes_on: `[W]` whether the word stands right behind the one before it, in the same text.
    """

    starts: np.ndarray
    sizes: np.ndarray
    goes_on: np.ndarray


class Choice(NamedTuple):
    """The tokens that are chosen.

    Attributes:
        positions: `[N]` positions, ascending.
        action_of: `[N]` number of the chosen token that says what takes each one's place: its own,
            or in a span that of the span's first token.
    """

    positions: np.ndarray
    action_of: np.ndarray


def find_words(
    tokens: np.ndarray,
    segments: np.ndarray,
    maskable: np.ndarray,
    boundaries: WordBoundaries | None,
) -> WordSpans:
    """Find the words of a sequence.

    A special token parts words, and so does the end of a segment. A word that a text's pieces were
    cut in is a word in each.

    Args:
        tokens: `[L]` token ids.
        segments: `[L]` segment numbers.
        maskable: `[L]` whether each token may be masked.
        boundaries: which entries begin words, and which end them.

    Raises:
        ValueError: there are no boundaries.
    """
    if boundaries is None:
        raise ValueError("masks of words need the words' boundaries, expected rule.boundaries")
    follows = np.zeros(len(tokens), bool)
    follows[1:] = maskable[:-1] & (segments[1:] == segments[:-1])
    begins = maskable & (boundaries.starts(tokens) | ~follows)
    starts = np.flatnonzero(begins)
    # A word's tokens are those up to the next one's, without special tokens between.
    number = np.cumsum(begins)[maskable] - 1
    sizes = np.bincount(number, minlength=len(starts))
    return WordSpans(starts, sizes, follows[starts])


def choose(
    words: WordSpans, count: int, masking: MaskingConfig, rng: np.random.Generator
) -> Choice:
    """Choose words or spans of words at random, at most `count` tokens of them.

    Words are taken in a random order, each where all its tokens are still within the count (Devlin
    et al. 2019, the published code; Cui et al. 2021, arXiv 1906.08101). Under unit span a word that
    is taken begins a span (Joshi et al. 2020, arXiv 1907.10529, section 3.1): as many words as a
    geometric distribution gives, `max_span` at most, which ends sooner at the end of the text, at a
    word that was taken before, and where the count is used up. So fewer than `count` are chosen
    only where each word that is left is longer than what is left of the count. Where all words are
    longer than the count, the first tokens of one are chosen.

    Args:
        words: words of the sequence.
        count: the most tokens.
        masking: whether words or spans are chosen, and the lengths of spans.
        rng: source of random numbers.
    """
    number_of_words = len(words.starts)
    order = np.argsort(rng.random(number_of_words), kind="stable").tolist()
    lengths = [1] * number_of_words
    if masking.unit == "span":
        lengths = _span_lengths(rng.random(number_of_words), masking).tolist()

    # Lists: a loop over single entries of arrays takes several times as long.
    sizes = words.sizes.tolist()
    goes_on = words.goes_on.tolist()
    first_of = [-1] * number_of_words
    remaining = count
    for first in order:
        end = min(first + lengths[first], number_of_words)
        for word in range(first, end):
            in_row = word == first or goes_on[word]
            if not in_row or first_of[word] >= 0 or sizes[word] > remaining:
                break
            first_of[word] = first
            remaining -= sizes[word]
        if not remaining:
            break

    # No word is within the count: something is to be predicted all the same.
    if remaining == count and count:
        positions = words.starts[order[0]] + np.arange(count)
        return Choice(positions, np.arange(count))
    # The tokens of each chosen word, one word behind the other.
    first_word = np.array(first_of, int)
    chosen_words = np.flatnonzero(first_word >= 0)
    chosen_sizes = words.sizes[chosen_words]
    ends = np.cumsum(chosen_sizes)
    numbers = np.arange(count - remaining)
    positions = (
        np.repeat(words.starts[chosen_words] - (ends - chosen_sizes), chosen_sizes) + numbers
    )
    action_of = numbers
    if masking.unit == "span":
        span = np.repeat(first_word[chosen_words], chosen_sizes)
        action_of = np.searchsorted(positions, words.starts[span])
    return Choice(positions, action_of)


def _span_lengths(draws: np.ndarray, masking: MaskingConfig) -> np.ndarray:
    """Return lengths of spans in words, at least 1, by numbers drawn uniformly from [0, 1).

    They follow the geometric distribution under the condition that none is above `max_span`.
    """
    p = masking.geometric_p
    longest = -np.expm1(masking.max_span * np.log1p(-p))  # P(length <= max_span)
    lengths = np.ceil(np.log1p(-draws * longest) / np.log1p(-p))
    clipped: np.ndarray = np.clip(lengths, 1, masking.max_span).astype(int)
    return clipped
