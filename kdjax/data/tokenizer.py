"""Text to token ids, with a Hugging Face tokenizer file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from kdjax.data.text.streams import sha256
from kdjax.errors import InputError

SPECIAL_NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
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
    """The tokens of a text, without [CLS] and [SEP], and where they are in it.

    Attributes:
        ids: id of each token.
        words: number of the word each token is of, as the tokenizer splits words before it splits
            them into tokens; -1 where it is of none.
        ends: character behind each token.
    """

    ids: list[int]
    words: list[int]
    ends: list[int]


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer that adds nothing, cuts nothing and takes text at its word.

    A file's own truncation and padding are off, and `[MASK]` written in a text is four characters
    and brackets, not the special token.

    Attributes:
        sha256: SHA-256 of the file.
        vocab_size: the highest id + 1.
        named: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]` -> id.
        special_ids: ids of these and of all other special tokens, ascending.
    """

    sha256: str
    vocab_size: int
    named: dict[str, int]
    special_ids: tuple[int, ...]
    _backend: tokenizers.Tokenizer = field(repr=False)
    _path: Path = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> TextTokenizer:
        """Read a tokenizer.json.

        Raises:
            InputError: not such a file, or it lacks one of the special tokens.
        """
        digest = sha256(path)

        # A text's tokens are all its tokens, and nothing else.
        backend = read_backend(path)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        # Special tokens are those that BERT names, and those that the file marks.
        vocabulary = backend.get_vocab(with_added_tokens=True)
        named = {name: vocabulary[name] for name in SPECIAL_NAMES if name in vocabulary}
        missing = [name for name in SPECIAL_NAMES if name not in named]
        if missing:
            raise InputError(
                f"{path}: has no {', '.join(missing)}, expected a BERT tokenizer with "
                f"{', '.join(SPECIAL_NAMES)}"
            )
        added = backend.get_added_tokens_decoder().items()
        special = {index for index, token in added if token.special}
        special_ids = tuple(sorted(special.union(named.values())))
        return cls(digest, max(vocabulary.values()) + 1, named, special_ids, backend, path)

    def ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the token ids of each text, without [CLS] and [SEP].

        Raises:
            InputError: the tokenizer cannot take a text, for instance as its model names an unknown
                token that is none of its entries.
        """
        for encoding in self._encodings(texts, self._backend.encode_batch_fast):
            yield encoding.ids

    def spans(self, texts: Sequence[str]) -> Iterator[TokenSpans]:
        """Yield the tokens of each text, with their words and places.

        Raises:
            InputError: as `ids`.
        """
        for encoding in self._encodings(texts, self._backend.encode_batch):
            words = [-1 if word is None else word for word in encoding.word_ids]
            yield TokenSpans(encoding.ids, words, [end for _, end in encoding.offsets])

    def _encodings(
        self, texts: Sequence[str], encode: Callable[..., list[tokenizers.Encoding]]
    ) -> Iterator[tokenizers.Encoding]:
        """Yield what the library makes of each text, without [CLS] and [SEP]."""
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
