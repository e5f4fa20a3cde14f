"""tokenizer_config.json, by which transformers knows how a directory's tokenizer.json is read.

Without it transformers takes the tokenizer's class from config.json's `model_type` and builds it
anew with that class's own casing and accents: a cased tokenizer then gives other ids. With
`PreTrainedTokenizerFast` it takes tokenizer.json as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.storage.files import read_json

TOKENIZER = "tokenizer.json"
NAME = "tokenizer_config.json"
_ROLES = ("pad", "unk", "cls", "sep", "mask")
"""Roles of special tokens in transformers; BERT's token of each is the role in capitals."""


def write_tokenizer_config(directory: Path, tokenizer: Path, model: ModelConfig) -> None:
    """Write the tokenizer_config.json of a directory that holds a tokenizer.json.

    Args:
        directory: directory to write to.
        tokenizer: the tokenizer.json, there or where it was copied from.
        model: model that reads the tokens, for the longest sequence and its inputs.

    Raises:
        InputError: the tokenizer.json is not what its name says.
        OSError: the file cannot be written.
    """
    settings = tokenizer_config(read_json(tokenizer), model, tokenizer)
    text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
    (directory / NAME).write_text(text, encoding="utf-8")


def tokenizer_config(content: Any, model: ModelConfig, where: object) -> dict[str, Any]:
    """Build the content of tokenizer_config.json.

    Args:
        content: content of the tokenizer.json beside it.
        model: model that reads the tokens, for the longest sequence and its inputs.
        where: the tokenizer.json, for messages.

    Raises:
        InputError: the tokenizer.json is no JSON object.
    """
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a Hugging Face tokenizer.json, found {content!r:.40}")
    inputs = ["input_ids", "attention_mask"]
    if model.type_vocab_size > 1:
        inputs.insert(1, "token_type_ids")
    tokens = _tokens(content)
    special = {f"{role}_token": f"[{role.upper()}]" for role in _ROLES}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_normalization(content),
        "model_max_length": model.max_positions,
        "model_input_names": inputs,
        **{role: token for role, token in special.items() if token in tokens},
    }


def padding_token(content: Any) -> int | None:
    """Return the id of a tokenizer.json's padding token, [PAD] or <pad>; None where it has none."""
    if not isinstance(content, dict):
        return None
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids: dict[str, Any] = {}
    if isinstance(vocabulary, dict):
        ids |= vocabulary
    elif isinstance(vocabulary, list):
        # A Unigram model: pairs of a token and its score
        ids |= {str(pair[0]): n for n, pair in enumerate(vocabulary)}
    for added in content.get("added_tokens") or ():
        if isinstance(added, dict):
            ids[str(added.get("content"))] = added.get("id")
    for name in ("[PAD]", "<pad>"):
        if isinstance(ids.get(name), int):
            return int(ids[name])
    return None


def _normalization(content: Mapping[str, Any]) -> dict[str, bool | None]:
    """Return what a tokenizer does with capitals, accents and Chinese characters.

    `strip_accents` is None where accents go as capitals do.
    """
    settings: dict[str, bool | None] = {
        "do_lower_case": False,
        "strip_accents": False,
        "tokenize_chinese_chars": False,
    }
    for step in _steps(content.get("normalizer")):
        kind = step.get("type")
        if kind == "BertNormalizer":
            settings["do_lower_case"] = bool(step.get("lowercase", True))
            settings["strip_accents"] = step.get("strip_accents")
            settings["tokenize_chinese_chars"] = bool(step.get("handle_chinese_chars", True))
        elif kind == "Lowercase":
            settings["do_lower_case"] = True
        elif kind == "StripAccents":
            settings["strip_accents"] = True
    return settings


def _steps(normalizer: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a normalizer, in order, also of sequences within sequences."""
    if not isinstance(normalizer, dict):
        return
    if normalizer.get("type") != "Sequence":
        yield normalizer
        return
    for step in normalizer.get("normalizers") or ():
        yield from _steps(step)


def _tokens(content: Mapping[str, Any]) -> set[str]:
    """Return a tokenizer's entries, those that were added included."""
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens = set(vocabulary) if isinstance(vocabulary, dict) else set()
    for added in content.get("added_tokens") or ():
        if isinstance(added, dict):
            tokens.add(str(added.get("content")))
    return tokens
