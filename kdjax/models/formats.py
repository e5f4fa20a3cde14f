"""As which Hugging Face class a model is stored, and how its settings and arrays are written for
it.

| model, with an embedding LN | `model_type` | class |
|---|---|---|
| post-LN, learned positions | bert | BertForMaskedLM |
| post-LN, rotary positions of base 10,000 | roformer | RoFormerForMaskedLM |
| pre-LN, learned positions, exact GELU | roberta-prelayernorm | RobertaPreLayerNormForMaskedLM |
| any other, or without embedding LN | kdjax | none: this package reads it |

A class is named only where its logits are equal (`tests/golden/hf_classes.npz`).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kdjax.config import ModelConfig
from kdjax.errors import InputError, nearest

LARGEST = 2**31 - 1
"""Largest size in a config.json that is read: indices of arrays have 32 bits."""
OWN = "kdjax"
"""The `model_type` of models that no class of transformers computes; its config.json has
`ModelConfig`'s own names."""

_GELUS: dict[str, Literal["exact", "tanh"]] = {
    "gelu": "exact",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
}

_ACTS = {"exact": "gelu", "tanh": "gelu_new"}
"""Names of activations in config.json: all that are read, and the one written for each."""

_SETTINGS: dict[str, tuple[str, int | float]] = {
    "layers": ("num_hidden_layers", 12),
    "width": ("hidden_size", 768),
    "heads": ("num_attention_heads", 12),
    "ffn": ("intermediate_size", 3072),
    "vocab_size": ("vocab_size", 30522),
    "max_positions": ("max_position_embeddings", 512),
    "type_vocab_size": ("type_vocab_size", 2),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "norm_eps": ("layer_norm_eps", 1e-12),
}
"""`ModelConfig`'s names; those of config.json, and what holds where it has none: transformers'
defaults for BERT."""


@dataclass(frozen=True)
class Format:
    """A class of transformers, as which this package's models are stored.

    Attributes:
        model_type: the name in config.json.
        with_head: the class of a model with an MLM head.
        without_head: the class of a model without one.
        expressed: `ModelConfig`'s settings that the class has, all the same for every model of it.
        only: settings of config.json that this package knows one value of.
        defaults: `ModelConfig`'s settings -> defaults that differ from BERT's.
        turns_neighbours: whether rotary planes are made of neighbouring coordinates, not of a
            head's halves.
        pad_token_id: the token whose id comes before the first position's row, by default; None:
            row 0 is position 0.
    """

    model_type: str
    with_head: str
    without_head: str
    expressed: Mapping[str, Any]
    only: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)
    turns_neighbours: bool = False
    pad_token_id: int | None = None


_ENCODER_ONLY = {"is_decoder": False, "add_cross_attention": False}

FORMATS = {
    "bert": Format(
        model_type="bert",
        with_head="BertForMaskedLM",
        without_head="BertModel",
        expressed={"norm": "post", "positions": "learned", "embedding_norm": True},
        only={"position_embedding_type": "absolute", **_ENCODER_ONLY},
    ),
    "roformer": Format(
        model_type="roformer",
        with_head="RoFormerForMaskedLM",
        without_head="RoFormerModel",
        expressed={
            "norm": "post",
            "positions": "rotary",
            "rotary_base": 10000.0,
            "embedding_norm": True,
        },
        only={"rotary_value": False, **_ENCODER_ONLY},
        defaults={"vocab_size": 50000, "max_positions": 1536},
        turns_neighbours=True,
    ),
    "roberta-prelayernorm": Format(
        model_type="roberta-prelayernorm",
        with_head="RobertaPreLayerNormForMaskedLM",
        without_head="RobertaPreLayerNormModel",
        # Its MLM head has the exact GELU, whatever the encoder has.
        expressed={"norm": "pre", "positions": "learned", "embedding_norm": True, "gelu": "exact"},
        only={"position_embedding_type": "absolute", **_ENCODER_ONLY},
        defaults={"vocab_size": 50265},
        pad_token_id=1,
    ),
}
"""The classes of transformers, by `model_type`."""


def format_of(config: ModelConfig) -> Format | None:
    """Return the class of transformers with a model's logits, or None where there is none."""
    for candidate in FORMATS.values():
        if all(getattr(config, name) == value for name, value in candidate.expressed.items()):
            return candidate
    return None


def to_json(config: ModelConfig, *, mlm: bool) -> dict[str, Any]:
    """Build the content of a model's config.json.

    Args:
        config: configuration of the model to describe.
        mlm: whether the model has an MLM head.
    """
    stored_as = format_of(config)
    if stored_as is None:
        return {"model_type": OWN, **dataclasses.asdict(config)}
    settings: dict[str, Any] = {
        "architectures": [stored_as.with_head if mlm else stored_as.without_head],
        "model_type": stored_as.model_type,
        "hidden_act": _ACTS[config.gelu],
    }
    for ours, (theirs, _) in _SETTINGS.items():
        settings[theirs] = getattr(config, ours)
    if stored_as.pad_token_id is not None:
        # Rows up to the padding token's id are before position 0: one, for id 0, which is [PAD] as
        # BERT numbers it.
        settings |= {"pad_token_id": 0, "max_position_embeddings": config.max_positions + 1}
    return settings


def from_json(raw: Any, where: object) -> ModelConfig:
    """Read the model that a config.json describes.

    Args:
        raw: content of the file.
        where: the file, for messages.

    Raises:
        InputError: it describes something other than an encoder that this package has.
    """
    model_type = raw.get("model_type") if isinstance(raw, dict) else None
    if model_type == OWN:
        return _own_from_json(raw, where)
    # A list or an object cannot be looked up.
    if not isinstance(model_type, str) or model_type not in FORMATS:
        known = ", ".join(repr(name) for name in (*FORMATS, OWN))
        raise InputError(f"{where}: model_type is {model_type!r}, expected one of {known}")
    stored_as = FORMATS[model_type]
    for name, only in stored_as.only.items():
        if raw.get(name, only) != only:
            raise InputError(f"{where}: {name} is {raw[name]!r}, expected {only!r}")
    act = raw.get("hidden_act", "gelu")
    if not isinstance(act, str) or act not in _GELUS:
        raise InputError(f"{where}: hidden_act is {act!r}{nearest(str(act), _GELUS)}")
    sizes: dict[str, Any] = {}
    for ours, (theirs, berts) in _SETTINGS.items():
        default = stored_as.defaults.get(ours, berts)
        sizes[ours] = _number(raw.get(theirs, default), default, f"{where}: {theirs}")
    sizes["max_positions"] -= rows_before_positions(raw, where)
    width = sizes["width"]
    embedding_width = raw.get("embedding_size") or width
    if embedding_width != width:
        raise InputError(
            f"{where}: embedding_size is {embedding_width!r}, expected the hidden_size, {width}"
        )
    settings = {"gelu": _GELUS[act], **sizes, **stored_as.expressed}
    if settings["gelu"] != _GELUS[act]:
        raise InputError(f"{where}: hidden_act is {act!r}, expected 'gelu'")
    return _checked(settings, where)


def rows_before_positions(raw: Mapping[str, Any], where: object) -> int:
    """Read from config.json how many rows of the position table precede position 0's.

    Args:
        raw: content of the file.
        where: the file, for messages.

    Raises:
        InputError: the padding token is no id.
    """
    stored_as = FORMATS.get(raw.get("model_type", ""))
    if stored_as is None or stored_as.pad_token_id is None:
        return 0
    token = raw.get("pad_token_id", stored_as.pad_token_id)
    if isinstance(token, bool) or not isinstance(token, int) or token < 0:
        raise InputError(f"{where}: pad_token_id is {token!r}, expected an id, at least 0")
    return token + 1


def neighbours_of_halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorder queries' or keys' coordinates so that those which turn together are neighbours.

    Args:
        array: a kernel `[D, H d]` or a bias `[H d]`; of each head, coordinate i turns with i + d/2.
        heads: number H of attention heads.

    Returns:
        The same with coordinates i and i + d/2 of a head at 2i and 2i + 1.
    """
    in_halves = array.reshape(*array.shape[:-1], heads, 2, -1)
    return np.ascontiguousarray(in_halves.swapaxes(-1, -2)).reshape(array.shape)


def sine_table(config: ModelConfig) -> np.ndarray:
    """Compute RoFormer's table of its rotation, as its checkpoints hold it, `[L, d]`.

    Sines come first, then cosines.
    """
    planes = np.arange(config.head_width // 2)
    frequencies = config.rotary_base ** (-2.0 * planes / config.head_width)
    angles = np.arange(config.max_positions)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def halves_of_neighbours(array: np.ndarray, heads: int) -> np.ndarray:
    """Undo `neighbours_of_halves`."""
    in_pairs = array.reshape(*array.shape[:-1], heads, -1, 2)
    return np.ascontiguousarray(in_pairs.swapaxes(-1, -2)).reshape(array.shape)


def _own_from_json(raw: Mapping[str, Any], where: object) -> ModelConfig:
    settings = {name: value for name, value in raw.items() if name != "model_type"}
    if "types" in settings:  # as models were saved before the setting had its present name
        settings["type_vocab_size"] = settings.pop("types")
    fields = {known.name: known for known in dataclasses.fields(ModelConfig)}
    for name in settings:
        if name not in fields:
            raise InputError(f"{where}: unknown setting {name!r}{nearest(name, fields)}")
    for name, known in fields.items():
        if name not in settings:
            raise InputError(f"{where}: {name} is missing")
        value = settings[name]
        # Sizes have no default and are integers; any other setting is of its default's kind.
        default = 1 if known.default is dataclasses.MISSING else known.default
        if not isinstance(default, (str, bool)):
            settings[name] = _number(value, default, f"{where}: {name}")
        elif type(value) is not type(default):
            kind = type(default).__name__
            raise InputError(f"{where}: {name} is {value!r}, expected a {kind}")
    return _checked(settings, where)


def _checked(settings: Mapping[str, Any], where: object) -> ModelConfig:
    try:
        return ModelConfig(**settings)
    except InputError as e:
        raise InputError(f"{where}: {e}") from None


def _number(value: Any, default: Any, what: str) -> int | float:
    """Return a setting, checked to be of the kind of its default."""
    kind = type(default)
    if isinstance(value, bool) or not isinstance(value, (kind, int)):
        expected = "an integer" if kind is int else "a number"
        raise InputError(f"{what} is {value!r:.80}, expected {expected}")
    limit = LARGEST if kind is int else sys.float_info.max
    if abs(value) > limit:
        raise InputError(f"{what} is {value!r:.40}, expected at most {limit:.10g}")
    return kind(value)  # type: ignore[no-any-return]
