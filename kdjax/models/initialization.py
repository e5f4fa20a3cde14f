"""The standard deviation of a random start, by width.

All matrices and tables of BERT share one standard deviation: embeddings pass a LayerNorm, so does
what the MLM head's dense layer makes. ModernBERT's projections into the residual stream are scaled
by depth, as Megatron-LM's and GPT-2's (Shoeybi et al. 2019, arXiv 1909.08053; Warner et al. 2024,
arXiv 2412.13663); RoBERTa's and DistilBERT's numbers are a normal's that is not cut, as in their
code.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig

BERT_WIDTH = 768
"""The width at which BERT's standard deviation, 0.02, is right."""

EXPONENT = 0.75
"""The exponent of the rule by width.

Measured as right: 0.125 at width 64 and 0.09 at 128, exponents of 0.74 and 0.84 (docs/starts.md).
1/2 would keep the size of activations (LeCun; Nguyen & Salazar 2019, arXiv 1910.05895), and is too
little for short budgets.
"""


def init_std(config: ModelConfig) -> float:
    """Return the standard deviation from which matrices and embeddings are drawn at the start.

    It is that of the normal distribution before its tails are cut. With `init: fixed` it is
    `config.init_std`, otherwise a narrower model's is larger.
    """
    if config.init == "fixed":
        return config.init_std
    wider: float = (BERT_WIDTH / config.width) ** EXPONENT
    return config.init_std * wider


def initializer(config: ModelConfig, *, of_output: bool = False) -> jax.nn.initializers.Initializer:
    """Return the initializer of matrices and embeddings: a normal, cut as the model says.

    Without a key, as with `ShapesOnly`, it draws nothing and gives zeros.

    Args:
        config: configuration of the model.
        of_output: whether it is of a matrix whose results are added to the residual stream, or of
            the MLM head's dense layer.
    """
    std = init_std(config)
    if of_output and config.init_outputs == "by_depth":
        std /= math.sqrt(2 * config.layers)
    draw = jax.nn.initializers.normal(stddev=std)
    if config.init_cut > 0:
        draw = jax.nn.initializers.truncated_normal(
            stddev=std, lower=-config.init_cut, upper=config.init_cut
        )

    def start(
        key: jax.Array | None, shape: Any, dtype: Any | None = jnp.float32, out_sharding: Any = None
    ) -> jax.Array:
        if key is None:
            return jnp.zeros(shape, dtype)
        return draw(key, shape, dtype, out_sharding)

    return start


class ShapesOnly:
    """A stand-in for `nnx.Rngs` where only the shapes of a model's parameters are needed.

    Tracing every draw takes most of the time that building a model takes.
    """

    def params(self) -> None:
        """Return None in place of a random key."""
        return None
