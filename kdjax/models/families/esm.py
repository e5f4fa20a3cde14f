"""ESM-2's class (Lin et al. 2023, doi 10.1126/science.ade2574): pre-LN with rotary positions of
base 10,000 and no token types, with or without a LayerNorm after the embeddings.

Published protein models drop masked tokens' embeddings (`token_dropout`), which this package does
not compute; they are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.config import ModelConfig
from kdjax.config.families import PLAIN
from kdjax.errors import InputError
from kdjax.models.families.bert import ENCODER, LAYER
from kdjax.models.families.naming import Naming
from kdjax.models.families.roberta import COPIES, HEAD
from kdjax.models.families.stored_class import BERT_SIZES, NO_DECODER, SIZES, StoredClass


def _read(raw: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Return whether there is a LayerNorm after the embeddings.

    Raises:
        InputError: positions that are not rotary.
    """
    positions = raw.get("position_embedding_type", "absolute")
    if positions != "rotary":
        raise InputError(
            f"{where}: position_embedding_type is {positions!r:.80}, expected 'rotary'"
        )
    return {"embedding_norm": bool(raw.get("emb_layer_norm_before"))}


def _write(config: ModelConfig) -> dict[str, Any]:
    """Return the settings that the class needs besides sizes."""
    return {
        "position_embedding_type": "rotary",
        "rope_theta": config.rotary_base,
        "emb_layer_norm_before": config.embedding_norm,
        "token_dropout": False,
    }


def _further_tensors(config: ModelConfig) -> dict[str, np.ndarray]:
    """Return the speeds of the rotation's planes, and a head for contacts that starts at 0."""
    planes = np.arange(config.head_width // 2)
    frequencies = config.rotary_base ** (-2.0 * planes / config.head_width)
    inputs = config.layers * config.heads
    return {
        "rotary_embeddings.inv_freq": frequencies.astype(np.float32),
        "contact_head.regression.weight": np.zeros((1, inputs), np.float32),
        "contact_head.regression.bias": np.zeros(1, np.float32),
    }


ESM = StoredClass(
    model_type="esm",
    with_head="EsmForMaskedLM",
    without_head="EsmModel",
    families=("bert",),
    naming=Naming(
        "esm.",
        LAYER,
        ("lm_head.",),
        {
            **ENCODER,
            **HEAD,
            ("embeddings", "norm"): "embeddings.layer_norm",
            ("attention_norm",): "attention.LayerNorm",
            ("ffn_norm",): "LayerNorm",
            ("final_norm",): "encoder.emb_layer_norm_after",
        },
        COPIES,
        r"pooler\.|contact_head\.|(encoder\.layer\.\d+\.attention\.self\.)?rotary_embeddings\.",
    ),
    fixed_settings={
        **PLAIN,
        "norm": "pre",
        "positions": "rotary",
        "rotary_base": 10000.0,
        "type_vocab_size": 0,
        "gelu": "exact",
    },
    sizes={ours: theirs for ours, theirs in SIZES.items() if ours != "type_vocab_size"},
    config_json_defaults={**BERT_SIZES, "max_positions": 1026, "pad_token_id": 1},
    required_values={"token_dropout": False, "rope_theta": 10000.0, **NO_DECODER},
    act=None,
    read=_read,
    write=_write,
    further_tensors=_further_tensors,
)
