"""Settings of the corpus, from raw text to sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from kdjax.config.values import LARGEST_SEED, LATER, TOKENS_LIMIT, check_range, expect, to_dict
from kdjax.errors import InputError
from kdjax.storage.paths import check_setting

SPECIAL_TOKENS = {"wordpiece": 5, "bpe": 4, "unigram": 5}
"""Kind of a trained tokenizer -> its special tokens: [PAD], [UNK], [CLS], [SEP] and [MASK], or
those that have their roles. Of byte-level BPE no text is unknown."""
BYTES = 256
LARGEST_VOCABULARY = 2**20
"""The most entries of a trained vocabulary: four times the largest of a published masked model
(XLM-R's 250,002)."""
LATER_SETTINGS = {
    "documents": "paragraphs",
    "unusable": "refuse",
    "deduplicate": False,
    "packing": "best_fit",
}
"""Settings of `data` that corpora and studies of earlier versions do not name, and the values that
these have there. Where a setting has that value it is left out of what identifies a corpus or a
study, so that those go on."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Training a tokenizer on the corpus's training part, without held-out documents."""

    train: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    """Kind of tokenizer. `wordpiece`: BERT's, lowercase and without accents. `bpe`: byte-level BPE,
    RoBERTa's, cased, for which no text is unknown. `unigram`: XLM-R's, cased, normalized by NFKC;
    needs the sentencepiece extra."""
    size: int = 8192
    """Entries of the vocabulary, exactly: the rows of the word embedding of student and teacher. At
    most 1,048,576; at least the special tokens, the characters that have entries (twice under
    wordpiece, where they stand within words and begin them), and one more."""
    alphabet: int = 0
    """Number of characters that get entries of their own, the most frequent ones; any other is
    unknown, under wordpiece with the word that it stands in. Up to 1,048,576; 0: an eighth of the
    size, at least 64. Not under bpe, whose characters are the 256 bytes."""

    def __post_init__(self) -> None:
        where = "data.tokenizer"
        known = "wordpiece, bpe or unigram"
        expect(self.train in SPECIAL_TOKENS, f"{where}.train", repr(self.train), known)
        check_range(self, f"{where}.", 0, LARGEST_VOCABULARY, "alphabet")
        check_range(self, f"{where}.", 0, LARGEST_VOCABULARY, "size")
        has_alphabet = self.train == "bpe" and self.alphabet != 0
        expect(
            not has_alphabet, f"{where}.alphabet", self.alphabet, "none under bpe, which has bytes"
        )
        special = SPECIAL_TOKENS[self.train]
        least = special + self.characters + 1
        parts = f"{special} special tokens, {self.characters} "
        if self.train == "bpe":
            parts += "bytes, and a longer entry"
        elif self.train == "unigram":
            parts += "characters (data.tokenizer.alphabet), and a longer entry"
        else:
            # Each character twice: where a word begins, and further on.
            least += self.characters
            parts += "characters (data.tokenizer.alphabet) twice, and a longer entry"
        expect(self.size >= least, f"{where}.size", self.size, f"at least {least}: {parts}")

    @property
    def characters(self) -> int:
        """Return the most characters that get entries of their own; bytes under bpe."""
        if self.train == "bpe":
            return BYTES
        return self.alphabet or max(64, self.size // 8)


@dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are chosen for prediction, and what takes their place.

    What takes a place is told by shares that add up to 1. The defaults are BERT's.
    """

    mask: float = 0.8
    """Share that becomes [MASK], 0 to 1."""
    random: float = 0.1
    """Share that becomes a token drawn from all but the special ones, 0 to 1."""
    keep: float = 0.1
    """Share that stays as it is, 0 to 1."""
    unit: Literal["token", "word", "span"] = field(default="token", metadata=LATER)
    """What is chosen at a time. `token`: each token by itself. `word`: all tokens of a word (Cui et
    al. 2021, arXiv 1906.08101). `span`: several words in a row, which become the same one of mask,
    random and keep (Joshi et al. 2020, arXiv 1907.10529). `mlm_probability` counts tokens under
    all."""
    geometric_p: float = field(default=0.2, metadata=LATER)
    """Parameter of the geometric distribution of a span's length in words, between 0 and 1. Only
    under unit span."""
    max_span: int = field(default=10, metadata=LATER)
    """The most words of a span, 1 to 65,536: longer ones are not drawn. Only under unit span."""

    def __post_init__(self) -> None:
        where = "data.masking"
        check_range(self, f"{where}.", 0, 1, "mask", "random", "keep")
        total = self.mask + self.random + self.keep
        shares = f"mask {self.mask:g}, random {self.random:g} and keep {self.keep:g}"
        adds_up = math.isclose(total, 1, abs_tol=1e-6)
        expect(adds_up, where, f"{shares}, {total:g} together", "shares that add up to 1")
        units = ("token", "word", "span")
        expect(self.unit in units, f"{where}.unit", repr(self.unit), "token, word or span")
        check_range(self, f"{where}.", 1, 2**16, "max_span")
        p = self.geometric_p
        expect(0 < p < 1, f"{where}.geometric_p", p, "a number between 0 and 1")
        # What would have no effect is a mistake.
        for name, default in (("geometric_p", 0.2), ("max_span", 10)):
            value = getattr(self, name)
            is_used = self.unit == "span" or value == default
            expect(is_used, f"{where}.{name}", f"{value} under unit {self.unit}", "unit span")

    def identity(self) -> dict[str, Any]:
        """Return the settings that masks depend on besides their number; empty where they are
        BERT's.

        What was stored before there was a choice is named as it was then.
        """
        if self == MaskingConfig():
            return {}
        return to_dict(self)


def predictions(seq_len: int, mlm_probability: float) -> int:
    """Return the masked positions that a sequence may need.

    The share is of the whole sequence, rounded up: [CLS] and [SEP] are never masked, so it does not
    bite. At most all other tokens.

    Args:
        seq_len: tokens of a sequence, [CLS] and [SEP] included.
        mlm_probability: share of the tokens that are masked.
    """
    return max(1, min(math.ceil(mlm_probability * seq_len), seq_len - 2))


@dataclass(frozen=True)
class DataConfig:
    """The corpus: from raw text to fixed-length sequences."""

    files: str | tuple[str, ...] = ()
    """The text: paths or globs of .txt, .train, .dev or .test (see `documents`), .jsonl (one record
    a line) or .json (a list or a mapping of records), each perhaps .gz, .bz2, .xz or .zst, and of
    .parquet (one record a row). `tfds:DIRECTORY:SPLIT` is a data set that TFDS prepared,
    `package:NAME/PATH` a file in an installed package,
    `hf://datasets/OWNER/NAME@REVISION/PATH` one of the Hugging Face Hub; `https://`, `s3://` and
    `gs://` are read too."""
    text_field: str | tuple[str, ...] = ("text", "extract")
    """Name of the field, column or feature that holds the text. With several names, the first one
    present in a record counts."""
    documents: Literal["paragraphs", "lines", "files"] = "paragraphs"
    """What a document of a text file is: what stands between blank lines, a line, or the file."""
    unusable: Literal["refuse", "skip"] = "refuse"
    """What happens to a record without a usable text: null, absent, no text but a number or a list,
    invalid Unicode, or too long. An empty text is left out in any case. `skip` leaves them out and
    counts them; `refuse` ends the command."""
    deduplicate: bool = False
    """Whether a document whose text an earlier one has, character for character, is left out."""
    tokenizer: TokenizerConfig | str = ""
    """A Hugging Face tokenizer.json or the directory of a tokenizer (path, package:NAME/PATH,
    hf://OWNER/NAME@REVISION/PATH, or hf:OWNER/NAME@REVISION for that of a repository of the Hub),
    or settings to train one on this text, for instance {train: wordpiece, size: 512}. Empty: the
    one beside the teacher's weights."""
    teacher_tokenizer: str = field(default="", metadata=LATER)
    """Tokenizer of a teacher with another vocabulary than the student's: a path, package:NAME/PATH
    or a name on the Hub, as for `tokenizer`. Each model reads the text by its own, and objectives
    compare hidden states over the words that both have. Needs `masking.unit` word or span. Empty:
    the teacher reads the student's tokens."""
    teacher_seq_len: int = field(default=0, metadata=LATER)
    """Tokens of a sequence by `teacher_tokenizer`, [CLS] and [SEP] included, 8 to 65,536; 0: as
    many as `seq_len`. A sequence is cut where either is full."""
    seq_len: int = 128
    """Tokens of a sequence, [CLS] and [SEP] included, 8 to 65,536."""
    packing: Literal["best_fit", "none"] = field(default="best_fit", metadata=LATER)
    """What a sequence holds. `best_fit`: documents, or pieces of them, that fill it together, each
    of which attention stays inside. `none`: one piece of one document, and padding."""
    max_predictions: int = 0
    """The most masked positions of a sequence. Every sequence has so many slots, so that shapes are
    fixed; unused ones get weight 0. Unset, or 0: `mlm_probability` of `seq_len`, rounded up, 20 of
    128. Else at least as many as `mlm_probability` asks for of a full sequence, less than
    `seq_len`. Where `mlm_probability_start` is higher, it counts."""
    mlm_probability: float = 0.15
    """Share of a sequence's tokens that are masked, between 0 and 1; never special tokens or
    padding. The default is BERT's."""
    mlm_probability_start: float = field(default=0.0, metadata=LATER)
    """Masking rate at the start of a run's budget, from which it goes on a line to
    `mlm_probability` at the end (Ankner et al. 2023, arXiv 2305.15096), say from 0.3 to 0.15;
    between 0 and 1, or 0: the same throughout. Of runs' steps alone: teachers that are trained
    here, held-out text and probes have `mlm_probability`. Not under a budget of hours."""
    masking: MaskingConfig = MaskingConfig()
    """Which tokens are masked, and what takes their place."""
    mask_copies: int = 0
    """Mask views of a sequence, the same for every seed: epoch e of seed s sees view (e + s) modulo
    this number, up to 1,000,000. 0: new masks in every epoch and for every seed."""
    validation: float = 0.05
    """Share of documents held out, between 0 and 1, chosen by the hash of a document's identity."""
    regime: Literal["all", "unlimited", "limited"] = "all"
    """How much unique text there is. `all`: all of it, repeated where the budget outlasts it.
    `unlimited`: a budget that would repeat any of it is refused. `limited`: `unique_tokens` of it
    are taken and repeated."""
    unique_tokens: float = 0.0
    """The most tokens of the limited regime: `subset_seed` chooses whole sequences that hold no
    more together. Up to 1e18, only with the limited regime."""
    subset_seed: int = 0
    """Seed of the limited regime's choice of sequences, 0 to 2^32 - 1. Under one seed, a smaller
    subset lies within a larger one."""
    shard_documents: int = 4096
    """The most documents that are packed together into one shard; fewer where they have more than
    32 MiB together. 1 to 16,777,216."""
    workers: int = 0
    """Number of processes that prepare, up to 4,096; 0: one per core. Does not change the
    result."""
    prepared: str = ""
    """Directory of an already prepared corpus. Empty: the command prepares one in its output
    directory."""

    def __post_init__(self) -> None:
        # [CLS] and [SEP], and some text between them.
        check_range(self, "data.", 8, 2**16, "seq_len")
        # A recipe's words are checked as it is read, a program's only here.
        documents = ("paragraphs", "lines", "files")
        known = " or ".join(documents)
        expect(self.documents in documents, "data.documents", repr(self.documents), known)
        packings = ("best_fit", "none")
        expect(self.packing in packings, "data.packing", repr(self.packing), " or ".join(packings))
        is_known = self.unusable in ("refuse", "skip")
        expect(is_known, "data.unusable", repr(self.unusable), "refuse or skip")
        # Neither nothing nor all: both splits, and both kinds of tokens, are needed.
        for name in ("mlm_probability", "validation"):
            share = getattr(self, name)
            is_share = not isinstance(share, bool) and 0 < share < 1
            expect(is_share, f"data.{name}", share, "a share between 0 and 1")
        start = self.mlm_probability_start
        is_rate = not isinstance(start, bool) and 0 <= start < 1
        expect(is_rate, "data.mlm_probability_start", start, "a share between 0 and 1, or 0")
        self._settle_predictions()
        # 0 mask copies: new masks in every epoch.
        check_range(self, "data.", 0, 10**6, "mask_copies")
        check_range(self, "data.", 1, 2**24, "shard_documents")
        check_range(self, "data.", 0, 4096, "workers")
        check_range(self, "data.", 0, LARGEST_SEED, "subset_seed")
        check_range(self, "data.", 0, TOKENS_LIMIT, "unique_tokens")
        # What text there is, is looked up when it is read; a path that cannot be is refused now.
        files = (self.files,) if isinstance(self.files, str) else self.files
        for path in files:
            check_setting(path, "data.files", url=True, hub_file=True)
        if isinstance(self.tokenizer, str):
            check_setting(self.tokenizer, "data.tokenizer", hub_file=True, hub_repository=True)
        check_setting(self.prepared, "data.prepared")
        self._check_teacher_tokens()
        # Only the limited regime has a size, and it needs one.
        expect(
            (self.regime == "limited") == (self.unique_tokens > 0),
            "data.unique_tokens",
            f"{self.unique_tokens:g} under data.regime {self.regime!r}",
            "more than 0 with 'limited' and 0 without",
        )

    @property
    def own_seq_len(self) -> int:
        """Return the tokens of a sequence by the teacher's own tokenizer; 0 where it has none."""
        if not self.teacher_tokenizer:
            return 0
        return self.teacher_seq_len or self.seq_len

    def _check_teacher_tokens(self) -> None:
        """Check the settings of a teacher that reads tokens of its own.

        Raises:
            InputError: its sequences' length is out of range or without such a teacher, there is no
                tokenizer of the student's own, or tokens are masked one by one.
        """
        check_range(self, "data.", 0, 2**16, "teacher_seq_len")
        if not self.teacher_tokenizer:
            length = self.teacher_seq_len
            expected = "0 without data.teacher_tokenizer"
            expect(not length, "data.teacher_seq_len", length, expected)
            return
        name = "data.teacher_tokenizer"
        check_setting(self.teacher_tokenizer, name, hub_file=True, hub_repository=True)
        expect(
            self.tokenizer != "",
            "data.tokenizer",
            f"empty, the teacher's, and {name} {self.teacher_tokenizer!r}",
            f"the student's own tokenizer, or no {name}",
        )
        # What is hidden from one model is hidden from the other, and words are what both have.
        expect(
            self.masking.unit != "token",
            "data.masking.unit",
            f"'token' under {name}",
            "word or span: words are hidden from both models or from neither",
        )
        if self.teacher_seq_len:
            check_range(self, "data.", 8, 2**16, "teacher_seq_len")

    @property
    def highest_mlm_probability(self) -> float:
        """Return the highest masking rate of any step, which shapes follow from."""
        return max(self.mlm_probability, self.mlm_probability_start)

    def _settle_predictions(self) -> None:
        """Set `max_predictions` where nobody has.

        Raises:
            InputError: it is out of range, or fewer than the masking rate asks for.
        """
        check_range(self, "data.", 0, self.seq_len - 1, "max_predictions")
        if not self.max_predictions:
            # The dataclass is frozen; this is still its construction.
            following = predictions(self.seq_len, self.highest_mlm_probability)
            object.__setattr__(self, "max_predictions", following)
            return
        # As many as masking would choose in a sequence that one document fills.
        highest = self.highest_mlm_probability
        needed = max(1, round(highest * (self.seq_len - 2)))
        if self.max_predictions < needed:
            name = "mlm_probability_start" if highest > self.mlm_probability else "mlm_probability"
            raise InputError(
                f"data.max_predictions is {self.max_predictions} and data.{name} {highest:g} of "
                f"data.seq_len {self.seq_len}, expected at least {needed}, or no "
                "data.max_predictions: it follows from the others then"
            )
