"""The lines of a run's `metrics.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdjax.training.records.step_metrics import MEASURED


def lines(run: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl."""
    return [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def same_each_time(run: Path) -> list[dict[str, Any]]:
    """Read the lines without what was measured: a run that was stopped and went on has the same."""
    return [without_measured(line) for line in lines(run)]


def without_measured(line: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a line that no clock and no memory changes."""
    return {name: figure for name, figure in line.items() if not name.startswith(MEASURED)}
