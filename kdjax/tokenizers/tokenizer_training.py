"""Train a tokenizer on a corpus: the same text gives the same bytes.

What differs between kinds has a file each: `wordpiece`, `byte_level_bpe`, `unigram`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdjax.config import DataConfig, ModelConfig, TokenizerConfig
from kdjax.errors import InputError
from kdjax.text import sources
from kdjax.text.document import ReadSettings
from kdjax.text.reading_notes import ReadingNotes
from kdjax.text.repeats import RepeatFinder
from kdjax.text.streams import TextError
from kdjax.tokenizers import byte_level_bpe, unigram, wordpiece
from kdjax.tokenizers.tokenizer_config import TOKENIZER, write_tokenizer_config

Texts = Callable[[], Iterable[str]]
"""The texts, from the first one at every call."""
_TRAINERS = {
    "wordpiece": wordpiece.train,
    "bpe": byte_level_bpe.train,
    "unigram": unigram.train,
}
"""`data.tokenizer.train` -> what trains it: settings and texts to tokenizer and uncovered share."""


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
    """Train a tokenizer of the kind that is asked for.

    Args:
        config: kind, size and alphabet.
        texts: texts to train on; they are read once or twice, as a stream.
        where: their source, for messages.

    Raises:
        TextError: the texts have too few different words to fill the vocabulary.
        InputError: a library is missing that the kind needs.
    """
    tokenizer, uncovered = _TRAINERS[config.train](config, texts)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    # Too little text leaves entries empty; the models have a row for each.
    if size != config.size:
        raise TextError(
            f"{where}: the training text has words for {size:,} entries, expected "
            f"data.tokenizer.size, {config.size:,}: more text or a smaller size"
        )
    return TrainedTokenizer(tokenizer.to_str(pretty=True) + "\n", size, uncovered)


def training_texts(config: DataConfig) -> Iterator[str]:
    """Yield the texts of a corpus's training documents, in order, without those that are held out.

    Raises:
        TextError: unusable text; see `kdjax.text.sources.documents`.
    """
    settings = ReadSettings.from_config(config)
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
