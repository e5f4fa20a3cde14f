"""Cross-entropy with integer labels. V vocabulary."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.models.ops import dispatch


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Compute −log p(label), p = softmax(logits).

    Args:
        logits: `[..., V]`.
        labels: integers `[...]`.

    Returns:
        `[...]`, in nats.
    """
    return dispatch.choose(reference, optimized)(logits, labels)


def reference(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Compute `cross_entropy` by Optax."""
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses


@jax.custom_vjp
def optimized(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Compute `cross_entropy` with a backward pass that reads the logits once."""
    return _forward(logits, labels)[0]


def _forward(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    """Compute −log p(label) = log Σ exp(logits) − the label's logit; the logits, labels and the
    logarithm are stored."""
    log_total = log_sum_exp(logits)  # [..., 1]
    if dispatch.platform() == "tpu":
        # A look-up would need the logits written out in float32.
        label_logits = jnp.sum(jnp.where(_is_label(labels, logits), logits, 0), axis=-1)
    else:
        label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return log_total[..., 0] - label_logits, (logits, labels, log_total)


def _backward(residuals: tuple[Any, ...], grad_out: jax.Array) -> tuple[jax.Array, None]:
    """Compute the gradient by the logits, dy (p − 1 at the label), `[..., V]`."""
    logits, labels, log_total = residuals
    probs = jnp.exp(logits - log_total)  # [..., V]
    return grad_out[..., None] * (probs - _is_label(labels, logits)), None


optimized.defvjp(_forward, _backward)


def log_sum_exp(scores: jax.Array) -> jax.Array:
    """Compute log Σ exp over the last axis, which stays."""
    highest = jnp.max(scores, axis=-1, keepdims=True)
    return highest + jnp.log(jnp.sum(jnp.exp(scores - highest), axis=-1, keepdims=True))


def _is_label(labels: jax.Array, logits: jax.Array) -> jax.Array:
    """Return the mask that is true at the label's logit, bool `[..., V]`."""
    return labels[..., None] == jnp.arange(logits.shape[-1])
