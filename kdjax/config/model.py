"""A model: a BERT encoder by its sizes, or by a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdjax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a BERT encoder has besides its size."""

    vocab_size: int = 30522
    """Entries of the vocabulary."""
    positions: int = 512
    """Longest sequence the position embeddings allow, in tokens."""
    types: int = 2
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
        for name in ("layers", "width", "heads", "ffn", "vocab_size", "positions", "types"):
            if getattr(self, name) < 1:
                raise InputError(f"model: {name} is {getattr(self, name)}, expected at least 1")
        if self.width % self.heads:
            raise InputError(f"model: {self.heads} heads do not divide the width {self.width}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"model: {name} is {getattr(self, name)}, expected a rate in [0, 1)")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ModelOptions):
    """A model by name, with whatever shall differ from the name."""

    size: str = "6x768"
    """A named size (`kdjax.models.zoo`): sets layers, width, heads and ffn."""
    layers: int | None = None
    """Transformer layers, where not the named size's."""
    width: int | None = None
    """Hidden width, where not the named size's."""
    heads: int | None = None
    """Attention heads, where not the named size's."""
    ffn: int | None = None
    """Width of the feed-forward block, where not the named size's."""
