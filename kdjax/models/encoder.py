"""The parts of BERT (Devlin et al. 2019, arXiv 1810.04805) as Flax NNX modules.

Letters in shapes: B batch, L length, H heads, d head width, D width, S slots, V vocabulary. `key`
is a dropout key (`kdjax.models.dropout`); every layer and site folds its own number in. Layers are
unrolled unless a loop is asked for: it would hide FLOPs from XLA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax.config import ComputeConfig, ModelConfig
from kdjax.kernels.split import layers_are_split
from kdjax.models import fused, lean
from kdjax.models.dropout import Key, drop, fold, keep
from kdjax.models.features import ATTENTION_FEATURES, FeatureRequest, Features
from kdjax.models.reference import is_canonical
from kdjax.models.rotary import Rotation, rotate, rotation_of
from kdjax.models.starts import initializer

Batch = Mapping[str, jax.Array]
Parts = dict[str, jax.Array]

_PRODUCTS = ("query", "key", "value")

_SAVED = {
    # Not the attention's own two products: scores are [B, H, L, L], the most memory for the fewest
    # FLOPs.
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What the backward pass of a layer finds stored, besides the layer's input, by
`ComputeConfig.remat`."""


class Embedding(nnx.Module):  # type: ignore[misc]
    """A table of vectors."""

    def __init__(self, config: ModelConfig, entries: int, rngs: nnx.Rngs):
        self.embedding = nnx.Param(
            initializer(config)(rngs.params(), (entries, config.width), jnp.float32)
        )

    def __call__(self, index: jax.Array) -> jax.Array:
        """The vectors at `index`; NaN where it is out of range."""
        if is_canonical():
            return jnp.take(self.embedding[...], index, axis=0)
        return lean.look_up(self.embedding[...], index)


class Embeddings(nnx.Module):  # type: ignore[misc]
    """Word and token type embeddings, and those of positions where positions are learned."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        self.word = Embedding(config, config.vocab_size, rngs)
        self.position = (
            Embedding(config, config.max_positions, rngs) if config.positions == "learned" else None
        )
        self.type = Embedding(config, config.type_vocab_size, rngs)
        self.norm = norm(config, rngs, compute) if config.embedding_norm else None
        self.dropout = config.dropout
        self.dtype = compute.dtype

    def __call__(self, batch: Batch, key: Key) -> jax.Array:
        """Their sum, normalised where the model does that: `[B, L, D]`."""
        types = self.type(batch["types"]) if "types" in batch else self.type.embedding[0]
        x = self.word(batch["tokens"]) + types
        x = x if self.position is None else x + self.position(batch["positions"])
        # After the look-up: a frequent token's gradient, a long sum, is summed in float32
        x = x.astype(self.dtype)
        return drop(x if self.norm is None else self.norm(x), self.dropout, key, site=0)


class Seen(NamedTuple):
    """Which positions each may look at: those of its own segment, itself included; and how they are
    turned.

    Attributes:
        segments: int32 `[B, L]`.
        allowed: the same for pairs of positions, bool `[B, 1, L, L]`.
        rotation: of queries and keys, or None where positions are learned.
    """

    segments: jax.Array
    allowed: jax.Array
    rotation: Rotation | None


class Attention(nnx.Module):  # type: ignore[misc]
    """Self-attention."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        self.query, self.key, self.value, self.output = (
            linear(config, config.width, config.width, rngs, compute) for _ in range(4)
        )
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.scale = 1 / math.sqrt(config.head_width)
        self.fused = compute.attention == "auto"

    def __call__(
        self, x: jax.Array, seen: Seen, key: Key, asked: frozenset[str]
    ) -> tuple[jax.Array, Parts]:
        """The output `[B, L, D]`, and what is asked of the parts."""
        mixed, parts = (self._plain if is_canonical() else self._lean)(x, seen, key, asked)
        return self.output(mixed), {name: parts[name] for name in asked}

    def parts(self, x: jax.Array, rotation: Rotation | None, asked: frozenset[str]) -> Parts:
        """What is asked of `query`, `key`, `value` `[B, H, L, d]` and `scores` `[B, H, L, L]`, and
        what that needs.

        Queries and keys are those that are compared: where positions are rotary, after the
            rotation.
        """
        needed = asked | {"query", "key"} if "scores" in asked else asked
        made: Parts = {}
        for name in _PRODUCTS:
            if name in needed:
                product = getattr(self, name)(x)
                turned = product if name == "value" else self._turned(product, rotation)
                made[name] = self._heads(turned)
        if "scores" in needed:
            made["scores"] = self.scale * jnp.einsum("BHLd,BHMd->BHLM", made["query"], made["key"])
        return made

    def _plain(
        self, x: jax.Array, seen: Seen, key: Key, asked: frozenset[str]
    ) -> tuple[jax.Array, Parts]:
        parts = self.parts(x, seen.rotation, asked | {"scores", "value"})
        masked = jnp.where(seen.allowed, parts["scores"], -jnp.inf).astype(jnp.float32)
        weights = drop(jax.nn.softmax(masked).astype(x.dtype), self.dropout, key, site=0)
        return self._width(jnp.einsum("BHLM,BHMd->BLHd", weights, parts["value"])), parts

    def _lean(
        self, x: jax.Array, seen: Seen, key: Key, asked: frozenset[str]
    ) -> tuple[jax.Array, Parts]:
        own = fold(key, 0) if self.dropout else None
        if layers_are_split():  # joined, heads would be laid out anew
            parts = self.parts(x, seen.rotation, frozenset(_PRODUCTS))
        else:
            joined = self._joined(x)
            query, key_product, value = jnp.split(joined, 3, axis=-1)
            if seen.rotation is not None:
                query = self._turned(query, seen.rotation)
                key_product = self._turned(key_product, seen.rotation)
                # What a fused attention takes; where there is none, XLA drops it.
                joined = jnp.concatenate([query, key_product, value], axis=-1)
            parts = {
                "query": self._heads(query),
                "key": self._heads(key_product),
                "value": self._heads(value),
            }
            if self.fused:
                made = fused.attention(
                    joined,
                    seen.segments,
                    self.heads,
                    seeds=own,
                    rate=self.dropout,
                    scores="scores" in asked,
                )
                if made is not None:
                    mixed, scores = made
                    return mixed, parts if scores is None else {**parts, "scores": scores}
        dropped = keep((len(x), self.heads, x.shape[1], x.shape[1]), self.dropout, own)
        rate = 0.0 if own is None else self.dropout
        mixed, parts["scores"] = lean.attention(
            parts["query"], parts["key"], parts["value"], seen.allowed, dropped, rate
        )
        return self._width(mixed.transpose(0, 2, 1, 3)), parts

    def _joined(self, x: jax.Array) -> jax.Array:
        """Queries, keys and values in `[B, L, 3 D]`: one product in place of three."""
        layers = [getattr(self, name) for name in _PRODUCTS]
        kernel, bias = (
            jnp.concatenate([getattr(one, part)[...] for one in layers], axis=-1)
            for part in ("kernel", "bias")
        )
        return lean.linear(x, kernel, bias)

    def _turned(self, x: jax.Array, rotation: Rotation | None) -> jax.Array:
        return x if rotation is None else rotate(x, rotation, self.heads)

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def _width(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], -1)


class FeedForward(nnx.Module):  # type: ignore[misc]
    """The feed-forward block."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        self.up = linear(config, config.width, config.ffn, rngs, compute)
        self.down = linear(config, config.ffn, config.width, rngs, compute)
        self.gelu = config.gelu

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` to `[B, L, D]`."""
        return self.down(gelu(self.up(x, activated=True), self.gelu))


class Layer(nnx.Module):  # type: ignore[misc]
    """One transformer layer, post-LN or pre-LN."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        self.attention = Attention(config, rngs, compute)
        self.attention_norm = norm(config, rngs, compute)
        self.ffn = FeedForward(config, rngs, compute)
        self.ffn_norm = norm(config, rngs, compute)
        self.pre = config.norm == "pre"
        self.dropout = config.dropout

    def __call__(
        self, n: int | jax.Array, x: jax.Array, seen: Seen, key: Key, asked: frozenset[str]
    ) -> tuple[jax.Array, Parts]:
        """The output `[B, L, D]` as layer `n`, and the parts of its attention that are asked."""
        key = fold(key, n)
        mixed, parts = self.attention(self._taken(x), seen, key, asked)
        x = x + drop(mixed, self.dropout, key, site=1)
        if self.pre:
            return x + drop(self.ffn(self.ffn_norm(x)), self.dropout, key, site=2), parts
        x = self.attention_norm(x)
        return self.ffn_norm(x + drop(self.ffn(x), self.dropout, key, site=2)), parts

    def attend(self, x: jax.Array, rotation: Rotation | None, asked: frozenset[str]) -> Parts:
        """The parts of the attention that are asked, and nothing after them."""
        return self.attention.parts(self._taken(x), rotation, asked)

    def _taken(self, x: jax.Array) -> jax.Array:
        return self.attention_norm(x) if self.pre else x


class MlmHead(nnx.Module):  # type: ignore[misc]
    """The MLM head; its decoder is the word embedding."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        self.dense = linear(config, config.width, config.width, rngs, compute)
        self.norm = norm(config, rngs, compute)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))
        self.gelu = config.gelu

    def __call__(self, hidden: jax.Array, word: Embedding) -> jax.Array:
        """Logits `[B, S, V]` of hidden states `[B, S, D]`."""
        x = self.norm(gelu(self.dense(hidden, activated=True), self.gelu))
        if not is_canonical():
            return lean.decode(x, word.embedding[...], self.bias[...])
        product = jnp.einsum("BSD,VD->BSV", x, word.embedding[...].astype(x.dtype))
        logits: jax.Array = product.astype(jnp.float32) + self.bias[...]
        return logits


class Encoder(nnx.Module):  # type: ignore[misc]
    """The encoder, with or without an MLM head."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig, *, mlm: bool):
        self.embeddings = Embeddings(config, rngs, compute)
        self.layers = nnx.Dict(
            {str(n): Layer(config, rngs, compute) for n in range(1, config.layers + 1)}
        )
        self.final_norm = norm(config, rngs, compute) if config.norm == "pre" else None
        if mlm:
            self.mlm = MlmHead(config, rngs, compute)
        self.config = config
        self.compute = compute

    def __call__(self, batch: Batch, request: FeatureRequest, key: Key) -> Features:
        """The features asked for; the layers above them are not run, nor the rest of the highest
        one."""
        top = len(self.layers) if request.head else request.depth
        whole = top if request.head or top in request.hidden else top - 1
        # Once, not in every layer. Positions start anew in each segment, so that packing changes
        # nothing.
        rotation = (
            rotation_of(self.config, batch["positions"])
            if self.config.positions == "rotary"
            else None
        )
        seen = (
            Seen(batch["segments"], _same_segment(batch["segments"]), rotation)
            if whole > 0
            else None
        )
        x = self.embeddings(batch, fold(key, 0))
        hidden = {0: x}
        parts = {}
        runs = (
            request.runs(whole)
            if self.compute.scan
            else [range(n, n + 1) for n in range(1, whole + 1)]
        )
        for run in runs:
            first = run[0]
            last = run[-1]
            if first < last:
                x = self._loop(run, x, seen, key)
            else:
                layer = self._recomputed(self.layers[str(first)], request.attention(first))
                x, parts[first] = layer(first, x, seen, key)
            x = (
                self.final_norm(x)
                if self.final_norm is not None and last == len(self.layers)
                else x
            )
            hidden[last] = x
        if whole < top:
            parts[top] = self.layers[str(top)].attend(x, rotation, request.attention(top))
        attention: dict[str, Any] = {
            name: {n: parts[n][name] for n in sorted(getattr(request, name))}
            for name in ATTENTION_FEATURES
        }
        at_slots, everywhere = self._logits(x, batch, request) if request.head else (None, None)
        features = Features(
            **attention,
            hidden={n: hidden[n] for n in sorted(request.hidden)},
            logits=at_slots,
            token_logits=everywhere,
        )
        return jax.tree.map(lambda feature: feature.astype(jnp.float32), features)  # type: ignore[no-any-return]

    def _recomputed(
        self, layer: Layer, asked: frozenset[str], *, looped: bool = False
    ) -> Callable[..., Any]:
        """`layer`, which hands out what is asked, with what `remat` says computed again by the
        backward pass."""
        run = partial(layer, asked=asked)
        if self.compute.remat == "none":
            return run
        # Unrolled, XLA would find the second computation equal to the first and keep that; a loop
        # hides it already.
        return jax.checkpoint(run, policy=_SAVED[self.compute.remat], prevent_cse=not looped)

    def _loop(self, run: range, x: jax.Array, seen: Seen | None, key: Key) -> jax.Array:
        """The output of consecutive layers of which nothing is asked, as one loop over their
        stacked parameters."""
        graphs, params = zip(*(nnx.split(self.layers[str(n)]) for n in run), strict=True)
        # Cast here as a layer casts its parameters anyway, so that the stacked copy is no larger
        # than that.
        stacked = jax.tree.map(lambda *layers: jnp.stack(layers, dtype=self.compute.dtype), *params)

        def body(x: jax.Array, of_layer: tuple[jax.Array, nnx.State]) -> tuple[jax.Array, None]:
            n, params = of_layer
            layer = self._recomputed(nnx.merge(graphs[0], params), frozenset(), looped=True)
            return layer(n, x, seen, key)[0], None

        return jax.lax.scan(body, x, (jnp.arange(run.start, run.stop), stacked))[0]

    def _logits(
        self, hidden: jax.Array, batch: Batch, request: FeatureRequest
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Logits at the slots and everywhere. The MLM head runs once: everywhere if that is asked,
        or at the slots."""

        def at_slots(x: jax.Array) -> jax.Array:
            return jnp.take_along_axis(x, batch["slots"][..., None], axis=1)

        if not request.token_logits:
            return self.mlm(at_slots(hidden), self.embeddings.word), None
        everywhere = self.mlm(hidden, self.embeddings.word)
        return at_slots(everywhere) if request.logits else None, everywhere


class TaskHead(nnx.Module):  # type: ignore[misc]
    """BERT's head for classification or regression: a pooler, then a linear layer."""

    def __init__(self, config: ModelConfig, outputs: int, rngs: nnx.Rngs):
        self.pooler = linear(config, config.width, config.width, rngs, ComputeConfig())
        self.output = linear(config, config.width, outputs, rngs, ComputeConfig())
        self.dropout = config.dropout

    def __call__(self, pooled: jax.Array, key: Key) -> jax.Array:
        """`[B, D]`, pooled last hidden states, to `[B, outputs]`."""
        return self.output(drop(jnp.tanh(self.pooler(pooled)), self.dropout, key, site=0))


class Linear(nnx.Linear):  # type: ignore[misc]
    """A linear layer."""

    def __call__(self, x: jax.Array, *, activated: bool = False) -> jax.Array:
        """`[..., D]` to `[..., E]`; `activated`: an elementwise function follows."""
        if is_canonical():
            return super().__call__(x)  # type: ignore[no-any-return]
        return lean.linear(x.astype(self.dtype), self.kernel[...], self.bias[...], activated)


class LayerNorm(nnx.LayerNorm):  # type: ignore[misc]
    """A LayerNorm over the last axis."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """As `x`."""
        if is_canonical():
            return super().__call__(x)  # type: ignore[no-any-return]
        return lean.layer_norm(x.astype(self.dtype), self.scale[...], self.bias[...], self.epsilon)


def linear(
    config: ModelConfig, width: int, out: int, rngs: nnx.Rngs, compute: ComputeConfig
) -> Linear:
    """A linear layer with bias, as models of this configuration start."""
    return Linear(
        width, out, kernel_init=initializer(config), dtype=jnp.dtype(compute.dtype), rngs=rngs
    )


def norm(config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig) -> LayerNorm:
    """A LayerNorm over the width; its statistics are float32, whatever it takes and gives."""
    # The fast variance, E[x^2] - E[x]^2, cancels where trained encoders have outlier features.
    dtype = jnp.dtype(compute.dtype)
    return LayerNorm(
        config.width, epsilon=config.norm_eps, use_fast_variance=False, dtype=dtype, rngs=rngs
    )


def gelu(x: jax.Array, kind: str) -> jax.Array:
    """The exact GELU or its tanh approximation."""
    if kind == "tanh":
        return jax.nn.gelu(x)
    # jax.nn.gelu's exact form uses erfc, which XLA expands into a polynomial and counts as 66 FLOPs
    # an element.
    return 0.5 * x * (1 + _erf(x * math.sqrt(0.5))) if is_canonical() else lean.gelu(x)


@jax.custom_jvp
def _erf(x: jax.Array) -> jax.Array:
    """The error function. JAX 0.12 takes 23 FLOPs an element for its derivative, XLA's count, and
    JAX 0.10 takes 3."""
    return jax.lax.erf(x)


_erf.defjvps(lambda tangent, _, x: 2 / math.sqrt(math.pi) * (tangent * jnp.exp(-jnp.square(x))))


def _same_segment(segments: jax.Array) -> jax.Array:
    return segments[:, None, :, None] == segments[:, None, None, :]
