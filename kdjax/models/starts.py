"""The spread of a random start, by width."""

from __future__ import annotations

import jax

from kdjax.config import ModelConfig

BERT_WIDTH = 768
"""The width at which BERT's standard deviation, 0.02, is right."""

EXPONENT = 0.75


def init_std(config: ModelConfig) -> float:
    """Return the standard deviation that matrices and embeddings start with, before the normal is cut."""
    if config.init == "fixed":
        return config.init_std
    scale: float = (BERT_WIDTH / config.width) ** EXPONENT
    return config.init_std * scale


def initializer(config: ModelConfig) -> jax.nn.initializers.Initializer:
    """Return what draws a matrix or an embedding table: a normal, cut at two standard deviations as BERT's."""
    return jax.nn.initializers.truncated_normal(stddev=init_std(config))
