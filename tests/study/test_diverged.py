"""A study of which an arm diverges: that is a result, and the other arms have theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import Ended, kdjax
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Return a study whose arm `wild` diverges under every seed, and how its command ended."""
    here = tmp_path_factory.mktemp("study")
    # The parameters of its first update are so large that no loss is finite after it.
    wild = {"preset": "scratch", "optimizer": {"learning_rate": 1e30, "warmup": 0.0}}
    recipe = small_study.write(
        here,
        arms={"scratch": {}, "wild": wild, "again": {"preset": "scratch"}},
        seeds=list(SEEDS),
        budget={"flops": 1.0e7},
        evaluation={"mlm_sequences": 16, "tasks": {}, "primary": "mlm_loss"},
    )
    return here / "out", kdjax("compare", recipe, "--out", here / "out")


def results_of(out: Path) -> dict[str, Any]:
    """Read a study's results."""
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def test_diverged_arm_is_a_result_and_others_run(study: tuple[Path, Ended]) -> None:
    out, ended = study
    assert ended.status == 0, ended.err
    for row in results_of(out)["runs"]:
        if row["arm"] == "wild":
            assert row["diverged"]["step"] == row["steps"] == 2
            assert "the loss is nan at step 2" in row["diverged"]["reason"]
            assert row["metrics"] == {}
            assert row["params_sha256"] is None
        else:
            assert "diverged" not in row
            assert row["metrics"]["mlm_loss"] > 0


def test_diverged_arm_is_named_last_with_its_step(study: tuple[Path, Ended]) -> None:
    _, ended = study
    *_, report, last = ended.out.splitlines()
    assert last == (
        "wild diverged: seed 0 at step 2 and seed 1 at step 2 (2 of 2). It is compared with no "
        "other arm."
    )
    assert report.startswith("report: ")


def test_diverged_arm_is_compared_with_none_and_counts_in_holm(study: tuple[Path, Ended]) -> None:
    results = results_of(study[0])
    for verdict in results["verdicts"]:
        if "wild" in (verdict["a"], verdict["b"]):
            assert verdict["verdict"] == "INCONCLUSIVE"
            assert verdict["n"] == 0
    # The baseline arm has not diverged: each of the other two is a test.
    assert results["baseline_arm"] == "scratch"
    tests = [row for row in results["verdicts"] if row.get("family") == "confirmatory"]
    assert [{row["a"], row["b"]} for row in tests] == [{"scratch", "wild"}, {"scratch", "again"}]


def test_report_shows_what_diverged(study: tuple[Path, Ended]) -> None:
    page = (study[0] / "report.html").read_text()
    assert "wild diverged: seed 0 at step 2" in page


def test_audit_of_study_with_diverged_arm_finds_nothing(study: tuple[Path, Ended]) -> None:
    ended = kdjax("audit", study[0])
    assert ended.status == 0, ended.out + ended.err


def test_same_command_finds_diverged_runs_finished(study: tuple[Path, Ended]) -> None:
    out, _ = study
    before = results_of(out)
    again = kdjax("compare", out.parent / "recipe.yaml", "--out", out)
    assert again.status == 0, again.err
    assert results_of(out)["runs"] == before["runs"]
