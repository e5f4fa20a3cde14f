"""The scripts and the real kdjax: a study on a slice that is preempted in the middle of a run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from kdjax.budget.journal import read
from tests.conftest import FLAGS
from tests.support import small_study
from tests.tpu_scripts.conftest import Cloud, program

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
CHANGES: dict[str, Any] = {
    "arms": {"scratch": {}},
    "seeds": [0],
    "train": {"batch_size": 8, "evaluations": 1, "checkpoint": {"seconds": 0}},
    "evaluation": {"mlm_sequences": 8, "tasks": {}},
}
KDJAX = """#!/bin/bash
# The real one, its bucket a directory of this machine.
exec env {environment} {python} -m kdjax "${{@//gs:\\/\\//$FAKE_CLOUD/bucket/}}"
"""


def test_study_on_a_preempted_slice_ends_within_budget_and_with_its_report(
    cloud: Cloud, tmp_path: Path
) -> None:
    recipe = small_study.write(tmp_path / "recipe", **CHANGES)
    flags = " ".join(flag for flag in FLAGS if "device_count" not in flag)
    variables = {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": ROOT,
        "KDJAX_DISTRIBUTED": "",
    }
    variables["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"]  # what is compiled is kept there
    environment = shlex.join(f"{name}={value}" for name, value in variables.items())
    stub = KDJAX.format(environment=environment, python=shlex.quote(sys.executable))
    program(cloud.world / "bin" / "kdjax-stub", stub)

    saved = "bucket/a-bucket/kd/runs/scratch-seed0/checkpoints/*"
    cloud.fates([f"ACTIVE until {saved}", "PREEMPTED"], ["ACTIVE"])
    ended = cloud.run("watch.sh", CONFIG=recipe, SPOT=1, POLL=0.3, limit=400)
    assert ended.status == 0, ended.err
    assert "kd is lost: PREEMPTED" in ended.err
    assert cloud.slices == []

    (run,) = json.loads((cloud.work / "runs/kd/results.json").read_text())["runs"]
    assert run["used"] <= small_study.BUDGET < run["used"] + run["used"] / run["steps"]
    entries = read(cloud.work / "runs/kd/runs/scratch-seed0/ledger.jsonl")
    assert entries[-1]["sha256"] == run["ledger_sha256"]
    assert (cloud.work / "runs/kd/report.html").exists()
