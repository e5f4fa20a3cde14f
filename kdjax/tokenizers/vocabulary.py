"""Check that a tokenizer's ids mean the same to a model, entry by entry."""

from __future__ import annotations

import re
from pathlib import Path

from kdjax.errors import InputError
from kdjax.storage import hub
from kdjax.text.streams import lines
from kdjax.tokenizers.text_tokenizer import read_backend
from kdjax.tokenizers.tokenizer_files import find_tokenizer

_UNUSED = re.compile(r"\[(unused|pad)_?\d+\]|madeupword\d+", re.IGNORECASE)
"""Entries that vocabularies keep free or are padded with, such as [unused99]."""


def check(tokenizer: Path, directory: Path, vocab_size: int) -> None:
    """Compare the corpus's tokenizer with a model's.

    Args:
        tokenizer: path of the tokenizer.json that the corpus was made with.
        directory: the model's Hugging Face directory; its tokenizer.json, else its vocab.txt, else
            what its other files are converted to (`kdjax.tokenizers.tokenizer_files`), is compared.
        vocab_size: entries of the model's word embedding, which are compared in any case.

    One may have entries that the other lacks where no text becomes them, such as `[unused99]`.

    Raises:
        InputError: more entries than the model's word embedding, the first entry that differs, or a
            file that is no tokenizer.
    """
    ours = _entries(read_backend(tokenizer).get_vocab(with_added_tokens=True))
    if max(ours) >= vocab_size:
        raise InputError(
            f"{tokenizer}: has {max(ours) + 1} entries, expected those of {directory}, whose word "
            f"embedding has {vocab_size}"
        )
    theirs = _vocabulary_of(directory)
    if not theirs:
        return
    for index in sorted(ours.keys() | theirs.keys()):
        here = ours.get(index)
        there = theirs.get(index)
        is_unused = None in (here, there) and _UNUSED.fullmatch(here or there or "")
        if here != there and not is_unused:
            raise InputError(
                f"{tokenizer}: entry {index} is {here!r}, expected {there!r} as in {directory}"
            )


def _vocabulary_of(directory: Path) -> dict[int, str]:
    """Read the entries of a model's own vocabulary; none where its directory has no tokenizer."""
    file = directory / "tokenizer.json"
    if file.is_file():
        return _entries(read_backend(file).get_vocab(with_added_tokens=True))
    # A line an entry, as BERT's own code has it.
    file = directory / "vocab.txt"
    if file.is_file():
        return {number - 1: line for number, line in lines(file)}
    if any((directory / name).is_file() for name in hub.VOCABULARY_FILES):
        return _entries(read_backend(find_tokenizer(directory)).get_vocab(with_added_tokens=True))
    return {}


def _entries(vocabulary: dict[str, int]) -> dict[int, str]:
    return {index: token for token, index in vocabulary.items()}
