"""The heads on an encoder as Flax NNX modules: for MLM, and for a task.

Letters in shapes: B batch, D width, S slots, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax.config import ComputeConfig, ModelConfig
from kdjax.models import ops
from kdjax.models.layers import Embedding, LayerNorm, Linear
from kdjax.models.ops.dropout import DropoutKey, Site


class MlmHead(nnx.Module):  # type: ignore[misc]
    """The MLM head; its decoder is the word embedding."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, compute: ComputeConfig):
        self.dense = Linear(
            config,
            config.width,
            config.width,
            rngs,
            compute,
            bias=config.linear_bias,
            of_output=True,
        )
        self.norm = LayerNorm(config, rngs, compute)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))
        self.gelu = config.gelu
        self.decoder_bias = config.decoder_bias

    def __call__(self, hidden: jax.Array, word: Embedding) -> jax.Array:
        """Return logits `[B, S, V]` of hidden states `[B, S, D]`."""
        x = self.norm(ops.gelu(self.dense(hidden, feeds_activation=True), self.gelu))
        bias = self.bias[...]
        # The parameter stays, as saved models have one; a constant has no gradient.
        if not self.decoder_bias:
            bias = jnp.zeros_like(bias)
        return ops.tied_logits(x, word.embedding[...], bias)


class TaskHead(nnx.Module):  # type: ignore[misc]
    """The head of a model's family for classification or regression, in transformers' form: a dense
    layer of the pooled state, an activation, a linear layer.

    BERT's dense layer is its pooler. Its activation is tanh, and that of all families but two:
    DistilBERT's is ReLU, and ModernBERT's GELU, with a LayerNorm behind it.
    """

    def __init__(self, config: ModelConfig, outputs: int, rngs: nnx.Rngs):
        is_modernbert = config.family == "modernbert"
        self.pooler = Linear(
            config,
            config.width,
            config.width,
            rngs,
            ComputeConfig(),
            bias=config.linear_bias or not is_modernbert,
        )
        self.output = Linear(config, config.width, outputs, rngs, ComputeConfig())
        self.norm = LayerNorm(config, rngs, ComputeConfig()) if is_modernbert else None
        self.dropout = config.dropout
        self.family = config.family
        self.gelu = config.gelu

    def __call__(self, pooled: jax.Array, dropout_key: DropoutKey) -> jax.Array:
        """Return `[B, outputs]` of pooled last hidden states `[B, D]`."""
        dense = self.pooler(pooled)
        if self.norm is not None:
            x = self.norm(ops.gelu(dense, self.gelu))
        elif self.family == "distilbert":
            x = jax.nn.relu(dense)
        else:
            x = jnp.tanh(dense)
        return self.output(ops.dropout(x, self.dropout, dropout_key, site=Site.TASK_POOLED))
