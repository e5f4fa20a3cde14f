"""The parts of BERT (Devlin et al. 2019, arXiv 1810.04805) as Flax NNX modules.

Letters in shapes: B batch, L length, H heads, d head width, D width, S slots, V vocabulary. `key` is a dropout key
(None: no dropout); every layer and site folds its own number in. Layers are unrolled: a loop would hide FLOPs from XLA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax.config import ModelConfig
from kdjax.models.features import ATTENTION_FEATURES, Features, Request

Batch = Mapping[str, jax.Array]
Key = jax.Array | None

_INIT = jax.nn.initializers.truncated_normal(stddev=0.02)


class Embedding(nnx.Module):  # type: ignore[misc]
    """A table of vectors; what it looks up has the dtype of the parameters it was given."""

    def __init__(self, entries: int, width: int, rngs: nnx.Rngs):
        self.embedding = nnx.Param(_INIT(rngs.params(), (entries, width), jnp.float32))

    def __call__(self, index: jax.Array) -> jax.Array:
        """The vectors at `index`; NaN where it is out of range."""
        return jnp.take(self.embedding[...], index, axis=0)


class Embeddings(nnx.Module):  # type: ignore[misc]
    """Word, position and token type embeddings."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.word = Embedding(config.vocab_size, config.width, rngs)
        self.position = Embedding(config.positions, config.width, rngs)
        self.type = Embedding(config.types, config.width, rngs)
        self.norm = norm(config, rngs) if config.embedding_norm else None
        self.dropout = config.dropout

    def __call__(self, batch: Batch, key: Key) -> jax.Array:
        """Their sum, normalised where the model does that: `[B, L, D]`."""
        types = self.type(batch["types"]) if "types" in batch else self.type.embedding[0]
        x = self.word(batch["tokens"]) + types + self.position(batch["positions"])
        return drop(x if self.norm is None else self.norm(x), self.dropout, key, site=0)


class Attention(nnx.Module):  # type: ignore[misc]
    """Self-attention in two halves: up to the raw scores, and from them to the output."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.query, self.key, self.value, self.output = (linear(config.width, config.width, rngs) for _ in range(4))
        self.heads, self.dropout = config.heads, config.attention_dropout

    def parts(self, x: jax.Array, asked: frozenset[str]) -> dict[str, jax.Array]:
        """What is asked of `query`, `key`, `value` `[B, H, L, d]` and `scores` `[B, H, L, L]`, and what that needs."""
        needed = asked | {"query", "key"} if "scores" in asked else asked
        made: dict[str, jax.Array] = {
            name: self._heads(getattr(self, name)(x)) for name in ("query", "key", "value") if name in needed
        }
        if "scores" in needed:
            scale = 1 / math.sqrt(x.shape[-1] // self.heads)
            made["scores"] = scale * jnp.einsum("BHLd,BHMd->BHLM", made["query"], made["key"])
        return made

    def mix(self, scores: jax.Array, value: jax.Array, allowed: jax.Array, key: Key) -> jax.Array:
        """The output `[B, L, D]`; `allowed` `[B, 1, L, L]` says which positions each may look at, itself included."""
        masked = jnp.where(allowed, scores, -jnp.inf).astype(jnp.float32)
        weights = drop(jax.nn.softmax(masked).astype(value.dtype), self.dropout, key, site=0)
        mixed = jnp.einsum("BHLM,BHMd->BLHd", weights, value)
        return self.output(mixed.reshape(*mixed.shape[:2], -1))  # type: ignore[no-any-return]

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)


class FeedForward(nnx.Module):  # type: ignore[misc]
    """The feed-forward block."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.up = linear(config.width, config.ffn, rngs)
        self.down = linear(config.ffn, config.width, rngs)
        self.gelu = config.gelu

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, L, D]` to `[B, L, D]`."""
        return self.down(gelu(self.up(x), self.gelu))  # type: ignore[no-any-return]


class Layer(nnx.Module):  # type: ignore[misc]
    """One transformer layer, post-LN or pre-LN."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.attention = Attention(config, rngs)
        self.attention_norm = norm(config, rngs)
        self.ffn = FeedForward(config, rngs)
        self.ffn_norm = norm(config, rngs)
        self.pre, self.dropout = config.norm == "pre", config.dropout

    def attend(self, x: jax.Array, asked: frozenset[str]) -> dict[str, jax.Array]:
        """The parts of the attention that are asked, and nothing after them."""
        return self.attention.parts(self.attention_norm(x) if self.pre else x, asked)

    def finish(self, x: jax.Array, parts: Mapping[str, jax.Array], allowed: jax.Array, key: Key) -> jax.Array:
        """The layer's output `[B, L, D]`, from its input and its attention's `scores` and `value`."""
        mixed = self.attention.mix(parts["scores"], parts["value"], allowed, key)
        x = x + drop(mixed, self.dropout, key, site=1)
        if self.pre:
            return x + drop(self.ffn(self.ffn_norm(x)), self.dropout, key, site=2)
        x = self.attention_norm(x)
        return self.ffn_norm(x + drop(self.ffn(x), self.dropout, key, site=2))  # type: ignore[no-any-return]


class MlmHead(nnx.Module):  # type: ignore[misc]
    """The MLM head; its decoder is the word embedding."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.dense = linear(config.width, config.width, rngs)
        self.norm = norm(config, rngs)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))
        self.gelu = config.gelu

    def __call__(self, hidden: jax.Array, word: Embedding) -> jax.Array:
        """Logits `[B, S, V]` of hidden states `[B, S, D]`."""
        x = self.norm(gelu(self.dense(hidden), self.gelu))
        logits: jax.Array = jnp.einsum("BSD,VD->BSV", x, word.embedding[...]) + self.bias[...]
        return logits


class Encoder(nnx.Module):  # type: ignore[misc]
    """The encoder, with or without an MLM head."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, *, mlm: bool):
        self.embeddings = Embeddings(config, rngs)
        self.layers = nnx.Dict({str(n): Layer(config, rngs) for n in range(1, config.layers + 1)})
        self.final_norm = norm(config, rngs) if config.norm == "pre" else None
        if mlm:
            self.mlm = MlmHead(config, rngs)

    def __call__(self, batch: Batch, request: Request, key: Key) -> Features:
        """The features asked for; the layers above them are not run, nor the rest of the highest one."""
        top = len(self.layers) if request.head else request.depth
        whole = top if request.head or top in request.hidden else top - 1
        allowed = _same_segment(batch["segments"]) if whole > 0 else None
        x = self.embeddings(batch, fold(key, 0))
        hidden, parts = {0: x}, {}
        for n in range(1, top + 1):
            layer, asked = self.layers[str(n)], request.attention(n)
            parts[n] = layer.attend(x, asked | {"scores", "value"} if n <= whole else asked)
            if n <= whole:
                x = layer.finish(x, parts[n], allowed, fold(key, n))
                x = self.final_norm(x) if self.final_norm is not None and n == len(self.layers) else x
                hidden[n] = x
        attention: dict[str, Any] = {
            name: {n: parts[n][name] for n in sorted(getattr(request, name))} for name in ATTENTION_FEATURES
        }
        at_slots, everywhere = self._logits(x, batch, request) if request.head else (None, None)
        return Features(
            **attention,
            hidden={n: hidden[n] for n in sorted(request.hidden)},
            logits=at_slots,
            token_logits=everywhere,
        )

    def _logits(self, hidden: jax.Array, batch: Batch, request: Request) -> tuple[jax.Array | None, jax.Array | None]:
        """Logits at the slots and everywhere. The MLM head runs once: everywhere if that is asked, or at the slots."""

        def at_slots(x: jax.Array) -> jax.Array:
            return jnp.take_along_axis(x, batch["slots"][..., None], axis=1)

        if not request.token_logits:
            return self.mlm(at_slots(hidden), self.embeddings.word), None
        everywhere = self.mlm(hidden, self.embeddings.word)
        return at_slots(everywhere) if request.logits else None, everywhere


class TaskHead(nnx.Module):  # type: ignore[misc]
    """BERT's head for classification or regression: a pooler, then a linear layer."""

    def __init__(self, config: ModelConfig, outputs: int, rngs: nnx.Rngs):
        self.pooler = linear(config.width, config.width, rngs)
        self.output = linear(config.width, outputs, rngs)
        self.dropout = config.dropout

    def __call__(self, pooled: jax.Array, key: Key) -> jax.Array:
        """`[B, D]`, pooled last hidden states, to `[B, outputs]`."""
        return self.output(drop(jnp.tanh(self.pooler(pooled)), self.dropout, key, site=0))  # type: ignore[no-any-return]


def linear(width: int, out: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer with bias, as BERT starts it."""
    return nnx.Linear(width, out, kernel_init=_INIT, rngs=rngs)


def norm(config: ModelConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A LayerNorm over the width."""
    # The fast variance, E[x^2] - E[x]^2, cancels where trained encoders have outlier features.
    return nnx.LayerNorm(config.width, epsilon=config.norm_eps, use_fast_variance=False, rngs=rngs)


def gelu(x: jax.Array, kind: str) -> jax.Array:
    """The exact GELU or its tanh approximation."""
    # jax.nn.gelu's exact form uses erfc, which XLA expands into a polynomial and counts as 66 FLOPs an element.
    return jax.nn.gelu(x) if kind == "tanh" else 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def drop(x: jax.Array, rate: float, key: Key, *, site: int) -> jax.Array:
    """Dropout; sites under one key have different numbers."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(jax.random.fold_in(key, site), 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def fold(key: Key, layer: int) -> Key:
    """The dropout key of a layer; 0 is the embeddings."""
    return None if key is None else jax.random.fold_in(key, layer)


def _same_segment(segments: jax.Array) -> jax.Array:
    return segments[:, None, :, None] == segments[:, None, None, :]
