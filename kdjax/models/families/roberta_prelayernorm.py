"""RoBERTa-PreLayerNorm (fairseq's pre-LN RoBERTa): pre-LN with a LayerNorm after the embeddings."""

from __future__ import annotations

from kdjax.models.families.bert import ENCODER, LAYER
from kdjax.models.families.naming import Naming
from kdjax.models.families.roberta import COPIES, DEFAULTS, HEAD, ROBERTA
from kdjax.models.families.stored_class import StoredClass

ROBERTA_PRELAYERNORM = StoredClass(
    model_type="roberta-prelayernorm",
    with_head="RobertaPreLayerNormForMaskedLM",
    without_head="RobertaPreLayerNormModel",
    families=("bert",),
    naming=Naming(
        "roberta_prelayernorm.",
        LAYER,
        ("lm_head.",),
        {
            **ENCODER,
            **HEAD,
            ("attention_norm",): "attention.LayerNorm",
            ("ffn_norm",): "intermediate.LayerNorm",
            ("final_norm",): "LayerNorm",
        },
        COPIES,
    ),
    fixed_settings={**ROBERTA.fixed_settings, "norm": "pre"},
    minimum=ROBERTA.minimum,
    config_json_defaults=DEFAULTS,
    required_values=ROBERTA.required_values,
    offset_positions=True,
)
