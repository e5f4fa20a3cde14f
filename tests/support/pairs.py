"""A directory of minimal pairs in BabyLM's layout, and a tokenizer that splits words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from tests.support.corpora import SPECIAL

PIECES = ("the", "cat", "##s", "sit", "##ting", "##ly", "a", "dog", "run", ".", "who", "here")
IDS = {token: number for number, token in enumerate((*SPECIAL, *PIECES))}

Rows = Sequence[Mapping[str, object]]


def make_tokenizer(path: Path) -> Path:
    """Write a WordPiece tokenizer.json of `PIECES`."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(IDS, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(path))
    return path


def blimp_row(good: str, bad: str, phenomenon: str) -> dict[str, object]:
    """Return a line of BLiMP."""
    return {
        "sentence_good": good,
        "sentence_bad": bad,
        "field": "morphology",
        "linguistics_term": "agreement",
        "UID": phenomenon,
    }


def ewok_row(context: str, targets: tuple[str, str], domain: str) -> dict[str, object]:
    """Return a line of EWoK."""
    return {
        "Domain": domain,
        "ContextType": "direct",
        "Context1": context,
        "Context2": "dog sitting here .",
        "Target1": targets[0],
        "Target2": targets[1],
    }


def write_set(directory: Path, name: str, files: Mapping[str, Rows]) -> Path:
    """Write a set of pairs: a .jsonl file of rows for each name."""
    (directory / name).mkdir(parents=True, exist_ok=True)
    for file, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (directory / name / f"{file}.jsonl").write_text(text, encoding="utf-8")
    return directory


def write_all(directory: Path) -> Path:
    """Write a directory with a few pairs of all three sets."""
    first = [
        blimp_row("the cats sitting .", "the cat sitting .", "number"),
        blimp_row("a dog run here .", "a dogs run here .", "number"),
        blimp_row("The cat .", "the cat .", "number"),
    ]
    second = [blimp_row("cats sittingly .", "who dog .", "question")]
    write_set(directory, "blimp_filtered", {"number": first, "other": second})
    supplement = [{"sentence_good": "who ? a dog .", "sentence_bad": "who ? here ."}]
    write_set(directory, "supplement_filtered", {"turn_taking": supplement})
    ewok = [ewok_row("the cats .", ("a dog sitting .", "a cat ."), "spatial-relations")]
    return write_set(directory, "ewok_filtered", {"spatial-relations": ewok})
