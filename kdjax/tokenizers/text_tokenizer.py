"""Text to token ids, with a Hugging Face tokenizer file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from kdjax.errors import InputError
from kdjax.storage.files import read_json
from kdjax.text.streams import sha256
from kdjax.tokenizers import special_tokens
from kdjax.tokenizers.special_tokens import SpecialTokens, Template
from kdjax.tokenizers.word_boundaries import WordBoundaries

BATCH = 256
"""Texts tokenised in one call, at most."""
BATCH_CHARACTERS = 2**18
"""Characters tokenised in one call, unless one text has more: a call takes about a hundred bytes
for each."""


def read_backend(path: Path) -> tokenizers.Tokenizer:
    """Read the library's own tokenizer, as the file has it.

    Raises:
        InputError: not a Hugging Face tokenizer file.
    """
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises nothing narrower
        raise InputError(f"{path}: expected a Hugging Face tokenizer.json, found {e}") from None


@dataclass(frozen=True)
class TokenSpans:
    """The tokens of a text, without special ones, and where they are in it.

    Attributes:
        ids: id of each token.
        words: number of the word each token is of, as the tokenizer splits words before it splits
            them into tokens; -1 where it is of none.
        starts: character that each token begins with.
        ends: character behind each token.
    """

    ids: list[int]
    words: list[int]
    starts: list[int]
    ends: list[int]


@dataclass(frozen=True)
class Framing:
    """The special tokens around a row's texts, as ids.

    BERT's are `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, RoBERTa's `<s> a </s>` and `<s> a </s>
    </s> b </s>`.

    Attributes:
        single: tokens before a single text, and behind it.
        pair: tokens before a pair's first text, between the two, and behind the second one.
    """

    single: tuple[tuple[int, ...], tuple[int, ...]]
    pair: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @classmethod
    def from_tokenizer(
        cls,
        templates: Mapping[str, Template],
        vocabulary: Mapping[str, int],
        special: SpecialTokens,
    ) -> Framing:
        """Build the framing of a tokenizer.

        Args:
            templates: `single` and `pair`, as the tokenizer's post-processor has them; where it has
                none, texts are framed as by BERT.
            vocabulary: entry -> id.
            special: ids of the special tokens.

        Raises:
            ValueError: a template lacks a text, has its texts in another order, or has a token that
                is no entry.
        """
        start: tuple[int, ...] = (special.start,)
        end: tuple[int, ...] = (special.end,)
        single = (start, end)
        pair = (start, end, end)
        if "single" in templates:
            before, behind = _parts(templates["single"], 1, vocabulary)
            single = (before, behind)
        if "pair" in templates:
            before, between, behind = _parts(templates["pair"], 2, vocabulary)
            pair = (before, between, behind)
        return cls(single, pair)


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer that adds nothing, cuts nothing and takes text at its word.

    It may be of any kind: WordPiece, byte-level BPE, Unigram. A file's own truncation and padding
    are off, and `[MASK]` written in a text is four characters and brackets, not the special token.

    Attributes:
        sha256: SHA-256 of the file.
        vocab_size: the highest id + 1.
        special: ids of the special tokens, by role.
        framing: special tokens around the texts of a row.
        special_ids: ids of these and of all other special tokens, ascending.
    """

    sha256: str
    vocab_size: int
    special: SpecialTokens
    framing: Framing
    special_ids: tuple[int, ...]
    _backend: tokenizers.Tokenizer = field(repr=False)
    _path: Path = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> TextTokenizer:
        """Read a tokenizer.json.

        Raises:
            InputError: not such a file, or it has no special token for a role.
        """
        digest = sha256(path)

        # A text's tokens are all its tokens, and nothing else.
        backend = read_backend(path)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        vocabulary = backend.get_vocab(with_added_tokens=True)

        # Special tokens are those that have a role, and those that the file marks.
        content = read_json(path)
        special = special_tokens.special_tokens(content, path, vocabulary)
        with_role = {index for index in vars(special).values() if index is not None}
        added = backend.get_added_tokens_decoder().items()
        marked = {index for index, token in added if token.special}
        special_ids = tuple(sorted(marked | with_role))
        try:
            templates = special_tokens.templates(content, path)
            framing = Framing.from_tokenizer(templates, vocabulary, special)
        except ValueError as e:
            raise InputError(f"{path}: its post_processor {e}") from None
        largest = max(vocabulary.values())
        return cls(digest, largest + 1, special, framing, special_ids, backend, path)

    def ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the token ids of each text, without special ones.

        Raises:
            InputError: the tokenizer cannot take a text, for instance as its model names an unknown
                token that is none of its entries.
        """
        for encoding in self._encodings(texts, self._backend.encode_batch_fast):
            yield encoding.ids

    def spans(self, texts: Sequence[str]) -> Iterator[TokenSpans]:
        """Yield the tokens of each text, with their words and places.

        Raises:
            InputError: the tokenizer cannot take a text, for instance as its model names an unknown
                token that is none of its entries.
        """
        for encoding in self._encodings(texts, self._backend.encode_batch):
            words = [-1 if word is None else word for word in encoding.word_ids]
            offsets = encoding.offsets
            starts = [start for start, _ in offsets]
            ends = [end for _, end in offsets]
            yield TokenSpans(encoding.ids, words, starts, ends)

    def word_boundaries(self) -> WordBoundaries | None:
        """Read the entries that begin words and those that end them; None where they do not say."""
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        return WordBoundaries.from_tokenizer(read_json(self._path), vocabulary)

    def _encodings(
        self, texts: Sequence[str], encode: Callable[..., list[tokenizers.Encoding]]
    ) -> Iterator[tokenizers.Encoding]:
        """Yield the library's encoding of each text, without special tokens."""
        for batch in _batches(texts):
            try:
                encodings = encode(batch, add_special_tokens=False)
            except Exception as e:  # the library raises nothing narrower
                raise InputError(
                    f"{self._path}: cannot tokenise a text ({e}), expected a whole tokenizer"
                ) from None
            # Each is let go of before more is tokenised: it takes far more memory than its ids.
            while encodings:
                yield encodings.pop(0)


def _parts(
    template: Template, texts: int, vocabulary: Mapping[str, int]
) -> tuple[tuple[int, ...], ...]:
    """Split a template at its texts; return the ids before, between and behind them."""
    if [piece for piece in template if isinstance(piece, int)] != list(range(texts)):
        raise ValueError(f"frames {template}, expected each of its texts once, in their order")
    parts: list[list[int]] = [[]]
    for piece in template:
        if isinstance(piece, int):
            parts.append([])
        elif piece in vocabulary:
            parts[-1].append(vocabulary[piece])
        else:
            raise ValueError(f"frames by {piece!r}, expected one of its entries")
    return tuple(map(tuple, parts))


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield texts in batches that are small enough for one call."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        # A text that is too large by itself has a batch of its own.
        if batch and (len(batch) == BATCH or characters + len(text) > BATCH_CHARACTERS):
            yield batch
            batch = []
            characters = 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch
