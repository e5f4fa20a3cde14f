"""BERT (Devlin et al. 2019, arXiv 1810.04805): post-LN, learned positions, two token types."""

from __future__ import annotations

from kdjax.config.families import PLAIN
from kdjax.models.families.naming import Naming, Part, Path
from kdjax.models.families.stored_class import NO_DECODER, StoredClass

ENCODER: dict[Path, str | Part] = {
    ("embeddings", "word"): "embeddings.word_embeddings",
    ("embeddings", "position"): "embeddings.position_embeddings",
    ("embeddings", "type"): "embeddings.token_type_embeddings",
    ("embeddings", "norm"): "embeddings.LayerNorm",
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("ffn", "up"): "intermediate.dense",
    ("ffn", "down"): "output.dense",
}
"""Names that BERT and its relatives share."""
POST_NORM: dict[Path, str | Part] = {
    ("attention_norm",): "attention.output.LayerNorm",
    ("ffn_norm",): "output.LayerNorm",
}
"""Names of a post-LN layer's LayerNorms."""
HEAD: dict[Path, str | Part] = {
    ("mlm", "dense"): "cls.predictions.transform.dense",
    ("mlm", "norm"): "cls.predictions.transform.LayerNorm",
    ("mlm",): "cls.predictions",
}
"""Names of BERT's MLM head."""
LAYER = "encoder.layer.{}."
COPIES = {
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
}
"""What some files hold under a second name, by it."""
NOT_READ = r"pooler\.|cls\.(?!predictions\.)"
"""Pattern of tensors of other heads."""

BERT = StoredClass(
    model_type="bert",
    with_head="BertForMaskedLM",
    without_head="BertModel",
    families=("bert",),
    naming=Naming(
        "bert.", LAYER, ("cls.predictions.",), {**ENCODER, **POST_NORM, **HEAD}, COPIES, NOT_READ
    ),
    fixed_settings={**PLAIN, "norm": "post", "positions": "learned", "embedding_norm": True},
    minimum={"type_vocab_size": 1},
    required_values={"position_embedding_type": "absolute", **NO_DECODER},
)
