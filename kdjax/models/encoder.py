"""Encoders of BERT's kind (Devlin et al. 2019, arXiv 1810.04805) as a Flax NNX module: from a batch
to the features that are asked for.

Letters in shapes: B batch, L length, H heads, d head width, D width, S slots, V vocabulary.
`dropout_key` is as in `kdjax.models.ops.dropout`; every layer folds its own number in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax.config import ComputeConfig, ModelConfig
from kdjax.models import ops
from kdjax.models.features import ATTENTION_FEATURES, Batch, FeatureRequest, Features
from kdjax.models.layers import (
    AttentionFeatures,
    Embeddings,
    Layer,
    LayerContext,
    LayerNorm,
)
from kdjax.models.ops.dropout import DropoutKey, fold
from kdjax.models.output_heads import MlmHead

_SAVED = {
    # Not the attention's own two products: scores are [B, H, L, L], the most memory for the fewest
    # FLOPs.
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What the backward pass of a layer finds stored, besides the layer's input, by
`ComputeConfig.remat`."""


class LayerBlock(NamedTuple):
    """Consecutive layers that are computed together: a single one, or several in a loop.

    Attributes:
        layers: numbers of the layers, from 1.
        period: number of layers in a step of the loop.
    """

    layers: range
    period: int = 1


class Encoder(nnx.Module):  # type: ignore[misc]
    """The encoder, with or without an MLM head.

    Layers are unrolled unless a loop is asked for: it would hide FLOPs from XLA.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig, *, mlm: bool):
        self.embeddings = Embeddings(config, rngs, compute)
        layers = {}
        for n in range(1, config.layers + 1):
            layers[str(n)] = Layer(config, rngs, compute, is_first=n == 1)
        self.layers = nnx.Dict(layers)
        self.final_norm = LayerNorm(config, rngs, compute) if config.norm == "pre" else None
        if mlm:
            self.mlm = MlmHead(config, rngs, compute)
        self.config = config
        self.compute = compute

    def __call__(self, batch: Batch, request: FeatureRequest, dropout_key: DropoutKey) -> Features:
        """Return the requested features; nothing that they do not need is traced.

        Args:
            batch: `tokens`, `segments`, `positions` `[B, L]`, and `slots` `[B, S]` for their
                logits.
            request: features that are asked for, and of which layers.
            dropout_key: dropout key of the step; None: no dropout.
        """
        whole_layers, attention_layer = self._layers_needed(request)
        contexts = self._layer_contexts(batch, whole_layers, attention_layer)

        # Layers 1 to `whole_layers` run whole.
        x = self.embeddings(batch, fold(dropout_key, 0))
        hidden = {0: x}
        attention: dict[int, AttentionFeatures] = {}
        for block in self._blocks(request, whole_layers):
            n = block.layers[-1]
            if len(block.layers) > 1:
                x = self._loop(block, x, contexts, dropout_key)
            else:
                layer = self._rematerialised(self.layers[str(n)], request.attention(n))
                x, attention[n] = layer(x, contexts[n], fold(dropout_key, n))
            if self.final_norm is not None and n == len(self.layers):
                x = self.final_norm(x)
            hidden[n] = x

        # The layer above them computes the attention's features alone: nobody reads its output.
        if attention_layer is not None:
            rotation = contexts[attention_layer].rotation
            attention[attention_layer] = self.layers[str(attention_layer)].attention_features(
                x, rotation, request.attention(attention_layer)
            )
        slot_logits, token_logits = self._logits(x, batch, request)
        return _collect(request, attention, hidden, slot_logits, token_logits)

    def first_state(self, batch: Batch, dropout_key: DropoutKey) -> jax.Array:
        """Return the last layer's state of each sequence's first token, float32 `[B, D]`.

        The last layer computes keys and values of all tokens, and all else of the first one alone.
        """
        last = len(self.layers)
        request = FeatureRequest(hidden=frozenset({last - 1}))
        below = self(batch, request, dropout_key).hidden[last - 1]
        context = self._layer_context(batch, last, queries=1)
        layer = self.layers[str(last)]
        x = below.astype(self.compute.dtype)
        first, _ = layer(x, context, fold(dropout_key, last), queries=1)
        if self.final_norm is not None:
            first = self.final_norm(first)
        state: jax.Array = first[:, 0].astype(jnp.float32)
        return state

    def _layers_needed(self, request: FeatureRequest) -> tuple[int, int | None]:
        """Return the number of layers that run whole, and the one whose attention alone does.

        No layer above the highest one requested runs, and that one runs whole only where its output
        is read. Otherwise it is the second result, which is None where all that run are whole.
        """
        if request.head:
            return len(self.layers), None
        highest = request.depth
        if highest in request.hidden:
            return highest, None
        return highest - 1, highest

    def _layer_contexts(
        self, batch: Batch, whole_layers: int, attention_layer: int | None
    ) -> dict[int, LayerContext]:
        """Return the context of each layer that runs, by its number; a kind of layers shares one.

        Args:
            batch: `segments` and `positions`, `[B, L]`.
            whole_layers: number of layers that run whole.
            attention_layer: layer above them of which the attention runs; None: there is none.
        """
        by_kind: dict[bool, LayerContext] = {}
        contexts = {}
        for n in range(1, (attention_layer or whole_layers) + 1):
            is_local = self.config.is_local(n)
            if is_local not in by_kind:
                by_kind[is_local] = self._layer_context(batch, n, has_mask=whole_layers > 0)
            contexts[n] = by_kind[is_local]
        return contexts

    def _layer_context(
        self, batch: Batch, layer: int, *, has_mask: bool = True, queries: int | None = None
    ) -> LayerContext:
        """Return the attention mask and rotations of a layer, and of every other of its kind.

        Args:
            batch: `segments` and `positions`, `[B, L]`.
            layer: number of the layer, from 1.
            has_mask: whether a mask is needed.
            queries: positions from the first on that look at others; None: all.
        """
        # Positions start anew in each segment, so that packing changes nothing.
        rotation = None
        if self.config.positions == "rotary":
            is_local = self.config.is_local(layer)
            rotation = ops.rotation_of(self.config, batch["positions"], is_local=is_local)
        mask = None
        if has_mask:
            half_window = self.config.half_window(layer)
            mask = ops.segment_mask(batch["segments"], half_window, queries=queries)
        return LayerContext(mask, rotation)

    def _blocks(self, request: FeatureRequest, whole_layers: int) -> list[LayerBlock]:
        """Return layers 1 to `whole_layers` as they are computed: one by one, or several in a
        loop."""
        if not self.compute.scan:
            return [LayerBlock(range(n, n + 1)) for n in range(1, whole_layers + 1)]
        blocks: list[LayerBlock] = []
        for layers in request.ranges(whole_layers):
            blocks += self._loops(layers)
        return blocks

    def _loops(self, layers: range) -> list[LayerBlock]:
        """Split consecutive layers of which nothing is requested into loops and single layers.

        A step of a loop takes as many layers as kinds of layers need to come again in the same
        order. A first layer without a norm has other parameters than the others, and is by itself.
        """
        blocks = []
        if layers.start == 1 and not self.config.first_norm:
            blocks.append(LayerBlock(layers[:1]))
            layers = layers[1:]
        period = self.config.global_every
        looped = len(layers) // period * period
        if looped > period:
            blocks.append(LayerBlock(layers[:looped], period))
            layers = layers[looped:]
        return blocks + [LayerBlock(range(n, n + 1)) for n in layers]

    def _rematerialised(
        self, layer: Layer, requested: frozenset[str], *, looped: bool = False
    ) -> Callable[..., Any]:
        """Return `layer`, of which the backward pass computes again what `remat` says."""
        call = partial(layer, requested=requested)
        if self.compute.remat == "none":
            return call
        # Unrolled, XLA would find the second computation equal to the first and keep that; a loop
        # hides it already.
        return jax.checkpoint(call, policy=_SAVED[self.compute.remat], prevent_cse=not looped)

    def _loop(
        self,
        block: LayerBlock,
        x: jax.Array,
        contexts: Mapping[int, LayerContext],
        dropout_key: DropoutKey,
    ) -> jax.Array:
        """Return the output of consecutive layers of which nothing is requested, as one loop over
        their stacked parameters.

        Args:
            block: the layers, and how many of them are a step of the loop.
            x: output of the layer below, `[B, L, D]`.
            contexts: layer -> its context; a step's layers have those of the first step's.
            dropout_key: dropout key of the step; None: no dropout.
        """
        # A step runs `period` layers: stack the parameters of those that stand at the same place in
        # a step.
        first = block.layers.start
        graphs = []
        stacked = []
        for place in range(block.period):
            split = [nnx.split(self.layers[str(n)]) for n in block.layers[place :: block.period]]
            graphs.append(split[0][0])
            params = [layer_params for _, layer_params in split]
            # Cast here as a layer casts its parameters anyway, so that the stacked copy is no
            # larger than that.
            stack = partial(_stack, dtype=self.compute.dtype)
            stacked.append(jax.tree.map(stack, *params))

        def body(x: jax.Array, scanned: tuple[jax.Array, list[nnx.State]]) -> Any:
            n, all_params = scanned
            for place, params in enumerate(all_params):
                merged = nnx.merge(graphs[place], params)
                layer = self._rematerialised(merged, frozenset(), looped=True)
                x, _ = layer(x, contexts[first + place], fold(dropout_key, n + place))
            return x, None

        numbers = jnp.arange(first, block.layers.stop, block.period)
        return jax.lax.scan(body, x, (numbers, stacked))[0]

    def _logits(
        self, hidden: jax.Array, batch: Batch, request: FeatureRequest
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Compute logits at the slots and at all tokens, as requested; the MLM head runs once."""
        if not request.head:
            return None, None
        if not request.token_logits:
            return self.mlm(_at_slots(hidden, batch), self.embeddings.word), None
        token_logits = self.mlm(hidden, self.embeddings.word)
        if not request.logits:
            return None, token_logits
        return _at_slots(token_logits, batch), token_logits


def _collect(
    request: FeatureRequest,
    attention: Mapping[int, AttentionFeatures],
    hidden: Mapping[int, jax.Array],
    slot_logits: jax.Array | None,
    token_logits: jax.Array | None,
) -> Features:
    """Return the requested features in float32: by name and then by layer, as `Features` has them.

    Args:
        request: features that were asked for.
        attention: layer -> what its attention computed.
        hidden: layer -> hidden states; 0 is the embedding output.
        slot_logits: logits at the slots; None: not asked for.
        token_logits: logits at all tokens; None: not asked for.
    """
    by_name: dict[str, Any] = {}
    for name in ATTENTION_FEATURES:
        layers = sorted(getattr(request, name))
        by_name[name] = {n: attention[n][name] for n in layers}
    features = Features(
        **by_name,
        hidden={n: hidden[n] for n in sorted(request.hidden)},
        logits=slot_logits,
        token_logits=token_logits,
    )
    wide: Features = jax.tree.map(lambda feature: feature.astype(jnp.float32), features)
    return wide


def _stack(*arrays: jax.Array, dtype: str) -> jax.Array:
    """Stack a parameter of several layers, in another type."""
    return jnp.stack(arrays, dtype=dtype)


def _at_slots(x: jax.Array, batch: Batch) -> jax.Array:
    """Return `[B, S, ...]` of `[B, L, ...]`."""
    return jnp.take_along_axis(x, batch["slots"][..., None], axis=1)
