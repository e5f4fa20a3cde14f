"""Minimal pairs of sentences, read from a directory in the layout of BabyLM's evaluation data.

The layout and what is compared follow https://github.com/babylm/evaluation-pipeline-2025
(`sentence_zero_shot`). BLiMP is Warstadt et al. 2020, arXiv 1912.00582; EWoK is Ivanova et al.
2024, arXiv 2405.09605.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdjax.config import MinimalPairsConfig
from kdjax.data.text_figures import check_unknown
from kdjax.errors import InputError
from kdjax.text.records import Record, records
from kdjax.text.sources import locate
from kdjax.text.streams import check_characters
from kdjax.tokenizers.text_tokenizer import TextTokenizer, TokenSpans

ENDINGS = ("filtered", "fast")
"""What follows a set's name in its directory's: all pairs, or BabyLM's choice of a few."""
LENGTH_STEP = 8
"""Arrays are as long as the longest sentence, rounded up to a multiple of this."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, of which all characters from `start` on are scored; `where` is for messages."""

    text: str
    start: int
    where: str


@dataclass(frozen=True)
class Pair:
    """An acceptable sentence, one that is not, and what they differ in."""

    phenomenon: str
    good: Sentence
    bad: Sentence


@dataclass(frozen=True)
class PairSet:
    """A set of P pairs of N different sentences, as tokens between [CLS] and [SEP].

    Attributes:
        name: name of the set, such as `blimp`.
        phenomena: names of the phenomena, sorted.
        phenomenon: `[P]` index of each pair's phenomenon.
        good, bad: `[P]` index of each pair's sentences.
        tokens: `[N, L]` int32 token ids.
        lengths: `[N]` tokens of each sentence.
        words: `[N, L]` int32 number of the word that a token is of; -1: of none.
        scored: `[N, L]` whether a token is scored: never [CLS], [SEP] and padding.
        mask_id: id of [MASK].
        digest: SHA-256 of the pairs' sentences.
        unknown: share of [UNK] among the tokens of the sentences.
    """

    name: str
    phenomena: tuple[str, ...]
    phenomenon: np.ndarray
    good: np.ndarray
    bad: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    words: np.ndarray
    scored: np.ndarray
    mask_id: int
    digest: str
    unknown: float = 0.0

    def __len__(self) -> int:
        return len(self.good)


def load(config: MinimalPairsConfig, tokenizer: Path, length: int) -> tuple[PairSet, ...]:
    """Read and tokenise all sets of pairs that a recipe names.

    Args:
        config: the directory and its sets; without a directory there are none.
        tokenizer: path of a tokenizer.json.
        length: the most tokens of a sentence, [CLS] and [SEP] included.

    Raises:
        InputError: a set's directory is missing, there twice or without pairs; a record without one
            of its fields; a sentence that has no tokens or too many.
    """
    if not config.directory:
        return ()
    directory = locate(config.directory)
    reader = TextTokenizer.read(tokenizer)
    return tuple(
        tokenise_pairs(name, read_pairs(directory, name), reader, length) for name in config.sets
    )


def check(config: MinimalPairsConfig) -> None:
    """Check that all sets that a recipe names are there, and that their files begin with a pair.

    Args:
        config: the directory and its sets.

    Raises:
        InputError: a set's directory is missing, there twice or without pairs, or its first record
            lacks a field.
    """
    if not config.directory:
        return
    directory = locate(config.directory)
    for name in config.sets:
        for path in _files(directory, name):
            if not any(True for _ in _pairs(path, name)):
                raise InputError(f"{path}: has no pairs, expected some, or no such file")


def read_pairs(directory: Path, name: str) -> list[Pair]:
    """Read the pairs of a set.

    Args:
        directory: directory of all sets.
        name: `blimp`, `supplement` or `ewok`.

    Raises:
        InputError: the set's directory is missing, there twice or without pairs, or a record lacks
            a field.
    """
    pairs = []
    for path in _files(directory, name):
        pairs_of_file = list(_pairs(path, name))
        # Its phenomenon would be missing from the mean.
        if not pairs_of_file:
            raise InputError(f"{path}: has no pairs, expected some, or no such file")
        pairs += pairs_of_file
    return pairs


def _files(directory: Path, name: str) -> list[Path]:
    """Return the files of a set, in order.

    Raises:
        InputError: the directory of the set is missing, there twice or without files.
    """
    if not directory.is_dir():
        raise InputError(
            f"evaluation.minimal_pairs.directory is {str(directory)!r}: no such directory, "
            "expected that of the sets"
        )
    places = [directory / f"{name}_{ending}" for ending in ENDINGS]
    present = [place for place in places if place.is_dir()]
    if len(present) != 1:
        count = "both of" if present else "no"
        raise InputError(
            f"{directory}: has {count} {' and '.join(place.name for place in places)}, expected "
            "one of them; evaluation.minimal_pairs.sets says which sets are read"
        )
    files = sorted(present[0].glob("*.jsonl"))
    if not files:
        raise InputError(f"{present[0]}: has no pairs, expected .jsonl files of them")
    return files


def _pairs(path: Path, name: str) -> Iterator[Pair]:
    """Yield the pairs of a file of a set."""
    pair_of = _ewok_pair if name == "ewok" else _blimp_pair
    return (pair_of(record, path.stem) for record in records(path))


def tokenise_pairs(
    name: str, pairs: Sequence[Pair], tokenizer: TextTokenizer, length: int
) -> PairSet:
    """Tokenise a set of one or more pairs; sentences of the same tokens become one.

    Args:
        name: name of the set.
        pairs: the pairs.
        tokenizer: reader of text.
        length: the most tokens of a sentence, [CLS] and [SEP] included.

    Raises:
        InputError: a sentence has no tokens to score, or too many; or the tokens are mostly [UNK].
    """
    sentences: list[Sentence] = []
    for pair in pairs:
        sentences += (pair.good, pair.bad)
    spans = tokenizer.spans([sentence.text for sentence in sentences])

    # Two sentences of the same tokens have the same score to the last bit, as they are scored once.
    numbers: dict[tuple[tuple[int, ...], ...], int] = {}
    indices = []
    for sentence, span in zip(sentences, spans, strict=True):
        key = _key(sentence, span, length)
        indices.append(numbers.setdefault(key, len(numbers)))

    # Two sentences of nothing but [UNK] have one score, whatever they say.
    special = tokenizer.special
    text_tokens = sum(len(ids) for ids, _, _ in numbers)
    unknown = sum(special.count_unknown(ids) for ids, _, _ in numbers) / text_tokens
    check_unknown({"all": unknown}, f"minimal pairs {name}, {sentences[0].where}")

    # What is not text, [CLS] and [SEP] included, is of no word and not scored. The frame is that of
    # the training text's blocks.
    lengths = np.array([len(ids) + 2 for ids, _, _ in numbers], np.int32)
    width = min(-(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP, length)
    tokens = np.full((len(numbers), width), special.pad, np.int32)
    words = np.full((len(numbers), width), -1, np.int32)
    scored = np.zeros((len(numbers), width), bool)
    for row, (ids, word_numbers, first) in enumerate(numbers):
        end = len(ids) + 1
        tokens[row, : end + 1] = [special.start, *ids, special.end]
        words[row, 1:end] = word_numbers
        scored[row, 1 + first[0] : end] = True
    phenomena = sorted({pair.phenomenon for pair in pairs})
    return PairSet(
        name=name,
        phenomena=tuple(phenomena),
        phenomenon=np.array([phenomena.index(pair.phenomenon) for pair in pairs], np.int32),
        good=np.array(indices[0::2], np.int32),
        bad=np.array(indices[1::2], np.int32),
        tokens=tokens,
        lengths=lengths,
        words=words,
        scored=scored,
        mask_id=special.mask,
        digest=_digest(pairs),
        unknown=unknown,
    )


def _key(sentence: Sentence, spans: TokenSpans, length: int) -> tuple[tuple[int, ...], ...]:
    """Return a sentence's ids, words and first scored token: its score depends on nothing else.

    Raises:
        InputError: it has no tokens to score, or too many.
    """
    # A token that reaches into the scored part belongs to it.
    first = next((n for n, end in enumerate(spans.ends) if end > sentence.start), None)
    if first is None:
        raise InputError(
            f"{sentence.where}: no token is left of {sentence.text[sentence.start :]!r:.60}, "
            "expected text"
        )
    if len(spans.ids) + 2 > length:
        raise InputError(
            f"{sentence.where}: the sentence has {len(spans.ids) + 2} tokens with [CLS] and [SEP], "
            f"expected at most the {length} of data.seq_len, which students were trained on"
        )
    return tuple(spans.ids), tuple(spans.words), (first,)


def _blimp_pair(record: Record, file: str) -> Pair:
    """Return a pair of BLiMP, or of the supplement, whose phenomenon is the file's name."""
    phenomenon = _text(record, "UID") if "field" in record.fields else file
    good = Sentence(_text(record, "sentence_good"), 0, record.where)
    bad = Sentence(_text(record, "sentence_bad"), 0, record.where)
    return Pair(phenomenon, good, bad)


def _ewok_pair(record: Record, _: str) -> Pair:
    """Return a pair of EWoK: behind the first context, the target that fits it and the other."""
    context = _text(record, "Context1")
    sentences = []
    for field in ("Target1", "Target2"):
        text = f"{context} {_text(record, field)}"
        sentences.append(Sentence(text, len(context), record.where))
    return Pair(_text(record, "Domain"), *sentences)


def _text(record: Record, field: str) -> str:
    """Return a field of a record.

    Raises:
        InputError: it is missing, empty, no text, or no valid Unicode.
    """
    if field not in record.fields:
        raise InputError(f"{record.where}: has no {field!r}, expected the field of a minimal pair")
    value = record.fields[field]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{record.where}: {field!r} is {value!r:.60}, expected text")
    check_characters(value, record.where)
    return value


def _digest(pairs: Sequence[Pair]) -> str:
    """Compute the SHA-256 of pairs in their order."""
    content = hashlib.sha256()
    for line in _lines(pairs):
        content.update(f"{len(line)} {line}\n".encode())
    return content.hexdigest()


def _lines(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield the text of pairs, line by line."""
    for pair in pairs:
        yield pair.phenomenon
        for sentence in (pair.good, pair.bad):
            yield str(sentence.start)
            yield sentence.text
