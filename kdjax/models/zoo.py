"""Named model sizes: BERT's, the smaller ones of Turc et al. (2019, arXiv 1908.08962), MiniLM's six
layers, ModernBERT's (Warner et al. 2024, arXiv 2412.13663) and Ettin's (Weller et al. 2025, arXiv
2507.11412)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from kdjax.config import ModelConfig, ModelSpec
from kdjax.config.families import FAMILIES
from kdjax.config.model import HEAD_WIDTH, WRITTEN_SIZE, with_family_settings
from kdjax.errors import InputError, nearest


class Size(NamedTuple):
    """The size of an encoder: layers, hidden width, heads, width of the feed-forward block."""

    layers: int
    width: int
    heads: int
    ffn: int


def _bert(layers: int, width: int) -> Size:
    return Size(layers, width, max(1, width // HEAD_WIDTH), 4 * width)


SIZES = {
    "tiny": _bert(2, 128),
    "mini": _bert(4, 256),
    "small": _bert(4, 512),
    "medium": _bert(8, 512),
    "base": _bert(12, 768),
    "large": _bert(24, 1024),
    "minilm-l6": Size(6, 384, 12, 1536),
    "modernbert-base": Size(22, 768, 12, 1152),
    "modernbert-large": Size(28, 1024, 16, 2624),
    "ettin-17m": Size(7, 256, 4, 384),
    "ettin-32m": Size(10, 384, 6, 576),
    "ettin-68m": Size(19, 512, 8, 768),
    "ettin-150m": Size(22, 768, 12, 1152),
    "ettin-400m": Size(28, 1024, 16, 2624),
    "ettin-1b": Size(28, 1792, 28, 3840),
}
"""Sizes with a name of their own. Besides, LxW (as in 6x768) is L layers of width W with W/64 heads
and the family's feed-forward block, BERT's of 4W; another W needs heads of its own."""


def resolve(spec: ModelSpec, where: str = "model") -> ModelConfig:
    """Return a model by family and name, with what the spec sets itself in place of theirs.

    Args:
        spec: the model, of which sizes may be open.
        where: the section of a recipe that it stands in, for messages.

    Raises:
        InputError: an unknown size, sizes that do not fit together, or a setting that contradicts
            the family.
    """
    spec = with_family_settings(spec)
    ratio = FAMILIES[spec.family].ffn_ratio
    size = _size(spec.size, ratio)
    settings: dict[str, Any] = size._asdict()
    if spec.width is not None:
        settings["ffn"] = int(ratio * spec.width)  # the family's ratio, not the named size's block
    for field in dataclasses.fields(ModelConfig):
        value = getattr(spec, field.name)
        # Sizes may be open; nothing else is, but for what None says something of.
        if field.name not in settings or value is not None:
            settings[field.name] = value
    # A model cannot say itself whose it is.
    try:
        return ModelConfig(**settings)
    except InputError as e:
        raise InputError(f"{where}: {str(e).removeprefix('model: ')}") from None


def with_settings(config: ModelConfig | str, settings: Mapping[str, Any]) -> ModelConfig:
    """Return a model's configuration with some settings in place of its own.

    Args:
        config: a configuration, or the name of a size.
        settings: name of a setting -> its value.

    Raises:
        InputError: an unknown size or setting, or settings that do not fit together.
    """
    kind = ModelSpec if isinstance(config, str) else ModelConfig
    known = [field.name for field in dataclasses.fields(kind) if field.name != "size"]
    for name in settings:
        if name not in known:
            raise InputError(
                f"{name} is no setting of a model, expected one of those of `student` in a recipe"
                f"{nearest(name, known)}"
            )
    if isinstance(config, str):
        return resolve(ModelSpec(size=config, **settings))
    return dataclasses.replace(config, **settings)


def get(name: str) -> ModelConfig:
    """Return a named size with BERT's own options.

    Raises:
        InputError: an unknown size.
    """
    return resolve(ModelSpec(size=name))


def _size(name: str, ffn_ratio: float) -> Size:
    """Return a size by its name, or as layers x width."""
    if name in SIZES:
        return SIZES[name]
    written = WRITTEN_SIZE.fullmatch(name)
    if written is None:
        hint = nearest(name, SIZES)
        raise InputError(
            f"model size {name!r}: expected LAYERSxWIDTH (as in 6x768) or a named size{hint}"
        )
    layers = int(written[1])
    width = int(written[2])
    return _bert(layers, width)._replace(ffn=int(ffn_ratio * width))
