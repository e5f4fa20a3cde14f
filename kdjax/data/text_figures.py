"""What is known of a corpus's text besides its sequences: how a tokenizer takes it, what was left
out of it, what repeats; and what of this makes it doubtful or useless."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kdjax.errors import counted
from kdjax.text.reading_notes import layout_hints, unusable_in_words
from kdjax.text.streams import TextError

DOUBTFUL_UNKNOWN = 0.02
"""Share of [UNK] that is warned of: far above the thousandths of a tokenizer that fits its text."""
MOST_UNKNOWN = 0.5
"""Share of [UNK] above which text is refused. [UNK] is never masked nor predicted, and a neighbour
that is [UNK] says nothing of a token: beyond a half, most of the text is neither question nor
hint."""
SAME_IDENTITY = 0.1
"""Share of documents with one identity that is warned of: they all are in one split."""
REPEATED = 0.01
"""Share of documents with the text of an earlier one that is warned of; some repeat everywhere."""
FEW_DOCUMENTS = 10
"""Fewer documents with one identity are passed over, whatever their share."""
_PARTS = {"train": "training ", "validation": "held-out "}
"""Words before a split's tokens."""


@dataclass(frozen=True)
class TextFigures:
    """Counts of a corpus's text; those by split have the keys `train` and `validation`.

    Attributes:
        words: split -> words, between white space.
        characters: split -> characters.
        unknown: split -> [UNK] among the text's tokens.
        unusable: kind -> records that were left out; see `kdjax.text.reading_notes`.
        layouts: kind -> text files that look as if they had another layout.
        repeated: documents whose text an earlier one has.
        moved: those of them that are in another split than their identity says.
        removed: those of them that were left out.
        same_identity: documents that share one key, id or title; perhaps some more do.
    """

    words: dict[str, int]
    characters: dict[str, int]
    unknown: dict[str, int]
    unusable: dict[str, int]
    layouts: dict[str, int]
    repeated: int
    moved: int
    removed: int
    same_identity: int

    def unknown_shares(self, text_tokens: Mapping[str, int]) -> dict[str, float]:
        """Return the share of [UNK] among the tokens of each split that has some.

        Args:
            text_tokens: split -> tokens of the text alone.
        """
        return {
            split: self.unknown[split] / tokens for split, tokens in text_tokens.items() if tokens
        }

    def rates(self, text_tokens: Mapping[str, int]) -> tuple[float, float]:
        """Return the tokens a word and the tokens a character, of all splits together.

        Args:
            text_tokens: split -> tokens of the text alone.
        """
        tokens = sum(text_tokens.values())
        words = max(1, sum(self.words.values()))
        return tokens / words, tokens / max(1, sum(self.characters.values()))

    def rates_in_words(self, text_tokens: Mapping[str, int]) -> str:
        """Return the tokens a word and a character as the end of a sentence."""
        by_word, by_character = self.rates(text_tokens)
        return f", {by_word:.2f} tokens a word and {by_character:.2f} a character"

    def warnings(self, documents: int) -> Iterator[str]:
        """Yield a sentence for all that a reader should know before the text is used.

        Args:
            documents: documents of the corpus, without those that were left out.
        """
        if left_out := unusable_in_words(self.unusable):
            yield left_out
        yield from layout_hints(self.layouts)
        if self.removed:
            yield f"documents left out, as an earlier one has their text: {self.removed:,}"
        elif self.repeated and self.repeated >= REPEATED * documents:
            # Training and held-out text share none, even where ids would have it otherwise.
            moved = ""
            if self.moved:
                moved = f", {self.moved:,} of them although their key, id or title says the other"
            verb = "repeats" if self.repeated == 1 else "repeat"
            yield (
                f"{counted(self.repeated, 'document')} {verb} the text of an earlier one, and "
                f"{'is' if self.repeated == 1 else 'are'} in the same split as that one{moved}; "
                "data.deduplicate leaves such documents out"
            )
        read = documents + self.removed
        if self.same_identity >= max(FEW_DOCUMENTS, SAME_IDENTITY * read):
            yield (
                f"at least {self.same_identity:,} of {read:,} documents have the same key, id or "
                "title, and all of these are in one split; expected one of its own for each, or "
                "none"
            )


def unknown_warning(shares: Mapping[str, float]) -> str:
    """Return a sentence for text of which much is [UNK]; empty where little is.

    Args:
        shares: split -> share of [UNK] among its tokens.
    """
    worst = max(shares.values(), default=0.0)
    if worst < DOUBTFUL_UNKNOWN:
        return ""
    return (
        f"{_in_words(shares)}, expected below {DOUBTFUL_UNKNOWN:.0%}: they teach nothing; is the "
        "tokenizer one for this language and script? data.tokenizer can train one"
    )


def check_unknown(shares: Mapping[str, float], where: str) -> None:
    """Refuse text of which nothing can be learned with this tokenizer.

    Args:
        shares: split -> share of [UNK] among its tokens.
        where: the text, for the message.

    Raises:
        TextError: more than `MOST_UNKNOWN` of a split's tokens are [UNK].
    """
    if max(shares.values(), default=0.0) <= MOST_UNKNOWN:
        return
    raise TextError(
        f"{where}: {_in_words(shares)}, expected at most {MOST_UNKNOWN:.0%}: [UNK] is never "
        "predicted and says nothing of its neighbours, so too little is left to learn; expected a "
        "tokenizer of the text's language and script, or one that is trained on it with enough "
        "data.tokenizer.alphabet"
    )


def _in_words(shares: Mapping[str, float]) -> str:
    """Return the share of [UNK] of the worst split."""
    split = max(shares, key=lambda name: shares[name])
    part = _PARTS.get(split, "")
    return f"{shares[split]:.1%} of the {part}tokens are [UNK]"
