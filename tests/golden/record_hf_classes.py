"""Record the logits of transformers' classes that other models than BERT's are saved as.

    python -m tests.golden.record_hf_classes        (needs PyTorch and transformers)

Each model is saved by this package, read by transformers' AutoModelForMaskedLM and run in PyTorch
in float64; its logits go to hf_classes.npz.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.config import ModelConfig
from kdjax.models import Model, abstract_params, save_pretrained

SIZES: dict[str, Any] = {
    "layers": 2,
    "width": 24,
    "heads": 3,
    "ffn": 40,
    "vocab_size": 31,
    "max_positions": 20,
    "norm_eps": 1e-7,
}
CONFIGS = {
    "bert": ModelConfig(**SIZES),
    "roformer": ModelConfig(**SIZES, positions="rotary"),
    "roberta-prelayernorm": ModelConfig(**SIZES, norm="pre"),
}

_LENGTHS = np.array([[16], [9]])
_VALID = (np.arange(16) < _LENGTHS).astype(np.int32)
BATCH = {
    "tokens": _VALID * np.random.default_rng(1).integers(1, 31, (2, 16)).astype(np.int32),
    "segments": _VALID,
    "positions": _VALID * np.arange(16, dtype=np.int32),
}
"""A whole sequence and a padded one, padded with token 0."""


def params_of(config: ModelConfig) -> Any:
    """Return parameters that are all away from their start."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: rng.normal(0.1, 0.3, x.shape).astype(np.float32), abstract_params(config)
    )


def main() -> None:
    """Write hf_classes.npz beside this file."""
    import torch
    from transformers import AutoModelForMaskedLM

    recorded = {}
    for model_type, config in CONFIGS.items():
        with tempfile.TemporaryDirectory() as directory:
            save_pretrained(Model(config, params_of(config)), directory)
            model, report = AutoModelForMaskedLM.from_pretrained(
                directory, output_loading_info=True
            )
        problems = [report[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched")]
        assert not any(problems), report
        with torch.no_grad():
            output = model.double().eval()(
                input_ids=torch.tensor(BATCH["tokens"], dtype=torch.long),
                attention_mask=torch.tensor(BATCH["segments"], dtype=torch.long),
            )
        recorded[model_type] = output.logits.numpy()
        print(model_type, type(model).__name__, recorded[model_type].std())
    np.savez_compressed(Path(__file__).with_name("hf_classes.npz"), **recorded)


if __name__ == "__main__":
    main()
