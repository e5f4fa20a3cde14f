"""Megatron-BERT (Shoeybi et al. 2019, arXiv 1909.08053): pre-LN without a LayerNorm after the
embeddings."""

from __future__ import annotations

from kdjax.models.families.bert import BERT, COPIES, ENCODER, HEAD, LAYER, NOT_READ
from kdjax.models.families.naming import Naming
from kdjax.models.families.stored_class import BERT_SIZES, StoredClass

MEGATRON_BERT = StoredClass(
    model_type="megatron-bert",
    with_head="MegatronBertForMaskedLM",
    without_head="MegatronBertModel",
    families=("bert",),
    naming=Naming(
        "bert.",
        LAYER,
        ("cls.predictions.",),
        {
            **ENCODER,
            **HEAD,
            ("attention_norm",): "attention.ln",
            ("ffn_norm",): "ln",
            ("final_norm",): "encoder.ln",
        },
        COPIES,
        NOT_READ,
    ),
    fixed_settings={**BERT.fixed_settings, "norm": "pre", "embedding_norm": False},
    minimum=BERT.minimum,
    config_json_defaults={
        **BERT_SIZES,
        "layers": 24,
        "width": 1024,
        "heads": 16,
        "ffn": 4096,
        "vocab_size": 29056,
    },
    required_values=BERT.required_values,
)
