"""Models of every family as functions over plain nested dictionaries of parameters: `init` makes
them, `forward` and `classify` run them.

Letters in shapes: B batch, L length, D width, S slots.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax.config import ComputeConfig, ModelConfig, Pooling
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.models.encoder import Encoder
from kdjax.models.features import ATTENTION_FEATURES, Batch, FeatureRequest, Features
from kdjax.models.initialization import ShapesOnly
from kdjax.models.ops.dropout import fold, sequence_seeds
from kdjax.models.output_heads import MlmHead, TaskHead

Params = dict[str, Any]


class Model(NamedTuple):
    """An encoder.

    Attributes:
        config: configuration of the model.
        params: `{"embeddings": …, "layers": {"1": …, …}, "final_norm": … for pre-LN, "mlm": …}`;
            "mlm" is absent where a checkpoint has no MLM head.
    """

    config: ModelConfig
    params: Params


class ParameterCounts(NamedTuple):
    """Numbers of parameters: of a model's embedding tables, and of all else."""

    embeddings: int
    others: int


def init(config: ModelConfig | str, seed: int, **settings: Any) -> Model:
    """Make a model as BERT starts: kernels and embeddings truncated normal, biases 0, scales 1.

    The normal's standard deviation is BERT's 0.02, or goes by the width
    (`kdjax.models.initialization`).

    Args:
        config: a configuration, or a named size (`kdjax.models.zoo`).
        seed: random seed; with the configuration it determines the parameters.
        settings: settings of the configuration that differ, by their names in a recipe's `student`
            (`ModelSpec`), such as `heads`, `vocab_size`, `max_positions`.

    Raises:
        InputError: an unknown size or setting, or settings that do not fit together.

    Example:
        >>> init("1x32", seed=0, heads=2, vocab_size=53, max_positions=12).config.ffn
        128
    """
    config = zoo.with_settings(config, settings)
    return Model(config, _params(Encoder(config, nnx.Rngs(seed), ComputeConfig(), mlm=True)))


def init_mlm_head(config: ModelConfig, seed: int) -> Params:
    """Make an MLM head as BERT starts: what `params["mlm"]` holds."""
    return _params(MlmHead(config, nnx.Rngs(seed), ComputeConfig()))


def init_task_head(config: ModelConfig, outputs: int, seed: int) -> Params:
    """Make a head for `classify` with `outputs` classes, or 1 output for a regression."""
    return _params(TaskHead(config, outputs, nnx.Rngs(seed)))


def abstract_params(config: ModelConfig, *, mlm: bool = True) -> Params:
    """Return the parameters as `jax.ShapeDtypeStruct`; nothing is allocated."""
    params: Params = nnx.to_pure_dict(_encoder(config, ComputeConfig(), mlm)[1])
    return params


def forward(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    request: FeatureRequest,
    *,
    dropout_key: jax.Array | None = None,
    compute: ComputeConfig = ComputeConfig(),
) -> Features:
    """Compute the requested features; nothing else is traced.

    Features are float32 whatever is computed in: inside one compiled program the cast joins what
    reads them, so that it takes no memory of its own.

    Args:
        config: configuration of the model.
        params: nested parameters of the model, as `init` makes them.
        batch: `tokens`, `segments`, `positions` int32 `[B, L]`; for logits `slots` int32 `[B, S]`;
            `types` int32 `[B, L]` where token types are not all 0. Attention stays inside a
            segment.
        request: features to compute, by layer.
        dropout_key: a JAX key, or seeds of sequences (`kdjax.models.ops.dropout`); None: there is
            no dropout.
        compute: way to compute features. Dropout's random numbers do not depend on it.

    Raises:
        InputError: a layer the model does not have, logits without an MLM head, sequences longer
            than the positions.
    """
    if not request:
        return Features()
    _check(config, params, batch, request)
    encoder = nnx.merge(_encoder(config, compute, "mlm" in params)[0], params)
    seeds = sequence_seeds(dropout_key, len(batch["tokens"]))
    features: Features = encoder(batch, request, seeds)
    return features


def classify(
    config: ModelConfig,
    params: Params,
    head: Params,
    batch: Batch,
    *,
    pool: Pooling = "first",
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Compute class scores (before the softmax) or predicted numbers from the last layer.

    Args:
        config: configuration of the model.
        params: nested parameters of the model, as `init` makes them.
        head: the head's parameters, from `init_task_head`.
        batch: arrays that `forward` takes; for the mean also `valid` bool `[B, L]`.
        pool: input of the head: the first token, as BERT does, or the mean over valid tokens.
        dropout_key: a JAX key, or seeds of sequences; None: there is no dropout. The head drops out
            its pooled input too.

    Returns:
        float32 `[B, outputs]`.

    Raises:
        InputError: sequences longer than the positions.
    """
    seeds = sequence_seeds(dropout_key, len(batch["tokens"]))
    pooled = pooled_state(config, params, batch, pool=pool, dropout_key=seeds)
    return task_scores(config, head, pooled, dropout_key=seeds)


def pooled_state(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    *,
    pool: Pooling = "first",
    dropout_key: jax.Array | None = None,
    compute: ComputeConfig = ComputeConfig(),
) -> jax.Array:
    """Compute the input of a task's head from the last layer, float32 `[B, D]`.

    Args:
        config: configuration of the model.
        params: nested parameters of the model, as `init` makes them.
        batch: arrays that `forward` takes; for the mean also `valid` bool `[B, L]`.
        pool: the first token's state, or the mean over valid tokens.
        dropout_key: a JAX key, or seeds of sequences; None: there is no dropout.
        compute: way to compute the layers.

    Raises:
        InputError: sequences longer than the positions.
    """
    request = FeatureRequest(hidden=frozenset({config.layers}))
    if pool == "mean":
        features = forward(config, params, batch, request, dropout_key=dropout_key, compute=compute)
        return mean_pool(features.hidden[config.layers], batch["valid"])
    # The last layer computes the first token's state alone.
    _check(config, params, batch, request)
    encoder = nnx.merge(_encoder(config, compute, "mlm" in params)[0], params)
    state: jax.Array = encoder.first_state(batch, sequence_seeds(dropout_key, len(batch["tokens"])))
    return state


def task_scores(
    config: ModelConfig, head: Params, pooled: jax.Array, *, dropout_key: jax.Array | None = None
) -> jax.Array:
    """Compute a task head's outputs, float32 `[B, outputs]`.

    Args:
        config: configuration of the model.
        head: the head's parameters, from `init_task_head`.
        pooled: what it reads, `[B, D]` (`pooled_state`).
        dropout_key: seeds of the sequences, the same as of the layers; None: there is no dropout.
    """
    outputs = head["output"]["bias"].shape[0]
    task_head = nnx.merge(_task_head(config, outputs), head)
    # Layers fold their numbers into the key; the head takes the next one.
    scores: jax.Array = task_head(pooled, fold(dropout_key, config.layers + 1))
    return scores.astype(jnp.float32)


def mean_pool(hidden: jax.Array, valid: jax.Array) -> jax.Array:
    """Average `[B, L, D]` over valid tokens, float32 `[B, D]`; 0 where a row has none."""
    weights = valid.astype(jnp.float32)[..., None]
    return jnp.sum(hidden * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)


def count_params(params: Params) -> ParameterCounts:
    """Count parameters, arrays or shapes."""
    total = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
    in_tables = 0
    for module in params["embeddings"].values():
        if "embedding" in module:
            in_tables += math.prod(module["embedding"].shape)
    return ParameterCounts(in_tables, total - in_tables)


def _check(config: ModelConfig, params: Params, batch: Batch, request: FeatureRequest) -> None:
    for name in (*ATTENTION_FEATURES, "hidden"):
        lowest = 0 if name == "hidden" else 1
        for layer in sorted(getattr(request, name)):
            if not lowest <= layer <= config.layers:
                raise InputError(
                    f"{name} of layer {layer} asked, expected a layer from {lowest} to "
                    f"{config.layers}"
                )
    if request.head and "mlm" not in params:
        raise InputError(
            "logits asked of a model without an MLM head, expected parameters with 'mlm'"
        )
    length = batch["tokens"].shape[1]
    if length > config.max_positions:
        raise InputError(
            f"sequences of {length} tokens, expected at most the model's {config.max_positions} "
            "positions"
        )


@cache
def _encoder(
    config: ModelConfig, compute: ComputeConfig, mlm: bool
) -> tuple[nnx.GraphDef[Encoder], nnx.State]:
    abstract = nnx.eval_shape(lambda: Encoder(config, ShapesOnly(), compute, mlm=mlm))
    return nnx.split(abstract)  # type: ignore[no-any-return]


@cache
def _task_head(config: ModelConfig, outputs: int) -> nnx.GraphDef[TaskHead]:
    return nnx.split(nnx.eval_shape(lambda: TaskHead(config, outputs, ShapesOnly())))[0]


def _params(module: nnx.Module) -> Params:
    return nnx.to_pure_dict(nnx.state(module))  # type: ignore[no-any-return]
