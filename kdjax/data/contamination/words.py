"""Texts as they are compared: the letters and digits alone, and where words and sentences begin.

Unicode is normalised (NFKC), capitals are folded (`str.casefold`) and format characters (category
Cf: soft hyphens, spaces of no width) are dropped, as if they were not there. Letters, marks and
numbers (Unicode categories L, M and N) are kept; punctuation, symbols and white space end a word
and are dropped. Chinese and Japanese characters, which no space parts, are a word each. Brown et
al. 2020 (arXiv 2005.14165, appendix C) likewise ignore case, punctuation and white space. Text that
was cut as Penn Treebank's is (`does n't`, `-lrb-`), as that of several tasks of GLUE, has the words
of the text before.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What a character is, ascending: those from LETTER on are kept.
GAP = 0
LINE_END = 1
STOP = 2
LETTER = 3
IDEOGRAPH = 4

LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
SEPARATOR = "\x1e"
"""What texts are joined by: ASCII's record separator, one of `LINE_ENDS`."""
STOPS = ".!?\u3002\uff01\uff1f\uff61\u0964\u061f\u06d4"
"""Ends of sentences: Latin, Chinese and Japanese, Devanagari, Arabic and Urdu."""
IDEOGRAPHS = ((0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0x20000, 0x323B0))
"""Blocks of characters that are words of their own: kana and Han."""

APOSTROPHES = (ord("'"), 0x2019)
BRACKETS = ("-lrb-", "-rrb-")
"""What Penn Treebank writes for round brackets."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Words:
    """The W words of some texts, in C letters.

    Attributes:
        letters: uint32 `[C]`, code points of the letters that are kept, all texts after another.
        starts: `[W]`, where in `letters` a word begins.
        ends: `[W]`, where it ends.
        texts: `[W]`, the number of its text.
        limits: `[W]`, where its text ends.
        opens: bool `[W]`, whether it begins a sentence or a line.
        closes: bool `[W]`, whether it ends a sentence or a line.
    """

    letters: NDArray[np.uint32]
    starts: Indices
    ends: Indices
    texts: Indices
    limits: Indices
    opens: NDArray[np.bool_]
    closes: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts)


def normalize(text: str) -> str:
    """Normalise a text's Unicode, fold its capitals and drop format characters (category Cf).

    Punctuation and white space stay.
    """
    if text.isascii():
        return text.lower()
    # Soft hyphens, spaces of no width and the like part no word: nobody sees them.
    visible = _format_characters().sub("", text)
    # Folding may take a composed character apart.
    folded = unicodedata.normalize("NFKC", visible).casefold()
    return unicodedata.normalize("NFKC", folded)


def words_of(texts: Sequence[str]) -> Words:
    """Find the words of texts; none spans two of them.

    Args:
        texts: texts of valid Unicode.
    """
    # All texts in one array. A separator within a text is the end of a line there.
    parts = [normalize(text).replace(SEPARATOR, "\n") for text in texts]
    joined = SEPARATOR.join(parts)
    for bracket in BRACKETS:
        joined = joined.replace(bracket, " ")
    characters = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
    kinds = _kinds()[characters]
    positions = np.flatnonzero(kinds >= LETTER)
    letters = characters[positions]

    # A word begins behind a gap, and at an ideograph and behind it.
    is_alone = kinds[positions] == IDEOGRAPH
    begins = np.ones(len(positions), np.bool_)
    distances = np.diff(positions)
    begins[1:] = (distances > 1) | is_alone[1:] | is_alone[:-1]
    # The n of an n't is where Penn Treebank's next word begins.
    is_not = (letters[:-1] == ord("n")) & (letters[1:] == ord("t")) & (distances == 2)
    before_t = np.flatnonzero(is_not)
    is_apostrophe = np.isin(characters[positions[before_t] + 1], APOSTROPHES)
    begins[before_t[is_apostrophe]] = True
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(letters))[: len(starts)]

    # A stop ends a sentence unless a letter follows, as in 3.5.
    is_break = kinds == STOP
    is_break[:-1] &= kinds[1:] < LETTER
    is_break |= kinds == LINE_END
    sentence = np.cumsum(is_break, dtype=np.int32)[positions[starts]]
    opens = np.ones(len(starts), np.bool_)
    opens[1:] = sentence[1:] != sentence[:-1]
    closes = np.append(opens[1:], True)[: len(starts)]

    text_ends = np.flatnonzero(characters == ord(SEPARATOR))
    numbers = np.searchsorted(text_ends, positions[starts])
    limits = np.append(np.searchsorted(positions, text_ends), len(letters))[numbers]
    return Words(letters, starts, ends, numbers, limits, opens, closes)


def letters_of(text: str) -> bytes:
    """Return the letters of a text, in four bytes each: equal for texts that say the same."""
    normal = normalize(text)
    for bracket in BRACKETS:
        normal = normal.replace(bracket, " ")
    characters = np.frombuffer(normal.encode("utf-32-le"), np.uint32)
    return characters[_kinds()[characters] >= LETTER].tobytes()


@functools.cache
def _format_characters() -> re.Pattern[str]:
    """Return a pattern of the characters of category Cf."""
    codes = range(sys.maxunicode + 1)
    characters = [chr(code) for code in codes if unicodedata.category(chr(code)) == "Cf"]
    return re.compile(f"[{re.escape(''.join(characters))}]+")


@functools.cache
def _kinds() -> NDArray[np.uint8]:
    """Return the kind of each code point, by its number."""
    kinds = np.full(sys.maxunicode + 1, GAP, np.uint8)
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] in "LMN":
            kinds[code] = LETTER
    for first, behind in IDEOGRAPHS:
        block = kinds[first:behind]
        block[block == LETTER] = IDEOGRAPH
    for character in LINE_ENDS:
        kinds[ord(character)] = LINE_END
    for character in STOPS:
        kinds[ord(character)] = STOP
    return kinds
