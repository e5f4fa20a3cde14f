"""Studies under budgets of tokens and hours, under each way to pay for the teacher, and under each
regime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdjax.budget.accounting import CASES, charged_flops
from tests.study.conftest import Ended, kdjax
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

BARE = {
    "arms": {"scratch": {}, "logit": {}},
    "seeds": [0],
    "evaluation": {"mlm_sequences": 16, "protocols": ["probe"]},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_study.write(tmp_path_factory.mktemp("budgets"), **BARE)


def compared(recipe: Path, out: Path, *changes: object) -> dict[str, Any]:
    ended = kdjax("compare", recipe, "--out", out, *map(str, changes))
    assert ended.status == 0, ended.err
    return json.loads((out / "results.json").read_text())


def runs(results: Mapping[str, Any]) -> dict[str, Any]:
    return {run["arm"]: run for run in results["runs"]}


def refused(ended: Ended, *words: str) -> None:
    assert ended.status == 2
    assert all(word in ended.complaint for word in words), ended.err


def test_token_budget_gives_every_arm_the_same_steps(recipe: Path, tmp_path: Path) -> None:
    results = compared(
        recipe, tmp_path / "out", "--budget.flops", 0, "--budget.tokens", 8 * 16 * 5 + 100
    )
    rows = runs(results)
    assert {run["steps"] for run in rows.values()} == {5}
    assert {run["used"] for run in rows.values()} == {5 * 8 * 16}
    # FLOPs are counted all the same.
    assert rows["logit"]["spent"]["charged"] > 1.5 * rows["scratch"]["spent"]["charged"]
    assert not any(case["enforced"] for case in results["cases"])
    assert "With 740 tokens" in (tmp_path / "out" / "report.html").read_text()
    audited = kdjax("audit", tmp_path / "out")
    assert audited.status == 0, audited.out + audited.err


@pytest.mark.exhaustive
def test_hours_budget_counts_compute_and_input_seconds(recipe: Path, tmp_path: Path) -> None:
    seconds = 2.0
    results = compared(
        recipe,
        tmp_path / "out",
        "--budget.flops",
        0,
        "--budget.hours",
        seconds / 3600,
        "--train.log.every",
        1,
    )
    for arm, run in runs(results).items():
        counted = run["wall_clock"]["compute"] + run["wall_clock"]["input"]
        assert run["used"] * 3600 == pytest.approx(counted)
        # How many steps two seconds have is the machine's business.
        assert run["steps"] >= 1
        lines = (
            (tmp_path / "out" / "runs" / f"{arm}-seed0" / "metrics.jsonl").read_text().splitlines()
        )
        assert len([line for line in lines if '"loss"' in line]) == run["steps"]
        # The curve goes by the clock.
        share = run["used"] * 3600 / seconds
        # The clock runs on a little
        assert run["curve"][-1]["share"] == pytest.approx(share, rel=1e-3)
    audited = kdjax("audit", tmp_path / "out")
    assert audited.status == 0, audited.out + audited.err


@pytest.mark.parametrize(
    "case",
    [
        case if case in ("nothing", "both") else pytest.param(case, marks=pytest.mark.exhaustive)
        for case in CASES
    ],
)
def test_each_teacher_accounting_charges_its_parts(recipe: Path, tmp_path: Path, case: str) -> None:
    changes = ("--budget.teacher", case, "--teacher.training_flops", "4e7", "--budget.students", 2)
    results = compared(recipe, tmp_path / "out", *changes)
    scratch = runs(results)["scratch"]
    logit = runs(results)["logit"]
    steps = {arm: results["arms"][arm]["phases"][0]["price"] for arm in results["arms"]}
    assert scratch["spent"]["teacher_training"] == 0
    assert logit["spent"]["teacher_training"] == -(
        -(40_000_000 + results["teacher"]["head_flops"]) // 2
    )
    for run in (scratch, logit):
        # What the case charges stays within the budget by less than a step.
        unspent = small_study.BUDGET - charged_flops(run["spent"], case)
        assert run["spent"]["charged"] == charged_flops(run["spent"], case)
        assert 0 <= unspent < charged_flops(steps[run["arm"]], case)


def test_charging_unknown_teacher_training_is_refused(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = kdjax("compare", recipe, "--out", out, "--budget.teacher", "both")
    refused(ended, "budget.teacher is 'both'", "expected teacher.training_flops")
    assert not out.exists()


def test_unlimited_regime_with_too_large_budget_is_refused_with_missing_tokens(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = kdjax(
        "compare", recipe, "--out", out, "--data.regime", "unlimited", "--budget.flops", "5e8"
    )
    refused(ended, "expected no repeats under data.regime 'unlimited'", "tokens are missing")
    assert not out.exists()
    # With a budget that fits, the same directory will do.
    compared(recipe, out, "--data.regime", "unlimited", "--budget.flops", "1e7")


def test_limited_regime_repeats_the_subset_and_counts_unique_tokens(
    recipe: Path, tmp_path: Path
) -> None:
    limited = ("--data.regime", "limited", "--data.unique_tokens", 400)
    results = compared(recipe, tmp_path / "out", *limited)
    assert results["corpus"]["regime"] == "limited"
    assert results["corpus"]["tokens"]["train"] <= 400
    assert results["corpus"]["whole"]["tokens"]["train"] > 1000
    for run in results["runs"]:
        assert run["epochs"] > 1
        assert run["tokens_unique"] == results["corpus"]["tokens"]["train"] < run["tokens_seen"]
    # More unique text than there is.
    too_much = kdjax("compare", recipe, "--out", tmp_path / "no", *limited[:3], "1e9")
    refused(too_much, "expected at least data.unique_tokens", "are missing")
