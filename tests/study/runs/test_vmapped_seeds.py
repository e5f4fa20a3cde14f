"""A study whose seeds train together has the results of one that trains them one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.progress import Reporter
from kdjax.study.runs.runner import StudyRunner
from kdjax.study.study import Study
from tests.study.conftest import kdjax
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn")]

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


@pytest.mark.exhaustive
def test_vmapped_seeds_end_with_the_results_of_seeds_one_by_one(
    recipe: Path, tmp_path: Path
) -> None:
    alone = compared(recipe, tmp_path / "alone")
    out = tmp_path / "together"
    # This one is there already when the others train.
    first = kdjax("train", recipe, "--out", out, "--arm", "scratch", "--seed", "1")
    assert first.status == 0, first.err
    vmapped = compared(recipe, out, "--train.vmapped_seeds", "2")
    runs = [(run["seed"], run["arm"]) for run in vmapped["runs"]]
    assert runs == list(product(SEEDS, ARMS))
    # Accounts are equal to the token, figures within rounding.
    for run, expected in zip(vmapped["runs"], alone["runs"], strict=True):
        for name in EXACT:
            assert run[name] == expected[name], name
        assert run["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
        assert run["hardware"]["model_flops"] == expected["hardware"]["model_flops"]
    assert [run["hardware"]["side_by_side"] for run in vmapped["runs"]] == [1, 2, 1, 2, 1, 1]
    assert any("Up to 2 seeds of an arm trained side by side" in note for note in vmapped["notes"])
    assert kdjax("audit", out).status == 0
    # The setting is none of the study's identity.
    again = compared(recipe, out, "--train.vmapped_seeds", "3")  # another setting, the same study
    assert again["runs"] == vmapped["runs"]


class Groups(StudyRunner):
    """A runner that trains nothing and notes which seeds it was to train together."""

    def run_group(self, arm: str, seeds: Sequence[int]) -> list[Any]:
        return [{"seed": seed, "group": tuple(seeds)} for seed in seeds]


@pytest.mark.parametrize(
    ("budget", "groups"),
    [(["flops", "2e7"], [(0, 1), (0, 1), (2,)]), (["hours", "1"], [(0,), (1,), (2,)])],
)
def test_budget_of_hours_trains_seeds_one_by_one(
    recipe: Path, tmp_path: Path, budget: Sequence[str], groups: Sequence[tuple[int, ...]]
) -> None:
    kind, amount = budget
    words = ["--train.vmapped_seeds", "2", "--budget.flops", "0", f"--budget.{kind}", amount]
    with Reporter() as reporter:
        study = Study(recipes.load(recipe, words), tmp_path / "out", reporter)
        rows = Groups(study).run_all([("scratch", seed) for seed in SEEDS])
    assert [row["seed"] for row in rows] == list(SEEDS)
    assert [row["group"] for row in rows] == groups
