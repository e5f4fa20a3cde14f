"""The facts of a study's text, and of held-out text from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdjax.storage.typed_json import optional


@dataclass(frozen=True)
class CountedLosses:
    """A text's own cross-entropies; see `kdjax.data.prepare.ngram_losses`."""

    unigram: float
    left_neighbor: float
    both_neighbors: float
    tokens: int
    fitted_tokens: int
    held_out_tokens: int
    unknown: dict[str, float]


@dataclass(frozen=True)
class TokenRates:
    """How a tokenizer takes a text.

    Attributes:
        unknown: split -> share of [UNK] among the text's tokens.
        by_word: tokens a word, between white space.
        by_character: tokens a character.
    """

    unknown: dict[str, float]
    by_word: float
    by_character: float


@dataclass(frozen=True)
class TeacherTokenFacts:
    """How a teacher's own tokenizer takes a text; counts are by split.

    Attributes:
        vocabulary: number of its entries.
        tokenizer: SHA-256 of it.
        length: number of tokens in a sequence.
        tokens: tokens of the text alone.
        words: aligned words, which both models have.
        left_out: aligned words that are longer than a sequence.
    """

    vocabulary: int
    tokenizer: str
    length: int
    tokens: dict[str, int]
    words: dict[str, int]
    left_out: dict[str, int]


@dataclass(frozen=True)
class WholeText:
    """The size, by split, of a text of which runs may see a subset."""

    sequences: dict[str, int]
    tokens: dict[str, int]


@dataclass(frozen=True)
class TextFacts:
    """The facts of a held-out text from elsewhere."""

    documents: int
    sequences: int
    tokens: int
    digest: str


@dataclass(frozen=True)
class CorpusFacts:
    """The facts of a study's text.

    Attributes:
        regime: name of the regime, which says how much unique text there is.
        documents, sequences, tokens: split -> number that runs see.
        whole: size of the whole text.
        digest: SHA-256 that identifies the text.
        length: number of tokens in a sequence.
        views: number of mask copies of a sequence; 0: new masks in every epoch.
        vocabulary: number of the tokenizer's entries.
        tokenizer: SHA-256 of the tokenizer.
        ngram_losses: cross-entropies of the text itself; None where not counted.
        token_rates: how the tokenizer takes the whole text; None where not counted.
        texts: name -> held-out text from elsewhere.
        warnings: what makes the text doubtful, a sentence each; None where nothing does.
        teacher_tokens: how the teacher's own tokenizer takes the whole text; None where it reads
            the student's tokens.
    """

    regime: str
    documents: dict[str, int]
    sequences: dict[str, int]
    tokens: dict[str, int]
    whole: WholeText
    digest: str
    length: int
    views: int
    vocabulary: int
    tokenizer: str
    ngram_losses: CountedLosses | None = optional("reference_losses")
    token_rates: TokenRates | None = optional()
    texts: dict[str, TextFacts] = field(default_factory=dict)
    warnings: tuple[str, ...] | None = optional()
    teacher_tokens: TeacherTokenFacts | None = optional()
