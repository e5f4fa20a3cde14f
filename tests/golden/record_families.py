"""Record what transformers computes of models that this package saves, a model for each class.

    python -m tests.golden.record_families        (needs PyTorch and transformers)

Each model is saved by this package, read by transformers' AutoModelForMaskedLM and run in PyTorch
in float64; its logits go to families.npz, and of the families' own classes every feature.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.config import ModelConfig, ModelSpec
from kdjax.models import Model, abstract_params, save_pretrained, zoo

GOLDEN = Path(__file__).with_name("families.npz")
SIZES: dict[str, Any] = {"layers": 2, "width": 24, "heads": 3, "ffn": 40}
SMALL: dict[str, Any] = {"vocab_size": 31, "max_positions": 20, "pad_token_id": 0}


def _family(name: str, **changes: Any) -> ModelConfig:
    settings = {**SIZES, **SMALL, **changes}
    return zoo.resolve(ModelSpec(family=name, size="tiny", **settings))


def _relative(**changes: Any) -> ModelConfig:
    return ModelConfig(**SIZES, **SMALL, norm_eps=1e-7, **changes)


FAMILIES = {
    "bert": _relative(),
    "roberta": _family("roberta"),
    "xlm-roberta": _family("xlm-roberta", type_vocab_size=2),
    "camembert": _family("camembert"),
    "distilbert": _family("distilbert"),
    # Layers of both kinds, of which the last is local, and a window that is narrower than the text
    "modernbert": _family("modernbert", layers=5, attention_window=7),
}
"""The families' own classes, by `model_type`."""
WITH_FEATURES = ("bert", "roberta", "distilbert", "modernbert")
"""Those of which every feature is recorded; others differ from one of them in names alone."""
RELATIVES = {
    "roformer": _relative(positions="rotary"),
    "roberta-prelayernorm": _relative(norm="pre"),
    "megatron-bert": _relative(norm="pre", embedding_norm=False, gelu="tanh"),
    "esm": _relative(norm="pre", positions="rotary", type_vocab_size=0),
    "esm without an embedding norm": _relative(
        norm="pre", positions="rotary", type_vocab_size=0, embedding_norm=False
    ),
}
"""The classes of BERT's relatives, by `model_type` and what is special."""

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


def recorded_layers(config: ModelConfig) -> tuple[int, ...]:
    """Return the layers whose features are recorded: the first two and the last."""
    return tuple(sorted({1, 2, config.layers}))


def main() -> None:
    """Write families.npz beside this file."""
    from tests.parity.families import features, read_by_transformers

    recorded: dict[str, np.ndarray] = {}
    for name, config in {**FAMILIES, **RELATIVES}.items():
        with tempfile.TemporaryDirectory() as directory:
            save_pretrained(Model(config, params_of(config)), directory)
            model = read_by_transformers(Path(directory))
        computed = features(model, BATCH["tokens"], BATCH["segments"])
        recorded[f"{name}/logits"] = computed["logits"].astype(np.float32)
        print(name, type(model).__name__, recorded[f"{name}/logits"].std())
        if name not in WITH_FEATURES:
            continue
        recorded[f"{name}/hidden/0"] = computed["hidden"][0].astype(np.float32)
        for kind in ("query", "key", "value", "scores", "hidden"):
            for layer in recorded_layers(config):
                recorded[f"{name}/{kind}/{layer}"] = computed[kind][layer].astype(np.float32)
    np.savez_compressed(GOLDEN, **recorded)


if __name__ == "__main__":
    main()
