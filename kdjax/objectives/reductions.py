"""Means over what counts, in float32 or wider. B batch, H heads, L length, S slots, V
vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.errors import InputError
from kdjax.kernels.split import platform
from kdjax.models.reference import is_canonical

_MASKED = -1e30
"""Stands for a score that is not there: finite, so that 0 x (its difference from another) is 0 and
not NaN."""


def precise(x: jax.Array) -> jax.Array:
    """`x` as float32, or as it is if wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def given(logits: jax.Array | None) -> jax.Array:
    """The logits `[B, S, V]` or `[B, L, V]` in float32 or wider.

    Raises:
        InputError: the forward pass was not asked for them.
    """
    if logits is None:
        raise InputError("features without logits, expected a forward pass that was asked for them")
    return precise(logits)


def valid_pairs(batch: Mapping[str, jax.Array]) -> jax.Array:
    """Which pairs of positions belong together: both valid, in one segment; bool `[B, 1, L, L]`."""
    segments = batch["segments"]
    valid = batch["valid"]
    same = segments[:, :, None] == segments[:, None, :]
    return (same & valid[:, :, None] & valid[:, None, :])[:, None]


def mean(values: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Mean of the values at `where` (broadcast over them); 0 if there are none."""
    if where is None:
        return jnp.mean(precise(values))
    kept = jnp.where(where, precise(values), 0)
    # Counted in integers: a float32 count stops growing at 2^24, which a batch's pairs of positions
    # reach.
    count = jnp.sum(where, dtype=jnp.int32).astype(kept.dtype) * (values.size // where.size)
    return jnp.sum(kept) / jnp.maximum(count, 1)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of the values by their weights; 0 if no weight is above 0. What has weight 0 may hold
    anything."""
    weights = precise(weights)
    total = jnp.sum(weights)
    return jnp.sum(jnp.where(weights > 0, values, 0) * weights) / jnp.where(total > 0, total, 1)


def mse(student: jax.Array, teacher: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Mean squared difference over the elements at `where` (broadcast over them)."""
    difference = precise(student) - precise(teacher)
    # Cleared before it is squared, so that what does not count gets no gradient whatever it holds.
    cleared = difference if where is None else jnp.where(where, difference, 0)
    return mean(jnp.square(cleared), where)


def log_softmax(scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Log-probabilities over the last axis; entries outside `where` have probability 0 and stay
    finite."""
    return jax.nn.log_softmax(_at(precise(scores), where))


def kl(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """KL(teacher‖student) over the last axis, from log-probabilities."""
    divergence: jax.Array = optax.losses.kl_divergence_with_log_targets(student, teacher)
    return divergence


def kl_of_scores(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None = None
) -> jax.Array:
    """KL(p_t‖p_s) over the last axis, p = softmax(scores) over the entries at `where`."""
    if is_canonical():
        return kl(log_softmax(student, where), log_softmax(teacher, where))
    return _kl_of_scores(precise(student), precise(teacher), where)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−log p(label), p = softmax(logits): `[..., V]` and `[...]` to `[...]`."""
    if is_canonical():
        losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses
    return _cross_entropy(logits, labels)


# Differentiated by hand, a loss over a distribution reads the scores once more and writes their
# gradient, no more.


@jax.custom_vjp
def _kl_of_scores(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    return kl(log_softmax(student, where), log_softmax(teacher, where))


def _kl_forward(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, tuple[Any, ...]]:
    totals = [_log_total(_at(scores, where)) for scores in (student, teacher)]
    own, target = (
        _at(scores, where) - total for scores, total in zip((student, teacher), totals, strict=True)
    )
    divergence = jnp.sum(jnp.exp(target) * (target - own), axis=-1)
    return divergence, (student, teacher, where, divergence, *totals)


def _kl_backward(kept: tuple[Any, ...], gradient: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    student, teacher, where, divergence, total, target_total = kept
    own = _at(student, where) - total
    target = _at(teacher, where) - target_total
    to_student = jnp.exp(own) - jnp.exp(target)
    # Where nobody wants it, XLA drops it
    to_teacher = jnp.exp(target) * (target - own - divergence[..., None])
    return gradient[..., None] * to_student, gradient[..., None] * to_teacher, None


_kl_of_scores.defvjp(_kl_forward, _kl_backward)


@jax.custom_vjp
def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return _cross_entropy_forward(logits, labels)[0]


def _cross_entropy_forward(
    logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    total = _log_total(logits)
    if platform() == "tpu":  # where a look-up would need the logits written out in float32
        right = jnp.sum(jnp.where(_is_label(labels, logits), logits, 0), axis=-1)
    else:
        right = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return total[..., 0] - right, (logits, labels, total)


def _cross_entropy_backward(
    kept: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, None]:
    logits, labels, total = kept
    return gradient[..., None] * (jnp.exp(logits - total) - _is_label(labels, logits)), None


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def _is_label(labels: jax.Array, logits: jax.Array) -> jax.Array:
    return labels[..., None] == jnp.arange(logits.shape[-1])


def _log_total(scores: jax.Array) -> jax.Array:
    """log Σ exp over the last axis, which stays."""
    most = jnp.max(scores, axis=-1, keepdims=True)
    return most + jnp.log(jnp.sum(jnp.exp(scores - most), axis=-1, keepdims=True))


def _at(scores: jax.Array, where: jax.Array | None) -> jax.Array:
    return scores if where is None else jnp.where(where, scores, _MASKED)
