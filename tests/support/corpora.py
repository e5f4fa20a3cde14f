"""A tokenizer and text small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

DEMO_TEACHER = Path(__file__).parents[2] / "configs" / "demo-teacher"
"""The demo's teacher, with its tokenizer."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(f"w{n}" for n in range(48))
VOCABULARY = len(SPECIAL) + len(WORDS)
PIECES = (
    "w",
    *(f"{digit}" for digit in range(10)),
    *(f"##{digit}" for digit in range(10)),
    "[MASK]",
    "[SEP]",
    "[CLS]",
    "[UNK]",
    "[PAD]",
)
"""Entries of another vocabulary of the same words, its special tokens last."""


def make_tokenizer(
    path: Path, special: tuple[str, ...] = SPECIAL, words: tuple[str, ...] = WORDS
) -> Path:
    """Write a tokenizer.json of whole words; its truncation and padding are on, as in files found
    in the wild."""
    vocabulary = {token: n for n, token in enumerate((*special, *words))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(special))
    if {"[CLS]", "[SEP]"} <= set(special):
        tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
        )
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(length=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def make_pieces_tokenizer(path: Path) -> Path:
    """Write a tokenizer.json that splits w17 into w, ##1 and ##7."""
    vocabulary = {entry: n for n, entry in enumerate(PIECES)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def texts(documents: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Draw random documents of 1 to `longest` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest + 1))) for _ in range(documents)]


def make_corpus(path: Path, documents: int = 200, seed: int = 0, longest: int = 40) -> Path:
    """Write a .jsonl file of random documents with ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"document {n}", "text": text}
        for n, text in enumerate(texts(documents, seed, longest))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
