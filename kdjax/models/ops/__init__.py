"""The mathematics of models and objectives, a file an operation.

Each file has the operation, its reference form (priced), and its optimized form (what runs), with
kernels in `kernels/`. `dispatch` says which form is traced; callers do not ask.
"""

from kdjax.models.ops.attention import (
    AttentionMask,
    attention,
    attention_scores,
    segment_mask,
)
from kdjax.models.ops.cross_entropy import cross_entropy
from kdjax.models.ops.dropout import dropout
from kdjax.models.ops.dtypes import at_least_float32
from kdjax.models.ops.embedding import embed, tied_logits
from kdjax.models.ops.gated_gelu import gated_gelu
from kdjax.models.ops.gelu import gelu
from kdjax.models.ops.heads import split_heads
from kdjax.models.ops.kl import kl, kl_of_log_probs, log_softmax
from kdjax.models.ops.layer_norm import layer_norm
from kdjax.models.ops.linear import linear, linear_each
from kdjax.models.ops.relations import relation_kl, relation_scores
from kdjax.models.ops.rotary import Rotation, rotate, rotation_of

__all__ = [
    "AttentionMask",
    "Rotation",
    "at_least_float32",
    "attention",
    "attention_scores",
    "cross_entropy",
    "dropout",
    "embed",
    "gated_gelu",
    "gelu",
    "kl",
    "kl_of_log_probs",
    "layer_norm",
    "linear",
    "linear_each",
    "log_softmax",
    "relation_kl",
    "relation_scores",
    "rotate",
    "rotation_of",
    "segment_mask",
    "split_heads",
    "tied_logits",
]
