"""tokenizer_config.json, by which transformers knows how a directory's tokenizer.json is read.

Without it transformers takes the tokenizer's class from config.json's `model_type` and builds it
anew with that class's own casing and accents: a cased tokenizer then gives other ids. With
`PreTrainedTokenizerFast` it takes tokenizer.json as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.storage.files import read_json
from kdjax.tokenizers import tokenizer_json
from kdjax.tokenizers.special_tokens import KEYS, find_roles

TOKENIZER = "tokenizer.json"
NAME = "tokenizer_config.json"


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


def tokenizer_config(content: Any, model: ModelConfig, path: Path) -> dict[str, Any]:
    """Build the content of tokenizer_config.json.

    Args:
        content: content of the tokenizer.json.
        model: model that reads the tokens, for the longest sequence and its inputs.
        path: the tokenizer.json, there or where it was copied from, whose companions name its
            special tokens.

    Raises:
        InputError: the tokenizer.json is no JSON object.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a Hugging Face tokenizer.json, found {content!r:.40}")
    inputs = ["input_ids", "attention_mask"]
    if model.type_vocab_size > 1:
        inputs.insert(1, "token_type_ids")
    roles = find_roles(content, path, tokenizer_json.entries(content))
    special = {keys[0]: roles[role] for role, keys in KEYS.items() if role in roles}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_normalization(content),
        "model_max_length": model.max_positions,
        "model_input_names": inputs,
        **special,
    }


def padding_token(content: Any, path: Path) -> int | None:
    """Return the id of the entry that a tokenizer pads by; None where none can be told.

    Args:
        content: content of the tokenizer.json.
        path: the tokenizer.json, whose companions name its special tokens.
    """
    if not isinstance(content, dict):
        return None
    entries = tokenizer_json.entries(content)
    token = entries.get(find_roles(content, path, entries).get("pad", ""))
    if not isinstance(token, int):
        return None
    return token


def _normalization(content: Mapping[str, Any]) -> dict[str, bool | None]:
    """Return a tokenizer's treatment of capitals, accents and Chinese characters.

    `strip_accents` is None where accents go as capitals do.
    """
    settings: dict[str, bool | None] = {
        "do_lower_case": False,
        "strip_accents": False,
        "tokenize_chinese_chars": False,
    }
    for step in tokenizer_json.steps(content.get("normalizer")):
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
