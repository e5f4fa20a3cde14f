"""The table of prices, and the lines below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdjax.budget.price import PARTS
from kdjax.dry_run.price_report import price_table
from kdjax.recipes import reading

OWN_TEXT = Path(__file__).parents[2] / "configs" / "own-text.yaml"
# Nothing is measured, so that all lines are of the table and the teacher.
UNMEASURED = ["--evaluation.mlm_probe.tokens", "0", "--evaluation.primary", "none"]


def phase(**reach: Any) -> dict[str, Any]:
    """Return an arm's phase whose step costs 1 FLOP in each part."""
    unknown = dict.fromkeys(("steps", "tokens", "epochs", "words"))
    return {**dict.fromkeys(PARTS, 1), "total": len(PARTS), "batch": 32, **unknown, **reach}


def printed(capsys: pytest.CaptureFixture[str], overrides: list[str], **reach: Any) -> str:
    """Return what is printed of a recipe with one arm."""
    price_table(reading.load(OWN_TEXT, [*UNMEASURED, *overrides]), {"scratch": [phase(**reach)]})
    return capsys.readouterr().out


def test_dashes_of_text_that_is_not_prepared_are_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "epochs and words are not known (-) before the text is prepared"
    assert line in printed(capsys, [], steps=10, tokens=100)
    assert line not in printed(capsys, [], steps=10, tokens=100, epochs=0.5, words=80)
    # Under a clock nothing of it follows from the text.
    assert line not in printed(capsys, [])


def test_cost_of_a_teacher_that_is_trained_here_is_told_in_whole_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = printed(capsys, [], steps=10, tokens=100)
    (line,) = [line for line in out.splitlines() if line.startswith("teacher: ")]
    assert "1 model trained here before the runs, each with 6e+12 FLOPs: 5.99" in line
    assert line.endswith(" FLOPs in whole steps")
    early = printed(
        capsys, ["--teacher.train.checkpoints", "[0.5, 1]", "--teacher.at", "0.5"], steps=10
    )
    assert "each with 6e+12 FLOPs, and taken when it has spent 50% of them: 2.99" in early
