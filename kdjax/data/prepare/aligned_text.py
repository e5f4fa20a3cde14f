"""Documents as two tokenizers have them: cut at aligned words so that both rows fit, packed, and
written as one record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kdjax.data.aligned_words import align
from kdjax.data.prepare.packing import RecordFormat, best_fit, items_of_bins

if TYPE_CHECKING:  # reading a corpus needs no tokenizer
    from kdjax.tokenizers.special_tokens import SpecialTokens
    from kdjax.tokenizers.text_tokenizer import TextTokenizer

FRAME = 2
"""Special tokens around a piece."""


class AlignedPiece(NamedTuple):
    """A stretch of a document that is a segment of a row, by both tokenizers, without its frame.

    Attributes:
        tokens: `[n_s]` the student's token ids.
        begins: `[n_s]` bool: the token is the first of an aligned word.
        teacher_tokens: `[n_t]` the teacher's token ids.
        teacher_begins: `[n_t]` bool.
    """

    tokens: np.ndarray
    begins: np.ndarray
    teacher_tokens: np.ndarray
    teacher_begins: np.ndarray


@dataclass(frozen=True)
class AlignedPieces:
    """All pieces of some documents, and what has no place in a row.

    Attributes:
        pieces: pieces in the order of the text.
        words: number of aligned words in them.
        left_out: number of aligned words that are longer than a row of either, and of documents of
            which one tokenizer has no token.
    """

    pieces: list[AlignedPiece]
    words: int
    left_out: int


class AlignedRows(NamedTuple):
    """Rows of a corpus by both tokenizers.

    Aligned words are numbered through a row from 1; each token of a segment's frame is one by
    itself; 0 is padding.

    Attributes:
        tokens, segments, words: `[B, L]` int32, the student's.
        teacher_tokens, teacher_segments, teacher_words: `[B, L_t]` int32, the teacher's.
    """

    tokens: np.ndarray
    segments: np.ndarray
    words: np.ndarray
    teacher_tokens: np.ndarray
    teacher_segments: np.ndarray
    teacher_words: np.ndarray


@dataclass(frozen=True)
class AlignedFormat:
    """A row as bytes of fixed size: the student's record, the teacher's, then for each token of
    either whether it begins an aligned word.

    Attributes:
        student: format of the student's record.
        teacher: format of the teacher's record.
    """

    student: RecordFormat
    teacher: RecordFormat

    def encode(
        self,
        rows: Sequence[Sequence[AlignedPiece]],
        special: SpecialTokens,
        teacher_special: SpecialTokens,
    ) -> Iterator[bytes]:
        """Encode rows of pieces, each framed by its start and end on either side.

        Args:
            rows: pieces of each row.
            special: the student's special tokens.
            teacher_special: the teacher's.
        """
        parts = (
            _encoded(self.student, _field(rows, "tokens"), special),
            _encoded(self.teacher, _field(rows, "teacher_tokens"), teacher_special),
            _encoded_begins(self.student, _field(rows, "begins")),
            _encoded_begins(self.teacher, _field(rows, "teacher_begins")),
        )
        for record in zip(*parts, strict=True):
            yield b"".join(record)

    def decode(self, records: Sequence[bytes]) -> AlignedRows:
        """Decode records to the arrays of their rows."""
        # The parts of a record, one behind the other
        sizes = (self.student.size, self.teacher.size, self.student.length, self.teacher.length)
        ends = np.cumsum(sizes)
        student = [record[: ends[0]] for record in records]
        teacher = [record[ends[0] : ends[1]] for record in records]
        begins = [record[ends[1] : ends[2]] for record in records]
        teacher_begins = [record[ends[2] : ends[3]] for record in records]

        tokens, segments = self.student.decode(student)
        teacher_tokens, teacher_segments = self.teacher.decode(teacher)
        return AlignedRows(
            tokens,
            segments,
            _numbered(begins, segments),
            teacher_tokens,
            teacher_segments,
            _numbered(teacher_begins, teacher_segments),
        )


def align_documents(
    texts: Sequence[str],
    tokenizer: TextTokenizer,
    teacher_tokenizer: TextTokenizer,
    student_format: RecordFormat,
    teacher_format: RecordFormat,
) -> AlignedPieces:
    """Tokenise documents by both tokenizers, and cut them into pieces that fit a row of either.

    A piece takes as many aligned words of its document as fit on both sides. A word that fits into
    no row is left out, and the document goes on behind it in a new piece.

    Args:
        texts: texts of the documents.
        tokenizer: the student's tokenizer.
        teacher_tokenizer: the teacher's.
        student_format: format of the student's rows, whose length leaves room for a frame.
        teacher_format: format of the teacher's rows.

    Raises:
        InputError: a tokenizer cannot take a text.
    """
    room = student_format.length - FRAME
    teacher_room = teacher_format.length - FRAME
    pieces: list[AlignedPiece] = []
    words = 0
    left_out = 0
    tokenized = zip(tokenizer.spans(texts), teacher_tokenizer.spans(texts), strict=True)
    for spans, teacher_spans in tokenized:
        aligned = align(spans, teacher_spans)
        if not len(aligned.student):
            # A text that is nothing to both, such as white space, is no loss.
            left_out += int(len(spans.ids) != len(teacher_spans.ids))
            continue
        sizes = np.bincount(aligned.student)
        teacher_sizes = np.bincount(aligned.teacher)
        cuts = cut_words(sizes.tolist(), teacher_sizes.tolist(), room, teacher_room)
        word_count = sum(stop - start for start, stop in cuts)
        words += word_count
        left_out += len(sizes) - word_count

        # First tokens of the words, and where the last one ends
        tokens = np.array(spans.ids, student_format.token_dtype)
        teacher_tokens = np.array(teacher_spans.ids, teacher_format.token_dtype)
        begins = np.diff(aligned.student, prepend=-1) > 0
        teacher_begins = np.diff(aligned.teacher, prepend=-1) > 0
        places = np.concatenate([[0], np.cumsum(sizes)])
        teacher_places = np.concatenate([[0], np.cumsum(teacher_sizes)])
        for start, stop in cuts:
            ours = slice(places[start], places[stop])
            theirs = slice(teacher_places[start], teacher_places[stop])
            pieces.append(
                AlignedPiece(
                    tokens[ours], begins[ours], teacher_tokens[theirs], teacher_begins[theirs]
                )
            )
    return AlignedPieces(pieces, words, left_out)


def cut_words(
    sizes: Sequence[int], teacher_sizes: Sequence[int], room: int, teacher_room: int
) -> list[tuple[int, int]]:
    """Cut a row of words into stretches of which either side fits into its room.

    Args:
        sizes: tokens of each word on the student's side.
        teacher_sizes: tokens of each word on the teacher's side.
        room: the most tokens of a stretch on the student's side.
        teacher_room: the most on the teacher's.

    Returns:
        The first word of each stretch and the one behind its last, in order. A word that is larger
        than a room is in none.
    """
    cuts: list[tuple[int, int]] = []
    start = 0
    used = 0
    teacher_used = 0
    for word, (size, teacher_size) in enumerate(zip(sizes, teacher_sizes, strict=True)):
        fits = used + size <= room and teacher_used + teacher_size <= teacher_room
        if not fits:
            cuts.append((start, word))
            start = word
            used = 0
            teacher_used = 0
        # Larger than any row: the next stretch begins behind it.
        if size > room or teacher_size > teacher_room:
            start = word + 1
            continue
        used += size
        teacher_used += teacher_size
    cuts.append((start, len(sizes)))
    return [(first, stop) for first, stop in cuts if first < stop]


def pack_aligned(
    pieces: Sequence[AlignedPiece], length: int, teacher_length: int
) -> list[list[AlignedPiece]]:
    """Pack pieces into rows by best fit, so that both sides of a row fit.

    The size of a piece is that of its larger side, as a share of that side's row: where these fit
    together, both sides do.

    Args:
        pieces: the pieces, each of which fits into a row by itself.
        length: tokens of a row on the student's side, frames included.
        teacher_length: tokens of a row on the teacher's side.
    """
    sizes = []
    for piece in pieces:
        teacher_size = len(piece.teacher_tokens) + FRAME
        # Rounded up, in units of the student's tokens
        teacher_share = -(-teacher_size * length // teacher_length)
        sizes.append(max(len(piece.tokens) + FRAME, teacher_share))
    return items_of_bins(pieces, best_fit(sizes, length))


def segments_of_words(words: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Return the segment of each aligned word of a row.

    Args:
        words: `[B, L]` aligned word of each token, from 1; 0 is padding.
        segments: `[B, L]` segment of each token.

    Returns:
        `[B, L]` int32: at k that of word k + 1; 0 where a row has no such word.
    """
    by_number = np.zeros((len(words), words.shape[1] + 1), np.int32)
    np.put_along_axis(by_number, words, segments, axis=1)
    # Padding is no word.
    return by_number[:, 1:]


def _field(rows: Sequence[Sequence[AlignedPiece]], name: str) -> list[list[np.ndarray]]:
    """Return one field of the pieces of each row."""
    values = []
    for row in rows:
        values.append([getattr(piece, name) for piece in row])
    return values


def _encoded(
    record_format: RecordFormat, rows: Sequence[Sequence[np.ndarray]], special: SpecialTokens
) -> Iterator[bytes]:
    """Encode one side of rows, framed by its special tokens."""
    return record_format.encode(rows, start=special.start, end=special.end, pad=special.pad)


def _encoded_begins(
    record_format: RecordFormat, rows: Sequence[Sequence[np.ndarray]]
) -> Iterator[bytes]:
    """Encode where words begin on one side of rows, a byte a token; each token of a frame does."""
    bits = RecordFormat(record_format.length, "u1", record_format.segment_dtype)
    for record in bits.encode(rows, start=1, end=1, pad=0):
        # Without the segments, which the side's own record has
        yield record[: record_format.length]


def _numbered(begins: Sequence[bytes], segments: np.ndarray) -> np.ndarray:
    """Assign the aligned words of rows numbers from 1, by where they begin; padding is 0."""
    bits = np.frombuffer(b"".join(begins), np.uint8).reshape(segments.shape)
    numbers: np.ndarray = np.cumsum(bits, axis=1, dtype=np.int32) * (segments > 0)
    return numbers
