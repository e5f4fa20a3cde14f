"""Settings of a model: a BERT encoder by its sizes, or by a name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from kdjax.config.values import check_range, expect
from kdjax.errors import InputError

HEAD_WIDTH = 64
"""Width of a head in BERT's sizes."""
WRITTEN_SIZE = re.compile(r"([1-9]\d*)x([1-9]\d*)")
"""Form of a size that is written as layers x width."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Settings of a BERT encoder besides its size."""

    vocab_size: int = 30522
    """Entries of the vocabulary, 1 to 16,777,216. The default is BERT's, uncased."""
    max_positions: int = 512
    """Longest sequence the model takes, in tokens: rows of the position table, and the bound of
    rotary models too. 1 to 1,048,576."""
    positions: Literal["learned", "rotary"] = "learned"
    """How the model encodes positions. `learned`: by a learned vector for each, added to the
    embeddings, as BERT. `rotary`: by rotating queries and keys in every layer, as RoFormer, without
    parameters; what is n tokens away looks the same everywhere."""
    rotary_base: float = 10000.0
    """Base of the rotation's wavelengths, which go from 2 pi to about 2 pi times it, in tokens. A
    small base (100) suits short sequences (32 tokens), over which most of a head's width would
    hardly turn with a large one. Above 1, up to 1e30."""
    type_vocab_size: int = 2
    """Entries of the token type embedding, 1 to 1,048,576."""
    norm: Literal["post", "pre"] = "post"
    """Where LayerNorm stands: after each residual sum (post, BERT's) or before each block (pre)."""
    embedding_norm: bool = True
    """Whether there is a LayerNorm after the embeddings."""
    gelu: Literal["exact", "tanh"] = "exact"
    """The form of GELU: with the error function, or its tanh approximation."""
    dropout: float = 0.1
    """Dropout rate of embeddings and of both blocks' outputs. The default is BERT's, as are all
    here. From 0, below 1."""
    attention_dropout: float = 0.1
    """Dropout rate of the attention probabilities, from 0, below 1."""
    norm_eps: float = 1e-12
    """Epsilon of every LayerNorm, above 0, below 1."""
    init: Literal["fixed", "by_width"] = "fixed"
    """Spread of a random start. `fixed`: the same at every width, as BERT. `by_width`: wider in
    narrower models, init_std times (768 / width)^0.75."""
    init_std: float = 0.02
    """Standard deviation of matrices and embeddings at a random start, which is normal and cut at
    two of it. With `init: by_width`, that at width 768. Above 0, up to 10."""

    def __post_init__(self) -> None:
        check_range(self, "model: ", 1, 2**24, "vocab_size")
        check_range(self, "model: ", 1, 2**20, "max_positions", "type_vocab_size")
        for name in ("dropout", "attention_dropout"):
            rate = getattr(self, name)
            is_rate = not isinstance(rate, bool) and 0 <= rate < 1
            expect(is_rate, f"model: {name}", rate, "a rate in [0, 1)")
        # Wavelengths grow with the base.
        check_range(self, "model: ", 1, 1e30, "rotary_base", above=True)
        expect(0 < self.norm_eps < 1, "model: norm_eps", self.norm_eps, "more than 0, below 1")
        check_range(self, "model: ", 0, 10, "init_std", above=True)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelOptions):
    """A BERT encoder, fully determined. `kdjax.models.zoo` has the named sizes."""

    layers: int
    """Transformer layers, 1 to 10,000."""
    width: int
    """Hidden width D, 1 to 1,048,576."""
    heads: int
    """Attention heads, 1 to 65,536; they divide the width."""
    ffn: int
    """Width of the feed-forward block, 1 to 16,777,216."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self)
        # `positions` was the longest sequence once.
        known = "learned or rotary (the longest sequence is now max_positions)"
        is_known = self.positions in ("learned", "rotary")
        expect(is_known, "model: positions", repr(self.positions), known)
        # Heads are slices of the width.
        if self.width % self.heads:
            raise InputError(f"model: {self.heads} heads do not divide the width {self.width}")
        # A rotation turns two numbers of a head at a time.
        if self.positions == "rotary" and self.head_width % 2:
            raise InputError(
                f"model: heads are {self.head_width} wide, expected an even width: rotary "
                "positions turn pairs"
            )
        for name, names in (("gelu", ("exact", "tanh")), ("init", ("fixed", "by_width"))):
            value = getattr(self, name)
            expect(value in names, f"model: {name}", repr(value), " or ".join(names))

    @property
    def head_width(self) -> int:
        """Compute the width of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ModelOptions):
    """A model by a named size, with the settings that shall differ from it."""

    size: str = "6x768"
    """Name of a size, such as mini, or layers x width, such as 6x768, with heads of width 64 unless
    `heads` is set. It sets layers, width, heads and ffn."""
    layers: int | None = None
    """Transformer layers. None: those of the named size."""
    width: int | None = None
    """Hidden width. None: that of the named size."""
    heads: int | None = None
    """Attention heads. None: those of the named size."""
    ffn: int | None = None
    """Width of the feed-forward block. None: that of the named size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self)
        # A width that heads of BERT's width do not fill needs their number.
        written = WRITTEN_SIZE.fullmatch(self.size)
        expect(
            self.heads is not None or written is None or int(written[2]) % HEAD_WIDTH == 0,
            "size",
            repr(self.size),
            f"a width that is a multiple of the head width {HEAD_WIDTH}, or heads set as well",
        )


def _check_sizes(model: ModelConfig | ModelSpec) -> None:
    """Check the sizes of a model; a named size's own ones need not be set.

    Raises:
        InputError: one is no whole number, or out of range.
    """
    limits = {"layers": 10_000, "width": 2**20, "heads": 2**16, "ffn": 2**24}
    for name, limit in limits.items():
        check_range(model, "model: ", 1, limit, name)
