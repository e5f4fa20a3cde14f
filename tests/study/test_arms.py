"""A study of arms that differ in more than terms: stored outputs, phases, a head start, the
published scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from kdjax.budget.accounting import ACCOUNTS
from kdjax.dry_run import named_arms
from tests.study.conftest import kdjax
from tests.support import small_study
from tests.support.small_study import FinishedStudy

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

ARMS: dict[str, Any] = {
    "logit": {},
    "stored": {"preset": "logit", "teacher": "cached"},
    "two_stage": {},
    "head_start": {"preset": "tinybert", "start": {"source": "teacher", "layers": "spread"}},
    "as_run": {"preset": "paper_as_run_scratch"},
}
CACHE = {"logits": "all", "dtype": "float32", "batch_size": 8, "shared_by": 10}


@pytest.fixture(
    scope="module", params=["shallow", pytest.param("deeper", marks=pytest.mark.exhaustive)]
)
def study(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FinishedStudy:
    """A study with models of 1 and 2 layers, or of 2 and 4."""
    here = tmp_path_factory.mktemp("arms")
    settings = small_study.settings(here)
    changes = {
        **(small_study.deeper(here / "deeper") if request.param == "deeper" else {}),
        "data": {**settings["data"], "mask_copies": 2},
        "arms": ARMS,
        "cache": CACHE,
        "seeds": [0],
        "budget": {"flops": (2 if request.param == "deeper" else 1) * small_study.BUDGET},
        "evaluation": {"mlm_sequences": 16},
    }
    recipe = small_study.write(here, **changes)
    ended = kdjax("compare", recipe, "--out", here / "out")
    assert ended.status == 0, ended.err
    return FinishedStudy.read(recipe, here / "out")


def test_each_arm_spends_the_budget_within_one_step(study: FinishedStudy) -> None:
    for arm, described in study.results["arms"].items():
        run = study.run(arm)
        last = described["phases"][-1]["price"]["total"]
        spent = run["spent"]
        assert spent["total"] == sum(
            flops for account, flops in spent.items() if account in ACCOUNTS
        )
        assert spent["charged"] == spent["total"] - spent["teacher_training"]
        assert run["budget"]["amount"] - last < spent["charged"] <= run["budget"]["amount"]
        # But for stored outputs, all was spent in steps.
        assert spent["charged"] - spent["teacher_cache"] == sum(
            phase["flops"] for phase in run["phases"]
        )
        assert [phase["steps"] for phase in run["phases"]] == [
            phase["steps"] for phase in described["phases"]
        ]


def test_head_fit_is_booked_to_arms_with_logits_and_not_charged(
    study: FinishedStudy,
) -> None:
    fitted = study.results["teacher"]["head_flops"]
    owed = {arm: study.run(arm)["spent"]["teacher_training"] for arm in study.results["arms"]}
    assert fitted > 0
    assert owed["logit"] == owed["stored"] == fitted
    assert owed["two_stage"] == 0


def test_cached_arm_pays_its_share_and_no_teacher_forward(study: FinishedStudy) -> None:
    cache = study.results["cache"]
    online = study.run("logit")["spent"]
    stored = study.run("stored")["spent"]
    assert stored["teacher_cache"] == -(-cache["flops"] // 10) > 0 == online["teacher_cache"]
    # Only the loss on stored logits is left of the teacher's pass.
    assert stored["teacher_forward"] < 0.01 * online["teacher_forward"]
    assert cache["bias"] == {}
    assert cache["views"] == 2
    assert (
        study.run("stored")["cache_bytes"]
        == cache["bytes"]
        > 0
        == study.run("logit")["cache_bytes"]
    )


def test_cached_whole_logits_give_the_online_losses(study: FinishedStudy) -> None:
    online = study.lines("logit")
    stored = study.lines("stored")
    assert stored[0]["loss/logit"] == pytest.approx(online[0]["loss/logit"], rel=1e-5)
    assert stored[0]["loss/mlm"] == pytest.approx(online[0]["loss/mlm"], rel=1e-6)


def test_two_stage_runs_the_teacher_in_its_second_phase_only(study: FinishedStudy) -> None:
    first, second = study.results["arms"]["two_stage"]["phases"]
    assert first["price"]["teacher_forward"] == 0 < second["price"]["teacher_forward"]
    # The first phase ends at half the budget.
    half = study.results["budget"]["amount"] // 2
    assert half - first["price"]["total"] < first["steps"] * first["price"]["total"] <= half
    terms = []
    for line in study.lines("two_stage"):
        if "loss" in line:
            losses = {name for name in line if name.startswith("loss/")}
            terms.append({name.removeprefix("loss/") for name in losses})
    assert (
        terms == [{"mlm"}] * first["steps"] + [{"attention_kl", "value_relation"}] * second["steps"]
    )


def test_exported_params_hold_no_projections(study: FinishedStudy) -> None:
    exported = load_file(study.out / "runs" / "head_start-seed0" / "params.safetensors")
    like = load_file(study.out / "runs" / "logit-seed0" / "params.safetensors")
    assert {name: x.shape for name, x in exported.items()} == {
        name: x.shape for name, x in like.items()
    }


def test_references_hold_each_start_and_the_teacher(study: FinishedStudy) -> None:
    names = [reference["name"] for reference in study.results["references"]]
    assert names == [
        "untrained start",
        "untrained start (head_start)",
        "untrained start (as_run)",
        "teacher",
    ]


def test_report_lists_the_differences_between_arms(study: FinishedStudy) -> None:
    page = (study.out / "report.html").read_text(encoding="utf-8")
    rows = {row["setting"]: row["values"] for row in study.results["differences"]}
    assert rows["start"]["head_start"] == "teacher layers: spread"
    assert rows["start"]["logit"] == "random"
    assert rows["student"]["as_run"] == "norm pre, embedding_norm False"
    assert "learning_rate 0.001" in rows["optimiser"]["as_run"]
    assert rows["teacher's outputs"]["stored"] == "stored"
    assert rows["objective"]["two_stage"] == "1 mlm; then 1 attention_kl + 1 value_relation"
    # What is an arm's own is said, and not called the same for all.
    notes = " ".join(study.results["notes"])
    assert "as_run has its own student, optimizer, finetune" in notes
    assert "head_start has its own start" in notes
    assert "stored once" in notes
    assert "stored once" in page
    assert "teacher cache" in page
    assert not any("start" in same or "optimiser" in same for same in study.results["same"])


def test_price_with_cached_arm_says_when_the_cache_pays_off(study: FinishedStudy) -> None:
    words = (
        "price",
        study.recipe,
        "--json",
        "--arms",
        "{stored: {preset: logit, teacher: cached}}",
    )
    unknown = json.loads(kdjax(*words).out)["stored"][0]
    known = json.loads(kdjax(*words, "--data.prepared", study.out / "data").out)["stored"][0]
    assert unknown["steps"] is None
    assert unknown["cache"]["flops"] is None
    assert known["steps"] == study.run("stored")["steps"]
    assert known["cache"]["flops"] == study.results["cache"]["flops"]
    # 2 views of a sequence, shared by 10 runs, against one pass of the teacher in every epoch
    assert known["cache"]["pays_off_after_epochs"] == pytest.approx(0.2, rel=0.01)
    assert unknown["cache"]["pays_off_after_epochs"] == known["cache"]["pays_off_after_epochs"]


def test_run_from_cache_made_before_ends_with_the_same_params(
    study: FinishedStudy, tmp_path: Path
) -> None:
    stored = kdjax("cache", study.recipe, "--out", tmp_path / "cache")
    assert stored.status == 0, stored.err
    assert f"{study.results['cache']['flops']:.4g} FLOPs" in stored.err
    ended = kdjax(
        *("train", study.recipe, "--out", tmp_path / "out", "--arm", "stored", "--seed", "0"),
        *("--cache.source", tmp_path / "cache"),
    )
    assert ended.status == 0, ended.err
    row = json.loads((tmp_path / "out" / "runs" / "stored-seed0" / "result.json").read_text())
    assert row["params_sha256"] == study.run("stored")["params_sha256"]
    assert not (tmp_path / "out" / "cache").exists()


def test_arms_command_lists_requests_and_relative_prices(
    study: FinishedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {
        name: named_arms.PRESETS[name] for name in ("scratch", "logit", "paper_as_run_tinybert")
    }
    monkeypatch.setattr(named_arms, "PRESETS", some)
    ended = kdjax("arms", study.recipe, "--json")
    rows = json.loads(ended.out)
    assert list(rows) == list(some)
    assert rows["scratch"]["relative"] == 1.0 < rows["logit"]["relative"]
    assert "expected equal numbers" in rows["paper_as_run_tinybert"]["refused"]
    assert all(row["does"] and row["asks"] and row["source"] for row in rows.values())
