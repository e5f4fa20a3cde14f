"""A trained sweep and the plan fitted to it: studies share text, teacher and compiled steps."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kdjax import recipes
from kdjax.errors import InputError
from kdjax.results.verdicts import Endpoint
from kdjax.study.runs import runner
from kdjax.sweep.cells import cells_of
from kdjax.sweep.isoflop import profiles
from kdjax.sweep.schema import SweepRow
from kdjax.training import program
from tests.study.conftest import kdjax
from tests.support import small_study
from tests.sweep.sweeps import recipe as made_up_recipe
from tests.sweep.sweeps import sweep

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

BUDGETS = [1.0e7, 2.0e7, 4.0e7, 8.0e7]
BARE = {
    "arms": {"scratch": {}, "logit": {}},
    "train": {
        "batch_size": 8,
        "log": {"every": 1},
        "evaluations": 1,
        "optimizer": {"learning_rate": 1.0e-2},
    },
    "evaluation": {"mlm_sequences": 8, "protocols": ["probe"]},
    "sweep": {"budget.flops": BUDGETS},
}


@dataclass(frozen=True)
class Swept:
    recipe: Path
    out: Path
    results: dict[str, Any]
    compiled: int


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    here = tmp_path_factory.mktemp("sweep")
    recipe = small_study.write(here, **BARE)
    program._program.cache_clear()  # other tests of this process may have compiled the same steps
    ended = kdjax("sweep", recipe, "--out", here / "out")
    assert ended.status == 0, ended.err
    results = json.loads((here / "out" / "sweep.json").read_text())
    return Swept(recipe, here / "out", results, program._program.cache_info().misses)


def test_sweep_has_a_run_for_every_budget_arm_and_seed(swept: Swept) -> None:
    rows = [(row["budget"], row["arm"], row["seed"]) for row in swept.results["rows"]]
    assert sorted(rows) == sorted(itertools.product(BUDGETS, ("scratch", "logit"), (0, 1)))
    for row in swept.results["rows"]:
        assert row["used"] <= row["budget"]
        assert row["spent"]["charged"] == row["used"]


def test_studies_share_text_teacher_and_compiled_steps(swept: Swept) -> None:
    shared = sorted(path.name.partition("-")[0] for path in (swept.out / "shared").iterdir())
    assert shared == ["data", "references", "teacher"]
    assert swept.compiled == 3  # the teacher's head, and a step an arm
    # Every run of a seed begins with the same text and student, whatever its budget.
    starts: dict[int, set[Any]] = {row["seed"]: set() for row in swept.results["rows"]}
    for manifest in (swept.out / "cells").glob("*/runs/*/manifest.json"):
        values = json.loads(manifest.read_text())
        starts[values["seed"]].add((values["corpus"], json.dumps(values["config"]["student"])))
    assert all(len(start) == 1 for start in starts.values())


def test_curves_and_differences_equal_those_of_the_studies(swept: Swept) -> None:
    (group,) = swept.results["groups"]
    cells = {cell["budget"]["amount"]: cell["name"] for cell in swept.results["cells"]}
    # A point of a curve is the mean over the study's seeds.
    for point in group["curves"]["mlm_loss"]["logit"]:
        results = json.loads(
            (swept.out / "cells" / cells[point["budget"]] / "results.json").read_text()
        )
        values = [run["metrics"]["mlm_loss"] for run in results["runs"] if run["arm"] == "logit"]
        assert point["mean"] == pytest.approx(sum(values) / 2)

    # A difference is that of the study's verdict, whose winner comes first.
    (pair,) = group["pairs"]
    for point in pair["points"]:
        results = json.loads(
            (swept.out / "cells" / cells[point["budget"]] / "results.json").read_text()
        )
        matching = [v for v in results["verdicts"] if v["endpoint"] == "mlm_loss"]
        (verdict,) = matching
        assert abs(point["difference"]) == pytest.approx(abs(verdict["difference"]))
        assert point["low"] <= point["difference"] <= point["high"]


def test_sweep_repeated_trains_nothing_and_keeps_its_bytes(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runner, "train", lambda *_, **__: pytest.fail("a finished run was trained again")
    )
    before = (swept.out / "sweep.json").read_bytes()
    ended = kdjax("sweep", swept.recipe, "--out", swept.out)
    assert ended.status == 0, ended.err
    assert (swept.out / "sweep.json").read_bytes() == before


def test_directory_of_another_recipe_is_refused_naming_the_setting(swept: Swept) -> None:
    ended = kdjax(
        "sweep", swept.recipe, "--out", swept.out, "--train.optimizer.learning_rate", "0.02"
    )
    assert ended.status == 2
    assert (
        "this sweep's train.optimizer.learning_rate is 0.01, expected 0.02; use another --out"
        in ended.err
    )


@pytest.mark.exhaustive
def test_audit_of_a_changed_sweep_names_the_changed_metric(swept: Swept, tmp_path: Path) -> None:
    ended = kdjax("audit", swept.out)
    assert ended.status == 0, ended.out + ended.err
    shutil.copytree(swept.out, tmp_path / "changed")
    path = tmp_path / "changed" / "sweep.json"
    # One metric of one run is enough: every figure is counted again from the studies.
    changed = json.loads(path.read_text())
    changed["rows"][0]["metrics"]["mlm_loss"] -= 0.5
    path.write_text(json.dumps(changed))
    ended = kdjax("audit", tmp_path / "changed")
    assert ended.status == 2
    assert "rows.0.metrics.mlm_loss" in ended.out


def test_plan_of_a_finished_sweep_is_fitted_to_its_runs(swept: Swept, tmp_path: Path) -> None:
    ended = kdjax(
        "plan",
        swept.recipe,
        "--out",
        tmp_path,
        "--plan.pilot",
        swept.out,
        "--plan.resamples",
        "200",
    )
    assert ended.status == 0, ended.err
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["budgets"] == [times * BUDGETS[-1] for times in (1, 3, 10, 30, 100)]
    for arm, fit in plan["fits"].items():
        assert len(fit["predictions"]) == 5
        assert all(p["low"] <= p["mean"] <= p["high"] for p in fit["predictions"])
        # At the pilot's largest budget the plan counts what the run itself counted.
        bought = plan["arms"][arm]["bought"][0]
        run = next(
            row
            for row in swept.results["rows"]
            if (row["arm"], row["budget"]) == (arm, BUDGETS[-1])
        )
        assert bought["steps"] == run["steps"]
        assert bought["tokens"] == pytest.approx(run["tokens_seen"], rel=0.05)
    (held,) = plan["held_out"]
    assert held["budgets"] == 1
    assert {row["flops"] for row in held["arms"]} == {BUDGETS[-1]}
    assert set(plan["contests"]) == {"nothing", "inference"}
    assert (tmp_path / "plan.html").read_text().startswith("<!doctype html>")


def test_plan_without_a_pilot_has_prices_and_published_laws(swept: Swept, tmp_path: Path) -> None:
    ended = kdjax("plan", swept.recipe, "--out", tmp_path, "--plan.budgets", "[1e8, 1e9]")
    assert ended.status == 0, ended.err
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["fits"] is None
    assert plan["contests"] is None
    assert {arm: prior["law"] for arm, prior in plan["prior"]["arms"].items()} == {
        "scratch": "supervised",
        "logit": "distillation",
    }
    assert any("below the fit's range" in sentence for sentence in plan["prior"]["outside"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("--plan.pilot nowhere", "expected the directory of a finished `kdjax sweep`"),
        (
            "--plan.pilot {out} --plan.endpoint mlm_los",
            "plan.endpoint is 'mlm_los', expected one of mlm_loss",
        ),
        ("--plan.pilot {out} --train.batch_size 4", "its train is not the recipe's"),
        (
            "--plan.pilot {out} --plan.budgets [-1.0]",
            "plan.budgets is -1.0, expected more than 0",
        ),
    ],
)
def test_plan_with_a_bad_setting_is_refused_in_one_line(
    swept: Swept, tmp_path: Path, changes: str, message: str
) -> None:
    words = changes.format(out=swept.out).split()
    ended = kdjax("plan", swept.recipe, "--out", tmp_path / "out", *words)
    assert ended.status == 2, ended.err
    assert message in ended.err, ended.err
    assert ended.err.count("\n") == 1, ended.err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "sweep is empty"),
        ({"budget.flops": 1e8}, "sweep.budget.flops is .*, expected a list of values"),
        (
            {"budget.flop": [1e8]},
            r"unknown setting '--budget.flop' \(did you mean '--budget.flops'",
        ),
        ({"student.layers": ["two"]}, "student.layers 'two'"),
        ({"seeds": [[0], [1]]}, "sweep.seeds: cannot be swept over"),
        ({"student.heads": [2, 3]}, "3 heads do not divide the width 16"),
        ({"budget.flops": [1e8, "1e8"]}, "expected each value once"),
    ],
)
def test_sweep_with_bad_values_is_refused(
    tmp_path: Path, values: Mapping[str, Any], message: str
) -> None:
    recipe = small_study.write(tmp_path, **{**BARE, "sweep": dict(values)})
    with pytest.raises(InputError, match=message):
        cells_of(recipes.load(recipe))


@pytest.mark.parametrize("values", [["a/b.txt", "a_b.txt"], ["A.txt", "a.txt"]])
def test_studies_that_would_share_a_directory_are_refused(values: list[str]) -> None:
    config = replace(made_up_recipe(), sweep={"data.files": values})
    with pytest.raises(InputError, match=r"would both lie in data\.files="):
        cells_of(config)


def test_directory_of_long_foreign_values_has_a_name_that_disks_take() -> None:
    config = replace(made_up_recipe(), sweep={"teacher.note": ["語" * 90, "語" * 99]})
    names = [cell.name for cell in cells_of(config)]
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 100 for name in names)


def test_compare_with_a_sweep_in_the_recipe_is_refused(swept: Swept, tmp_path: Path) -> None:
    ended = kdjax("compare", swept.recipe, "--out", tmp_path / "out")
    assert ended.status == 2
    assert "expected `kdjax sweep`" in ended.err


def test_cells_of_several_settings_have_small_budgets_first(tmp_path: Path) -> None:
    several = {
        "student.layers": [1, 2],
        "budget.flops": [2e8, 1e8],
        "train.optimizer.learning_rate": [1e-3],
    }
    recipe = small_study.write(tmp_path, **{**BARE, "sweep": several})
    cells = cells_of(recipes.load(recipe))
    settings = [
        (c.config.budget.flops, c.config.student.layers, c.config.train.optimizer.learning_rate)
        for c in cells
    ]
    assert settings == [(1e8, 1, 1e-3), (1e8, 2, 1e-3), (2e8, 1, 1e-3), (2e8, 2, 1e-3)]
    assert len({cell.name for cell in cells}) == 4
    assert yaml.safe_load(recipe.read_text())["sweep"] == several


def test_isoflop_optimum_equals_the_vertex_of_a_planted_parabola() -> None:
    some_run = sweep(made_up_recipe()).rows[0]

    def row(size: int, seed: int, loss: float) -> SweepRow:
        return replace(
            some_run,
            arm="scratch",
            seed=seed,
            budget=1e9,
            settings={"student.layers": size, "budget.flops": 1e9},
            parameters_without_embeddings=size,
            metrics={"mlm_loss": loss},
        )

    endpoint = Endpoint("mlm_loss", "Held-out MLM loss", "nats", "lower", "mlm", ("scratch",))
    # In log10 size: (x - 2)^2 + 1 of seed 0 and (x - 2.02)^2 + 1 of seed 1.
    rows = [
        row(10**x, seed, (x - best) ** 2 + 1)
        for (seed, best), x in itertools.product(((0, 2.0), (1, 2.02)), (1, 2, 3))
    ]
    (profile,) = profiles(rows, [endpoint], 0.95)
    assert [point.parameters for point in profile.points] == [10, 100, 1000]
    assert profile.points[1].mean == pytest.approx((1.0 + 1.0004) / 2)
    assert profile.optimum is not None
    assert profile.optimum.parameters == pytest.approx(10**2.01)
    assert profile.optimum.low is not None
    assert profile.optimum.high is not None
    # Where |slope + 2 v curvature| is at most t(2) = 4.303 errors, found on a grid of v.
    interval = np.log10([profile.optimum.low, profile.optimum.high])
    np.testing.assert_allclose(interval, [1.9795, 2.0407], atol=1e-4)
    # Seeds that disagree on the slope by far leave the curvature open, and with it both ends.
    rows = [
        row(10**x, seed, (x - best) ** 2 + 1)
        for (seed, best), x in itertools.product(((0, 1.6), (1, 2.6)), (1, 2, 3))
    ]
    (open_profile,) = profiles(rows, [endpoint], 0.95)
    assert open_profile.optimum is not None
    assert open_profile.optimum.parameters == pytest.approx(10**2.1)
    assert (open_profile.optimum.low, open_profile.optimum.high) == (None, None)

    # A loss that falls over all sizes has its best size beyond them, and one size has no profile.
    (falling,) = profiles([row(10**x, 0, -float(x)) for x in (1, 2, 3)], [endpoint], 0.95)
    assert falling.optimum is None
    assert profiles([row(10, seed, 1.0) for seed in (0, 1)], [endpoint], 0.95) == []
