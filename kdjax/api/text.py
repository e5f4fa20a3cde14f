"""Text to train on: prepared, and how it was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdjax.config import DataConfig, TokenizerConfig
from kdjax.data.corpus import Corpus
from kdjax.data.prepare import local
from kdjax.data.prepare.preparation import TOKENIZER
from kdjax.errors import InputError
from kdjax.storage.paths import local_path, path_text
from kdjax.tokenizers.tokenizer_files import locate_tokenizer


@dataclass(frozen=True)
class PreparedText:
    """A prepared corpus, and how its sequences are masked.

    Attributes:
        corpus: tokenised, packed and sharded text, split into training and validation.
        settings: length, masking and split.
        tokenizer: the tokenizer.json it was prepared with.
    """

    corpus: Corpus
    settings: DataConfig
    tokenizer: Path


def prepare(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    tokenizer: str | Path | TokenizerConfig,
    seq_len: int = 128,
    max_predictions: int | None = None,
    mlm_probability: float = 0.15,
    mlm_probability_start: float = 0.0,
    validation: float = 0.05,
    text_field: str | Sequence[str] = DataConfig.text_field,
    documents: Literal["paragraphs", "lines", "files"] = "paragraphs",
    unusable: Literal["refuse", "skip"] = "refuse",
    deduplicate: bool = False,
    workers: int = 1,
) -> PreparedText:
    """Tokenise, pack and shard text, or find it done.

    One worker, the default, starts no other process, so that a plain script may call this at its
    top level. Several are faster on much text; each of them imports the script anew, which then has
    to call this under `if __name__ == "__main__":`.

    Args:
        files: paths or globs, as `data.files` of a recipe.
        out: the corpus's directory: new, empty, or an earlier preparation of the same text.
        tokenizer: a tokenizer.json, a directory that has a tokenizer, or how one is trained on this
            text.
        seq_len: tokens of a sequence.
        max_predictions: masked positions of a sequence, at most; None: as many as
            `mlm_probability` may need.
        mlm_probability: share of the tokens that are masked.
        mlm_probability_start: share of them when a run's budget begins, from which it goes on a
            line to `mlm_probability`; 0: the same throughout.
        validation: share of documents held out.
        text_field: name of the field, column or feature that holds the text; of several names, the
            first one present in a record counts.
        documents: what a document of a text file is: what stands between blank lines, a line, or
            the file.
        unusable: what happens to a record without a usable text: it ends the call, or it is left
            out and counted.
        deduplicate: whether a document whose text an earlier one has is left out.
        workers: number of processes that prepare; 0: one per core. Does not change the result.

    Raises:
        InputError: unusable text or tokenizer, or a directory that holds something else.

    Example:
        >>> data = kdjax.prepare("*.jsonl", "corpus", tokenizer="tokenizer.json", seq_len=32)
        >>> data.settings.seq_len, data.corpus.manifest.vocab_size
        (32, 53)
    """
    out = local_path(out, "out")
    if isinstance(files, (str, os.PathLike)):
        files = path_text(files, "files")
    elif isinstance(files, Sequence):
        files = tuple(path_text(path, "files") for path in files)
    else:
        raise InputError(f"files is {files!r:.80}, expected a path or a sequence of paths")
    if not isinstance(text_field, str):
        text_field = tuple(text_field)
    if not isinstance(tokenizer, TokenizerConfig):
        tokenizer = path_text(tokenizer, "tokenizer", "a tokenizer.json or a TokenizerConfig")
    settings = DataConfig(
        files=files,
        tokenizer=tokenizer,
        seq_len=seq_len,
        max_predictions=max_predictions or 0,
        mlm_probability=mlm_probability,
        mlm_probability_start=mlm_probability_start,
        validation=validation,
        text_field=text_field,
        documents=documents,
        unusable=unusable,
        deduplicate=deduplicate,
        workers=workers,
    )
    if isinstance(tokenizer, TokenizerConfig):
        local.prepare(settings, None, out)
        return PreparedText(Corpus.open(out), settings, out / TOKENIZER)
    tokenizer_file = locate_tokenizer(tokenizer)
    local.prepare(settings, tokenizer_file, out)
    return PreparedText(Corpus.open(out), settings, tokenizer_file)
