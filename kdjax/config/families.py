"""What families of models are: settings that every model of one has, and those that it has unless
told otherwise. `kdjax.models.families` has how each is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FamilyName = Literal["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert"]
"""Families of models that a recipe may name."""


@dataclass(frozen=True)
class Family:
    """A family of models, by settings of `ModelConfig`.

    Attributes:
        fixed_settings: settings that all its models have.
        defaults: settings that they have unless told otherwise, where those are not BERT's.
        minimum: settings -> the least that its models can have.
        ffn_ratio: width of the feed-forward block over the hidden width, by default.
    """

    fixed_settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    minimum: Mapping[str, int] = field(default_factory=dict)
    ffn_ratio: float = 4.0


PLAIN: dict[str, Any] = {
    "first_norm": True,
    "norm_bias": True,
    "linear_bias": True,
    "ffn_gated": False,
    "attention_window": 0,
    "global_every": 1,
    "dropout_sites": "bert",
    "embedding_dropout": None,
}
"""Fixed settings of BERT and its older relatives."""

# Liu et al. 2019, arXiv 1907.11692. Its MLM head has the exact GELU, whatever the encoder has, and
# its code draws from a normal that is not cut.
_ROBERTA = Family(
    fixed_settings={
        **PLAIN,
        "norm": "post",
        "positions": "learned",
        "embedding_norm": True,
        "gelu": "exact",
    },
    defaults={"vocab_size": 50265, "type_vocab_size": 1, "norm_eps": 1e-5, "init_cut": 0.0},
    minimum={"type_vocab_size": 1},
)

FAMILIES: dict[str, Family] = {
    # Any settings: BERT's own are `ModelConfig`'s defaults.
    "bert": Family(),
    "roberta": _ROBERTA,
    # Conneau et al. 2020, arXiv 1911.02116
    "xlm-roberta": Family(
        _ROBERTA.fixed_settings, {**_ROBERTA.defaults, "vocab_size": 250002}, _ROBERTA.minimum
    ),
    # Martin et al. 2020, arXiv 1911.03894
    "camembert": Family(
        _ROBERTA.fixed_settings, {**_ROBERTA.defaults, "vocab_size": 32005}, _ROBERTA.minimum
    ),
    # Sanh et al. 2019, arXiv 1910.01108. Every LayerNorm of its class has this epsilon.
    "distilbert": Family(
        fixed_settings={
            **PLAIN,
            "norm": "post",
            "positions": "learned",
            "embedding_norm": True,
            "type_vocab_size": 0,
            "norm_eps": 1e-12,
            "dropout_sites": "distilbert",
        },
        defaults={"init_cut": 0.0},
    ),
    # Warner et al. 2024, arXiv 2412.13663. A start as its code makes it: outputs by depth.
    "modernbert": Family(
        fixed_settings={
            "norm": "pre",
            "first_norm": False,
            "embedding_norm": True,
            "positions": "rotary",
            "type_vocab_size": 0,
            "ffn_gated": True,
            "dropout_sites": "modernbert",
        },
        defaults={
            "vocab_size": 50368,
            "max_positions": 8192,
            "norm_bias": False,
            "linear_bias": False,
            "attention_window": 128,
            "global_every": 3,
            "rotary_base": 160000.0,
            "local_rotary_base": 10000.0,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "norm_eps": 1e-5,
            "init_outputs": "by_depth",
        },
        ffn_ratio=1.5,
    ),
}
"""The families, by name."""
