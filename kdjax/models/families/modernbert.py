"""ModernBERT (Warner et al. 2024, arXiv 2412.13663) and Ettin (Weller et al. 2025, arXiv
2507.11412), which is one: pre-LN, rotary positions, gated feed-forward blocks, and a sliding window
in two layers of three.

Older files name `global_rope_theta`, `local_rope_theta` and `global_attn_every_n_layers`, newer
ones `rope_parameters` and `layer_types`; both are read and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdjax.config import ModelConfig
from kdjax.config.families import FAMILIES
from kdjax.errors import InputError
from kdjax.models.families.naming import Naming, Part
from kdjax.models.families.stored_class import Settings, StoredClass, check_config_number

_GLOBAL = "full_attention"
_LOCAL = "sliding_attention"
_BASES = {
    "rotary_base": (_GLOBAL, "global_rope_theta", 160000.0),
    "local_rotary_base": (_LOCAL, "local_rope_theta", 10000.0),
}
"""`ModelConfig`'s bases -> the layers that have it, its older name, what holds without either."""
_SPECIAL = {
    "bos_token_id": 50281,
    "cls_token_id": 50281,
    "eos_token_id": 50282,
    "sep_token_id": 50282,
}
"""Special tokens of ModernBERT's own vocabulary, which transformers takes for any."""
_BIASES = ("attention_bias", "mlp_bias", "classifier_bias")
"""Settings that say whether linear layers have a bias, which are one here."""


def _read(raw: Mapping[str, Any], where: object) -> Settings:
    """Return the settings of biases, windows, rotations and dropout that config.json has.

    Raises:
        InputError: it says what this package does not compute.
    """
    settings: Settings = {"norm_bias": _flag(raw, "norm_bias", where)}
    biases = {name: _flag(raw, name, where) for name in _BIASES}
    if len(set(biases.values())) > 1:
        raise InputError(f"{where}: {biases}, expected all of them true or all false")
    settings["linear_bias"] = biases["mlp_bias"]
    if raw.get("classifier_activation", "gelu") != raw.get("hidden_activation", "gelu"):
        raise InputError(
            f"{where}: classifier_activation is {raw.get('classifier_activation')!r:.80}, expected "
            "the hidden_activation"
        )
    embedding_dropout = check_config_number(
        raw.get("embedding_dropout", 0.0), 0.0, f"{where}: embedding_dropout"
    )
    if embedding_dropout != raw.get("mlp_dropout", 0.0):
        settings["embedding_dropout"] = embedding_dropout
    return {**settings, **_read_layers(raw, where), **_read_rotations(raw, where)}


def _read_layers(raw: Mapping[str, Any], where: object) -> Settings:
    """Return the window, and every how many layers one has none."""
    window = check_config_number(raw.get("local_attention", 128), 128, f"{where}: local_attention")
    every = check_config_number(
        raw.get("global_attn_every_n_layers", 3), 3, f"{where}: global_attn_every_n_layers"
    )
    layer_types = raw.get("layer_types")
    if layer_types is not None:
        every = _global_every(layer_types, every, where)
    if every == 1:
        window = 0
    return {"attention_window": window, "global_every": every}


def _global_every(layer_types: Any, named: int | float, where: object) -> int | float:
    """Return every how many layers one is global, from the list of their kinds.

    Args:
        layer_types: the list of `full_attention` and `sliding_attention`.
        named: number under the older name, or its default.
        where: the file, for messages.

    Raises:
        InputError: no list of them, or one without such a number.
    """
    kinds = layer_types if isinstance(layer_types, list) and layer_types else [None]
    # Few layers fit several numbers, of which the one that is named comes first.
    numbers: tuple[int | float, ...] = (named, *range(1, len(kinds) + 1))
    for every in numbers:
        expected = [_LOCAL if every and n % every else _GLOBAL for n in range(len(kinds))]
        if kinds == expected:
            return every
    raise InputError(
        f"{where}: layer_types is {layer_types!r:.120}, expected every n-th layer {_GLOBAL!r}, "
        f"from the first on, and the others {_LOCAL!r}"
    )


def _read_rotations(raw: Mapping[str, Any], where: object) -> Settings:
    """Return the two bases of the rotations."""
    if raw.get("rope_scaling") is not None:
        raise InputError(f"{where}: rope_scaling is {raw['rope_scaling']!r:.80}, expected none")
    by_kind = raw.get("rope_parameters") or {}
    if not isinstance(by_kind, dict):
        raise InputError(f"{where}: rope_parameters is {by_kind!r:.80}, expected an object")
    bases: Settings = {}
    for ours, (kind, older_name, default) in _BASES.items():
        parameters = by_kind.get(kind) or {}
        if not isinstance(parameters, dict):
            raise InputError(
                f"{where}: rope_parameters.{kind} is {parameters!r:.80}, expected an object"
            )
        rope_type = parameters.get("rope_type", "default")
        if rope_type != "default":
            raise InputError(
                f"{where}: rope_parameters.{kind}.rope_type is {rope_type!r:.80}, expected "
                "'default'"
            )
        # As transformers: a null under the older name is none.
        older = raw.get(older_name)
        base = parameters.get("rope_theta", default if older is None else older)
        bases[ours] = check_config_number(base, default, f"{where}: {older_name}")
    return bases


def _flag(raw: Mapping[str, Any], name: str, where: object) -> bool:
    """Return a setting that is true or false, false where it is not there."""
    value = raw.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"{where}: {name} is {value!r:.80}, expected true or false")
    return value


def _write(config: ModelConfig) -> Settings:
    """Return the settings that `_read` reads, as config.json has them."""
    layer_types = []
    for n in range(1, config.layers + 1):
        layer_types.append(_LOCAL if config.is_local(n) else _GLOBAL)
    embedding_dropout = config.embedding_dropout
    if embedding_dropout is None:
        embedding_dropout = config.dropout
    settings: Settings = {
        "norm_bias": config.norm_bias,
        **dict.fromkeys(_BIASES, config.linear_bias),
        "classifier_activation": "gelu" if config.gelu == "exact" else "gelu_new",
        "decoder_bias": True,
        "tie_word_embeddings": True,
        "embedding_dropout": embedding_dropout,
        "local_attention": config.attention_window or 128,
        "global_attn_every_n_layers": config.global_every,
        "layer_types": layer_types,
        "rope_parameters": {},
    }
    if config.vocab_size <= max(_SPECIAL.values()):
        # A vocabulary of another tokenizer, whose config says which its special tokens are
        settings |= dict.fromkeys(_SPECIAL)
    for ours, (kind, older_name, _) in _BASES.items():
        base = getattr(config, ours)
        settings[older_name] = base
        settings["rope_parameters"][kind] = {"rope_type": "default", "rope_theta": base}
    return settings


MODERNBERT = StoredClass(
    model_type="modernbert",
    with_head="ModernBertForMaskedLM",
    without_head="ModernBertModel",
    families=("modernbert",),
    naming=Naming(
        prefix="model.",
        layer="layers.{}.",
        heads=("head.", "decoder."),
        modules={
            ("embeddings", "word"): "embeddings.tok_embeddings",
            ("embeddings", "norm"): "embeddings.norm",
            ("attention_norm",): "attn_norm",
            ("attention", "query"): Part("attn.Wqkv", 0, 3),
            ("attention", "key"): Part("attn.Wqkv", 1, 3),
            ("attention", "value"): Part("attn.Wqkv", 2, 3),
            ("attention", "output"): "attn.Wo",
            ("ffn_norm",): "mlp_norm",
            ("ffn", "up"): Part("mlp.Wi", 0, 2),
            ("ffn", "gate"): Part("mlp.Wi", 1, 2),
            ("ffn", "down"): "mlp.Wo",
            ("final_norm",): "final_norm",
            ("mlm", "dense"): "head.dense",
            ("mlm", "norm"): "head.norm",
            ("mlm",): "decoder",
        },
        copies={"decoder.weight": "embeddings.tok_embeddings.weight"},
        shared_head=("head.",),
    ),
    fixed_settings=FAMILIES["modernbert"].fixed_settings,
    sizes={
        "layers": "num_hidden_layers",
        "width": "hidden_size",
        "heads": "num_attention_heads",
        "ffn": "intermediate_size",
        "vocab_size": "vocab_size",
        "max_positions": "max_position_embeddings",
        "dropout": "mlp_dropout",
        "attention_dropout": "attention_dropout",
        "norm_eps": "norm_eps",
        "pad_token_id": "pad_token_id",
    },
    config_json_defaults={
        "layers": 22,
        "width": 768,
        "heads": 12,
        "ffn": 1152,
        "vocab_size": 50368,
        "max_positions": 8192,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "norm_eps": 1e-5,
        "pad_token_id": 50283,
    },
    required_values={"decoder_bias": True},
    act="hidden_activation",
    read=_read,
    write=_write,
    has_pooler=False,
)
