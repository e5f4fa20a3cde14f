"""The speed benchmark's command: what it needs, what it refuses, and one run of it on the smallest
sizes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import speed
from benchmarks.machine import restrict
from kdjax.errors import InputError

ROOT = Path(__file__).parents[2]
NOT_NEEDED = (
    "orbax",
    "grain",
    "jsonargparse",
    "tokenizers",
    "array_record",
    "sklearn",
    "optuna",
    "tensorboard",
)
"""What training and evaluation need and a machine with a GPU, JAX and PyTorch may lack."""


def run(arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a pair of tiny models, in a process of its own, where `NOT_NEEDED` cannot
    be imported."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_NEEDED!r}))
from dataclasses import replace
import benchmarks.growth
from benchmarks import cases, speed
sizes = dict(layers=2, width=32, heads=2, ffn=64, max_positions=16)
small = cases.PAIRS["small"]
cases.PAIRS["small"] = cases.Pair(replace(small.student, **sizes), replace(small.teacher, **sizes))
speed.MATMULS["cpu"] = (64,)
sys.argv = {["speed", *arguments.split()]!r}
speed.main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_speed_of_one_arm_from_end_to_end(tmp_path: Path) -> None:
    sizes = "--pair small --arms minilm --dropout 0 --batch 2 --length 16 --slots 2"
    done = run(f"{sizes} --rounds 2 --seconds 0.01 --threads 1 --out {tmp_path}")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    (row,) = figures["rows"]
    assert row["arm"] == "minilm"
    assert row["tokens"]["kdjax"] * row["seconds"]["kdjax"] == pytest.approx(2 * 16)
    assert row["speedup"]["low"] <= row["speedup"]["median"] <= row["speedup"]["high"]
    assert row["unfused"]["handed over"] == 3 * 2 * 16 * 32 * 4
    assert "| small | minilm | 0 |" in (tmp_path / "speed.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"batch": 0}, "--batch is 0, expected at least 1"),
        ({"slots": 9}, r"--slots is 9, expected at most --length, 8 \(small\)"),
    ],
)
def test_speed_refuses_sizes_that_make_no_batch(settings: dict[str, int], line: str) -> None:
    with pytest.raises(InputError, match=line):
        speed.check(
            argparse.Namespace(
                **{
                    "pair": ["small"],
                    "device": "cpu",
                    "batch": None,
                    "length": 8,
                    "slots": 2,
                    "rounds": 1,
                    **settings,
                }
            )
        )


def test_speed_refuses_more_cores_than_there_are() -> None:
    with pytest.raises(InputError, match="--threads is 10000, expected 1 to "):
        restrict(10000)
