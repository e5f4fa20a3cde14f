"""The logit term, against sums written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.objectives import Features, get
from tests.objectives.examples import (
    STUDENT,
    TEACHER,
    kl,
    softmax,
    used_slots,
)

PADDINGS = [
    ((30522, 30522), True),
    ((30522, 30528), True),
    ((30522, 30592), True),
    ((30522, 30720), True),
    ((11, 16), True),
    ((30522, 30536), False),
    ((30522, 30530), False),
    ((512, 30522), False),
    ((11, 12), False),
]
"""Entries of two vocabularies, and whether one is the other with padding."""


@pytest.mark.parametrize("temperature", [1, 2.0, 0.5])
def test_logit_is_the_divergence_at_a_temperature(example: Any, temperature: float) -> None:
    student, teacher, batch = example
    student_probs = softmax(np.asarray(student.logits) / temperature)
    teacher_probs = softmax(np.asarray(teacher.logits) / temperature)
    expected = temperature**2 * np.mean(
        [kl(teacher_probs[at], student_probs[at]) for at in used_slots(batch)]
    )
    assert get("logit", temperature=temperature)(student, teacher, batch, {}) == pytest.approx(
        expected, rel=1e-12
    )


def test_logit_at_all_positions_is_a_mean_over_the_valid_ones(example: Any) -> None:
    student, teacher, batch = example
    student_probs = softmax(np.asarray(student.token_logits) / 2)
    teacher_probs = softmax(np.asarray(teacher.token_logits) / 2)
    valid = batch["valid"]
    # Without slots, every valid token counts once.
    pairs = zip(teacher_probs[valid], student_probs[valid], strict=True)
    divergences = [kl(p, q) for p, q in pairs]
    term = get("logit", temperature=2, positions="all")
    assert term(student, teacher, batch, {}) == pytest.approx(4 * np.mean(divergences), rel=1e-12)


def test_logit_gradient_at_a_high_temperature_matches_centred_logits(example: Any) -> None:
    """T² times the gradient tends to (z - v)/V, both centred (Hinton et al. 2015, section 2.1);
    over N slots here."""
    student, teacher, batch = example
    # Logits are centred: a softmax does not see what is added to all of them.
    used = batch["label_weights"] > 0
    z = np.asarray(student.logits) - np.asarray(student.logits).mean(-1, keepdims=True)
    v = np.asarray(teacher.logits) - np.asarray(teacher.logits).mean(-1, keepdims=True)
    expected = np.where(used[..., None], (z - v) / STUDENT.vocab_size / used.sum(), 0)
    for temperature, tolerance in ((1e3, 1e-2), (1e5, 1e-4)):
        grads = jax.grad(get("logit", temperature=temperature))(student, teacher, batch, {})
        np.testing.assert_allclose(grads.logits, expected, atol=tolerance * np.abs(expected).max())
    # Else the tolerance above would accept a gradient of 0.
    assert np.abs(expected).max() > 1e-3


def test_bui2024_logit_is_smaller_by_the_vocabulary(example: Any) -> None:
    student, teacher, batch = example
    student_probs = softmax(np.asarray(student.logits))
    teacher_probs = softmax(np.asarray(teacher.logits))
    # A cross-entropy, not a divergence: the teacher's entropy is not taken off.
    crossed = [-(teacher_probs[at] * np.log(student_probs[at])).sum() for at in used_slots(batch)]
    expected = np.mean(crossed) / STUDENT.vocab_size
    assert get("logit", "bui2024")(student, teacher, batch, {}) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("variant", ["original", "bui2024"])
@pytest.mark.parametrize("padded_model", ["student", "teacher"])
def test_logit_leaves_out_the_entries_that_pad_a_vocabulary(
    example: Any, variant: str, padded_model: str
) -> None:
    student, teacher, batch = example
    term = get("logit", variant)
    expected = term(student, teacher, batch, {})
    # Rows that no token has may come to anything.
    models = {"student": student, "teacher": teacher}
    logits = models[padded_model].logits
    more = jnp.full((*logits.shape[:-1], 5), 1e4, logits.dtype)
    models[padded_model] = Features(logits=jnp.concatenate([logits, more], axis=-1))
    assert term(models["student"], models["teacher"], batch, {}) == expected


@pytest.mark.parametrize(("sizes", "fits"), PADDINGS)
def test_vocabularies_may_differ_by_padding_alone(sizes: tuple[int, int], fits: bool) -> None:
    for student_size, teacher_size in (sizes, sizes[::-1]):
        student = replace(STUDENT, vocab_size=student_size)
        teacher = replace(TEACHER, vocab_size=teacher_size)
        if fits:
            assert get("logit").needs(student, teacher).student.logits
            continue
        with pytest.raises(InputError, match="padded to a multiple of a power of two, 8 to 1024"):
            get("logit").needs(student, teacher)


@pytest.mark.parametrize("variant", ["original", "bui2024"])
def test_logit_does_not_depend_on_what_unused_slots_hold(example: Any, variant: str) -> None:
    student, teacher, batch = example
    expected = get("logit", variant)(student, teacher, batch, {})
    # An unused slot holds what the forward pass left there.
    unused = (batch["label_weights"] == 0)[..., None]
    disturbed = Features(logits=jnp.where(unused, 1e4, student.logits))
    assert get("logit", variant)(disturbed, teacher, batch, {}) == expected
    # Without any used slot the mean is 0, not 0/0.
    empty = {**batch, "label_weights": np.zeros_like(batch["label_weights"])}
    assert get("logit", variant)(student, teacher, empty, {}) == 0
