"""Settings of a model: an encoder by its sizes, or by a family and a name."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kdjax.config.families import FAMILIES, FamilyName
from kdjax.config.values import LATER, check_range, expect, rename_hint
from kdjax.errors import InputError
from kdjax.storage import typed_json

HEAD_WIDTH = 64
"""Width of a head in BERT's sizes."""
WRITTEN_SIZE = re.compile(r"([1-9]\d*)x([1-9]\d*)")
"""Form of a size that is written as layers x width."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """An encoder, fully determined: independent facts of what it computes. Defaults are BERT's.

    `kdjax.models.zoo` has the named sizes, `kdjax.config.families` the families' own settings.
    """

    layers: int
    """Transformer layers, 1 to 10,000."""
    width: int
    """Hidden width D, 1 to 1,048,576."""
    heads: int
    """Attention heads, 1 to 65,536; they divide the width."""
    ffn: int
    """Width of the feed-forward block, 1 to 16,777,216."""

    family: FamilyName = field(default="bert", metadata=LATER)
    """Family whose class of transformers the model is saved as. `bert` takes any settings: such a
    model is saved as BERT or as the relative of it that computes the same."""
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
    local_rotary_base: float = field(default=10000.0, metadata=LATER)
    """The base in layers that see a window alone. Above 1, up to 1e30."""
    attention_window: int = field(default=0, metadata=LATER)
    """Width of the sliding window that local layers see, in tokens: half of it, rounded down, to
    either side. 0: every layer sees all. Up to 1,048,576."""
    global_every: int = field(default=1, metadata=LATER)
    """Every how many layers one sees all, from the first on; the others see the window. 1 where
    there is no window, above it where there is one. Up to 10,000."""
    type_vocab_size: int = 2
    """Entries of the token type embedding, up to 1,048,576. 0: the model has no token types."""
    norm: Literal["post", "pre"] = "post"
    """Where LayerNorm stands: after each residual sum (post, BERT's) or before each block (pre)."""
    first_norm: bool = field(default=True, metadata=LATER)
    """Whether the first layer of a pre-LN model has a LayerNorm before its attention."""
    embedding_norm: bool = True
    """Whether there is a LayerNorm after the embeddings."""
    norm_bias: bool = field(default=True, metadata=LATER)
    """Whether LayerNorms have a bias."""
    linear_bias: bool = field(default=True, metadata=LATER)
    """Whether linear layers of the encoder and the MLM head's dense layer have a bias."""
    decoder_bias: bool = field(default=True, metadata=LATER)
    """Whether the MLM head's decoder has a bias. Without one a 0 stands in its place, which nothing
    trains."""
    ffn_gated: bool = field(default=False, metadata=LATER)
    """Whether the feed-forward block is gated: GELU(x U) ⊙ (x G) in place of GELU(x U) (GeGLU,
    Shazeer 2020, arXiv 2002.05202)."""
    gelu: Literal["exact", "tanh"] = "exact"
    """The form of GELU: with the error function, or its tanh approximation."""
    dropout: float = 0.1
    """Dropout rate of embeddings and of both blocks' outputs. The default is BERT's, as are all
    here. From 0, below 1."""
    embedding_dropout: float | None = field(default=None, metadata=LATER)
    """Dropout rate of the embeddings. None: `dropout`. From 0, below 1."""
    attention_dropout: float = 0.1
    """Dropout rate of the attention probabilities, from 0, below 1."""
    dropout_sites: Literal["bert", "distilbert", "modernbert"] = field(
        default="bert", metadata=LATER
    )
    """Where a layer drops out besides the attention probabilities. `bert`: the outputs of attention
    and of the feed-forward block. `distilbert`: the latter alone. `modernbert`: attention's output
    at `attention_dropout`, and inside the feed-forward block, before its last linear layer."""
    norm_eps: float = 1e-12
    """Epsilon of every LayerNorm, above 0, below 1."""
    pad_token_id: int = field(default=0, metadata=LATER)
    """Token that fills sequences up, of the vocabulary. It is not computed with; a saved model
    names it."""
    init: Literal["fixed", "by_width"] = "fixed"
    """Spread of a random start. `fixed`: the same at every width, as BERT. `by_width`: wider in
    narrower models, init_std times (768 / width)^0.75."""
    init_std: float = 0.02
    """Standard deviation of matrices and embeddings at a random start, which is normal, before it
    is cut. With `init: by_width`, that at width 768. Above 0, up to 10."""
    init_cut: float = field(default=2.0, metadata=LATER)
    """How many standard deviations from 0 a random start's numbers are at most, 0 to 100. 0: they
    are not cut."""
    init_outputs: Literal["same", "by_depth"] = field(default="same", metadata=LATER)
    """Spread of the matrices whose results are added to the residual stream, and of the MLM head's
    dense layer. `same`: as others. `by_depth`: 1/√(2 layers) of it, as Megatron-LM."""

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_options(self)
        # Heads are slices of the width.
        if self.width % self.heads:
            raise InputError(f"model: {self.heads} heads do not divide the width {self.width}")
        # A rotation turns two numbers of a head at a time.
        if self.positions == "rotary" and self.head_width % 2:
            raise InputError(
                f"model: heads are {self.head_width} wide, expected an even width: rotary "
                "positions turn pairs"
            )
        if (self.attention_window > 0) != (self.global_every > 1):
            raise InputError(
                f"model: attention_window is {self.attention_window} and global_every "
                f"{self.global_every}, expected a window and more than 1, or 0 and 1"
            )
        if self.norm == "post" and not self.first_norm:
            raise InputError(
                "model: first_norm is False and norm 'post', expected norm 'pre': a post-LN layer "
                "has no norm before its attention"
            )
        _check_family(self)
        expected = f"an id of the vocabulary, below {self.vocab_size}"
        expect(
            self.pad_token_id < self.vocab_size, "model: pad_token_id", self.pad_token_id, expected
        )

    @property
    def head_width(self) -> int:
        """Compute the width of one attention head."""
        return self.width // self.heads

    @property
    def drops_out(self) -> bool:
        """Return whether anything is dropped out in training."""
        rates = (self.dropout, self.attention_dropout, self.embedding_dropout or 0.0)
        return max(rates) > 0

    def is_local(self, layer: int) -> bool:
        """Return whether a layer, of which 1 is the first, sees a window alone."""
        return (layer - 1) % self.global_every != 0

    def half_window(self, layer: int) -> int | None:
        """Return the number of positions that a layer sees to either side; None: all of them."""
        if not self.is_local(layer):
            return None
        return self.attention_window // 2


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model by its family and a named size, with the settings that shall differ from them.

    What is None beside the sizes is the family's, as `with_family_settings` has it; a recipe's
    models (`Config`) have nothing else open.
    """

    family: FamilyName = "bert"
    """Family of models whose settings it has, and whose class of transformers it is saved as:
    ModernBERT's, RoBERTa's, …. `bert` takes any settings."""
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
    """Width of the feed-forward block. None: that of the named size; of a width of its own, the
    family's: 4 times the width, ModernBERT's 1.5 times."""
    vocab_size: int | None = None
    """Entries of the vocabulary, 1 to 16,777,216. None: the family's; BERT's is 30,522."""
    max_positions: int | None = None
    """Longest sequence the model takes, in tokens, 1 to 1,048,576. None: the family's; BERT's is
    512."""
    positions: Literal["learned", "rotary"] | None = None
    """How the model encodes positions: by a learned vector for each, as BERT, or by rotating
    queries and keys in every layer, as RoFormer. None: as the family."""
    rotary_base: float | None = None
    """Base of the rotation's wavelengths, which go from 2 pi to about 2 pi times it, in tokens. A
    small base (100) suits short sequences (32 tokens). Above 1, up to 1e30. None: the family's,
    else 10,000."""
    local_rotary_base: float | None = None
    """The base in layers that see a window alone. Above 1, up to 1e30. None: the family's, else
    10,000."""
    attention_window: int | None = None
    """Width of the sliding window that local layers see, in tokens: half of it to either side. 0:
    every layer sees all. None: the family's, else 0."""
    global_every: int | None = None
    """Every how many layers one sees all, from the first on. 1: every layer does. None: the
    family's, else 1."""
    type_vocab_size: int | None = None
    """Entries of the token type embedding, up to 1,048,576; 0: none. None: the family's; BERT's is
    2."""
    norm: Literal["post", "pre"] | None = None
    """Where LayerNorm stands: after each residual sum (post, BERT's) or before each block (pre).
    None: as the family."""
    first_norm: bool | None = None
    """Whether the first layer of a pre-LN model has a LayerNorm before its attention. None: as the
    family, else true."""
    embedding_norm: bool | None = None
    """Whether there is a LayerNorm after the embeddings. None: as the family, else true."""
    norm_bias: bool | None = None
    """Whether LayerNorms have a bias. None: as the family, else true."""
    linear_bias: bool | None = None
    """Whether linear layers have a bias. None: as the family, else true."""
    decoder_bias: bool | None = None
    """Whether the MLM head's decoder has a bias. None: true."""
    ffn_gated: bool | None = None
    """Whether the feed-forward block is gated (GeGLU). None: as the family, else false."""
    gelu: Literal["exact", "tanh"] | None = None
    """The form of GELU: with the error function, or its tanh approximation. None: exact."""
    dropout: float | None = None
    """Dropout rate of embeddings and of both blocks, from 0, below 1. None: the family's; BERT's is
    0.1."""
    embedding_dropout: float | None = None
    """Dropout rate of the embeddings, from 0, below 1. None: `dropout`."""
    attention_dropout: float | None = None
    """Dropout rate of the attention probabilities, from 0, below 1. None: the family's; BERT's is
    0.1."""
    dropout_sites: Literal["bert", "distilbert", "modernbert"] | None = None
    """Where a layer drops out besides the attention probabilities, as the model of that name. None:
    as the family."""
    norm_eps: float | None = None
    """Epsilon of every LayerNorm, above 0, below 1. None: the family's; BERT's is 1e-12."""
    pad_token_id: int | None = None
    """Token that fills sequences up, as a saved model names it. None: 0; a model that is saved with
    a tokenizer has the tokenizer's."""
    init: Literal["fixed", "by_width"] | None = None
    """Spread of a random start. `fixed`: the same at every width, as BERT. `by_width`: wider in
    narrower models, init_std times (768 / width)^0.75. None: fixed."""
    init_std: float | None = None
    """Standard deviation of matrices and embeddings at a random start, before it is cut; with
    `init: by_width`, that at width 768. Above 0, up to 10. None: the family's; BERT's is 0.02."""
    init_cut: float | None = None
    """How many standard deviations from 0 a random start's numbers are at most, 0 to 100; 0: they
    are not cut. None: the family's; BERT's is 2."""
    init_outputs: Literal["same", "by_depth"] | None = None
    """Spread of the matrices whose results are added to the residual stream: as others', or
    1/√(2 layers) of it. None: as the family."""

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_options(self)
        # A width that heads of BERT's width do not fill needs their number.
        written = WRITTEN_SIZE.fullmatch(self.size)
        expect(
            self.heads is not None or written is None or int(written[2]) % HEAD_WIDTH == 0,
            "size",
            repr(self.size),
            f"a width that is a multiple of the head width {HEAD_WIDTH}, or heads set as well",
        )


def drop_later_settings(model: dict[str, Any]) -> None:
    """Remove, from the settings of a `ModelSpec` by name, those that `to_dict` leaves out of a
    `ModelConfig`: a spec that has them says what earlier versions did not name and had."""
    for known in fields(ModelConfig):
        if known.name in model and typed_json.is_left_out(known, model[known.name]):
            del model[known.name]


def with_family_settings(spec: ModelSpec) -> ModelSpec:
    """Return a spec that leaves nothing open but sizes: its family's settings for all others."""
    return replace(spec, **_open_options(spec))


_TYPES = get_type_hints(ModelConfig)
_NAMED: dict[str, tuple[str, ...]] = {
    name: get_args(kind) for name, kind in _TYPES.items() if get_origin(kind) is Literal
}
"""Settings that are one of some names, and the names."""
_SWITCHES = [name for name, kind in _TYPES.items() if kind is bool]
"""Settings that are true or false."""


def _open_options(spec: ModelSpec) -> dict[str, Any]:
    """Return the settings that a spec leaves open, as its family has them; no sizes."""
    family = FAMILIES[spec.family]
    by_family = {**family.defaults, **family.fixed_settings}
    options = {}
    for option in fields(ModelConfig):
        # Sizes have no default.
        is_size = option.default is MISSING
        if not is_size and getattr(spec, option.name) is None:
            options[option.name] = by_family.get(option.name, option.default)
    # Without a window every layer is global, and the other way round.
    if spec.attention_window == 0 and "global_every" in options:
        options["global_every"] = 1
    if spec.global_every == 1 and "attention_window" in options:
        options["attention_window"] = 0
    return options


def _check_family(model: ModelConfig) -> None:
    """Check that a model has what every model of its family has.

    Raises:
        InputError: a setting that contradicts the family.
    """
    family = FAMILIES[model.family]
    for name, expected in family.fixed_settings.items():
        value = getattr(model, name)
        if value != expected:
            raise InputError(
                f"model: {name} is {value!r}, expected {expected!r}, as every {model.family} has "
                "it; family bert takes any"
            )
    for name, minimum in family.minimum.items():
        what = f"at least {minimum}, as every {model.family} has"
        expect(getattr(model, name) >= minimum, f"model: {name}", getattr(model, name), what)


def _check_sizes(model: ModelConfig | ModelSpec) -> None:
    """Check the sizes of a model; a named size's own ones need not be set.

    Raises:
        InputError: one is no whole number, or out of range.
    """
    limits = {"layers": 10_000, "width": 2**20, "heads": 2**16, "ffn": 2**24}
    for name, limit in limits.items():
        check_range(model, "model: ", 1, limit, name)


def _check_options(model: ModelConfig | ModelSpec) -> None:
    """Check each of a model's other settings by itself; what a spec leaves open may be None.

    Raises:
        InputError: one is of another kind, or out of range.
    """
    may_be_open = isinstance(model, ModelSpec)
    # Whole numbers
    check_range(model, "model: ", 1, 2**24, "vocab_size")
    check_range(model, "model: ", 1, 2**20, "max_positions")
    check_range(model, "model: ", 0, 2**20, "type_vocab_size", "attention_window")
    check_range(model, "model: ", 1, 10_000, "global_every")
    check_range(model, "model: ", 0, 2**24, "pad_token_id")

    # Real numbers; wavelengths grow with the base.
    for name in ("dropout", "embedding_dropout", "attention_dropout"):
        rate = getattr(model, name)
        is_open = rate is None and (may_be_open or name == "embedding_dropout")
        is_rate = isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 <= rate < 1
        expect(is_open or is_rate, f"model: {name}", rate, "a rate in [0, 1)")
    check_range(model, "model: ", 1, 1e30, "rotary_base", "local_rotary_base", above=True)
    epsilon = model.norm_eps
    expect(epsilon is None or 0 < epsilon < 1, "model: norm_eps", epsilon, "more than 0, below 1")
    check_range(model, "model: ", 0, 10, "init_std", above=True)
    check_range(model, "model: ", 0, 100, "init_cut")

    # Names and switches
    for name, names in _NAMED.items():
        value = getattr(model, name)
        is_known = value in names or (may_be_open and value is None)
        expected = " or ".join(names) + rename_hint(name, value)
        expect(is_known, f"model: {name}", repr(value), expected)
    for name in _SWITCHES:
        switch: Any = getattr(model, name)
        is_known = isinstance(switch, bool) or (may_be_open and switch is None)
        expect(is_known, f"model: {name}", repr(switch), "true or false")
