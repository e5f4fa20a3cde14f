"""Record the ids that transformers gives to hard text by tokenizers of other kinds than BERT's.

    python -m tests.golden.record_token_kinds            (needs transformers)

As `record_tokens`: each tokenizer is put into a directory as this package writes one, and read by
transformers' AutoTokenizer. Recorded are ids and offsets of texts, and framed texts and pairs of
texts, cut to a length: hf_token_kinds.json.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from kdjax.config import ModelConfig, TokenizerConfig
from kdjax.models import init, save_pretrained
from kdjax.tokenizers import byte_level_bpe, unigram
from tests.golden.record_tokens import TEXTS

FILE = Path(__file__).with_name("hf_token_kinds.json")
PAIRED = TEXTS[:-2]
"""Texts that are not empty: of a pair whose second text is, transformers makes a single text."""
LENGTH = 12
"""Most tokens of a framed row."""
WORDS = ("the", "dog", "don't", "walked", "walking", "cafe", "3.14", "日本", "語", "über")


def byte_level() -> tokenizers.Tokenizer:
    """Build a byte-level BPE tokenizer as this package trains one."""
    words = [f"{word} " * (len(WORDS) - n) for n, word in enumerate(WORDS)]
    tokenizer, _ = byte_level_bpe.train(TokenizerConfig(train="bpe", size=290), lambda: words)
    return tokenizer


def roberta() -> tokenizers.Tokenizer:
    """Build a tokenizer in RoBERTa's layout: no space before a text, <unk> that nothing becomes."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>", *characters, "Ġt", "Ġth", "Ġthe", "do", "dog"]
    names.append("<mask>")
    merges = [("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("d", "o"), ("do", "g")]
    model = models.BPE({name: index for index, name in enumerate(names)}, merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    special = [tokenizers.AddedToken(name, special=True) for name in names[:4]]
    mask = tokenizers.AddedToken("<mask>", special=True, lstrip=True)
    tokenizer.add_special_tokens([*special, mask])
    return tokenizer


def pieces() -> tokenizers.Tokenizer:
    """Build a Unigram tokenizer as this package trains one, of made-up probabilities."""
    special = [(name, 0.0) for name in unigram.SPECIAL]
    letters = sorted(set("".join(WORDS) + unigram.SPACE))
    scores = [(letter, -9.0 - n / 100) for n, letter in enumerate(letters)]
    scores += [(unigram.SPACE + word, -6.0 - n / 100) for n, word in enumerate(WORDS)]
    scores += [("ing", -7.0), ("ed", -7.5), (f"{unigram.SPACE}walk", -6.5)]
    return unigram.tokenizer_of([*special, *scores])


KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "bpe": byte_level,
    "roberta": roberta,
    "unigram": pieces,
}


def save(directory: Path, name: str) -> Path:
    """Save a model of one token type with the tokenizer of a kind; return its directory."""
    given = directory / "given.json"
    tokenizer = KINDS[name]()
    tokenizer.save(str(given))
    config = ModelConfig(
        layers=1,
        width=8,
        heads=2,
        ffn=8,
        vocab_size=tokenizer.get_vocab_size(with_added_tokens=True),
        max_positions=20,
        type_vocab_size=1,
    )
    save_pretrained(init(config, 0), directory / "saved", tokenizer=given)
    return directory / "saved"


def ends_of(offsets: list[tuple[int, int]]) -> list[int]:
    """Return the character behind each token."""
    return [end for _, end in offsets]


def record_kind(directory: Path) -> dict[str, Any]:
    """Return what transformers makes of texts and pairs of them by a directory's tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, split_special_tokens=True)
    assert tokenizer.is_fast
    plain = [
        tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) for text in TEXTS
    ]
    cut = {"truncation": "longest_first", "max_length": LENGTH}
    singles = [tokenizer(text, **cut)["input_ids"] for text in TEXTS]
    pairs = [
        tokenizer(first, second, **cut)["input_ids"] for first, second in itertools.pairwise(PAIRED)
    ]
    roles = ("pad", "unk", "cls", "sep", "mask")
    return {
        "ids": [encoded["input_ids"] for encoded in plain],
        "ends": [ends_of(encoded["offset_mapping"]) for encoded in plain],
        "singles": singles,
        "pairs": pairs,
        "inputs": tokenizer.model_input_names,
        "special": {role: getattr(tokenizer, f"{role}_token_id") for role in roles},
    }


def record() -> dict[str, dict[str, Any]]:
    """Return kind -> what transformers makes of the texts."""
    recorded = {}
    for name in KINDS:
        with tempfile.TemporaryDirectory() as directory:
            recorded[name] = record_kind(save(Path(directory), name))
    return recorded


def main() -> None:
    """Write hf_token_kinds.json beside this file."""
    rows = []
    for name, values in record().items():
        fields = ",\n".join(f"  {json.dumps(key)}: {json.dumps(values[key])}" for key in values)
        rows.append(f" {json.dumps(name)}: {{\n{fields}\n }}")
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
