"""Named model sizes: BERT's, the smaller ones of Turc et al. (2019, arXiv 1908.08962), and MiniLM's
six layers."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from kdjax.config import ModelConfig, ModelOptions, ModelSpec
from kdjax.config.model import HEAD_WIDTH, WRITTEN_SIZE
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
}
"""Sizes with a name of their own. Besides, LxW (as in 6x768) is L layers of width W with W/64 heads
and ffn 4W; another W needs heads of its own."""


def resolve(spec: ModelSpec) -> ModelConfig:
    """Return a model by name, with what the spec sets itself in place of the name's.

    Raises:
        InputError: an unknown size, or sizes that do not fit together.
    """
    size = _size(spec.size)
    sizes = size._asdict()
    if spec.width is not None:
        sizes["ffn"] = 4 * spec.width  # BERT's ratio, not the named size's block
    for name in Size._fields:
        if getattr(spec, name) is not None:
            sizes[name] = getattr(spec, name)
    options = {field.name: getattr(spec, field.name) for field in dataclasses.fields(ModelOptions)}
    return ModelConfig(**sizes, **options)


def get(name: str) -> ModelConfig:
    """Return a named size with BERT's own options.

    Raises:
        InputError: an unknown size.
    """
    return resolve(ModelSpec(size=name))


def _size(name: str) -> Size:
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
    return _bert(layers, width)
