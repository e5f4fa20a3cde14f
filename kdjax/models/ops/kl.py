"""Kullback-Leibler divergence between distributions over the last axis, of size V."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.models.ops import dispatch
from kdjax.models.ops.cross_entropy import log_sum_exp
from kdjax.models.ops.dtypes import at_least_float32

_MASKED = -1e30
"""Stands for a score that is not there: finite, so that 0 times its difference from another is 0
and not NaN."""


def kl(student: jax.Array, teacher: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Compute KL(p_t‖p_s), p = softmax(scores), in float32 or wider.

    Args:
        student: scores `[..., V]`.
        teacher: scores `[..., V]`.
        where: bool, broadcast over the scores: the entries that there are; None: all.

    Returns:
        `[...]`.
    """
    return dispatch.choose(reference, optimized)(student, teacher, where)


def reference(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    """Compute `kl` in plain JAX."""
    return kl_of_log_probs(log_softmax(student, where), log_softmax(teacher, where))


def optimized(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    """Compute `kl` with a backward pass that reads the scores once."""
    return _kl(at_least_float32(student), at_least_float32(teacher), where)


def log_softmax(scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Compute log-probabilities; entries outside `where` have probability 0 and stay finite."""
    return jax.nn.log_softmax(_masked(at_least_float32(scores), where))


def kl_of_log_probs(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Compute KL(p_t‖p_s) from log-probabilities `[..., V]`."""
    divergence: jax.Array = optax.losses.kl_divergence_with_log_targets(student, teacher)
    return divergence


@jax.custom_vjp
def _kl(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    """Compute `kl` of scores of float32 or wider."""
    return reference(student, teacher, where)


def _forward(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Compute KL = Σ_V p_t (log p_t − log p_s); the scores, KL and log Σ exp scores are stored."""
    student_scores = _masked(student, where)  # [..., V]
    teacher_scores = _masked(teacher, where)  # [..., V]
    student_total = log_sum_exp(student_scores)  # [..., 1]
    teacher_total = log_sum_exp(teacher_scores)  # [..., 1]
    # log p = scores − log Σ exp scores
    student_log_probs = student_scores - student_total  # [..., V]
    teacher_log_probs = teacher_scores - teacher_total  # [..., V]
    divergence = jnp.sum(
        jnp.exp(teacher_log_probs) * (teacher_log_probs - student_log_probs), axis=-1
    )
    return divergence, (student, teacher, where, divergence, student_total, teacher_total)


def _backward(residuals: tuple[Any, ...], grad_out: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    """Compute the gradients by the scores, g that by KL: g (p_s − p_t) by the student's, and
    g p_t (log p_t − log p_s − KL) by the teacher's."""
    student, teacher, where, divergence, student_total, teacher_total = residuals
    # Computed again: to store them would take an array as large as the scores.
    student_log_probs = _masked(student, where) - student_total  # [..., V]
    teacher_log_probs = _masked(teacher, where) - teacher_total  # [..., V]
    student_probs = jnp.exp(student_log_probs)  # [..., V]
    teacher_probs = jnp.exp(teacher_log_probs)  # [..., V]
    grad = grad_out[..., None]  # [..., 1]
    grad_student = grad * (student_probs - teacher_probs)  # [..., V]
    # XLA drops it where nobody reads it.
    grad_teacher = grad * (
        teacher_probs * (teacher_log_probs - student_log_probs - divergence[..., None])
    )
    return grad_student, grad_teacher, None


_kl.defvjp(_forward, _backward)


def _masked(scores: jax.Array, where: jax.Array | None) -> jax.Array:
    """Return the scores `[..., V]`, `_MASKED` outside `where`."""
    if where is None:
        return scores
    return jnp.where(where, scores, _MASKED)
