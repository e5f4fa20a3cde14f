"""The start-up benchmark times every stage of a process that really starts."""

from __future__ import annotations

import pytest

from benchmarks import startup

pytestmark = pytest.mark.system


@pytest.mark.exhaustive
def test_every_stage_is_timed() -> None:
    """Processes start, price, compile and step; the second finds what the first compiled."""
    rows = [row.strip("| ").split(" | ") for row in startup.rows("tiny", "scratch", rounds=1)]
    assert [row[:2] for row in rows] == [["tiny scratch", "empty"], ["tiny scratch", "filled"]]
    for row in rows:
        seconds = [float(cell) for cell in row[2:]]
        stages = seconds[:-1]
        total = seconds[-1]
        assert len(stages) == len(startup.STAGES)
        assert min(stages) > 0
        assert total == pytest.approx(sum(stages), abs=0.05)
