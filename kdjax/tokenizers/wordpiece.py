"""Train a WordPiece tokenizer, BERT's kind.

The entries are merged by the tokenizers library, pair by pair, the most frequent pair first. By
itself its result depends on the order in which a hash table hands it words: characters get their
numbers in that order, and pairs that are equally frequent are told apart by these numbers. So
characters are counted and numbered here, before it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from kdjax.config import TokenizerConfig
from kdjax.tokenizers.alphabet import count_characters, most_frequent

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens, in the order of their ids."""
CONTINUING = "##"
"""Begins an entry that stands within a word, not at its beginning."""
LONGEST_WORD = 100
"""Characters; a longer word is [UNK], as in BERT."""


def train(
    config: TokenizerConfig, texts: Callable[[], Iterable[str]]
) -> tuple[tokenizers.Tokenizer, float]:
    """Train a lowercase WordPiece tokenizer, with BERT's word splitter and normalizer.

    The normalizer strips accents.

    Entries are, in this order: the special tokens, the most frequent characters by code point, the
    same characters as they continue a word, and what the trainer merges of these.

    Args:
        config: kind, size and alphabet.
        texts: texts to train on, from the first one at every call; they are read twice.

    Returns:
        The tokenizer, which has fewer entries where the texts have too few different words; and the
        share of the texts' characters, white space aside, that have no entry.
    """
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    # The most frequent characters get entries.
    counts = count_characters(tokenizer.normalizer, texts())
    alphabet, uncovered = most_frequent(counts, config.characters)
    continuing = [
        CONTINUING + character for character in alphabet if _continues(tokenizer, character)
    ]

    # The trainer numbers what it takes for special tokens in the order given, before it looks at
    # any word.
    fixed = [*SPECIAL, *alphabet, *continuing]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.size,
        min_frequency=0,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUING,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)

    # Only the first five are special: the tokenizer is built anew from the entries alone.
    return _tokenizer_of(vocabulary), uncovered


def _continues(tokenizer: tokenizers.Tokenizer, character: str) -> bool:
    """Return whether a character can stand within a word; punctuation is a word of its own."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(f"a{character}")) == 1


def _tokenizer_of(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    """Build a BERT tokenizer with these entries."""
    model = models.WordPiece(
        vocabulary,
        unk_token="[UNK]",
        continuing_subword_prefix=CONTINUING,
        max_input_chars_per_word=LONGEST_WORD,
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUING)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
