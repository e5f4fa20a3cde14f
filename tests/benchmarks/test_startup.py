"""The start-up benchmark times every stage of a process that really starts."""

from __future__ import annotations

import pytest

from benchmarks import startup


@pytest.mark.exhaustive
def test_every_stage_is_timed() -> None:
    """Processes start, price, compile and step; the second finds what the first compiled."""
    empty, filled = (
        row.strip("| ").split(" | ") for row in startup.rows("tiny", "scratch", rounds=1)
    )
    assert empty[:2] == ["tiny scratch", "empty"] and filled[:2] == ["tiny scratch", "filled"]
    for row in (empty, filled):
        *stages, total = map(float, row[2:])
        assert len(stages) == len(startup.STAGES) and min(stages) > 0
        assert total == pytest.approx(sum(stages), abs=0.05)
