"""Rows of a task as token ids: how texts are framed and cut, and how a split is tokenised."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdjax.data.tasks.raw import RawRow, RawTask, RowSource
from kdjax.data.tasks.task import Split
from kdjax.text.document import split_fraction
from kdjax.tokenizers.text_tokenizer import Framing, TextTokenizer

CHUNK = 2048
"""Rows whose texts are held while they are tokenised."""


def frame(
    first: Sequence[int], second: Sequence[int] | None, framing: Framing, length: int
) -> tuple[list[int], int]:
    """Frame the token ids of a row by special tokens, and cut it to a length.

    Args:
        first: token ids of the text, or of a pair's first one.
        second: token ids of a pair's second text; None: there is none.
        framing: special tokens around the texts, as the tokenizer has them.
        length: most tokens of the row, those of the frame included.

    Returns:
        The ids, and where the second text begins; for a single text their number.
    """
    if second is None:
        before, behind = framing.single
        room = max(0, length - len(before) - len(behind))
        ids = [*before, *first[:room], *behind]
        return ids, len(ids)
    before, between, behind = framing.pair
    room = max(0, length - len(before) - len(between) - len(behind))
    first_length, second_length = cut_pair(len(first), len(second), room)
    ids = [*before, *first[:first_length], *between]
    begin = len(ids)
    ids += [*second[:second_length], *behind]
    return ids, begin


def cut_pair(first: int, second: int, budget: int) -> tuple[int, int]:
    """Compute the number of tokens kept of each of two texts: the longer one is cut first.

    It is cut down to the shorter one's length before that is cut at all; of two that share an odd
    number of tokens, the one that was longer has one more, the second where they were equal. So do
    the tokenizers of Hugging Face's `tokenizers` (`longest_first`).

    Args:
        first: tokens of the first text.
        second: tokens of the second text.
        budget: most tokens of both together.
    """
    if first + second <= budget:
        return first, second
    shorter = min(first, second, budget // 2)
    longer = budget - shorter
    if first > second:
        return longer, shorter
    return shorter, longer


def hash_fraction(texts: Sequence[str]) -> float:
    """Compute the hash of a row's texts as a number in [0, 1)."""
    return split_fraction("\n".join(texts))


def is_selection_row(fraction: float, share: float) -> bool:
    """Return whether a suite's training row is one of its selection rows instead.

    Args:
        fraction: hash of the row's texts (`hash_fraction`).
        share: share of the training rows that settings are chosen by, `evaluation.selection`.
    """
    return fraction < share


@dataclass(frozen=True)
class EncodedRows:
    """The N rows of a source, tokenised, in the order of its file.

    Attributes:
        split: the rows with their labels; None for hidden ones.
        fractions: float64 `[N]`: the hash of each row's texts as a number in [0, 1).
        text_tokens: tokens of the texts, without frames.
        unknown: those of them that are [UNK].
    """

    split: Split
    fractions: NDArray[np.float64]
    text_tokens: int
    unknown: int


def encode(
    task: RawTask, source: RowSource, rows: Iterable[RawRow], tokenizer: TextTokenizer, length: int
) -> EncodedRows:
    """Tokenise rows, a chunk of them in memory as text at a time.

    Args:
        task: task of the rows.
        source: split of the rows; test rows of a suite have no labels.
        rows: the rows.
        tokenizer: tokenizer of the texts.
        length: most tokens of a row.

    Raises:
        InputError: a label is missing, or none of the task's.
    """
    labelled = source.split != "test" or not task.from_suite
    framing = tokenizer.framing
    tokens = array("i")
    ends = array("q", [0])
    seconds = array("i")
    labels = array("d")
    fractions = array("d")
    unknown = 0
    text_tokens = 0
    frame_tokens = sum(map(len, framing.pair if task.pairs else framing.single))
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        # Pairs give their first and their second text in turn.
        texts = list(itertools.chain.from_iterable(row.texts for row in chunk))
        ids = tokenizer.ids(texts)
        for row in chunk:
            first = next(ids)
            second = next(ids) if task.pairs else None
            framed, begin = frame(first, second, framing, length)
            # Counted in what is kept: what is cut off says nothing of the task.
            unknown += tokenizer.special.count_unknown(framed)
            text_tokens += len(framed) - frame_tokens
            tokens.extend(framed)
            ends.append(len(tokens))
            seconds.append(begin)
            fractions.append(hash_fraction(row.texts))
            if labelled:
                labels.append(task.label(row, source))
    flat_tokens = np.zeros(0, np.int32)
    # An empty array has no buffer.
    if tokens:
        flat_tokens = np.frombuffer(tokens, np.int32)
    second_begins = np.array(seconds, np.int32) if task.pairs else None
    typed_labels: NDArray[np.int32] | NDArray[np.float32] | None = None
    if labelled and task.classes:
        typed_labels = np.array(labels).astype(np.int32)
    elif labelled:
        typed_labels = np.array(labels).astype(np.float32)
    split = Split(flat_tokens, np.array(ends, np.int64), second_begins, typed_labels)
    return EncodedRows(split, np.array(fractions), text_tokens, unknown)
