"""Terms over the vocabulary: mlm and logit, against sums written out."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.objectives import Features, get
from tests.objectives.examples import STUDENT, TEACHER, features, kl, packed, softmax


@pytest.fixture
def example(float64: None) -> tuple[Features, Features, dict[str, np.ndarray]]:
    batch = packed()
    return features(STUDENT, batch, 1), features(TEACHER, batch, 2), batch


def used_slots(batch: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    return [(int(b), int(s)) for b, s in np.argwhere(batch["label_weights"] > 0)]


def test_mlm_is_the_mean_cross_entropy_of_the_used_slots(example: Any) -> None:
    student, teacher, batch = example
    p = softmax(np.asarray(student.logits))
    losses = [-math.log(p[b, s, batch["labels"][b, s]]) for b, s in used_slots(batch)]
    assert len(losses) == 8
    for variant in ("original", "bui2024"):
        assert get("mlm", variant)(student, teacher, batch, {}) == pytest.approx(sum(losses) / 8, rel=1e-12)


@pytest.mark.parametrize("temperature", [1, 2.0, 0.5])
def test_logit_is_the_divergence_at_a_temperature(example: Any, temperature: float) -> None:
    student, teacher, batch = example
    own, target = (softmax(np.asarray(x.logits) / temperature) for x in (student, teacher))
    expected = temperature**2 * np.mean([kl(target[at], own[at]) for at in used_slots(batch)])
    assert get("logit", temperature=temperature)(student, teacher, batch, {}) == pytest.approx(expected, rel=1e-12)


def test_published_logit_is_smaller_by_the_vocabulary(example: Any) -> None:
    student, teacher, batch = example
    own, target = (softmax(np.asarray(x.logits)) for x in (student, teacher))
    crossed = [-(target[at] * np.log(own[at])).sum() for at in used_slots(batch)]
    expected = np.mean(crossed) / STUDENT.vocab_size
    assert get("logit", "bui2024")(student, teacher, batch, {}) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "variant"), [("mlm", "original"), ("logit", "original"), ("logit", "bui2024")])
def test_unused_slots_may_hold_anything(example: Any, name: str, variant: str) -> None:
    student, teacher, batch = example
    expected = get(name, variant)(student, teacher, batch, {})
    unused = (batch["label_weights"] == 0)[..., None]
    disturbed = Features(logits=jnp.where(unused, 1e4, student.logits))
    assert get(name, variant)(disturbed, teacher, batch, {}) == expected
    empty = {**batch, "label_weights": np.zeros_like(batch["label_weights"])}
    assert get(name, variant)(student, teacher, empty, {}) == 0


def test_slots_count_by_their_weight(example: Any) -> None:
    student, teacher, batch = example
    one, two = np.zeros_like(batch["label_weights"]), np.zeros_like(batch["label_weights"])
    one[1, 0], two[2, 1] = 1, 1
    alone = [float(get("mlm")(student, teacher, {**batch, "label_weights": w}, {})) for w in (one, two)]
    both = get("mlm")(student, teacher, {**batch, "label_weights": 0.1 * one + 0.3 * two}, {})
    assert both == pytest.approx(0.25 * alone[0] + 0.75 * alone[1], rel=1e-6)
