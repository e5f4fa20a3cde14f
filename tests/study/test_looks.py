"""Earlier looks at a study's results, with fewer seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdjax.study.compare import earlier_looks


@pytest.mark.parametrize(
    ("content", "seeds", "looks"),
    [
        ({"config": {"seeds": [0, 1]}}, 5, [2]),
        ({"config": {"seeds": [0, 1, 2]}, "looks": [2]}, 5, [2, 3]),
        # The same seeds again are no further look, and neither are more of them than now.
        ({"config": {"seeds": [0, 1, 2]}, "looks": [2]}, 3, [2]),
        ({"config": {"seeds": [0, 1, 2, 3]}}, 2, []),
        # A file that is damaged is written anew.
        ({"config": {"seeds": "0, 1"}}, 5, []),
        ([], 5, []),
    ],
)
def test_results_with_fewer_seeds_were_a_look(
    content: Any, seeds: int, looks: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    assert earlier_looks(path, seeds) == looks


def test_study_without_results_was_not_looked_at(tmp_path: Path) -> None:
    assert earlier_looks(tmp_path / "results.json", 5) == []
