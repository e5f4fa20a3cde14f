"""A study whose seeds train side by side finds what one finds that trains them one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdjax.budget.accounting import Budget
from kdjax.config import Config, TrainConfig
from kdjax.study.study import Study
from tests import small_study
from tests.study.conftest import kdjax

pytestmark = pytest.mark.usefixtures("undrawn")

ARMS = ("scratch", "minilm")
SEEDS = (0, 1, 2)
EXACT = (
    "budget",
    "used",
    "spent",
    "steps",
    "phases",
    "positions",
    "tokens_seen",
    "tokens_unique",
    "tokens_masked",
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_study.write(
        tmp_path_factory.mktemp("recipe"),
        arms={arm: {} for arm in ARMS},
        seeds=list(SEEDS),
        budget={"flops": 2.0e7},
        evaluation={"mlm_sequences": 16, "tasks": {}},
    )


def compared(recipe: Path, out: Path, *words: str) -> dict[str, Any]:
    ended = kdjax("compare", recipe, "--out", out, *words)
    assert ended.status == 0, ended.err
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def test_they_find_the_same(recipe: Path, tmp_path: Path) -> None:
    alone = compared(recipe, tmp_path / "alone")
    out = tmp_path / "together"
    # Is there already then
    first = kdjax("train", recipe, "--out", out, "--arm", "scratch", "--seed", "1")
    assert first.status == 0, first.err
    found = compared(recipe, out, "--train.vmapped_seeds", "2")
    assert [(run["arm"], run["seed"]) for run in found["runs"]] == [
        (arm, seed) for seed in SEEDS for arm in ARMS
    ]
    for run, expected in zip(found["runs"], alone["runs"], strict=True):
        for name in EXACT:
            assert run[name] == expected[name], name
        assert run["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
        assert run["hardware"]["model_flops"] == expected["hardware"]["model_flops"]
    assert [run["hardware"]["side_by_side"] for run in found["runs"]] == [1, 2, 1, 2, 1, 1]
    assert any("Up to 2 seeds of an arm trained side by side" in note for note in found["notes"])
    assert kdjax("audit", out).status == 0
    again = compared(recipe, out, "--train.vmapped_seeds", "3")  # another setting, the same study
    assert again["runs"] == found["runs"]


@pytest.mark.parametrize(
    ("kind", "groups"), [("flops", [(0, 1), (2,)]), ("hours", [(0,), (1,), (2,)])]
)
def test_under_a_budget_of_hours_runs_go_one_by_one(
    kind: str, groups: Sequence[Sequence[int]]
) -> None:
    asked: list[Sequence[int]] = []

    def run_together(arm: str, seeds: Sequence[int]) -> list[int]:
        asked.append(seeds)
        return [10 * seed for seed in seeds]

    study: Any = SimpleNamespace(
        config=Config(train=TrainConfig(vmapped_seeds=2)),
        budget=Budget(kind, 10**9),
        run_together=run_together,
        _shared_teacher=lambda arm, seed: 0,
    )
    assert Study.run_all(study, [("scratch", seed) for seed in SEEDS]) == [0, 10, 20]
    assert asked == groups
