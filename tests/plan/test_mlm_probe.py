"""A plan is fitted to the MLM probe's values as to those of any other endpoint."""

from __future__ import annotations

import json
from pathlib import Path

from kdjax.plan.pilot import pilot_of, runs_of
from kdjax.report.sentences import measures
from kdjax.storage.typed_json import to_plain
from tests.sweep.sweeps import recipe, sweep


def test_plan_of_the_mlm_probe_takes_the_runs_of_every_arm(tmp_path: Path) -> None:
    # A sweep of the probe: the made-up sweep with its loss renamed.
    text = json.dumps(to_plain(sweep(recipe())))
    text = text.replace('"mlm_loss"', '"mlm_probe"').replace('"kind": "mlm"', '"kind": "mlm_probe"')
    (tmp_path / "sweep.json").write_text(text, encoding="utf-8")
    config = recipe("--plan", json.dumps({"pilot": str(tmp_path), "endpoint": "mlm_probe"}))
    pilot = pilot_of(config)
    runs = runs_of(config, pilot)
    assert {run.arm for run in runs} == set(config.arms)
    assert [run.value for run in runs] == [row.metrics["mlm_probe"] for row in pilot.rows]
    assert measures(pilot.endpoints) == "MLM probe and linear probes (topic)"
