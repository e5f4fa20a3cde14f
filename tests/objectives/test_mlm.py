"""The mlm term, against sums written out."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.objectives import Features, get
from tests.objectives.examples import softmax, used_slots


def test_mlm_is_the_mean_cross_entropy_of_the_used_slots(example: Any) -> None:
    student, teacher, batch = example
    p = softmax(np.asarray(student.logits))
    losses = [-math.log(p[b, s, batch["labels"][b, s]]) for b, s in used_slots(batch)]
    # Three sequences of three slots, one of them unused.
    assert len(losses) == 8
    for variant in ("original", "bui2024"):
        assert get("mlm", variant)(student, teacher, batch, {}) == pytest.approx(
            sum(losses) / 8, rel=1e-12
        )


def test_mlm_weighs_slots_by_their_label_weights(example: Any) -> None:
    student, teacher, batch = example
    first = np.zeros_like(batch["label_weights"])
    second = np.zeros_like(batch["label_weights"])
    first[1, 0] = 1
    second[2, 1] = 1
    # Each slot's loss by itself, with the full weight.
    alone = [
        float(get("mlm")(student, teacher, {**batch, "label_weights": w}, {}))
        for w in (first, second)
    ]
    # Weights of 0.1 and 0.3 are a quarter and three quarters of the whole.
    weighted = get("mlm")(
        student, teacher, {**batch, "label_weights": 0.1 * first + 0.3 * second}, {}
    )
    assert weighted == pytest.approx(0.25 * alone[0] + 0.75 * alone[1], rel=1e-6)


def test_mlm_does_not_depend_on_what_unused_slots_hold(example: Any) -> None:
    student, teacher, batch = example
    expected = get("mlm")(student, teacher, batch, {})
    # An unused slot holds what the forward pass left there.
    unused = (batch["label_weights"] == 0)[..., None]
    disturbed = Features(logits=jnp.where(unused, 1e4, student.logits))
    assert get("mlm")(disturbed, teacher, batch, {}) == expected
    # Without any used slot the mean is 0, not 0/0.
    empty = {**batch, "label_weights": np.zeros_like(batch["label_weights"])}
    assert get("mlm")(student, teacher, empty, {}) == 0
