"""The held-out masked language modelling loss, on masks that are the same for every run."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models import forward
from kdjax.models.features import Request


@dataclass(frozen=True)
class MlmResult:
    """How well a model fills in held-out masks.

    Attributes:
        loss: mean cross-entropy over the masked slots, in nats, weighted by `label_weights`.
        accuracy: share of these slots, with the same weights, whose most probable token is the right one.
        count: masked slots with a weight above 0.
    """

    loss: float
    accuracy: float
    count: int


def held_out_loss(config: ModelConfig, params: Any, batches: Iterable[Mapping[str, Any]]) -> MlmResult:
    """Mean cross-entropy over all masked slots of `batches`, without dropout.

    The mean is over slots, not over batches: a batch counts by the weights it has. The forward pass is compiled once
    per configuration and batch shape, for all runs of a process.

    Args:
        config: of the model.
        params: its parameters, with an MLM head.
        batches: MLM batches; unused slots and padded rows have `label_weights` 0.

    Raises:
        InputError: no slot has a weight above 0, or the loss is not finite.
    """
    # Every batch is dispatched before the first result is fetched, so the device does not wait for the host.
    sums = jax.device_get([_sums(config, params, dict(batch)) for batch in batches])
    if not any(s["count"] for s in sums):
        raise InputError("held-out MLM loss: no masked slot in the held-out batches, expected at least one")
    total = {name: float(np.sum([s[name] for s in sums], dtype=np.float64)) for name in sums[0]}
    loss = total["loss"] / total["weight"]
    if not np.isfinite(loss):
        raise InputError(f"held-out MLM loss: found {loss}, expected a finite number; the model has diverged")
    return MlmResult(loss, total["hits"] / total["weight"], int(total["count"]))


@functools.partial(jax.jit, static_argnums=0)
def _sums(config: ModelConfig, params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    logits = forward(config, params, batch, Request(logits=True)).logits
    assert logits is not None  # was asked for
    logits, labels, weights = logits.astype(jnp.float32), batch["labels"], batch["label_weights"]
    used = weights > 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {
        # Not `weights * losses`: an unused slot's loss may be infinite, and 0 times infinity is no number.
        "loss": jnp.sum(jnp.where(used, weights * losses, 0.0)),
        "hits": jnp.sum(weights * (jnp.argmax(logits, -1) == labels)),
        "weight": jnp.sum(weights),
        "count": jnp.sum(used),
    }
