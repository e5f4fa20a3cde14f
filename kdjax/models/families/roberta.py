"""RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-R (Conneau et al. 2020, arXiv 1911.02116) and
CamemBERT (Martin et al. 2020, arXiv 1911.03894): BERT with one token type, whose position table
begins behind the padding token's id.

Rows up to that id are read by nothing but padding, whose states nothing reads: they are not kept,
and are written as zeros.
"""

from __future__ import annotations

from kdjax.config.families import FAMILIES
from kdjax.models.families.bert import ENCODER, LAYER, POST_NORM
from kdjax.models.families.naming import Naming, Part, Path
from kdjax.models.families.stored_class import BERT_SIZES, NO_DECODER, StoredClass

HEAD: dict[Path, str | Part] = {
    ("mlm", "dense"): "lm_head.dense",
    ("mlm", "norm"): "lm_head.layer_norm",
    ("mlm",): "lm_head",
}
"""Names of RoBERTa's MLM head."""
COPIES = {
    "lm_head.decoder.bias": "lm_head.bias",
    "lm_head.decoder.weight": "embeddings.word_embeddings.weight",
}
"""What some files hold under a second name, by it."""
DEFAULTS = {**BERT_SIZES, "vocab_size": 50265, "pad_token_id": 1}
"""transformers' defaults."""

ROBERTA = StoredClass(
    model_type="roberta",
    with_head="RobertaForMaskedLM",
    without_head="RobertaModel",
    families=("roberta",),
    naming=Naming("roberta.", LAYER, ("lm_head.",), {**ENCODER, **POST_NORM, **HEAD}, COPIES),
    fixed_settings=FAMILIES["roberta"].fixed_settings,
    minimum=FAMILIES["roberta"].minimum,
    config_json_defaults=DEFAULTS,
    required_values={"position_embedding_type": "absolute", **NO_DECODER},
    offset_positions=True,
)
XLM_ROBERTA = ROBERTA.of_type(
    "xlm-roberta", "XLMRoberta", config_json_defaults={**DEFAULTS, "vocab_size": 30522}
)
CAMEMBERT = ROBERTA.of_type(
    "camembert", "Camembert", config_json_defaults={**DEFAULTS, "vocab_size": 30522}
)
