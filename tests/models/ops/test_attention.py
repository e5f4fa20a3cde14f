"""Attention's optimized form beside plain JAX: values, gradients, and what it stores."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.ops.attention import attention_in_heads, segment_mask
from tests.models.ops.examples import (
    BF16,
    F32,
    assert_computes,
    differentiated,
    drawn,
    stored_for_backward,
)
from tests.support.doctests import check_example

SEGMENTS = np.array([[1] * 4 + [2] * 3 + [0] * 3, [1] * 10])
"""Two packed segments and padding; a full row."""
ALLOWED = jnp.asarray(SEGMENTS[:, None, :, None] == SEGMENTS[:, None, None])
KEEP = jnp.asarray(np.random.default_rng(5).random((2, 3, 10, 10)) < 0.7)


def query_key_value(dtype: Any) -> list[jax.Array]:
    return [drawn(2, 3, 10, 8, seed=n, dtype=dtype) for n in range(3)]


def plain(
    query: jax.Array, key: jax.Array, value: jax.Array, *, keep: jax.Array | None, rate: float
) -> tuple[jax.Array, jax.Array]:
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    probs = jax.nn.softmax(jnp.where(ALLOWED, scores, -jnp.inf))
    if keep is not None:
        probs = jnp.where(keep, probs / (1 - rate), 0)
    return probs @ value, scores


@pytest.mark.parametrize(("rate", "keep"), [(0.0, None), (0.3, KEEP)], ids=["whole", "dropout"])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_attention_computes_plain_attention(
    dtype: Any, rate: float, keep: jax.Array | None
) -> None:
    context, scores = assert_computes(
        lambda *args: attention_in_heads(*args, ALLOWED, keep, rate),
        functools.partial(plain, keep=keep, rate=rate),
        *query_key_value(dtype),
    )
    assert context.dtype == scores.dtype == dtype


def test_attention_takes_scores_of_any_size() -> None:
    query, key, value = query_key_value(F32)
    out, grads = differentiated(
        lambda *args: attention_in_heads(*args, ALLOWED, None, 0.0), 1e3 * query, key, value
    )
    # Scores of hundreds would overflow an exponential whose row maximum is not taken off.
    context, _ = out
    want, _ = plain(1e3 * query, key, value, keep=None, rate=0.0)
    np.testing.assert_allclose(context, want, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(grad).all() for grad in grads)


def test_attention_stores_one_array_of_the_square_of_the_length_and_what_dropout_keeps() -> None:
    stored = stored_for_backward(
        lambda *args: attention_in_heads(*args, ALLOWED, KEEP, 0.3), *query_key_value(BF16)
    )
    # Of that size: the probabilities, and a bit of dropout for each. Scores are not kept.
    square = sorted(str(dtype) for shape, dtype in stored if shape == (2, 3, 10, 10))
    assert square == ["bfloat16", "bool"]


def test_example_of_a_mask_prints_what_it_says() -> None:
    check_example(segment_mask, {"segment_mask": segment_mask, "jnp": jnp})
