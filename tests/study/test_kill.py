"""A study killed with SIGKILL at any moment, and started again, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import small_study

WORDS = ["--arms", "{logit: {}}", "--seeds", "[0]", "--train.checkpoint.seconds", "0"]


def command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "kdjax", "compare", str(recipe), "--out", str(out), *WORDS]


@pytest.fixture(scope="module")
def environment(compiled_once: Mapping[str, str]) -> dict[str, str]:
    """One device, and programs compiled once."""
    return {**os.environ, **compiled_once, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}


def kill_when(
    happened: Callable[[], bool], recipe: Path, out: Path, environment: Mapping[str, str], limit: float = 120.0
) -> None:
    """Starts the command and kills it as soon as something has happened on disk."""
    process = subprocess.Popen(
        command(recipe, out), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    ends = time.monotonic() + limit
    while not happened():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < ends, "what was waited for never happened"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def finished(recipe: Path, out: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    ended = subprocess.run(command(recipe, out), env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    run: dict[str, Any] = json.loads((out / "results.json").read_text())["runs"][0]
    return run


def test_kills_change_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    recipe = small_study.write(tmp_path / "recipe")
    straight = finished(recipe, tmp_path / "straight", environment)

    out = tmp_path / "killed"
    run = out / "runs" / "logit-seed0"
    checkpoints = run / "checkpoints"

    def saved(least: int) -> Callable[[], bool]:
        return lambda: any(path.name.isdigit() and int(path.name) >= least for path in checkpoints.glob("*"))

    moments: list[Callable[[], bool]] = [
        out.exists,  # start-up
        (out / "data" / "manifest.json").exists,  # text prepared, teacher not
        lambda: any((out / "teacher.fit" / "checkpoints").glob("*")),  # the head being fitted
        (run / "manifest.json").exists,  # compiling, or the first steps
        saved(2),
        saved(4),
        lambda: any(checkpoints.glob("*tmp*")),  # in the middle of a save
    ]
    for moment in moments:
        kill_when(moment, recipe, out, environment)
        assert not (run / "result.json").exists()
    resumed = finished(recipe, out, environment)

    for name in ("params_sha256", "spent", "steps", "tokens_seen", "tokens_unique", "metrics", "curve"):
        assert resumed[name] == straight[name], name
