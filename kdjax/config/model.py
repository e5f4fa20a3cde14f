"""A model: a BERT encoder by its sizes, or by a name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kdjax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a BERT encoder has besides its size."""

    vocab_size: int = 30522
    """Entries of the vocabulary."""
    max_positions: int = 512
    """Longest sequence the model takes, in tokens: rows of the position table, and the bound of
    rotary models too."""
    positions: Literal["learned", "rotary"] = "learned"
    """How a model knows positions: by a learned vector for each, added to the embeddings (BERT's),
    or by rotating queries and keys in every layer (RoFormer's), which has no parameters and finds
    what is n tokens away everywhere alike."""
    rotary_base: float = 10000.0
    """Base of the rotation's wavelengths, from 2 pi to about 2 pi times it, in tokens. A small base
    (100) suits short sequences (32 tokens): with a large one most of a head's width hardly turns
    over so few."""
    type_vocab_size: int = 2
    """Entries of the token type embedding."""
    norm: Literal["post", "pre"] = "post"
    """Where LayerNorm stands: after each residual sum (post, BERT's) or before each block (pre)."""
    embedding_norm: bool = True
    """Whether the embedding output passes a LayerNorm."""
    gelu: Literal["exact", "tanh"] = "exact"
    """The GELU: with the error function, or its tanh approximation."""
    dropout: float = 0.1
    """Dropout rate of embeddings and of both blocks' outputs."""
    attention_dropout: float = 0.1
    """Dropout rate of the attention probabilities."""
    norm_eps: float = 1e-12
    """Epsilon of every LayerNorm."""
    init: Literal["fixed", "by_width"] = "fixed"
    """Whether a random start has the same spread at every width (BERT's), or a wider one in
    narrower models: init_std times (768 / width)^0.75."""
    init_std: float = 0.02
    """Standard deviation that matrices and embeddings start with: of a normal cut at two of it.
    With `init: by_width`, that at width 768."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelOptions):
    """One BERT encoder, fully determined. `kdjax.models.zoo` has the named sizes."""

    layers: int
    """Transformer layers."""
    width: int
    """Hidden width D."""
    heads: int
    """Attention heads; they divide the width."""
    ffn: int
    """Width of the feed-forward block."""

    def __post_init__(self) -> None:
        for name in (
            "layers",
            "width",
            "heads",
            "ffn",
            "vocab_size",
            "max_positions",
            "type_vocab_size",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"model: {name} is {getattr(self, name)}, expected at least 1")
        if self.positions not in ("learned", "rotary"):
            raise InputError(
                f"model: positions is {self.positions!r}, expected learned or rotary (the longest "
                "sequence is now "
                "max_positions)"
            )
        if self.width % self.heads:
            raise InputError(f"model: {self.heads} heads do not divide the width {self.width}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"model: {name} is {getattr(self, name)}, expected a rate in [0, 1)"
                )
        if self.positions == "rotary" and self.head_width % 2:
            raise InputError(
                f"model: heads are {self.head_width} wide, expected an even width: rotary "
                "positions turn pairs"
            )
        if not 1 < self.rotary_base < math.inf:
            raise InputError(f"model: rotary_base is {self.rotary_base}, expected a number above 1")
        if not 0 < self.norm_eps < 1:
            raise InputError(f"model: norm_eps is {self.norm_eps}, expected more than 0, below 1")
        for name, known in (("gelu", ("exact", "tanh")), ("init", ("fixed", "by_width"))):
            if getattr(self, name) not in known:
                raise InputError(
                    f"model: {name} is {getattr(self, name)!r}, expected {' or '.join(known)}"
                )
        if not 0 < self.init_std <= 10:
            raise InputError(
                f"model: init_std is {self.init_std}, expected more than 0, at most 10"
            )

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ModelOptions):
    """A model by name, with whatever shall differ from the name."""

    size: str = "6x768"
    """A named size, such as mini, or layers x width, such as 6x768, with heads of width 64: sets
    layers, width, heads and ffn."""
    layers: int | None = None
    """Transformer layers, where not the named size's."""
    width: int | None = None
    """Hidden width, where not the named size's."""
    heads: int | None = None
    """Attention heads, where not the named size's."""
    ffn: int | None = None
    """Width of the feed-forward block, where not the named size's."""
