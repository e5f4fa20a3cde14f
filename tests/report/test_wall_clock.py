"""A study's wall-clock, over its commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdjax.report import wall_clock
from kdjax.runtime.clock import CLOCK
from kdjax.storage.files import write_json


def test_seconds_add_up_over_interrupted_commands(tmp_path: Path) -> None:
    assert wall_clock.read(tmp_path) == {}
    with (
        pytest.raises(KeyboardInterrupt),
        wall_clock.record(tmp_path, CLOCK.mark()),
        CLOCK.measure("compute"),
    ):
        raise KeyboardInterrupt
    first = wall_clock.read(tmp_path)
    assert first["compute"] > 0
    with wall_clock.record(tmp_path, CLOCK.mark()), CLOCK.measure("evaluation"):
        pass
    second = wall_clock.read(tmp_path)
    assert second["compute"] == first["compute"]
    assert second["evaluation"] > 0


def test_interruption_is_not_hidden_by_write_error(tmp_path: Path) -> None:
    write_json(tmp_path / "a file", {})
    with pytest.raises(KeyboardInterrupt), wall_clock.record(tmp_path / "a file", CLOCK.mark()):
        raise KeyboardInterrupt


def test_line_has_shares_largest_first() -> None:
    line = wall_clock.text({"report": 2.0, "compute": 90.0, "text": 8.0})
    assert line == "1 min 40 s: compute 1 min 30 s (90.0%), text 8.0 s (8.0%), report 2.0 s (2.0%)"
