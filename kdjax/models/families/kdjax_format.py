"""Models that no class of transformers computes: config.json with `ModelConfig`'s own names, and
tensors under their parameters' paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kdjax.config import ModelConfig
from kdjax.errors import InputError, nearest
from kdjax.models.families.naming import DottedPaths
from kdjax.models.families.stored_class import check_config_number
from kdjax.storage import typed_json

MODEL_TYPE = "kdjax"
"""Their `model_type`, which transformers refuses by name."""
NAMING = DottedPaths(prefix="", layer="", heads=("mlm.",), modules={})


def to_json(config: ModelConfig) -> dict[str, Any]:
    """Build the content of a model's config.json: every setting, so that no default may change."""
    return {"model_type": MODEL_TYPE, **dataclasses.asdict(config)}


def from_json(raw: Mapping[str, Any], where: object) -> ModelConfig:
    """Invert `to_json`.

    Args:
        raw: content of the file.
        where: the file, for messages.

    Raises:
        InputError: a setting that is missing, unknown, of another kind or out of range.
    """
    settings = {name: value for name, value in raw.items() if name != "model_type"}
    if "types" in settings:  # as models were saved before the setting had its present name
        settings["type_vocab_size"] = settings.pop("types")
    fields = {known.name: known for known in dataclasses.fields(ModelConfig)}
    for name in settings:
        if name not in fields:
            raise InputError(f"{where}: unknown setting {name!r}{nearest(name, fields)}")
    for name, known in fields.items():
        if name in settings:
            settings[name] = _checked_setting(known, settings[name], f"{where}: {name}")
        # A model that an earlier version saved has the defaults of what is new.
        elif typed_json.LATER not in known.metadata:
            raise InputError(f"{where}: {name} is missing")
    try:
        return ModelConfig(**settings)
    except InputError as e:
        raise InputError(f"{where}: {e}") from None


def _checked_setting(known: dataclasses.Field[Any], value: Any, what: str) -> Any:
    """Return a setting's value, checked to be of the kind of its default.

    Raises:
        InputError: it is of another kind.
    """
    # Sizes have no default and are integers.
    if known.default is dataclasses.MISSING:
        return check_config_number(value, 1, what)
    if known.default is None and value is None:
        return None
    if known.default is None:
        return check_config_number(value, 0.0, what)
    if not isinstance(known.default, (str, bool)):
        return check_config_number(value, known.default, what)
    kind = type(known.default)
    if not isinstance(value, kind):
        raise InputError(f"{what} is {value!r:.80}, expected a {kind.__name__}")
    return value
