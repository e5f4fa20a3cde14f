"""What transformers makes of an exported directory, in whatever version runs this script.

    python tests/parity/load_export.py DIRECTORY

It imports nothing of kdjax: BabyLM's evaluation has other versions than kdjax.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ASKED = ["w3 w1 w4 w1 w5", "w9 w2 w6"]
"""Texts, the first one the longer."""
MASKED = "w3 w1 MASK w5"
"""A text to fill in, its mask by this name."""


def facts_of(directory: Path) -> dict[str, Any]:
    """Load an export by every class that an evaluation asks for, and say what comes of it."""
    import tokenizers
    import torch
    import transformers
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(directory)
    encoding = tokenizer(ASKED[0], return_offsets_mapping=True, return_special_tokens_mask=True)
    inputs = tokenizer(ASKED[0], return_tensors="pt")
    model = AutoModelForMaskedLM.from_pretrained(directory).eval()
    encoder = AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        logits = model(**inputs).logits[0]
        states = encoder(**inputs).last_hidden_state[0]
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    answers = fill(MASKED.replace("MASK", tokenizer.mask_token), top_k=3)
    return {
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "fast": tokenizer.is_fast,
        "first": tokenizer.cls_token_id == encoding["input_ids"][0],
        "ids": encoding["input_ids"],
        "offsets": [list(place) for place in encoding["offset_mapping"]],
        "special": encoding["special_tokens_mask"],
        "inputs": sorted(inputs.keys()),
        "longest": tokenizer.model_max_length,
        "filled": [answer["token"] for answer in answers],
        "logits": logits.tolist(),
        "states": states.tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(facts_of(Path(sys.argv[1]))))
