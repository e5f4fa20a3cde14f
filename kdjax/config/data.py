"""Settings of the corpus, from raw text to sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdjax.config.values import expect

SPECIAL_TOKENS = 5
"""[PAD], [UNK], [CLS], [SEP] and [MASK]."""
LARGEST_VOCABULARY = 2**20
"""The most entries of a trained vocabulary: four times the largest of a published masked model
(XLM-R's 250,002)."""
LATER_SETTINGS = {"documents": "paragraphs", "unusable": "refuse", "deduplicate": False}
"""Settings of `data` that corpora and studies of earlier versions do not name, and the values that
these have there. Where a setting has that value it is left out of what identifies a corpus or a
study, so that those go on."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Training a tokenizer on the corpus's training part, without held-out documents."""

    train: str = "wordpiece"
    """Kind of tokenizer: wordpiece, BERT's kind, lowercase and without accents."""
    size: int = 8192
    """Entries of the vocabulary, exactly: the rows of the word embedding of student and teacher."""
    alphabet: int = 0
    """Number of characters that get entries of their own, the most frequent ones; a word with any
    other is [UNK]. 0: an eighth of the size, at least 64."""

    def __post_init__(self) -> None:
        where = "data.tokenizer"
        most = f"{LARGEST_VOCABULARY:,}"
        expect(self.train == "wordpiece", f"{where}.train", repr(self.train), "'wordpiece'")
        in_range = 0 <= self.alphabet <= LARGEST_VOCABULARY
        expect(in_range, f"{where}.alphabet", self.alphabet, f"0 to {most}")
        in_range = self.size <= LARGEST_VOCABULARY
        expect(in_range, f"{where}.size", self.size, f"at most {most} entries")
        # Special tokens, and each character twice: where a word begins, and further on.
        least = SPECIAL_TOKENS + 2 * self.characters + 1
        expect(
            self.size >= least,
            f"{where}.size",
            self.size,
            f"at least {least}: {SPECIAL_TOKENS} special tokens, {self.characters} characters "
            "(data.tokenizer.alphabet) twice, and a longer entry",
        )

    @property
    def characters(self) -> int:
        """Return the most characters that get entries of their own."""
        return self.alphabet or max(64, self.size // 8)


@dataclass(frozen=True)
class DataConfig:
    """The corpus: from raw text to fixed-length sequences."""

    files: str | tuple[str, ...] = ()
    """The text: paths or globs of .txt (see `documents`), .jsonl (one record a line) or .json (a
    list or a mapping of records), each perhaps .gz, .bz2, .xz or .zst, and of .parquet (one record
    a row). `tfds:DIRECTORY:SPLIT` is a data set that TFDS prepared, `package:NAME/PATH` a file in
    an installed package."""
    text_field: str | tuple[str, ...] = ("text", "extract")
    """Name of the field, column or feature that holds the text. With several names, the first one
    present in a record counts."""
    documents: Literal["paragraphs", "lines", "files"] = "paragraphs"
    """What a document of a .txt file is: what stands between blank lines, a line, or the file."""
    unusable: Literal["refuse", "skip"] = "refuse"
    """What happens to a record without a usable text: null, absent, no text but a number or a list,
    invalid Unicode, or too long. An empty text is left out in any case. `skip` leaves them out and
    counts them; `refuse` ends the command."""
    deduplicate: bool = False
    """Whether a document whose text an earlier one has, character for character, is left out."""
    tokenizer: TokenizerConfig | str = ""
    """A Hugging Face tokenizer.json (path or package:NAME/PATH), or settings to train one on this
    text, for instance {train: wordpiece, size: 512}. Empty: the one beside the teacher's
    weights."""
    seq_len: int = 128
    """Tokens of a sequence, [CLS] and [SEP] included."""
    max_predictions: int = 20
    """The most masked positions of a sequence. Every sequence has so many slots, so that shapes are
    fixed; unused ones get weight 0."""
    mlm_probability: float = 0.15
    """Share of a sequence's tokens that are masked, at most `max_predictions` of them; never
    special tokens or padding. The default is BERT's."""
    mask_copies: int = 0
    """Mask views of a sequence, the same for every seed: epoch e of seed s sees view (e + s) modulo
    this number. 0: new masks in every epoch and for every seed."""
    validation: float = 0.05
    """Share of documents held out, chosen by the hash of a document's identity."""
    regime: Literal["all", "unlimited", "limited"] = "all"
    """How much unique text there is. `all`: all of it, repeated where the budget outlasts it.
    `unlimited`: a budget that would repeat any of it is refused. `limited`: `unique_tokens` of it
    are taken and repeated."""
    unique_tokens: float = 0.0
    """The most tokens of the limited regime: `subset_seed` chooses whole sequences that hold no
    more together."""
    subset_seed: int = 0
    """Seed of the limited regime's choice of sequences. Under one seed, a smaller subset lies
    within a larger one."""
    shard_documents: int = 4096
    """The most documents that are packed together into one shard; fewer where they have more than
    32 MiB together."""
    workers: int = 0
    """Number of processes that prepare; 0: one per core. Does not change the result."""
    prepared: str = ""
    """Directory of an already prepared corpus. Empty: the command prepares one in its output
    directory."""

    def __post_init__(self) -> None:
        # [CLS] and [SEP], and some text between them.
        expect(self.seq_len >= 8, "data.seq_len", self.seq_len, "at least 8 tokens")
        longest = self.seq_len - 1
        expect(
            1 <= self.max_predictions <= longest,
            "data.max_predictions",
            self.max_predictions,
            f"1 to data.seq_len - 1 ({longest})",
        )
        # Neither nothing nor all: both splits, and both kinds of tokens, are needed.
        for name in ("mlm_probability", "validation"):
            share = getattr(self, name)
            expect(0 < share < 1, f"data.{name}", share, "a share between 0 and 1")
        # 0 mask copies: new masks in every epoch.
        for name, least in (("mask_copies", 0), ("shard_documents", 1)):
            value = getattr(self, name)
            expect(value >= least, f"data.{name}", value, f"at least {least}")
        # Only the limited regime has a size, and it needs one.
        expect(
            (self.regime == "limited") == (self.unique_tokens > 0),
            "data.unique_tokens",
            f"{self.unique_tokens:g} under data.regime {self.regime!r}",
            "more than 0 with 'limited' and 0 without",
        )
