"""Rotary positions: what they promise, and the price of them."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models import FeatureRequest, Features, forward, init
from kdjax.models.ops.rotary import rotate, rotation_of
from kdjax.objectives import get
from kdjax.training.phase_price import price
from tests.support import tiny

CONFIG = ModelConfig(
    layers=1, width=32, heads=2, ffn=16, vocab_size=9, positions="rotary", rotary_base=100.0
)
HEADS = CONFIG.heads
HEAD_WIDTH = CONFIG.head_width


def rotated(x: np.ndarray, position_ids: np.ndarray) -> np.ndarray:
    """Return `[B, L, D]` rotated and split into heads, `[B, L, H, d]`."""
    out = rotate(
        jnp.asarray(x, jnp.float32),
        rotation_of(CONFIG, jnp.asarray(position_ids, jnp.int32)),
        HEADS,
    )
    return np.asarray(out).reshape(*x.shape[:2], HEADS, HEAD_WIDTH)


def random_vectors(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, length, CONFIG.width))


def test_rotary_scores_depend_on_distance_only() -> None:
    # The same vector everywhere, so that only positions make a difference.
    query = np.broadcast_to(random_vectors(0, 1), (1, 20, CONFIG.width))
    key = np.broadcast_to(random_vectors(1, 1), (1, 20, CONFIG.width))
    for first in (0, 300):
        at = first + np.arange(20)[None]
        # Near the start and far from it, scores at one distance are the same.
        scores = np.einsum("BLHd,BMHd->BHLM", rotated(query, at), rotated(key, at))
        for distance in (-7, 0, 3):
            along = np.diagonal(scores, offset=distance, axis1=2, axis2=3)
            # An angle of up to 320 is off by 2^-24 of it, and a score by that much of |q||k|, about
            # 32.
            np.testing.assert_allclose(
                along, np.broadcast_to(along[..., :1], along.shape), atol=32 * 320 * 2**-22
            )
        assert np.ptp(scores[0, 0, 0]) > 1  # which does depend on the distance


@pytest.mark.parametrize(("relation_heads", "same"), [(1, True), (HEADS, True), (8, False)])
def test_relations_of_whole_rotated_heads_depend_on_distance_only(
    relation_heads: int, same: bool
) -> None:
    """Narrower relation heads split the planes, as docs/objectives/relations.md says."""
    vectors = random_vectors(6, 20)

    def features(first: int) -> Features:
        query = rotated(vectors, first + np.arange(20)[None]).swapaxes(1, 2)
        return Features(query={1: jnp.asarray(query)})

    batch = {"valid": jnp.ones((1, 20), bool), "segments": jnp.ones((1, 20), jnp.int32)}
    term = get("relation", relation_heads=relation_heads, key=0.0, value=0.0)
    # A student that is moved by 50 positions must have the same relations.
    loss = term(features(0), features(50), batch, {})
    assert (abs(float(loss)) < 1e-4) == same


def test_rotation_keeps_lengths_and_leaves_position_0_as_it_is() -> None:
    x = random_vectors(2, 12)
    out = rotated(x, np.arange(12)[None])
    in_heads = x.reshape(out.shape)
    np.testing.assert_allclose(
        np.linalg.norm(out, axis=-1), np.linalg.norm(in_heads, axis=-1), rtol=1e-6
    )
    np.testing.assert_array_equal(out[:, 0], in_heads[:, 0].astype(np.float32))


def test_rotation_pairs_the_halves_of_a_head_and_turns_the_first_plane_by_a_radian() -> None:
    x = np.zeros((1, 2, CONFIG.width))
    x[..., HEAD_WIDTH] = 1  # coordinate 0 of the second head
    out = rotated(x, np.array([[1, 2]]))[0, :, 1]
    for position in (1, 2):
        # The first plane has frequency 1: a radian a position.
        expected = np.zeros(HEAD_WIDTH)
        expected[0] = math.cos(position)
        expected[HEAD_WIDTH // 2] = math.sin(position)
        np.testing.assert_allclose(out[position - 1], expected, atol=1e-6)


def test_rotation_in_bfloat16_turns_by_float32_angles() -> None:
    """Position 301 is no bfloat16: a table of that type would turn it like position 302, by a
    radian more."""
    x = random_vectors(3, 1)
    at = jnp.array([[301]])
    rotation = rotation_of(CONFIG, at)
    # Angles are wide, vectors narrow.
    assert rotation.cos.dtype == rotation.sin.dtype == jnp.float32
    narrow = rotate(jnp.asarray(x, jnp.bfloat16), rotation, HEADS)
    assert narrow.dtype == jnp.bfloat16
    wide = rotate(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32), rotation, HEADS)
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, rtol=2**-8, atol=1e-6)


def test_gradient_of_a_rotation_is_the_rotation_back() -> None:
    at = jnp.arange(6)[None]
    x = jnp.asarray(random_vectors(4, 6), jnp.float32)
    gradient = jnp.asarray(random_vectors(5, 6), jnp.float32)
    rotation = rotation_of(CONFIG, at)
    _, pull = jax.vjp(lambda y: rotate(y, rotation, HEADS), x)
    # The pullback of an orthogonal map is its inverse: the turn by negative angles.
    back = rotate(gradient, rotation_of(CONFIG, -at), HEADS)
    np.testing.assert_allclose(pull(gradient)[0], back, atol=1e-5)


def test_rotary_model_knows_the_order_of_tokens() -> None:
    """A mean over the sequence would not without positions: attention is the same for any order."""
    params = init(dataclasses.replace(CONFIG, init_std=0.3), 0).params
    tokens = np.array([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]], np.int32)
    batch = {"tokens": tokens, "segments": np.ones_like(tokens)}

    def means(position_ids: np.ndarray) -> np.ndarray:
        positioned = {
            **batch,
            "positions": np.broadcast_to(position_ids, tokens.shape).astype(np.int32),
        }
        hidden = forward(CONFIG, params, positioned, FeatureRequest(hidden=frozenset({1}))).hidden[
            1
        ]
        return np.asarray(hidden.mean(axis=1))

    # The same tokens in another order, first with positions and then without any.
    ordered = means(np.arange(6))
    unordered = means(np.zeros(6))
    np.testing.assert_allclose(unordered[0], unordered[1], atol=1e-5)
    assert np.abs(ordered[0] - ordered[1]).max() > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 6, "heads": 2}, "heads are 3 wide, expected an even width"),
        ({"rotary_base": 1.0}, "rotary_base is 1.0, expected more than 1"),
        ({"init_std": 0.0}, "init_std is 0.0, expected more than 0"),
        (
            {"positions": 128},
            r"positions is 128, expected learned or rotary \(the longest sequence is now max_posi",
        ),
    ],
)
def test_config_of_positions_that_cannot_be_is_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **settings)


def test_price_of_rotary_positions_is_their_rotation_by_hand() -> None:
    """A coordinate takes two products and a sum; backward as much, and half of them are negated
    before."""
    learned = dataclasses.replace(tiny.STUDENT, positions="learned")
    rotary = dataclasses.replace(tiny.STUDENT, positions="rotary")
    without = price(tiny.phase(student=learned), tiny.SHAPE)
    with_rotation = price(tiny.phase(student=rotary), tiny.SHAPE)
    tokens = tiny.SHAPE.batch_size * tiny.SHAPE.seq_len
    planes = tiny.STUDENT.head_width // 2
    coordinates = tiny.STUDENT.layers * 2 * tokens * tiny.STUDENT.width  # of queries and keys
    # Positions as floats, times each frequency; sines are no FLOPs.
    angles = tokens + tokens * planes
    # A table's rows: chosen or NaN, then added to the embeddings.
    table = tokens * tiny.STUDENT.width
    checks = 6 * tokens  # that indices are in range
    assert with_rotation.jaxpr_matmul == without.jaxpr_matmul
    forward_flops = without.student_forward + 3 * coordinates + angles - 2 * table - checks
    assert with_rotation.student_forward == forward_flops
    backward = without.student_backward + 3.5 * coordinates - table
    assert with_rotation.student_backward == pytest.approx(backward, abs=checks)
