"""The corpus, from raw text to sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdjax.errors import InputError

SPECIAL_TOKENS = 5
"""[PAD], [UNK], [CLS], [SEP] and [MASK]."""
LARGEST_VOCABULARY = 2**20
"""Entries of a trained vocabulary, at most: four times the largest of a published masked model
(XLM-R's 250,002)."""


@dataclass(frozen=True)
class TokenizerConfig:
    """A tokenizer that is trained on the corpus's training part, held-out documents aside."""

    train: str = "wordpiece"
    """What is trained: wordpiece, BERT's kind, lowercase and without accents."""
    size: int = 8192
    """Entries of the vocabulary, exactly: the rows of the word embedding of student and teacher."""
    alphabet: int = 0
    """Characters that get entries of their own, the most frequent ones; a word with any other is
    [UNK]. 0: an eighth of the size, at least 64."""

    def __post_init__(self) -> None:
        if self.train != "wordpiece":
            raise InputError(f"data.tokenizer.train is {self.train!r}, expected 'wordpiece'")
        if not 0 <= self.alphabet <= LARGEST_VOCABULARY:
            raise InputError(
                f"data.tokenizer.alphabet is {self.alphabet}, expected 0 to {LARGEST_VOCABULARY:,}"
            )
        if self.size > LARGEST_VOCABULARY:
            raise InputError(
                f"data.tokenizer.size is {self.size}, expected at most {LARGEST_VOCABULARY:,} "
                "entries"
            )
        # Special tokens, and each character twice: where a word begins, and further on.
        least = SPECIAL_TOKENS + 2 * self.characters + 1
        if self.size < least:
            raise InputError(
                f"data.tokenizer.size is {self.size}, expected at least {least}: {SPECIAL_TOKENS} "
                "special tokens, "
                f"{self.characters} characters (data.tokenizer.alphabet) twice, and a longer entry"
            )

    @property
    def characters(self) -> int:
        """Characters that get entries of their own, at most."""
        return self.alphabet or max(64, self.size // 8)


@dataclass(frozen=True)
class DataConfig:
    """The corpus: from raw text to fixed-length sequences."""

    files: str | tuple[str, ...] = ()
    """Text: paths or globs of .txt (documents are separated by blank lines), .jsonl (one record a
    line) or .json (a list or a mapping of records), each perhaps .gz or .zst, and of .parquet (one
    record a row); `tfds:DIRECTORY:SPLIT` reads a data set that TFDS prepared, `package:NAME/PATH` a
    file an installed package carries."""
    text_field: str | tuple[str, ...] = ("text", "extract")
    """Field of a record, column of a table or feature of an example that holds the text; of
    several, the first one present."""
    tokenizer: TokenizerConfig | str = ""
    """A Hugging Face tokenizer.json (path or package:NAME/PATH), or how one is trained on this
    text, for instance {train: wordpiece, size: 512}. Empty: the one beside the teacher's
    weights."""
    seq_len: int = 128
    """Tokens of a sequence, [CLS] and [SEP] included."""
    max_predictions: int = 20
    """Masked positions a sequence can have: fixed, so that shapes are; unused ones get weight 0."""
    mlm_probability: float = 0.15
    """Share of a sequence's tokens that are masked (never special tokens or padding), at most
    `max_predictions`."""
    mask_copies: int = 0
    """Mask views of a sequence: epoch e of seed s sees view (e + s) modulo this, the same for every
    seed. 0: new masks in every epoch, and of every seed."""
    validation: float = 0.05
    """Share of documents held out, chosen by the hash of a document's identity."""
    regime: Literal["all", "unlimited", "limited"] = "all"
    """How much unique text there is: all of it, repeated where the budget outlasts it; unlimited,
    where a budget that would repeat any of it is refused; limited, where `unique_tokens` of it are
    taken and repeated."""
    unique_tokens: float = 0.0
    """Tokens of the limited regime: whole sequences, chosen by `subset_seed`, that hold at most so
    many."""
    subset_seed: int = 0
    """Which sequences the limited regime takes: under one seed, a smaller subset lies within a
    larger one."""
    shard_documents: int = 4096
    """Documents packed together into one shard, at most: fewer where they have more than 32 MiB
    together."""
    workers: int = 0
    """Processes that prepare; 0: one per core. Does not change the result."""
    prepared: str = ""
    """Directory of an already prepared corpus. Empty: the command prepares one in its output
    directory."""

    def __post_init__(self) -> None:
        if self.seq_len < 8:
            raise InputError(f"data.seq_len is {self.seq_len}, expected at least 8 tokens")
        if not 1 <= self.max_predictions < self.seq_len:
            raise InputError(
                f"data.max_predictions is {self.max_predictions}, expected 1 to data.seq_len - 1 "
                f"({self.seq_len - 1})"
            )
        if not 0 < self.mlm_probability < 1:
            raise InputError(
                f"data.mlm_probability is {self.mlm_probability}, expected a share between 0 and 1"
            )
        if not 0 < self.validation < 1:
            raise InputError(
                f"data.validation is {self.validation}, expected a share between 0 and 1"
            )
        if self.mask_copies < 0:
            raise InputError(f"data.mask_copies is {self.mask_copies}, expected at least 0")
        if self.shard_documents < 1:
            raise InputError(f"data.shard_documents is {self.shard_documents}, expected at least 1")
        if (self.regime == "limited") != (self.unique_tokens > 0):
            raise InputError(
                f"data.unique_tokens is {self.unique_tokens:g} under data.regime {self.regime!r}, "
                "expected more than 0 "
                "with 'limited' and 0 without"
            )
