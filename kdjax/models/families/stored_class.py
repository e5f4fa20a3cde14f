"""A class of transformers: the models that it computes, and how config.json describes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from kdjax.config import ModelConfig
from kdjax.config.families import FAMILIES
from kdjax.errors import InputError, nearest
from kdjax.models.families.naming import Naming

LARGEST = 2**31 - 1
"""Largest size in a config.json that is read: indices of arrays have 32 bits."""

GELUS: dict[str, Literal["exact", "tanh"]] = {
    "gelu": "exact",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
}
_ACTS = {"exact": "gelu", "tanh": "gelu_new"}
"""Names of activations in config.json: all that are read, and the one written for each."""

SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_positions": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "norm_eps": "layer_norm_eps",
    "pad_token_id": "pad_token_id",
}
"""`ModelConfig`'s settings and their names in BERT's config.json."""

BERT_SIZES: dict[str, int | float] = {
    "layers": 12,
    "width": 768,
    "heads": 12,
    "ffn": 3072,
    "vocab_size": 30522,
    "max_positions": 512,
    "type_vocab_size": 2,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "norm_eps": 1e-12,
    "pad_token_id": 0,
}
"""What holds where a config.json does not say: transformers' defaults for BERT."""

NO_DECODER: dict[str, Any] = {"is_decoder": False, "add_cross_attention": False}

Settings = dict[str, Any]


def _nothing(_: Any, where: object = None) -> Settings:
    """Return no further settings."""
    return {}


@dataclass(frozen=True)
class StoredClass:
    """A class of transformers, as which models are stored.

    Attributes:
        model_type: the name in config.json.
        with_head: the class of a model with an MLM head.
        without_head: the class of a model without one.
        families: values of `ModelConfig.family` whose models it stores; the first is that of what
            is read.
        naming: names of its tensors.
        fixed_settings: `ModelConfig`'s settings that all models of the class have.
        minimum: settings -> the least that the class can have.
        sizes: `ModelConfig`'s settings -> their names in config.json.
        config_json_defaults: setting in `sizes` -> what holds where config.json does not say.
        required_values: settings of config.json that this package knows one value of.
        act: name of the activation in config.json; None: there is none.
        read: reads what else config.json says, as settings of `ModelConfig`.
        write: writes what else config.json says.
        turns_neighbours: whether rotary planes are made of neighbouring coordinates, not of a
            head's halves.
        offset_positions: whether the position table begins with rows up to the padding token's id,
            of no position.
        has_pooler: whether it has a pooler beside the encoder, of which a checkpoint here has none.
        further_tensors: makes tensors that the class stores and no parameter stands for.
    """

    model_type: str
    with_head: str
    without_head: str
    families: tuple[Any, ...]
    naming: Naming
    fixed_settings: Mapping[str, Any]
    minimum: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=lambda: SIZES)
    config_json_defaults: Mapping[str, int | float] = field(default_factory=lambda: BERT_SIZES)
    required_values: Mapping[str, Any] = field(default_factory=lambda: NO_DECODER)
    act: str | None = "hidden_act"
    read: Callable[[Mapping[str, Any], object], Settings] = _nothing
    write: Callable[[ModelConfig], Settings] = _nothing
    turns_neighbours: bool = False
    offset_positions: bool = False
    has_pooler: bool = True
    further_tensors: Callable[[ModelConfig], dict[str, np.ndarray]] = _nothing

    def differences(self, config: ModelConfig) -> dict[str, str]:
        """Return the settings that the class cannot have -> what it would have, in words."""
        differences = {}
        for name, expected in self.fixed_settings.items():
            if getattr(config, name) != expected:
                differences[name] = repr(expected)
        for name, minimum in self.minimum.items():
            if getattr(config, name) < minimum:
                differences[name] = f"at least {minimum}"
        return differences

    def rows_before_positions(self, config: ModelConfig) -> int:
        """Return the number of rows of the position table before position 0's."""
        if not self.offset_positions:
            return 0
        return config.pad_token_id + 1

    def to_json(self, config: ModelConfig, *, mlm: bool) -> Settings:
        """Build the content of a model's config.json.

        Args:
            config: configuration of the model to describe, which the class has.
            mlm: whether the model has an MLM head.
        """
        settings: Settings = {
            "architectures": [self.with_head if mlm else self.without_head],
            "model_type": self.model_type,
        }
        if self.act is not None:
            settings[self.act] = _ACTS[config.gelu]
        for ours, theirs in self.sizes.items():
            settings[theirs] = getattr(config, ours)
        if self.offset_positions:
            rows = config.max_positions + self.rows_before_positions(config)
            settings[self.sizes["max_positions"]] = rows
        return {**settings, **self.write(config)}

    def from_json(self, raw: Mapping[str, Any], where: object) -> ModelConfig:
        """Read the model that a config.json describes.

        Args:
            raw: content of the file.
            where: the file, for messages.

        Raises:
            InputError: it describes something other than a model of this class that this package
                computes.
        """
        # What would have to be computed in another way
        for name, required in self.required_values.items():
            if raw.get(name, required) != required:
                raise InputError(f"{where}: {name} is {raw[name]!r:.80}, expected {required!r}")
        act = "gelu" if self.act is None else raw.get(self.act, "gelu")
        if not isinstance(act, str) or act not in GELUS:
            raise InputError(f"{where}: {self.act} is {act!r:.80}{nearest(str(act), GELUS)}")

        # Sizes, then what the class says by itself
        family = self.families[0]
        settings: Settings = {**FAMILIES[family].defaults, "family": family, "gelu": GELUS[act]}
        for ours, theirs in self.sizes.items():
            default = self.config_json_defaults[ours]
            value = raw.get(theirs, default)
            if ours == "pad_token_id":
                settings[ours] = self._padding_token(value, where)
            else:
                settings[ours] = check_config_number(value, default, f"{where}: {theirs}")
        width = settings["width"]
        embedding_width = raw.get("embedding_size") or width
        if embedding_width != width:
            raise InputError(
                f"{where}: embedding_size is {embedding_width!r:.80}, expected the hidden_size, "
                f"{width}"
            )
        if self.fixed_settings.get("gelu", settings["gelu"]) != settings["gelu"]:
            raise InputError(f"{where}: {self.act} is {act!r}, expected 'gelu'")
        settings |= {**self.fixed_settings, **self.read(raw, where)}
        return self._config(settings, where)

    def _padding_token(self, value: Any, where: object) -> int:
        """Return the padding token's id.

        Raises:
            InputError: pad_token_id is no whole number of at least 0.
        """
        # A model may have none, where nothing is counted from it.
        if value is None and not self.offset_positions:
            return int(self.config_json_defaults["pad_token_id"])
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{where}: pad_token_id is {value!r:.80}, expected an id, at least 0")
        return value

    def _config(self, settings: Settings, where: object) -> ModelConfig:
        """Return the configuration, its position table's rows counted from position 0's.

        Raises:
            InputError: settings that do not fit together.
        """
        try:
            if self.offset_positions:
                rows = settings["max_positions"] - settings["pad_token_id"] - 1
                settings = {**settings, "max_positions": rows}
            return ModelConfig(**settings)
        except InputError as e:
            raise InputError(f"{where}: {e}") from None

    def of_type(self, model_type: str, class_name: str, **changes: Any) -> StoredClass:
        """Return this class under another `model_type`, which is also its only family.

        Args:
            model_type: name of the type in config.json.
            class_name: beginning of the names of its classes in transformers, such as `Roberta`.
            **changes: other fields that differ.
        """
        return replace(
            self,
            model_type=model_type,
            families=(model_type,),
            with_head=f"{class_name}ForMaskedLM",
            without_head=f"{class_name}Model",
            **changes,
        )


def check_config_number(value: Any, default: Any, what: str) -> int | float:
    """Return a number of config.json, checked to be of the type of its default.

    Args:
        value: value that the file has.
        default: an int or a float; a whole number is taken for either.
        what: name of the setting and its file, for messages.

    Raises:
        InputError: it is of another type, or larger than a computer's numbers are.
    """
    kind = type(default)
    if isinstance(value, bool) or not isinstance(value, (kind, int)):
        expected = "an integer" if kind is int else "a number"
        raise InputError(f"{what} is {value!r:.80}, expected {expected}")
    limit = LARGEST if kind is int else sys.float_info.max
    if abs(value) > limit:
        raise InputError(f"{what} is {value!r:.40}, expected at most {limit:.10g}")
    return kind(value)  # type: ignore[no-any-return]
