"""The index of evaluation rows by n-grams of their words, and the search for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdjax.data.contamination.hash_table import HashTable
from kdjax.data.contamination.hashing import Hashes, RunHasher
from kdjax.data.contamination.words import Indices, Words, letters_of, words_of

GRAM = 13
"""Words of a run that two texts hardly have in common by chance: the largest N of Brown et al.
2020 (arXiv 2005.14165), appendix C."""
LEAST_WORDS = 8
"""Words of a shorter text that is still looked for within sentences: their smallest N. One of fewer
words is looked for as whole sentences: its words stand side by side in many texts."""
BEGINNING = 8
"""Letters of such a text that places in other texts are first compared with; it has a letter for
each of its words at least."""
BATCH = 2**20
"""Characters of the texts that are looked at together; a longer text is looked at alone."""

RowTexts = tuple[str, ...]
"""The texts of a row: one, or the two of a pair. A document is one text."""


@dataclass(frozen=True)
class _Keys:
    """Hashes of N runs of letters.

    Attributes:
        hashes: `[N]`.
        rows: `[N]`, the row that each is of.
        lengths: `[N]`, its letters.
        beginnings: `[N]`, hashes of its first `BEGINNING` letters; of all where it has fewer.
    """

    hashes: Hashes
    rows: Indices
    lengths: Indices
    beginnings: Hashes

    @classmethod
    def joined(cls, parts: Iterable[_Keys]) -> _Keys:
        """Put keys one behind another."""
        columns = [(key.hashes, key.rows, key.lengths, key.beginnings) for key in parts]
        hashes, rows, lengths, beginnings = zip(*columns, strict=True)
        return cls(
            np.concatenate(hashes),
            np.concatenate(rows),
            np.concatenate(lengths),
            np.concatenate(beginnings),
        )


@dataclass(frozen=True)
class _RowKeys:
    """Hashes by which the texts of rows are found.

    Attributes:
        grams: runs of `GRAM` words of longer texts.
        runs: whole texts of `LEAST_WORDS` words or more, up to `GRAM`.
        sentences: whole texts of fewer words.
    """

    grams: _Keys
    runs: _Keys
    sentences: _Keys


class RowIndex:
    """Evaluation rows that are looked for in other texts.

    A row's text of `GRAM` words or more is found by any run of so many words. A shorter one is
    found as a whole: of `LEAST_WORDS` words or more as a run of words, of fewer as one or several
    whole sentences or lines. Only letters are compared, so words may be parted in another way
    within a shorter text (`does n't`), and but for where they begin and end within a run of `GRAM`.
    Runs are told apart by 64 bits of a hash: 10^10 words of text and 10^6 runs of rows have a pair
    of different ones that is taken for the same with one chance in about 2,000.

    Attributes:
        size: number of rows.
    """

    def __init__(self, rows: Iterable[RowTexts]):
        """Index rows, in their order.

        Args:
            rows: texts of each row.
        """
        self.size = 0
        self._hasher = RunHasher()
        # An empty text has no keys: without rows the tables are empty.
        batches = [self._keys(words_of([""]), np.zeros(1, np.int64))]
        for texts, numbers in _batches(rows):
            batches.append(self._keys(words_of(texts), numbers + self.size))
            self.size += int(numbers[-1]) + 1
        self._grams = _table(_Keys.joined(batch.grams for batch in batches))
        run_keys = _Keys.joined(batch.runs for batch in batches)
        self._runs = _table(run_keys)
        self._run_lengths = np.unique(run_keys.lengths)
        self._run_beginnings = HashTable.from_hashes(run_keys.beginnings, run_keys.rows)
        sentence_keys = _Keys.joined(batch.sentences for batch in batches)
        self._sentences = _table(sentence_keys)
        self._sentence_lengths = np.unique(sentence_keys.lengths)

    def search(self, texts: Iterable[RowTexts]) -> NDArray[np.bool_]:
        """Find the rows `[size]` that stand in texts, which are read once.

        Args:
            texts: documents, or rows of another task; no run spans two texts.
        """
        is_found = np.zeros(self.size, np.bool_)
        for batch, _ in _batches(texts):
            for rows in self._rows_in(words_of(batch)):
                is_found[rows] = True
        return is_found

    def _keys(self, words: Words, row_of_text: Indices) -> _RowKeys:
        """Hash each text's n-grams; of a text shorter than one, the whole run of its words.

        Args:
            words: words of the texts.
            row_of_text: row number of each text.
        """
        sums = self._hasher.sums(words.letters)
        first = _grams(words)
        grams = self._hashed(sums, words, first, first + GRAM - 1, row_of_text)

        # Words of one text lie side by side.
        counts = np.bincount(words.texts, minlength=len(row_of_text))
        behind = np.cumsum(counts)
        runs = np.flatnonzero((counts >= LEAST_WORDS) & (counts < GRAM))
        short = np.flatnonzero((counts > 0) & (counts < LEAST_WORDS))
        first = behind - counts
        last = behind - 1
        return _RowKeys(
            grams=grams,
            runs=self._hashed(sums, words, first[runs], last[runs], row_of_text),
            sentences=self._hashed(sums, words, first[short], last[short], row_of_text),
        )

    def _hashed(
        self, sums: Hashes, words: Words, first: Indices, last: Indices, row_of_text: Indices
    ) -> _Keys:
        """Hash runs `[N]` of words, given by their first and last word."""
        starts = words.starts[first]
        ends = words.ends[last]
        beginnings = self._hasher.runs(sums, starts, np.minimum(starts + BEGINNING, ends))
        return _Keys(
            self._hasher.runs(sums, starts, ends),
            row_of_text[words.texts[first]],
            ends - starts,
            beginnings,
        )

    def _rows_in(self, words: Words) -> Iterator[Indices]:
        """Yield the rows that stand in some texts."""
        sums = self._hasher.sums(words.letters)
        first = _grams(words)
        ends = words.ends[first + GRAM - 1]
        yield self._grams.rows_of(self._hasher.runs(sums, words.starts[first], ends))

        # Texts of some words: few places begin as one of them does.
        is_long = words.starts + BEGINNING <= words.limits
        starts = words.starts[is_long]
        beginnings = self._hasher.runs(sums, starts, starts + BEGINNING)
        is_candidate = self._run_beginnings.may_have(beginnings)
        yield from self._whole(
            self._runs,
            self._run_lengths,
            sums,
            starts[is_candidate],
            words.limits[is_long][is_candidate],
            words.ends,
        )

        # Texts of few words: only where a sentence begins, up to where one ends.
        yield from self._whole(
            self._sentences,
            self._sentence_lengths,
            sums,
            words.starts[words.opens],
            words.limits[words.opens],
            words.ends[words.closes],
        )

    def _whole(
        self,
        table: HashTable,
        lengths: Indices,
        sums: Hashes,
        starts: Indices,
        limits: Indices,
        ends: Indices,
    ) -> Iterator[Indices]:
        """Yield the rows whose shorter texts stand there, one length after another.

        Args:
            table: rows by the hashes of their texts.
            lengths: numbers of letters that such texts have.
            sums: the hasher's sums of the letters.
            starts: where one may begin, `[N]`.
            limits: where the text around it ends, `[N]`.
            ends: where one may end.
        """
        longest = int(lengths[-1]) if len(lengths) else 0
        is_end = np.zeros(len(sums) + longest, np.bool_)
        is_end[ends] = True
        for length in lengths:
            is_candidate = is_end[starts + length] & (starts + length <= limits)
            begins = starts[is_candidate]
            yield table.rows_of(self._hasher.runs(sums, begins, begins + length))


def hash_whole_row(row: RowTexts) -> bytes:
    """Hash all texts of a row by their letters; nothing for a row without any."""
    letters = [letters_of(text) for text in row]
    if not any(letters):
        return b""
    content = hashlib.blake2b(digest_size=16)
    for text in letters:
        content.update(len(text).to_bytes(8, "big"))
        content.update(text)
    return content.digest()


def _batches(rows: Iterable[RowTexts]) -> Iterator[tuple[list[str], Indices]]:
    """Yield the texts of consecutive rows together, and the number of each text's row from 0."""
    texts: list[str] = []
    numbers: list[int] = []
    characters = 0
    count = 0
    for row in rows:
        texts += row
        numbers += [count] * len(row)
        characters += sum(map(len, row))
        count += 1
        if characters > BATCH:
            yield texts, np.array(numbers, np.int64)
            texts = []
            numbers = []
            characters = 0
            count = 0
    if texts:
        yield texts, np.array(numbers, np.int64)


def _grams(words: Words) -> Indices:
    """Return the words with which a run of `GRAM` words of one text begins."""
    is_within: NDArray[np.bool_] = words.texts[GRAM - 1 :] == words.texts[: -(GRAM - 1)]
    return np.flatnonzero(is_within)


def _table(keys: _Keys) -> HashTable:
    return HashTable.from_hashes(keys.hashes, keys.rows)
