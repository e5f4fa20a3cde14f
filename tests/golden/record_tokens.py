"""Record the ids that transformers gives to text that is hard to tokenise.

    python -m tests.golden.record_tokens            (needs transformers)

Each tokenizer is put into a directory as this package writes one, with the tokenizer_config.json of
each class of model, and read by transformers' AutoTokenizer; its ids go to hf_tokens.json.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from kdjax.config import ModelConfig
from kdjax.models import init, save_pretrained

FILE = Path(__file__).with_name("hf_tokens.json")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXTS = (
    "Überfluß café CAFÉ naïve Straße İstanbul ﬁn",
    "e\u0301 E\u0301 a\u0308 A\u030a",
    "日本語と中文 한국어 カタカナ x語y",
    "tab\tnul\x00bell\x07 soft\u00adhyphen zero\u200bwidth \ufeffmark \ufffd end\x7f",
    "line\u2028separator next\u0085line no\u00a0break\r\n",
    "😀 👩\u200d👩\u200d👧 🇩🇪 x😀y ❤\ufe0f",
    "w" * 101 + " " + "w" * 100,
    "[MASK] [CLS] a[SEP]b [mask] [PAD] [ENTITY]",
    "don't U.S.A. 3.14 a_b «c» — “d”",
    "   ",
    "",
)
"""Accents, letters apart from their accents, Chinese characters, control characters, ends of lines,
emoji, words that are too long, special tokens spelt out, punctuation, and nothing."""
NORMALIZERS: dict[str, dict[str, bool | None]] = {
    "uncased": {"lowercase": True, "strip_accents": None},
    "uncased with accents": {"lowercase": True, "strip_accents": False},
    "cased": {"lowercase": False, "strip_accents": None},
    "cased without accents": {"lowercase": False, "strip_accents": True},
    "cased, Chinese words whole": {
        "lowercase": False,
        "strip_accents": False,
        "handle_chinese_chars": False,
    },
    "cased, control characters kept": {"lowercase": False, "clean_text": False},
}
"""Settings of BERT's normalizer, by name."""
CLASSES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roformer": {"positions": "rotary"},
    "roberta-prelayernorm": {"norm": "pre"},
    "kdjax": {"norm": "pre", "positions": "rotary"},
}
"""`model_type` -> settings of a model that is stored as it."""
MAX_POSITIONS = 20


def vocabulary() -> dict[str, int]:
    """Return entries for every character of the texts but a few, and for some words."""
    characters = {character for text in TEXTS for character in text + text.lower() + text.upper()}
    letters = sorted(c for c in characters if c.isprintable() and not c.isspace() and c not in "«»")
    words = ["Über", "cafe", "café", "CAFÉ", "Straße", "日本", "##語", "mask", "3.14"]
    continuing = [f"##{letter}" for letter in letters]
    entries = dict.fromkeys([*SPECIAL, *letters, *continuing, *words])
    return {entry: index for index, entry in enumerate(entries)}


def write_tokenizer(path: Path, name: str) -> Path:
    """Write the tokenizer.json of one of the normalizers."""
    entries = vocabulary()
    model = models.WordPiece(entries, unk_token="[UNK]", max_input_chars_per_word=100)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(**NORMALIZERS[name])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", entries["[SEP]"]), ("[CLS]", entries["[CLS]"])
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(path))
    return path


def save(directory: Path, name: str, model_type: str) -> Path:
    """Save a model of a class with the tokenizer of a normalizer; return its directory."""
    config = ModelConfig(
        layers=1,
        width=8,
        heads=2,
        ffn=8,
        vocab_size=len(vocabulary()),
        max_positions=MAX_POSITIONS,
        **CLASSES[model_type],
    )
    tokenizer = write_tokenizer(directory / "given.json", name)
    save_pretrained(init(config, 0), directory / "saved", tokenizer=tokenizer)
    return directory / "saved"


def transformers_ids(directory: Path) -> list[list[int]]:
    """Return the ids of each text, special tokens spelt out being text as they are in a corpus."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, split_special_tokens=True)
    assert tokenizer.model_max_length == MAX_POSITIONS
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]


def record() -> dict[str, list[list[int]]]:
    """Return normalizer -> the ids of each text, which are the same whatever the model's class."""
    recorded = {}
    for name in NORMALIZERS:
        of_classes = []
        for model_type in CLASSES:
            with tempfile.TemporaryDirectory() as directory:
                saved = save(Path(directory), name, model_type)
                of_classes.append(transformers_ids(saved))
        assert all(ids == of_classes[0] for ids in of_classes), name
        recorded[name] = of_classes[0]
    return recorded


def main() -> None:
    """Write hf_tokens.json beside this file."""
    rows = [f" {json.dumps(name)}: {json.dumps(ids)}" for name, ids in record().items()]
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
