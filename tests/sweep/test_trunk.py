"""A trained sweep whose budgets share a trunk: each study is what its recipe makes alone."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.audit.audit import audit
from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.recipes import dump
from kdjax.study.runs.snapshots import kept_snapshots
from kdjax.sweep.cells import cells_of, shares_trunk
from kdjax.sweep.check_trunk import check_trunk
from kdjax.sweep.trunk import trunk_cost
from tests.study.conftest import Ended, kdjax
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

BUDGETS = [1.0e7, 2.0e7, 4.0e7]
SAME = ("params_sha256", "spent", "steps", "phases", "tokens_seen", "curve", "metrics", "used")
TRAIN: dict[str, Any] = {
    "batch_size": 8,
    "log": {"every": 1},
    "evaluations": 3,
    "optimizer": {"learning_rate": 1.0e-2, "schedule": "wsd", "decay": 0.25, "warmup": 0.3},
    # Within the first study's trunk, and behind it in each
    "checkpoint": {"keep_at_words": [10, 150]},
}


@dataclass(frozen=True)
class Swept:
    recipe: Path
    out: Path
    results: dict[str, Any]
    ended: Ended

    @property
    def config(self) -> Config:
        return recipes.load(self.recipe)

    def run(self, budget: float) -> Path:
        """Return the directory of the run of a budget."""
        name = next(cell["name"] for cell in self.results["cells"] if is_of(cell, budget))
        return self.out / "cells" / name / "runs" / "scratch-seed0"


def is_of(cell: dict[str, Any], budget: float) -> bool:
    return bool(cell["budget"]["amount"] == budget)


def row_of(run: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((run / "result.json").read_text())
    return row


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    here = tmp_path_factory.mktemp("trunk")
    recipe = small_study.write(
        here,
        arms={"scratch": {}},
        seeds=[0],
        train=TRAIN,
        evaluation={"mlm_sequences": 8, "protocols": [], "mlm_probe": {"tokens": 0}},
        sweep={"trunk": "shared", "budget.flops": BUDGETS},
    )
    ended = kdjax("sweep", recipe, "--out", here / "out")
    assert ended.status == 0, ended.err
    results = json.loads((here / "out" / "sweep.json").read_text())
    return Swept(recipe, here / "out", results, ended)


def test_study_of_a_shared_trunk_equals_its_recipe_made_alone(swept: Swept, tmp_path: Path) -> None:
    (cell,) = [cell for cell in cells_of(swept.config) if cell.config.budget.flops == BUDGETS[-1]]
    assert cell.config.train.optimizer.warmup_budget == BUDGETS[0]
    (tmp_path / "alone.yaml").write_text(dump(cell.config))
    ended = kdjax("compare", tmp_path / "alone.yaml", "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    run = tmp_path / "out" / "runs" / "scratch-seed0"
    alone = row_of(run)
    branch = row_of(swept.run(BUDGETS[-1]))
    assert {name: branch[name] for name in SAME} == {name: alone[name] for name in SAME}
    assert len(branch["curve"]) == 3
    assert "shared" not in alone
    # Snapshots on the trunk are its own, too.
    assert kept_snapshots(swept.run(BUDGETS[-1])) == kept_snapshots(run)
    assert list(kept_snapshots(run)) == ["chck_10", "chck_150"]


def test_sweep_pays_for_no_step_twice_as_its_price_said(swept: Swept) -> None:
    rows = [row_of(swept.run(budget)) for budget in BUDGETS]
    assert "shared" not in rows[0]
    (step,) = {row["phases"][0]["flops"] // row["steps"] for row in rows}
    paid = rows[0]["steps"]
    for smaller, row in itertools.pairwise(rows):
        # By hand: the steps that begin before three quarters of the smaller budget are spent
        trunk = int(0.75 * smaller["budget"]["amount"] // step) + 1
        assert row["shared"]["steps"] == trunk
        assert row["shared"]["flops"] == trunk * step
        paid += row["steps"] - trunk
    cost = trunk_cost(swept.config)
    assert cost is not None
    assert cost.alone == sum(row["spent"]["total"] for row in rows)
    assert cost.paid == paid * step
    assert cost.line() in " ".join(swept.ended.out.split())


def test_audit_holds_branches_against_the_other_runs_trunk(swept: Swept, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(swept.out, copy)
    run = copy / swept.run(BUDGETS[-1]).relative_to(swept.out)
    row = row_of(run)
    row["shared"]["flops"] += 1
    (run / "result.json").write_text(json.dumps(row))
    # The other study's journal is exchanged for that of a run which has no such trunk.
    middle = copy / swept.run(BUDGETS[1]).relative_to(swept.out) / "ledger.jsonl"
    shutil.copy(swept.run(BUDGETS[0]) / "ledger.jsonl", middle)
    differences = list(map(str, audit(copy)))
    assert any("result.json: shared.flops" in difference for difference in differences)
    assert any("expected an entry of" in difference for difference in differences)


def test_budget_that_joins_goes_on_from_a_trunk_and_a_sweep_of_another_kind_is_refused(
    swept: Swept, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(swept.out, copy)
    recipe = yaml.safe_load(swept.recipe.read_text())
    recipe["sweep"]["budget.flops"] = [*BUDGETS, 5.0e7]
    joined = tmp_path / "joined.yaml"
    joined.write_text(yaml.safe_dump(recipe))
    ended = kdjax("sweep", joined, "--out", copy)
    assert ended.status == 0, ended.err
    (run,) = copy.glob("cells/*5e+07/runs/*")
    assert row_of(run)["shared"]["study"] == swept.run(BUDGETS[-1]).parents[1].name
    assert audit(copy) == []
    ended = kdjax("sweep", swept.recipe, "--out", copy, "--sweep.trunk", "own")
    assert ended.status == 2
    assert "this sweep's sweep.trunk is 'shared', expected None" in ended.err


def test_pilot_of_five_budgets_takes_two_thirds(swept: Swept) -> None:
    budgets = [3.0e9, 7.0e9, 1.7e10, 4.0e10, 1.0e11]
    optimizer = {"train.optimizer.decay": 0.1, "train.optimizer.warmup": 0.06}
    pilot = replace(
        recipes.changed(swept.config, optimizer),
        sweep={"trunk": "shared", "budget.flops": budgets},
    )
    cost = trunk_cost(pilot)
    assert cost is not None
    assert cost.runs == len(budgets)
    # By hand: nine tenths of each budget but the largest are not paid again.
    expected = 1 - 0.9 * sum(budgets[:-1]) / sum(budgets)
    assert cost.paid / cost.alone == pytest.approx(expected, rel=1e-3)


RECIPE: dict[str, Any] = {
    "student": small_study.STUDENT,
    "teacher": {"architecture": small_study.TEACHER},
    "data": {"seq_len": 16},
    "arms": {"scratch": {}, "logit": {}},
    "budget": {"flops": 1e12},
    "train": {"optimizer": {"schedule": "wsd"}},
}
SCHEDULED = {"name": "logit", "weight": {"points": [[0, 1], [1, 0]]}}


@pytest.mark.parametrize(
    ("changes", "swept_over", "line"),
    [
        ({}, "train.batch_size", "no budget is swept over, expected budget.flops or"),
        ({"budget": {"hours": 1.0}}, "budget.hours", "sweep has budget.hours under sweep.trunk"),
        (
            {"train": {"optimizer": {"schedule": "cosine"}}},
            "budget.flops",
            "arms.scratch: optimizer.schedule is 'cosine' under sweep.trunk shared",
        ),
        (
            {"arms": {"logit": {"optimizer": {"schedule": "linear"}}}},
            "budget.flops",
            "arms.logit: optimizer.schedule is 'linear' under sweep.trunk shared, expected 'wsd'",
        ),
        (
            {"data": {"seq_len": 16, "mlm_probability_start": 0.3}},
            "budget.flops",
            "data.mlm_probability_start is 0.3 under sweep.trunk shared",
        ),
        (
            {"train": {**RECIPE["train"], "batch_ramp": [{"until": 0.5, "batch_size": 4}]}},
            "budget.flops",
            "arms.scratch: 2 phases or stretches of a batch ramp under sweep.trunk shared",
        ),
        (
            {"arms": {"logit": {"terms": [SCHEDULED]}}},
            "budget.flops",
            "arms.logit: a term's weight or option changes over the budget under sweep.trunk",
        ),
    ],
)
def test_trunk_that_budgets_cannot_share_is_refused(
    changes: dict[str, Any], swept_over: str, line: str
) -> None:
    config = recipes.from_dict({**RECIPE, **changes})
    with pytest.raises(InputError) as refused:
        check_trunk(config, arms_of(config), [swept_over])
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_word_that_is_neither_own_nor_shared_is_refused() -> None:
    with pytest.raises(InputError, match=r"sweep\.trunk is 'both', expected own or shared"):
        shares_trunk(Config(sweep={"trunk": "both", "budget.flops": [1e12]}))
