"""The PyTorch that the speed benchmark compares with computes what kdjax computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import pytest

from benchmarks import sameness
from benchmarks.cases import ARMS, Case, Pair, start
from kdjax.config import ModelConfig
from tests import tiny

PAIR = Pair(replace(tiny.STUDENT, types=2), replace(tiny.TEACHER, dropout=0.0, attention_dropout=0.0))


ROTARY = Pair(
    *(
        replace(model, positions="rotary", rotary_base=100.0, norm="pre", embedding_norm=False)
        for model in (PAIR.student, PAIR.teacher)
    )
)
"""What the demo's models have: pre-LN and rotary positions."""


def sharp(config: ModelConfig, seed: int) -> Any:
    """Parameters whose attention and logits are far from even, as narrow models' at their start are not."""
    return jax.tree.map(lambda x: 8 * x if x.ndim > 1 else x, start(config, seed))


@pytest.mark.parametrize("pair", [PAIR, ROTARY], ids=["post-LN, learned", "pre-LN, rotary"])
@pytest.mark.parametrize("arm", ARMS)
def test_loss_and_every_gradient(arm: str, pair: Pair) -> None:
    """With packing, padding and unused slots in the batch."""
    case = Case(arm, pair, tiny.SHAPE)
    objective = case.phase.init_objective(2)
    found = sameness.differences(case, sharp(pair.student, 0), sharp(pair.teacher, 1), objective, tiny.batch(3))
    assert max(found.values()) < sameness.TOLERANCE
    assert len(found) >= 19  # the loss, and every parameter that the arm trains


def test_a_difference_is_seen() -> None:
    """PyTorch learns from another teacher than kdjax."""
    case, student = Case("logit", PAIR, tiny.SHAPE), sharp(PAIR.student, 0)
    one, another = sharp(PAIR.teacher, 1), sharp(PAIR.teacher, 2)
    found = sameness.differences(case, student, one, {}, tiny.batch(3), other_teacher=another)
    assert min(found.values()) > 10 * sameness.TOLERANCE
