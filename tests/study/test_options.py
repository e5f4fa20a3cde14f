"""A study whose arms use what is off by default: Muon, other schedules, a masking rate over the
budget, a student pruned out of its teacher; and the audit of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from kdjax.budget.accounting import EVERY_LEDGER
from kdjax.config import ModelConfig
from kdjax.training.starts.importance import calibration_flops
from tests.study.conftest import kdjax
from tests.support import small_study
from tests.support.small_study import FinishedStudy

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

SEQUENCES = 30
ARMS: dict[str, Any] = {
    "scratch": {"optimizer": {"name": "muon", "schedule": "wsd", "decay": 0.5}},
    "pruned": {
        "preset": "logit",
        "student": {"width": 12, "heads": 1},
        "start": {
            "source": "teacher",
            "layers": "lower",
            "cut": "prune",
            "calibration_sequences": SEQUENCES,
        },
        "optimizer": {"schedule": "cosine", "min_lr_ratio": 0.1, "weight_decay": 0.2},
    },
}


def steps(study: FinishedStudy, arm: str) -> list[dict[str, float]]:
    """Return the lines that are of steps."""
    return [line for line in study.lines(arm) if "learning_rate" in line]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    here = tmp_path_factory.mktemp("options")
    settings = small_study.settings(here)
    data = {**settings["data"], "max_predictions": 6, "mlm_probability_start": 0.4}
    recipe = small_study.write(
        here,
        **small_study.shallow(here / "shallow", head=True),
        data=data,
        arms=ARMS,
        seeds=[0],
        evaluation={"mlm_sequences": 16},
    )
    ended = kdjax("compare", recipe, "--out", here / "out")
    assert ended.status == 0, ended.err
    return FinishedStudy.read(recipe, here / "out")


def test_calibration_is_priced_before_and_booked_to_the_pruned_arm(study: FinishedStudy) -> None:
    teacher = ModelConfig(**small_study.TEACHER)
    flops = calibration_flops(teacher, 1, SEQUENCES, 16)
    spent = study.run("pruned")["spent"]
    assert spent["calibration"] == flops > 0
    assert spent["charged"] == sum(spent[name] for name in EVERY_LEDGER) + flops
    # The arm pays out of the same budget, and ends less than a step before its end.
    step = study.results["arms"]["pruned"]["phases"][-1]["price"]["total"]
    assert small_study.BUDGET - step < spent["charged"] <= small_study.BUDGET
    assert set(study.run("scratch")["spent"]) == {*EVERY_LEDGER, "total", "charged"}
    # `price` says it before anything is spent.
    priced = kdjax("price", study.recipe, "--json")
    (row,) = json.loads(priced.out)["pruned"]
    assert row["calibration"] == {"flops": flops, "sequences": SEQUENCES}
    assert row["steps"] == study.run("pruned")["steps"]
    text = kdjax("price", study.recipe).out
    assert f"pruned: calibration on {SEQUENCES} sequences takes {flops:.4g} FLOPs" in text


def test_pruned_student_begins_as_its_teachers_parts(study: FinishedStudy) -> None:
    arms = study.results["arms"]
    assert arms["pruned"]["start"]["cut"] == "prune"
    (row,) = (row for row in study.results["differences"] if row["setting"] == "start")
    assert row["values"]["pruned"] == "teacher layers: lower, pruned by use on 30 sequences"


def test_masking_rate_falls_over_the_budget_and_records_show_it(study: FinishedStudy) -> None:
    lines = steps(study, "scratch")
    rates = [line["mlm_probability"] for line in lines]
    assert rates[0] == pytest.approx(0.4)
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rates[-1] > 0.15
    # More is masked at first than at last.
    masked = [line["tokens/masked"] for line in lines]
    assert masked[0] > 1.5 * (masked[-1] - masked[-2])


def test_schedules_stay_and_end_as_the_arms_say(study: FinishedStudy) -> None:
    stable = [line["learning_rate"] for line in steps(study, "scratch")]
    middle = stable[2 : len(stable) // 2]
    assert middle
    assert set(middle) == {1e-2}
    assert stable[-1] < 3e-3
    cosine = [line["learning_rate"] for line in steps(study, "pruned")]
    assert 1e-3 < cosine[-1] < cosine[0] <= 1e-2


def test_audit_recounts_all_of_it(study: FinishedStudy) -> None:
    ended = kdjax("audit", study.out)
    assert ended.status == 0, ended.out + ended.err
    # A masking rate that was another, and a calibration that nobody did, are found.
    path = study.out / "study.json"
    content = path.read_text()
    manifest = json.loads(content)
    manifest["costs"]["pruned"]["upfront"]["calibration"] += 1
    path.write_text(json.dumps(manifest))
    ended = kdjax("audit", study.out)
    path.write_text(content)
    assert ended.status != 0
    assert "costs.pruned.upfront.calibration" in ended.out + ended.err


def test_calibration_beyond_the_text_is_refused_before_training(
    study: FinishedStudy, tmp_path: Path
) -> None:
    ended = kdjax(
        "compare",
        study.recipe,
        "--out",
        tmp_path / "out",
        "--arms.pruned.start.calibration_sequences",
        "4000",
        "--budget.flops",
        "1e12",
    )
    assert ended.status == 2
    assert "arms.pruned: start.calibration_sequences is 4,000, expected at most" in ended.err
