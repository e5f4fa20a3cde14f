"""The parts of an encoder as Flax NNX modules: linear layers, LayerNorms, embeddings, attention,
feed-forward blocks and transformer layers. What families differ in are settings of
the configuration, each by itself.

Letters in shapes: B batch, L length, H heads, d head width, D width.
`dropout_key` is as in `kdjax.models.ops.dropout`; every site folds its own number in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax.config import ComputeConfig, ModelConfig
from kdjax.models import ops
from kdjax.models.features import Batch
from kdjax.models.initialization import initializer
from kdjax.models.ops.dropout import DropoutKey, Site

AttentionFeatures = dict[str, jax.Array]
"""What a layer's attention computes on its way, by the names in `ATTENTION_FEATURES`."""

_PROJECTIONS = ("query", "key", "value")
"""Linear layers before the attention, each by the name of its output."""


class Linear(nnx.Linear):  # type: ignore[misc]
    """A linear layer, whose kernel starts as the model's."""

    def __init__(
        self,
        config: ModelConfig,
        width: int,
        out: int,
        rngs: nnx.Rngs,
        compute: ComputeConfig,
        *,
        bias: bool = True,
        of_output: bool = False,
    ):
        super().__init__(
            width,
            out,
            use_bias=bias,
            kernel_init=initializer(config, of_output=of_output),
            dtype=jnp.dtype(compute.dtype),
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, *, feeds_activation: bool = False) -> jax.Array:
        """Return `[..., E]` of `[..., D]`; `feeds_activation`: an elementwise function follows."""
        x = x.astype(self.dtype)
        return ops.linear(x, self.kernel[...], _bias_of(self), feeds_activation)


class LayerNorm(nnx.LayerNorm):  # type: ignore[misc]
    """A LayerNorm over the width."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        super().__init__(
            config.width,
            epsilon=config.norm_eps,
            use_bias=config.norm_bias,
            dtype=jnp.dtype(compute.dtype),
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` normalised over the last axis."""
        return ops.layer_norm(x.astype(self.dtype), self.scale[...], _bias_of(self), self.epsilon)


def _bias_of(module: nnx.Linear | nnx.LayerNorm) -> jax.Array | None:
    """Return a module's bias; None where it has none."""
    if module.bias is None:
        return None
    bias: jax.Array = module.bias[...]
    return bias


class Embedding(nnx.Module):  # type: ignore[misc]
    """A table of vectors."""

    def __init__(self, config: ModelConfig, entries: int, rngs: nnx.Rngs):
        start = initializer(config)
        self.embedding = nnx.Param(start(rngs.params(), (entries, config.width), jnp.float32))

    def __call__(self, index: jax.Array) -> jax.Array:
        """Return the vectors at `index`; NaN where it is out of range."""
        return ops.embed(self.embedding[...], index)


class Embeddings(nnx.Module):  # type: ignore[misc]
    """Word embeddings, and those of token types and of positions where the model has them."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        self.word = Embedding(config, config.vocab_size, rngs)
        has_positions = config.positions == "learned"
        has_types = config.type_vocab_size > 0
        self.position = Embedding(config, config.max_positions, rngs) if has_positions else None
        # `type` is its name in files of parameters, and in the digests of them.
        self.type = Embedding(config, config.type_vocab_size, rngs) if has_types else None
        self.norm = LayerNorm(config, rngs, compute) if config.embedding_norm else None
        self.dropout = config.dropout
        if config.embedding_dropout is not None:
            self.dropout = config.embedding_dropout
        # With one token type every token has it: `types` of a batch is ignored.
        self.reads_types = config.type_vocab_size > 1
        self.dtype = compute.dtype

    def __call__(self, batch: Batch, dropout_key: DropoutKey) -> jax.Array:
        """Return their sum, normalised where the model does that, `[B, L, D]`."""
        x = self.word(batch["tokens"])
        if self.type is not None:
            types = self.type.embedding[0]
            if self.reads_types and "types" in batch:
                types = self.type(batch["types"])
            x = x + types
        if self.position is not None:
            x = x + self.position(batch["positions"])
        # After the sum: the gradient of a frequent token, a long sum, is summed in float32.
        x = x.astype(self.dtype)
        if self.norm is not None:
            x = self.norm(x)
        return ops.dropout(x, self.dropout, dropout_key, site=Site.EMBEDDINGS)


class Attention(nnx.Module):  # type: ignore[misc]
    """Self-attention of several heads, with the linear layers before and after it."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        width = config.width
        bias = config.linear_bias
        self.query = Linear(config, width, width, rngs, compute, bias=bias)
        self.key = Linear(config, width, width, rngs, compute, bias=bias)
        self.value = Linear(config, width, width, rngs, compute, bias=bias)
        self.output = Linear(config, width, width, rngs, compute, bias=bias, of_output=True)
        self.heads = config.heads
        self.dropout = config.attention_dropout
        # By the model whose layers drop out there
        self.output_dropout = 0.0
        if config.dropout_sites == "bert":
            self.output_dropout = config.dropout
        elif config.dropout_sites == "modernbert":
            self.output_dropout = config.attention_dropout
        self.allows_kernels = compute.attention == "auto"

    def __call__(
        self,
        x: jax.Array,
        layer_context: LayerContext,
        dropout_key: DropoutKey,
        requested: frozenset[str],
        queries: int | None = None,
    ) -> tuple[jax.Array, AttentionFeatures]:
        """Return the output of the first `queries` positions `[B, L, D]`, and requested features.

        Args:
            x: input of the layer, `[B, L, D]`.
            layer_context: mask and rotation of layers of its kind, the mask of the same `queries`.
            dropout_key: the layer's dropout key; None: no dropout.
            requested: names of features, of `ATTENTION_FEATURES`; none where `queries` is given.
            queries: positions from the first on whose output is computed; None: all.
        """
        projected = self._project(x, layer_context.rotation, _PROJECTIONS, queries)
        assert layer_context.mask is not None  # a layer whose output is read has one
        context, scores = ops.attention(
            projected["query"],
            projected["key"],
            projected["value"],
            layer_context.mask,
            self.heads,
            dropout_rate=self.dropout,
            dropout_key=dropout_key,
            with_scores="scores" in requested,
            allow_kernels=self.allows_kernels,
        )
        features = self._split_requested(projected, requested)
        if scores is not None and "scores" in requested:
            features["scores"] = scores
        output = self.output(context)
        site = Site.ATTENTION_OUTPUT
        return ops.dropout(output, self.output_dropout, dropout_key, site=site), features

    def features(
        self, x: jax.Array, rotation: ops.Rotation | None, requested: frozenset[str]
    ) -> AttentionFeatures:
        """Compute the requested features, and nothing that they do not need.

        Args:
            x: input of the layer, `[B, L, D]`.
            rotation: rotation of queries and keys; None where positions are learned.
            requested: names of features, of `ATTENTION_FEATURES`.
        """
        needed = requested | {"query", "key"} if "scores" in requested else requested
        projected = self._project(x, rotation, needed)
        features = self._split_requested(projected, requested)
        if "scores" in requested:
            query = ops.split_heads(projected["query"], self.heads)
            key = ops.split_heads(projected["key"], self.heads)
            features["scores"] = ops.attention_scores(query, key)
        return features

    def _project(
        self,
        x: jax.Array,
        rotation: ops.Rotation | None,
        names: Collection[str],
        queries: int | None = None,
    ) -> dict[str, jax.Array]:
        """Compute those of query, key and value that are named, `[B, L, D]` each.

        Queries and keys are those that are compared: where positions are rotary, rotated.

        Args:
            x: input of the layer, `[B, L, D]`.
            rotation: rotation of queries and keys; None where positions are learned.
            names: names of `_PROJECTIONS`; others are left out.
            queries: positions from the first on that have a query; None: all.
        """
        layers = {"query": self.query, "key": self.key, "value": self.value}
        if queries is None and layers.keys() <= set(names):
            # One product for the three, as they have the same input
            weights = [layer.kernel[...] for layer in layers.values()]
            biases = [_bias_of(layer) for layer in layers.values()]
            products = ops.linear_each(x, weights, biases)
            projected = dict(zip(layers, products, strict=True))
        else:
            inputs = {"query": x[:, :queries], "key": x, "value": x}
            projected = {name: layers[name](inputs[name]) for name in _PROJECTIONS if name in names}
        if rotation is None:
            return projected

        rotations = {"query": rotation, "key": rotation}
        if queries is not None:
            rotations["query"] = ops.Rotation(rotation.cos[:, :queries], rotation.sin[:, :queries])
        for name, turn in rotations.items():
            if name in projected:
                projected[name] = ops.rotate(projected[name], turn, self.heads)
        return projected

    def _split_requested(
        self, projected: Mapping[str, jax.Array], requested: frozenset[str]
    ) -> AttentionFeatures:
        """Split queries, keys and values into heads, `[B, H, L, d]`; those requested only."""
        features = {}
        for name in _PROJECTIONS:
            if name in requested:
                features[name] = ops.split_heads(projected[name], self.heads)
        return features


class FeedForward(nnx.Module):  # type: ignore[misc]
    """The feed-forward block, gated or not."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        width = config.width
        bias = config.linear_bias
        self.up = Linear(config, width, config.ffn, rngs, compute, bias=bias)
        has_gate = config.ffn_gated
        self.gate = (
            Linear(config, width, config.ffn, rngs, compute, bias=bias) if has_gate else None
        )
        self.down = Linear(config, config.ffn, width, rngs, compute, bias=bias, of_output=True)
        self.gelu = config.gelu
        # ModernBERT drops out inside the block, all others its output.
        self.hidden_dropout = 0.0
        self.output_dropout = 0.0
        if config.dropout_sites == "modernbert":
            self.hidden_dropout = config.dropout
        else:
            self.output_dropout = config.dropout

    def __call__(self, x: jax.Array, dropout_key: DropoutKey) -> jax.Array:
        """Return `[B, L, D]` of `[B, L, D]`."""
        if self.gate is None:
            hidden = ops.gelu(self.up(x, feeds_activation=True), self.gelu)
        else:
            # One product, as they have the same input.
            weights = [self.up.kernel[...], self.gate.kernel[...]]
            biases = [_bias_of(self.up), _bias_of(self.gate)]
            up, gate = ops.linear_each(x.astype(self.up.dtype), weights, biases)
            hidden = ops.gated_gelu(up, gate, self.gelu)
        hidden = ops.dropout(hidden, self.hidden_dropout, dropout_key, site=Site.FFN_HIDDEN)
        output = self.down(hidden)
        return ops.dropout(output, self.output_dropout, dropout_key, site=Site.FFN_OUTPUT)


class LayerContext(NamedTuple):
    """What layers of one kind, local or global, see of a batch beside their input.

    Attributes:
        mask: positions that each position may look at; None where no layer runs whole.
        rotation: rotation of queries and keys; None where positions are learned.
    """

    mask: ops.AttentionMask | None
    rotation: ops.Rotation | None


class Layer(nnx.Module):  # type: ignore[misc]
    """A transformer layer, post-LN or pre-LN (Xiong et al. 2020, arXiv 2002.04745)."""

    def __init__(
        self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig, *, is_first: bool
    ):
        self.attention = Attention(config, rngs, compute)
        has_norm = config.first_norm or not is_first
        self.attention_norm = LayerNorm(config, rngs, compute) if has_norm else None
        self.ffn = FeedForward(config, rngs, compute)
        self.ffn_norm = LayerNorm(config, rngs, compute)
        self.pre_norm = config.norm == "pre"

    def __call__(
        self,
        x: jax.Array,
        layer_context: LayerContext,
        dropout_key: DropoutKey,
        requested: frozenset[str] = frozenset(),
        queries: int | None = None,
    ) -> tuple[jax.Array, AttentionFeatures]:
        """Return the output of the first `queries` positions `[B, L, D]`, and the requested
        features of the attention.

        Args:
            x: output of the layer below, `[B, L, D]`.
            layer_context: mask and rotation of layers of its kind, the mask of the same `queries`.
            dropout_key: dropout key of this layer alone; None: no dropout.
            requested: names of features, of `ATTENTION_FEATURES`; none where `queries` is given.
            queries: positions from the first on whose output is computed, of keys and values of
                all; None: all positions.
        """
        # Both blocks add to the residual stream: pre-LN normalises what a block reads, post-LN the
        # sum.
        attended, features = self.attention(
            self._attention_input(x), layer_context, dropout_key, requested, queries
        )
        x = x[:, :queries] + attended
        if self.pre_norm:
            return x + self.ffn(self.ffn_norm(x), dropout_key), features
        assert self.attention_norm is not None  # of a post-LN model every layer has one
        x = self.attention_norm(x)
        return self.ffn_norm(x + self.ffn(x, dropout_key)), features

    def attention_features(
        self, x: jax.Array, rotation: ops.Rotation | None, requested: frozenset[str]
    ) -> AttentionFeatures:
        """Compute the requested features of this layer's attention, and nothing after them.

        Args:
            x: `[B, L, D]`: input of the layer.
            rotation: rotation of queries and keys; None: positions are not rotary.
            requested: names of the features.
        """
        return self.attention.features(self._attention_input(x), rotation, requested)

    def _attention_input(self, x: jax.Array) -> jax.Array:
        """Return the attention's input, `[B, L, D]`, from the layer's."""
        if self.pre_norm and self.attention_norm is not None:
            return self.attention_norm(x)
        return x
