"""The files of an exported model: those of transformers, and those of sentence-transformers beside
them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from kdjax.errors import InputError
from kdjax.models import Model
from kdjax.models.families.task_heads import FinetunedHead
from kdjax.models.hf import WRITTEN, write_files
from kdjax.study.export.exported_tokenizer import adapt_tokenizer

Format = Literal["transformers", "sentence-transformers"]
"""Libraries that an exported directory is for."""
SENTENCE_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
_POOLING = "1_Pooling"
FILES = (
    *WRITTEN,
    *SENTENCE_FILES,
    f"{_POOLING}/config.json",
)
"""All files that an export may have; of an earlier one in the same place those that a new one lacks
go."""
_MODULES = (
    ("", "sentence_transformers.models.Transformer"),
    (_POOLING, "sentence_transformers.models.Pooling"),
)
"""Modules of a sentence-transformers model: the folder that holds each, and its class."""


def write_directory(
    directory: Path,
    model: Model,
    *,
    tokenizer: Path,
    card: str,
    head: FinetunedHead | None = None,
    library: Format = "transformers",
    seq_len: int = 0,
) -> None:
    """Write an exported model to a directory that is there and empty.

    Args:
        directory: directory to write to.
        model: an encoder, with an MLM head where it is to have one.
        tokenizer: path of its tokenizer.json.
        card: the text of README.md.
        head: head for a task, in place of the MLM head.
        library: library that the directory is for.
        seq_len: tokens of the sequences that the model was trained on; sentence-transformers cuts
            texts there.

    Raises:
        InputError: the tokenizer is damaged.
        OSError: a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        write_files(directory, model, tokenizer=tokenizer, card=card, head=head)
    except SafetensorError as e:
        raise InputError(f"{directory}: the weights cannot be written: {e}") from None
    adapt_tokenizer(directory, tokenizer, model.config)
    if library == "sentence-transformers":
        _write_sentence_files(directory, model, seq_len)


def _write_sentence_files(directory: Path, model: Model, seq_len: int) -> None:
    """Write the other files of sentence-transformers: the mean over the last layer's tokens."""
    modules = []
    for number, (folder, kind) in enumerate(_MODULES):
        modules.append({"idx": number, "name": str(number), "path": folder, "type": kind})
    pooling = {
        "word_embedding_dimension": model.config.width,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": False,
        "include_prompt": True,
    }
    # Capitals are the tokenizer's business.
    transformer = {"max_seq_length": seq_len, "do_lower_case": False}
    general: dict[str, Any] = {
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    (directory / _POOLING).mkdir()
    _write(directory / _POOLING / "config.json", pooling)
    for name, content in zip(SENTENCE_FILES, (modules, transformer, general), strict=True):
        _write(directory / name, content)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
