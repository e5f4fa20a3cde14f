"""Who is charged for what a teacher cost: the same in a study's runs, in prices and in an audit."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.arms.teacher_cost import TeacherCost, cost_by_recipe
from kdjax.audit.audit import audit
from kdjax.dry_run.recipe_prices import prices
from kdjax.training.arm import Arm
from tests.study.conftest import kdjax
from tests.support import small_study, tiny

TRAINING = 4.0e6
HEAD = {"budget": 1.0e7, "batch_size": 8}
CHANGES: dict[str, Any] = {
    "arms": {"logit": {}, "minilm": {}},
    "seeds": [0],
    "budget": {"flops": 3.0e7, "teacher": "training"},
    "evaluation": {"mlm_sequences": 16, "tasks": {}},
}


@dataclass(frozen=True)
class FinishedStudy:
    """A study whose teacher was fitted for it, and the content of its results.json.

    Attributes:
        encoder: `teacher.head.encoder`.
        fitting: FLOPs that fitting the teacher took.
    """

    recipe: Path
    out: Path
    results: dict[str, Any]
    encoder: str
    fitting: float


def recipe(directory: Path, encoder: str) -> Path:
    """Write a recipe whose teacher gets its head here; return its file."""
    directory.mkdir(parents=True, exist_ok=True)
    teacher = {
        "source": str(small_study.make_teacher(directory / "encoder")),
        "architecture": small_study.TEACHER,
        "head": {**HEAD, "encoder": encoder},
        "training_flops": TRAINING,
    }
    return small_study.write(directory, teacher=teacher, **CHANGES)


@pytest.fixture(
    scope="module", params=["tuned", pytest.param("frozen", marks=pytest.mark.exhaustive)]
)
def study(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    undrawn: None,
    one_device: None,
) -> FinishedStudy:
    """Compare two arms whose teacher is fitted first."""
    directory = tmp_path_factory.mktemp("study")
    path = recipe(directory / "recipe", request.param)
    out = directory / "out"
    ended = kdjax("compare", path, "--out", out)
    assert ended.status == 0, ended.err
    results = json.loads((out / "results.json").read_text())
    account = "tuning_flops" if request.param == "tuned" else "head_flops"
    return FinishedStudy(path, out, results, request.param, results["teacher"][account])


@pytest.mark.system
def test_tuned_encoder_is_charged_to_all_arms_and_a_head_to_arms_that_use_it(
    study: FinishedStudy,
) -> None:
    teacher = study.results["teacher"]
    assert 0 < study.fitting <= HEAD["budget"]
    assert teacher["tuning_flops"] + teacher["head_flops"] == study.fitting
    owed = {run["arm"]: run["spent"]["teacher_training"] for run in study.results["runs"]}
    assert owed == {
        "logit": TRAINING + study.fitting,
        "minilm": TRAINING + (study.fitting if study.encoder == "tuned" else 0),
    }


@pytest.mark.system
def test_prices_from_the_recipe_alone_are_those_of_the_runs(study: FinishedStudy) -> None:
    config = recipes.load(study.recipe)
    cost = cost_by_recipe(config)
    assert cost.tuning + cost.head == study.fitting
    by_arm = prices(config)
    for run in study.results["runs"]:
        assert [row["steps"] for row in by_arm[run["arm"]]] == [run["steps"]]


@pytest.mark.system
def test_audit_agrees_and_finds_an_arm_that_was_let_off(
    study: FinishedStudy, tmp_path: Path
) -> None:
    assert audit(study.out) == []
    copy = tmp_path / "copy"
    shutil.copytree(study.out, copy)
    manifest = json.loads((copy / "study.json").read_text())
    manifest["costs"]["minilm"]["upfront"]["teacher_training"] -= 1
    (copy / "study.json").write_text(json.dumps(manifest))
    assert any(
        "study.json: costs.minilm.upfront.teacher_training" in str(finding)
        for finding in audit(copy)
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"training_flops": 7, "head_flops": 3, "encoder": "frozen"}, TeacherCost(7, 0, 3)),
        # A card of an earlier version, and one of this.
        ({"training_flops": 7, "head_flops": 3, "encoder": "tuned"}, TeacherCost(7, 3, 0)),
        (
            {"training_flops": 7, "head_flops": 1, "tuning_flops": 3, "encoder": "tuned"},
            TeacherCost(7, 3, 1),
        ),
        ({}, TeacherCost()),
    ],
)
def test_cost_is_read_from_cards_of_all_versions(
    facts: dict[str, Any], expected: TeacherCost
) -> None:
    assert TeacherCost.from_facts(facts) == expected


def test_head_is_charged_only_to_arms_with_logits() -> None:
    cost = TeacherCost(training=100, tuning=20, head=3)
    arms: dict[str, Arm] = {name: tiny.arm(name) for name in ("logit", "minilm", "tinybert")}
    assert {name: cost.charged_to(arm) for name, arm in arms.items()} == {
        "logit": 123,
        "minilm": 120,
        "tinybert": 120,
    }
