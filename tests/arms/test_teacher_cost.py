"""Who is charged for what a teacher cost: the same in a study's runs, in prices and in an audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.arms.teacher_cost import TeacherCost, cost_by_recipe
from kdjax.audit.audit import audit
from kdjax.dry_run.recipe_prices import prices
from kdjax.training.arm import Arm
from tests import small_study, tiny
from tests.study.conftest import kdjax

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

TRAINING = 4.0e6
HEAD = {"budget": 1.0e7, "batch_size": 8}
CHANGES: dict[str, Any] = {
    "arms": {"logit": {}, "minilm": {}},
    "seeds": [0],
    "budget": {"flops": 3.0e7, "teacher": "training"},
    "evaluation": {"mlm_sequences": 16, "tasks": {}},
}


def recipe(directory: Path, encoder: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    teacher = {
        "source": str(small_study.make_teacher(directory / "encoder")),
        "architecture": small_study.TEACHER,
        "head": {**HEAD, "encoder": encoder},
        "training_flops": TRAINING,
    }
    return small_study.write(directory, teacher=teacher, **CHANGES)


@pytest.mark.parametrize("encoder", ["tuned", pytest.param("frozen", marks=pytest.mark.exhaustive)])
def test_tuned_encoder_is_charged_to_all_arms_and_a_head_to_arms_that_use_it(
    encoder: str, tmp_path: Path
) -> None:
    path = recipe(tmp_path / "recipe", encoder)
    out = tmp_path / "out"
    ended = kdjax("compare", path, "--out", out)
    assert ended.status == 0, ended.err
    results = json.loads((out / "results.json").read_text())
    teacher = results["teacher"]
    spent = teacher["tuning_flops"] if encoder == "tuned" else teacher["head_flops"]
    assert 0 < spent <= HEAD["budget"]
    assert teacher["tuning_flops"] + teacher["head_flops"] == spent

    # The study's runs.
    owed = {run["arm"]: run["spent"]["teacher_training"] for run in results["runs"]}
    assert owed == {
        "logit": TRAINING + spent,
        "minilm": TRAINING + (spent if encoder == "tuned" else 0),
    }

    # Prices, from the recipe alone.
    config = recipes.load(path)
    assert cost_by_recipe(config).tuning + cost_by_recipe(config).head == spent
    known = prices(config)
    for run in results["runs"]:
        assert [row["steps"] for row in known[run["arm"]]] == [run["steps"]]

    # The audit: it agrees, and finds an arm that was let off.
    assert audit(out) == []
    manifest = json.loads((out / "study.json").read_text())
    manifest["costs"]["minilm"]["upfront"]["teacher_training"] -= 1
    (out / "study.json").write_text(json.dumps(manifest))
    assert any(
        "study.json: costs.minilm.upfront.teacher_training" in str(finding)
        for finding in audit(out)
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
    assert TeacherCost.of_facts(facts) == expected


def test_head_is_charged_only_to_arms_with_logits() -> None:
    cost = TeacherCost(training=100, tuning=20, head=3)
    arms: dict[str, Arm] = {name: tiny.arm(name) for name in ("logit", "minilm", "tinybert")}
    assert {name: cost.charged_to(arm) for name, arm in arms.items()} == {
        "logit": 123,
        "minilm": 120,
        "tinybert": 120,
    }
