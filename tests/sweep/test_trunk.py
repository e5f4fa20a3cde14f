"""A trained sweep whose budgets share a trunk: each study is what its recipe makes alone."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.audit.audit import audit
from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.recipes import dump
from kdjax.study.runs.snapshots import kept_snapshots
from kdjax.sweep.cells import cells_of
from kdjax.sweep.trunk import trunk_cost
from tests import small_study
from tests.study.conftest import Ended, kdjax
from tests.sweep.sweeps import recipe as pilot

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
    assert audit(swept.out) == []
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
    budgets = json.dumps([*BUDGETS, 5.0e7])
    ended = kdjax("sweep", swept.recipe, "--out", copy, "--sweep.budget.flops", budgets)
    assert ended.status == 0, ended.err
    (run,) = copy.glob("cells/*5e+07/runs/*")
    assert row_of(run)["shared"]["study"] == swept.run(BUDGETS[-1]).parents[1].name
    assert audit(copy) == []
    ended = kdjax("sweep", swept.recipe, "--out", copy, "--sweep.trunk", "own")
    assert ended.status == 2
    assert "this sweep's sweep.trunk is 'shared', expected None" in ended.err


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["--sweep.trunk", "both"], "sweep.trunk is 'both', expected own or shared"),
        (["--train.optimizer.schedule", "cosine"], "optimizer.schedule is 'cosine' under sweep"),
        (
            ["--arms.logit.optimizer", "{schedule: linear}"],
            "arms.logit: optimizer.schedule is 'linear' under sweep.trunk shared, expected 'wsd'",
        ),
        (["--data.mlm_probability_start", "0.3"], "data.mlm_probability_start is 0.3 under sweep"),
        (
            ["--train.batch_ramp", "[{until: 0.5, batch_size: 4}]"],
            "arms.scratch: 2 phases or stretches of a batch ramp under sweep.trunk shared",
        ),
        (
            ["--arms.logit.terms", "[{name: logit, weight: {points: [[0, 1], [1, 0]]}}]"],
            "arms.logit: a term's weight or option changes over the budget under sweep.trunk",
        ),
    ],
)
def test_trunk_that_budgets_cannot_share_is_refused(overrides: list[str], line: str) -> None:
    shared = ("--sweep.trunk", "shared", "--train.optimizer.schedule", "wsd")
    with pytest.raises(InputError) as refused:
        cells_of(pilot(*shared, *overrides))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("sweep", "line"),
    [
        ({"train.batch_size": [4, 8]}, "no budget is swept over, expected budget.flops or"),
        ({"budget.hours": [1.0, 2.0]}, "sweep has budget.hours under sweep.trunk shared"),
    ],
)
def test_trunk_without_countable_budgets_is_refused(sweep: dict[str, Any], line: str) -> None:
    settings = {"sweep": {"trunk": "shared", **sweep}, "arms": {"scratch": {}}}
    train = {"optimizer": {"schedule": "wsd"}}
    budget = {} if "budget.hours" in sweep else {"flops": 1e12}
    with pytest.raises(InputError, match=line):
        cells_of(recipes.from_dict({**settings, "train": train, "budget": budget}))


def test_pilot_of_five_budgets_takes_two_thirds() -> None:
    overrides = ("--sweep.trunk", "shared", "--train.optimizer.schedule", "wsd")
    cost = trunk_cost(pilot(*overrides))
    assert cost is not None
    assert cost.runs == 45
    # By hand: nine tenths of each budget but the largest are not paid again.
    budgets = [3.0e11, 7.0e11, 1.7e12, 4.0e12, 1.0e13]
    expected = 1 - 0.9 * sum(budgets[:-1]) / sum(budgets)
    assert cost.paid / cost.alone == pytest.approx(expected, rel=1e-3)
