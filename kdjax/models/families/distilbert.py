"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT without token types, under names of its
own. No dropout follows its attention."""

from __future__ import annotations

from kdjax.config.families import FAMILIES
from kdjax.models.families.naming import Naming
from kdjax.models.families.stored_class import BERT_SIZES, StoredClass

DISTILBERT = StoredClass(
    model_type="distilbert",
    with_head="DistilBertForMaskedLM",
    without_head="DistilBertModel",
    families=("distilbert",),
    naming=Naming(
        prefix="distilbert.",
        layer="transformer.layer.{}.",
        heads=("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
        modules={
            ("embeddings", "word"): "embeddings.word_embeddings",
            ("embeddings", "position"): "embeddings.position_embeddings",
            ("embeddings", "norm"): "embeddings.LayerNorm",
            ("attention", "query"): "attention.q_lin",
            ("attention", "key"): "attention.k_lin",
            ("attention", "value"): "attention.v_lin",
            ("attention", "output"): "attention.out_lin",
            ("attention_norm",): "sa_layer_norm",
            ("ffn", "up"): "ffn.lin1",
            ("ffn", "down"): "ffn.lin2",
            ("ffn_norm",): "output_layer_norm",
            ("mlm", "dense"): "vocab_transform",
            ("mlm", "norm"): "vocab_layer_norm",
            ("mlm",): "vocab_projector",
        },
        copies={"vocab_projector.weight": "embeddings.word_embeddings.weight"},
    ),
    fixed_settings=FAMILIES["distilbert"].fixed_settings,
    sizes={
        "layers": "n_layers",
        "width": "dim",
        "heads": "n_heads",
        "ffn": "hidden_dim",
        "vocab_size": "vocab_size",
        "max_positions": "max_position_embeddings",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "pad_token_id": "pad_token_id",
    },
    config_json_defaults={**BERT_SIZES, "layers": 6},
    # Sinusoidal positions are a table as well, which the file holds.
    required_values={},
    act="activation",
    has_pooler=False,
)
