"""Text that a rehearsal makes for itself: words of syllables, always the same for the same seed.

It stands for a corpus of which nothing is known but that it is text: words are as frequent as
Zipf's law has it, some are accented, sentences begin with capitals and end with marks.
"""

from __future__ import annotations

import itertools

import numpy as np

_ONSETS = ("b", "ch", "d", "f", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w")
_VOWELS = ("a", "e", "i", "o", "u", "ea", "ou", "é")
_ENDINGS = ("", "n", "r", "s", "t", "ng")
_MARKS = (".", ".", ".", ".", ",", ",", ";", "?", "!")
VOCABULARY = 1200
"""Number of different words."""
LONGEST = 24
"""The most words of a sentence."""


def words(count: int = VOCABULARY) -> tuple[str, ...]:
    """Return different words, the most frequent one first; short words are frequent."""
    syllables = ["".join(parts) for parts in itertools.product(_ONSETS, _VOWELS, _ENDINGS)]
    rng = np.random.default_rng(0)
    # A mapping keeps the order in which words came, and each once.
    vocabulary: dict[str, None] = {}
    while len(vocabulary) < count:
        # One syllable for the frequent words, two and three for the others.
        length = 1 + (len(vocabulary) > count // 8) + (len(vocabulary) > count // 2)
        numbers = rng.integers(len(syllables), size=length)
        vocabulary["".join(syllables[number] for number in numbers)] = None
    return tuple(vocabulary)


def sentences(count: int, seed: int) -> list[str]:
    """Draw sentences of 4 to `LONGEST` words.

    Args:
        count: number of sentences.
        seed: random seed, from which the sentences follow.
    """
    rng = np.random.default_rng(seed)
    vocabulary = np.array(words())
    frequencies = 1 / np.arange(1, len(vocabulary) + 1)
    frequencies /= frequencies.sum()
    drawn = []
    for _ in range(count):
        chosen = rng.choice(vocabulary, rng.integers(4, LONGEST + 1), p=frequencies)
        mark = _MARKS[rng.integers(len(_MARKS))]
        drawn.append(f"{' '.join(chosen).capitalize()}{mark}")
    return drawn


def documents(count: int, seed: int) -> list[str]:
    """Draw documents of 1 to 8 sentences.

    Args:
        count: number of documents.
        seed: random seed, from which the documents follow.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, count)
    every = sentences(int(sizes.sum()), seed + 1)
    ends = np.cumsum(sizes)
    return [" ".join(every[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
