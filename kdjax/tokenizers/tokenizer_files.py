"""Tokenizers in directories of other files than a tokenizer.json: these are converted, once.

What a conversion makes lies in the user's cache directory, named by the digest of all that it is
made of, as `tokenizer.json` and its companion.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from kdjax.errors import InputError
from kdjax.storage import hub
from kdjax.storage.files import digest
from kdjax.storage.paths import user_cache
from kdjax.text.sources import locate
from kdjax.text.streams import import_optional, sha256
from kdjax.tokenizers.special_tokens import COMPANIONS, KEYS, read_companion, usual_role_names
from kdjax.tokenizers.tokenizer_config import TOKENIZER

_EXPECTED = (
    f"{TOKENIZER}, vocab.txt, vocab.json and merges.txt, or one of {', '.join(hub.SENTENCEPIECE)}"
)
_BERT = ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizer")
_ROBERTA = ("RobertaTokenizer", "RobertaTokenizerFast", "BartTokenizer", "LongformerTokenizer")
"""Classes of transformers that are read without it: their files are all that they are made of."""


def locate_tokenizer(uri: str) -> Path:
    """Find a tokenizer.json: as `kdjax.text.sources.locate` does, or in a directory or
    repository that is named.

    Raises:
        InputError: a package or the Hub does not have it, or a directory has no tokenizer, or none
            that can be converted.
    """
    if hub.is_hub_name(uri):
        name = hub.parse(uri)
        # What is beside the file names its special tokens.
        if name.path in ("", TOKENIZER):
            return find_tokenizer(hub.tokenizer_directory(replace(name, path="")))
    return find_tokenizer(locate(uri))


def find_tokenizer(path: Path) -> Path:
    """Find the tokenizer.json that a path stands for: itself, or that of a directory.

    A directory without one may have BERT's `vocab.txt`, which needs `do_lower_case` in
    tokenizer_config.json; RoBERTa's `vocab.json` and `merges.txt`; or files that transformers
    converts, where it is installed: a sentencepiece model, or those of another class that
    tokenizer_config.json names. Whether a path that is no directory exists is not looked at.

    Raises:
        InputError: the directory has no tokenizer, or one that cannot be converted.
    """
    if not path.is_dir() or (path / TOKENIZER).is_file():
        if path.is_dir():
            return path / TOKENIZER
        return path
    if not any((path / name).is_file() for name in hub.VOCABULARY_FILES):
        raise InputError(f"{path}: holds no tokenizer, expected {_EXPECTED}")

    # The cache has what was made of these very files.
    named = [*hub.VOCABULARY_FILES, *COMPANIONS, "config.json", "added_tokens.json"]
    present = [name for name in named if (path / name).is_file()]
    content = {name: sha256(path / name) for name in present}
    converter = _converter(path)
    identity = {"files": content, "by": converter.__name__, "tokenizers": tokenizers.__version__}
    converted = user_cache() / "tokenizers" / digest(identity)[:32]
    if not (converted / TOKENIZER).is_file():
        _write(converted, *converter(path))
    return converted / TOKENIZER


Converted = tuple[tokenizers.Tokenizer, Mapping[str, str]]
"""A tokenizer, and its special tokens by transformers' keys."""


def _converter(path: Path) -> Callable[[Path], Converted]:
    """Choose what converts a directory's files."""
    named_class = _settings(path).get("tokenizer_class")
    if (path / "vocab.txt").is_file() and named_class in (None, *_BERT):
        return _bert
    has_pairs = (path / "vocab.json").is_file() and (path / "merges.txt").is_file()
    if has_pairs and named_class in (None, *_ROBERTA):
        return _roberta
    return _by_transformers


def _settings(path: Path) -> Mapping[str, Any]:
    """Read a directory's tokenizer_config.json; empty where there is none."""
    file = path / COMPANIONS[0]
    if not file.is_file():
        return {}
    return read_companion(file)


def _bert(path: Path) -> Converted:
    """Build BERT's WordPiece tokenizer of a vocab.txt.

    Raises:
        InputError: nothing says whether capitals are lowered, or a special token is no entry.
    """
    settings = _settings(path)
    lowercase = settings.get("do_lower_case")
    if not isinstance(lowercase, bool):
        raise InputError(
            f"{path / COMPANIONS[0]}: do_lower_case is {lowercase!r}, expected true or false: "
            "vocab.txt does not say whether capitals are lowered"
        )
    try:
        vocabulary = models.WordPiece.read_file(str(path / "vocab.txt"))
    except Exception as e:  # the library raises nothing narrower
        raise InputError(f"{path / 'vocab.txt'}: expected an entry a line, found {e}") from None
    roles = _roles(path, vocabulary)
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=roles["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(dict.fromkeys(roles.values())))
    start = roles["cls_token"]
    end = roles["sep_token"]
    tokenizer.post_processor = processors.BertProcessing(
        (end, vocabulary[end]), (start, vocabulary[start])
    )
    return tokenizer, roles


def _roberta(path: Path) -> Converted:
    """Build RoBERTa's byte-level BPE tokenizer of a vocab.json and a merges.txt.

    Raises:
        InputError: the two are not files of a byte-level BPE, or a special token is no entry.
    """
    settings = _settings(path)
    try:
        files = (str(path / "vocab.json"), str(path / "merges.txt"))
        vocabulary, merges = models.BPE.read_file(*files)
        tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    except Exception as e:  # the library raises nothing narrower
        raise InputError(f"{path}: vocab.json and merges.txt are not a BPE's ({e})") from None
    if not set(pre_tokenizers.ByteLevel.alphabet()) <= vocabulary.keys():
        raise InputError(
            f"{path / 'vocab.json'}: lacks entries for some bytes, expected those of byte-level "
            "BPE, or a tokenizer_class in tokenizer_config.json"
        )
    roles = _roles(path, vocabulary)
    has_space = bool(settings.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=has_space)
    tokenizer.decoder = decoders.ByteLevel()
    special = []
    for key, token in roles.items():
        # The mask takes the space before it with it.
        is_mask = key == "mask_token"
        special.append(tokenizers.AddedToken(token, special=True, lstrip=is_mask))
    tokenizer.add_special_tokens(special)
    start = roles["cls_token"]
    end = roles["sep_token"]
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocabulary[end]), (start, vocabulary[start]), add_prefix_space=has_space
    )
    return tokenizer, roles


def _roles(path: Path, vocabulary: Mapping[str, int]) -> dict[str, str]:
    """Return a directory's special tokens by transformers' keys: as it names them, or usual names.

    Raises:
        InputError: a role has no entry.
    """
    roles = {}
    named = usual_role_names(path / TOKENIZER, vocabulary)
    for role, keys in KEYS.items():
        if role not in named:
            raise InputError(
                f"{path}: cannot tell which entry is its {role} token, expected {keys[0]} in "
                f"{COMPANIONS[0]} or {COMPANIONS[1]}"
            )
        roles[keys[0]] = named[role]
    return roles


def _by_transformers(path: Path) -> Converted:
    """Convert a directory's files by transformers.

    Raises:
        InputError: transformers or what it needs is missing, or cannot read them.
    """
    library = import_optional("transformers", "convert", path)
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
        backend = tokenizer.backend_tokenizer
    except Exception as e:  # whatever a class and the libraries that it needs raise
        first_line = str(e).strip().partition("\n")[0]
        raise InputError(
            f"{path}: transformers cannot read its tokenizer ({first_line:.200}), expected "
            f"{_EXPECTED}, and a tokenizer_class in {COMPANIONS[0]}"
        ) from None
    roles = {}
    for keys in KEYS.values():
        for key in reversed(keys):
            token = getattr(tokenizer, key, None)
            if token is not None:
                roles[keys[0]] = str(token)
    return backend, roles


def _write(directory: Path, tokenizer: tokenizers.Tokenizer, roles: Mapping[str, str]) -> None:
    """Write a tokenizer.json and its companion, both or neither."""
    beside = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir(parents=True)
        (beside / TOKENIZER).write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
        (beside / COMPANIONS[0]).write_text(json.dumps(dict(roles)) + "\n", encoding="utf-8")
        # Another process may have made the same meanwhile.
        if not (directory / TOKENIZER).is_file():
            beside.replace(directory)
    except OSError as e:
        if not (directory / TOKENIZER).is_file():
            raise InputError(
                f"{directory}: cannot be written ({e.strerror}), expected room for a tokenizer; "
                "XDG_CACHE_HOME says where"
            ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
