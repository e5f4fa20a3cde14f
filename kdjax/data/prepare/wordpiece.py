"""Train a WordPiece tokenizer on a corpus: the same text gives the same bytes.

The entries are merged by the tokenizers library, pair by pair, the most frequent pair first. By
itself its result depends on the order in which a hash table hands it words: characters get their
numbers in that order, and pairs that are equally frequent are told apart by these numbers. So
characters are counted and numbered here, before it begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from kdjax.config import DataConfig, ModelConfig, TokenizerConfig
from kdjax.data.prepare.repeats import RepeatFinder
from kdjax.data.text import sources
from kdjax.data.text.notes import ReadingNotes
from kdjax.data.text.sources import ReadSettings
from kdjax.data.text.streams import TextError
from kdjax.data.tokenizer import SPECIAL_NAMES
from kdjax.errors import InputError
from kdjax.tokenizer_config import TOKENIZER, write_tokenizer_config

CONTINUING = "##"
"""Begins an entry that stands within a word, not at its beginning."""
LONGEST_WORD = 100
"""Characters; a longer word is [UNK], as in BERT."""

Texts = Callable[[], Iterable[str]]
"""The texts, from the first one at every call."""


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer that was trained.

    Attributes:
        json: the content of its tokenizer.json.
        size: number of entries, special tokens included.
        uncovered: share of the training text's characters, white space aside, that have no entry.
    """

    json: str
    size: int
    uncovered: float


def train(config: TokenizerConfig, texts: Texts, where: str) -> TrainedTokenizer:
    """Train a lowercase WordPiece tokenizer, with BERT's word splitter and normalizer.

    The normalizer strips accents.

    Entries are, in this order: the special tokens, the most frequent characters by code point, the
    same characters as they continue a word, and what the trainer merges of these.

    Args:
        config: kind, size and alphabet.
        texts: texts to train on; they are read twice, as a stream.
        where: their source, for messages.

    Raises:
        TextError: the texts have too few different words to fill the vocabulary.
    """
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    # The most frequent characters get entries; ties are broken by code point.
    counts = _count_characters(tokenizer.normalizer, texts())
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    alphabet = sorted(ranked[: config.characters])
    continuing = [
        CONTINUING + character for character in alphabet if _continues(tokenizer, character)
    ]

    # The trainer numbers what it takes for special tokens in the order given, before it looks at
    # any word.
    fixed = [*SPECIAL_NAMES, *alphabet, *continuing]
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
    if len(vocabulary) != config.size:
        raise TextError(
            f"{where}: the training text has words for {len(vocabulary):,} entries, expected "
            f"data.tokenizer.size, {config.size:,}: more text or a smaller size"
        )

    # Only the first five are special: the tokenizer is built anew from the entries alone.
    covered = sum(counts[character] for character in alphabet)
    uncovered = 1 - covered / sum(counts.values())
    return TrainedTokenizer(_tokenizer_json(vocabulary), len(vocabulary), uncovered)


def training_texts(config: DataConfig) -> Iterator[str]:
    """Yield the texts of a corpus's training documents, in order, without those that are held out.

    Raises:
        TextError: unusable text; see `kdjax.data.text.sources.documents`.
    """
    settings = ReadSettings.of(config)
    repeats = RepeatFinder(deduplicate=config.deduplicate)
    for source in sources.expand(config.files):
        documents = sources.documents_of(source, settings, ReadingNotes())
        for document in repeats.split(documents, config.validation):
            if not document.held_out:
                yield document.text


def train_on_corpus(config: DataConfig) -> TrainedTokenizer:
    """Train the tokenizer that `data.tokenizer` describes on the training part of `data.files`.

    Raises:
        TextError: unusable text, or too little of it.
        InputError: `data.tokenizer` is a path.
    """
    if not isinstance(config.tokenizer, TokenizerConfig):
        raise InputError(
            f"data.tokenizer is {config.tokenizer!r}, expected how one is trained, for instance "
            "{train: wordpiece, size: 512}"
        )
    files = [config.files] if isinstance(config.files, str) else config.files
    return train(config.tokenizer, lambda: training_texts(config), ", ".join(files))


def write_directory(trained: TrainedTokenizer, directory: Path, model: ModelConfig) -> None:
    """Write a directory that `transformers.AutoTokenizer` reads.

    Args:
        trained: tokenizer that was trained, with its vocabulary.
        directory: empty directory to write to.
        model: model that reads the tokens.
    """
    path = directory / TOKENIZER
    path.write_text(trained.json, encoding="utf-8")
    write_tokenizer_config(directory, path, model)


def _count_characters(normalizer: normalizers.Normalizer, texts: Iterable[str]) -> Counter[str]:
    """Count the characters of normalized texts, white space aside."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    for space in list(filter(str.isspace, counts)):
        del counts[space]
    return counts


def _continues(tokenizer: tokenizers.Tokenizer, character: str) -> bool:
    """Return whether a character can stand within a word; punctuation is a word of its own."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(f"a{character}")) == 1


def _tokenizer_json(vocabulary: dict[str, int]) -> str:
    """Build the tokenizer.json of a BERT tokenizer with these entries."""
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
    tokenizer.add_special_tokens(list(SPECIAL_NAMES))
    return str(tokenizer.to_str(pretty=True)) + "\n"
